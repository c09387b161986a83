//! One test suite for both executors: they leave the same files on disk as the model of a disk in
//! memory.

use std::fs;

use coracle_core::raft::{Checksum, LogIndex, LogPoint, NodeId, SnapshotPart, Term};
use futures_lite::future::block_on;

use super::*;
use crate::files::replace_meta;
use crate::testing::{
    Disk, LOG, META, NODE, RandomNode, SNAPSHOT, SNAPSHOT_TEMPORARY, content, entries_after, identities,
    parts, snapshot_meta,
};
use crate::{
    FileKind, FileName, NodeFiles, PartWanted, ReadPartError, SyncPolicy, asynchronous, blocking, recover,
    survey,
};

enum AnyFolder {
    Blocking(blocking::Folder),
    Asynchronous(Box<asynchronous::Folder>),
}

impl AnyFolder {
    fn run(&mut self, ops: &[FileOp]) -> Result<(), FileError> {
        match self {
            Self::Blocking(folder) => folder.run(ops),
            Self::Asynchronous(folder) => block_on(folder.run(ops.to_vec())),
        }
    }

    fn read_back(&self, file: FileName) -> Result<Vec<u8>, FileError> {
        match self {
            Self::Blocking(folder) => folder.read_back(file),
            Self::Asynchronous(folder) => block_on(folder.read_back(file)),
        }
    }

    fn read_part(&self, wanted: PartWanted) -> Result<Option<SnapshotPart>, ReadPartError> {
        match self {
            Self::Blocking(folder) => folder.read_part(NODE, wanted),
            Self::Asynchronous(folder) => block_on(folder.read_part(NODE, wanted)),
        }
    }

    fn read(&self, node: NodeId) -> Result<NodeFiles, FileError> {
        match self {
            Self::Blocking(folder) => folder.read(node),
            Self::Asynchronous(folder) => block_on(folder.read(node)),
        }
    }
}

fn with_both(test: impl Fn(&Path, &mut dyn FnMut() -> AnyFolder)) {
    let place = tempfile::tempdir().unwrap();
    test(place.path(), &mut || AnyFolder::Blocking(blocking::Folder::new(place.path())));
    let place = tempfile::tempdir().unwrap();
    test(place.path(), &mut || AnyFolder::Asynchronous(Box::new(asynchronous::Folder::new(place.path()))));
}

/// Restarts, cuts, terms and groups of any size: after each group the files are the same as in the
/// model.
#[test]
fn both_executors_leave_the_same_files_as_the_model() {
    with_both(|place, open| {
        for sync in [SyncPolicy::Always, SyncPolicy::Never] {
            let mut disk = Disk::default();
            let mut folder = open();
            let first = survey(vec![NodeFiles::default()], &identities(1), sync).unwrap();
            disk.run(&first.creation);
            folder.run(&first.creation).unwrap();
            let start = first.nodes.into_iter().next().unwrap();
            let (mut planner, mut snapshots) = (start.planner, start.snapshots);
            let mut node = RandomNode::new(11);
            for round in 0..40 {
                let ops = planner.plan(&node.group().0);
                node.report();
                disk.run(&ops);
                folder.run(&ops).unwrap();
                planner.set_renewal_bytes(1);
                let ops = planner.renew();
                disk.run(&ops);
                folder.run(&ops).unwrap();
                if let Some(meta) = node.snapshot() {
                    for part in parts(&meta, &content(round, 9), 100) {
                        let ops = snapshots.plan_part(&part);
                        disk.run(&ops);
                        folder.run(&ops).unwrap();
                    }
                    let ops = snapshots.publish(&folder.read_back(SNAPSHOT_TEMPORARY).unwrap()).unwrap();
                    disk.run(&ops);
                    folder.run(&ops).unwrap();
                }
                assert_eq!(folder.read(NODE).unwrap(), disk.files(NODE), "round {round}");
                if round % 8 == 7 {
                    folder = open();
                    let again = recover(NODE, &folder.read(NODE).unwrap(), sync).unwrap();
                    disk.run(&again.repairs);
                    folder.run(&again.repairs).unwrap();
                    assert_eq!(folder.read(NODE).unwrap(), disk.files(NODE), "restart after {round}");
                    (planner, snapshots) = (again.planner, again.snapshots);
                }
            }
            fs::remove_file(place.join("snap0.txt")).unwrap();
        }
    });
}

