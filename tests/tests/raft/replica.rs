//! Replicas: every request is answered once and correctly, whatever happens to its leader, and
//! reads do not go back in time.

use coracle_core::kv::{Found, Key, Outcome, Query, Scan};
use coracle_core::raft::{BatchBuilder, Config, LogIndex, LogPoint, NodeId, Restored, Role, Term, Voters};
use coracle_core::{
    Answer, Input, Instant, LOOK_UPS_MAX, Output, READ_TIMEOUT, Replica, ReplicaError, Request, RequestId,
    RequestRefusal,
};
use coracle_tests::scenario::forge::{disk_in_term, disk_of, heartbeat};
use coracle_tests::scenario::{Cluster, replicas};

fn read(key: &str, at_least: u64) -> Request {
    let query = Query::Value(Key::new(key).expect("a short text"));
    Request::Read { query, at_least: LogIndex(at_least) }
}

/// Returns the log index at which a write took effect.
fn applied_at(cluster: &Cluster<Replica>, request: RequestId) -> Option<u64> {
    match cluster.answer(request) {
        Some(Answer::Applied { index, outcome: Outcome::Done, .. }) => Some(index.0),
        _ => None,
    }
}

/// Returns the index that the replica had applied when it answered a read, and whether it found a
/// value.
fn read_at(cluster: &Cluster<Replica>, request: RequestId) -> Option<(u64, bool)> {
    match cluster.answer(request) {
        Some(Answer::Read { index, found: Found::Value(value) }) => Some((index.0, value.is_some())),
        _ => None,
    }
}

/// A write is acknowledged after its commit and exactly once, or clients could not rely on it.
#[test]
fn a_write_is_answered_once_when_it_is_committed() {
    let mut cluster = replicas(3);
    cluster.elect(1);
    let before = cluster.propose(1, "chips");
    assert_eq!(cluster.answer(before), None, "not before a majority has it");
    cluster.settle();
    assert_eq!(applied_at(&cluster, before), Some(2));
    let read = cluster.ask(2, read("chips", 2));
    assert_eq!(read_at(&cluster, read), Some((2, true)));
}

/// Two proposals of term 1 wait at the indexes 10 and 11. Another leader overwrites index 10 alone;
/// the node leads again in term 3, and index 11 gets an entry of term 3. A comparison of indexes
/// alone would acknowledge entries that are gone.
///
/// Covers: openraft#1761 (stranded responder); answers by index and term
#[test]
fn requests_of_a_lost_term_are_answered_by_index_and_term() {
    let mut cluster = replicas(3);
    cluster.elect(1);
    let texts: Vec<String> = (2..=9).map(|number| format!("k{number}")).collect();
    cluster.propose_all(1, &texts.iter().map(String::as_str).collect::<Vec<_>>());
    cluster.settle();
    assert_eq!(cluster.commit(1), 9);
    cluster.isolate(1);
    let tenth = cluster.propose(1, "lost");
    let eleventh = cluster.propose(1, "gone");
    // The first entry of the second term gets index 10; index 11 stays free.
    cluster.elect(2);
    cluster.heal();
    cluster.elapse_ms(200);
    assert_eq!((cluster.log_terms(1).len(), cluster.commit(1)), (10, 10));
    assert_eq!(cluster.answer(tenth), Some(&Answer::Refused(RequestRefusal::Superseded)));
    assert_eq!(cluster.answer(eleventh), None, "place 11 is not decided");
    // The third term starts with index 11.
    cluster.elect(1);
    assert_eq!(cluster.answer(eleventh), Some(&Answer::Refused(RequestRefusal::Superseded)));
    let twelfth = cluster.propose(1, "chips");
    cluster.settle();
    assert_eq!(applied_at(&cluster, twelfth), Some(12));
    assert!((1..=3).all(|node| cluster.texts(node)[8..] == ["chips"]));
}

