//! Recovery from snapshots and the logs behind them.

use coracle_core::raft::{Compaction, Configuration, LogChange, Persist, SnapshotMeta};

use super::*;
use crate::snapshot::{SnapshotFile, SnapshotHeader};
use crate::testing::{NODE, SNAPSHOT, SNAPSHOT_TEMPORARY, content, cut, parts, publish, snapshot_meta};

const LOG_TEMPORARY: FileName = FileName::new(NODE, FileKind::LogTemporary);

fn other(index: u64, term: u64) -> LogPoint {
    LogPoint { index: LogIndex(index), term: Term(term), checksum: Checksum(0xabc) }
}

/// A used node with a snapshot up to `last` whose log was not rewritten.
fn with_snapshot(last: LogPoint) -> (Disk, Entries) {
    let (mut disk, entries) = used_node();
    let mut snapshots = recover_from(&disk).unwrap().snapshots;
    publish(&mut disk, &mut snapshots, &snapshot_meta(last), &content(1, 9));
    (disk, entries)
}

/// A used node whose log was rewritten behind a snapshot up to entry 3.
fn compacted_node() -> (Disk, Entries) {
    let entries = used_node().1;
    let (mut disk, _) = with_snapshot(entries.point_at(LogIndex(3)).unwrap());
    let kept = entries.starting_at(LogIndex(4)).unwrap();
    let compaction = Compaction { after: kept.before(), entries: vec![kept] };
    let persist = Persist { log: LogChange::Compact(compaction), ..append(9, Vec::new()) };
    let ops = recover_from(&disk).unwrap().planner.plan(&[persist]);
    disk.run(&ops);
    (disk, entries)
}

/// Carries the repairs out, and then loses every change that was not synced.
fn repaired(disk: &Disk, recovery: &Recovery) -> Disk {
    let mut disk = disk.clone();
    disk.run(&recovery.repairs);
    disk.crashed(|_| 0)
}

#[test]
fn a_log_that_holds_the_end_of_the_snapshot_stays_as_it_is() {
    let entries = used_node().1;
    for index in 1..=4 {
        let last = entries.point_at(LogIndex(index)).unwrap();
        let (disk, _) = with_snapshot(last);
        let recovery = recover_from(&disk).unwrap();
        let snapshot = recovery.restored.snapshot.clone().unwrap();
        assert_eq!((snapshot.meta, &*snapshot.text), (snapshot_meta(last), content(1, 9).as_str()));
        let state = State::of(&recovery.restored);
        let log: String = recovery.restored.log.iter().map(Entries::text).collect();
        assert_eq!((recovery.restored.log_start, log.as_str()), (LogPoint::ORIGIN, entries.text()));
        assert_eq!(recovery.notices, []);
        let repaired = repaired(&disk, &recovery);
        assert_eq!(repaired.content(LOG), disk.content(LOG));
        assert_eq!(State::of(&recover_from(&repaired).unwrap().restored), state);
    }
}

#[test]
fn a_log_behind_a_snapshot_goes_on_from_it() {
    let (disk, entries) = compacted_node();
    let recovery = recover_from(&disk).unwrap();
    let kept = entries.starting_at(LogIndex(4)).unwrap();
    let state = State::of(&recovery.restored);
    assert_eq!((state.start, state.log.as_str()), (kept.before(), kept.text()));
    assert_eq!(state.snapshot, Some(kept.before()));
    let mut disk = repaired(&disk, &recovery);
    let mut planner = recover_from(&disk).unwrap().planner;
    let next = entries_after(entries.last(), 2, &[PUT]);
    let ops = planner.plan(&[cut(1, 4, Vec::new())]);
    disk.run(&ops);
    assert_eq!(
        State::of(&recover_from(&disk).unwrap().restored),
        State { log: String::new(), ..state.clone() }
    );
    disk.run(&planner.plan(&[append(2, vec![kept.clone(), next.clone()])]));
    disk.run(&planner.close());
    let log = format!("{}{}", kept.text(), next.text());
    assert_eq!(State::of(&recover_from(&disk).unwrap().restored), State { log, ..state });
    assert_eq!(
        Meta::decode(disk.content(META)).unwrap().floor,
        kept.before(),
        "what a snapshot covers is committed"
    );
}

