//! Snapshots and compaction: the beginning of the log is dropped, and a follower that needs it gets
//! the state instead (§7, Fig. 13).

use coracle_core::kv::{ClientName, Command, Key, Outcome, Session, Value};
use coracle_core::raft::{
    Body, Config, Configuration, InstallOutcome, LogIndex, Member, Message, MessageRefusal, NodeId, Restored,
    Role, Roster, Voters,
};
use coracle_core::{Answer, Incarnation, MemberChange, ReplicaLimits, Request, SnapshotPolicy};
use coracle_tests::scenario::{Cluster, Limited, Limits, first_level};

/// A replica that takes a snapshot every few entries.
type Snapshotting = Limited<EveryFewEntries>;

/// The limits of [`Snapshotting`].
struct EveryFewEntries;

const ENTRIES: u64 = 5;

impl Limits for EveryFewEntries {
    fn limits() -> ReplicaLimits {
        // All nodes take snapshots at the same entries, so that two of them have the same one.
        let snapshots =
            SnapshotPolicy { log_entries: ENTRIES, takes_turns: false, ..SnapshotPolicy::default() };
        ReplicaLimits { snapshots, ..first_level() }
    }
}

/// A cluster whose nodes keep nothing of the log that a snapshot covers.
fn snapshotting(size: usize) -> Cluster<Snapshotting> {
    Cluster::start(vec![Restored::default(); size], 0, |config| Config {
        retained_bytes: 0,
        held_bytes_max: 0,
        ..config
    })
}

fn led_by_one(size: usize) -> Cluster<Snapshotting> {
    let mut cluster = snapshotting(size);
    cluster.elect(1);
    cluster
}

/// Writes these numbers, one after the other.
fn write(cluster: &mut Cluster<Snapshotting>, leader: u64, numbers: std::ops::Range<u32>) {
    for number in numbers {
        cluster.propose(leader, &format!("k{number}"));
        cluster.settle();
    }
}

fn snapshot_of(cluster: &Cluster<Snapshotting>, node: u64) -> u64 {
    cluster.node(node).snapshot().map_or(0, |meta| meta.last.index.0)
}

fn keys(cluster: &Cluster<Snapshotting>, node: u64) -> usize {
    cluster.subject(node).0.store().len()
}

fn assert_equal_states(cluster: &Cluster<Snapshotting>) {
    let nodes = cluster.ids();
    let first = &cluster.subject(nodes[0]).0;
    for node in &nodes[1..] {
        let other = &cluster.subject(*node).0;
        assert_eq!((first.store(), first.sessions()), (other.store(), other.sessions()), "node {node}");
    }
}

fn kinds(messages: &[Message]) -> Vec<&'static str> {
    let kind = |message: &Message| match &message.body {
        Body::InstallSnapshot(part) if part.text.is_empty() => Some("question"),
        Body::InstallSnapshot(part) if part.end.is_some() => Some("last part"),
        Body::InstallSnapshot(_) => Some("part"),
        Body::AppendEntries(append) if !append.entries.is_empty() => Some("entries"),
        _ => None,
    };
    messages.iter().filter_map(kind).collect()
}

/// A log that is never compacted fills every disk in the end.
///
/// Covers: etcd TestProvideSnap's ground, log compaction; node's own snapshot
#[test]
fn every_node_takes_snapshots_and_forgets_the_log_before_them() {
    let mut cluster = led_by_one(3);
    write(&mut cluster, 1, 0..23);
    for node in 1..=3 {
        let snapshot = snapshot_of(&cluster, node);
        assert!(snapshot >= 15, "node {node} has a snapshot of {snapshot} entries");
        assert_eq!(cluster.node(node).log().start().index, LogIndex(snapshot));
        assert_eq!(keys(&cluster, node), 23);
    }
}

/// Covers: etcd rawnode restart from snapshot, TestCommitPaginationAfterRestart's ground
#[test]
fn a_restarted_node_goes_on_from_its_snapshot() {
    let mut cluster = led_by_one(3);
    write(&mut cluster, 1, 0..13);
    for node in 1..=3 {
        cluster.crash(node);
    }
    for node in 1..=3 {
        cluster.restart(node);
        assert!(snapshot_of(&cluster, node) >= 5);
        assert!(cluster.commit(node) >= snapshot_of(&cluster, node), "what a snapshot holds is committed");
    }
    cluster.elect(2);
    write(&mut cluster, 2, 13..20);
    cluster.elapse_ms(200);
    assert_eq!((1..=3).map(|node| keys(&cluster, node)).collect::<Vec<_>>(), [20, 20, 20]);
    assert_equal_states(&cluster);
}

