//! Payload buffers of one producer: written once per send, lent to the client without a copy, back at the
//! delivery report.
//!
//! Buffers are used in turn, so that every payload of the pool is sent about equally often; there are as many as were
//! ever in flight at once (but at least as many as are made at a time), so memory follows the load and not the limit.

use std::{
    cell::UnsafeCell,
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use omb_bench::load::{payload, sender::InFlight};
use rand_chacha::ChaCha8Rng;

/// One buffer, owned by the holder of the ticket: the sending thread, then the client library, then the thread that
/// takes delivery reports. It cannot be copied, so a buffer never has two owners.
#[derive(Debug, PartialEq, Eq)]
pub struct Ticket(u32);

impl Ticket {
    /// As the opaque number that travels through the client library; never zero, which stands for a probe.
    #[must_use]
    pub fn into_opaque(self) -> usize {
        self.as_opaque()
    }

    /// The same, to be passed to the library before it is known whether it takes the message. Then either the ticket
    /// goes with [`Self::into_opaque`], or it stays and the number means nothing.
    #[must_use]
    pub fn as_opaque(&self) -> usize {
        self.0 as usize + 1
    }

    /// Back from the client library.
    ///
    /// # Safety
    /// `opaque` is what [`Self::into_opaque`] gave, and this is the first time it comes back since.
    #[must_use]
    pub unsafe fn from_opaque(opaque: usize) -> Option<Self> {
        u32::try_from(opaque.checked_sub(1)?).ok().map(Self)
    }
}

/// The buffers that were made at one time.
struct Chunk {
    bytes: Box<[UnsafeCell<u8>]>,
    notes: Box<[UnsafeCell<InFlight>]>,
}

// SAFETY: every buffer and note is touched only by the one holder of its ticket, and tickets pass between threads
// through the mutex below or through the client library's own queues, which order memory.
unsafe impl Sync for Chunk {}
// SAFETY: as above; the contents are plain bytes and numbers.
unsafe impl Send for Chunk {}

/// Where the buffer of a ticket lies: which chunk, and its index in it.
#[derive(Clone, Copy, Debug)]
struct Layout {
    /// A chunk has two to the power of this buffers.
    shift: u32,
}

impl Layout {
    fn chunk_of(self) -> usize {
        1 << self.shift
    }

    #[inline]
    fn find(self, ticket: &Ticket) -> (usize, usize) {
        let nth = ticket.0 as usize;
        (nth >> self.shift, nth & (self.chunk_of() - 1))
    }
}

/// The buffers of one producer.
pub struct Ring {
    size: usize,
    layout: Layout,
    /// Read by every holder of a ticket, written only to append.
    chunks: RwLock<Vec<Arc<Chunk>>>,
    returned: Mutex<Vec<Ticket>>,
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ring").field("size", &self.size).finish_non_exhaustive()
    }
}

/// The sending thread's end: hands out tickets.
#[derive(Debug)]
pub struct Supply {
    ring: Arc<Ring>,
    layout: Layout,
    /// The sender's own view of the chunks, so that no lock is taken per message.
    chunks: Vec<Arc<Chunk>>,
    free: VecDeque<Ticket>,
    spare: Vec<Ticket>,
    made: usize,
    most: usize,
    pool: Arc<Vec<Vec<u8>>>,
    rng: ChaCha8Rng,
}

impl std::fmt::Debug for Chunk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Chunk").field("bytes", &self.bytes.len()).finish_non_exhaustive()
    }
}

