//! A simulated process: one node of the cluster with its disk, its clock, and whatever waits for
//! it.
//!
//! It runs the replica, the planner and the recovery that ship. The world decides when it gets to
//! run.

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

/// A clock that runs at its own speed from its own start, and never backwards.
#[derive(Clone, Copy, Debug)]
pub struct SimClock {
    /// Thousandths of true speed.
    pub rate: u64,
    /// What it shows at the start of the world, in microseconds.
    pub offset: u64,
}

impl SimClock {
    /// What it shows at a true time in microseconds.
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
    /// Which node.
    pub id: NodeId,
    /// Its disk, which outlives it.
    pub disk: SimDisk,
    /// What is durable on it.
    pub durable: DurableState,
    /// Its clock.
    pub clock: SimClock,
    /// How often it was started: what was meant for an earlier life is not delivered.
    pub life: u64,
    /// What runs.
    pub running: Option<Running>,
    /// It does nothing before this time.
    pub busy_until: u64,
    /// Until when its turns take many times as long.
    pub slow_until: u64,
    /// Until when its disk takes many times as long.
    pub disk_slow_until: u64,
    /// When it is going to be woken, if that is planned.
    pub wake_at: Option<u64>,
    /// The times at which its alarm goes off, the next one last. One of them is not after
    /// `wake_at`.
    pub alarms: Vec<u64>,
    /// Its next write or sync fails.
    pub disk_fails: Option<DiskFault>,
    /// It ends after so many more outputs.
    pub crash_after_outputs: Option<u32>,
    /// It ends after so many more file operations.
    pub crash_after_ops: Option<u32>,
    /// It ends in its next start, after so many file operations.
    pub crash_in_recovery: Option<usize>,
    /// What it had committed and durable in its present life.
    pub durable_commits: DurableCommits,
    /// It stays down for ever.
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
    /// What arrived and was not taken yet.
    pub inbox: Vec<Input>,
    /// What the disk was asked for.
    pub disk_queue: DiskQueue,
    /// The file operations that are left of what the disk is at.
    ops: VecDeque<FileOp>,
    /// The snapshots, written beside the log.
    pub snapshots: SnapshotFiles,
}

/// What a step of the disk came to.
#[derive(Debug, PartialEq, Eq)]
pub enum DiskStep {
    /// There is more to do; the next operation is of this kind.
    More,
    /// The group is durable up to here.
    Done(PersistId),
    /// A piece of the log is made anew.
    Renewed,
    /// There was no room for a piece of the log that is made anew: the old one stays.
    PutOff,
    /// An operation failed.
    Failed,
}

/// What a start came to.
#[derive(Debug)]
pub enum StartOutcome {
    /// It runs; these were told.
    Runs(Vec<Notice>),
    /// It ended in the middle of its recovery.
    CrashedInRecovery,
    /// It refused to start.
    Refused(RecoverError),
}

/// The identities of a cluster of `nodes` nodes.
fn identities(nodes: usize) -> Vec<Identity> {
    let incarnations: Vec<_> = (0..nodes as u64).map(|node| Incarnation(1000 + node)).collect();
    Identity::for_new_cluster(ClusterId(1), &incarnations)
}

/// Founds the cluster: every node's disk as it is before the first start.
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
    /// A node that was never started.
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

    /// The process ends, and what its disk had not synced may be lost.
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

    /// Recovers from the disk, carries the repairs out, and starts the replica.
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
    /// One turn of the replica.
    pub fn step(&mut self, now: Instant) -> Vec<Output> {
        let mut outputs = Vec::new();
        self.replica.step(now, &mut self.inbox, &mut outputs);
        outputs
    }

    /// Begins what the disk has to do next, if it is free and there is something. Returns whether
    /// it did.
    pub fn begin_disk_work(&mut self) -> bool {
        if self.disk_queue.is_working() {
            return false;
        }
        let Some(ops) = self.disk_queue.begin() else { return false };
        self.ops = ops.into();
        true
    }

    /// Whether the next operation of the disk waits for it.
    #[must_use]
    pub fn next_op_is_sync(&self) -> bool {
        self.ops.front().is_some_and(waits)
    }

    /// Carries the next operation out.
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

/// Whether an operation waits for the disk.
pub(super) fn waits(op: &FileOp) -> bool {
    matches!(op, FileOp::Sync { .. } | FileOp::SyncFolder)
}

/// Carries an operation out, if no fault keeps it from that. Returns whether it did.
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
