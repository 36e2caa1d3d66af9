//! The machine's queues: bounded, so that a flooding sender is slowed down, and in lanes, so that no other is.

use std::{
    future::poll_fn,
    task::{Context, Poll},
};

use omb_cluster::node::Input;
use tokio::sync::mpsc;

use crate::portable::event_loop::Inputs;

/// Messages of peers, and requests, that may wait; a sender of more waits with it.
const LANE: usize = 256;

/// After this many other inputs in a row a request is taken, if one waits.
const PATIENCE: u32 = 8;

/// Where inputs are put in.
#[derive(Clone)]
pub(super) struct Entrances {
    /// Results of what the machine wanted done: bounded only by how much is in flight.
    pub(super) own: mpsc::UnboundedSender<Input>,
    /// Messages of peers.
    pub(super) peers: mpsc::Sender<Input>,
    /// Requests.
    pub(super) requests: mpsc::Sender<Input>,
}

/// Where they come out. Peers and results take turns, and requests follow when neither has anything: what has begun
/// ends before more begins, and no flood of requests delays a ballot.
pub(super) struct Lanes {
    own: mpsc::UnboundedReceiver<Input>,
    peers: mpsc::Receiver<Input>,
    requests: mpsc::Receiver<Input>,
    peers_first: bool,
    passed_over: u32,
}

pub(super) fn lanes() -> (Entrances, Lanes) {
    let (to_own, own) = mpsc::unbounded_channel();
    let (to_peers, peers) = mpsc::channel(LANE);
    let (to_requests, requests) = mpsc::channel(LANE);
    let entrances = Entrances { own: to_own, peers: to_peers, requests: to_requests };
    (entrances, Lanes { own, peers, requests, peers_first: false, passed_over: 0 })
}

impl Lanes {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Input>> {
        if self.passed_over >= PATIENCE
            && let Poll::Ready(Some(input)) = self.poll_requests(context)
        {
            return Poll::Ready(Some(input));
        }
        for peers in [self.peers_first, !self.peers_first] {
            let polled = if peers { self.peers.poll_recv(context) } else { self.own.poll_recv(context) };
            if let Poll::Ready(Some(input)) = polled {
                self.peers_first = !peers;
                self.passed_over += 1;
                return Poll::Ready(Some(input));
            }
        }
        match self.poll_requests(context) {
            // All three end together: each sender to the machine holds all entrances.
            Poll::Ready(None) if self.own.is_closed() => Poll::Ready(None),
            Poll::Ready(None) => Poll::Pending,
            polled => polled,
        }
    }

    fn poll_requests(&mut self, context: &mut Context<'_>) -> Poll<Option<Input>> {
        let polled = self.requests.poll_recv(context);
        if polled.is_ready() {
            self.passed_over = 0;
        }
        polled
    }
}

impl Inputs<Input> for Lanes {
    async fn next(&mut self) -> Option<Input> {
        poll_fn(|context| self.poll(context)).await
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use omb_cluster::{
        node::{ClientId, message::Request},
        peer::{Leadership, NodeId},
    };

    use super::*;

    /// Peers and the node's own results are read in turn, a request at least every ninth time, and none is lost.
    #[test]
    fn no_lane_starves() {
        let (entrances, mut lanes) = lanes();
        for nth in 0..LANE {
            let client = ClientId(nth as u64);
            entrances.own.send(Input::Persisted(Leadership::default())).expect("it is read");
            entrances.peers.try_send(Input::Connected(NodeId(1))).expect("there is room");
            entrances.requests.try_send(Input::Request { client, request: Request::Discover }).expect("there is room");
        }
        assert!(entrances.peers.try_send(Input::Connected(NodeId(1))).is_err(), "a flooding sender waits");
        let mut context = Context::from_waker(Waker::noop());
        let mut next = || match lanes.poll(&mut context) {
            Poll::Ready(Some(Input::Persisted(_))) => 'o',
            Poll::Ready(Some(Input::Connected(_))) => 'p',
            Poll::Ready(Some(Input::Request { .. })) => 'r',
            other => panic!("{other:?}"),
        };
        let all: String = (0..3 * LANE).map(|_| next()).collect();
        assert!(all.starts_with("opopopopropopopop"), "{all}");
        assert!(all.ends_with("rrrr"), "{all}");
    }
}
