//! A cluster's status as text: which node leads, the state of each node, and what is wrong with which.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    config::Policy,
    election::TERM_JUMP_MAX,
    node::status::{Book, ClusterStatus, Hindrance, NodeStatus, Outage, PeerState, PeerStatus},
    peer::{Leadership, NodeId},
    routing::PENALTY,
};
use omb_machine::{
    grid::Grid,
    printable::{printable, printable_within},
    quantity::{bytes, counted, grouped, span},
};

/// The lines for the user: the leader, a row for each node, and a line for each problem.
#[must_use]
pub fn lines(status: &ClusterStatus) -> Vec<String> {
    let ClusterStatus { node, policy, durability, quorum, .. } = status;
    let since = lasting(status.for_ms);
    let headline = match status.leader {
        Some(Leadership { term, leader: Some(leader) }) => format!("{leader} leads in {term}, for {since}"),
        _ => format!("nobody leads, for {since}"),
    };
    let mut lines = vec![
        format!("{headline} (as {node} sees it)"),
        format!("policy {policy}, durability {durability}, quorum {quorum}"),
        String::new(),
    ];
    lines.extend(table(status));
    let notes = notes(status);
    if !notes.is_empty() {
        lines.push(String::new());
        lines.extend(notes);
    }
    plain(lines)
}

/// The lines of [`PeerStatus`]es, for a user who asked only for the leader: which nodes the asked one does not hear,
/// and why.
#[must_use]
pub fn missing(asked: NodeId, peers: &[PeerStatus]) -> Vec<String> {
    plain(peers.iter().filter_map(|peer| silence(asked, peer)).collect())
}

/// Why uploads of the last `window` are spread unevenly, where `counts` are those of the test by node: a line for each
/// node that has at least two fewer than the fullest, then the part of the policy and the leader in it. None if all are
/// even. A peer that is not in `counts` has none.
#[must_use]
pub fn uneven(counts: &BTreeMap<NodeId, u64>, window: Duration, status: &ClusterStatus) -> Vec<String> {
    let none = status.peers.iter().map(|peer| (peer.node, 0));
    let counts: BTreeMap<NodeId, u64> = none.chain(counts.iter().map(|(node, count)| (*node, *count))).collect();
    let most = counts.iter().max_by_key(|(node, count)| (**count, std::cmp::Reverse(**node)));
    let Some((full, most)) = most.map(|(node, count)| (*node, *count)) else { return Vec::new() };
    let mut lines = Vec::new();
    for (node, count) in counts.iter().filter(|(_, count)| **count + 1 < most) {
        let causes = causes(*node, window, status);
        let causes = if causes.is_empty() { "no cause is known".to_owned() } else { causes.join(", and ") };
        lines.push(format!("{node} has {}, {} fewer than {full}: {causes}", grouped(*count), grouped(most - count)));
    }
    if lines.is_empty() {
        return lines;
    }
    match status.policy {
        Policy::LeastLoad | Policy::RoundRobin => {}
        Policy::LeastOutstanding | Policy::PowerOfTwo | Policy::PeakEwma => {
            let policy = status.policy;
            lines.push(format!("policy {policy} goes by uploads in flight, so that it does not make totals equal"));
        }
    }
    if Duration::from_millis(status.for_ms) < window
        && let Some(Leadership { leader: Some(leader), .. }) = status.leader
    {
        let since = lasting(status.for_ms);
        lines.push(format!("{leader} leads only for {since}: until then another node placed uploads, or none"));
    }
    plain(lines)
}

/// Lines without control characters: parts of them come from other machines.
fn plain(lines: Vec<String>) -> Vec<String> {
    lines.into_iter().map(|line| printable(&line).into_owned()).collect()
}