/// The last entry of the snapshots in these tests.
const SNAPSHOT_END: LogPoint = LogPoint { index: LogIndex(1), term: Term(1), checksum: Checksum(7) };

/// The log is written in the midst of a snapshot, through the same folder or another one.
#[test]
fn a_snapshot_and_the_log_are_written_side_by_side() {
    with_both(|place, open| {
        for sync in [SyncPolicy::Always, SyncPolicy::Never] {
            for has_two_folders in [true, false] {
                let first = survey(vec![NodeFiles::default()], &identities(1), sync).unwrap();
                let mut start = first.nodes.into_iter().next().unwrap();
                let (mut folder, mut other) = (open(), has_two_folders.then(&mut *open));
                folder.run(&first.creation).unwrap();
                let mut expected = fs::read_to_string(place.join("log00.txt")).unwrap();
                let mut last = LogPoint::ORIGIN;
                let text = content(8, 500);
                let meta = snapshot_meta(SNAPSHOT_END);
                for part in parts(&meta, &text, 1000) {
                    let ops = start.snapshots.plan_part(&part);
                    other.as_mut().unwrap_or(&mut folder).run(&ops).unwrap();
                    let run = entries_after(last, 1, &["\"op\":\"NOOP\""]);
                    last = run.last();
                    expected.push_str(run.text());
                    let append = FileOp::Append { file: LOG, entries: vec![run] };
                    folder.run(&[append, FileOp::Sync { file: LOG }]).unwrap();
                }
                let bytes = folder.read_back(SNAPSHOT_TEMPORARY).unwrap();
                let ops = start.snapshots.publish(&bytes).unwrap();
                other.as_mut().unwrap_or(&mut folder).run(&ops).unwrap();
                assert_eq!(fs::read_to_string(place.join("log00.txt")).unwrap(), expected);
                assert_eq!(fs::read(place.join("snap0.txt")).unwrap(), bytes);
                assert!(!place.join("snap0.txt.tmp").exists());
                fs::remove_file(place.join("snap0.txt")).unwrap();
            }
        }
    });
}

#[test]
fn a_published_snapshot_is_read_in_parts() {
    with_both(|_, open| {
        let mut planner =
            crate::SnapshotPlanner::new(identities(1).remove(0), LogPoint::ORIGIN.index, SyncPolicy::Always);
        let mut folder = open();
        let wanted = PartWanted { last: SNAPSHOT_END, offset: 0, bytes_max: 700 };
        assert_eq!(folder.read_part(wanted).unwrap(), None, "there is none yet");
        let text = content(8, 200);
        for part in parts(&snapshot_meta(SNAPSHOT_END), &text, 1000) {
            folder.run(&planner.plan_part(&part)).unwrap();
            assert_eq!(folder.read_part(wanted).unwrap(), None, "it is not published yet");
        }
        let ops = planner.publish(&folder.read_back(SNAPSHOT_TEMPORARY).unwrap()).unwrap();
        folder.run(&ops).unwrap();
        let mut found = String::new();
        loop {
            let offset = found.len() as u64;
            let part = folder.read_part(PartWanted { offset, ..wanted }).unwrap().unwrap();
            assert!(part.text.len() <= 700);
            found.push_str(&part.text);
            if part.end.is_some() {
                break;
            }
        }
        assert_eq!(found, text);
        let whole = folder.read_back(SNAPSHOT).unwrap();
        folder.run(&[FileOp::Truncate { file: SNAPSHOT, len: whole.len() as u64 - 1 }]).unwrap();
        let error = folder.read_part(wanted).unwrap_err();
        assert!(error.to_string().starts_with("snap0.txt is damaged: its last line"), "{error}");
    });
}

/// The rename ends the log that was open until then: appended lines belong to the file that
/// replaced it.
#[test]
fn a_file_that_takes_the_place_of_the_open_log_is_the_log_from_then_on() {
    with_both(|place, open| {
        let temporary = FileName::new(NODE, FileKind::LogTemporary);
        let text = |text: &str| FileOp::AppendText { file: LOG, text: text.into() };
        for syncs in [true, false] {
            let mut folder = open();
            folder.run(&[FileOp::Create { file: LOG, bytes: b"old\n".to_vec() }]).unwrap();
            folder.run(&[FileOp::Sync { file: LOG }, text("more\n")]).unwrap();
            let mut ops = vec![
                FileOp::Create { file: temporary, bytes: b"new\n".to_vec() },
                FileOp::AppendText { file: temporary, text: "kept\n".into() },
            ];
            ops.extend(syncs.then_some(FileOp::Sync { file: temporary }));
            ops.extend([FileOp::Rename { from: temporary, to: LOG }, text("next\n")]);
            folder.run(&ops).unwrap();
            assert_eq!(fs::read_to_string(place.join("log00.txt")).unwrap(), "new\nkept\nnext\n");
            assert!(!place.join("log00.txt.tmp").exists());
        }
    });
}

