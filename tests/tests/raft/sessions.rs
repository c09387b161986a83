//! Exactly-once sessions: a retried write is applied once, whatever happens to leaders and
//! processes meanwhile, and all nodes alike reject a client that the session table has forgotten.

use coracle_core::kv::{ClientName, Command, Key, Outcome, Session, SessionLimits, Value};
use coracle_core::raft::{LogIndex, Restored};
use coracle_core::{Answer, Replica, ReplicaLimits, Request, RequestId, RequestRefusal};
use coracle_tests::scenario::{Cluster, Limited, Limits, Subject, first_level, replicas};

fn session(client: &str, seq: u64) -> Session {
    Session::new(ClientName::new(client).expect("a short name"), seq).expect("a small number")
}

fn key(text: &str) -> Key {
    Key::new(text).expect("a short text")
}

fn value(text: &str) -> Value {
    Value::from_text(text).expect("a short text")
}

fn put(client: &str, seq: u64, text: &str) -> Request {
    let command = Command::Put { key: key("k"), value: value(text) };
    Request::Write { command, session: Some(session(client, seq)), wants_meta: false }
}

fn delete(client: &str, seq: u64) -> Request {
    Request::Write {
        command: Command::Delete { key: key("k") },
        session: Some(session(client, seq)),
        wants_meta: false,
    }
}

/// Returns the outcome that a client got, and the log index at which it was decided.
fn applied<S: Subject>(cluster: &Cluster<S>, request: RequestId) -> Option<(u64, &Outcome)> {
    match cluster.answer(request) {
        Some(Answer::Applied { index, outcome, .. }) => Some((index.0, outcome)),
        _ => None,
    }
}

/// Returns the value of `k` on a node.
fn held(replica: &Replica) -> Option<String> {
    replica.store().value("k").map(|value| value.as_json().trim_matches('"').to_owned())
}

#[track_caller]
fn assert_equal_states(cluster: &Cluster<Replica>) {
    let first = cluster.subject(1);
    for id in cluster.ids() {
        let replica = cluster.subject(id);
        assert_eq!(replica.status().last_applied, first.status().last_applied, "node {id}");
        assert_eq!(replica.store(), first.store(), "node {id}");
        assert_eq!(replica.sessions(), first.sessions(), "node {id}");
    }
}

/// The leader crashes before the client has its reply. The client retries at the next leader and
/// gets the first outcome; a write of another client in between stays in effect.
#[test]
fn a_write_that_is_sent_again_to_the_next_leader_is_done_once() {
    let mut cluster = replicas(3);
    cluster.elect(1);
    let first = cluster.ask(1, put("c", 1, "mine"));
    cluster.settle();
    assert_eq!(applied(&cluster, first), Some((2, &Outcome::Done)));
    cluster.crash(1);
    cluster.elect(2);
    let other = cluster.ask(2, put("d", 1, "theirs"));
    let again = cluster.ask(2, put("c", 1, "mine"));
    cluster.settle();
    assert_eq!(applied(&cluster, other), Some((4, &Outcome::Done)));
    assert_eq!(applied(&cluster, again), Some((5, &Outcome::Done)));
    cluster.restart(1);
    cluster.elapse_ms(200);
    assert_eq!(held(cluster.subject(1)), Some("theirs".into()));
    assert_equal_states(&cluster);
}

/// The first leader is isolated before another node has the write, and the client retries at the
/// next one. The first entry is never committed, so the second one takes effect.
#[test]
fn a_write_whose_first_entry_is_lost_is_done_by_the_second() {
    let mut cluster = replicas(3);
    cluster.elect(1);
    cluster.isolate(1);
    let lost = cluster.ask(1, delete("c", 1));
    cluster.elect(2);
    let before = cluster.ask(2, put("d", 1, "theirs"));
    let again = cluster.ask(2, delete("c", 1));
    cluster.settle();
    assert_eq!(applied(&cluster, before).map(|(_, outcome)| outcome), Some(&Outcome::Done));
    assert_eq!(applied(&cluster, again), Some((4, &Outcome::Done)));
    cluster.heal();
    cluster.elapse_ms(200);
    assert_eq!(cluster.answer(lost), Some(&Answer::Refused(RequestRefusal::Superseded)));
    assert_equal_states(&cluster);
}

/// The first entry was nearly lost: the node that holds it is elected, and both entries are
/// committed, the retry's last.
#[test]
fn a_retry_whose_first_entry_is_in_the_log_changes_nothing() {
    let mut cluster = replicas(3);
    cluster.elect(1);
    cluster.propose(1, "k");
    cluster.settle();
    cluster.isolate(3);
    cluster.cut(2, 1);
    let first = cluster.ask(1, delete("c", 1));
    cluster.settle();
    assert_eq!(cluster.answer(first), None, "node 2 has it, and node 1 does not know");
    cluster.isolate(1);
    cluster.mend(2, 3);
    cluster.mend(3, 2);
    cluster.elect(2);
    let again = cluster.ask(2, delete("c", 1));
    cluster.settle();
    assert_eq!(applied(&cluster, again), Some((5, &Outcome::Done)), "and not that it is not found");
    cluster.heal();
    cluster.elapse_ms(200);
    assert_eq!(applied(&cluster, first), Some((3, &Outcome::Done)));
    assert_equal_states(&cluster);
}

