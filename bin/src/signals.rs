//! Signals that ask a command to end: SIGINT, SIGTERM, SIGHUP and SIGQUIT, each of which means the same.

use std::{future::poll_fn, task::Poll};

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Their numbers.
const ENDING: [libc::c_int; 4] = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT];

/// Those signals, heard from the moment this is made.
pub(crate) struct Interrupts(Vec<Signal>);

impl Interrupts {
    /// Begins to listen; without it, such a signal ends the process. To be called within a runtime. SIGHUP and SIGQUIT stay
    /// ignored where they were when this process began: `nohup` means it.
    pub(crate) fn listen() -> Self {
        let heard = |number: &libc::c_int| matches!(*number, libc::SIGINT | libc::SIGTERM) || !is_ignored(*number);
        let kinds = ENDING.into_iter().filter(heard).map(SignalKind::from_raw);
        Self(kinds.filter_map(|kind| signal(kind).ok()).collect())
    }

    /// Waits for the next one.
    pub(crate) async fn next(&mut self) {
        poll_fn(|context| {
            let heard = self.0.iter_mut().any(|signal| signal.poll_recv(context).is_ready());
            if heard { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}

/// From here on each of them ends the process.
pub(crate) fn restore() {
    for number in ENDING.into_iter().filter(|number| !is_ignored(*number)) {
        // SAFETY: the default action runs no code of ours.
        unsafe { libc::signal(number, libc::SIG_DFL) };
    }
}

fn is_ignored(number: libc::c_int) -> bool {
    // SAFETY: all zeros are a valid `sigaction`, which is only written to; nothing is set.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        libc::sigaction(number, std::ptr::null(), &raw mut action) == 0 && action.sa_sigaction == libc::SIG_IGN
    }
}