fn table(status: &ClusterStatus) -> Vec<String> {
    let heading = ["node", "address", "state", "assigned", "stored", "bytes", "in flight", "being stored"];
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    for peer in &status.peers {
        let own = status.nodes.iter().find(|own| own.node == peer.node);
        let book = status.books.iter().find(|book| book.node == peer.node);
        let number = |number: Option<u64>| number.map_or_else(|| "-".to_owned(), grouped);
        rows.push(vec![
            peer.node.0.to_string(),
            peer.address.clone(),
            state(peer, own),
            number(book.map(|book| book.assigned).or(own.map(|own| own.assigned))),
            number(own.map(|own| own.stored)),
            own.map_or_else(|| "-".to_owned(), |own| bytes(own.bytes)),
            number(book.map(|book| book.in_flight)),
            number(own.map(|own| own.under_way)),
        ]);
    }
    Grid::with_texts(rows, vec![1, 2]).lines()
}

/// A node's state in a few words.
fn state(peer: &PeerStatus, own: Option<&NodeStatus>) -> String {
    let leads = own.is_some_and(|own| own.follows.is_some_and(|follows| follows.leader == Some(peer.node)));
    match peer.state {
        PeerState::Own | PeerState::Here { .. } if leads => "leads".to_owned(),
        PeerState::Here { .. } if own.is_none() => "no answer".to_owned(),
        PeerState::Own | PeerState::Here { .. } => "up".to_owned(),
        PeerState::Silent { ms } => format!("silent for {}", lasting(ms)),
        PeerState::Never { .. } => "never heard".to_owned(),
        PeerState::OtherPeers { .. } => "refused: other peers".to_owned(),
        PeerState::Disbelieved { .. } => "refused: its term".to_owned(),
        PeerState::OtherVersion { .. } => "refused: other version".to_owned(),
        PeerState::Refused { .. } => "refused".to_owned(),
    }
}

fn notes(status: &ClusterStatus) -> Vec<String> {
    let mut notes = Vec::new();
    if status.leader.is_none() {
        notes.push(
            "No leader: electing one takes a second or two. If it takes longer, see below which nodes are missing; all nodes must \
             run, with the same config.json."
                .to_owned(),
        );
    }
    if let Some(leadership) = status.leader.filter(|leadership| leadership.term.0 > TERM_JUMP_MAX) {
        notes.push(format!(
            "No election can have led to {leadership}: it is forged. A node that starts without its state does not believe \
             it. Stop all nodes, run each once with --reset-term, and start them again."
        ));
    }
    for own in &status.nodes {
        let node = own.node;
        match own.hindrance {
            Some(hindrance @ (Hindrance::NoMajority { .. } | Hindrance::TakesCensus)) => {
                notes.push(format!("{node} leads and places no uploads: {hindrance}."));
            }
            Some(Hindrance::NobodyLeads) | None => {}
        }
        match (own.follows, status.leader) {
            (Some(theirs), Some(ours)) if theirs != ours => notes.push(format!(
                "{node} follows {theirs}, {} follows {ours}: an election is in progress, or the network is cut between them.",
                status.node
            )),
            (None, Some(_)) => notes.push(format!("{node} follows no leader.")),
            _ => {}
        }
    }
    for peer in &status.peers {
        notes.extend(silence(status.node, peer));
        let answered = status.nodes.iter().any(|own| own.node == peer.node);
        if matches!(peer.state, PeerState::Here { .. }) && !answered {
            notes.push(format!("{} is reachable but did not answer in time: ask again.", peer.node));
        }
    }
    for own in &status.nodes {
        if own.disk.blind {
            let node = own.node;
            notes.push(format!("{node} cannot read its folder: it stores nothing, and what it holds is unknown."));
        }
        notes.extend(lost(own));
        notes.extend(disk(own).map(|failed| format!("{}: {failed}.", own.node)));
    }
    for book in status.books.iter().filter(|book| book.penalty_ms > 0) {
        notes.push(format!("{}: {}.", book.node, penalty(book)));
    }
    let over = status.outages.iter().filter_map(|outage| Some((outage, outage.until_ms?)));
    notes.extend(over.map(|(outage, _)| {
        format!("{} {}, as {} saw it.", outage.node, was_out(outage), counted(outage.seen_by.into(), "node"))
    }));
    notes
}

