//! Backups at the level of the core: a backup holds everything that was acknowledged before its
//! request, comes in parts of limited size, and delays compaction only for a limited time.

use coracle_core::raft::{Checksum, LogIndex, LogPoint, Restored, SnapshotPart};
use coracle_core::{
    Answer, BACKUP_HOLD_MAX, BACKUP_TIMEOUT, BackupPiece, ReplicaLimits, Request, RequestRefusal,
    SnapshotPolicy,
};
use coracle_tests::scenario::{Cluster, Limited, Limits, Subject, first_level, replicas};

/// A replica that takes a snapshot every few entries.
type Snapshotting = Limited<EveryFewEntries>;

/// The limits of [`Snapshotting`].
struct EveryFewEntries;

const ENTRIES: u64 = 5;

impl Limits for EveryFewEntries {
    fn limits() -> ReplicaLimits {
        let snapshots = SnapshotPolicy {
            log_bytes: 400,
            log_entries: ENTRIES,
            takes_turns: false,
            ..SnapshotPolicy::default()
        };
        ReplicaLimits { snapshots, ..first_level() }
    }
}

fn write<S: Subject>(cluster: &mut Cluster<S>, numbers: std::ops::Range<u32>) {
    for number in numbers {
        cluster.propose(1, &format!("k{number:02}"));
        cluster.settle();
    }
}

/// Elects the first node and writes this many keys.
fn with_keys<S: Subject>(mut cluster: Cluster<S>, keys: u32) -> Cluster<S> {
    cluster.elect(1);
    write(&mut cluster, 0..keys);
    cluster
}

fn ask<S: Subject>(cluster: &mut Cluster<S>, node: u64, piece: BackupPiece) -> Answer {
    let request = cluster.ask(node, Request::Backup(piece));
    cluster.settle();
    cluster.answer(request).expect("it is answered").clone()
}

/// Requests the first part, again while the snapshot for it is pending.
fn begin<S: Subject>(cluster: &mut Cluster<S>, node: u64) -> SnapshotPart {
    let mut piece = BackupPiece::New;
    for _ in 0..3 {
        match ask(cluster, node, piece) {
            Answer::BackupPart(part) => return *part,
            Answer::BackupPending(index) => piece = BackupPiece::Covering(index),
            other => panic!("{other:?}"),
        }
    }
    panic!("the snapshot is not taken")
}

fn after(part: &SnapshotPart) -> BackupPiece {
    BackupPiece::At { last: part.meta.last, offset: part.offset + part.text.len() as u64 }
}

fn snapshot_of<S: Subject>(cluster: &Cluster<S>, node: u64) -> LogPoint {
    cluster.node(node).snapshot().map_or(LogPoint::ORIGIN, |meta| meta.last)
}

/// Returns the text of a backup, read to its end.
fn read_all<S: Subject>(cluster: &mut Cluster<S>, node: u64) -> String {
    let mut part = begin(cluster, node);
    let mut text = part.text.to_string();
    while part.end.is_none() {
        match ask(cluster, node, after(&part)) {
            Answer::BackupPart(next) => part = *next,
            other => panic!("{other:?}"),
        }
        assert_eq!(part.offset, text.len() as u64);
        text.push_str(&part.text);
    }
    let end = part.end.expect("it was looked at");
    assert_eq!((end.bytes, end.checksum), (text.len() as u64, Checksum(crc32fast::hash(text.as_bytes()))));
    text
}

/// The next backup of any node holds every acknowledged write, although no snapshot was due.
#[test]
fn a_backup_of_any_node_holds_what_was_acknowledged() {
    let mut cluster = with_keys(replicas(3), 12);
    for node in 1..=3 {
        assert_eq!(snapshot_of(&cluster, node), LogPoint::ORIGIN);
        let text = read_all(&mut cluster, node);
        for number in 0..12 {
            assert!(text.contains(&format!("\"k{number:02}\"")), "k{number:02} is missing in {text}");
        }
    }
}

/// A second backup uses the same snapshot, unless something was written in between.
#[test]
fn a_snapshot_is_taken_for_a_backup_only_when_the_last_one_lacks_something() {
    let mut cluster = with_keys(replicas(3), 3);
    read_all(&mut cluster, 2);
    let first = snapshot_of(&cluster, 2);
    read_all(&mut cluster, 2);
    assert_eq!(snapshot_of(&cluster, 2), first);
    write(&mut cluster, 3..4);
    assert!(read_all(&mut cluster, 2).contains("k03"));
    assert!(snapshot_of(&cluster, 2).index > first.index);
}

