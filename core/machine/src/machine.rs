//! What all machines share: one trait, and the loop that brings a machine to rest.

use std::ops::ControlFlow;

use crate::time::Instant;

/// When a machine needs to be woken, and for which of its timers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wake {
    /// The instant at which `handle_timeout` has something to do.
    pub at: Instant,
    /// The timer's name, for logs: `"call deadline"`, `"session of a member"`.
    pub why: &'static str,
}

impl Wake {
    /// The earlier of the two; the first if they are equal.
    #[must_use]
    pub fn earlier(a: Option<Self>, b: Option<Self>) -> Option<Self> {
        match (a, b) {
            (Some(a), Some(b)) => Some(if b.at < a.at { b } else { a }),
            (a, b) => a.or(b),
        }
    }
}

/// A machine without I/O: time and inputs go in; outputs and the next timeout come out.
///
/// Outputs are drained before the next input (see [`settle`]), so each is caused by one input or timer.
///
/// A machine that echoes each text after a second, driven by hand:
///
/// ```
/// use std::{collections::VecDeque, ops::ControlFlow, time::Duration};
///
/// use omb_machine::{Machine, Wake, settle, time::Instant};
///
/// #[derive(Default)]
/// struct Echo {
///     waiting: VecDeque<(Instant, &'static str)>,
///     ready: VecDeque<&'static str>,
/// }
///
/// impl Machine for Echo {
///     type Input = &'static str;
///     type Output = &'static str;
///     fn handle_input(&mut self, now: Instant, text: &'static str) {
///         self.waiting.push_back((now + Duration::from_secs(1), text));
///     }
///     fn handle_timeout(&mut self, now: Instant) {
///         while let Some((_, text)) = self.waiting.pop_front_if(|(at, _)| *at <= now) {
///             self.ready.push_back(text);
///         }
///     }
///     fn poll_output(&mut self) -> Option<&'static str> {
///         self.ready.pop_front()
///     }
///     fn poll_timeout(&self) -> Option<Wake> {
///         self.waiting.front().map(|(at, _)| Wake { at: *at, why: "echo is due" })
///     }
/// }
///
/// let (mut echo, mut heard) = (Echo::default(), Vec::new());
/// let mut at = |now: Instant, echo: &mut Echo| {
///     settle(echo, now, |text| {
///         heard.push(text);
///         ControlFlow::Continue(())
///     })
/// };
/// echo.handle_input(Instant::ZERO, "hello");
/// // Nothing is due yet; the machine says when to come back, and the caller owns the clock.
/// let ControlFlow::Continue(Some(wake)) = at(Instant::ZERO, &mut echo) else { panic!("a timer is running") };
/// assert_eq!(wake, Wake { at: Instant(1_000_000_000), why: "echo is due" });
/// assert_eq!(at(wake.at, &mut echo), ControlFlow::Continue(None), "at rest until the next input");
/// assert_eq!(heard, ["hello"]);
/// ```
pub trait Machine {
    /// What can happen to it.
    type Input;
    /// What it asks its driver to do.
    type Output;
    /// Takes one input at `now`.
    fn handle_input(&mut self, now: Instant, input: Self::Input);
    /// Acts on what is due at `now`. Early or repeated calls do no harm.
    fn handle_timeout(&mut self, now: Instant);
    /// The next output; `None` once drained.
    fn poll_output(&mut self) -> Option<Self::Output>;
    /// When to wake it, and for which timer; `None` if only an input can move it.
    fn poll_timeout(&self) -> Option<Wake>;
}

/// Turns a machine may take at one instant before it counts as stuck. The longest chain of timers that fire together (a
/// broker with thousands of expired sessions) stays far below.
const TURNS_MAX: usize = 100_000;

/// Fires what is due and hands over every output, until the machine is at rest.
///
/// # Panics
/// If a timer is still due after firing, again and again: that is a bug of the machine.
pub fn settle<M: Machine>(
    machine: &mut M,
    now: Instant,
    mut perform: impl FnMut(M::Output) -> ControlFlow<()>,
) -> ControlFlow<(), Option<Wake>> {
    for _ in 0..TURNS_MAX {
        while let Some(output) = machine.poll_output() {
            perform(output)?;
        }
        match machine.poll_timeout() {
            Some(wake) if wake.at <= now => machine.handle_timeout(now),
            wake => return ControlFlow::Continue(wake),
        }
    }
    panic!("never at rest: {:?} is due again each time it fires", machine.poll_timeout());
}