/// Why the asked node does not hear a peer, and what to do about it.
fn silence(asked: NodeId, PeerStatus { node, address, state }: &PeerStatus) -> Option<String> {
    match state {
        PeerState::Own | PeerState::Here { .. } => None,
        PeerState::Silent { ms } => Some(format!(
            "{node} has been silent for {}: it has crashed, or the network to it is cut. Check that it runs, and that {address} can be \
             reached.",
            lasting(*ms)
        )),
        PeerState::Never { ms } => Some(format!(
            "{node} was never heard in the {} that {asked} has run. Check that it was started, that {address} is its \
             address, and that no firewall closes the port.",
            lasting(*ms)
        )),
        PeerState::OtherPeers { theirs, ours, .. } => Some(format!(
            "{node} has another list of peers (digest {}, at {asked} {}), so both ignore each other. config.json \
             must name the same peers everywhere.",
            theirs.short(),
            ours.short()
        )),
        PeerState::Disbelieved { term, .. } => Some(format!(
            "{node} names {term}, which no election can have led to, so {asked} ignores it. Stop all nodes, run \
             each once with --reset-term, and start them again."
        )),
        PeerState::OtherVersion { theirs, ours, .. } => Some(format!(
            "{node} speaks version {theirs} of the protocol, {asked} version {ours}. Run the same omb everywhere."
        )),
        PeerState::Refused { why, .. } => {
            Some(format!("{node} and {asked} refuse each other: {}.", printable_within(why, 400)))
        }
    }
}

/// What kept a node from its share.
fn causes(node: NodeId, window: Duration, status: &ClusterStatus) -> Vec<String> {
    let window_ms = u64::try_from(window.as_millis()).unwrap_or(u64::MAX);
    let mut causes = Vec::new();
    let of = |outage: &&Outage| outage.node == node && outage.until_ms.is_none_or(|until| until < window_ms);
    causes.extend(status.outages.iter().filter(of).map(|outage| format!("it {}", was_out(outage))));
    let peer = status.peers.iter().find(|peer| peer.node == node);
    match peer.map(|peer| &peer.state) {
        Some(PeerState::Silent { ms }) if causes.is_empty() => {
            causes.push(format!("it has been silent for {}", lasting(*ms)))
        }
        Some(PeerState::Never { .. }) if causes.is_empty() => causes.push("it was never heard".to_owned()),
        Some(PeerState::OtherPeers { .. }) => causes.push("it has another list of peers".to_owned()),
        Some(PeerState::Disbelieved { term, .. }) => causes.push(format!("it names {term} and is not believed")),
        Some(PeerState::OtherVersion { .. }) => causes.push("it speaks another version of the protocol".to_owned()),
        Some(PeerState::Refused { why, .. }) => causes.push(printable_within(why, 400)),
        _ => {}
    }
    if let Some(own) = status.nodes.iter().find(|own| own.node == node) {
        if own.up_ms < window_ms {
            causes.push(format!("it was started {} ago", lasting(own.up_ms)));
        }
        if own.disk.blind {
            causes.push("it cannot read its folder".to_owned());
        }
        if own.disk.last.as_ref().is_some_and(|last| last.ms < window_ms) {
            causes.extend(disk(own));
        }
    }
    let book = status.books.iter().find(|book| book.node == node);
    causes.extend(book.and_then(|book| match book.failed_ms {
        _ if book.penalty_ms > 0 => Some(penalty(book)),
        Some(failed) if failed < window_ms => {
            let (failed, penalty) = (lasting(failed), PENALTY.as_secs());
            Some(format!("an upload failed on it {failed} ago, after which it was passed over for {penalty} s"))
        }
        _ => None,
    }));
    causes
}

