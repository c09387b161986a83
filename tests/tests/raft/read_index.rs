//! Linearizable reads, by ReadIndex or by lease: never older than an earlier reply to any client,
//! and never answered by a deposed leader.

use coracle_core::kv::{Found, Key, Query};
use coracle_core::raft::{Body, ClockDrift, Config, Message, Restored, Role};
use coracle_core::{Answer, Replica, Request, RequestId, RequestRefusal};
use coracle_tests::scenario::forge::disk_of;
use coracle_tests::scenario::{Cluster, replicas};

fn linearizable(key: &str) -> Request {
    Request::LinearizableRead(Query::Value(Key::new(key).expect("a short text")))
}

/// Returns the index that the replica had applied when it answered a read, and whether it found a
/// value.
fn read_at(cluster: &Cluster<Replica>, request: RequestId) -> Option<(u64, bool)> {
    match cluster.answer(request) {
        Some(Answer::Read { index, found: Found::Value(value) }) => Some((index.0, value.is_some())),
        _ => None,
    }
}

fn is_refused(cluster: &Cluster<Replica>, request: RequestId) -> bool {
    matches!(cluster.answer(request), Some(Answer::Refused(RequestRefusal::NotLeader { .. })))
}

fn with_leases(size: usize, disks: Vec<Restored>) -> Cluster<Replica> {
    assert_eq!(disks.len(), size);
    Cluster::start(disks, 0, |config| Config { read_lease: Some(ClockDrift { per_mille: 10 }), ..config })
}

fn heartbeats(messages: &[Message]) -> usize {
    messages.iter().filter(|message| matches!(message.body, Body::Heartbeat(_))).count()
}

/// Every node, leader or follower, answers with all writes that were acknowledged before.
///
/// Covers: etcd TestReadOnlyOptionSafe, rawnode ReadIndex
#[test]
fn every_node_answers_with_what_was_acknowledged_before() {
    let mut cluster = replicas(3);
    cluster.elect(1);
    let write = cluster.propose(1, "chips");
    cluster.settle();
    assert!(matches!(cluster.answer(write), Some(Answer::Applied { .. })));
    for node in 1..=3 {
        let read = cluster.ask(node, linearizable("chips"));
        assert_eq!(cluster.answer(read), None, "a majority is asked first");
        cluster.settle();
        assert_eq!(read_at(&cluster, read), Some((2, true)), "node {node}");
    }
}

/// A cluster of one is its own majority, so it needs no round of heartbeats.
#[test]
fn a_single_node_answers_at_once() {
    let mut cluster = replicas(1);
    cluster.elect(1);
    cluster.propose(1, "chips");
    cluster.settle();
    let read = cluster.ask(1, linearizable("chips"));
    assert_eq!(read_at(&cluster, read), Some((2, true)));
}

/// A new leader does not know yet what its predecessor committed, so its reads would be stale: a
/// bug of many early implementations.
///
/// Covers: etcd TestReadOnlyForNewLeader, etcd#7331, tikv#6340
#[test]
fn a_new_leader_answers_nothing_before_it_has_committed_in_its_own_term() {
    let disks = vec![disk_of(&[1, 1]), disk_of(&[1, 1]), disk_of(&[1, 1])];
    let mut cluster = Cluster::<Replica>::start(disks, 0, |config| config);
    cluster.intercept(1, 2);
    cluster.intercept(1, 3);
    cluster.campaign(1);
    let mut entries = Vec::new();
    let mut read = None;
    for _ in 0..10 {
        cluster.settle();
        if cluster.role(1) == Role::Leader && read.is_none() {
            read = Some(cluster.ask(1, linearizable("k")));
        }
        // Everything arrives except its entries: votes and heartbeats.
        for call in cluster.intercepted() {
            if matches!(call.body, Body::AppendEntries(_)) {
                entries.push(call);
            } else {
                cluster.deliver(call);
            }
        }
    }
    let read = read.expect("it has won");
    assert_eq!((cluster.commit(1), cluster.answer(read)), (0, None));
    entries.into_iter().for_each(|call| cluster.deliver(call));
    cluster.settle();
    for call in cluster.intercepted() {
        cluster.deliver(call);
    }
    cluster.settle();
    assert_eq!(read_at(&cluster, read).map(|(index, _)| index), Some(3));
}

