//! The result of a cluster's stress test: its screen, worded as in the guide, and its verdict.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    time::Duration,
};

use hdrhistogram::Histogram;

use crate::{
    config::{ClusterConfig, Policy},
    node::status::ClusterStatus,
    peer::{NodeId, RequestId},
    report::status,
    store::{Name, Stored},
};
use omb_machine::quantity;

/// The load on the cluster.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The cluster.
    pub config: ClusterConfig,
    /// Clients that upload at the same time.
    pub clients: u32,
    /// Uploads per client.
    pub requests: u32,
    /// The uploaded file's name, as shown.
    pub image: String,
    /// Its bytes.
    pub image_bytes: u64,
}

impl Setup {
    /// Uploads in all.
    #[must_use]
    pub fn total(&self) -> u64 {
        u64::from(self.clients) * u64::from(self.requests)
    }
}

/// The outcome.
#[derive(Clone, Debug)]
pub struct Measured {
    /// From the beginning of the first upload to the end of the last.
    pub took: Duration,
    /// From an upload's beginning to its acknowledgement, retries included, in ns.
    pub latencies: Histogram<u64>,
    /// Uploads that were acknowledged: by which node, and as what.
    pub acknowledged: BTreeMap<RequestId, (NodeId, Stored)>,
    /// Why the others were not.
    pub failed: Vec<String>,
    /// Tries beyond the first of each upload.
    pub retries: u64,
    /// Of all uploads that the nodes report holding, those of this test.
    pub held: Vec<(NodeId, Stored)>,
    /// The cluster's state after the test; `None` if no node reported it.
    pub status: Option<ClusterStatus>,
    /// Nodes that did not answer after the test.
    pub missing: BTreeSet<NodeId>,
}

impl Measured {
    /// What each node holds in all; empty if no node reported it.
    fn stored(&self) -> BTreeMap<NodeId, u64> {
        let nodes = self.status.iter().flat_map(|status| &status.nodes);
        nodes.map(|node| (node.node, node.stored)).collect()
    }
}

/// Whether the cluster passed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// All uploads are where they were acknowledged, and the load is balanced.
    Pass,
    /// What is wrong, each in one line.
    Fail(Vec<String>),
}

const RULE: &str = "========================================";

fn heading(title: &str) -> String {
    format!("{RULE}\n  {title}\n{RULE}\n")
}

/// What is shown before the test.
#[must_use]
pub fn opening(setup: &Setup, leader: &str) -> String {
    let mut text = heading("MULTI-MACHINE LOAD BALANCER STRESS TEST");
    text.push_str("\nMachine IPs:\n");
    for (node, address) in setup.config.peers.iter() {
        let _ = writeln!(text, "  Node {}: {address}", node.0);
    }
    let _ = write!(
        text,
        "\nTest Configuration:\n  - Concurrent Clients: {}\n  - Requests per Client: {}\n  - Total Requests: {}\n  - \
         Test Image: {} ({})\n  - Policy: {}\n  - Leader: {leader}\n",
        setup.clients,
        setup.requests,
        setup.total(),
        setup.image,
        quantity::bytes(setup.image_bytes),
        setup.config.policy,
    );
    text
}

/// Uploads acknowledged by each peer, peers without any included.
fn counts(setup: &Setup, measured: &Measured) -> BTreeMap<NodeId, u64> {
    let mut counts: BTreeMap<NodeId, u64> = setup.config.peers.ids().map(|node| (node, 0)).collect();
    for (node, _) in measured.acknowledged.values() {
        *counts.entry(*node).or_default() += 1;
    }
    counts
}

/// The standard deviation of some counts, all of which are known.
fn deviation(counts: &BTreeMap<NodeId, u64>) -> f64 {
    if counts.is_empty() {
        return 0.0;
    }
    let number = quantity::real(counts.len() as u64);
    let mean = quantity::real(counts.values().sum()) / number;
    let squares: f64 = counts.values().map(|count| (quantity::real(*count) - mean).powi(2)).sum();
    (squares / number).sqrt()
}

fn spread(counts: &BTreeMap<NodeId, u64>) -> u64 {
    counts.values().max().copied().unwrap_or(0) - counts.values().min().copied().unwrap_or(0)
}

