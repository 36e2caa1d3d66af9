//! Bully election with terms: of the nodes that answer, the one with the highest id leads.
//!
//! ```text
//!              nobody heard            no answer            Persisted
//! Listening ───────────────▶ Challenging ─────▶ Claiming ──────────────▶ Leading
//!     ▲  ▲                    │       ▲             ▲                       │
//!     │  │          answered  ▼       │ no victory  │ leader steady,        │ a newer leader,
//!     │  │                   Waiting ─┘             │ I am higher           │ or slept
//!     │  └───────── silence ─ Following ────────────┘                       │
//!     └─────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! Source: H. Garcia-Molina, "Elections in a Distributed Computing System", IEEE Transactions on Computers C-31(1),
//! 1982. The paper bounds how long a message may take; [`Timing::answer`] is our bound. If the network exceeds it, two
//! nodes may lead for a while, each in a term of its own, and these rules, which the paper lacks, resolve that:
//!
//! - **A term belongs to one node.** Node number r of n (both by id) claims only terms t with t mod n = r. So no term
//!   ever has two leaders, with or without a quorum.
//! - **Every message carries the newest leadership its sender has stored.** A node follows only the newest that it has
//!   seen; a node that is behind gets a correction, and a leader that is behind steps down.
//! - **Durable before it counts.** A leadership is followed, claimed or passed on only after [`Input::Persisted`].
//! - **A returning higher node waits** until the leader in office has listed it as reachable for [`Timing::steady`].
//! - **A node that slept asks again.** After a gap of [`Timing::suspicion`] in its own time a node trusts nothing it
//!   knew: a leader that was frozen serves no further request before it has listened.

mod ballot;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fmt::Write as _,
    time::Duration,
};

use crate::{
    config::{Quorum, Timing},
    peer::{Leadership, NodeId, Term},
};
pub use ballot::{Ballot, Word};
use omb_machine::{Machine, Wake, time::Instant};

/// What can happen to an election.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// A peer sent a ballot.
    Received {
        /// The peer, as the transport knows it.
        from: NodeId,
        /// Its ballot.
        ballot: Ballot,
    },
    /// [`Output::Persist`] succeeded: this survives a restart.
    Persisted(Leadership),
    /// [`Output::Persist`] failed.
    PersistFailed(Leadership),
}

/// What an election wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send this to a peer. May be lost, delayed or duplicated.
    Send {
        /// The peer.
        to: NodeId,
        /// What to send.
        ballot: Ballot,
    },
    /// Make this survive a restart, and report the result. One at a time.
    Persist(Leadership),
    /// The leader that this node follows from now on, possibly itself; `None` while there is none.
    LeaderChanged(Option<Leadership>),
    /// A line for the log.
    Info(String),
    /// A peer names a term that no election can have led to, for the log.
    Disbelieved {
        /// The peer.
        peer: NodeId,
        /// What it claimed, and the remedy.
        what: String,
    },
}

/// How many times [`Timing::answer`] and [`Timing::suspicion`] a node that was answered waits for a victory: the
/// answering node may first have to suspect the old leader itself, then waits for its own answers, then stores its
/// claim.
const VICTORY_ANSWERS: u32 = 2;

/// No node owns a term above this: at one election per microsecond it takes 200,000 years to get there.
const TERM_MAX: u64 = u64::MAX / 4;

/// How far a term may be above the newest that a node has seen: at one election per second the node has then been away
/// for 136 years. A higher term is forged, or left over from one that an earlier version believed; a node that believed
/// it would take the whole cluster to where no node can claim the next term.
pub const TERM_JUMP_MAX: u64 = 1 << 32;

/// How far a heartbeat's number may be above the last one: at one per millisecond a node has then heard none for 49
/// days.
const BEAT_JUMP_MAX: u64 = 1 << 32;

/// How often the same peer's absurd terms are logged, and how long a node with no term left to claim waits.
const ABSURD_EVERY: Duration = Duration::from_secs(60);

/// The remedy for a term that no election has led to.
const CURE: &str = "stop all nodes, run each once with --reset-term, and start them again";

