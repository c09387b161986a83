//! Snapshot work: which file operation of a node's snapshots comes next, and when the work rests.
//!
//! ```text
//! Write(part) ─► Run ─► Rest ─► Report            a part that is not the last
//! Write(part) ─► Run ─► Rest ─► Verify ─► Run ─► Report    the last part: read back, then renamed
//! Read        ─► Read ─► Report
//! ```
//!
//! Snapshots are written beside the log, not through its queue: a snapshot is large and nobody
//! waits for it, while every put waits for the log's next sync. After each part the work rests, so
//! that the log has most of a disk that they share. There are never many orders: the replica asks
//! for the next part of a snapshot when the one before is written, and for one part at a time per
//! follower.
//!
//! Deliberately not here: when a snapshot is due, and what one that arrived is worth. That is the
//! replica's business; and what is checked before one counts, the planner's. After a task that
//! failed a runtime never asks for the next one: a snapshot that is half written by then is never
//! used, and the next one takes its place.

use std::collections::VecDeque;
use std::time::Duration;

use coracle_core::Input;
use coracle_core::host::{SnapshotOrder, snapshot_written};
use coracle_core::raft::{LogPoint, NodeId, SnapshotPart};

use crate::execution::FileError;
use crate::files::{FileName, FileOp};
use crate::medium::DiskError;
use crate::snapshot::{PartWanted, SnapshotPlanner, rest_after};

/// What is to be done next for a node's snapshots.
#[derive(Debug)]
pub enum SnapshotTask {
    /// Something with files.
    Files(FileTask),
    /// Leave the disk to others for so long.
    Rest(Duration),
    /// Hand this to the node.
    Report(Input),
}

/// What is to be done next with the files of a node's snapshots.
#[derive(Debug)]
pub enum FileTask {
    /// Carry these operations out, in order; then [`SnapshotWork::ran`].
    Run(Vec<FileOp>),
    /// Read the file back and check it, possibly on another thread; then
    /// [`SnapshotWork::verified`].
    Verify(SnapshotCheck),
    /// Read this part of the node's snapshot; then [`SnapshotWork::was_read`].
    Read(NodeId, PartWanted),
}

/// The snapshot work of one node. See the module.
#[derive(Debug)]
pub struct SnapshotWork {
    planner: SnapshotPlanner,
    /// The most bytes of content that one read gives.
    part_bytes: usize,
    orders: VecDeque<SnapshotOrder>,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// The next order is due.
    Idle,
    /// The operations of a part are being carried out.
    Writing(Part),
    /// A rest is due.
    Written(Part, Duration),
    /// The end of the part is due.
    Rested(Part),
    /// The whole snapshot is being read back.
    Verifying(Part),
    /// The operations that publish the snapshot are due.
    Verified(Part, Vec<FileOp>),
    Publishing(Part),
    Reading(LogPoint, u64),
    Done(Input),
}

/// A part that is being written.
#[derive(Debug)]
struct Part {
    written: Input,
    is_last: bool,
}

/// A check that a written snapshot is what was meant. It can be sent to another thread: for a large
/// one it takes a while.
#[derive(Debug)]
pub struct SnapshotCheck {
    planner: SnapshotPlanner,
}

/// A snapshot that was read back and is what was meant.
#[derive(Debug)]
pub struct VerifiedSnapshot {
    planner: SnapshotPlanner,
    publication: Vec<FileOp>,
}

impl SnapshotCheck {
    /// The file to read back.
    #[must_use]
    pub fn file(&self) -> FileName {
        self.planner.temporary()
    }

    /// Checks the bytes that were read back.
    ///
    /// # Errors
    ///
    /// [`DiskError::Snapshot`] when they are not what was written.
    pub fn check(mut self, read_back: &[u8]) -> Result<VerifiedSnapshot, DiskError> {
        let file = self.file();
        let publication =
            self.planner.publish(read_back).map_err(|cause| DiskError::Snapshot { file, cause })?;
        Ok(VerifiedSnapshot { planner: self.planner, publication })
    }
}

impl SnapshotWork {
    /// Nothing is ordered yet. Reads give parts of some `part_bytes` bytes.
    #[must_use]
    pub fn new(planner: SnapshotPlanner, part_bytes: usize) -> Self {
        Self { planner, part_bytes, orders: VecDeque::new(), stage: Stage::Idle }
    }

    /// Adds an order behind those that wait.
    pub fn order(&mut self, order: SnapshotOrder) {
        self.orders.push_back(order);
    }