impl Ring {
    /// Buffers as large as the pool's payloads, at most `most` of them, made `chunk` at a time
    /// ([`buffers`](omb_bench::plan::sharing::buffers)); `rng` picks the payload that each one holds.
    ///
    /// # Panics
    /// If the pool is empty, or its payloads differ in size; if `chunk` is no power of two.
    #[must_use]
    pub fn new(pool: Arc<Vec<Vec<u8>>>, most: usize, chunk: usize, rng: ChaCha8Rng) -> (Arc<Self>, Supply) {
        let size = pool.first().expect("a pool holds a payload").len();
        assert!(pool.iter().all(|payload| payload.len() == size), "payloads of one pool are of one size");
        assert!(chunk.is_power_of_two(), "{chunk} buffers are no power of two");
        let layout = Layout { shift: chunk.ilog2() };
        let ring = Arc::new(Self { size, layout, chunks: RwLock::default(), returned: Mutex::default() });
        let supply = Supply {
            ring: Arc::clone(&ring),
            layout,
            chunks: Vec::new(),
            free: VecDeque::new(),
            spare: Vec::new(),
            made: 0,
            most: most.max(1),
            pool,
            rng,
        };
        (ring, supply)
    }

    /// Gives buffers back: once per batch of delivery reports.
    pub fn give_back(&self, tickets: &mut Vec<Ticket>) {
        self.returned.lock().unwrap_or_else(PoisonError::into_inner).append(tickets);
    }

    /// A view for reading notes, to be renewed when it is too short.
    #[must_use]
    pub fn view(self: &Arc<Self>) -> View {
        View { ring: Arc::clone(self), layout: self.layout, chunks: Vec::new() }
    }

    /// Bytes of each buffer.
    #[must_use]
    pub fn size(&self) -> usize {
        self.size
    }
}

/// The reporting thread's end: reads what was noted with a ticket.
#[derive(Debug)]
pub struct View {
    ring: Arc<Ring>,
    layout: Layout,
    chunks: Vec<Arc<Chunk>>,
}

impl View {
    /// What was noted when the message left.
    #[inline]
    #[must_use]
    pub fn note(&mut self, ticket: &Ticket) -> InFlight {
        let (chunk, at) = self.layout.find(ticket);
        if chunk >= self.chunks.len() {
            self.chunks.clone_from(&self.ring.chunks.read().unwrap_or_else(PoisonError::into_inner));
        }
        // SAFETY: the ticket's holder is the only one who touches this note, and it was written before the ticket
        // was given away.
        unsafe { *self.chunks[chunk].notes[at].get() }
    }
}

impl Supply {
    /// A free buffer; `None` if all are in flight.
    #[inline]
    pub fn take(&mut self) -> Option<Ticket> {
        if let Some(ticket) = self.free.pop_front() {
            return Some(ticket);
        }
        self.refill()
    }

    fn refill(&mut self) -> Option<Ticket> {
        std::mem::swap(&mut *self.ring.returned.lock().unwrap_or_else(PoisonError::into_inner), &mut self.spare);
        self.free.extend(self.spare.drain(..));
        if self.free.is_empty() && self.made < self.most {
            self.grow();
        }
        self.free.pop_front()
    }

    /// Puts back a ticket whose message the client did not take.
    pub fn untake(&mut self, ticket: Ticket) {
        self.free.push_front(ticket);
    }

    fn grow(&mut self) {
        let more = self.layout.chunk_of().min(self.most - self.made);
        let size = self.ring.size;
        let mut bytes = Vec::with_capacity(more * size);
        for _ in 0..more {
            bytes.extend_from_slice(&self.pool[payload::pick(&mut self.rng, self.pool.len())]);
        }
        let chunk = Arc::new(Chunk {
            bytes: bytes.into_iter().map(UnsafeCell::new).collect(),
            notes: (0..more).map(|_| UnsafeCell::default()).collect(),
        });
        self.chunks.push(Arc::clone(&chunk));
        self.ring.chunks.write().unwrap_or_else(PoisonError::into_inner).push(chunk);
        let first = u32::try_from(self.made).expect("fewer than 2^32 buffers");
        self.free.extend((first..).take(more).map(Ticket));
        self.made += more;
    }

