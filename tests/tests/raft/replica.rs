//! Replicas: that every request is answered once and right, whatever becomes of its leader, and
//! that reads do not go back.

use coracle_core::kv::{Found, Key, Outcome, Query, Scan};
use coracle_core::raft::{BatchBuilder, Config, LogIndex, LogPoint, NodeId, Restored, Role, Term, Voters};
use coracle_core::{
    Answer, Input, Instant, LOOK_UPS_MAX, Output, READ_PATIENCE, Refused, Replica, ReplicaError, Request,
    RequestId,
};
use coracle_tests::scenario::forge::{disk_in_term, disk_of, heartbeat};
use coracle_tests::scenario::{Cluster, replicas};

fn read(key: &str, at_least: u64) -> Request {
    let query = Query::Value(Key::new(key).expect("a short text"));
    Request::Read { query, at_least: LogIndex(at_least) }
}

/// The place at which a write took effect.
fn applied_at(cluster: &Cluster<Replica>, request: RequestId) -> Option<u64> {
    match cluster.answer(request) {
        Some(Answer::Applied { index, outcome: Outcome::Done }) => Some(index.0),
        _ => None,
    }
}

/// How far the replica had applied the log when it answered a read, and whether it found a value.
fn read_at(cluster: &Cluster<Replica>, request: RequestId) -> Option<(u64, bool)> {
    match cluster.answer(request) {
        Some(Answer::Read { index, found: Found::Value(value) }) => Some((index.0, value.is_some())),
        _ => None,
    }
}

/// A client that is told "done" before the commit, or twice, or never, cannot trust anything.
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

/// Two proposals of term 1 wait at 10 and 11. Others overwrite place 10 alone; the node leads again
/// in term 3, and place 11 gets an entry of term 3. Comparing places alone would answer "done" for
/// entries that are gone.
///
/// Covers: openraft#1761 (stranded responder); answers by index and term
#[test]
fn requests_of_a_lost_reign_are_answered_by_place_and_term() {
    let mut cluster = replicas(3);
    cluster.elect(1);
    let texts: Vec<String> = (2..=9).map(|number| format!("k{number}")).collect();
    cluster.propose_all(1, &texts.iter().map(String::as_str).collect::<Vec<_>>());
    cluster.settle();
    assert_eq!(cluster.commit(1), 9);
    cluster.isolate(1);
    let tenth = cluster.propose(1, "lost");
    let eleventh = cluster.propose(1, "gone");
    // The second reign's first entry takes place 10 and nothing takes place 11.
    cluster.elect(2);
    cluster.heal();
    cluster.elapse_ms(200);
    assert_eq!((cluster.log_terms(1).len(), cluster.commit(1)), (10, 10));
    assert_eq!(cluster.answer(tenth), Some(&Answer::Refused(Refused::Superseded)));
    assert_eq!(cluster.answer(eleventh), None, "place 11 is not decided");
    // The third reign starts with place 11.
    cluster.elect(1);
    assert_eq!(cluster.answer(eleventh), Some(&Answer::Refused(Refused::Superseded)));
    let twelfth = cluster.propose(1, "chips");
    cluster.settle();
    assert_eq!(applied_at(&cluster, twelfth), Some(12));
    assert!((1..=3).all(|node| cluster.texts(node)[8..] == ["chips"]));
}

/// Several requests wait for the same places, from two reigns of the same node.
#[test]
fn two_requests_of_two_reigns_may_wait_for_one_place() {
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
    // Their votes wait for their disks.
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

/// An entry may be committed by another leader than the one that took it: the request has then been
/// done.
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

/// A replica that was restarted has applied nothing yet: what it said before must not become
/// unsaid.
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
    assert_eq!(cluster.answer(early), Some(&Answer::Refused(Refused::CatchingUp)), "it knows no leader");
    // It hears a leader that tells of no commit yet: the read waits.
    cluster.deliver(heartbeat(1, 3, 1, 0));
    let waits = cluster.ask(3, read("chips", 0));
    assert_eq!(cluster.answer(waits), None);
    cluster.elapse_ms(60);
    assert_eq!(read_at(&cluster, waits), Some((2, true)));
}

