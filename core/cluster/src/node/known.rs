//! The uploads that a leader has seen. A client's word on its upload is no evidence, so the leader asks which node
//! holds it whenever it may have been placed before.

use crate::peer::RequestId;
use omb_machine::seed::Seed;

/// Ids that were seen, in bounded memory: an id that was seen is always known, and a few that were not pass for known,
/// which costs a question to all nodes.
///
/// A scalable Bloom filter (Almeida, Baquero, Preguiça, Hutchison: "Scalable Bloom Filters", 2007) of at most 16 MiB.
/// With 8 million ids, fewer than one in a hundred others passes for known; beyond that the share rises, up to all.
#[derive(Debug)]
pub(super) struct Known {
    /// Unknown to clients, which could otherwise choose ids that fill it at once.
    seed: u64,
    /// Each is twice as large as the one before. Ids go into the last.
    layers: Vec<Layer>,
}

#[derive(Debug)]
struct Layer {
    words: Vec<u64>,
    ids: usize,
}

/// Words of 64 bits in the first layer, and in the largest: 4 KiB and 8 MiB.
const WORDS: (usize, usize) = (1 << 9, 1 << 20);

/// Bits per id, and how many of them it sets: in a full layer one in 1,700 other ids passes for known.
const BITS_PER_ID: usize = 16;
const PROBES: u64 = 8;

impl Known {
    pub(super) fn new(seed: Seed) -> Self {
        Self { seed: seed.0, layers: vec![Layer::new(WORDS.0)] }
    }

    pub(super) fn insert(&mut self, id: RequestId) {
        let hashes = self.hashes(id);
        if self.layers.iter().any(|layer| layer.contains(hashes)) {
            return;
        }
        let last = self.layers.last().expect("there is always one");
        let words = last.words.len();
        if last.ids >= words * 64 / BITS_PER_ID && words < WORDS.1 {
            self.layers.push(Layer::new(words * 2));
        }
        self.layers.last_mut().expect("there is always one").insert(hashes);
    }

    /// Whether it may have been seen.
    pub(super) fn contains(&self, id: RequestId) -> bool {
        let hashes = self.hashes(id);
        self.layers.iter().any(|layer| layer.contains(hashes))
    }

    fn hashes(&self, RequestId(id): RequestId) -> (u64, u64) {
        let first = mixed(self.seed ^ id as u64);
        (first, mixed(first ^ (id >> 64) as u64) | 1)
    }
}

/// The finalizer of SplitMix64 (Steele, Lea, Flood: "Fast Splittable Pseudorandom Number Generators", 2014).
fn mixed(mut bits: u64) -> u64 {
    bits = bits.wrapping_add(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

impl Layer {
    fn new(words: usize) -> Self {
        Self { words: vec![0; words], ids: 0 }
    }

    fn positions(&self, (first, step): (u64, u64)) -> impl Iterator<Item = (usize, u64)> + use<> {
        let words = self.words.len() as u64;
        (0..PROBES).map(move |nth| {
            let bit = first.wrapping_add(nth.wrapping_mul(step)) % (words * 64);
            (usize::try_from(bit / 64).expect("below the words"), 1 << (bit % 64))
        })
    }

    fn insert(&mut self, hashes: (u64, u64)) {
        self.positions(hashes).for_each(|(word, bit)| self.words[word] |= bit);
        self.ids += 1;
    }

    fn contains(&self, hashes: (u64, u64)) -> bool {
        self.positions(hashes).all(|(word, bit)| self.words[word] & bit != 0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn few_strangers_pass_for_known_and_memory_is_bounded() {
        let mut rng = Seed(1).stream("ids");
        let mut id = || RequestId(u128::from(rng.next_u64()) << 64 | u128::from(rng.next_u64()));
        let mut known = Known::new(Seed(7));
        assert!(!known.contains(id()));
        (0..100_000).for_each(|_| known.insert(id()));
        let strangers = (0..100_000).filter(|_| known.contains(id())).count();
        assert!(strangers < 500, "{strangers} of 100,000");
        let bytes = |known: &Known| known.layers.iter().map(|layer| layer.words.len() * 8).sum::<usize>();
        assert!(bytes(&known) < 4 * 100_000, "{}", bytes(&known));
        // Consecutive ids are distinguished as well as random ones.
        assert!((0..10_000).filter(|low| known.contains(RequestId(*low))).count() < 50);
        let last = known.layers.last_mut().expect("one");
        last.words.resize(WORDS.1, 0);
        last.ids = WORDS.1 * 64;
        let (layers, stranger) = (known.layers.len(), id());
        known.insert(stranger);
        assert!(known.layers.len() == layers && known.contains(stranger), "full, and it forgets nothing");
        let most: usize =
            std::iter::successors(Some(WORDS.0), |words| Some(words * 2)).take_while(|it| *it <= WORDS.1).sum();
        assert!(most * 8 <= 16 << 20);
    }

    proptest! {
        #[test]
        fn who_was_seen_is_known(ids in prop::collection::vec(any::<u128>(), 0..5_000), seed: u64) {
            let mut known = Known::new(Seed(seed));
            for id in &ids {
                known.insert(RequestId(*id));
            }
            prop_assert!(ids.iter().all(|id| known.contains(RequestId(*id))));
        }
    }
}
