//! Random faults with the invariants checked, seed by seed; and after each, a calm phase in which
//! the cluster must recover.

use coracle_core::kv::{Found, Key, Query};
use coracle_core::raft::{Config, LogIndex, Restored};
use coracle_core::{Answer, Replica, Request, RequestId};
use coracle_tests::scenario::{Cluster, Weather};

/// The number of seeds, chosen so that all of them take some seconds.
const SEEDS: u64 = 200;

/// Rounds of faults per seed, each of less than [`ROUND_MS`].
const ROUNDS: u32 = 300;
const ROUND_MS: u64 = 100;

/// The paper's safety properties hold although messages are lost, duplicated and delayed, links are
/// cut, and nodes crash with torn writes. When that ends, the cluster elects a leader, agrees and
/// serves again.
/// again.
///
/// Covers: TigerBeetle VOPR (safety phase, then liveness phase); openraft tests-turmoil
#[test]
fn random_faults_break_no_invariant_and_the_cluster_recovers() {
    let mut committed = 0;
    let mut terms = 0;
    for seed in 0..SEEDS {
        let mut story = Story::new(seed);
        for _ in 0..ROUNDS {
            story.round();
        }
        story.come_to_rest();
        committed += story.cluster.commit(1);
        terms += story.cluster.term(1);
    }
    // A run in which nothing happens proves nothing.
    assert!(committed > 100 * SEEDS, "{committed} entries were committed in all");
    assert!(terms > 6 * SEEDS, "{terms} terms began in all");
}

struct Story {
    cluster: Cluster<Replica>,
    rng: fastrand::Rng,
    seed: u64,
    writes: Vec<(RequestId, String)>,
}

impl Story {
    fn new(seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let size = [1, 2, 3, 3, 3, 4, 5, 5][rng.usize(..8)];
        let (append_bytes_max, in_flight_messages_max) = (rng.usize(1..500), rng.usize(1..6));
        let tune = |config| Config { append_bytes_max, in_flight_messages_max, ..config };
        let mut cluster = Cluster::start(vec![Restored::default(); size], seed, tune);
        cluster.weather(Weather {
            lost_per_mille: rng.u32(0..100),
            doubled_per_mille: rng.u32(0..100),
            latency_us: 100..rng.u64(500..30_000),
            disk_us: 50..rng.u64(100..20_000),
            turn_us: rng.u64(0..3_000),
        });
        Self { cluster, rng, seed, writes: Vec::new() }
    }

    fn any_node(&mut self) -> u64 {
        let ids = self.cluster.ids();
        ids[self.rng.usize(..ids.len())]
    }

    /// Returns the node for the next fault: often the leader, because its failure has the most
    /// effects.
    fn victim(&mut self) -> u64 {
        self.cluster.leader().filter(|_| self.rng.bool()).unwrap_or_else(|| self.any_node())
    }

    /// Runs one fault or repair, some writes, and some time.
    fn round(&mut self) {
        let (one, other) = (self.victim(), self.any_node());
        match self.rng.u32(0..24) {
            0 => self.cluster.isolate(one),
            1 => self.cluster.cut(one, other),
            2 => self.cluster.part(one, other),
            3..=7 => self.mend_all(),
            8 if self.cluster.is_up(one) => {
                let (whole, entries) = (self.rng.usize(0..3), self.rng.usize(0..4));
                self.cluster.tear(one, whole, entries.checked_sub(1));
            }
            9..=11 => self.restart_all(),
            12 => self.cluster.hold_disk(one),
            13 if self.cluster.is_up(one) => self.cluster.release_writes(one, 1),
            14..=16 => self.release_disks(),
            17 if self.cluster.is_up(one) => self.cluster.tell_unreachable(one, other),
            _ => {}
        }
        for _ in 0..self.rng.u32(0..3) {
            self.write();
        }
        self.cluster.elapse_ms(self.rng.u64(1..ROUND_MS));
    }

    fn write(&mut self) {
        let node = self.cluster.leader().filter(|_| self.rng.bool()).unwrap_or_else(|| self.any_node());
        if self.cluster.is_up(node) {
            let text = format!("w{}", self.writes.len());
            let request = self.cluster.propose(node, &text);
            self.writes.push((request, text));
        }
    }

    fn mend_all(&mut self) {
        for from in self.cluster.ids() {
            for to in self.cluster.ids() {
                self.cluster.mend(from, to);
            }
        }
    }

    fn restart_all(&mut self) {
        for node in self.cluster.ids() {
            if !self.cluster.is_up(node) {
                self.cluster.restart(node);
            }
        }
    }

    fn release_disks(&mut self) {
        for node in self.cluster.ids() {
            self.cluster.release_disk(node);
        }
    }

    /// The calm phase: requires one leader for all nodes, the same log everywhere, and every
    /// acknowledged write in it exactly once.
    fn come_to_rest(&mut self) {
        let seed = self.seed;
        self.cluster.heal();
        self.restart_all();
        self.release_disks();
        self.cluster.elapse_ms(5_000);
        let leader = self.cluster.leader().unwrap_or_else(|| panic!("seed {seed}: nobody leads"));
        let last = self.cluster.propose(leader, "the end");
        self.cluster.elapse_ms(200);
        assert!(matches!(self.cluster.answer(last), Some(Answer::Applied { .. })), "seed {seed}");
        let texts = self.cluster.texts(leader);
        for node in self.cluster.ids() {
            assert_eq!(self.cluster.term(node), self.cluster.term(leader), "seed {seed}: node {node}");
            assert_eq!(self.cluster.texts(node), texts, "seed {seed}: node {node}");
            let request = self.cluster.ask(node, read_of("the end"));
            let Some(Answer::Read { found: Found::Value(Some(_)), .. }) = self.cluster.answer(request) else {
                panic!("seed {seed}: node {node} does not answer what all have applied");
            };
        }
        for (request, text) in &self.writes {
            let times = texts.iter().filter(|found| *found == text).count();
            match self.cluster.answer(*request) {
                Some(Answer::Applied { .. }) => assert_eq!(times, 1, "seed {seed}: {text}"),
                Some(Answer::Refused(_)) => assert_eq!(times, 0, "seed {seed}: {text}"),
                None => assert!(times <= 1, "seed {seed}: {text}"),
                Some(answer) => panic!("seed {seed}: {answer:?} to a write"),
            }
        }
    }
}

fn read_of(key: &str) -> Request {
    let query = Query::Value(Key::new(key).expect("a short text"));
    Request::Read { query, at_least: LogIndex::ORIGIN }
}
