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
    /// Probes pass along every path; then the clocks are seen to.
    Probe(ProbeStep, Probing),
    /// There is a load, from the order to begin it until its report.
    Loaded(LoadStep, Box<Load>),
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

/// How far the probes have come.
#[derive(Clone, Copy, Debug)]
pub(super) enum ProbeStep {
    /// They are sent and looked for.
    Look,
    /// Every path is open; the load begins once each clock is known. A worker whose clock is not known by then is lost.
    MeasureClocks {
        /// The deadline.
        until: Instant,
    },
    /// Every worker is being given the fleet's time; then the load begins.
    SetClocks,
}

/// How far the load has come.
#[derive(Clone, Copy, Debug)]
pub(super) enum LoadStep {
    /// It has been ordered.
    Start,
    /// It goes on, in this phase of it.
    Run(Phase),
    /// The producers stop.
    Stop,
    /// What they have counted is read.
    ReadStopped,
    /// The consumers receive what is left.
    Drain(Drain),
    /// What was acknowledged is compared with what was received, after a drain that ended like this.
    Verify(Drain, Drained),
}

/// Waiting for the consumers to receive what is left.
#[derive(Clone, Copy, Debug)]
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
    /// Why the result is not sound; `None` without a report.
    pub(super) reported: Option<Vec<String>>,
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
            Self::Probe(..) | Self::Loaded(LoadStep::Start, _) => Phase::Probe,
            Self::Loaded(LoadStep::Run(phase), _) => *phase,
            Self::Loaded(LoadStep::Stop | LoadStep::ReadStopped, _) => Phase::Stop,
            Self::Loaded(LoadStep::Drain(_), _) => Phase::Drain,
            Self::Loaded(LoadStep::Verify(..), _) => Phase::Verify,
            Self::TearDown(_) => Phase::TearDown,
        }
    }

    /// The load, from the order to begin it until its report.
    pub(super) fn load_mut(&mut self) -> Option<&mut Load> {
        if let Self::Loaded(_, load) = self { Some(load) } else { None }
    }

    /// Whether the run is on its way to its end: the producers have been stopped, or there is nothing to stop.
    pub(super) fn is_ending(&self) -> bool {
        self.phase() >= Phase::Stop
    }

    /// Whether the last command has been given.
    pub(super) fn is_closing(&self) -> bool {
        matches!(self, Self::TearDown(TearDown { step: TearDownStep::Close, .. }))
    }
}