    /// The buffer of a ticket, to be written.
    #[inline]
    pub fn payload(&mut self, ticket: &mut Ticket) -> &mut [u8] {
        let (start, size) = (self.start(ticket), self.ring.size);
        // SAFETY: the ticket is borrowed mutably for as long as the slice lives, and only its holder touches these
        // bytes; `start` lies `size` bytes before the chunk's end at the latest.
        unsafe { std::slice::from_raw_parts_mut(start, size) }
    }

    /// What was noted with a ticket that did not leave.
    #[must_use]
    pub fn noted(&self, ticket: &Ticket) -> InFlight {
        let (chunk, at) = self.layout.find(ticket);
        // SAFETY: only the ticket's holder touches this note.
        unsafe { *self.chunks[chunk].notes[at].get() }
    }

    /// Notes what the delivery report needs.
    #[inline]
    pub fn note(&mut self, ticket: &mut Ticket, note: InFlight) {
        let (chunk, at) = self.layout.find(ticket);
        // SAFETY: only the ticket's holder touches this note.
        unsafe { *self.chunks[chunk].notes[at].get() = note };
    }

    /// Address of a ticket's buffer, for the client library. Valid as long as the [`Ring`] lives.
    #[inline]
    #[must_use]
    pub fn start(&self, ticket: &Ticket) -> *mut u8 {
        let (chunk, at) = self.layout.find(ticket);
        self.chunks[chunk].bytes[at * self.ring.size..][..self.ring.size].as_ptr().cast_mut().cast::<u8>()
    }
}

#[cfg(test)]
mod tests {
    use omb_bench::plan::sharing::BUFFERS_OWN;
    use omb_machine::{seed::Seed, time::Instant};

    use super::*;

    fn ring(payloads: u8, most: usize) -> (Arc<Ring>, Supply) {
        ring_of(payloads, most, BUFFERS_OWN)
    }

    fn ring_of(payloads: u8, most: usize, chunk: usize) -> (Arc<Ring>, Supply) {
        let pool = Arc::new((0..payloads).map(|n| vec![n; 8]).collect());
        Ring::new(pool, most, chunk, Seed(1).stream("ring"))
    }

    #[test]
    fn never_more_than_the_limit_and_back_after_the_report() {
        let (ring, mut supply) = ring(1, 3);
        let mut out: Vec<_> = std::iter::from_fn(|| supply.take()).collect();
        assert_eq!(out.len(), 3);
        ring.give_back(&mut out);
        assert_eq!(std::iter::from_fn(|| supply.take()).count(), 3);
    }

    #[test]
    fn notes_and_bytes_belong_to_the_ticket() {
        [BUFFERS_OWN, 64, 4].into_iter().for_each(belong_to_the_ticket);
    }

    fn belong_to_the_ticket(chunk: usize) {
        let (ring, mut supply) = ring_of(2, 5_000, chunk);
        let mut view = ring.view();
        let mut tickets: Vec<_> = std::iter::from_fn(|| supply.take()).collect();
        assert_eq!(tickets.len(), 5_000);
        for (n, ticket) in (0..).zip(&mut tickets) {
            supply.payload(ticket).copy_from_slice(&u64::to_le_bytes(n));
            supply.note(ticket, InFlight { sequence: n, intended: Instant(1), sent: Instant(2) });
        }
        for (n, ticket) in (0..).zip(tickets) {
            // SAFETY: each comes back once.
            let mut back = unsafe { Ticket::from_opaque(ticket.into_opaque()) }.expect("a ticket");
            assert_eq!(view.note(&back).sequence, n);
            assert_eq!(supply.payload(&mut back), u64::to_le_bytes(n));
        }
    }

    #[test]
    fn all_payloads_of_the_pool_are_sent() {
        let (_ring, mut supply) = ring(4, 1_024);
        let mut counts = [0; 4];
        while let Some(mut ticket) = supply.take() {
            counts[usize::from(supply.payload(&mut ticket)[0])] += 1;
        }
        assert!(counts.iter().all(|count| (156..356).contains(count)), "about 256 each: {counts:?}");
    }
}
