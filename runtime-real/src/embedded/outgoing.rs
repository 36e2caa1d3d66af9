//! What is to be sent on a connection: small pieces gathered, large ones passed on without a copy.

use std::{
    collections::VecDeque,
    io::{self, IoSlice},
};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncWrite, AsyncWriteExt};

/// From this size on a piece is sent from where it lies; below, copying it costs less than another piece does.
const SHARED_MIN: usize = 4 * 1024;

/// Pieces per system call; the kernel takes up to 1024.
const SLICES_MAX: usize = 64;

/// Bytes in order.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    pieces: VecDeque<Bytes>,
    tail: BytesMut,
    length: usize,
}

impl Outgoing {
    pub(super) fn len(&self) -> usize {
        self.length
    }

    /// Adds a copy of `bytes`.
    pub(super) fn put(&mut self, bytes: &[u8]) {
        self.length += bytes.len();
        self.tail.extend_from_slice(bytes);
    }

    /// Adds `bytes`, which are shared if they are many.
    pub(super) fn put_shared(&mut self, bytes: Bytes) {
        if bytes.len() < SHARED_MIN {
            return self.put(&bytes);
        }
        self.length += bytes.len();
        self.seal();
        self.pieces.push_back(bytes);
    }

    /// Adds a message behind its length in four bytes.
    pub(super) fn put_frame(&mut self, mut message: Self) {
        let length = i32::try_from(message.length).expect("no response comes near 2 GiB");
        self.put(&length.to_be_bytes());
        message.seal();
        for piece in message.pieces {
            self.put_shared(piece);
        }
    }

    /// Writes all of it.
    pub(super) async fn flush(&mut self, to: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
        self.seal();
        while let Some(first) = self.pieces.front() {
            let written = if self.pieces.len() == 1 {
                to.write(first).await?
            } else {
                let mut slices = [IoSlice::new(&[]); SLICES_MAX];
                let mut count = 0;
                for (slice, piece) in slices.iter_mut().zip(&self.pieces) {
                    *slice = IoSlice::new(piece);
                    count += 1;
                }
                to.write_vectored(&slices[..count]).await?
            };
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            self.advance(written);
        }
        Ok(())
    }

    fn seal(&mut self) {
        if !self.tail.is_empty() {
            self.pieces.push_back(self.tail.split().freeze());
        }
    }

    fn advance(&mut self, mut written: usize) {
        self.length -= written;
        while let Some(first) = self.pieces.front_mut() {
            if written < first.len() {
                return first.advance(written);
            }
            written -= first.len();
            self.pieces.pop_front();
        }
    }
}
