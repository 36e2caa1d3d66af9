//! The protocol's numbers for its errors. Source: Apache Kafka, `Errors.java`.

use omb_broker::ErrorCode;

/// The protocol's numbers for its errors.
pub(crate) mod code {
    pub(crate) const CORRUPT_MESSAGE: i16 = 2;
    pub(crate) const UNSUPPORTED_VERSION: i16 = 35;
    pub(crate) const INVALID_REQUEST: i16 = 42;
    pub(crate) const UNSUPPORTED_FOR_MESSAGE_FORMAT: i16 = 43;
    pub(crate) const INVALID_RECORD: i16 = 87;
}

/// The number of an error.
pub(crate) fn error_code(code: ErrorCode) -> i16 {
    match code {
        ErrorCode::OffsetOutOfRange => 1,
        ErrorCode::CorruptMessage => code::CORRUPT_MESSAGE,
        ErrorCode::UnknownTopicOrPartition => 3,
        ErrorCode::RequestTimedOut => 7,
        ErrorCode::MessageTooLarge => 10,
        ErrorCode::InvalidTopic => 17,
        ErrorCode::IllegalGeneration => 22,
        ErrorCode::InconsistentGroupProtocol => 23,
        ErrorCode::InvalidGroupId => 24,
        ErrorCode::UnknownMemberId => 25,
        ErrorCode::InvalidSessionTimeout => 26,
        ErrorCode::RebalanceInProgress => 27,
        ErrorCode::TopicAlreadyExists => 36,
        ErrorCode::InvalidPartitions => 37,
        ErrorCode::InvalidReplicationFactor => 38,
        ErrorCode::InvalidConfig => 40,
        ErrorCode::OutOfOrderSequence => 45,
        ErrorCode::InvalidProducerEpoch => 47,
        ErrorCode::NonEmptyGroup => 68,
        ErrorCode::GroupIdNotFound => 69,
        ErrorCode::MemberIdRequired => 79,
        ErrorCode::FencedInstanceId => 82,
        ErrorCode::GroupSubscribedToTopic => 86,
        ErrorCode::UnknownTopicId => 100,
    }
}

/// The number of a result: 0 if it is none.
pub(crate) fn result_code<T>(result: &Result<T, ErrorCode>) -> i16 {
    result.as_ref().err().map_or(0, |&code| error_code(code))
}