/// The largest allowed difference between two nodes' counts. Policies that count are exact; those that go by how busy
/// nodes are, or choose at random, are even only in the long run.
fn spread_max(setup: &Setup) -> u64 {
    match setup.config.policy {
        Policy::LeastLoad | Policy::RoundRobin => 1,
        Policy::LeastOutstanding | Policy::PowerOfTwo | Policy::PeakEwma => {
            let share = setup.total() / setup.config.peers.ids().len().max(1) as u64;
            (share / 4).max(2)
        }
    }
}

/// What is shown after the test, except the verdict.
#[must_use]
pub fn closing(setup: &Setup, measured: &Measured) -> String {
    let counts = counts(setup, measured);
    let nodes = counts.len().max(1) as u64;
    let done = measured.acknowledged.len() as u64;
    let bytes: u64 = measured.acknowledged.values().fold(0, |sum, (_, stored)| sum.saturating_add(stored.bytes));
    let took = measured.took;
    let mut text = heading("PERFORMANCE");
    let ms = |nanos: f64| format!("{}ms", quantity::three_digits(nanos / 1e6));
    let at = |quantile| ms(quantity::real(measured.latencies.value_at_quantile(quantile)));
    let listed = counts.iter().map(|(node, count)| format!("Node{}={count}", node.0)).collect::<Vec<_>>().join(", ");
    let _ = write!(
        text,
        "\nTotal requests: {} ({done} acknowledged, {} failed, {} retries)\nDuration: {:.2} seconds\nThroughput: {} \
         req/sec\nAverage latency: {}\nLatency percentiles: p50 {}, p95 {}, p99 {}, max {}\nNetwork bandwidth: {}/s per \
         node\nDistribution: {listed} (variance: ±{:.2})\n",
        setup.total(),
        measured.failed.len(),
        measured.retries,
        took.as_secs_f64(),
        quantity::three_digits(quantity::per_second(done, took)),
        ms(measured.latencies.mean()),
        at(0.5),
        at(0.95),
        at(0.99),
        ms(quantity::real(measured.latencies.max())),
        byte_rate(bytes / nodes, took),
        deviation(&counts),
    );
    text.push('\n');
    text.push_str(&heading("LOAD DISTRIBUTION ANALYSIS"));
    text.push_str("\nDistribution across physical machines:\n");
    for (node, address) in setup.config.peers.iter() {
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
        let _ = writeln!(text, "  Machine {host} (Node {}): {} requests", node.0, counts[&node]);
    }
    text.push('\n');
    text
}

fn byte_rate(bytes: u64, took: Duration) -> String {
    let rate = quantity::per_second(bytes, took);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate that is shown")]
    let rate = rate.round() as u64;
    quantity::bytes(rate)
}

/// The test's verdict on the cluster.
#[must_use]
pub fn verdict(setup: &Setup, measured: &Measured) -> Verdict {
    let mut wrong = Vec::new();
    if let Some(first) = measured.failed.first() {
        let failed = quantity::counted(measured.failed.len() as u64, "request");
        wrong.push(format!("{failed} of {} failed; the first: {first}", setup.total()));
    }
    wrong.extend(held(measured));
    let counts = counts(setup, measured);
    let most = spread_max(setup);
    // A new leader evens out earlier imbalance: then the totals held are level. The leader's books would not do, for a
    // node that was away joins them at the level of the others.
    let stored = measured.stored();
    let levelled = stored.len() == counts.len() && spread(&stored) <= most;
    if spread(&counts) > most && !levelled {
        let got = |extreme: Option<(&NodeId, &u64)>| {
            extreme.map(|(node, count)| format!("node {} got {count}", node.0)).unwrap_or_default()
        };
        wrong.push(format!(
            "uneven distribution: {}, {}; allowed with {}: a difference of {most}",
            got(counts.iter().max_by_key(|(_, count)| **count)),
            got(counts.iter().min_by_key(|(_, count)| **count)),
            setup.config.policy
        ));
        wrong.extend(measured.status.iter().flat_map(|status| status::uneven(&counts, measured.took, status)));
    }
    for node in &measured.missing {
        let address = setup.config.peers.address(*node).unwrap_or_default();
        wrong.push(format!("node {} ({address}) does not answer: what it holds could not be checked", node.0));
    }
    if wrong.is_empty() { Verdict::Pass } else { Verdict::Fail(wrong) }
}

