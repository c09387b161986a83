//! One suite over both executors: what they leave on disk is what the disk in memory has.

use std::fs;

use coracle_core::raft::{LogPoint, NodeId};
use futures_lite::future::block_on;

use super::*;
use crate::testing::{Disk, LOG, META, NODE, RandomNode, entries_after, identities};
use crate::{FileKind, FileName, NodeFiles, SyncPolicy, asynchronous, blocking, recover, survey};

enum AnyFolder {
    Blocking(blocking::Folder),
    Asynchronous(Box<asynchronous::Folder>),
}

impl AnyFolder {
    fn run(&mut self, ops: &[FileOp]) -> Result<(), FileError> {
        match self {
            Self::Blocking(folder) => folder.run(ops),
            Self::Asynchronous(folder) => block_on(folder.run(ops)),
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

/// Restarts, cuts, terms, groups of any size: after each group the files are the same as in the model.
#[test]
fn both_leave_what_the_model_has() {
    with_both(|_, open| {
        for sync in [SyncPolicy::Always, SyncPolicy::Never] {
            let mut disk = Disk::default();
            let mut folder = open();
            let first = survey(vec![NodeFiles::default()], &identities(1), sync).unwrap();
            disk.run(&first.creation);
            folder.run(&first.creation).unwrap();
            let mut planner = first.nodes.into_iter().next().unwrap().planner;
            let mut node = RandomNode::new(11);
            for round in 0..40 {
                let ops = planner.plan(&node.group().0);
                node.report();
                disk.run(&ops);
                folder.run(&ops).unwrap();
                assert_eq!(folder.read(NODE).unwrap(), disk.files(NODE), "round {round}");
                if round % 8 == 7 {
                    folder = open();
                    let again = recover(NODE, &folder.read(NODE).unwrap(), sync).unwrap();
                    disk.run(&again.repairs);
                    folder.run(&again.repairs).unwrap();
                    assert_eq!(folder.read(NODE).unwrap(), disk.files(NODE), "restart after {round}");
                    planner = again.planner;
                }
            }
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
        // The same folder goes on behind the cut.
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

/// The errors that a test can cause without breaking a disk; each names what was tried, and with what.
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
        let error = open().run(&[FileOp::Append { file: LOG, entries }]).unwrap_err();
        assert_eq!(error.operation, Operation::Append);
        assert_eq!(error.cause.kind(), io::ErrorKind::StorageFull);
    });
}