/// The leadership to store in place of `stored`, if no cluster of these peers (from low to high) can have reached that
/// by elections; `None` if it can. `seconds` counts from 1970.
///
/// An election takes longer than a second and raises the term by at most twice the number of nodes, so a term of that
/// many seconds is above every sound one that a cluster of up to some hundred nodes has ever had: only absurd terms go
/// back. And it is below [`TERM_JUMP_MAX`] (until 2106), so that a node without any state believes it.
///
/// # Panics
/// Without any peer.
#[must_use]
pub fn repaired(stored: Leadership, peers: &[NodeId], seconds: u64) -> Option<Leadership> {
    if stored.term.0 <= TERM_JUMP_MAX {
        return None;
    }
    let nodes = peers.len() as u64;
    let term = seconds.clamp(nodes, TERM_JUMP_MAX - nodes);
    let rank = usize::try_from(term % nodes).expect("below the number of peers");
    Some(Leadership { term: Term(term), leader: Some(peers[rank]) })
}

/// One node's part in electing a leader.
#[derive(Clone, Debug)]
pub struct Election {
    me: NodeId,
    /// All nodes, this one included, from low to high.
    peers: Vec<NodeId>,
    timing: Timing,
    quorum: Quorum,
    /// What is known to survive a restart. Never goes back.
    durable: Leadership,
    /// The newest that was seen, stored or not. Nothing older is followed.
    seen: Leadership,
    /// What is being stored.
    persisting: Option<Leadership>,
    /// The leader that announced itself while that was being stored.
    spoke: Option<Leadership>,
    role: Role,
    /// As last emitted by [`Output::LeaderChanged`].
    announced: Option<Leadership>,
    /// When the last heartbeat was due, whether or not there was one to send. Its age shows whether this node slept.
    ticked: Instant,
    /// When a peer was last heard.
    heard: BTreeMap<NodeId, Instant>,
    /// Until when this node stays out of elections because it cannot store a term.
    unfit_until: Instant,
    /// Whether a majority was heard at the last check; for the log.
    had_quorum: bool,
    /// Peers whose last term is not believed, with the term, when it came, and when that was logged.
    disbelieved: BTreeMap<NodeId, Disbelieved>,
    /// Number of the current round of challenges, so that an answer to an earlier one is known as such.
    round: u64,
    counts: Counts,
    outputs: VecDeque<Output>,
}

/// A peer whose ballots are not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disbelieved {
    /// The term that it named last.
    pub term: Term,
    /// When.
    pub at: Instant,
    /// When this was last logged.
    logged: Instant,
}

/// What happened since the process began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Elections that this node started: it challenged the higher nodes, or claimed the leadership if there are none.
    pub started: u64,
    /// Those, and takeovers, that ended with this node as the leader.
    pub won: u64,
}

#[derive(Clone, Debug)]
enum Role {
    /// This node knows of no leader; it listens before it says so.
    Listening { until: Instant },
    /// The higher nodes were challenged.
    Challenging { until: Instant },
    /// A higher node answered and is expected to lead.
    Waiting { until: Instant },
    /// Follows a leader that is heard.
    Following(Following),
    /// Its own leadership is being stored.
    Claiming(Leadership),
    /// It leads.
    Leading(Leading),
}

#[derive(Clone, Debug)]
struct Following {
    of: Leadership,
    heard: Instant,
    /// The number of the last heartbeat; older copies are not the leader's voice.
    beat: u64,
    /// The nodes that the leader reports as reachable.
    alive: BTreeSet<NodeId>,
    /// Since when the leader has listed this node, which is higher, without interruption.
    steady_since: Option<Instant>,
    /// Deadline for higher nodes to object to this node's takeover.
    takeover: Option<Instant>,
}

#[derive(Clone, Debug)]
struct Leading {
    of: Leadership,
    /// The number of the last heartbeat.
    beat: u64,
    /// When recent heartbeats were sent, by number.
    sent: VecDeque<(u64, Instant)>,
    /// When the newest heartbeat that a follower echoed was sent: it followed this leader then or later.
    echoed: BTreeMap<NodeId, Instant>,
}