    /// What is to be done next; `None`: nothing, before the next order.
    ///
    /// # Panics
    ///
    /// When the result of the task before is still to be reported.
    pub fn next_task(&mut self) -> Option<SnapshotTask> {
        let (stage, task) = match std::mem::replace(&mut self.stage, Stage::Idle) {
            Stage::Idle => {
                let order = self.orders.pop_front()?;
                self.begin(order)
            }
            Stage::Written(part, took) => (Stage::Rested(part), SnapshotTask::Rest(rest_after(took))),
            Stage::Rested(part) if part.is_last => {
                let check = SnapshotCheck { planner: self.planner.clone() };
                (Stage::Verifying(part), SnapshotTask::Files(FileTask::Verify(check)))
            }
            Stage::Verified(part, ops) => (Stage::Publishing(part), SnapshotTask::Files(FileTask::Run(ops))),
            Stage::Rested(Part { written: input, .. }) | Stage::Done(input) => {
                (Stage::Idle, SnapshotTask::Report(input))
            }
            Stage::Writing(_) | Stage::Verifying(_) | Stage::Publishing(_) | Stage::Reading(..) => {
                panic!("one task at a time")
            }
        };
        self.stage = stage;
        Some(task)
    }

    fn begin(&mut self, order: SnapshotOrder) -> (Stage, SnapshotTask) {
        match order {
            SnapshotOrder::Write(part) => {
                let written = Part { written: snapshot_written(&part), is_last: part.end.is_some() };
                (Stage::Writing(written), SnapshotTask::Files(FileTask::Run(self.planner.plan_part(&part))))
            }
            SnapshotOrder::Read { last, offset } => {
                let wanted = PartWanted { last, offset, bytes_max: self.part_bytes };
                let node = self.planner.temporary().node;
                (Stage::Reading(last, offset), SnapshotTask::Files(FileTask::Read(node, wanted)))
            }
        }
    }

    /// Operations are carried out, which took so long.
    ///
    /// # Panics
    ///
    /// When none were handed out.
    pub fn ran(&mut self, took: Duration) {
        self.stage = match std::mem::replace(&mut self.stage, Stage::Idle) {
            Stage::Writing(part) => Stage::Written(part, took),
            Stage::Publishing(part) => Stage::Done(part.written),
            other => panic!("no operations were handed out: {other:?}"),
        };
    }

    /// The operations of a part failed. Without room for it the snapshot is put off: returns the
    /// file that has to go, which nobody relies on yet.
    ///
    /// # Errors
    ///
    /// The error itself, where the node has to stop for it.
    pub fn failed(&mut self, error: FileError) -> Result<FileName, FileError> {
        let file = self.planner.temporary();
        let is_put_off = error.is_for_want_of_room() && error.is_about(file);
        let last = match &self.stage {
            Stage::Writing(Part { written: Input::SnapshotWritten { last, .. }, .. }) if is_put_off => *last,
            _ => return Err(error),
        };
        let why = error.to_string().into();
        self.stage = Stage::Done(Input::SnapshotPutOff { last, why });
        Ok(file)
    }

    /// The snapshot was read back and is right.
    ///
    /// # Panics
    ///
    /// When no check was handed out.
    pub fn verified(&mut self, snapshot: VerifiedSnapshot) {
        let Stage::Verifying(part) = std::mem::replace(&mut self.stage, Stage::Idle) else {
            panic!("no check was handed out")
        };
        self.planner = snapshot.planner;
        self.stage = Stage::Verified(part, snapshot.publication);
    }