/// All processes end. The session table is rebuilt from the log.
#[test]
fn a_write_that_is_sent_again_after_a_restart_of_all_is_done_once() {
    let mut cluster = replicas(3);
    cluster.elect(1);
    let first = cluster.ask(1, delete("c", 1));
    cluster.settle();
    assert_eq!(applied(&cluster, first), Some((2, &Outcome::NotFound)));
    cluster.ask(1, put("d", 1, "theirs"));
    cluster.settle();
    for node in 1..=3 {
        cluster.crash(node);
        cluster.restart(node);
    }
    cluster.elect(3);
    let again = cluster.ask(3, delete("c", 1));
    cluster.elapse_ms(200);
    assert_eq!(applied(&cluster, again), Some((5, &Outcome::NotFound)));
    assert_eq!(held(cluster.subject(2)), Some("theirs".into()));
    assert_equal_states(&cluster);
}

/// A client sends three writes together. The first is lost, and its retry comes last: it was never
/// applied, and is applied now.
#[test]
fn a_write_that_comes_after_its_successors_is_done() {
    let mut cluster = replicas(3);
    cluster.elect(1);
    let later = cluster.ask_all(1, vec![put("c", 2, "second"), put("c", 3, "third")]);
    cluster.settle();
    let first = cluster.ask(1, put("c", 1, "first"));
    let again = cluster.ask(1, put("c", 3, "third"));
    cluster.elapse_ms(100);
    for (request, index) in [(later, 3), (first, 4), (again, 5)] {
        assert_eq!(applied(&cluster, request), Some((index, &Outcome::Done)));
    }
    assert_eq!(held(cluster.subject(3)), Some("first".into()));
    assert_equal_states(&cluster);
}

/// A replica that remembers two clients, and the last four sequence numbers of each.
type Forgetful = Limited<TwoClients>;

/// The limits of [`Forgetful`].
struct TwoClients;

impl Limits for TwoClients {
    fn limits() -> ReplicaLimits {
        let sessions = SessionLimits { clients_max: 2, window: 4, ..SessionLimits::default() };
        ReplicaLimits { sessions, ..first_level() }
    }
}

/// A forgotten client retries a write with an unknown outcome. Applying it again would be wrong,
/// and so would be acknowledging it: every leader answers that the session has expired, also one
/// that has rebuilt its state from the log.
#[test]
fn a_forgotten_client_is_refused_by_every_leader_and_nothing_is_done() {
    let disks = vec![Restored::default(); 3];
    let mut cluster: Cluster<Forgetful> = Cluster::start(disks, 0, |config| config);
    cluster.elect(1);
    for client in ["a", "b", "c"] {
        cluster.ask(1, put(client, 1, client));
    }
    cluster.settle();
    let mut leader = 1;
    for next in [2, 3, 1] {
        let refused = cluster.ask(leader, put("a", 1, "a"));
        let new = cluster.ask(leader, put("a", 2, "a"));
        cluster.elapse_ms(100);
        for request in [refused, new] {
            assert_eq!(
                applied(&cluster, request).map(|(_, outcome)| outcome),
                Some(&Outcome::SessionExpired)
            );
        }
        cluster.crash(leader);
        cluster.restart(leader);
        cluster.elect(next);
        leader = next;
    }
    let remembered = cluster.ask(1, put("b", 1, "b"));
    cluster.elapse_ms(100);
    assert_eq!(applied(&cluster, remembered).map(|(_, outcome)| outcome), Some(&Outcome::Done));
    for node in 1..=3 {
        assert_eq!(held(&cluster.subject(node).0), Some("c".into()), "node {node}");
        assert_eq!(cluster.subject(node).0.sessions(), cluster.subject(1).0.sessions(), "node {node}");
        assert_eq!(cluster.subject(node).0.status().last_applied, LogIndex(cluster.commit(1)));
    }
}

/// A sequence number too far below the highest one may have been used, so it is rejected even if it
/// was not.
#[test]
fn a_number_below_the_window_is_refused() {
    let mut cluster: Cluster<Forgetful> = Cluster::start(vec![Restored::default(); 3], 0, |config| config);
    cluster.elect(1);
    cluster.ask(1, put("c", 9, "ninth"));
    let lost = cluster.ask(1, put("c", 5, "fifth"));
    let late = cluster.ask(1, put("c", 6, "sixth"));
    cluster.elapse_ms(100);
    assert_eq!(applied(&cluster, lost).map(|(_, outcome)| outcome), Some(&Outcome::SessionExpired));
    assert_eq!(applied(&cluster, late).map(|(_, outcome)| outcome), Some(&Outcome::Done));
    assert_eq!(held(&cluster.subject(2).0), Some("sixth".into()));
}