impl Election {
    /// Joins at `now`, with what was stored before, and listens for a leader.
    ///
    /// # Panics
    /// If `me` is not among the peers.
    #[must_use]
    pub fn new(
        now: Instant,
        me: NodeId,
        peers: &BTreeSet<NodeId>,
        restored: Leadership,
        timing: Timing,
        quorum: Quorum,
    ) -> Self {
        assert!(peers.contains(&me), "{me} is one of the peers");
        let mut outputs = VecDeque::new();
        if restored.term.0 > TERM_JUMP_MAX {
            let line = format!(
                "[Node {}] has {} on its disk, which no cluster comes to by elections: {CURE}",
                me.0, restored.term
            );
            outputs.push_back(Output::Info(line));
        }
        Self {
            me,
            peers: peers.iter().copied().collect(),
            timing,
            quorum,
            durable: restored,
            seen: restored,
            persisting: None,
            spoke: None,
            role: Role::Listening { until: now + timing.suspicion },
            announced: None,
            ticked: now,
            heard: BTreeMap::new(),
            unfit_until: Instant::ZERO,
            had_quorum: false,
            disbelieved: BTreeMap::new(),
            round: 0,
            counts: Counts::default(),
            outputs,
        }
    }

    /// The leader that this node follows, possibly itself; `None` while none is known.
    #[must_use]
    pub fn leader(&self) -> Option<Leadership> {
        self.announced
    }

    /// The newest leadership that survives a restart. Never goes back.
    #[must_use]
    pub fn durable(&self) -> Leadership {
        self.durable
    }

    /// The newest leadership this node has seen; orders of an older one are void.
    #[must_use]
    pub fn newest(&self) -> Leadership {
        self.seen
    }

    /// Whether this node may serve as the leader at `now`: it leads, its own clock shows no gap, and where a majority
    /// is required, one has followed it within the time after which followers would look for another.
    #[must_use]
    pub fn serves(&self, now: Instant) -> bool {
        match &self.role {
            Role::Leading(leading) => !self.has_slept(now) && self.has_quorum(leading, now),
            _ => false,
        }
    }

    /// How many nodes have followed this one within the suspicion time before `now`, itself included, if that keeps it
    /// from serving: it leads, a majority is required, and these are none.
    #[must_use]
    pub fn minority(&self, now: Instant) -> Option<usize> {
        match &self.role {
            Role::Leading(leading) if !self.has_quorum(leading, now) => Some(self.support(leading, now)),
            _ => None,
        }
    }

    /// When `node` was last heard itself. Not before this node last slept.
    #[must_use]
    pub fn heard(&self, node: NodeId) -> Option<Instant> {
        self.heard.get(&node).copied()
    }

    /// The last ballot of `node`, if it named a term that is not believed.
    #[must_use]
    pub fn disbelieved(&self, node: NodeId) -> Option<Disbelieved> {
        self.disbelieved.get(&node).copied()
    }

    /// Whether an honest node can name this leadership now: a peer leads in a term of its own that is not further above
    /// the newest one seen than elections can have led.
    #[must_use]
    pub fn believes(&self, leadership: Leadership) -> bool {
        self.is_sound(leadership) && leadership.term.0 <= self.highest_believed()
    }

    fn highest_believed(&self) -> u64 {
        self.seen.term.0.saturating_add(TERM_JUMP_MAX).min(TERM_MAX)
    }

    /// What happened since the process began.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// The nodes that this one considers reachable at `now`, itself included: heard within the suspicion time, or,
    /// where it follows, listed by its leader.
    #[must_use]
    pub fn alive(&self, now: Instant) -> BTreeSet<NodeId> {
        let recent = |at: &Instant| now.since(*at) < self.timing.suspicion;
        let mut alive: BTreeSet<NodeId> =
            self.heard.iter().filter(|(_, at)| recent(at)).map(|(node, _)| *node).collect();
        if let Role::Following(following) = &self.role {
            alive.extend(&following.alive);
        }
        alive.insert(self.me);
        alive
    }

    fn on_ballot(&mut self, now: Instant, from: NodeId, ballot: Ballot) {
        if from == self.me || self.peers.binary_search(&from).is_err() {
            return;
        }
        if ballot.newest.term.0 > self.highest_believed() {
            return self.disbelieve(now, from, ballot.newest.term);
        }
        if !self.is_sound(ballot.newest) {
            return;
        }
        self.disbelieved.remove(&from);
        self.heard.insert(from, now);
        self.see(now, ballot.newest);
        match ballot.word {
            Word::Challenge { round } => self.on_challenge(now, from, round),
            Word::Answer { round } => self.on_answer(now, from, round),
            Word::Victory => self.on_heartbeat(now, from, &ballot, 0, None),
            Word::Heartbeat { beat, ref alive } => self.on_heartbeat(now, from, &ballot, beat, Some(alive)),
            Word::Echo { beat } => self.on_echo(now, from, ballot.newest, beat),
            // Its content is in every ballot.
            Word::Outdated => {}
            Word::Inquiry => self.correct(from, ballot.newest),
        }
    }

