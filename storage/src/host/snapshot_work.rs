//! Snapshot work: decides which file operation of a node's snapshots comes next, and when the work
//! pauses.
//!
//! ```text
//! Write(part) ─► Run ─► Rest ─► Report            a part that is not the last
//! Write(part) ─► Run ─► Rest ─► Verify ─► Run ─► Report    the last part: read back, then renamed
//! Read        ─► Read ─► Report
//! ```
//!
//! Snapshots are written concurrently with the log and not through its queue: a snapshot is large
//! and no client waits for it, while every write waits for the log's next sync. After each part the
//! work pauses, so that the log gets most of a disk that they share. Few orders wait at a time: the
//! replica orders the next part of a snapshot only when the one before is written, and one part at
//! a time per follower.
//!
//! Deliberately not here: when a snapshot is due and whether a received one is used, which the
//! replica decides, and what is verified before a snapshot counts, which the planner decides. After
//! a task that failed, a runtime never asks for the next one: a half-written snapshot is never
//! used, and the next one replaces it.

use std::collections::VecDeque;
use std::time::Duration;

use coracle_core::Input;
use coracle_core::host::{SnapshotOrder, snapshot_written};
use coracle_core::raft::{LogPoint, NodeId, SnapshotPart};

use crate::execution::FileError;
use crate::files::{FileName, FileOp};
use crate::medium::DiskError;
use crate::snapshot::{PartWanted, SnapshotPlanner, rest_after};

/// The next task for a node's snapshots.
#[derive(Debug)]
pub enum SnapshotTask {
    /// A task on files.
    Files(FileTask),
    /// Leave the disk to other work for this time.
    Rest(Duration),
    /// Report this input to the node.
    Report(Input),
}

/// The next task on the files of a node's snapshots.
#[derive(Debug)]
pub enum FileTask {
    /// Carry these operations out in order, then call [`SnapshotWork::ran`].
    Run(Vec<FileOp>),
    /// Read the file back and verify it, possibly on another thread, then call
    /// [`SnapshotWork::verified`].
    Verify(SnapshotCheck),
    /// Read this part of the node's snapshot, then call [`SnapshotWork::was_read`].
    Read(NodeId, PartWanted),
}

/// The snapshot work of one node. See the module.
#[derive(Debug)]
pub struct SnapshotWork {
    planner: SnapshotPlanner,
    /// The most bytes of content that one read returns.
    part_bytes: usize,
    orders: VecDeque<SnapshotOrder>,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// The next order can begin.
    Idle,
    /// The operations of a part are being carried out.
    Writing(Part),
    /// A pause is due.
    Written(Part, Duration),
    /// The end of the part is due: a report, or verification after the last part.
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

/// The verification of a written snapshot. It can be sent to another thread, because it takes a
/// while for a large snapshot.
#[derive(Debug)]
pub struct SnapshotCheck {
    planner: SnapshotPlanner,
}

/// A snapshot that was read back and verified.
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

    /// Verifies the bytes that were read back.
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
    /// Creates the work without any order. Reads return parts of about `part_bytes` bytes.
    #[must_use]
    pub fn new(planner: SnapshotPlanner, part_bytes: usize) -> Self {
        Self { planner, part_bytes, orders: VecDeque::new(), stage: Stage::Idle }
    }

    /// Adds an order at the end of the queue.
    pub fn order(&mut self, order: SnapshotOrder) {
        self.orders.push_back(order);
    }

    /// Returns the next task; `None` if there is none before the next order.
    ///
    /// # Panics
    ///
    /// When the result of the previous task was not reported yet.
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

    /// The operations were carried out, which took this long.
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

    /// The operations of a part failed. If they found no room, the snapshot is postponed; then
    /// returns its temporary file, which the caller has to remove.
    ///
    /// # Errors
    ///
    /// The error itself, if the node has to stop because of it.
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

    /// The snapshot was read back and verified.
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

    /// The part was read; `None`: there is no such part any more.
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

    /// Returns the parts of a snapshot of these lines, one line per part.
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

    /// Carries operations out on the one temporary file.
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
    fn a_snapshot_that_is_read_back_wrong_is_never_published() {
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
