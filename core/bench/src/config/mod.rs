//! The configuration: text in, checked values out.
//!
//! ```text
//! text ─▶ yaml (keys with line and column) ─▶ workload, driver ─▶ Parsed { value, warnings } or ConfigErrors
//!                                                    └─▶ kafka (Java's property names into librdkafka's)
//!                                                           └─▶ terms (what of it a worker accepts from a controller)
//! ```
//!
//! No [`workload::Workload`] and no [`driver::DriverConfig`] exists that cannot run: any error in a file is found while
//! it is parsed.

mod fit;
mod kafka;
mod properties;

pub mod driver;
pub mod terms;
pub mod workers;
pub mod workload;

pub use fit::{Api, TooSmall, batch_bytes};
pub use kafka::AWS_METHOD;