    /// Records nothing of an absurd term beyond this.
    fn disbelieve(&mut self, now: Instant, from: NodeId, term: Term) {
        let logged =
            self.disbelieved.get(&from).map(|former| former.logged).filter(|logged| now.since(*logged) < ABSURD_EVERY);
        self.disbelieved.insert(from, Disbelieved { term, at: now, logged: logged.unwrap_or(now) });
        if logged.is_none() {
            let seen = self.seen.term;
            let what =
                format!("it names {term}, and the newest one known here is {seen}; if that is on its disk: {CURE}");
            self.outputs.push_back(Output::Disbelieved { peer: from, what });
        }
    }

    /// Whether an honest node can have sent it: the leader is a peer, and the term one of its own.
    fn is_sound(&self, leadership: Leadership) -> bool {
        match leadership.leader {
            None => leadership.term == Term(0),
            Some(leader) => {
                leadership.term.0 > 0
                    && self.peers.binary_search(&leader).is_ok_and(|rank| {
                        let nodes = self.peers.len();
                        usize::try_from(leadership.term.0 % nodes as u64) == Ok(rank)
                    })
            }
        }
    }

    /// Records a leadership. Nothing older is followed from now on, even before this one is stored.
    fn see(&mut self, now: Instant, newest: Leadership) {
        if newest > self.seen {
            self.seen = newest;
            let until = now + self.timing.suspicion;
            match &self.role {
                Role::Leading(leading) => {
                    let (of, me) = (leading.of, self.me.0);
                    self.info(format!("[Node {me}] learned of {newest} -> stepping down from {}", of.term));
                    self.role = Role::Listening { until };
                }
                Role::Following(_) | Role::Claiming(_) => self.role = Role::Listening { until },
                Role::Listening { .. } | Role::Challenging { .. } | Role::Waiting { .. } => {}
            }
            self.announce(None);
        }
        self.persist();
    }

    /// Stores the newest leadership, unless it is stored or another is being stored.
    fn persist(&mut self) {
        if self.persisting.is_none() && self.seen > self.durable {
            self.persisting = Some(self.seen);
            self.outputs.push_back(Output::Persist(self.seen));
        }
    }

    /// Informs a peer that the leadership it follows is no longer the newest.
    fn correct(&mut self, peer: NodeId, its_newest: Leadership) {
        if self.durable > its_newest {
            self.send(peer, Word::Outdated);
        }
    }

    fn on_challenge(&mut self, now: Instant, from: NodeId, round: u64) {
        if from > self.me || now < self.unfit_until {
            return;
        }
        self.send(from, Word::Answer { round });
        if let Role::Leading(leading) = &self.role {
            let beat = leading.beat;
            let alive = self.alive(now);
            self.send(from, Word::Heartbeat { beat, alive });
        }
    }

    fn on_answer(&mut self, now: Instant, from: NodeId, round: u64) {
        if from < self.me || round != self.round {
            return;
        }
        match &mut self.role {
            Role::Challenging { .. } => {
                self.info(format!("[Node {}] node {} is alive -> waiting for it to lead", self.me.0, from.0));
                let until = now + self.timing.answer * VICTORY_ANSWERS + self.timing.suspicion;
                self.role = Role::Waiting { until };
            }
            Role::Following(following) if following.takeover.is_some() => {
                // A higher node is there and will take over when it is ready. It is asked again soon in case it does
                // not.
                following.takeover = None;
                following.steady_since = Some(now + self.timing.suspicion - self.timing.steady);
            }
            _ => {}
        }
    }