/// A part of what the disk held may be cut instead of committed: from then on reads need not wait
/// for it.
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

/// A client that saw place 3 on one replica must not be shown place 2 on another.
#[test]
fn a_read_waits_for_what_its_asker_has_seen() {
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

/// Waiting for a leader that may never come would hang the client.
#[test]
fn a_read_that_waits_is_refused_when_the_leader_is_lost() {
    let mut cluster = replicas(3);
    cluster.elect(1);
    cluster.isolate(3);
    let waits = cluster.ask(3, read("chips", 9));
    cluster.elapse_ms(700);
    assert_eq!(cluster.answer(waits), Some(&Answer::Refused(Refused::CatchingUp)));
}

/// Reads of one replica, before and after restarts, elections and cuts, never go back.
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

/// A restarted replica makes a read wait for all that its disk held. When a part of that is cut
/// instead of committed, the read has nothing to wait for any more.
#[test]
fn a_read_that_waits_for_entries_that_are_cut_is_answered() {
    let disks = vec![disk_of(&[1, 2]), disk_of(&[1, 2]), disk_in_term(2, &[1, 1, 1, 1, 1])];
    let mut cluster: Cluster<Replica> = Cluster::start(disks, 0, |config| config);
    cluster.part(1, 3);
    cluster.part(2, 3);
    cluster.elect(1);
    cluster.heal();
    // It hears of the leader first, and its log is mended after the read came.
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

/// A replica that hears its leader and does not catch up, because its disk or its link is slow,
/// would keep a reader that others could serve.
#[test]
fn a_read_at_a_replica_that_stays_behind_is_refused_in_time() {
    let mut cluster = replicas(3);
    cluster.elect(1);
    let waits = cluster.ask(3, read("chips", 9));
    let patience_ms = u64::try_from(READ_PATIENCE.as_millis()).expect("it is short");
    cluster.elapse_ms(patience_ms - 1);
    assert_eq!(cluster.answer(waits), None, "it may yet catch up");
    // A replica looks when it has a turn, and it has one at every heartbeat.
    cluster.elapse_ms(60);
    assert_eq!(cluster.answer(waits), Some(&Answer::Refused(Refused::CatchingUp)));
    assert_eq!(cluster.node(3).leader(), Some(NodeId(1)), "it hears its leader all the time");
}

/// A thousand keys, as a client finds them.
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
    let scan = Scan { prefix: String::new(), after: None, items_max: 10_000, bytes_max: 1 << 20 };
    Request::Read { query: Query::Scan(scan), at_least: LogIndex(0) }
}

/// Which of the requests that end with `last` are answered, the first of them first.
fn answered(cluster: &Cluster<Replica>, count: usize, last: RequestId) -> Vec<bool> {
    let ids = last.0 - count as u64 + 1..=last.0;
    ids.map(|id| matches!(cluster.answer(RequestId(id)), Some(Answer::Read { .. }))).collect()
}

/// Large scans that arrive together would make one step of many heartbeats. A step looks up its
/// share, and the next ones the rest: at once, whether or not anything else arrives.
#[test]
fn a_step_looks_up_so_many_keys_and_the_next_ones_go_on_by_themselves() {
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

/// A log that a newer version wrote: taking it and stopping halfway, at the first entry that means
/// nothing, would look like a crash, and skipping the entry would make this replica another one
/// than the others.
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
    assert!(told.contains("entry 3") && told.contains("does not know"), "{told}");
}

/// Whoever came first is served first: readers that keep coming must not keep those waiting that a
/// step left over.
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

/// A replica that nobody waits for leaves many entries to the step after: disks and answers come
/// first. To one step, and not to each next one: otherwise a busy follower would never apply
/// anything.
#[test]
fn many_entries_that_nobody_waits_for_are_applied_one_step_later() {
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
