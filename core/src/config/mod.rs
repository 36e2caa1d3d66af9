//! What was asked for: text in, checked values out.
//!
//! No [`workload::Workload`] and no [`driver::DriverConfig`] exists that cannot run: whatever is wrong with a
//! file is found while it is parsed, and the message names the file, the line, the column and the key.

pub mod driver;
pub mod workload;