    fn on_heartbeat(
        &mut self,
        now: Instant,
        from: NodeId,
        ballot: &Ballot,
        beat: u64,
        alive: Option<&BTreeSet<NodeId>>,
    ) {
        let of = ballot.newest;
        if of.leader != Some(from) {
            return;
        }
        if of < self.seen {
            return self.correct(from, of);
        }
        if of > self.durable {
            self.spoke = Some(of);
            return;
        }
        let me = self.me;
        if !matches!(&self.role, Role::Following(following) if following.of == of) {
            self.follow(now, of);
        }
        let Role::Following(following) = &mut self.role else { return };
        let newer = beat > following.beat && beat - following.beat <= BEAT_JUMP_MAX;
        let Some(alive) = alive.filter(|_| newer) else { return };
        following.heard = now;
        following.beat = beat;
        following.alive = alive.iter().copied().filter(|node| self.peers.binary_search(node).is_ok()).collect();
        if from < me && alive.contains(&me) {
            following.steady_since.get_or_insert(now);
        } else {
            following.steady_since = None;
            following.takeover = None;
        }
        self.send(from, Word::Echo { beat });
    }

    /// Follows a leader that was heard and whose leadership is stored.
    fn follow(&mut self, now: Instant, of: Leadership) {
        self.role = Role::Following(Following {
            of,
            heard: now,
            beat: 0,
            alive: BTreeSet::new(),
            steady_since: None,
            takeover: None,
        });
        self.info(format!("[Node {}] follows {of}", self.me.0));
        self.announce(Some(of));
    }

    fn on_echo(&mut self, now: Instant, from: NodeId, newest: Leadership, beat: u64) {
        if let Role::Leading(leading) = &mut self.role
            && leading.of == newest
            && let Some((_, sent)) = leading.sent.iter().find(|(number, _)| *number == beat)
        {
            let newest = leading.echoed.entry(from).or_insert(*sent);
            *newest = (*newest).max(*sent);
            self.watch_quorum(now);
        }
    }

    fn on_persisted(&mut self, now: Instant, leadership: Leadership) {
        if self.persisting != Some(leadership) {
            return;
        }
        self.persisting = None;
        assert!(leadership > self.durable, "terms never go back: {leadership} after {}", self.durable);
        self.durable = leadership;
        match self.role {
            Role::Claiming(claim) if claim == leadership => {
                self.role =
                    Role::Leading(Leading { of: claim, beat: 0, sent: VecDeque::new(), echoed: BTreeMap::new() });
                self.had_quorum = false;
                self.counts.won += 1;
                self.announce(Some(claim));
                self.info(format!("[Node {}] leads in {}", self.me.0, claim.term));
                self.send_to_all(&Word::Victory);
                self.beat(now);
                self.watch_quorum(now);
            }
            _ if self.seen == leadership && self.spoke == Some(leadership) => self.follow(now, leadership),
            _ => self.persist(),
        }
        self.spoke = None;
    }

    fn on_persist_failed(&mut self, now: Instant, leadership: Leadership) {
        if self.persisting != Some(leadership) {
            return;
        }
        self.persisting = None;
        self.info(format!("[Node {}] cannot store {leadership}: it can neither lead nor follow", self.me.0));
        // A node that cannot lead must not keep lower ones from leading. The next try shows whether storing works
        // again.
        self.unfit_until = now + self.timing.suspicion * 2 + self.timing.answer * VICTORY_ANSWERS;
        if let Role::Claiming(claim) = self.role {
            // It was never announced, so a leader in an older term is still to be followed. If its term reached the
            // disk nevertheless, this node may claim it again.
            self.seen = if leadership == claim { self.durable } else { leadership };
            self.role = Role::Listening { until: self.unfit_until };
            self.announce(None);
        }
    }

    /// Challenges every higher node. If there are none, there is nothing to wait for.
    fn challenge(&mut self, now: Instant) {
        self.role = Role::Listening { until: now + self.timing.suspicion };
        self.announce(None);
        if now < self.unfit_until {
            self.role = Role::Listening { until: self.unfit_until };
            return;
        }
        self.counts.started += 1;
        let higher = self.challenge_higher();
        if higher.is_empty() {
            self.info(format!("[Node {}] no higher nodes -> becoming coordinator", self.me.0));
            self.claim(now);
        } else {
            self.info(format!("[Node {}] nobody leads -> challenging {}", self.me.0, list(&higher)));
            self.role = Role::Challenging { until: now + self.timing.answer };
        }
    }

