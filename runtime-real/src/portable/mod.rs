//! What runs on either clock: **everything in this folder is compiled twice**, here against tokio and in `runtime-sim` (by
//! `#[path]`) against the simulator's tokio. So what is simulated is what runs.
//!
//! | module | what it is |
//! | --- | --- |
//! | [`event_loop`] | the loop around a machine: reads the clock, waits, passes things on |
//! | [`local`] | a whole run in one process: a controller and a worker, each in its loop |
//! | [`fleet`] | a run over several processes: HTTP between a controller and its workers |
//! | [`cluster`] | a node of the peer cluster, and its clients |
//!
//! What keeps both honest: every `select!` is `biased` (a random branch would make a replayed seed another run), no map is
//! iterated in hash order, and the only clock is the one that is handed in. Nothing outside this folder is compiled twice.

pub mod cluster;
pub mod event_loop;
pub mod fleet;
pub mod local;
