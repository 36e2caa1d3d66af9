//! A listing of any length, page by page.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    node::message::{Reply, Request},
    peer::{NodeId, RequestId},
};

/// The sum of all pages so far.
///
/// Each page may come from another node, for the id that it begins after means the same everywhere. An upload that is
/// stored while the pages are read is included if its id lies ahead.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// What each node holds, by id; a node that holds nothing is left out.
    pub nodes: BTreeMap<NodeId, Held>,
    /// Uploads that are on several nodes.
    pub doubled: BTreeSet<RequestId>,
    /// Different uploads.
    pub uploads: u64,
    /// Nodes that did not answer for every page, or have not read their folder: they may hold more.
    pub missing: BTreeSet<NodeId>,
    /// How many acknowledged uploads each node has lost.
    pub lost: BTreeMap<NodeId, u64>,
    after: Option<RequestId>,
}

/// What one node holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Uploads.
    pub uploads: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// A reply that is not a page, or not the next one. A sound node never sends it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a page of the listing was asked for, something else came")]
pub struct NotNext;

impl Listing {
    /// Asks for the first page, or after [`Self::take`] for the next.
    #[must_use]
    pub fn request(&self) -> Request {
        Request::List { after: self.after }
    }

    /// Takes the reply to [`Self::request`]; returns whether there is another page.
    ///
    /// # Errors
    /// If it is not a page, or makes no progress; nothing of it is taken then.
    pub fn take(&mut self, reply: &Reply) -> Result<bool, NotNext> {
        let Reply::Listing { uploads, next, missing, lost, .. } = reply else { return Err(NotNext) };
        let ids = || uploads.iter().map(|(_, entry)| entry.stored.name.id);
        // So that it ends, and counts nothing twice, whatever a node answers.
        let onward = ids().all(|id| Some(id) > self.after && next.is_none_or(|next| id <= next)) && ids().is_sorted();
        if !onward || next.is_some_and(|next| Some(next) <= self.after) {
            return Err(NotNext);
        }
        for holders in uploads.chunk_by(|(_, one), (_, other)| one.stored.name.id == other.stored.name.id) {
            self.uploads += 1;
            if holders.len() > 1 {
                self.doubled.insert(holders[0].1.stored.name.id);
            }
        }
        for (node, entry) in uploads {
            let held = self.nodes.entry(*node).or_default();
            held.uploads += 1;
            held.bytes = held.bytes.saturating_add(entry.stored.bytes);
        }
        self.missing.extend(missing);
        // As of the latest page.
        self.lost.extend(lost.iter().map(|(node, count)| (*node, *count)));
        self.after = *next;
        Ok(next.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        peer::Digest,
        store::{Entry, Kind, Name, Stored},
    };

    fn page(uploads: &[(u32, u128)], next: Option<u128>, missing: &[u32]) -> Reply {
        let entry = |id| {
            let name = Name { id: RequestId(id), digest: Digest([0; 32]), kind: Kind::Bin };
            Entry { stored: Stored { name, bytes: 10 }, label: None }
        };
        Reply::Listing {
            uploads: uploads.iter().map(|(node, id)| (NodeId(*node), entry(*id))).collect(),
            copies: 0,
            next: next.map(RequestId),
            missing: missing.iter().copied().map(NodeId).collect(),
            lost: missing.iter().map(|node| (NodeId(*node), 4)).collect(),
        }
    }

    #[test]
    fn pages_add_up() {
        let mut listing = Listing::default();
        assert_eq!(listing.request(), Request::List { after: None });
        assert_eq!(listing.take(&page(&[(1, 3), (2, 3), (2, 5)], Some(5), &[])), Ok(true));
        assert_eq!(listing.request(), Request::List { after: Some(RequestId(5)) });
        assert_eq!(listing.take(&page(&[(1, 6)], None, &[3])), Ok(false));
        assert_eq!(listing.uploads, 3);
        assert_eq!(listing.doubled, [RequestId(3)].into());
        assert_eq!(listing.missing, [NodeId(3)].into());
        assert_eq!(listing.lost, [(NodeId(3), 4)].into());
        let two = Held { uploads: 2, bytes: 20 };
        assert_eq!(listing.nodes, [(NodeId(1), two), (NodeId(2), two)].into());
    }

    /// Whatever a node answers, a listing makes progress or stops.
    #[test]
    fn what_does_not_lead_on_is_refused() {
        let mut listing = Listing::default();
        assert_eq!(listing.take(&page(&[(1, 5)], Some(5), &[])), Ok(true));
        let before = listing.clone();
        for other in [
            page(&[(1, 5)], None, &[]),
            page(&[(1, 8), (1, 7)], None, &[]),
            page(&[(1, 8)], Some(7), &[]),
            page(&[], Some(5), &[]),
            Reply::NotFound,
        ] {
            assert_eq!(listing.take(&other), Err(NotNext), "{other:?}");
        }
        assert_eq!(listing, before);
    }
}