    /// The part was read; `None`: there is no such part, or no longer.
    ///
    /// # Panics
    ///
    /// When no read was handed out.
    pub fn was_read(&mut self, part: Option<SnapshotPart>) {
        let Stage::Reading(last, offset) = self.stage else { panic!("no read was handed out") };
        self.stage = Stage::Done(Input::SnapshotRead { last, offset, part });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use coracle_core::raft::{Checksum, Configuration, LogIndex, SnapshotEnd, SnapshotMeta, Term, Voters};
    use coracle_core::{ClusterId, Incarnation};

    use super::*;
    use crate::files::{FileKind, SyncPolicy};
    use crate::identity::Identity;

    const LAST: LogPoint = LogPoint { index: LogIndex(3), term: Term(1), checksum: Checksum(7) };
    const TOOK: Duration = Duration::from_millis(2);

    fn work() -> SnapshotWork {
        let identity = Identity::for_new_cluster(ClusterId(1), &[Incarnation(2)]).remove(0);
        SnapshotWork::new(SnapshotPlanner::new(identity, LogIndex::ORIGIN, SyncPolicy::Always), 1000)
    }

    /// The parts of a snapshot of these lines, one line each.
    fn parts(lines: &[&str]) -> Vec<SnapshotPart> {
        let configuration = Configuration::of_voters(Voters::new([NodeId(0)]).unwrap());
        let meta = SnapshotMeta { last: LAST, configuration };
        let content = lines.concat();
        let end = SnapshotEnd {
            bytes: content.len() as u64,
            checksum: Checksum(crc32fast::hash(content.as_bytes())),
        };
        let mut offset = 0;
        let part = |(number, line): (usize, &&str)| {
            let part = SnapshotPart {
                meta: meta.clone(),
                offset,
                text: Arc::from(*line),
                end: (number + 1 == lines.len()).then_some(end),
            };
            offset += line.len() as u64;
            part
        };
        lines.iter().enumerate().map(part).collect()
    }

    /// Carries operations on the one temporary file out.
    fn carry_out(file: &mut Vec<u8>, ops: &[FileOp]) {
        for op in ops {
            match op {
                FileOp::Create { bytes, .. } => file.clone_from(bytes),
                FileOp::AppendText { text, .. } => file.extend_from_slice(text.as_bytes()),
                FileOp::Sync { .. } | FileOp::SyncFolder | FileOp::Rename { .. } | FileOp::Remove { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    }

    fn run(work: &mut SnapshotWork, file: &mut Vec<u8>) {
        let Some(SnapshotTask::Files(FileTask::Run(ops))) = work.next_task() else {
            panic!("operations are due")
        };
        carry_out(file, &ops);
        work.ran(TOOK);
    }

    fn rest(work: &mut SnapshotWork) {
        assert!(matches!(work.next_task(), Some(SnapshotTask::Rest(pause)) if pause == rest_after(TOOK)));
    }

    fn report(work: &mut SnapshotWork) -> Input {
        let Some(SnapshotTask::Report(input)) = work.next_task() else { panic!("a report is due") };
        input
    }

    #[test]
    fn a_snapshot_is_written_in_parts_with_rests_and_renamed_once_it_was_read_back() {
        let (mut work, mut file) = (work(), Vec::new());
        let parts = parts(&["{\"a\":1}\n", "{\"b\":2}\n"]);
        parts.iter().cloned().for_each(|part| work.order(SnapshotOrder::Write(part)));
        run(&mut work, &mut file);
        rest(&mut work);
        assert!(matches!(report(&mut work), Input::SnapshotWritten { bytes: 8, .. }));
        run(&mut work, &mut file);
        rest(&mut work);
        let Some(SnapshotTask::Files(FileTask::Verify(check))) = work.next_task() else {
            panic!("it is not checked")
        };
        assert_eq!(check.file(), FileName::new(NodeId(0), FileKind::SnapshotTemporary));
        work.verified(check.check(&file).unwrap());
        let Some(SnapshotTask::Files(FileTask::Run(ops))) = work.next_task() else {
            panic!("it is not published")
        };
        assert!(ops.iter().any(|op| matches!(op, FileOp::Rename { .. })));
        work.ran(TOOK);
        assert!(matches!(report(&mut work), Input::SnapshotWritten { last: LAST, bytes: 16 }));
        assert!(work.next_task().is_none());
    }

    #[test]
    fn what_is_read_back_otherwise_is_never_published() {
        let (mut work, mut file) = (work(), Vec::new());
        parts(&["{\"a\":1}\n"]).into_iter().for_each(|part| work.order(SnapshotOrder::Write(part)));
        run(&mut work, &mut file);
        rest(&mut work);
        let Some(SnapshotTask::Files(FileTask::Verify(check))) = work.next_task() else {
            panic!("it is not checked")
        };
        let middle = file.len() / 2;
        file[middle] ^= 1;
        assert!(matches!(check.check(&file), Err(DiskError::Snapshot { .. })));
    }

    #[test]
    fn a_part_is_read_for_the_order_that_asks_for_it() {
        let mut work = work();
        work.order(SnapshotOrder::Read { last: LAST, offset: 8 });
        let Some(SnapshotTask::Files(FileTask::Read(NodeId(0), wanted))) = work.next_task() else {
            panic!("nothing is read")
        };
        assert_eq!(wanted, PartWanted { last: LAST, offset: 8, bytes_max: 1000 });
        work.was_read(None);
        assert!(matches!(report(&mut work), Input::SnapshotRead { offset: 8, part: None, .. }));
        assert!(work.next_task().is_none());
    }

    #[test]
    #[should_panic(expected = "one task at a time")]
    fn a_task_is_finished_before_the_next_is_handed_out() {
        let mut work = work();
        work.order(SnapshotOrder::Read { last: LAST, offset: 0 });
        let _ = work.next_task();
        let _ = work.next_task();
    }
}
