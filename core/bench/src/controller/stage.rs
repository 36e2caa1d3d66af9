//! What a run is doing, with all that belongs to it and to nothing else.

use omb_machine::time::Instant;

use super::{groups::Generations, load::Load};
use crate::result::{Drained, Phase};

/// The stages of a run, in order. A stage that waits for nothing but answers holds no instant: their deadline stands in
/// [`Asked`](super::Asked).
#[derive(Debug)]
pub(super) enum Stage {
    /// The workers connect to the messaging system.
    Prepare,
    /// They find out what would prevent the run.
    Check,
    /// Topics are created.
    CreateTopics,
    /// Consumers are created, and their groups settle.
    CreateConsumers(Joining),
    /// Producers are created; the groups have settled in these generations.
    CreateProducers(Generations),
    /// Probes pass along every path.
    Probe(Probing),
    /// Everything else is ready; the load begins once each clock is known.
    MeasureClocks {
        /// A worker whose clock is not known by then is lost.
        until: Instant,
        /// What has been probed.
        probing: Probing,
    },
    /// Every worker is being given the fleet's time; then the load begins.
    SetClocks(Probing),
    /// The load has been ordered.
    Start(Box<Load>),
    /// The load goes on, in this phase of it.
    Load(Phase, Box<Load>),
    /// The producers stop (`Stopping`), and what they have counted is read (`Reading`).
    Stop(Stopping, Box<Load>),
    /// The consumers receive what is left.
    Drain(Drain, Box<Load>),
    /// What was acknowledged is compared with what was received, after a drain that ended like this.
    Verify(Drain, Drained, Box<Load>),
    /// What the run has created is deleted, and every client closed.
    TearDown(TearDown),
}

/// Waiting for the groups to settle.
#[derive(Debug)]
pub(super) struct Joining {
    pub(super) deadline: Instant,
    /// When to look whether they have.
    pub(super) look_at: Instant,
}

/// Waiting for the probes to arrive.
#[derive(Debug)]
pub(super) struct Probing {
    pub(super) deadline: Instant,
    /// When to look whether they have.
    pub(super) look_at: Instant,
    /// When to send another round: the first may have come too early for a group that reads from the end.
    pub(super) again_at: Instant,
    /// How often they were sent since the groups settled.
    pub(super) sent: u32,
    /// Which of them count: rises when the groups have moved on since.
    pub(super) round: u64,
    /// The generations in which the groups have settled.
    pub(super) settled: Generations,
}

/// What a stop waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stopping {
    Producers,
    Counts,
}

/// Waiting for the consumers to receive what is left.
#[derive(Debug)]
pub(super) struct Drain {
    /// The counts agreed, but messages that were given up had arrived in place of confirmed ones: only silence shows
    /// now that nothing more comes.
    pub(super) by_silence: bool,
    pub(super) deadline: Instant,
    pub(super) progress_at: Instant,
    pub(super) distinct: u64,
    /// When to read what has arrived.
    pub(super) next: Instant,
}

/// The end of a run, after its report.
#[derive(Debug)]
pub(super) struct TearDown {
    /// The command that was given last.
    pub(super) step: TearDownStep,
    /// Whether there was a report.
    pub(super) reported: bool,
    /// Why the result is not sound.
    pub(super) unsound: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TearDownStep {
    /// No one may ask for a topic any more when it is deleted: many brokers create it anew for a client that does.
    CloseClients,
    Delete,
    /// The last one.
    Close,
}

impl Stage {
    /// The phase that is shown.
    pub(super) fn phase(&self) -> Phase {
        match self {
            Self::Prepare => Phase::Prepare,
            Self::Check => Phase::Check,
            Self::CreateTopics => Phase::CreateTopics,
            Self::CreateConsumers(_) => Phase::CreateConsumers,
            Self::CreateProducers(_) => Phase::CreateProducers,
            Self::Probe(_) | Self::MeasureClocks { .. } | Self::SetClocks(_) | Self::Start(_) => Phase::Probe,
            Self::Load(phase, _) => *phase,
            Self::Stop(..) => Phase::Stop,
            Self::Drain(..) => Phase::Drain,
            Self::Verify(..) => Phase::Verify,
            Self::TearDown(_) => Phase::TearDown,
        }
    }

    /// The load, from the moment it is ordered until its report.
    pub(super) fn load(&self) -> Option<&Load> {
        match self {
            Self::Start(load)
            | Self::Load(_, load)
            | Self::Stop(_, load)
            | Self::Drain(_, load)
            | Self::Verify(_, _, load) => Some(load),
            _ => None,
        }
    }

    /// As [`Self::load`].
    pub(super) fn load_mut(&mut self) -> Option<&mut Load> {
        match self {
            Self::Start(load)
            | Self::Load(_, load)
            | Self::Stop(_, load)
            | Self::Drain(_, load)
            | Self::Verify(_, _, load) => Some(load),
            _ => None,
        }
    }

    /// The load, if it has been ordered.
    pub(super) fn into_load(self) -> Option<Box<Load>> {
        match self {
            Self::Start(load)
            | Self::Load(_, load)
            | Self::Stop(_, load)
            | Self::Drain(_, load)
            | Self::Verify(_, _, load) => Some(load),
            _ => None,
        }
    }

    /// Whether the run is on its way to its end: the producers have been stopped, or there is nothing to stop.
    pub(super) fn is_ending(&self) -> bool {
        matches!(self, Self::Stop(..) | Self::Drain(..) | Self::Verify(..) | Self::TearDown(_))
    }

    /// Whether the last command has been given.
    pub(super) fn is_closing(&self) -> bool {
        matches!(self, Self::TearDown(TearDown { step: TearDownStep::Close, .. }))
    }
}