/// Several requests wait for the same indexes, from two terms of the same leader.
#[test]
fn two_requests_of_two_terms_may_wait_for_one_index() {
    let mut cluster = replicas(3);
    cluster.elect(1);
    cluster.isolate(1);
    let first: Vec<_> = (0..4).map(|number| cluster.propose(1, &format!("old{number}"))).collect();
    cluster.elect(2);
    cluster.heal();
    cluster.elapse_ms(200);
    assert_eq!(cluster.log_terms(1), [1, 2], "places 3 to 5 were cut and are open");
    cluster.hold_disk(2);
    cluster.hold_disk(3);
    cluster.campaign(1);
    cluster.settle();
    // The votes of both wait for their disks.
    cluster.release_disk(2);
    cluster.release_disk(3);
    cluster.hold_disk(2);
    cluster.hold_disk(3);
    cluster.settle();
    assert_eq!(cluster.role(1), Role::Leader);
    let second: Vec<_> = (0..3).map(|number| cluster.propose(1, &format!("new{number}"))).collect();
    cluster.settle();
    cluster.release_disk(2);
    cluster.release_disk(3);
    cluster.elapse_ms(200);
    assert!(first.iter().all(|&request| applied_at(&cluster, request).is_none()));
    assert!(first.iter().all(|&request| cluster.answer(request).is_some()));
    let places: Vec<_> = second.iter().map(|&request| applied_at(&cluster, request)).collect();
    assert_eq!(places, [Some(4), Some(5), Some(6)]);
}

/// An entry may be committed by a later leader than the one that accepted it: its request has then
/// taken effect.
#[test]
fn a_write_that_a_later_leader_commits_is_done() {
    let mut cluster = replicas(3);
    cluster.elect(1);
    cluster.isolate(3);
    cluster.cut(2, 1);
    let request = cluster.propose(1, "chips");
    cluster.settle();
    assert_eq!((cluster.answer(request), cluster.log_terms(2).len()), (None, 2));
    cluster.isolate(1);
    cluster.mend(2, 3);
    cluster.mend(3, 2);
    cluster.elect(2);
    assert_eq!(cluster.answer(request), None);
    cluster.heal();
    cluster.elapse_ms(200);
    assert_eq!(applied_at(&cluster, request), Some(2));
}

/// A restarted replica has applied nothing yet, so a read would return an older state than before
/// the restart.
///
/// Covers: etcd#20426; openraft 97d92771
#[test]
fn a_restarted_replica_reads_only_after_applying_what_its_disk_held() {
    let mut cluster = replicas(3);
    cluster.elect(1);
    cluster.propose(1, "chips");
    cluster.settle();
    cluster.crash(3);
    cluster.restart(3);
    let early = cluster.ask(3, read("chips", 0));
    assert_eq!(
        cluster.answer(early),
        Some(&Answer::Refused(RequestRefusal::CatchingUp)),
        "it knows no leader"
    );
    // It hears a leader that reports no commit yet, so the read waits.
    cluster.deliver(heartbeat(1, 3, 1, 0));
    let waits = cluster.ask(3, read("chips", 0));
    assert_eq!(cluster.answer(waits), None);
    cluster.elapse_ms(60);
    assert_eq!(read_at(&cluster, waits), Some((2, true)));
}

/// Entries that the disk held may be cut instead of committed: from then on, reads need not wait
/// for them.
#[test]
fn a_restarted_replica_does_not_wait_for_entries_that_were_cut() {
    let disks = vec![disk_of(&[1, 2]), disk_of(&[1, 2]), disk_in_term(2, &[1, 1, 1, 1, 1])];
    let mut cluster: Cluster<Replica> = Cluster::start(disks, 0, |config| config);
    cluster.elect(1);
    cluster.elapse_ms(200);
    assert_eq!(cluster.log_terms(3), [1, 2, 3]);
    let request = cluster.ask(3, read("1@1", 0));
    assert_eq!(read_at(&cluster, request), Some((3, true)));
}

/// A client that saw index 2 on one replica must not be shown index 1 on another.
#[test]
fn a_read_waits_for_the_index_that_its_client_has_seen() {
    let mut cluster = replicas(3);
    cluster.elect(1);
    cluster.part(1, 3);
    cluster.part(2, 3);
    let write = cluster.propose(1, "chips");
    cluster.settle();
    let seen = applied_at(&cluster, write).unwrap();
    let behind = cluster.ask(3, read("chips", 0));
    assert_eq!(read_at(&cluster, behind), Some((1, false)));
    let waits = cluster.ask(3, read("chips", seen));
    assert_eq!(cluster.answer(waits), None);
    cluster.heal();
    cluster.elapse_ms(100);
    assert_eq!(read_at(&cluster, waits), Some((2, true)));
}