/// A follower was away until the entries that it needs were compacted.
///
/// Covers: etcd TestProvideSnap, TestRestoreFromSnapMsg, TestSlowNodeRestore,
/// slow_follower_after_compaction, snapshot_succeed_via_app_resp;
/// TestSendingSnapshotSetPendingSnapshot, TestPendingSnapshotPauseReplication
#[test]
fn a_follower_that_is_too_far_behind_gets_the_state_and_then_entries() {
    let mut cluster = led_by_one(3);
    cluster.isolate(3);
    write(&mut cluster, 1, 0..32);
    cluster.heal();
    cluster.intercept(1, 3);
    let mut sent = Vec::new();
    for _ in 0..200 {
        cluster.elapse_ms(5);
        let messages = cluster.intercepted();
        sent.extend(kinds(&messages));
        messages.into_iter().for_each(|message| cluster.deliver(message));
    }
    let entries = sent.iter().position(|kind| *kind == "entries").expect("entries follow");
    let last_part = sent.iter().position(|kind| *kind == "last part").expect("the snapshot was sent");
    assert_eq!(sent[0], "question", "{sent:?}");
    assert!(last_part < entries, "no entries before the snapshot is there: {sent:?}");
    cluster.heal();
    cluster.elapse_ms(100);
    assert_eq!((cluster.commit(3), keys(&cluster, 3)), (cluster.commit(1), 32));
    assert_equal_states(&cluster);
    assert!(cluster.trace().iter().any(|line| line.starts_with("3 installed a snapshot")));
    write(&mut cluster, 1, 32..34);
    assert_eq!(keys(&cluster, 3), 34);
}

/// Covers: openraft#1828: an idle cluster, a leader without a log, a follower without anything.
#[test]
fn an_idle_leader_with_an_empty_log_sends_its_snapshot_within_a_beat_or_two() {
    let mut cluster = led_by_one(3);
    cluster.isolate(3);
    write(&mut cluster, 1, 0..9);
    // The no-op and nine writes: the second snapshot covers them all.
    assert_eq!(cluster.node(1).log().start(), cluster.node(1).log().last());
    cluster.heal();
    cluster.elapse_ms(200);
    assert_eq!((cluster.commit(3), keys(&cluster, 3)), (10, 9));
}

/// Parts of a snapshot are lost. The transfer resumes, and parts that have arrived are not sent
/// again.
///
/// Covers: etcd TestSnapshotFailure, openraft snapshot_streaming (resume), camunda#11496 (restart
/// from chunk 0 loops)
#[test]
fn a_transfer_goes_on_where_it_stopped() {
    let mut cluster = led_by_one(3);
    cluster.isolate(3);
    write(&mut cluster, 1, 0..29);
    cluster.heal();
    let mut arrived = 0;
    cluster.intercept(1, 3);
    let mut offsets = Vec::new();
    for _ in 0..400 {
        cluster.elapse_ms(10);
        for message in cluster.intercepted() {
            if let Body::InstallSnapshot(part) = &message.body
                && !part.text.is_empty()
            {
                arrived += 1;
                offsets.push(part.offset);
                // Every third part is lost.
                if arrived % 3 == 0 {
                    continue;
                }
            }
            cluster.deliver(message);
        }
    }
    assert_eq!(keys(&cluster, 3), 29, "{offsets:?}");
    assert_equal_states(&cluster);
    let starts = offsets.iter().filter(|offset| **offset == 0).count();
    assert!(starts <= 2 && offsets.len() > 10, "it never began again: {offsets:?}");
}

