//! The metrics of a cluster's node in Prometheus' text format. See [`omb_machine::prometheus`].

use crate::node::metrics::{Kind, Metrics, Outcome};
use omb_machine::{buckets::Buckets, prometheus::Text};

/// All metrics of a node, in Prometheus' text format 0.0.4: each family once, with its help and its type.
///
/// Serve it as [`omb_machine::prometheus::CONTENT_TYPE`]. `version` is this program's.
#[must_use]
pub fn prometheus(version: &str, metrics: &Metrics) -> String {
    let mut text = Text::default();
    let node = metrics.node.0.to_string();
    text.family("omb_build_info", "gauge", "Version of omb and id of the node; always 1.");
    text.sample("omb_build_info", &[("version", version), ("node", &node)], 1);
    let leader = metrics.leader.and_then(|leadership| leadership.leader);
    for (name, help, value) in [
        ("omb_node_term", "Newest term whose leader the node has stored.", metrics.newest.term.0),
        (
            "omb_node_leader",
            "Id of the leader that the node follows; 0 while there is none.",
            leader.map_or(0, |id| id.0.into()),
        ),
        ("omb_node_is_leader", "Whether the node leads.", u64::from(leader == Some(metrics.node))),
        ("omb_node_serves", "Whether the node leads and places uploads.", metrics.serves.into()),
        ("omb_node_peers", "Peers of the node.", metrics.peers),
        ("omb_node_peers_heard", "Peers that the node or its leader hears.", metrics.peers_heard),
        ("omb_node_uploads_stored", "Uploads in the node's folder.", metrics.stored),
        ("omb_node_stored_bytes", "Bytes of the uploads in the node's folder.", metrics.stored_bytes),
        ("omb_node_uploads_lost", "Acknowledged uploads whose files are gone or damaged.", metrics.lost),
        ("omb_node_requests_in_flight", "Requests in flight.", metrics.in_flight),
        ("omb_node_uploads_under_way", "Uploads being stored by the node.", metrics.under_way),
        ("omb_node_disk_blind", "Whether the node's folder could not be read.", metrics.blind.into()),
    ] {
        text.one(name, "gauge", help, value);
    }
    for (name, help, value) in [
        ("omb_node_elections_started_total", "Elections that the node started.", metrics.elections_started),
        ("omb_node_elections_won_total", "Elections that the node won.", metrics.elections_won),
        ("omb_node_leader_changes_total", "Leaderships that the node began to follow.", metrics.leader_changes),
        ("omb_node_disk_failures_total", "Disk steps that failed.", metrics.counts.disk_failures),
    ] {
        text.one(name, "counter", help, value);
    }
    let name = "omb_node_requests_total";
    text.family(name, "counter", "Requests by kind and outcome.");
    for (kind, kind_name) in Kind::ALL {
        for (outcome, outcome_name) in Outcome::ALL {
            let count = metrics.counts.answers(kind, outcome);
            if count > 0 || outcome == Outcome::Done {
                text.sample(name, &[("kind", kind_name), ("outcome", outcome_name)], count);
            }
        }
    }
    let name = "omb_node_uploads_assigned_total";
    text.family(name, "counter", "Uploads that the node assigned as the leader, by the node that took them.");
    for (to, count) in &metrics.counts.assigned {
        text.sample(name, &[("to", &to.0.to_string())], count);
    }
    let help = "From an upload's arrival at the node to the answer that it is stored.";
    buckets(&mut text, "omb_node_upload_seconds", help, &metrics.counts.upload);
    let help = "From the order to store an upload on the node until it was durable.";
    buckets(&mut text, "omb_node_store_seconds", help, &metrics.counts.store);
    text.0
}

fn buckets(text: &mut Text, name: &str, help: &str, buckets: &Buckets) {
    text.family(name, "histogram", help);
    let bucket = format!("{name}_bucket");
    for (bound, count) in buckets.cumulative() {
        text.sample(&bucket, &[("le", bound)], count);
    }
    text.sample(&bucket, &[("le", "+Inf")], buckets.count());
    text.sample(&format!("{name}_sum"), &[], buckets.sum().as_secs_f64());
    text.sample(&format!("{name}_count"), &[], buckets.count());
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        config::{ClusterConfig, parse_peers},
        node::{ClientId, Input, Node, message::Request},
        peer::{Leadership, NodeId},
    };
    use omb_machine::{
        Machine as _,
        prometheus::fixture::{parsed, value},
        seed::Seed,
        time::Instant,
    };

    fn metrics() -> Metrics {
        let config = ClusterConfig::new(parse_peers("1=a:7001,2=b:7002").expect("sound"));
        let mut node = Node::new(Instant::ZERO, NodeId(2), config, Leadership::default(), Seed(1));
        for client in 1..=2 {
            node.handle_input(Instant::ZERO, Input::Request { client: ClientId(client), request: Request::Discover });
        }
        node.metrics(Instant::ZERO)
    }

    #[test]
    fn values_are_what_was_counted() {
        let mut metrics = metrics();
        metrics.counts.assigned = [(NodeId(1), 3), (NodeId(2), 4)].into();
        let micros = [400, 500, 70_000, 90_000_000];
        micros.iter().for_each(|micros| metrics.counts.upload.record(Duration::from_micros(*micros)));
        let samples = parsed(&prometheus("0.1.0", &metrics));
        let plain = |name| value(&samples, name, &[]);
        assert_eq!(value(&samples, "omb_build_info", &[("version", "0.1.0"), ("node", "2")]), 1.0);
        assert_eq!((plain("omb_node_leader"), plain("omb_node_is_leader"), plain("omb_node_peers")), (0.0, 0.0, 1.0));
        let answered = |kind| value(&samples, "omb_node_requests_total", &[("kind", kind), ("outcome", "done")]);
        assert_eq!((answered("discover"), answered("put")), (2.0, 0.0));
        assert_eq!(value(&samples, "omb_node_uploads_assigned_total", &[("to", "2")]), 4.0);
        let below = |le| value(&samples, "omb_node_upload_seconds_bucket", &[("le", le)]);
        assert_eq!(["0.0005", "0.05", "0.1", "60", "+Inf"].map(below), [2.0, 2.0, 3.0, 3.0, 4.0]);
        assert_eq!(plain("omb_node_upload_seconds_count"), 4.0);
        assert!((plain("omb_node_upload_seconds_sum") - 90.0709).abs() < 1e-9);
        assert_eq!(plain("omb_node_store_seconds_count"), 0.0);
    }
}