/// A leader's snapshot was renamed and then the power failed: the log does not contain its end,
/// because it is too short or that of a deposed leader.
#[test]
fn a_log_without_the_end_of_the_snapshot_is_rewritten() {
    for last in [other(9, 2), other(5, 1), other(4, 2), other(4, 1), other(3, 2)] {
        let (disk, _) = with_snapshot(last);
        let recovery = recover_from(&disk).unwrap();
        let state = State::of(&recovery.restored);
        assert_eq!((state.snapshot, state.start, state.log.as_str()), (Some(last), last, ""));
        let notice = Notice::LogMadeAnew { log: LOG, snapshot: SNAPSHOT, after: last.index };
        assert_eq!(recovery.notices, [notice]);
        for done in 0..=recovery.repairs.len() {
            let mut interrupted = disk.clone();
            interrupted.run(&recovery.repairs[..done]);
            for crashed in
                [interrupted.clone(), interrupted.crashed(|_| 0), interrupted.crashed(|steps| steps)]
            {
                assert_eq!(State::of(&recover_from(&crashed).unwrap().restored), state, "{done} repairs");
            }
        }
        let mut disk = repaired(&disk, &recovery);
        let again = recover_from(&disk).unwrap();
        assert_eq!(again.notices, []);
        assert_eq!(disk.content(LOG), header_with(|header| header.after = last));
        // The planner starts from the new log, too.
        let next = entries_after(last, 2, &[PUT]);
        let mut planner = recovery.planner;
        disk.run(&planner.plan(&[append(1, vec![next.clone()])]));
        assert_eq!(State::of(&recover_from(&disk).unwrap().restored).log, next.text());
    }
    let said = Notice::LogMadeAnew { log: LOG, snapshot: SNAPSHOT, after: LogIndex(9) }.to_string();
    assert!(said.starts_with("log00.txt does not contain entry 9, the end of snap0.txt: "), "{said}");
}

/// A program that was killed, or that never syncs, leaves a snapshot that is in memory only.
#[test]
fn the_snapshot_is_on_disk_before_the_log_depends_on_it() {
    for last in [used_node().1.last(), other(9, 2)] {
        let (mut disk, _) = used_node();
        let mut snapshots = recover(NODE, &disk.files(NODE), SyncPolicy::Never).unwrap().snapshots;
        publish(&mut disk, &mut snapshots, &snapshot_meta(last), &content(1, 9));
        assert!(disk.unsynced_bytes(SNAPSHOT) > 0);
        let recovery = recover_from(&disk).unwrap();
        assert_eq!(recovery.repairs[..2], [FileOp::Sync { file: SNAPSHOT }, FileOp::SyncFolder]);
        let restored = recover_from(&repaired(&disk, &recovery)).unwrap().restored;
        assert_eq!(State::of(&restored), State::of(&recovery.restored));
    }
}

#[test]
fn without_sync_the_log_is_rewritten_all_the_same() {
    let (disk, _) = with_snapshot(other(9, 2));
    let recovery = recover(NODE, &disk.files(NODE), SyncPolicy::Never).unwrap();
    let bytes = header_with(|header| header.after = other(9, 2));
    let create = FileOp::Create { file: LOG_TEMPORARY, bytes };
    assert_eq!(recovery.repairs, [create, FileOp::Rename { from: LOG_TEMPORARY, to: LOG }]);
}

#[test]
fn a_torn_tail_is_kept_also_when_the_log_is_rewritten() {
    let (mut disk, _) = with_snapshot(other(9, 2));
    let whole = disk.content(LOG).to_vec();
    disk.replace(LOG, [whole.as_slice(), b"{\"index\":5,\"te"].concat());
    let recovery = recover_from(&disk).unwrap();
    assert!(matches!(recovery.notices[..], [Notice::TornTail { .. }, Notice::LogMadeAnew { .. }]));
    let disk = repaired(&disk, &recovery);
    assert_eq!(disk.content(FileName::new(NODE, FileKind::LogCut)), b"{\"index\":5,\"te");
    assert_eq!(disk.content(LOG), header_with(|header| header.after = other(9, 2)));
}

/// The metadata says that entries 1 and 2 are committed, so no snapshot may end there with another
/// entry.
#[test]
fn a_snapshot_of_another_history_is_refused() {
    for index in [1, 2] {
        let (disk, _) = with_snapshot(other(index, 1));
        let error = recover_from(&disk).unwrap_err();
        let expected =
            RecoverError::OtherSnapshot { snapshot: SNAPSHOT, witness: LOG, last: LogIndex(index) };
        assert_eq!(error, expected);
    }
    let (disk, entries) = compacted_node();
    for last in [other(3, 1), LogPoint { term: Term(2), ..entries.point_at(LogIndex(3)).unwrap() }] {
        let error = refusal(&disk, SNAPSHOT, file_with(|header| header.meta.last = last));
        let expected = RecoverError::OtherSnapshot { snapshot: SNAPSHOT, witness: LOG, last: LogIndex(3) };
        assert_eq!(error, expected);
    }
}

#[test]
fn a_log_without_the_snapshot_before_it_is_refused_by_name() {
    let (mut disk, entries) = compacted_node();
    let older = entries.point_at(LogIndex(2)).unwrap();
    let error = refusal(&disk, SNAPSHOT, file_with(|header| header.meta.last = older));
    let (after, reaches) = (LogIndex(3), LogIndex(2));
    assert_eq!(error, RecoverError::OldSnapshot { log: LOG, snapshot: SNAPSHOT, after, reaches });
    disk.remove(SNAPSHOT);
    let error = recover_from(&disk).unwrap_err();
    assert_eq!(error, RecoverError::NoSnapshot { log: LOG, snapshot: SNAPSHOT, after });
    assert_eq!(error.to_string(), "snap0.txt is missing, and log00.txt starts only after entry 3");
    assert!(
        error.advice().starts_with("The node may have voted or acknowledged entries"),
        "{}",
        error.advice()
    );
}