/// Leadership changes in the middle of a transfer. The new leader has the same snapshot, and sends
/// only the rest.
///
/// Covers: a transfer that goes on under another leader
#[test]
fn another_leader_with_the_same_snapshot_sends_the_rest() {
    let mut cluster = led_by_one(3);
    cluster.isolate(3);
    write(&mut cluster, 1, 0..29);
    assert_eq!(snapshot_of(&cluster, 1), snapshot_of(&cluster, 2), "snapshots are taken at the same entries");
    cluster.heal();
    let mut offsets = Vec::new();
    let mut leader = 1;
    cluster.intercept(1, 3);
    cluster.intercept(2, 3);
    for round in 0..2000 {
        cluster.elapse_ms(2);
        for message in cluster.intercepted() {
            if let Body::InstallSnapshot(part) = &message.body
                && !part.text.is_empty()
            {
                offsets.push((message.from.0, part.offset));
            }
            cluster.deliver(message);
        }
        if leader == 1 && offsets.len() == 8 {
            cluster.ask(1, Request::Transfer(NodeId(2)));
            leader = 2;
        }
        assert!(round < 1999 || keys(&cluster, 3) == 29, "{offsets:?}");
    }
    assert_eq!(cluster.leader(), Some(2));
    let of_second = offsets.iter().find(|(from, _)| *from == 2);
    assert!(of_second.is_some_and(|(_, offset)| *offset > 0), "it went on: {offsets:?}");
    assert_equal_states(&cluster);
}

/// Covers: etcd TestRestore (second is ignored), TestRestoreIgnoreSnapshot (older ignored)
#[test]
fn a_snapshot_of_what_is_committed_changes_nothing() {
    let mut cluster = led_by_one(3);
    write(&mut cluster, 1, 0..11);
    cluster.elapse_ms(100);
    let meta = cluster.node(1).snapshot().expect("it has one").clone();
    let before = (cluster.commit(2), keys(&cluster, 2), snapshot_of(&cluster, 2));
    cluster.intercept(2, 1);
    let part = coracle_core::raft::SnapshotPart::question(meta.clone());
    let term = cluster.node(1).current_term();
    cluster.deliver(Message {
        from: NodeId(1),
        incarnation: None,
        to: NodeId(2),
        term,
        body: Body::InstallSnapshot(part),
    });
    cluster.settle();
    let answers = cluster.intercepted();
    let is_installed = |message: &Message| {
        matches!(&message.body, Body::InstallSnapshotResponse(response)
            if response.outcome == InstallOutcome::Installed && response.last == meta.last)
    };
    assert!(answers.iter().any(is_installed), "{answers:?}");
    assert_eq!((cluster.commit(2), keys(&cluster, 2), snapshot_of(&cluster, 2)), before);
}

/// A snapshot covers the index at which a write waits: its outcome is unknown, and the client must
/// not be told that it had no effect.
///
/// Covers: openraft#1761, installer purges stranded responders
#[test]
fn a_write_that_a_snapshot_overtakes_has_no_known_outcome() {
    let mut cluster = led_by_one(3);
    cluster.isolate(1);
    let stranded = cluster.propose(1, "stranded");
    cluster.elect(2);
    write(&mut cluster, 2, 0..32);
    assert_eq!(cluster.answer(stranded), None);
    cluster.heal();
    cluster.elapse_ms(2000);
    assert_eq!(cluster.answer(stranded), Some(&Answer::OutcomeUnknown));
    assert_equal_states(&cluster);
}

/// A retry after a change of leader, an installed snapshot and a restart is answered with the first
/// outcome.
///
/// Covers: session retry across leader change, snapshot install and restart
#[test]
fn a_session_survives_a_snapshot_a_restart_and_a_change_of_leader() {
    let swap = |seq| Request::Write {
        command: Command::Cas {
            key: Key::new("lock").expect("a short key"),
            expect: None,
            value: Value::from_text("mine").expect("a short value"),
        },
        session: Some(
            Session::new(ClientName::new("c").expect("a short name"), seq).expect("a small number"),
        ),
        wants_meta: false,
    };
    let mut cluster = led_by_one(3);
    cluster.isolate(3);
    let first = cluster.ask(1, swap(7));
    cluster.settle();
    assert!(matches!(cluster.answer(first), Some(Answer::Applied { outcome: Outcome::Done, .. })));
    write(&mut cluster, 1, 0..32);
    cluster.heal();
    cluster.elapse_ms(1000);
    assert!(snapshot_of(&cluster, 3) > 5, "node 3 was sent the snapshot");
    cluster.crash(3);
    cluster.restart(3);
    cluster.elect(3);
    let again = cluster.ask(3, swap(7));
    let another = cluster.ask(3, swap(8));
    cluster.settle();
    assert!(matches!(cluster.answer(again), Some(Answer::Applied { outcome: Outcome::Done, .. })));
    assert!(matches!(
        cluster.answer(another),
        Some(Answer::Applied { outcome: Outcome::Mismatch { .. }, .. })
    ));
    cluster.elapse_ms(200);
    assert_equal_states(&cluster);
}