    fn challenge_higher(&mut self) -> Vec<NodeId> {
        self.round += 1;
        let higher: Vec<NodeId> = self.higher().collect();
        for node in &higher {
            self.send(*node, Word::Challenge { round: self.round });
        }
        higher
    }

    fn higher(&self) -> impl Iterator<Item = NodeId> {
        self.peers.iter().copied().filter(|node| *node > self.me)
    }

    fn lacks_answer(&mut self, now: Instant) {
        let (me, higher) = (self.me.0, self.higher().collect::<Vec<_>>());
        let ms = self.timing.answer.as_millis();
        self.info(format!(
            "[Node {me}] no higher nodes answer ({} within {ms} ms) -> becoming coordinator",
            list(&higher)
        ));
        self.claim(now);
    }

    /// Stores its own leadership in the next term that it owns; the rest waits for that.
    fn claim(&mut self, now: Instant) {
        let nodes = self.peers.len() as u64;
        let rank = self.peers.iter().take_while(|node| **node < self.me).count() as u64;
        // The next multiple of the number of nodes above the newest term, plus the rank, minus a whole round if that is
        // still above it.
        let base = self.seen.term.0 / nodes * nodes + rank;
        let term = if base > self.seen.term.0 { base } else { base + nodes };
        if term > TERM_MAX {
            // Other nodes would not believe it, and each would lead itself.
            self.info(format!("[Node {}] cannot lead: no term is left above {}; {CURE}", self.me.0, self.seen.term));
            self.unfit_until = now + ABSURD_EVERY;
            self.role = Role::Listening { until: self.unfit_until };
            return self.announce(None);
        }
        let claim = Leadership { term: Term(term), leader: Some(self.me) };
        self.seen = claim;
        self.role = Role::Claiming(claim);
        self.persist();
    }

    /// The takeover by a higher node that its leader has seen for long enough.
    fn take_over(&mut self, now: Instant) {
        let steady_ms = self.timing.steady.as_millis();
        let Role::Following(following) = &self.role else { return };
        let lower = following.of.leader.map_or(0, |leader| leader.0);
        self.counts.started += 1;
        if self.higher().next().is_none() {
            let me = self.me.0;
            self.info(format!("[Node {me}] node {lower} leads, and has seen node {me} for {steady_ms} ms"));
            self.info(format!("[Node {me}] no higher nodes -> becoming coordinator"));
            return self.claim(now);
        }
        self.challenge_higher();
        if let Role::Following(following) = &mut self.role {
            following.takeover = Some(now + self.timing.answer);
        }
    }

    /// Sends a heartbeat if it leads.
    fn beat(&mut self, now: Instant) {
        let suspicion = self.timing.suspicion;
        let alive = self.alive(now);
        let Role::Leading(leading) = &mut self.role else { return };
        leading.beat += 1;
        let beat = leading.beat;
        leading.sent.push_back((beat, now));
        while leading.sent.front().is_some_and(|(_, at)| now.since(*at) >= suspicion) {
            leading.sent.pop_front();
        }
        self.send_to_all(&Word::Heartbeat { beat, alive });
    }

    /// Whether this node was stopped for so long that others may have elected another leader in the meantime.
    fn has_slept(&self, now: Instant) -> bool {
        now.since(self.ticked) >= self.timing.suspicion
    }

    fn wake_up(&mut self, now: Instant) {
        let gap = now.since(self.ticked).as_millis();
        self.ticked = now;
        self.info(format!("[Node {}] slept for {gap} ms -> asking who leads", self.me.0));
        // A claim that is being stored is abandoned as well; its term stays used. What was heard before is stale.
        self.spoke = None;
        self.role = Role::Listening { until: now + self.timing.suspicion };
        self.heard.clear();
        self.announce(None);
        self.send_to_all(&Word::Inquiry);
    }

    fn has_quorum(&self, leading: &Leading, now: Instant) -> bool {
        match self.quorum {
            Quorum::None => true,
            Quorum::Majority => self.support(leading, now) * 2 > self.peers.len(),
        }
    }

    /// How many nodes have followed this leader recently, itself included.
    fn support(&self, leading: &Leading, now: Instant) -> usize {
        1 + leading.echoed.values().filter(|at| now.since(**at) < self.timing.suspicion).count()
    }

