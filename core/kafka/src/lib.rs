//! omb-kafka: the Kafka protocol as pure code: requests, answers, record batches. Reads bytes and writes bytes; sends none.
//!
//! ```text
//! frame ─▶ shape (bounds) ─▶ serving::read ─▶ requests of omb_broker ─▶ Ticket::answer ─▶ outgoing
//! ```

pub mod batch;
mod error;
pub mod oauthbearer;
pub mod outgoing;
pub mod reason;
pub mod serving;
mod shape;
