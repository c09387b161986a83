//! A node's snapshot files: the second stream of operations on its disk, beside the log's.
//!
//! Parts are written one after the other. After the last one the temporary file is read back from the simulated disk, and
//! only what the planner then publishes counts. Parts are read as they are in a real process: piece by piece, from the bytes
//! that have the final name at that moment.

use std::collections::VecDeque;

use coracle_core::raft::{LogPoint, NodeId, SnapshotPart};
use coracle_storage::{
    FileKind, FileName, FileOp, PartProgress, PartReader, PartWanted, PublishError, SnapshotFault,
    SnapshotPlanner,
};

use super::disk::SimDisk;
use super::process::{DiskFault, carry_out, waits};

/// What writes a running node's snapshots.
#[derive(Debug)]
pub struct SnapshotFiles {
    planner: SnapshotPlanner,
    /// What the core has handed out and the disk has not begun.
    parts: VecDeque<SnapshotPart>,
    work: Option<PartWork>,
}

/// A part on its way to the disk.
#[derive(Debug)]
struct PartWork {
    ops: VecDeque<FileOp>,
    written: Written,
    is_publishing: bool,
}

/// A part that is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// The snapshot's last entry.
    pub last: LogPoint,
    /// Bytes of content with this part.
    pub bytes: u64,
    /// Whether the whole snapshot is durable in its place.
    pub is_whole: bool,
}

/// What a step of the disk came to.
#[derive(Debug)]
pub enum SnapshotStep {
    /// There is more to do.
    More,
    /// The part is written.
    Done(Written),
    /// An operation failed.
    Failed,
    /// What was written is not a snapshot.
    Refused(PublishError),
}

impl SnapshotFiles {
    /// Nothing to do so far.
    #[must_use]
    pub fn new(planner: SnapshotPlanner) -> Self {
        Self { planner, parts: VecDeque::new(), work: None }
    }

    /// The core hands out a part.
    pub fn take(&mut self, part: SnapshotPart) {
        self.parts.push_back(part);
    }

    /// Begins the next part, if the disk is free and there is one. Returns whether it did.
    pub fn begin(&mut self) -> bool {
        if self.work.is_some() {
            return false;
        }
        let Some(part) = self.parts.pop_front() else { return false };
        let written = Written {
            last: part.meta.last,
            bytes: part.offset + part.text.len() as u64,
            is_whole: part.end.is_some(),
        };
        let ops = self.planner.plan_part(&part).into();
        self.work = Some(PartWork { ops, written, is_publishing: false });
        true
    }

    /// Whether the next operation waits for the disk.
    #[must_use]
    pub fn next_op_is_sync(&self) -> bool {
        self.work.as_ref().and_then(|work| work.ops.front()).is_some_and(waits)
    }

    /// Carries the next operation out.
    pub fn step(&mut self, disk: &mut SimDisk, fault: &mut Option<DiskFault>) -> SnapshotStep {
        let Some(work) = &mut self.work else { return SnapshotStep::Failed };
        if let Some(op) = work.ops.pop_front()
            && !carry_out(&op, disk, fault)
        {
            return SnapshotStep::Failed;
        }
        if !work.ops.is_empty() {
            return SnapshotStep::More;
        }
        if work.written.is_whole && !work.is_publishing {
            let read_back = disk.read(self.planner.temporary()).unwrap_or_default();
            return match self.planner.publish(read_back) {
                Ok(ops) => {
                    (work.ops, work.is_publishing) = (ops.into(), true);
                    SnapshotStep::More
                }
                Err(error) => SnapshotStep::Refused(error),
            };
        }
        let written = work.written;
        self.work = None;
        SnapshotStep::Done(written)
    }
}

/// A part of some `bytes_max` bytes of the snapshot that `node` has on `disk`; `None` when that is another one, or there is
/// none.
///
/// # Errors
///
/// [`SnapshotFault`] when the file is damaged.
pub fn read_part(
    disk: &SimDisk,
    node: NodeId,
    last: LogPoint,
    offset: u64,
    bytes_max: usize,
) -> Result<Option<SnapshotPart>, SnapshotFault> {
    let Some(bytes) = disk.read(FileName::new(node, FileKind::Snapshot)) else { return Ok(None) };
    let at = |place: u64| usize::try_from(place).expect("a simulated file is small");
    let mut reader = PartReader::new(PartWanted { last, offset, bytes_max }, bytes.len() as u64);
    loop {
        let range = reader.range();
        match reader.take(&bytes[at(range.start)..at(range.end)])? {
            PartProgress::More => {}
            PartProgress::Part(part) => return Ok(Some(part)),
            PartProgress::NoSuchPart => return Ok(None),
        }
    }
}
