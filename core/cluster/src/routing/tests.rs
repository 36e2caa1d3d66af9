use proptest::prelude::*;

use super::*;

const POLICIES: [Policy; 5] =
    [Policy::LeastLoad, Policy::LeastOutstanding, Policy::PowerOfTwo, Policy::PeakEwma, Policy::RoundRobin];

fn at_ms(ms: u64) -> Instant {
    Instant::ZERO + Duration::from_millis(ms)
}

fn router(policy: Policy, nodes: u32) -> Router {
    let mut router = Router::new(policy, Seed(1));
    (1..=nodes).for_each(|node| router.join(Instant::ZERO, NodeId(node), 0));
    router
}

fn assign(router: &mut Router, now: Instant) -> u32 {
    router.assign(now, &BTreeSet::new()).expect("there are nodes").0
}

fn assigned(router: &Router) -> Vec<u64> {
    router.loads().map(|load| load.assigned).collect()
}

const QUICK: Duration = Duration::from_millis(5);

proptest! {
    /// 100 requests on three equal nodes: 33, 33 and 34 whatever the concurrency and the order in which they end.
    #[test]
    fn equal_nodes_share_equally(seed: u64, concurrency in 1..40_usize, nodes in 1..9_u32) {
        let mut router = router(Policy::LeastLoad, nodes);
        let mut rng = Seed(seed).stream("ends");
        let mut open = Vec::new();
        for _ in 0..100 {
            if open.len() == concurrency {
                let ended = usize::try_from(rand::Rng::next_u64(&mut rng) % concurrency as u64).expect("small");
                router.finish(Instant::ZERO, NodeId(open.swap_remove(ended)), QUICK, End::Stored);
            }
            open.push(assign(&mut router, Instant::ZERO));
        }
        let counts = assigned(&router);
        prop_assert_eq!(counts.iter().sum::<u64>(), 100);
        prop_assert!(counts.iter().max().expect("some") - counts.iter().min().expect("some") <= 1, "{:?}", counts);
    }

    /// Books balance: what is in flight is what was assigned and not finished, for every policy.
    #[test]
    fn books_balance(policy in prop::sample::select(&POLICIES[..]), ends in prop::collection::vec(0..3_u8, 0..60)) {
        let mut router = router(policy, 4);
        let mut open = 0;
        for (now, end) in (0..).zip(&ends) {
            let node = assign(&mut router, at_ms(now));
            let end = match end { 0 => End::Stored, 1 => End::Failed, _ => { open += 1; continue } };
            router.finish(at_ms(now), NodeId(node), QUICK, end);
        }
        prop_assert_eq!(router.loads().map(|load| load.in_flight).sum::<u64>(), open);
        prop_assert_eq!(assigned(&router).iter().sum::<u64>(), ends.len() as u64);
    }
}

#[test]
fn a_node_that_rejoins_starts_at_the_level_of_the_least_loaded() {
    let mut router = router(Policy::LeastLoad, 3);
    (0..30).for_each(|_| _ = assign(&mut router, Instant::ZERO));
    router.leave(NodeId(3));
    (0..20).for_each(|_| assert_ne!(assign(&mut router, Instant::ZERO), 3, "a dead node gets nothing"));
    router.join(Instant::ZERO, NodeId(3), 10);
    assert_eq!(assigned(&router), [20, 20, 20]);
    (0..30).for_each(|_| _ = assign(&mut router, Instant::ZERO));
    assert_eq!(assigned(&router), [30, 30, 30]);
}

#[test]
fn a_new_leader_evens_out_what_is_reported() {
    let mut router = Router::new(Policy::LeastLoad, Seed(1));
    router.begin(Instant::ZERO, &[(NodeId(1), 5), (NodeId(2), 3), (NodeId(3), 4)].into());
    let order: Vec<u32> = (0..6).map(|_| assign(&mut router, Instant::ZERO)).collect();
    assert_eq!(order, [2, 3, 2, 1, 3, 2], "fewest assigned, then fewest in flight, then by turn");
    assert_eq!(assigned(&router), [6, 6, 6]);
}

/// Node 2 refuses within a millisecond what takes the others 50: it is asked once per penalty, and has no backlog
/// later.
#[test]
fn failing_fast_attracts_nothing() {
    for policy in POLICIES {
        let mut router = router(policy, 3);
        let mut asked = 0;
        for now in (0..10_000).step_by(10) {
            let node = assign(&mut router, at_ms(now));
            asked += u32::from(node == 2);
            let (took, end) = if node == 2 { (1, End::Failed) } else { (50, End::Stored) };
            router.finish(at_ms(now), NodeId(node), Duration::from_millis(took), end);
        }
        assert!(asked <= 2, "{policy}: {asked}");
    }
    let mut router = router(Policy::LeastLoad, 2);
    router.finish(Instant::ZERO, NodeId(2), QUICK, End::Failed);
    (0..100).for_each(|_| assert_eq!(assign(&mut router, Instant::ZERO), 1));
    (0..10).for_each(|_| _ = assign(&mut router, at_ms(5_000)));
    assert_eq!(assigned(&router), [105, 105], "well again, it takes its share and no more");
}

#[test]
fn the_failing_one_is_better_than_none() {
    let mut router = router(Policy::LeastLoad, 2);
    router.finish(Instant::ZERO, NodeId(2), QUICK, End::Failed);
    assert_eq!(router.assign(Instant::ZERO, &[NodeId(1)].into()), Some(NodeId(2)));
    assert_eq!(router.assign(Instant::ZERO, &[NodeId(1), NodeId(2)].into()), None);
}

#[test]
fn what_was_abandoned_was_never_given() {
    let mut router = router(Policy::LeastLoad, 2);
    assert_eq!(assign(&mut router, Instant::ZERO), 1);
    router.finish(Instant::ZERO, NodeId(1), QUICK, End::Abandoned);
    assert_eq!(assigned(&router), [0, 0]);
    router.finish(Instant::ZERO, NodeId(9), QUICK, End::Stored);
    assert_eq!(assigned(&router), [0, 0], "a node that has left");
}

#[test]
fn a_peak_is_believed_at_once() {
    let mut router = router(Policy::PeakEwma, 2);
    for now in [1_000, 20_000] {
        for node in [1, 2] {
            router.finish(at_ms(now), NodeId(node), QUICK, End::Stored);
        }
    }
    router.finish(at_ms(20_001), NodeId(1), Duration::from_secs(2), End::Stored);
    (0..5).for_each(|_| assert_eq!(assign(&mut router, at_ms(20_002)), 2));
}

#[test]
fn two_choices_are_fair_in_the_long_run_and_repeatable() {
    let play = || {
        let mut router = router(Policy::PowerOfTwo, 4);
        let order: Vec<u32> = (0..4_000).map(|_| assign(&mut router, Instant::ZERO)).collect();
        (order, assigned(&router))
    };
    let (order, counts) = play();
    assert!(counts.iter().all(|count| count.abs_diff(1_000) <= 10), "{counts:?}");
    assert_eq!(play().0, order);
}
