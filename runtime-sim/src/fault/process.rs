//! Processes that answer late or not at all, pause, die, and come back.

use std::{fmt, time::Duration};

use madsim::runtime::Handle;
use tokio::sync::mpsc;

use super::{Nodes, Who};

/// A fault of a process.
#[derive(Clone, Debug, PartialEq)]
pub enum Trouble {
    /// What the worker performed is reported this late, at most.
    Late(u32, Duration),
    /// What the worker performed is never reported.
    Mute(u32),
    /// It dies, and comes back without its state.
    Killed(u32),
    /// It is asked to end (SIGTERM), and is started again afterwards.
    Shutdown(u32),
    /// It is paused, and goes on with its state.
    Paused(Who),
    /// The controller dies and does not come back.
    ControllerKilled,
}

/// One worker's current faults.
#[derive(Clone, Debug, Default)]
pub struct Now {
    /// The most that a report is delayed.
    pub late: Duration,
    /// Whether reports are swallowed.
    pub mute: bool,
    /// Where to ask it to end.
    pub shutdown: Option<mpsc::UnboundedSender<()>>,
}

impl Trouble {
    /// Its name in the coverage table.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Late(..) => "worker late",
            Self::Mute(_) => "worker mute",
            Self::Killed(_) => "worker killed",
            Self::Shutdown(_) => "worker shut down",
            Self::Paused(Who::Controller) => "controller paused",
            Self::Paused(_) => "worker paused",
            Self::ControllerKilled => "controller killed",
        }
    }

    pub(super) fn turn(&self, workers: &mut [Now], nodes: &Nodes, on: bool) {
        let handle = Handle::current();
        match self {
            Self::Late(worker, by) => workers[*worker as usize].late = if on { *by } else { Duration::ZERO },
            Self::Mute(worker) => workers[*worker as usize].mute = on,
            Self::Killed(worker) if on => {
                // What is paused is dropped under madsim's own lock; what runs is not.
                handle.resume(nodes.workers[*worker as usize]);
                handle.kill(nodes.workers[*worker as usize]);
            }
            Self::Shutdown(worker) if on => {
                // A dead one need not be asked.
                let _ = workers[*worker as usize].shutdown.as_ref().map(|to| to.send(()));
            }
            Self::Killed(worker) | Self::Shutdown(worker) => {
                // Killed before, so that its address is free also where it ended by itself.
                handle.resume(nodes.workers[*worker as usize]);
                handle.kill(nodes.workers[*worker as usize]);
                handle.restart(nodes.workers[*worker as usize]);
            }
            Self::Paused(target) => {
                for node in nodes.of(*target) {
                    if on {
                        handle.pause(node);
                    } else {
                        handle.resume(node);
                    }
                }
            }
            Self::ControllerKilled if on => {
                handle.resume(nodes.controllers[0]);
                handle.kill(nodes.controllers[0]);
            }
            Self::ControllerKilled => {}
        }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Late(worker, by) => write!(f, "worker {worker} reports late by up to {} ms", by.as_millis()),
            Self::Mute(worker) => write!(f, "worker {worker} reports nothing"),
            Self::Killed(worker) => write!(f, "worker {worker} dead"),
            Self::Shutdown(worker) => write!(f, "worker {worker} shut down, and away"),
            Self::Paused(target) => write!(f, "{target} stands still"),
            Self::ControllerKilled => f.write_str("the controller is killed for good"),
        }
    }
}