    /// Logs when a majority is gained or lost.
    fn watch_quorum(&mut self, now: Instant) {
        let Role::Leading(leading) = &self.role else { return };
        let has = self.has_quorum(leading, now);
        if has != self.had_quorum && self.quorum == Quorum::Majority {
            let (me, of) = (self.me.0, self.peers.len());
            self.info(if has {
                format!("[Node {me}] hears a majority of {of} nodes -> serving")
            } else {
                format!("[Node {me}] hears no majority of {of} nodes -> not serving")
            });
        }
        self.had_quorum = has;
    }

    fn announce(&mut self, leader: Option<Leadership>) {
        if self.announced != leader {
            self.announced = leader;
            self.outputs.push_back(Output::LeaderChanged(leader));
        }
    }

    fn info(&mut self, line: String) {
        self.outputs.push_back(Output::Info(line));
    }

    fn send(&mut self, to: NodeId, word: Word) {
        let ballot = Ballot { newest: self.durable, word };
        self.outputs.push_back(Output::Send { to, ballot });
    }

    fn send_to_all(&mut self, word: &Word) {
        for to in 0..self.peers.len() {
            if self.peers[to] != self.me {
                self.send(self.peers[to], word.clone());
            }
        }
    }

    /// When this node's role requires the next step, and why.
    fn due(&self) -> Option<Wake> {
        let wake = |at, why| Some(Wake { at, why });
        match &self.role {
            Role::Listening { until } => wake(*until, "no leader heard"),
            Role::Challenging { until } => wake(*until, "no answer from higher nodes"),
            Role::Waiting { until } => wake(*until, "no victory after an answer"),
            Role::Following(following) => {
                let silent = wake(following.heard + self.timing.suspicion, "leader silent");
                let next = match (following.takeover, following.steady_since) {
                    (Some(until), _) => wake(until, "no higher node objects to the takeover"),
                    (None, Some(since)) => wake(since + self.timing.steady, "steadily reachable and higher"),
                    (None, None) => None,
                };
                Wake::earlier(silent, next)
            }
            Role::Claiming(_) | Role::Leading(_) => None,
        }
    }

    fn on_due(&mut self, now: Instant) {
        match &self.role {
            Role::Listening { .. } | Role::Waiting { .. } => self.challenge(now),
            Role::Challenging { .. } => self.lacks_answer(now),
            Role::Following(following) if following.heard + self.timing.suspicion <= now => {
                let (of, ms) = (following.of, now.since(following.heard).as_millis());
                self.info(format!("[Node {}] {of} silent for {ms} ms -> starting an election", self.me.0));
                self.challenge(now);
            }
            Role::Following(following) if following.takeover.is_some() => self.lacks_answer(now),
            Role::Following(_) => self.take_over(now),
            Role::Claiming(_) | Role::Leading(_) => {}
        }
    }
}

impl Machine for Election {
    type Input = Input;
    type Output = Output;

    fn handle_input(&mut self, now: Instant, input: Input) {
        if self.has_slept(now) {
            self.wake_up(now);
        }
        match input {
            Input::Received { from, ballot } => self.on_ballot(now, from, ballot),
            Input::Persisted(leadership) => self.on_persisted(now, leadership),
            Input::PersistFailed(leadership) => self.on_persist_failed(now, leadership),
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        if self.has_slept(now) {
            self.wake_up(now);
        }
        if self.due().is_some_and(|wake| wake.at <= now) {
            self.on_due(now);
        }
        if now.since(self.ticked) >= self.timing.heartbeat {
            self.ticked = now;
            self.beat(now);
            self.watch_quorum(now);
        }
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn poll_timeout(&self) -> Option<Wake> {
        let tick = Wake { at: self.ticked + self.timing.heartbeat, why: "heartbeat" };
        Wake::earlier(self.due(), Some(tick))
    }
}

/// `2, 3`.
fn list(nodes: &[NodeId]) -> String {
    nodes.iter().enumerate().fold(String::new(), |mut text, (index, node)| {
        let _ = write!(text, "{}{}", if index == 0 { "" } else { ", " }, node.0);
        text
    })
}

#[cfg(test)]
mod tests;
