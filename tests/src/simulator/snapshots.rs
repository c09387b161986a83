//! Simulated snapshot files of a node: the second stream of operations on its disk, beside the
//! log's.
//!
//! The real [`SnapshotWork`] decides what comes next. Here its tasks are executed on a simulated
//! disk, one operation at a time. Parts are read as in a real process: piece by piece, from the
//! bytes that have the final name at that moment.

use std::collections::VecDeque;
use std::time::Duration;

use coracle_core::Input;
use coracle_core::host::SnapshotOrder;
use coracle_core::raft::{LogPoint, NodeId, SnapshotPart};
use coracle_storage::host::{FileTask, SnapshotTask, SnapshotWork};
use coracle_storage::{
    DiskError, FileError, FileKind, FileName, FileOp, PartProgress, PartReader, PartWanted, SnapshotError,
    SnapshotPlanner,
};

use super::disk::SimDisk;
use super::process::{DiskFault, carry_out, waits};

/// Writes and reads a running node's snapshots.
#[derive(Debug)]
pub struct SnapshotFiles {
    work: SnapshotWork,
    /// For each part that is being written, whether it is the snapshot's last.
    are_last: VecDeque<bool>,
    /// The remaining file operations of the current task.
    ops: VecDeque<FileOp>,
    /// The time when they began.
    begun: u64,
    /// The part that the disk is reading.
    reading: Option<(NodeId, PartWanted)>,
    is_busy: bool,
}

/// The next step of the disk.
#[derive(Debug)]
pub enum SnapshotStep {
    /// An operation; true if it is a sync.
    Operate(bool),
    /// No operation for this time.
    Rest(Duration),
    /// No operation before the next order.
    Idle,
    /// An operation failed.
    Failed,
    /// The written file is not a valid snapshot.
    Refused(DiskError),
    /// The written file cannot be read any more.
    Lost(SnapshotError),
}

impl SnapshotFiles {
    /// Creates an idle writer. A read returns about `part_bytes` bytes.
    #[must_use]
    pub fn new(planner: SnapshotPlanner, part_bytes: usize) -> Self {
        let work = SnapshotWork::new(planner, part_bytes);
        Self {
            work,
            are_last: VecDeque::new(),
            ops: VecDeque::new(),
            begun: 0,
            reading: None,
            is_busy: false,
        }
    }

    /// Queues an order of the core. Returns whether the disk was idle and now has to be stepped.
    pub fn order(&mut self, order: SnapshotOrder) -> bool {
        if let SnapshotOrder::Write(part) = &order {
            self.are_last.push_back(part.end.is_some());
        }
        self.work.order(order);
        !std::mem::replace(&mut self.is_busy, true)
    }

    /// Executes the next operation at this time. Appends the reports for the node to `reports`,
    /// each with whether it completes a whole snapshot.
    pub fn step(
        &mut self,
        now: u64,
        disk: &mut SimDisk,
        fault: &mut Option<DiskFault>,
        reports: &mut Vec<(Input, bool)>,
    ) -> SnapshotStep {
        if let Some(op) = self.ops.pop_front() {
            let has_room = *fault != Some(DiskFault::Full);
            if !carry_out(&op, disk, fault) {
                if has_room {
                    return SnapshotStep::Failed;
                }
                return self.put_off(&op, now, disk, reports);
            }
            if let Some(next) = self.ops.front() {
                return SnapshotStep::Operate(waits(next));
            }
            self.work.ran(Duration::from_micros(now - self.begun));
        }
        if let Some((node, wanted)) = self.reading.take() {
            match read_part(disk, node, wanted.last, wanted.offset, wanted.bytes_max) {
                Ok(part) => self.work.was_read(part),
                Err(fault) => return SnapshotStep::Lost(fault),
            }
        }
        self.next_task(now, disk, reports)
    }

    /// Handles a write that found no room.
    fn put_off(
        &mut self,
        op: &FileOp,
        now: u64,
        disk: &mut SimDisk,
        reports: &mut Vec<(Input, bool)>,
    ) -> SnapshotStep {
        let Ok(file) = self.work.failed(FileError::without_room(op)) else { return SnapshotStep::Failed };
        self.ops.clear();
        if disk.read(file).is_some() {
            disk.run(&FileOp::Remove { file });
        }
        // The part of the failed write is not going to be reported.
        self.are_last.pop_front();
        self.next_task(now, disk, reports)
    }

    fn next_task(&mut self, now: u64, disk: &SimDisk, reports: &mut Vec<(Input, bool)>) -> SnapshotStep {
        loop {
            let Some(task) = self.work.next_task() else {
                self.is_busy = false;
                return SnapshotStep::Idle;
            };
            match task {
                SnapshotTask::Files(FileTask::Run(ops)) if ops.is_empty() => self.work.ran(Duration::ZERO),
                SnapshotTask::Files(FileTask::Run(ops)) => {
                    (self.ops, self.begun) = (ops.into(), now);
                    return SnapshotStep::Operate(self.ops.front().is_some_and(waits));
                }
                SnapshotTask::Rest(pause) => return SnapshotStep::Rest(pause),
                SnapshotTask::Files(FileTask::Verify(check)) => {
                    let read_back = disk.read(check.file()).unwrap_or_default();
                    match check.check(read_back) {
                        Ok(verified) => self.work.verified(verified),
                        Err(error) => return SnapshotStep::Refused(error),
                    }
                }
                SnapshotTask::Files(FileTask::Read(node, wanted)) => {
                    self.reading = Some((node, wanted));
                    return SnapshotStep::Operate(false);
                }
                SnapshotTask::Report(input) => {
                    let is_written = matches!(input, Input::SnapshotWritten { .. });
                    let is_whole = is_written && self.are_last.pop_front().unwrap_or_default();
                    reports.push((input, is_whole));
                }
            }
        }
    }
}

/// Returns a part of about `bytes_max` bytes of the snapshot that `node` has on `disk`; `None` when
/// there is another snapshot, or none.
///
/// # Errors
///
/// [`SnapshotError`] when the file is damaged.
pub fn read_part(
    disk: &SimDisk,
    node: NodeId,
    last: LogPoint,
    offset: u64,
    bytes_max: usize,
) -> Result<Option<SnapshotPart>, SnapshotError> {
    let Some(bytes) = disk.read(FileName::new(node, FileKind::Snapshot)) else { return Ok(None) };
    let at = |place: u64| usize::try_from(place).expect("a simulated file is small");
    let mut reader = PartReader::new(PartWanted { last, offset, bytes_max }, bytes.len() as u64);
    loop {
        let range = reader.range();
        match reader.accept(&bytes[at(range.start)..at(range.end)])? {
            PartProgress::More => {}
            PartProgress::Part(part) => return Ok(Some(part)),
            PartProgress::NoSuchPart => return Ok(None),
        }
    }
}
