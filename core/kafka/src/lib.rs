//! omb-kafka: the Kafka protocol as pure code.

pub mod oauthbearer;
pub mod reason;
