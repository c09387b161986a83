//! Simulated process: one node of the cluster with its disk, its clock and its pending inputs.
//!
//! It runs the real replica, planner and recovery. The world decides when it runs.

use std::collections::VecDeque;

use coracle_core::raft::{Config, NodeId, PersistId};
use coracle_core::{Input, Instant, Output, Replica, ReplicaLimits};
use coracle_storage::host::DiskQueue;
use coracle_storage::{
    ClusterId, FileError, FileOp, Identity, Incarnation, Notice, RecoverError, SyncPolicy, recover, survey,
};

use super::damage::DurableCommits;
use super::dice::Dice;
use super::disk::SimDisk;
use super::durable::DurableState;
use super::snapshots::SnapshotFiles;

/// A clock with its own speed and its own start, which never goes backwards.
#[derive(Clone, Copy, Debug)]
pub struct SimClock {
    /// The speed, in thousandths of true speed.
    pub rate: u64,
    /// The reading at the start of the world, in microseconds.
    pub offset: u64,
}

impl SimClock {
    /// The reading at a true time in microseconds.
    #[must_use]
    pub fn local(self, now: u64) -> Instant {
        Instant::from_micros(self.offset + now * self.rate / 1000)
    }

    /// The true time at which it shows at least `local`.
    #[must_use]
    pub fn world(self, local: Instant) -> u64 {
        (local.as_micros().saturating_sub(self.offset) * 1000).div_ceil(self.rate)
    }
}

/// A node of the simulated cluster, running or not.
#[derive(Debug)]
pub struct Process {
    /// The id of the node.
    pub id: NodeId,
    /// The disk, which outlives the process.
    pub disk: SimDisk,
    /// The state that is durable on the disk.
    pub durable: DurableState,
    /// The clock.
    pub clock: SimClock,
    /// The number of starts and crashes so far. Inputs that were meant for an earlier incarnation
    /// of the process are not delivered.
    pub life: u64,
    /// The running replica, if the process is up.
    pub running: Option<Running>,
    /// The process does nothing before this time.
    pub busy_until: u64,
    /// The time until which its turns take many times as long.
    pub slow_until: u64,
    /// The time until which its disk takes many times as long.
    pub disk_slow_until: u64,
    /// The planned time of its next turn, if there is one.
    pub wake_at: Option<u64>,
    /// The times of its alarms, the next one last. At least one of them is not after `wake_at`.
    pub alarms: Vec<u64>,
    /// The fault that hits its next write or sync.
    pub disk_fails: Option<DiskFault>,
    /// The number of further outputs after which it crashes.
    pub crash_after_outputs: Option<u32>,
    /// The number of further file operations after which it crashes.
    pub crash_after_ops: Option<u32>,
    /// The number of file operations of its next start after which it crashes.
    pub crash_in_recovery: Option<usize>,
    /// Samples of its committed and durable index since its last start.
    pub durable_commits: DurableCommits,
    /// Whether it stays down permanently.
    pub is_dead: bool,
}

/// A way in which a disk can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskFault {
    /// A sync reports an error.
    Sync,
    /// A write finds no space.
    Full,
}

/// A node that is up.
#[derive(Debug)]
pub struct Running {
    /// The core.
    pub replica: Replica,
    /// The inputs that have arrived and wait for the next turn.
    pub inbox: Vec<Input>,
    /// The persists that wait for the disk.
    pub disk_queue: DiskQueue,
    /// The remaining file operations of the current disk work.
    ops: VecDeque<FileOp>,
    /// The snapshot files, written beside the log.
    pub snapshots: SnapshotFiles,
}

/// The result of one step of the disk.
#[derive(Debug, PartialEq, Eq)]
pub enum DiskStep {
    /// There are more operations to do.
    More,
    /// The group up to this persist is durable.
    Done(PersistId),
    /// A piece of the rewritten log is complete.
    Renewed,
    /// There was no room for a piece of the rewritten log: the old log stays.
    PutOff,
    /// An operation failed.
    Failed,
}

/// The result of a start.
#[derive(Debug)]
pub enum StartOutcome {
    /// It runs, with these notices of its recovery.
    Runs(Vec<Notice>),
    /// It crashed in the middle of its recovery.
    CrashedInRecovery,
    /// It refused to start.
    Refused(RecoverError),
}

/// The identities of a new cluster of `nodes` nodes.
fn identities(nodes: usize) -> Vec<Identity> {
    let incarnations: Vec<_> = (0..nodes as u64).map(|node| Incarnation(1000 + node)).collect();
    Identity::for_new_cluster(ClusterId(1), &incarnations)
}

/// Bootstraps a cluster: returns every node's disk as it is before the first start.
#[must_use]
pub fn found_disks(nodes: usize) -> Vec<SimDisk> {
    let files = vec![coracle_storage::NodeFiles::default(); nodes];
    let founded = survey(files, &identities(nodes), SyncPolicy::Always).expect("empty disks are founded");
    let mut disks = vec![SimDisk::default(); nodes];
    for op in &founded.creation {
        match op {
            FileOp::SyncFolder => disks.iter_mut().for_each(|disk| disk.run(op)),
            FileOp::Create { file, .. }
            | FileOp::Append { file, .. }
            | FileOp::AppendText { file, .. }
            | FileOp::Overwrite { file, .. }
            | FileOp::Truncate { file, .. }
            | FileOp::Sync { file }
            | FileOp::Remove { file }
            | FileOp::Rename { to: file, .. } => {
                disks[usize::try_from(file.node.0).expect("a small id")].run(op);
            }
        }
    }
    disks
}