/// A client would hang if its read waited for a leader that may never come.
#[test]
fn a_read_that_waits_is_refused_when_the_leader_is_lost() {
    let mut cluster = replicas(3);
    cluster.elect(1);
    cluster.isolate(3);
    let waits = cluster.ask(3, read("chips", 9));
    cluster.elapse_ms(700);
    assert_eq!(cluster.answer(waits), Some(&Answer::Refused(RequestRefusal::CatchingUp)));
}

/// Reads of one replica never go back in time, across restarts and elections.
#[test]
fn reads_of_a_replica_with_a_working_disk_never_go_back() {
    let mut cluster = replicas(3);
    let mut newest = 0;
    for round in 0..12 {
        cluster.elect(round % 3 + 1);
        cluster.propose(round % 3 + 1, &format!("k{round}"));
        cluster.settle();
        if round % 2 == 0 {
            cluster.crash(2);
            cluster.restart(2);
        }
        for _ in 0..4 {
            let request = cluster.ask(2, read("k0", 0));
            cluster.elapse_ms(20);
            if let Some((index, _)) = read_at(&cluster, request) {
                assert!(index >= newest, "round {round}: {index} after {newest}");
                newest = index;
            }
        }
    }
    assert!(newest > 20, "most reads were answered");
}

/// After a restart, a read waits for all entries that the disk held. When some of them are cut
/// instead of committed, the read has nothing to wait for any more.
#[test]
fn a_read_that_waits_for_entries_that_are_cut_is_answered() {
    let disks = vec![disk_of(&[1, 2]), disk_of(&[1, 2]), disk_in_term(2, &[1, 1, 1, 1, 1])];
    let mut cluster: Cluster<Replica> = Cluster::start(disks, 0, |config| config);
    cluster.part(1, 3);
    cluster.part(2, 3);
    cluster.elect(1);
    cluster.heal();
    // It hears of the leader first; its log is repaired after the read has arrived.
    cluster.intercept(1, 3);
    cluster.elapse_ms(60);
    let held = cluster.intercepted();
    cluster.deliver(held.last().expect("a heartbeat").clone());
    let request = cluster.ask(3, read("1@1", 0));
    cluster.heal();
    cluster.elapse_ms(200);
    assert_eq!((cluster.log_terms(3), cluster.commit(3)), (vec![1, 2, 3], 3));
    let answer = cluster.answer(request);
    assert!(matches!(answer, Some(Answer::Read { found: Found::Value(Some(_)), .. })), "{answer:?}");
}

/// A replica that hears its leader but keeps lagging, because its disk or its link is slow, would
/// delay a read that others could serve.
#[test]
fn a_read_at_a_replica_that_stays_behind_is_refused_in_time() {
    let mut cluster = replicas(3);
    cluster.elect(1);
    let waits = cluster.ask(3, read("chips", 9));
    let patience_ms = u64::try_from(READ_TIMEOUT.as_millis()).expect("it is short");
    cluster.elapse_ms(patience_ms - 1);
    assert_eq!(cluster.answer(waits), None, "it may yet catch up");
    // A replica checks in each turn, and it has one at every heartbeat.
    cluster.elapse_ms(60);
    assert_eq!(cluster.answer(waits), Some(&Answer::Refused(RequestRefusal::CatchingUp)));
    assert_eq!(cluster.node(3).leader(), Some(NodeId(1)), "it hears its leader all the time");
}

/// A cluster with a thousand keys, which node 2 has applied.
fn a_thousand_keys() -> Cluster<Replica> {
    let mut cluster = replicas(3);
    cluster.elect(1);
    let keys: Vec<String> = (0..1000).map(|number| format!("k{number:03}")).collect();
    cluster.propose_all(1, &keys.iter().map(String::as_str).collect::<Vec<_>>());
    cluster.elapse_ms(100);
    assert_eq!(cluster.subject(2).store().len(), 1000);
    cluster
}

fn scan_all() -> Request {
    let scan =
        Scan { prefix: String::new(), after: None, items_max: 10_000, bytes_max: 1 << 20, ..Scan::default() };
    Request::Read { query: Query::Scan(scan), at_least: LogIndex(0) }
}

/// Returns which of the `count` requests up to `last` are answered, in order.
fn answered(cluster: &Cluster<Replica>, count: usize, last: RequestId) -> Vec<bool> {
    let ids = last.0 - count as u64 + 1..=last.0;
    ids.map(|id| matches!(cluster.answer(RequestId(id)), Some(Answer::Read { .. }))).collect()
}

