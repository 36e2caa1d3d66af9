//! Runs a machine: reads the clock, waits, passes things on; decides nothing.

use std::{future::Future, ops::ControlFlow, time::Duration};

use omb_machine::{
    Machine, settle,
    time::{Instant, WallTime},
};
use tokio::sync::mpsc;

/// A process's own clock. Simulated clocks are skewed and drift.
pub trait Clock {
    /// Nanoseconds since this process's origin.
    fn now(&self) -> Instant;

    /// What the process's wall clock shows at [`Instant::ZERO`].
    fn wall_zero(&self) -> WallTime;

    /// What it shows now, in step with [`Self::now`].
    fn wall(&self) -> WallTime {
        WallTime(self.wall_zero().0 + self.now().0)
    }

    /// How long to sleep in true time until the clock has advanced by `span`.
    fn true_span(&self, span: Duration) -> Duration {
        span
    }
}

/// Where a machine's inputs come from.
pub trait Inputs<I> {
    /// The next one; `None` if there will be none. May be dropped before it is ready without losing one.
    fn next(&mut self) -> impl Future<Output = Option<I>> + Send;
}

impl<I: Send> Inputs<I> for mpsc::UnboundedReceiver<I> {
    async fn next(&mut self) -> Option<I> {
        self.recv().await
    }
}

/// Runs `machine` until `perform` breaks or its inputs end.
///
/// `perform` starts the work that an output asks for and returns at once. What comes of it, failure included, arrives
/// through `inputs`. `look` sees the machine after every step: the simulation's invariants live there.
pub async fn run<M: Machine>(
    machine: &mut M,
    inputs: &mut impl Inputs<M::Input>,
    mut perform: impl FnMut(M::Output) -> ControlFlow<()>,
    mut look: impl FnMut(&M, Instant),
    clock: &impl Clock,
) {
    loop {
        let now = clock.now();
        let ControlFlow::Continue(wake) = settle(machine, now, &mut perform) else { return };
        look(machine, now);
        let nap = wake.map(|wake| clock.true_span(wake.at.since(clock.now())));
        tokio::select! {
            biased;
            input = inputs.next() => match input {
                Some(input) => machine.handle_input(clock.now(), input),
                None => return,
            },
            // What is due is fired by the clock in `settle`, not by the sleep, which a busy task hears late.
            () = sleep(nap) => {}
        }
    }
}

/// Sleeps; for ever if nothing wakes it.
async fn sleep(nap: Option<Duration>) {
    match nap {
        Some(nap) => tokio::time::sleep(nap).await,
        None => std::future::pending().await,
    }
}
