//! Bytes to send on a connection: small pieces are gathered, large ones passed on without a copy.

use std::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};

/// From this size on a piece is sent in place; below, copying it costs less than another piece does.
const SHARED_MIN: usize = 4 * 1024;

/// Bytes in order.
#[derive(Debug, Default)]
pub struct Outgoing {
    pieces: VecDeque<Bytes>,
    tail: BytesMut,
    length: usize,
}

impl Outgoing {
    /// Bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Adds a copy of `bytes`.
    pub fn put(&mut self, bytes: &[u8]) {
        self.length += bytes.len();
        self.tail.extend_from_slice(bytes);
    }

    /// Adds `bytes`, which are shared if they are large.
    pub fn put_shared(&mut self, bytes: Bytes) {
        if bytes.len() < SHARED_MIN {
            return self.put(&bytes);
        }
        self.length += bytes.len();
        self.seal();
        self.pieces.push_back(bytes);
    }

    /// Adds a message after its length in four bytes.
    pub fn put_frame(&mut self, mut message: Self) {
        let length = i32::try_from(message.length).expect("no response comes near 2 GiB");
        self.put(&length.to_be_bytes());
        message.seal();
        for piece in message.pieces {
            self.put_shared(piece);
        }
    }

    /// The bytes, in pieces that one vectored write may take.
    pub fn pieces(&mut self) -> &VecDeque<Bytes> {
        self.seal();
        &self.pieces
    }

    fn seal(&mut self) {
        if !self.tail.is_empty() {
            self.pieces.push_back(self.tail.split().freeze());
        }
    }

    /// Removes the first `written` bytes, which have been sent.
    pub fn advance(&mut self, mut written: usize) {
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