#[test]
fn a_torn_tail_is_moved_beside_the_log() {
    with_both(|place, open| {
        let mut disk = Disk::default();
        let first = survey(vec![disk.files(NODE)], &identities(1), SyncPolicy::Always).unwrap();
        open().run(&first.creation).unwrap();
        disk.run(&first.creation);
        let whole = fs::read(place.join("log00.txt")).unwrap();
        let torn = [whole.as_slice(), b"{\"index\":1,\"te"].concat();
        fs::write(place.join("log00.txt"), &torn).unwrap();
        let mut folder = open();
        let recovery = recover(NODE, &folder.read(NODE).unwrap(), SyncPolicy::Always).unwrap();
        folder.run(&recovery.repairs).unwrap();
        assert_eq!(fs::read(place.join("log00.txt")).unwrap(), whole);
        assert_eq!(fs::read(place.join("log00.txt.cut")).unwrap(), b"{\"index\":1,\"te");
        assert!(!place.join("meta0.txt.tmp").exists());
        // The same folder can append after the cut.
        let entries = entries_after(LogPoint::ORIGIN, 1, &["\"op\":\"NOOP\""]);
        folder.run(&[FileOp::Append { file: LOG, entries: vec![entries.clone()] }]).unwrap();
        let expected = [whole.as_slice(), entries.text().as_bytes()].concat();
        assert_eq!(fs::read(place.join("log00.txt")).unwrap(), expected);
    });
}

#[test]
fn an_append_of_many_runs_arrives_in_order() {
    with_both(|place, open| {
        let value = "x".repeat(70_000);
        let payload = format!("\"op\":\"PUT\",\"key\":\"a\",\"value\":\"{value}\"");
        let mut last = LogPoint::ORIGIN;
        let mut runs = Vec::new();
        for _ in 0..60 {
            let run = entries_after(last, 1, &[&payload, "\"op\":\"NOOP\""]);
            last = run.last();
            runs.push(run);
        }
        let mut folder = open();
        folder.run(&[FileOp::Create { file: LOG, bytes: b"header\n".to_vec() }]).unwrap();
        folder.run(&[FileOp::Append { file: LOG, entries: runs.clone() }]).unwrap();
        folder.run(&[FileOp::Append { file: LOG, entries: vec![runs[0].clone()] }]).unwrap();
        folder.run(&[FileOp::Sync { file: LOG }]).unwrap();
        let mut expected = "header\n".to_owned();
        runs.iter().chain([&runs[0]]).for_each(|run| expected.push_str(run.text()));
        assert!(fs::read_to_string(place.join("log00.txt")).unwrap() == expected);
    });
}

/// The errors that a test can cause without a broken disk; each names the operation and the file.
#[test]
fn a_failure_names_operation_and_file_and_ends_the_list() {
    with_both(|place, open| {
        let bytes = || b"x".to_vec();
        let entries = vec![entries_after(LogPoint::ORIGIN, 1, &["\"op\":\"NOOP\""])];
        fs::create_dir(place.join("meta1.txt")).unwrap();
        let directory = FileName::new(NodeId(1), FileKind::Meta);
        for (op, said) in [
            (FileOp::Append { file: LOG, entries }, "cannot append to "),
            (FileOp::Overwrite { file: LOG, at: 0, bytes: bytes() }, "cannot overwrite the end of "),
            (FileOp::Truncate { file: LOG, len: 0 }, "cannot truncate "),
            (FileOp::Sync { file: LOG }, "cannot sync "),
            (FileOp::Rename { from: META, to: LOG }, "cannot rename "),
            (FileOp::Remove { file: LOG }, "cannot remove "),
            (FileOp::Create { file: directory, bytes: bytes() }, "cannot create "),
        ] {
            let mut folder = open();
            let after = FileName::new(NodeId(9), FileKind::Meta);
            let error = folder.run(&[op, FileOp::Create { file: after, bytes: bytes() }]).unwrap_err();
            assert!(error.to_string().starts_with(said), "{error}");
            assert!(error.to_string().contains(&place.display().to_string()), "{error}");
            assert!(!place.join("meta9.txt").exists(), "nothing is done after an error");
            let again = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| folder.run(&[])));
            assert!(again.is_err(), "a folder is not used after an error");
        }
        let error = open().read(NodeId(1)).unwrap_err();
        assert!(error.to_string().starts_with("cannot read "), "{error}");
    });
}