/// How many acknowledged uploads of a node are lost, and what to do about it; `None` if none are.
#[must_use]
pub fn lost(NodeStatus { node, gone, damaged, .. }: &NodeStatus) -> Option<String> {
    let what = match (gone, damaged) {
        (0, 0) => return None,
        (1, 0) => "its file is gone from the folder".to_owned(),
        (0, 1) => "its file is damaged".to_owned(),
        (_, 0) => "their files are gone from the folder".to_owned(),
        (0, _) => "their files are damaged".to_owned(),
        _ => format!(
            "the files of {} are gone from the folder, those of {} are damaged",
            grouped(*gone),
            grouped(*damaged)
        ),
    };
    let uploads = counted(gone.saturating_add(*damaged), "acknowledged upload");
    Some(format!(
        "{node}: {uploads} cannot be had: {what}. Put back what was there, or start {node} once with --accept-loss to have it forgotten."
    ))
}

/// The failures of a node's disk; `None` if there are none.
fn disk(own: &NodeStatus) -> Option<String> {
    let last = own.disk.last.as_ref()?;
    let times = counted(own.disk.failures, "time");
    Some(format!("its disk has failed {times}, the last {} ago: {}", lasting(last.ms), last.text))
}

fn penalty(book: &Book) -> String {
    format!("it has failed, and is passed over for {} more", lasting(book.penalty_ms))
}

fn was_out(outage: &Outage) -> String {
    let from = lasting(outage.from_ms);
    match outage.until_ms {
        Some(until) => format!("was out of reach from {from} to {} ago", lasting(until)),
        None => format!("has been out of reach for {from}"),
    }
}

