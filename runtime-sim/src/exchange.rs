//! Faulty exchanges, made so where they are handed over: see [`crate::fault::exchange`].

use std::time::Duration;

use hyper::{Method, body::Bytes};
use omb_bench::{
    controller::{Trouble, TroubleKind},
    protocol::{Event, Response},
};
use omb_machine::encoding;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use tokio::time::{sleep, timeout};

use crate::{
    connection::SimTransport,
    fault::{Weather, exchange::Kind},
    portable::fleet::{
        Address,
        wire::{Call, Caller},
    },
    witness::Witness,
};

/// Longest after its exchange that a copy of a request is in transit. [`LATE_MAX`] plus the time on the network bounds
/// how late a dead controller's request can arrive.
pub const LATE_MAX: Duration = Duration::from_millis(3_000);

/// A link to one worker on which exchanges may be late, lost, doubled or broken.
pub struct Rough {
    /// Of which run.
    pub run: usize,
    /// To which worker.
    pub worker: u32,
    inner: Caller<SimTransport>,
    transport: SimTransport,
    to: Address,
    connect_within: Duration,
    weather: Weather,
    witness: Witness,
    rng: ChaCha8Rng,
}

impl Rough {
    /// A link to `to`, which is the worker's address.
    #[must_use]
    pub fn new(
        (run, worker): (usize, u32),
        transport: SimTransport,
        to: Address,
        connect_within: Duration,
        (weather, witness, rng): (Weather, Witness, ChaCha8Rng),
    ) -> Self {
        let inner = caller(&transport, &to, connect_within);
        Self { run, worker, inner, transport, to, connect_within, weather, witness, rng }
    }

    fn hits(&mut self, kind: Kind) -> bool {
        let share = self.weather.now().exchanges[self.worker as usize].shares[kind as usize];
        let hit = share > 0.0 && self.rng.random_bool(share);
        if hit {
            self.witness.hit(format!("effect: {}", name(kind)));
        }
        hit
    }

    fn up_to(&mut self, most: Duration) -> Duration {
        most.mul_f64(self.rng.random_range(0.0..1.0))
    }

    /// Sends a copy of a request on a connection of its own; its answer is not awaited.
    fn copy(&mut self, method: Method, path: &'static str, body: Bytes, within: Duration) {
        let late = self.up_to(LATE_MAX);
        let mut caller = caller(&self.transport, &self.to, self.connect_within);
        tokio::spawn(async move {
            sleep(late).await;
            let _ = caller.call(method, path, body, within).await;
        });
    }

    async fn perturbed(
        &mut self,
        method: Method,
        path: &'static str,
        body: Bytes,
        within: Duration,
    ) -> Result<Bytes, Trouble> {
        let broken = |cause: &str| Trouble { kind: TroubleKind::Broken, cause: cause.to_owned() };
        if self.hits(Kind::Delayed) {
            let late = self.up_to(within.mul_f64(1.5));
            sleep(late).await;
        }
        if self.hits(Kind::RequestLost) {
            return std::future::pending().await;
        }
        if self.hits(Kind::Doubled) {
            self.copy(method.clone(), path, body.clone(), within);
        }
        if self.hits(Kind::Reset) {
            let at = self.up_to(Duration::from_millis(60));
            return match timeout(at, self.inner.call(method, path, body, within)).await {
                Ok(result) => result,
                Err(_) => Err(broken("connection reset by the peer")),
            };
        }
        let lost = self.hits(Kind::ReplyLost);
        let result = self.inner.call(method, path, body, within).await;
        if lost { std::future::pending().await } else { result }
    }

    /// Records what reached the controller.
    fn arrived(&self, path: &str, body: &Bytes, took: Duration) {
        let mut notes = self.witness.notes();
        let truth = &mut notes.truths[self.run];
        if path == "/v1/clock" {
            let at = madsim::time::TimeHandle::current().elapsed();
            let best = truth.clock_answers.entry(self.worker).or_insert((took, at));
            if took <= best.0 {
                *best = (took, at);
            }
        }
        if path == "/v1/command"
            && let Ok(Response { outcome: Ok(Event::Read(snapshot)), .. }) = encoding::decode(body)
        {
            truth.worker(self.worker).take(snapshot.taken_at);
        }
    }
}

fn caller(transport: &SimTransport, to: &Address, connect_within: Duration) -> Caller<SimTransport> {
    Caller::new(transport.clone(), to.clone(), None, connect_within).expect("there is no token to be refused")
}

fn name(kind: Kind) -> &'static str {
    match kind {
        Kind::Delayed => "exchange delayed",
        Kind::RequestLost => "request lost",
        Kind::ReplyLost => "reply lost",
        Kind::Doubled => "exchange doubled",
        Kind::Reset => "connection reset half-way",
    }
}

impl Call for Rough {
    async fn call(
        &mut self,
        method: Method,
        path: &'static str,
        body: Bytes,
        within: Duration,
    ) -> Result<Bytes, Trouble> {
        let began = madsim::time::TimeHandle::current().elapsed();
        let result = match timeout(within, self.perturbed(method, path, body, within)).await {
            Ok(result) => result,
            Err(_) => Err(Trouble { kind: TroubleKind::Broken, cause: format!("no answer within {within:?}") }),
        };
        match &result {
            Ok(body) => self.arrived(path, body, madsim::time::TimeHandle::current().elapsed() - began),
            Err(trouble) => self.witness.hit(format!("link: {:?}", trouble.kind)),
        }
        result
    }
}