/// A node without a majority rejects a backup, because it cannot know what was acknowledged.
#[test]
fn a_node_without_a_majority_rejects_a_backup() {
    let mut cluster = with_keys(replicas(3), 3);
    read_all(&mut cluster, 2);
    cluster.isolate(2);
    cluster.elapse_ms(5_000);
    let answer = ask(&mut cluster, 2, BackupPiece::New);
    assert!(matches!(answer, Answer::Refused(RequestRefusal::NotLeader { .. })), "{answer:?}");
}

/// Under load, snapshots follow one another faster than a reader reads: the next one waits for the
/// reader, and is taken once the reader has reached the end.
#[test]
fn the_next_snapshot_waits_for_a_reader() {
    let mut cluster = with_keys(Cluster::<Snapshotting>::start(vec![Restored::default(); 3], 0, |it| it), 7);
    let mut part = begin(&mut cluster, 2);
    let last = part.meta.last;
    write(&mut cluster, 7..20);
    assert_eq!(snapshot_of(&cluster, 2), last, "it is being read");
    assert!(snapshot_of(&cluster, 3).index > last.index, "others go on");
    while part.end.is_none() {
        match ask(&mut cluster, 2, after(&part)) {
            Answer::BackupPart(next) => part = *next,
            other => panic!("{other:?}"),
        }
    }
    write(&mut cluster, 20..21);
    assert!(snapshot_of(&cluster, 2).index > last.index, "nobody reads it any more");
}

/// A reader that is gone must not keep the log growing forever: neither by silence, nor by repeated
/// requests, nor while too much is written.
#[test]
fn a_reader_does_not_hold_snapshots_back_forever() {
    let start = || with_keys(Cluster::<Snapshotting>::start(vec![Restored::default(); 3], 0, |it| it), 7);
    let begun = |cluster: &mut Cluster<Snapshotting>| {
        let part = begin(cluster, 2);
        assert!(part.end.is_none(), "there is more to read");
        write(cluster, 7..14);
        assert_eq!(snapshot_of(cluster, 2), part.meta.last);
        part
    };
    let is_gone = |cluster: &mut Cluster<Snapshotting>, part: &SnapshotPart| {
        ask(cluster, 2, after(part)) == Answer::Refused(RequestRefusal::BackupGone)
    };

    let mut silent = start();
    let part = begun(&mut silent);
    silent.elapse_ms(u64::try_from(BACKUP_TIMEOUT.as_millis()).expect("seconds") + 1_000);
    assert!(is_gone(&mut silent, &part));

    let mut stubborn = start();
    let part = begun(&mut stubborn);
    let patience = u64::try_from(BACKUP_TIMEOUT.as_millis()).expect("seconds") / 2;
    let rounds = u64::try_from(BACKUP_HOLD_MAX.as_millis()).expect("minutes") / patience;
    let went = (0..=rounds).find(|_| {
        stubborn.elapse_ms(patience);
        is_gone(&mut stubborn, &part)
    });
    assert!(went.is_some_and(|round| round + 2 > rounds), "after {went:?} of {rounds} rounds");

    let mut busy = start();
    let part = begun(&mut busy);
    write(&mut busy, 14..100);
    assert!(is_gone(&mut busy, &part));
}

/// A piece of another snapshot, or at an offset past the end, is rejected. An index that will not
/// be reached stays pending, and blocks no other backup.
#[test]
fn an_unavailable_piece_is_rejected_or_pending() {
    let mut cluster = with_keys(replicas(3), 3);
    let part = begin(&mut cluster, 2);
    let last = part.meta.last;
    let other = LogPoint { checksum: Checksum(last.checksum.0 ^ 1), ..last };
    let refused = Answer::Refused(RequestRefusal::BackupGone);
    assert_eq!(ask(&mut cluster, 2, BackupPiece::At { last: other, offset: 0 }), refused);
    assert_eq!(ask(&mut cluster, 2, BackupPiece::At { last, offset: 1_000_000 }), refused);
    let never = LogIndex(u64::MAX);
    assert_eq!(ask(&mut cluster, 2, BackupPiece::Covering(never)), Answer::BackupPending(never));
    write(&mut cluster, 3..5);
    assert!(read_all(&mut cluster, 2).contains("k04"), "and it stands in nobody's way");
}