/// Differences between what the nodes hold and what was acknowledged.
fn held(measured: &Measured) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut copies: BTreeMap<RequestId, BTreeMap<NodeId, Name>> = BTreeMap::new();
    for (node, stored) in &measured.held {
        copies.entry(stored.name.id).or_default().insert(*node, stored.name);
    }
    let mut lost = 0_u64;
    let mut first = String::new();
    for (id, (node, stored)) in &measured.acknowledged {
        // Nothing can be said of a node that does not answer.
        if measured.missing.contains(node) {
            continue;
        }
        if copies.get(id).and_then(|copies| copies.get(node)) != Some(&stored.name) {
            lost += 1;
            if lost == 1 {
                first = format!("node {} acknowledged {} and does not hold it", node.0, stored.name);
            }
        }
    }
    if lost > 0 {
        wrong.push(format!("{} not found where acknowledged: {first}", quantity::counted(lost, "upload")));
    }
    let doubled = copies.values().filter(|copies| copies.len() > 1).count() as u64;
    if doubled > 0 {
        wrong.push(format!(
            "{} on more than one node: a holder could not be reached when it was tried again",
            quantity::counted(doubled, "upload")
        ));
    }
    wrong
}

/// How many uploads of a test are where they were acknowledged, in one line.
#[must_use]
pub fn checked(measured: &Measured) -> String {
    let bytes: u64 = measured.held.iter().fold(0, |sum, (_, stored)| sum.saturating_add(stored.bytes));
    format!(
        "Acknowledged: {}; held by the nodes: {} ({})",
        quantity::counted(measured.acknowledged.len() as u64, "upload"),
        quantity::grouped(measured.held.len() as u64),
        quantity::bytes(bytes)
    )
}

