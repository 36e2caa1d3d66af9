//! What an error of a Kafka client means to a run that is being set up: whether waiting can help.
//!
//! Numbers below 0 are librdkafka's own, the others Kafka's (`org.apache.kafka.common.protocol.Errors`).

use super::FailureKind;

/// What an error means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meaning {
    /// What kind of failure it is.
    pub kind: FailureKind,
    /// Whether it may pass by itself: a leader is elected, a coordinator loads, a connection comes back. Otherwise
    /// waiting brings nothing new.
    pub heals: bool,
}

/// The meaning of the error with this number. One that is not listed may pass, as far as is known.
#[must_use]
pub fn of(code: i32) -> Meaning {
    let listed = LASTING.iter().find(|(number, ..)| *number == code).map(|(_, _, kind)| (*kind, false));
    let (kind, heals) = listed.unwrap_or_else(|| {
        let unreachable = UNREACHABLE.iter().any(|(number, _)| *number == code);
        (if unreachable { FailureKind::Unreachable } else { FailureKind::Broken }, true)
    });
    Meaning { kind, heals }
}

/// Errors of something that does not answer; they pass once it does.
const UNREACHABLE: [(i32, &str); 8] = [
    (-195, "local: broker transport failure"),
    (-193, "local: host resolution failure"),
    (-192, "local: message timed out"),
    (-187, "local: all brokers down"),
    (-185, "local: timed out"),
    (5, "leader not available"),
    (7, "request timed out"),
    (15, "coordinator not available"),
];

/// Errors that do not pass by themselves.
///
/// Not among them are: unknown topic or partition (3), from a broker that has not heard of a new topic yet (librdkafka
/// waits for it and then reports -188 or -190 itself); too few replicas (19, 20), of which others may come back; and a
/// quota (89).
const LASTING: [(i32, &str, FailureKind); 46] = {
    use FailureKind::{Broken, Configuration, Refused};
    [
        (-190, "local: unknown partition", Refused),
        (-188, "local: unknown topic", Refused),
        (-186, "local: invalid argument or configuration", Configuration),
        (-181, "local: TLS error", Refused),
        (-170, "local: not implemented", Configuration),
        (-169, "local: authentication failure", Refused),
        (-165, "local: required feature not supported by broker", Refused),
        (-150, "local: fatal error", Broken),
        (-145, "local: not configured", Configuration),
        (-144, "local: fenced by another instance", Refused),
        (10, "message size too large", Refused),
        (17, "invalid topic", Refused),
        (18, "message batch larger than the segment size", Refused),
        (21, "invalid required acks", Refused),
        (23, "inconsistent group protocol", Refused),
        (24, "invalid group id", Refused),
        (26, "invalid session timeout", Refused),
        (29, "topic authorization failed", Refused),
        (30, "group authorization failed", Refused),
        (31, "cluster authorization failed", Refused),
        (32, "invalid timestamp", Refused),
        (33, "unsupported SASL mechanism", Refused),
        (34, "illegal SASL state", Refused),
        (35, "unsupported version of an API", Refused),
        (36, "topic already exists", Refused),
        (37, "invalid number of partitions", Refused),
        (38, "invalid replication factor", Refused),
        (39, "invalid replica assignment", Refused),
        (40, "invalid configuration", Refused),
        (42, "invalid request", Refused),
        (43, "unsupported for the message format", Refused),
        (44, "policy violation", Refused),
        (53, "transactional id authorization failed", Refused),
        (54, "security disabled", Refused),
        (58, "SASL authentication failed", Refused),
        (61, "delegation tokens disabled", Refused),
        (62, "delegation token not found", Refused),
        (65, "delegation token authorization failed", Refused),
        (66, "delegation token expired", Refused),
        (76, "unsupported compression type", Refused),
        (81, "group is full", Refused),
        (82, "static member fenced", Refused),
        (87, "invalid record", Refused),
        (93, "unacceptable credential", Refused),
        (97, "principal cannot be deserialized", Refused),
        (112, "unsupported assignor", Refused),
    ]
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_not_does_not_wait_and_who_is_early_does() {
        use FailureKind::{Broken, Refused, Unreachable};
        for (code, kind, heals) in [
            (29, Refused, false),
            (30, Refused, false),
            (10, Refused, false),
            (38, Refused, false),
            (35, Refused, false),
            (-165, Refused, false),
            (-188, Refused, false),
            (-169, Refused, false),
            (87, Refused, false),
            (5, Unreachable, true),
            (6, Broken, true),
            (14, Broken, true),
            (15, Unreachable, true),
            (16, Broken, true),
            (3, Broken, true),
            (19, Broken, true),
            (25, Broken, true),
            (27, Broken, true),
            (-195, Unreachable, true),
            (-185, Unreachable, true),
            (12_345, Broken, true),
        ] {
            assert_eq!(of(code), Meaning { kind, heals }, "{code}");
        }
    }

    #[test]
    fn each_error_is_listed_once_and_in_order() {
        assert!(LASTING.windows(2).all(|pair| pair[0].0 < pair[1].0));
        assert!(UNREACHABLE.iter().all(|(code, _)| LASTING.iter().all(|(other, ..)| code != other)));
    }
}