/// A damaged snapshot is refused even if the log still holds every entry that it covers, because a
/// disk that changed one byte may change more.
#[test]
fn a_snapshot_that_is_not_whole_ends_the_start() {
    let entries = used_node().1;
    for (disk, _) in [with_snapshot(entries.last()), with_snapshot(other(9, 2)), compacted_node()] {
        let good = disk.content(SNAPSHOT).to_vec();
        for at in 0..good.len() {
            let mut flipped = good.clone();
            flipped[at] ^= 1 << (at % 8);
            for bytes in [flipped, good[..at].to_vec()] {
                let error = refusal(&disk, SNAPSHOT, bytes);
                assert!(matches!(error, RecoverError::Snapshot { file: SNAPSHOT, .. }), "byte {at}: {error}");
                assert!(error.to_string().starts_with("snap0.txt: "), "{error}");
                assert!(error.advice().starts_with("Nothing was changed."), "{error}");
            }
        }
    }
}

/// A snapshot like that of [`compacted_node`], except for its header.
fn file_with(change: impl FnOnce(&mut SnapshotHeader)) -> Vec<u8> {
    let (disk, _) = compacted_node();
    let bytes = disk.content(SNAPSHOT);
    let mut header = SnapshotFile::decode(bytes).unwrap().header;
    let rest = bytes[header.encode().len()..].to_vec();
    change(&mut header);
    [header.encode(), rest].concat()
}

#[test]
fn a_snapshot_of_another_owner_is_refused() {
    let (disk, _) = compacted_node();
    let error = refusal(&disk, SNAPSHOT, file_with(|header| header.node = NodeId(2)));
    assert_eq!(error, RecoverError::OfAnotherNode { file: SNAPSHOT, owner: NodeId(2) });
    for error in [
        refusal(&disk, SNAPSHOT, file_with(|header| header.cluster = ClusterId(1))),
        refusal(&disk, SNAPSHOT, file_with(|header| header.incarnation = Incarnation(1))),
    ] {
        assert_eq!(error, RecoverError::DifferentOwners { one: LOG, other: SNAPSHOT });
    }
    let voters = Voters::new([NODE, NodeId(4)]).unwrap();
    let meta = |header: &mut SnapshotHeader| {
        header.meta =
            SnapshotMeta { configuration: Configuration::of_voters(voters.clone()), ..header.meta.clone() }
    };
    let mut changed = disk.clone();
    changed.replace(SNAPSHOT, file_with(meta));
    assert_eq!(
        recover_from(&changed).unwrap().restored.snapshot.unwrap().meta.configuration.voters(),
        &voters
    );
}

#[test]
fn a_snapshot_of_a_term_that_the_metadata_does_not_know_is_refused() {
    let (disk, _) = with_snapshot(other(9, 3));
    let error = recover_from(&disk).unwrap_err();
    let old = RecoverError::OldMeta { file: SNAPSHOT, meta: META, found: Term(3), current: Term(2) };
    assert_eq!(error, old);
}

/// Entries that the metadata says are committed must be in the log even if a snapshot covers them:
/// no crash loses them.
#[test]
fn lost_entries_are_reported_whatever_the_snapshot_holds() {
    let (disk, _) = with_snapshot(other(9, 2));
    let error = refusal(&disk, LOG, header_with(|_| {}));
    assert!(matches!(error, RecoverError::LostEntries { .. }), "{error}");
}

#[test]
fn temporary_files_do_not_count() {
    let (disk, _) = compacted_node();
    let expected = recover_from(&disk).unwrap();
    let mut littered = disk.clone();
    for file in [SNAPSHOT_TEMPORARY, LOG_TEMPORARY, FileName::new(NODE, FileKind::MetaTemporary)] {
        littered.replace(file, b"{\"torn".to_vec());
    }
    let found = recover_from(&littered).unwrap();
    assert_eq!(State::of(&found.restored), State::of(&expected.restored));
    assert_eq!(found.repairs, expected.repairs);
    // They do not block the next snapshot either.
    let mut snapshots = found.snapshots;
    publish(&mut littered, &mut snapshots, &snapshot_meta(other(9, 2)), &content(4, 2));
    let anew = recover_from(&littered).unwrap();
    assert_eq!(State::of(&anew.restored).start, other(9, 2));
    littered.run(&anew.repairs);
    assert_eq!(State::of(&recover_from(&littered).unwrap().restored).start, other(9, 2));
}

#[test]
#[should_panic(expected = "a snapshot up to 2 after one up to 3")]
fn a_restarted_node_knows_its_snapshot() {
    let mut snapshots = recover_from(&compacted_node().0).unwrap().snapshots;
    drop(snapshots.plan_part(&parts(&snapshot_meta(other(2, 1)), "", 1)[0]));
}
