//! What happens per message, as step functions on plain data: when it is due, its header, what its arrival says; and
//! what a worker reports of all the counts ([`books`]). Called by threads in one runtime and by simulated tasks in the
//! other.

pub mod books;
pub mod header;
pub mod keys;
pub mod payload;
pub mod receiver;
pub mod sender;
pub mod silence;
pub mod throttle;
