//! Clients whose broker is gone: they cannot close cleanly, and are not waited for long.
//!
//! A client of librdkafka that is destroyed waits for what it has in flight, and if the broker is gone that can last
//! until it is back. A thread of its own waits for it; the run ends meanwhile. How many are waited for is bounded: see
//! [`Reaper::refusal`].

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
        mpsc,
    },
    time::Duration,
};

use omb_bench::protocol::{Failure, FailureKind};

/// With this many clients left behind no run begins: each has some threads and connections of its own.
const LEFT_MAX: usize = 256;

/// How long clients may take to close before their broker is checked to be there at all.
const DOUBT_AFTER: Duration = Duration::from_secs(2);

/// Longest that clients of a broker which answers may take to close.
pub(crate) const CLOSE_WITHIN: Duration = Duration::from_secs(15);

/// How often the elapsed time is checked.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Waits for clients that nothing else waits for.
#[derive(Clone, Debug, Default)]
pub struct Reaper {
    left: Arc<AtomicUsize>,
}

impl Reaper {
    /// Clients that are still being waited for.
    #[must_use]
    pub fn left(&self) -> usize {
        self.left.load(Relaxed)
    }

    /// Why no run may begin, if too many clients are left behind.
    #[must_use]
    pub fn refusal(&self) -> Option<Failure> {
        let left = self.left();
        (left >= LEFT_MAX).then(|| {
            let text = format!(
                "{left} clients of former runs are left behind, since their broker does not answer; they go when it does, \
                 or when this process is restarted"
            );
            Failure::new(FailureKind::Refused, text)
        })
    }

    /// Closes this many clients on a thread of its own. If that takes long, it waits only if their broker is there
    /// (`answers`): clients of one that is gone are left behind, and in any case those that do not close `within` this
    /// time.
    ///
    /// # Errors
    /// If they are left behind, `close` reports an error, or the system gives no thread.
    pub(crate) fn close(
        &self,
        what: &str,
        clients: usize,
        within: Duration,
        close: impl FnOnce() -> bool + Send + 'static,
        answers: impl FnOnce() -> bool,
    ) -> Result<(), Failure> {
        let (done, closed) = mpsc::channel();
        let left = Arc::clone(&self.left);
        left.fetch_add(clients, Relaxed);
        let body = move || {
            let sound = close();
            left.fetch_sub(clients, Relaxed);
            // The waiting side may have given up.
            let _ = done.send(sound);
        };
        if let Err(error) = std::thread::Builder::new().name("close".to_owned()).stack_size(256 << 10).spawn(body) {
            self.left.fetch_sub(clients, Relaxed);
            return Err(Failure::new(FailureKind::Broken, format!("the system gives no more threads: {error}")));
        }
        let mut waited = Duration::ZERO;
        let mut answers = Some(answers);
        loop {
            match closed.recv_timeout(LOOK_EVERY) {
                Ok(true) => return Ok(()),
                Ok(false) => return Err(Failure::new(FailureKind::Broken, "a thread of the load panicked")),
                Err(_) => waited += LOOK_EVERY,
            }
            let hopeless = waited >= DOUBT_AFTER && answers.take().is_some_and(|answers| !answers());
            if hopeless || waited >= within {
                break;
            }
        }
        let text = format!(
            "{what} did not close within {} s and {} left behind: the broker does not answer",
            waited.as_secs(),
            if clients == 1 { "is" } else { "are" },
        );
        tracing::warn!("{text} ({} clients in all wait for theirs)", self.left());
        Err(Failure::new(FailureKind::Unreachable, text))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;

    #[test]
    fn clients_of_a_broker_that_is_gone_hold_nobody_up() {
        let reaper = Reaper::default();
        assert_eq!(reaper.close("they", 2, CLOSE_WITHIN, || true, || unreachable!("it does not take long")), Ok(()));
        assert_eq!(reaper.left(), 0);
        let back = Arc::new(Barrier::new(2));
        let waits = Arc::clone(&back);
        let closes = move || {
            waits.wait();
            true
        };
        let failure = reaper.close("300 clients", LEFT_MAX, CLOSE_WITHIN, closes, || false).expect_err("left behind");
        assert!(
            failure.message.contains("300 clients did not close within 2 s and are left behind"),
            "{}",
            failure.message
        );
        assert_eq!(reaper.left(), LEFT_MAX);
        assert!(reaper.refusal().is_some_and(|failure| failure.message.contains("left behind")), "no more of them");
        back.wait();
        while reaper.left() > 0 {
            std::thread::yield_now();
        }
        assert_eq!(reaper.refusal(), None);
    }
}
