//! The controller's side of each worker's link: what it was asked, whether it answered, when to ask again.

use std::collections::BTreeSet;

use super::Settings;
use crate::{
    id::{RunId, WorkerId},
    offset::Offsets,
    protocol::{self, Command, Request},
};
use omb_machine::{printable::printable_within, time::Instant};

/// Why an exchange with a worker brought no answer of its machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// What kind, which decides what follows.
    pub kind: TroubleKind,
    /// In one line: `connection refused`.
    pub cause: String,
}

/// Most characters that are kept of a cause.
pub(super) const CAUSE_MAX: usize = 1_000;

impl Trouble {
    /// With its cause as it may be shown: what answered may have been anybody.
    pub(super) fn printable(self) -> Self {
        Self { cause: printable_within(&self.cause, CAUSE_MAX), ..self }
    }
}

/// Kinds of trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TroubleKind {
    /// No connection could be made. If it stays so for [`Settings::connect_within`], nobody is there any more.
    Unconnected,
    /// The connection broke, or no answer came in time. What was asked may have been done all the same.
    Broken,
    /// Something answers, but not as a worker that would follow: asking again changes nothing.
    Refused,
    /// It says that its process ends.
    Leaving,
}

/// All links.
#[derive(Debug)]
pub(super) struct Links {
    run: RunId,
    links: Vec<Link>,
    /// Links that are not lost and have not answered.
    outstanding: usize,
    alive: u32,
    /// When to ask again, and whom.
    again: BTreeSet<(Instant, WorkerId)>,
}

#[derive(Debug, Default)]
struct Link {
    /// Number of the last request.
    number: u64,
    /// The last request, until it is answered.
    asked: Option<Request>,
    again_at: Option<Instant>,
    /// Since when no connection can be made.
    unconnected_since: Option<Instant>,
    trouble: Option<String>,
    lost: bool,
    offsets: Offsets,
}

impl Links {
    pub(super) fn new(run: RunId, workers: u32) -> Self {
        let links = (0..workers).map(|_| Link::default()).collect();
        Self { run, links, outstanding: 0, alive: workers, again: BTreeSet::new() }
    }

    /// Workers that are not lost, in order.
    pub(super) fn alive(&self) -> impl Iterator<Item = WorkerId> {
        (0..).map(WorkerId).zip(&self.links).filter(|(_, link)| !link.lost).map(|(worker, _)| worker)
    }

    pub(super) fn alive_count(&self) -> u32 {
        self.alive
    }

    /// Whether everybody who is left has answered.
    pub(super) fn all_answered(&self) -> bool {
        self.outstanding == 0
    }

    /// Those who have not answered, with the last trouble they made.
    pub(super) fn silent(&self) -> Vec<(WorkerId, Option<String>)> {
        let all = (0..).map(WorkerId).zip(&self.links);
        let silent = all.filter(|(_, link)| !link.lost && link.asked.is_some());
        silent.map(|(worker, link)| (worker, link.trouble.clone())).collect()
    }

    fn get(&mut self, worker: WorkerId) -> Option<&mut Link> {
        self.links.get_mut(worker.0 as usize)
    }

    /// The next request to `worker`. Whatever it was asked before is not waited for any more.
    pub(super) fn ask(&mut self, now: Instant, worker: WorkerId, command: Command) -> Request {
        let run = self.run;
        self.settle(worker);
        let link = &mut self.links[worker.0 as usize];
        link.number += 1;
        let sent = link.offsets.wall_of(now);
        let request = Request { version: protocol::VERSION, run, number: link.number, sent, command };
        link.asked = Some(request.clone());
        self.outstanding += usize::from(!link.lost);
        request
    }

    /// Nothing that was asked is waited for any more.
    pub(super) fn forget_all(&mut self) {
        (0..self.links.len()).for_each(|index| self.settle(WorkerId(u32::try_from(index).unwrap_or(u32::MAX))));
    }

    fn settle(&mut self, worker: WorkerId) {
        let Some(link) = self.links.get_mut(worker.0 as usize) else { return };
        if link.asked.take().is_some() && !link.lost {
            self.outstanding -= 1;
        }
        if let Some(at) = link.again_at.take() {
            self.again.remove(&(at, worker));
        }
    }

    /// Takes an answer: whether it is the one that is waited for. Anything else is a late copy, or of another run, or
    /// of a worker that was given up.
    pub(super) fn answered(&mut self, worker: WorkerId, run: RunId, number: u64) -> bool {
        let expected = run == self.run;
        let Some(link) = self.get(worker) else { return false };
        if !expected || link.lost || link.number != number || link.asked.is_none() {
            return false;
        }
        link.unconnected_since = None;
        link.trouble = None;
        self.settle(worker);
        true
    }

    /// Takes a failed exchange. Returns why the worker is lost by it, if it is.
    pub(super) fn failed(
        &mut self,
        now: Instant,
        worker: WorkerId,
        number: u64,
        trouble: Trouble,
        settings: &Settings,
    ) -> Option<String> {
        let link = self.get(worker)?;
        if link.lost || link.number != number || link.asked.is_none() || link.again_at.is_some() {
            return None;
        }
        link.trouble = Some(trouble.cause.clone());
        match trouble.kind {
            TroubleKind::Refused | TroubleKind::Leaving => return Some(trouble.cause),
            TroubleKind::Broken => link.unconnected_since = None,
            TroubleKind::Unconnected => {
                let since = *link.unconnected_since.get_or_insert(now);
                if now.since(since) >= settings.connect_within {
                    return Some(trouble.cause);
                }
            }
        }
        let at = now + settings.retry_after;
        link.again_at = Some(at);
        self.again.insert((at, worker));
        None
    }

    /// When the next request is to be sent again.
    pub(super) fn next_again(&self) -> Option<Instant> {
        self.again.first().map(|(at, _)| *at)
    }

    /// The next request that is to be sent again by now.
    pub(super) fn pop_again(&mut self, now: Instant) -> Option<(WorkerId, Request)> {
        let (at, worker) = *self.again.first()?;
        if at > now {
            return None;
        }
        self.again.pop_first();
        let link = self.get(worker)?;
        link.again_at = None;
        let request = link.asked.as_mut()?;
        request.sent = link.offsets.wall_of(now);
        Some((worker, request.clone()))
    }

    /// Gives a worker up. False if it had been already.
    pub(super) fn lose(&mut self, worker: WorkerId) -> bool {
        self.settle(worker);
        let Some(link) = self.get(worker) else { return false };
        let first = !std::mem::replace(&mut link.lost, true);
        self.alive -= u32::from(first);
        first
    }

    pub(super) fn offsets(&self, worker: WorkerId) -> &Offsets {
        &self.links[worker.0 as usize].offsets
    }

    pub(super) fn offsets_mut(&mut self, worker: WorkerId) -> Option<&mut Offsets> {
        self.get(worker).map(|link| &mut link.offsets)
    }
}
