//! Regression tests for snapshots: bugs that the simulator found, one scenario each.

use coracle_core::raft::{
    Body, Checksum, Configuration, InstallOutcome, InstallSnapshotResponse, LogIndex, LogPoint, Message,
    NodeId, Restored, RestoredSnapshot, SnapshotEnd, SnapshotMeta, SnapshotPart, Voters,
};
use coracle_tests::scenario::Lone;
use coracle_tests::scenario::forge::{
    disk_of, entries_of, heartbeat_response, message, newer_term, rejected,
};

/// Content of some lines, which are several parts on a scenario's disk.
const CONTENT: &str = "\
    {\"key\":\"anchovies\",\"value\":\"a value of some length\"}\n\
    {\"key\":\"bananas\",\"value\":\"a value of some length\"}\n\
    {\"key\":\"chips\",\"value\":\"a value of some length\"}\n\
    {\"key\":\"dates\",\"value\":\"a value of some length\"}\n";

fn point(log_terms: &[u64], index: u64) -> LogPoint {
    let runs = entries_of(log_terms, 1);
    runs.iter().find_map(|run| run.point_at(LogIndex(index))).expect("it is in that log")
}

fn meta(log_terms: &[u64], last: u64, voters: u64) -> SnapshotMeta {
    let voters = Voters::new((1..=voters).map(NodeId)).expect("a few voters");
    SnapshotMeta { last: point(log_terms, last), configuration: Configuration::of_voters(voters) }
}

/// Returns the disk of one of two nodes, with a snapshot up to `last` and the log after it.
fn trimmed_disk(log_terms: &[u64], last: u64) -> Restored {
    let snapshot = RestoredSnapshot { meta: meta(log_terms, last, 2), text: CONTENT.into() };
    Restored {
        log_start: snapshot.meta.last,
        snapshot: Some(snapshot),
        log: entries_of(log_terms, last + 1),
        ..disk_of(log_terms)
    }
}

/// Returns a call of leader `from` with the whole of a snapshot.
fn whole(from: u64, term: u64, meta: &SnapshotMeta) -> Message {
    let end =
        SnapshotEnd { bytes: CONTENT.len() as u64, checksum: Checksum(crc32fast::hash(CONTENT.as_bytes())) };
    let part = SnapshotPart { meta: meta.clone(), offset: 0, text: CONTENT.into(), end: Some(end) };
    message(from, 1, term, Body::InstallSnapshot(part))
}

fn holds(from: u64, term: u64, last: LogPoint, bytes: u64) -> Message {
    let outcome = InstallOutcome::Holds { bytes };
    message(from, 1, term, Body::InstallSnapshotResponse(InstallSnapshotResponse { last, outcome }))
}

fn sends_a_snapshot(sent: &[Message]) -> bool {
    sent.iter().any(|message| matches!(message.body, Body::InstallSnapshot(_)))
}

/// A deposed leader has another entry at the index where its leader's log starts, and its rejection
/// hints at that index. Another probe there would get the same answer, forever.
#[test]
fn a_follower_that_differs_where_the_log_starts_is_sent_the_snapshot() {
    let mut lone = Lone::new(2, trimmed_disk(&[2, 2, 2, 2], 3));
    lone.lead();
    // The follower's log is of term 1, and longer.
    let sent = lone.hand(rejected(2, 1, 3, 1, (3, 1)));
    assert!(sends_a_snapshot(&sent), "{sent:#?}");
}

/// A slow disk still writes the last part of a snapshot when another leader sends an older
/// snapshot. The first one will be installed in a moment, and an older one must not be begun after
/// it.
#[test]
fn a_snapshot_that_is_being_written_is_installed_before_another_one() {
    let terms = [1, 1, 1, 1, 1, 1];
    let (newer, older) = (meta(&terms, 6, 3), meta(&terms, 4, 3));
    let mut lone = Lone::new(3, Restored::default());
    lone.hand(newer_term(2, 1, 1));
    lone.hold_disk(1);
    lone.hand(whole(2, 1, &newer));
    // While a snapshot is being written, parts of another one are not answered.
    lone.hand(whole(3, 2, &older));
    lone.release_disk(1);
    assert_eq!(lone.node(1).snapshot(), Some(&newer));
    assert_eq!(lone.commit(1), 6);
}

/// The log overtakes a snapshot while it is written. The snapshot is on the disk all the same, so
/// it counts, and the log may be compacted up to it.
#[test]
fn a_snapshot_that_the_log_has_overtaken_while_it_was_written_counts() {
    let terms = [1, 1, 1, 1];
    let newer = meta(&terms, 3, 2);
    let mut lone = Lone::new(2, Restored::default());
    lone.hand(newer_term(2, 1, 1));
    lone.hold_disk(1);
    lone.hand(whole(2, 1, &newer));
    lone.hand(coracle_tests::scenario::forge::append(2, 1, 1, &terms, 0, 4));
    assert_eq!(lone.commit(1), 4);
    lone.release_disk(1);
    assert_eq!(lone.node(1).snapshot(), Some(&newer));
    assert_eq!((lone.commit(1), lone.log_terms(1).len()), (4, 4));
}

/// A node that had begun to receive a snapshot, and became leader instead, does not wait for the
/// rest of it.
#[test]
fn a_leader_does_not_wait_for_a_snapshot_that_it_was_sent_before() {
    let terms = [1, 1, 1, 1];
    let mut lone = Lone::new(3, disk_of(&terms));
    lone.hand(message(
        2,
        1,
        1,
        Body::InstallSnapshot(SnapshotPart {
            meta: meta(&[1, 1, 1, 1, 1], 5, 3),
            offset: 0,
            text: "".into(),
            end: None,
        }),
    ));
    assert!(lone.node(1).receives_snapshot());
    lone.lead();
    lone.hand(coracle_tests::scenario::forge::accepted(2, 1, 2, 5));
    assert_eq!(lone.commit(1), 5);
    assert!(!lone.node(1).receives_snapshot());
}

/// A new snapshot would make a follower begin again: none is due while the follower receives more
/// of the current one, however long that takes. One is due when the follower receives nothing more.
#[test]
fn a_snapshot_is_being_sent_for_as_long_as_more_of_it_arrives() {
    let mut lone = Lone::new(2, trimmed_disk(&[2, 2, 2, 2], 3));
    let last = point(&[2, 2, 2, 2], 3);
    lone.lead();
    lone.hand(rejected(2, 1, 3, 1, (1, 1)));
    let lines: Vec<_> = CONTENT.split_inclusive('\n').map(str::len).collect();
    for parts in 0..4 {
        let bytes: usize = lines[..parts].iter().sum();
        lone.hand(holds(2, 3, last, bytes as u64));
        for _ in 0..4 {
            lone.elapse_ms(400);
            lone.hand(heartbeat_response(2, 1, 3));
        }
        assert!(lone.node(1).sends_snapshot(lone.clock(1)), "{parts} parts");
    }
    for _ in 0..160 {
        lone.elapse_ms(400);
        lone.hand(heartbeat_response(2, 1, 3));
        lone.hand(holds(2, 3, last, 0));
    }
    assert!(!lone.node(1).sends_snapshot(lone.clock(1)));
}