/// The disk hangs while a snapshot is written: no entry is dropped before the snapshot is durable,
/// and everything else continues.
///
/// Covers: openraft building does not block append/apply; log cut only behind a durable snapshot
#[test]
fn the_log_stays_until_the_snapshot_is_durable() {
    let mut cluster = led_by_one(3);
    cluster.hold_disk(2);
    write(&mut cluster, 1, 0..12);
    assert_eq!((snapshot_of(&cluster, 2), cluster.node(2).log().start().index), (0, LogIndex(0)));
    assert_eq!(keys(&cluster, 1), 12);
    cluster.release_disk(2);
    cluster.elapse_ms(200);
    write(&mut cluster, 1, 12..20);
    assert!(snapshot_of(&cluster, 2) > 0);
    assert_equal_states(&cluster);
}

/// A part that was damaged in flight is detected, at the latest by the checksum of the whole
/// snapshot, and the transfer begins again.
#[test]
fn a_damaged_transfer_is_dropped_and_begun_again() {
    // The first case changes a value, the second one the order of the keys.
    for (sent, received, because) in [
        (":\"k1\"}", ":\"x1\"}", MessageRefusal::SnapshotDamaged),
        ("{\"key\":\"k1\"", "{\"key\":\"x1\"", MessageRefusal::SnapshotNotUnderstood),
    ] {
        let mut cluster = led_by_one(3);
        cluster.isolate(3);
        write(&mut cluster, 1, 0..20);
        cluster.heal();
        cluster.intercept(1, 3);
        let mut has_damaged = false;
        for _ in 0..300 {
            cluster.elapse_ms(10);
            for mut message in cluster.intercepted() {
                if let Body::InstallSnapshot(part) = &mut message.body
                    && part.text.contains(sent)
                    && !std::mem::replace(&mut has_damaged, true)
                {
                    part.text = part.text.replace(sent, received).into();
                }
                cluster.deliver(message);
            }
        }
        assert!(has_damaged && keys(&cluster, 3) == 20);
        assert!(cluster.trace().iter().any(|line| line.contains(&because.to_string())));
        assert_equal_states(&cluster);
    }
}

/// A follower drops its uncommitted entries of an older term at the index where the snapshot ends.
///
/// Covers: openraft snapshot_streaming deletes conflicts, #559/#561; camunda#12913
#[test]
fn a_conflicting_log_gives_way_to_a_snapshot() {
    let mut cluster = led_by_one(3);
    cluster.isolate(1);
    cluster.propose_all(1, &["x1", "x2", "x3", "x4", "x5", "x6", "x7", "x8", "x9"]);
    cluster.elect(2);
    write(&mut cluster, 2, 0..8);
    cluster.heal();
    cluster.elapse_ms(2000);
    assert_equal_states(&cluster);
    assert_eq!(keys(&cluster, 1), 8);
    assert_eq!(cluster.role(1), Role::Follower);
}

/// Covers: etcd TestLeaderTransferAfterSnapshot
#[test]
fn leadership_goes_to_a_node_that_needs_the_snapshot_first() {
    let mut cluster = led_by_one(3);
    cluster.isolate(3);
    write(&mut cluster, 1, 0..20);
    cluster.heal();
    let request = cluster.ask(1, Request::Transfer(NodeId(3)));
    cluster.elapse_ms(600);
    assert_eq!(cluster.answer(request), Some(&Answer::Transferred { to: NodeId(3) }));
    assert_eq!(keys(&cluster, 3), 20);
}

fn change(cluster: &mut Cluster<Snapshotting>, voters: &[u64], learners: &[u64]) {
    let ids = |nodes: &[u64]| nodes.iter().copied().map(NodeId).collect();
    let order = MemberChange::Set { voters: ids(voters), learners: ids(learners) };
    cluster.ask(1, Request::ChangeMembers(order.into()));
    cluster.elapse_ms(100);
}

fn members(voters: &[u64], learners: &[u64]) -> Configuration {
    let ids = |nodes: &[u64]| nodes.iter().copied().map(NodeId).collect::<Vec<_>>();
    let voters = Voters::new(ids(voters)).expect("one to nine");
    Configuration::new(voters, ids(learners)).expect("disjoint")
}