/// The verdict as the last lines of the screen.
#[must_use]
pub fn verdict_lines(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Pass => "✅ PASS: Load distribution is balanced across machines\n".to_owned(),
        Verdict::Fail(wrong) => {
            let mut text = format!("❌ FAIL: {}\n", wrong.first().map_or("", String::as_str));
            for line in wrong.iter().skip(1) {
                let _ = writeln!(text, "         {line}");
            }
            text
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::parse_peers, node::status::PeerState, peer::Digest, report::status::tests::calm, store::Kind};

    fn setup() -> Setup {
        let peers = "1=192.168.1.100:7001,2=192.168.1.101:7002,3=192.168.1.102:7003";
        let config = ClusterConfig::new(parse_peers(peers).expect("sound"));
        Setup { config, clients: 10, requests: 10, image: "test_image.bin".to_owned(), image_bytes: 4_500 }
    }

    fn stored(id: u128) -> Stored {
        Stored { name: Name { id: RequestId(id), digest: Digest([7; 32]), kind: Kind::Bin }, bytes: 4_500 }
    }

    /// This many for each node.
    fn measured(shares: [u64; 3]) -> Measured {
        let nodes = (1..).zip(shares).flat_map(|(node, share)| (0..share).map(move |_| NodeId(node)));
        let acknowledged: BTreeMap<_, _> =
            (0_u128..).zip(nodes).map(|(id, node)| (RequestId(id), (node, stored(id)))).collect();
        let mut latencies = Histogram::new(3).expect("three digits");
        latencies.record_n(150_000_000, 100).expect("in range");
        Measured {
            took: Duration::from_secs(15),
            latencies,
            held: acknowledged.values().copied().collect(),
            acknowledged,
            failed: Vec::new(),
            retries: 0,
            status: None,
            missing: BTreeSet::new(),
        }
    }

    #[test]
    fn the_screen_is_the_guides() {
        let (setup, measured) = (setup(), measured([33, 34, 33]));
        assert_eq!(
            opening(&setup, "node 3 in term 2"),
            "========================================\n  MULTI-MACHINE LOAD BALANCER STRESS TEST\n\
             ========================================\n\nMachine IPs:\n  Node 1: 192.168.1.100:7001\n  Node 2: \
             192.168.1.101:7002\n  Node 3: 192.168.1.102:7003\n\nTest Configuration:\n  - Concurrent Clients: 10\n  - \
             Requests per Client: 10\n  - Total Requests: 100\n  - Test Image: test_image.bin (4.50 kB)\n  - Policy: \
             least-load\n  - Leader: node 3 in term 2\n"
        );
        assert_eq!(
            closing(&setup, &measured),
            "========================================\n  PERFORMANCE\n========================================\n\n\
             Total requests: 100 (100 acknowledged, 0 failed, 0 retries)\nDuration: 15.00 seconds\nThroughput: 6.67 \
             req/sec\nAverage latency: 150ms\nLatency percentiles: p50 150ms, p95 150ms, p99 150ms, max 150ms\nNetwork \
             bandwidth: 10.0 kB/s per node\nDistribution: Node1=33, Node2=34, Node3=33 (variance: ±0.47)\n\n\
             ========================================\n  LOAD DISTRIBUTION ANALYSIS\n\
             ========================================\n\nDistribution across physical machines:\n  Machine \
             192.168.1.100 (Node 1): 33 requests\n  Machine 192.168.1.101 (Node 2): 34 requests\n  Machine \
             192.168.1.102 (Node 3): 33 requests\n\n"
        );
        let verdict = verdict(&setup, &measured);
        assert_eq!(verdict, Verdict::Pass);
        assert_eq!(verdict_lines(&verdict), "✅ PASS: Load distribution is balanced across machines\n");
    }

    #[track_caller]
    fn fails(measured: &Measured, want: &[&str]) {
        assert_eq!(verdict(&setup(), measured), Verdict::Fail(want.iter().map(|line| (*line).to_owned()).collect()));
    }

    #[test]
    fn an_uneven_distribution_fails_and_says_why() {
        let mut uneven = measured([50, 0, 50]);
        uneven.missing = [NodeId(2)].into();
        let mut status = calm();
        status.nodes.remove(1);
        status.peers[1].state = PeerState::Silent { ms: 20_000 };
        uneven.status = Some(status);
        fails(
            &uneven,
            &[
                "uneven distribution: node 3 got 50, node 2 got 0; allowed with least-load: a difference of 1",
                "node 2 has 0, 50 fewer than node 1: it has been silent for 20 s",
                "node 2 (192.168.1.101:7002) does not answer: what it holds could not be checked",
            ],
        );
        let verdict = verdict(&setup(), &uneven);
        assert!(verdict_lines(&verdict).starts_with("❌ FAIL: uneven distribution: node 3 got 50"));
    }

    /// Shares that make up for an outage before the test are what least-load is for.
    #[test]
    fn what_evens_out_passes() {
        let mut evening = measured([25, 50, 25]);
        evening.status = Some(calm());
        assert_eq!(verdict(&setup(), &evening), Verdict::Pass);
        // A node that was away joins the books at the level of the others, and has fewer all the same.
        let mut away = measured([40, 20, 40]);
        let mut status = calm();
        status.nodes.iter_mut().zip([40, 20, 40]).for_each(|(node, stored)| node.stored = stored);
        away.status = Some(status);
        assert!(matches!(verdict(&setup(), &away), Verdict::Fail(_)), "the books are level, the nodes are not");
        evening.status.iter_mut().for_each(|status| drop(status.nodes.remove(2)));
        assert!(matches!(verdict(&setup(), &evening), Verdict::Fail(_)), "what is not known is not level");
    }

    #[test]
    fn what_is_not_where_it_was_acknowledged_fails() {
        let mut lost = measured([33, 34, 33]);
        lost.held.remove(0);
        let name = stored(0).name;
        fails(
            &lost,
            &[&format!("1 upload not found where acknowledged: node 1 acknowledged {name} and does not hold it")],
        );
        let mut doubled = measured([33, 34, 33]);
        doubled.held.push((NodeId(3), stored(0)));
        fails(&doubled, &["1 upload on more than one node: a holder could not be reached when it was tried again"]);
        let mut failed = measured([33, 33, 33]);
        failed.failed.push("given up after 3 tries".to_owned());
        fails(&failed, &["1 request of 100 failed; the first: given up after 3 tries"]);
    }

    /// Policies that choose at random are not held to a difference of one.
    #[test]
    fn what_is_allowed_follows_from_the_policy() {
        let mut setup = setup();
        setup.config.policy = Policy::PowerOfTwo;
        assert_eq!(verdict(&setup, &measured([30, 36, 34])), Verdict::Pass);
        assert!(matches!(verdict(&setup, &measured([20, 50, 30])), Verdict::Fail(_)));
    }
}