/// A time span in readable precision: from 10 s on in whole seconds.
fn lasting(ms: u64) -> String {
    span(Duration::from_millis(if ms >= 10_000 { ms / 1_000 * 1_000 } else { ms }))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::{
        config::{Durability, Quorum},
        node::status::{DiskStatus, LastFailure},
        peer::{Digest, Term},
    };

    fn leads(node: u32, term: u64) -> Option<Leadership> {
        Some(Leadership { term: Term(term), leader: Some(NodeId(node)) })
    }

    fn own(node: u32, stored: u64) -> NodeStatus {
        NodeStatus {
            node: NodeId(node),
            newest: leads(3, 8).unwrap_or_default(),
            follows: leads(3, 8),
            hindrance: None,
            up_ms: 600_000,
            assigned: stored,
            stored,
            bytes: stored * 100_000,
            gone: 0,
            damaged: 0,
            under_way: 0,
            disk: DiskStatus::default(),
        }
    }

    fn peer(node: u32, state: PeerState) -> PeerStatus {
        PeerStatus { node: NodeId(node), address: format!("192.168.1.10{}:700{node}", node - 1), state }
    }

    /// Three nodes without faults, as node 1 sees them: 33, 34 and 33 uploads.
    pub(in crate::report) fn calm() -> ClusterStatus {
        let book = |node, assigned| Book { node: NodeId(node), assigned, in_flight: 0, penalty_ms: 0, failed_ms: None };
        ClusterStatus {
            node: NodeId(1),
            leader: leads(3, 8),
            for_ms: 125_400,
            policy: Policy::LeastLoad,
            durability: Durability::Fsync,
            quorum: Quorum::None,
            peers: vec![
                peer(1, PeerState::Own),
                peer(2, PeerState::Here { ms: 80 }),
                peer(3, PeerState::Here { ms: 40 }),
            ],
            nodes: vec![own(1, 33), own(2, 34), own(3, 33)],
            books: vec![book(1, 33), book(2, 34), book(3, 33)],
            outages: Vec::new(),
        }
    }

    #[track_caller]
    fn noted(status: &ClusterStatus, want: &[&str]) {
        assert_eq!(notes(status), want);
    }

    #[test]
    fn a_calm_cluster_needs_no_explanation() {
        let want = "\
node 3 leads in term 8, for 2 min 5 s (as node 1 sees it)
policy least-load, durability fsync, quorum none

  node  address             state  assigned  stored    bytes  in flight  being stored
  1     192.168.1.100:7001  up           33      33  3.30 MB          0             0
  2     192.168.1.101:7002  up           34      34  3.40 MB          0             0
  3     192.168.1.102:7003  leads        33      33  3.30 MB          0             0";
        assert_eq!(lines(&calm()).join("\n"), want);
    }

    #[test]
    fn without_a_leader_it_says_who_is_missing_and_why() {
        let mut status = calm();
        status.leader = None;
        status.for_ms = 5_250;
        status.peers[1].state = PeerState::Never { ms: 30_900 };
        let (theirs, ours) = (Digest([0xab; 32]), Digest([0xcd; 32]));
        status.peers[2].state = PeerState::OtherPeers { theirs, ours, ms: 100 };
        status.nodes.truncate(1);
        status.nodes[0].follows = None;
        status.nodes[0].hindrance = Some(Hindrance::NobodyLeads);
        status.books.clear();
        let want = "\
nobody leads, for 5.25 s (as node 1 sees it)
policy least-load, durability fsync, quorum none

  node  address             state                 assigned  stored    bytes  in flight  being stored
  1     192.168.1.100:7001  up                          33      33  3.30 MB          -             0
  2     192.168.1.101:7002  never heard                  -       -        -          -             -
  3     192.168.1.102:7003  refused: other peers         -       -        -          -             -

No leader: electing one takes a second or two. If it takes longer, see below which nodes are missing; all nodes must run, with the same config.json.
node 2 was never heard in the 30 s that node 1 has run. Check that it was started, that 192.168.1.101:7002 is its address, and that no firewall closes the port.
node 3 has another list of peers (digest abababababab, at node 1 cdcdcdcdcdcd), so both ignore each other. config.json must name the same peers everywhere.";
        assert_eq!(lines(&status).join("\n"), want);
        assert_eq!(missing(NodeId(1), &status.peers).len(), 2);
        status.peers[1].address = "\u{1b}[2Jhost\n:7".to_owned();
        assert!(lines(&status).iter().all(|line| !line.contains(char::is_control)), "whatever a node sends");
    }

    #[test]
    fn a_leader_that_does_not_serve_says_why() {
        let mut status = calm();
        (status.node, status.quorum) = (NodeId(3), Quorum::Majority);
        status.peers = vec![
            peer(1, PeerState::Silent { ms: 5_000 }),
            peer(2, PeerState::OtherVersion { theirs: 2, ours: 1, ms: 10 }),
            peer(3, PeerState::Own),
        ];
        status.nodes = vec![own(3, 33)];
        status.nodes[0].hindrance = Some(Hindrance::NoMajority { heard: 1, of: 3 });
        noted(
            &status,
            &[
                "node 3 leads and places no uploads: it is heard by 1 of 3 nodes, itself included, and quorum: majority asks \
                 for more than half.",
                "node 1 has been silent for 5 s: it has crashed, or the network to it is cut. Check that it runs, and that \
                 192.168.1.100:7001 can be reached.",
                "node 2 speaks version 2 of the protocol, node 3 version 1. Run the same omb everywhere.",
            ],
        );
    }

    /// A forged term that was believed stays for good: a node that starts anew would not believe it.
    #[test]
    fn what_sets_a_cluster_at_odds_is_told() {
        let mut status = calm();
        status.leader = leads(3, TERM_JUMP_MAX);
        assert!(notes(&status).iter().all(|note| !note.contains("forged")));
        status.leader = leads(3, TERM_JUMP_MAX + 3);
        status.peers[1].state = PeerState::Refused { why: "its certificate has expired".to_owned(), ms: 10 };
        let notes = notes(&status);
        let found = |begins: &str| notes.iter().any(|note| note.starts_with(begins));
        assert!(found("No election can have led to node 3 in term 4294967299: it is forged."), "{notes:?}");
        assert!(found("node 2 and node 1 refuse each other: its certificate has expired."), "{notes:?}");
    }

    #[test]
    fn troubles_of_disks_and_of_agreement_are_told() {
        let mut status = calm();
        status.nodes[0].follows = leads(2, 7);
        status.nodes[1].disk = DiskStatus {
            blind: true,
            failures: 2,
            last: Some(LastFailure { ms: 1_500, text: "disk full".to_owned() }),
        };
        (status.nodes[0].gone, status.nodes[1].damaged) = (31, 1);
        status.books[1].penalty_ms = 3_000;
        status.nodes.pop();
        status.outages = vec![Outage { node: NodeId(2), from_ms: 72_300, until_ms: Some(64_000), seen_by: 2 }];
        noted(
            &status,
            &[
                "node 1 follows node 2 in term 7, node 1 follows node 3 in term 8: an election is in progress, or the network is \
                 cut between them.",
                "node 3 is reachable but did not answer in time: ask again.",
                "node 1: 31 acknowledged uploads cannot be had: their files are gone from the folder. Put back what was \
                 there, or start node 1 once with --accept-loss to have it forgotten.",
                "node 2 cannot read its folder: it stores nothing, and what it holds is unknown.",
                "node 2: 1 acknowledged upload cannot be had: its file is damaged. Put back what was there, or start node 2 \
                 once with --accept-loss to have it forgotten.",
                "node 2: its disk has failed 2 times, the last 1.50 s ago: disk full.",
                "node 2: it has failed, and is passed over for 3 s more.",
                "node 2 was out of reach from 72 s to 64 s ago, as 2 nodes saw it.",
            ],
        );
    }

    #[track_caller]
    fn explains(counts: [u64; 3], status: &ClusterStatus, want: &[&str]) {
        let counts = (1..).map(NodeId).zip(counts).collect();
        assert_eq!(uneven(&counts, Duration::from_secs(20), status), want);
    }

    #[test]
    fn an_even_spread_needs_no_cause() {
        explains([33, 34, 33], &calm(), &[]);
        assert_eq!(uneven(&BTreeMap::new(), Duration::ZERO, &calm()), [""; 0]);
    }

    #[test]
    fn an_uneven_spread_has_causes() {
        let mut status = calm();
        let counts = [(NodeId(1), 50), (NodeId(3), 50)].into();
        let without = uneven(&counts, Duration::from_secs(20), &status);
        assert_eq!(without, ["node 2 has 0, 50 fewer than node 1: no cause is known"]);
        explains([20, 40, 40], &status, &["node 1 has 20, 20 fewer than node 2: no cause is known"]);
        status.books[0].failed_ms = Some(7_000);
        let cause = "an upload failed on it 7 s ago, after which it was passed over for 5 s";
        explains([20, 40, 40], &status, &[&format!("node 1 has 20, 20 fewer than node 2: {cause}")]);
        status.books[0].failed_ms = Some(20_000);
        explains([20, 40, 40], &status, &["node 1 has 20, 20 fewer than node 2: no cause is known"]);
        let outage = |node, from_ms, until_ms| Outage { node: NodeId(node), from_ms, until_ms, seen_by: 1 };
        status.outages = vec![outage(2, 90_000, Some(80_000)), outage(2, 12_000, Some(8_000)), outage(1, 5_000, None)];
        status.nodes[1].up_ms = 8_400;
        status.nodes[2].disk =
            DiskStatus { blind: false, failures: 1, last: Some(LastFailure { ms: 900, text: "disk full".to_owned() }) };
        status.policy = Policy::PowerOfTwo;
        status.for_ms = 4_000;
        explains(
            [40, 20, 10],
            &status,
            &[
                "node 2 has 20, 20 fewer than node 1: it was out of reach from 12 s to 8 s ago, and it was started 8.40 s ago",
                "node 3 has 10, 30 fewer than node 1: its disk has failed 1 time, the last 900 ms ago: disk full",
                "policy power-of-two goes by uploads in flight, so that it does not make totals equal",
                "node 3 leads only for 4 s: until then another node placed uploads, or none",
            ],
        );
        explains(
            [10, 40, 40],
            &ClusterStatus { policy: Policy::LeastLoad, for_ms: 30_000, ..status },
            &["node 1 has 10, 30 fewer than node 2: it has been out of reach for 5 s"],
        );
    }
}