/// Large scans that arrive together would make one step last for many heartbeats. A step looks up
/// its share, and the next steps the rest: at once, whether or not anything else arrives.
#[test]
fn a_step_looks_up_a_limited_number_of_keys_and_the_next_steps_the_rest() {
    let mut cluster = a_thousand_keys();
    let in_a_step = LOOK_UPS_MAX / 1000;
    let last = cluster.ask_all(2, vec![scan_all(); 35]);
    let first_step = answered(&cluster, 35, last);
    assert_eq!(first_step.iter().filter(|&&is_answered| is_answered).count(), in_a_step);
    assert!(first_step[..in_a_step].iter().all(|&is_answered| is_answered), "the first ones");
    assert!(cluster.subject(2).deadline() <= cluster.clock(2), "the next step is due at once");
    cluster.settle();
    assert_eq!(answered(&cluster, 35, last), [true; 35]);
    assert!(cluster.subject(2).deadline() > cluster.clock(2), "and then it rests");
}

/// A log of a newer version is rejected at the start. Applying it up to the first unknown entry
/// would look like a crash, and skipping that entry would make this replica differ from the others.
#[test]
fn a_log_with_a_command_of_another_version_is_refused_by_its_index() {
    let log_with = |payload: &str| {
        let mut batch = BatchBuilder::new(LogPoint::ORIGIN);
        for payload in [r#""op":"NOOP""#, r#""op":"PUT","key":"a","value":1"#, payload] {
            batch.seal(Term(1), |line| line.push_str(payload));
        }
        Restored { log: batch.finish().into_iter().collect(), ..disk_in_term(1, &[]) }
    };
    let start = |payload: &str| {
        let config = Config::new(NodeId(1), Voters::new([NodeId(1)]).expect("one node"));
        Replica::new(config, log_with(payload), 0, Instant::default()).map(|_| ())
    };
    for payload in [r#""op":"SWAP","key":"a","value":1"#, r#""op":"PUT","key":"a""#, r#""op":"DELETE""#] {
        assert_eq!(start(payload), Err(ReplicaError::UnknownCommand(LogIndex(3))), "{payload}");
    }
    assert_eq!(start(r#""op":"DELETE","key":"a""#), Ok(()));
    let told = ReplicaError::UnknownCommand(LogIndex(3)).to_string();
    assert!(told.contains("entry 3") && told.contains("does not support"), "{told}");
}

/// Reads are served in the order of arrival: new reads must not delay those that a step left over.
#[test]
fn reads_that_wait_for_the_next_step_are_not_overtaken() {
    let mut cluster = a_thousand_keys();
    let asked = LOOK_UPS_MAX.div_ceil(1000) + 1;
    let first = cluster.ask_all(2, vec![scan_all(); asked]);
    assert!(!answered(&cluster, asked, first)[asked - 1]);
    let later = cluster.ask_all(2, vec![scan_all(); asked]);
    assert_eq!(answered(&cluster, asked, first), vec![true; asked], "before the later ones");
    cluster.settle();
    assert_eq!(answered(&cluster, asked, later), vec![true; asked]);
}

/// A replica for which no client waits leaves many entries to the next step, because disks and
/// answers come first. It defers them only once; otherwise a busy follower would never apply
/// anything.
#[test]
fn many_entries_that_no_client_waits_for_are_applied_one_step_later() {
    for (entries, is_left) in [(10, false), (100, true)] {
        let config = Config::new(NodeId(0), Voters::new([NodeId(0)]).expect("one voter"));
        let now = Instant::from_micros(1);
        let mut replica = Replica::new(config, disk_of(&vec![1; entries]), 0, now).expect("a good log");
        let (mut inputs, mut outputs) = (Vec::new(), Vec::new());
        while replica.status().commit_index == LogIndex::ORIGIN {
            replica.step(now, &mut inputs, &mut outputs);
            inputs.extend(outputs.drain(..).filter_map(|output| match output {
                Output::Persist(persist) => Some(Input::Persisted(persist.id)),
                _ => None,
            }));
        }
        let status = replica.status();
        assert_eq!(status.last_applied < status.commit_index, is_left, "{entries} entries");
        if is_left {
            assert_eq!(replica.deadline(), Instant::default(), "it asks for the next step at once");
            replica.step(now, &mut inputs, &mut outputs);
        }
        assert_eq!(replica.status().last_applied, status.commit_index);
    }
}