/// Reads that arrive together share a round of heartbeats; reads that arrive during a round share
/// the next one.
#[test]
fn a_round_serves_all_that_wait() {
    let mut cluster = replicas(3);
    cluster.elect(1);
    cluster.elapse_ms(10);
    cluster.intercept(1, 2);
    cluster.intercept(1, 3);
    let first = cluster.ask_all(1, vec![linearizable("a"), linearizable("b"), linearizable("c")]);
    let second = cluster.ask_all(1, vec![linearizable("d")]);
    let third = cluster.ask_all(1, vec![linearizable("e")]);
    let round = cluster.intercepted();
    assert_eq!(heartbeats(&round), 2, "{round:?}");
    cluster.heal();
    round.into_iter().for_each(|message| cluster.deliver(message));
    cluster.settle();
    for request in [RequestId(first.0 - 2), RequestId(first.0 - 1), first, second, third] {
        assert!(read_at(&cluster, request).is_some(), "{request:?}");
    }
}

/// Read A is confirmed. The leader is isolated, and another one leads and commits. Late answers to
/// A's round must not confirm read B.
///
/// Covers: etcd TestReadOnlyDuplicateRequest, etcd#20418
#[test]
fn late_answers_to_an_old_round_confirm_no_new_one() {
    let mut cluster = replicas(3);
    cluster.elect(1);
    cluster.elapse_ms(10);
    cluster.intercept(2, 1);
    cluster.intercept(3, 1);
    let first = cluster.ask(1, linearizable("k"));
    cluster.settle();
    let answers = cluster.intercepted();
    answers.clone().into_iter().for_each(|answer| cluster.deliver(answer));
    assert!(read_at(&cluster, first).is_some());
    cluster.isolate(1);
    cluster.elect(2);
    cluster.propose(2, "k");
    cluster.settle();
    let second = cluster.ask(1, linearizable("k"));
    for _ in 0..3 {
        answers.clone().into_iter().for_each(|answer| cluster.deliver(answer));
    }
    assert_eq!(cluster.answer(second), None);
    cluster.elapse_ms(1000);
    assert!(is_refused(&cluster, second), "{:?}", cluster.answer(second));
}

/// A leader is isolated while another one leads and commits. It is asked before it is connected
/// again, and must not answer.
///
/// Covers: etcd-io/raft#397 (reused read token after a pause), NodeReadIndexToOldLeader
#[test]
fn a_deposed_leader_answers_no_read() {
    let mut cluster = replicas(5);
    cluster.elect(1);
    cluster.elapse_ms(200);
    cluster.isolate(1);
    cluster.elect(2);
    cluster.propose(2, "k");
    cluster.settle();
    let read = cluster.ask(1, linearizable("k"));
    cluster.heal();
    cluster.elapse_ms(2000);
    assert!(is_refused(&cluster, read), "{:?}", cluster.answer(read));
    let again = cluster.ask(1, linearizable("k"));
    cluster.settle();
    assert_eq!(read_at(&cluster, again).map(|(_, found)| found), Some(true));
}

/// A read that will never be confirmed must not wait forever, at a leader or at a follower.
///
/// Covers: etcd TestRaftFreesReadOnlyMem, openraft FailPendingReads
#[test]
fn waiting_reads_fail_when_the_leader_is_lost() {
    let mut cluster = replicas(3);
    cluster.elect(1);
    cluster.elapse_ms(10);
    cluster.isolate(1);
    let at_leader = cluster.ask(1, linearizable("k"));
    let at_follower = cluster.ask(2, linearizable("k"));
    cluster.elapse_ms(1000);
    assert!(is_refused(&cluster, at_leader) && is_refused(&cluster, at_follower));
    let without_leader = cluster.ask(1, linearizable("k"));
    assert!(is_refused(&cluster, without_leader), "there is nobody to ask");
}

