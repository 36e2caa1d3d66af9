//! When nothing was acknowledged, and for how long: an outage is one line in a report, more precise than a period.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use omb_machine::time::Instant;

/// A stretch of a load in which no message was acknowledged. Times count from the beginning of the load, which is the same
/// instant for all workers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Silence {
    /// The last acknowledgement before it, or the beginning of the load.
    pub from: Duration,
    /// The first acknowledgement after it; `None` if it goes on.
    pub until: Option<Duration>,
    /// The first error that a connection reported meanwhile, in readable form.
    pub why: Option<String>,
}

/// Shorter ones are not recorded: batches, pauses and retries make them all the time.
const NOTED_MIN: Duration = Duration::from_millis(500);

/// Silences that are kept: the longest.
pub const KEPT_MAX: usize = 64;

/// Shortest silence that is called an outage; at low rates, this many messages must be missing.
const OUTAGE_MIN: Duration = Duration::from_secs(1);
const OUTAGE_MESSAGES_MIN: u64 = 10;

/// Outages that a report lists: the longest.
pub const OUTAGES_MAX: usize = 10;

/// Records the acknowledgements of one worker.
#[derive(Clone, Debug, Default)]
pub struct Silences {
    /// The beginning of the load, and the last acknowledgement.
    heard: Option<(Instant, Instant)>,
    why: Option<String>,
    past: Vec<Silence>,
}

impl Silences {
    /// The load begins at `at`: message 0 is due.
    pub fn begin(&mut self, at: Instant) {
        *self = Self { heard: Some((at, at)), why: None, past: Vec::new() };
    }

    /// Messages were acknowledged. Threads may take the lock in another order than they read the clock.
    #[inline]
    pub fn acked(&mut self, now: Instant) {
        let Some((began, last)) = &mut self.heard else { return };
        if now <= *last {
            return;
        }
        let silence = now.since(*last);
        if silence >= NOTED_MIN {
            let (from, until) = (last.since(*began), Some(now.since(*began)));
            self.past.push(Silence { from, until, why: self.why.take() });
            keep_longest(&mut self.past, KEPT_MAX);
        }
        *last = now;
        self.why = None;
    }

    /// A connection reported an error. The first one of a silence is kept: later ones follow from it.
    pub fn trouble(&mut self, what: &str) {
        if self.heard.is_some() && self.why.is_none() {
            self.why = Some(what.to_owned());
        }
    }

    /// All so far, in order. The last is still open, however short it is yet: for a worker that is never heard from
    /// again it says since when nothing is known.
    #[must_use]
    pub fn so_far(&self) -> Vec<Silence> {
        let mut all = self.past.clone();
        if let Some((began, last)) = self.heard {
            all.push(Silence { from: last.since(began), until: None, why: self.why.clone() });
        }
        all
    }
}

fn keep_longest(silences: &mut Vec<Silence>, most: usize) {
    while silences.len() > most {
        let length = |it: &Silence| it.until.map_or(Duration::MAX, |until| until.saturating_sub(it.from));
        let Some(shortest) = (0..silences.len()).min_by_key(|nth| length(&silences[*nth])) else { return };
        silences.remove(shortest);
    }
}

/// The stretches in which no worker had a message acknowledged, of a load that ended at `end`: those that are long
/// enough to be called an outage, in order. `due` returns how many messages were due until then. `None` stands for a
/// worker of which nothing is known, since it has no producers.
#[must_use]
pub fn outages(workers: &[Option<Vec<Silence>>], end: Duration, due: impl Fn(Duration) -> u64) -> Vec<Silence> {
    let mut known = workers.iter().flatten();
    let Some(first) = known.next() else { return Vec::new() };
    let mut common: Vec<Silence> = first.clone();
    for silences in known {
        common = both(&common, silences);
    }
    // What is still open at the end ends with the load: after it nothing is due.
    common.retain(|it| {
        let until = it.until.unwrap_or(end);
        let missing = due(until.min(end)).saturating_sub(due(it.from));
        it.from < end && until.saturating_sub(it.from) >= OUTAGE_MIN && missing >= OUTAGE_MESSAGES_MIN
    });
    keep_longest(&mut common, OUTAGES_MAX);
    common
}

/// Where both are silent. Both inputs are in order.
fn both(one: &[Silence], other: &[Silence]) -> Vec<Silence> {
    let mut both = Vec::new();
    let (mut left, mut right) = (one.iter().peekable(), other.iter().peekable());
    while let (Some(a), Some(b)) = (left.peek(), right.peek()) {
        let from = a.from.max(b.from);
        let until = match (a.until, b.until) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (until, None) | (None, until) => until,
        };
        if until.is_none_or(|until| until > from) {
            both.push(Silence { from, until, why: a.why.clone().or_else(|| b.why.clone()) });
        }
        // Whichever ends first is used up.
        match (a.until, b.until) {
            (Some(a), Some(b)) if a > b => _ = right.next(),
            (None, Some(_)) => _ = right.next(),
            (None, None) => return both,
            _ => _ = left.next(),
        }
    }
    both
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn at(millis: u64) -> Instant {
        Instant(1_000_000_000) + ms(millis)
    }

    fn silent(from: u64, until: Option<u64>) -> Silence {
        Silence { from: ms(from), until: until.map(ms), why: None }
    }

    #[test]
    fn the_stretch_between_two_acknowledgements_is_exact() {
        let mut silences = Silences::default();
        silences.trouble("before the load");
        silences.begin(at(0));
        (1..=120).for_each(|n| silences.acked(at(n * 100)));
        silences.trouble("broker 1 cannot be reached");
        silences.trouble("nor can broker 2");
        silences.acked(at(19_437));
        silences.acked(at(19_436));
        let why = Some("broker 1 cannot be reached".to_owned());
        let outage = Silence { why, ..silent(12_000, Some(19_437)) };
        assert_eq!(silences.so_far(), [outage, silent(19_437, None)]);
    }

    #[test]
    fn the_longest_are_kept() {
        let mut silences = Silences::default();
        silences.begin(at(0));
        silences.acked(at(9_000));
        (0..200).for_each(|n| silences.acked(at(10_000 + n * 600)));
        let kept = silences.so_far();
        assert_eq!((kept.len(), &kept[0]), (KEPT_MAX + 1, &silent(0, Some(9_000))));
    }

    #[test]
    fn an_outage_is_where_nobody_was_acknowledged() {
        let one = vec![silent(1_000, Some(5_000)), silent(8_000, Some(9_500)), silent(12_000, None)];
        let other = vec![silent(0, Some(2_500)), silent(4_800, Some(9_000)), silent(11_000, None)];
        let workers = [Some(one.clone()), None, Some(other)];
        // At 1,000 msg/s, and at 2.
        let due = |at: Duration| at.as_millis() as u64;
        let few = |at: Duration| at.as_millis() as u64 / 500;
        let wanted = [silent(1_000, Some(2_500)), silent(8_000, Some(9_000)), silent(12_000, None)];
        assert_eq!(outages(&workers, ms(20_000), due), wanted);
        assert_eq!(outages(&workers, ms(12_500), due), wanted[..2], "after the load nothing is due");
        // One missing message per second is too few.
        assert_eq!(outages(&[Some(one)], ms(20_000), few), [silent(12_000, None)]);
        assert_eq!(outages(&[None], ms(20_000), few), []);
        assert_eq!(outages(&[Some(Vec::new()), Some(vec![silent(0, None)])], ms(20_000), few), []);
    }
}