/// A snapshot holds the configuration, so a node that receives no entry of the membership changes
/// knows them all the same: when it has an older configuration, when they promote or demote it, and
/// after a restart.
///
/// Covers: etcd TestRestore, TestRestoreWithLearner, TestRestoreVoterToLearner,
/// TestRestoreLearnerPromotion, TestLearnerReceiveSnapshot; openraft#1808, async-raft dba24036
/// (second compaction lost membership)
#[test]
fn a_snapshot_carries_the_configuration() {
    for (voters, learners) in [(&[1, 2][..], &[3][..]), (&[1, 2, 3, 4], &[]), (&[1, 2, 4], &[3])] {
        let three = Voters::new([1, 2, 3].map(NodeId)).expect("three");
        let mut cluster: Cluster<Snapshotting> = Cluster::start(vec![Restored::default(); 4], 0, |config| {
            Config { voters: three.clone(), retained_bytes: 0, held_bytes_max: 0, ..config }
        });
        cluster.elect(1);
        if voters.contains(&4) {
            change(&mut cluster, &[1, 2, 3], &[4]);
        }
        cluster.isolate(3);
        change(&mut cluster, voters, learners);
        write(&mut cluster, 1, 0..25);
        cluster.heal();
        cluster.elapse_ms(1000);
        let expected = members(voters, learners);
        assert_eq!(cluster.node(3).configuration(), &expected);
        assert_eq!(cluster.node(3).snapshot().map(|meta| &meta.configuration), Some(&expected));
        write(&mut cluster, 1, 25..40);
        for node in 1..=3 {
            cluster.crash(node);
            cluster.restart(node);
            assert_eq!(cluster.node(node).configuration(), &expected, "node {node} after a restart");
        }
    }
}

/// A snapshot in the middle of a membership change holds both sets of voters, and the change
/// continues.
///
/// Covers: etcd TestRestoreWithVotersOutgoing
#[test]
fn a_snapshot_in_the_middle_of_a_change_knows_both_sets() {
    let mut cluster = led_by_one(3);
    change(&mut cluster, &[1, 2], &[3]);
    cluster.isolate(3);
    // To {1, 3}: node 3 cannot agree, so the change stays open and nothing is committed.
    change(&mut cluster, &[1, 3], &[]);
    assert!(cluster.node(1).configuration().is_joint());
    let commit = cluster.commit(1);
    write(&mut cluster, 1, 0..20);
    assert_eq!(cluster.commit(1), commit, "nothing is committed without both");
    cluster.heal();
    cluster.elapse_ms(1000);
    assert!(cluster.node(1).membership_is_settled());
    assert_eq!(cluster.node(3).configuration(), &members(&[1, 3], &[]));
    assert_eq!(keys(&cluster, 3), 20);
}

/// A snapshot that covers the removal of a node names it nowhere. With that alone on its disk, the
/// node would wait for an addition that no operator is going to order.
#[test]
fn a_removed_node_takes_no_snapshot_that_covers_its_removal() {
    let member = |id: u64| {
        let incarnation = Some(Incarnation(10 + id));
        (NodeId(id), Member::founder(format!("host:{id}").into(), incarnation))
    };
    let mut behind_removal = 0;
    for writes in 0..u32::try_from(ENTRIES).expect("a few") {
        let roster = Roster::new((1..=3).map(member));
        let mut cluster: Cluster<Snapshotting> = Cluster::start(vec![Restored::default(); 3], 0, |config| {
            let incarnation = Some(Incarnation(10 + config.id.0));
            Config { roster: roster.clone(), incarnation, retained_bytes: 0, ..config }
        });
        cluster.elect(1);
        cluster.elapse_ms(60);
        write(&mut cluster, 1, 0..writes);
        cluster.ask(1, Request::ChangeMembers(MemberChange::Remove(NodeId(3)).into()));
        cluster.elapse_ms(300);
        let removed_at = cluster.node(3).removed_at().expect("it has heard of it");
        assert!(snapshot_of(&cluster, 3) < removed_at.0, "after {writes} writes");
        behind_removal += u32::from(snapshot_of(&cluster, 1) >= removed_at.0);
    }
    assert!(behind_removal > 0, "the others took one at the removal, or behind it");
}
