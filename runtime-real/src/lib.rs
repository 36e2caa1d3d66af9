//! omb-runtime-real: machines on real time and real sockets.

pub mod embedded;

/// The version of librdkafka that is linked.
#[must_use]
pub fn v() -> String {
    format!("{:?}", rdkafka::util::get_rdkafka_version())
}