impl Process {
    /// Creates a node that was never started.
    #[must_use]
    pub fn new(id: NodeId, disk: SimDisk, clock: SimClock) -> Self {
        Self {
            id,
            disk,
            durable: DurableState::default(),
            clock,
            life: 0,
            running: None,
            busy_until: 0,
            slow_until: 0,
            disk_slow_until: 0,
            wake_at: None,
            alarms: Vec::new(),
            disk_fails: None,
            crash_after_outputs: None,
            crash_after_ops: None,
            crash_in_recovery: None,
            durable_commits: DurableCommits::default(),
            is_dead: false,
        }
    }

    /// Ends the process. Data that its disk had not synced may be lost.
    pub fn crash(&mut self, dice: &mut Dice) {
        for persist in self.running.take().iter().flat_map(|running| running.disk_queue.in_flight()) {
            self.durable.lose(persist);
        }
        self.disk.crash(dice);
        self.life += 1;
        self.wake_at = None;
        self.alarms.clear();
        self.disk_fails = None;
        self.crash_after_outputs = None;
        self.crash_after_ops = None;
    }

    /// Recovers from the disk, executes the repairs, and starts the replica.
    pub fn start(&mut self, config: Config, limits: ReplicaLimits, seed: u64, now: u64) -> StartOutcome {
        let recovery = match recover(self.id, &self.disk.files(self.id), SyncPolicy::Always) {
            Ok(recovery) => recovery,
            Err(error) => return StartOutcome::Refused(error),
        };
        let stop_after = self.crash_in_recovery.take();
        for (done, op) in recovery.repairs.iter().enumerate() {
            if stop_after == Some(done) {
                return StartOutcome::CrashedInRecovery;
            }
            self.disk.run(op);
        }
        let restored = recovery.restored;
        self.durable = DurableState::found(&restored);
        self.life += 1;
        let replica = Replica::with_limits(config, restored, seed, self.clock.local(now), limits)
            .expect("simulated settings fit");
        let mut planner = recovery.planner;
        planner.set_renewal_bytes(limits.snapshots.part_bytes);
        self.running = Some(Running {
            replica,
            inbox: Vec::new(),
            disk_queue: DiskQueue::new(planner),
            ops: VecDeque::new(),
            snapshots: SnapshotFiles::new(recovery.snapshots, limits.snapshots.part_bytes),
        });
        StartOutcome::Runs(recovery.notices)
    }
}

impl Running {
    /// Runs one turn of the replica.
    pub fn step(&mut self, now: Instant) -> Vec<Output> {
        let mut outputs = Vec::new();
        self.replica.step(now, &mut self.inbox, &mut outputs);
        outputs
    }

    /// Begins the next work of the disk, if the disk is free and there is work. Returns whether it
    /// did.
    pub fn begin_disk_work(&mut self) -> bool {
        if self.disk_queue.is_working() {
            return false;
        }
        let Some(ops) = self.disk_queue.begin() else { return false };
        self.ops = ops.into();
        true
    }

    /// Returns whether the next operation is a sync.
    #[must_use]
    pub fn next_op_is_sync(&self) -> bool {
        self.ops.front().is_some_and(waits)
    }

    /// Executes the next operation.
    pub fn disk_step(
        &mut self,
        disk: &mut SimDisk,
        durable: &mut DurableState,
        fault: &mut Option<DiskFault>,
    ) -> DiskStep {
        let has_room = *fault != Some(DiskFault::Full);
        if let Some(op) = self.ops.pop_front()
            && !carry_out(&op, disk, fault)
        {
            if has_room {
                return DiskStep::Failed;
            }
            let Ok(file) = self.disk_queue.failed(FileError::without_room(&op)) else {
                return DiskStep::Failed;
            };
            self.ops.clear();
            if disk.read(file).is_some() {
                disk.run(&FileOp::Remove { file });
            }
            return DiskStep::PutOff;
        }
        if !self.ops.is_empty() {
            return DiskStep::More;
        }
        for persist in self.disk_queue.in_flight() {
            durable.apply(persist);
        }
        self.disk_queue.finish().map_or(DiskStep::Renewed, DiskStep::Done)
    }
}

/// Returns whether an operation is a sync.
pub(super) fn waits(op: &FileOp) -> bool {
    matches!(op, FileOp::Sync { .. } | FileOp::SyncFolder)
}

/// Executes an operation unless a fault prevents it. Returns whether it succeeded.
pub(super) fn carry_out(op: &FileOp, disk: &mut SimDisk, fault: &mut Option<DiskFault>) -> bool {
    let is_write = matches!(op, FileOp::Append { .. } | FileOp::AppendText { .. } | FileOp::Create { .. });
    let fails = match fault {
        Some(DiskFault::Sync) => waits(op),
        Some(DiskFault::Full) => is_write,
        None => false,
    };
    if fails {
        *fault = None;
    } else {
        disk.run(op);
    }
    !fails
}
