//! Bodies that stream past, whose sender must keep a minimum pace.

use std::{io, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::{Instant, timeout},
};

use super::{Limits, slots::InFlight};

/// Bytes of a body that are held at once.
const CHUNK: u64 = 64 << 10;

/// Which side of a copy failed.
pub(super) enum Side {
    /// The sender of the body.
    From(io::Error),
    /// Its receiver.
    To(io::Error),
}

impl From<Side> for io::Error {
    fn from(side: Side) -> Self {
        match side {
            Side::From(error) | Side::To(error) => error,
        }
    }
}

/// Does what waits for the client of a request, or for another side if there is none.
async fn waited_for<T>(client: Option<&InFlight<'_>>, what: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    match client {
        Some(client) => client.client(what).await,
        None => what.await,
    }
}

/// A body that is still to be read, or the rest of one.
pub(super) struct Body {
    left: u64,
    taken: u64,
    /// How long its sender was waited for, in all. Waiting for its receiver does not count.
    waited: Duration,
    buffer: Vec<u8>,
}

impl Body {
    pub(super) fn new(bytes: u64) -> Self {
        Self { left: bytes, taken: 0, waited: Duration::ZERO, buffer: Vec::new() }
    }

    /// The next bytes; `None` after the last. They come from the client of this request, if there is one.
    pub(super) async fn next(
        &mut self,
        from: &mut (impl AsyncRead + Unpin),
        client: Option<&InFlight<'_>>,
        limits: &Limits,
    ) -> io::Result<Option<&[u8]>> {
        if self.left == 0 {
            return Ok(None);
        }
        let most = usize::try_from(self.left.min(CHUNK)).expect("a chunk fits into memory");
        if self.buffer.len() < most {
            self.buffer.resize(most, 0);
        }
        let allowed = limits.idle + Duration::from_secs_f64(self.taken as f64 / limits.pace_min.max(1) as f64);
        let patience = allowed.saturating_sub(self.waited).min(limits.idle);
        let began = Instant::now();
        let reading = async {
            timeout(patience, from.read(&mut self.buffer[..most])).await.unwrap_or_else(|_| {
                let why = if patience < limits.idle { "the body comes too slowly" } else { "the body does not come" };
                Err(io::Error::new(io::ErrorKind::TimedOut, why))
            })
        };
        let count = waited_for(client, reading).await?;
        self.waited += began.elapsed();
        if count == 0 {
            let why = format!("{} bytes are missing", self.left);
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, why));
        }
        self.taken += count as u64;
        self.left -= count as u64;
        Ok(Some(&self.buffer[..count]))
    }

    /// All of it, which is small.
    pub(super) async fn whole(
        mut self,
        from: &mut (impl AsyncRead + Unpin),
        client: Option<&InFlight<'_>>,
        limits: &Limits,
    ) -> io::Result<Vec<u8>> {
        let mut all = Vec::new();
        while let Some(bytes) = self.next(from, client, limits).await? {
            all.extend_from_slice(bytes);
        }
        Ok(all)
    }

    /// Copies all of it, as fast as it is taken, to the client of this request, if there is one. `look` sees every piece.
    pub(super) async fn copy(
        mut self,
        from: &mut (impl AsyncRead + Unpin),
        to: &mut (impl AsyncWrite + Unpin),
        client: Option<&InFlight<'_>>,
        limits: &Limits,
        mut look: impl FnMut(&[u8]),
    ) -> Result<(), Side> {
        let late = |elapsed: tokio::time::error::Elapsed| io::Error::from(elapsed);
        while let Some(bytes) = self.next(from, None, limits).await.map_err(Side::From)? {
            look(bytes);
            let writing = async { timeout(limits.idle, to.write_all(bytes)).await.map_err(late).flatten() };
            waited_for(client, writing).await.map_err(Side::To)?;
        }
        let flushing = async { timeout(limits.idle, to.flush()).await.map_err(late).flatten() };
        waited_for(client, flushing).await.map_err(Side::To)
    }
}