/// A follower's question to the leader is lost, while the leader works.
#[test]
fn a_read_with_a_lost_question_is_rejected_and_a_retry_succeeds() {
    let mut cluster = replicas(3);
    cluster.elect(1);
    cluster.elapse_ms(10);
    cluster.cut(2, 1);
    let read = cluster.ask(2, linearizable("k"));
    cluster.settle();
    cluster.mend(2, 1);
    cluster.elapse_ms(400);
    assert!(is_refused(&cluster, read));
    assert_eq!((cluster.leader(), cluster.term(1)), (Some(1), 1));
    let again = cluster.ask(2, linearizable("k"));
    cluster.settle();
    assert!(read_at(&cluster, again).is_some());
}

/// A lost round is repeated by the next heartbeat.
#[test]
fn a_lost_round_only_takes_longer() {
    let mut cluster = replicas(3);
    cluster.elect(1);
    cluster.elapse_ms(10);
    cluster.cut(1, 2);
    cluster.cut(1, 3);
    let read = cluster.ask(1, linearizable("k"));
    cluster.heal();
    cluster.settle();
    assert_eq!(cluster.answer(read), None);
    cluster.elapse_ms(60);
    assert!(read_at(&cluster, read).is_some());
}

/// With a lease, the leader answers alone for as long as no other node can lead, and no longer.
///
/// Covers: etcd TestReadOnlyOptionLease, etcd#6005, #10082, sofa-jraft#34
#[test]
fn a_lease_answers_alone_and_ends_before_another_node_can_lead() {
    let mut cluster = with_leases(3, vec![Restored::default(); 3]);
    cluster.elapse_ms(400);
    let leader = loop {
        match cluster.leader() {
            Some(leader) => break leader,
            None => cluster.elapse_ms(100),
        }
    };
    cluster.elapse_ms(120);
    let read = cluster.ask(leader, linearizable("k"));
    assert!(read_at(&cluster, read).is_some(), "the lease covers it");
    cluster.isolate(leader);
    // 300 ms, less one percent twice, from the last heartbeat that was answered.
    cluster.elapse_ms(240);
    let late = cluster.ask(leader, linearizable("k"));
    assert!(read_at(&cluster, late).is_some());
    cluster.elapse_ms(60);
    let too_late = cluster.ask(leader, linearizable("k"));
    assert_eq!(cluster.answer(too_late), None);
    cluster.elapse_ms(1000);
    assert!(is_refused(&cluster, too_late));
}

/// A voter that restarts has forgotten the lease that counts on it. It must not vote before that
/// lease is over.
#[test]
fn a_restarted_voter_keeps_the_promise_that_it_forgot() {
    for leases in [false, true] {
        let drift = leases.then_some(ClockDrift { per_mille: 10 });
        let mut cluster = Cluster::<Replica>::start(vec![Restored::default(); 3], 0, |config| Config {
            read_lease: drift,
            ..config
        });
        cluster.elapse_ms(2000);
        let leader = cluster.leader().expect("two seconds are enough");
        let (voter, other) = if leader == 1 {
            (2, 3)
        } else if leader == 2 {
            (1, 3)
        } else {
            (1, 2)
        };
        cluster.isolate(leader);
        cluster.crash(voter);
        cluster.restart(voter);
        let now = cluster.clock(voter);
        let last = cluster.node(other).log().last();
        let request = coracle_core::raft::RequestVote {
            election_term: cluster.node(voter).current_term().next(),
            round: 7,
            last_log_index: last.index,
            last_log_term: last.term,
            is_transfer: false,
        };
        let term = cluster.node(voter).current_term().next();
        let (from, to) = (cluster.node(other).id(), cluster.node(voter).id());
        cluster.deliver(Message { from, incarnation: None, to, term, body: Body::RequestVote(request) });
        assert_eq!(cluster.node(voter).voted_for() == Some(from), !leases, "at {now:?}");
    }
}