#[test]
fn files_that_are_not_there_read_as_none() {
    with_both(|_, open| assert_eq!(open().read(NodeId(5)).unwrap(), NodeFiles::default()));
}

/// A disk that is full: `/dev/full` takes no byte, on Linux.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_an_error_of_the_write() {
    with_both(|place, open| {
        std::os::unix::fs::symlink("/dev/full", place.join("log00.txt")).unwrap();
        let entries = vec![entries_after(LogPoint::ORIGIN, 1, &["\"op\":\"NOOP\""])];
        // More than fits into any buffer on the way to the disk, so that the write itself fails.
        let text = "x".repeat(20 << 20).into();
        for op in [FileOp::Append { file: LOG, entries }, FileOp::AppendText { file: LOG, text }] {
            let error = open().run(&[op]).unwrap_err();
            assert_eq!(error.operation, Operation::Append);
            assert_eq!(error.cause.kind(), io::ErrorKind::StorageFull);
            let room = error.room.expect("there was too little room");
            assert!(room.need > 0 && room.free.is_some(), "{room:?}");
            let told = format!(": it needs {} bytes, and {} are free", room.need, room.free.unwrap());
            assert!(error.to_string().ends_with(&told), "{error}");
        }
    });
}

/// A start goes on without a copy of the bytes that it cuts off if there is no room for it, but
/// without no other file.
#[test]
fn only_what_was_cut_off_may_find_no_room() {
    let cut = FileName::new(NODE, FileKind::LogCut);
    let ops = [FileOp::Create { file: cut, bytes: b"torn".to_vec() }, FileOp::Sync { file: cut }];
    for op in &ops {
        assert_eq!(not_kept(&ops, FileError::without_room(op)).unwrap(), cut);
        let ill = FileError { cause: io::ErrorKind::Other.into(), ..FileError::without_room(op) };
        assert!(not_kept(&ops, ill).is_err(), "a disk that is ill is another matter");
    }
    let rest = [FileOp::SyncFolder, FileOp::Truncate { file: LOG, len: 0 }, FileOp::Sync { file: LOG }];
    for op in &rest {
        assert!(not_kept(&rest, FileError::without_room(op)).is_err(), "{op:?}");
        assert!(not_kept(&ops, FileError::without_room(op)).is_err(), "{op:?}");
    }
}

/// A link or leftover file with the name of a new file is replaced, and the target of the link is
/// not written to.
#[test]
fn both_create_a_file_in_the_place_of_a_link() {
    with_both(|place, open| {
        let outside = tempfile::tempdir().unwrap();
        let (linked, named_twice) = (outside.path().join("linked"), outside.path().join("named twice"));
        for precious in [&linked, &named_twice] {
            fs::write(precious, "precious").unwrap();
        }
        let (temporary, meta) = (
            place.join(FileName::new(NODE, FileKind::MetaTemporary).to_string()),
            place.join(META.to_string()),
        );
        let in_the_way: [&dyn Fn(); 4] = [
            &|| std::os::unix::fs::symlink(&linked, &temporary).unwrap(),
            &|| std::os::unix::fs::symlink(outside.path().join("nowhere"), &temporary).unwrap(),
            &|| fs::hard_link(&named_twice, &temporary).unwrap(),
            &|| fs::write(&temporary, "a left-over that is longer than what is written").unwrap(),
        ];
        let mut folder = open();
        for (round, obstruct) in in_the_way.iter().enumerate() {
            obstruct();
            let text = format!("round {round}");
            folder.run(&replace_meta(NODE, text.clone().into_bytes())).unwrap();
            assert_eq!(fs::read_to_string(&meta).unwrap(), text);
            assert!(fs::symlink_metadata(&meta).unwrap().is_file(), "round {round}");
        }
        assert!(!outside.path().join("nowhere").exists());
        for precious in [&linked, &named_twice] {
            assert_eq!(fs::read_to_string(precious).unwrap(), "precious");
        }
    });
}
