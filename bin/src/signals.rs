//! Signals that ask a command to end: SIGINT, SIGTERM, SIGHUP and SIGQUIT, all with the same meaning.

use std::{future::poll_fn, task::Poll};

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Their numbers.
const ENDING: [libc::c_int; 4] = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT];

/// Receives these signals, from its creation on.
pub(crate) struct Interrupts(Vec<Signal>);

impl Interrupts {
    /// Starts to receive; otherwise such a signal ends the process. Must be called within a runtime. SIGHUP and SIGQUIT
    /// stay ignored if they were when the process started, as under `nohup`.
    pub(crate) fn listen() -> Self {
        let wanted = |number: &libc::c_int| matches!(*number, libc::SIGINT | libc::SIGTERM) || !is_ignored(*number);
        let kinds = ENDING.into_iter().filter(wanted).map(SignalKind::from_raw);
        Self(kinds.filter_map(|kind| signal(kind).ok()).collect())
    }

    /// Waits for the next one.
    pub(crate) async fn next(&mut self) {
        poll_fn(|context| {
            let received = self.0.iter_mut().any(|signal| signal.poll_recv(context).is_ready());
            if received { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}

/// Restores the default action: each of them ends the process.
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
