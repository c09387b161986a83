//! A simulated machine: its addresses, its data folder, and the process that runs on it.

use std::collections::{BTreeMap, VecDeque};

use coracle_core::Incarnation;
use coracle_core::host::{ClusterSearch, Directory, Forwarder, HostInput, Inbound, Link, NodeHost, Removal};
use coracle_core::kv::Level;
use coracle_core::memory::MemoryBudget;
use coracle_core::peer::Origin;
use coracle_core::raft::{Configuration, NodeId};
use coracle_storage::FileOp;
use coracle_storage::host::{DiskQueue, OpenedMember};

use crate::simulator::disk::SimDisk;
use crate::simulator::process::SimClock;
use crate::simulator::snapshots::SnapshotFiles;

/// The prefix of the reason with which a removed node ends.
pub(super) const REMOVED: &str = "removed: ";

/// The program options in the machine's unit file.
#[derive(Clone, Debug)]
pub(super) struct Unit {
    pub(super) id: NodeId,
    pub(super) origin: Origin,
    /// Whether the node keeps everything in memory.
    pub(super) is_in_memory: bool,
}

impl Unit {
    pub(super) fn new(id: NodeId, origin: Origin) -> Self {
        Self { id, origin, is_in_memory: false }
    }
}

/// A machine. It keeps answering at every address that it ever had, because a move needs an order
/// and may be rejected.
#[derive(Debug)]
pub(super) struct Machine {
    pub(super) addresses: Vec<Box<str>>,
    pub(super) folder: SimDisk,
    /// The node whose promises the folder keeps, once the node has its cluster.
    pub(super) holds: Option<(NodeId, Incarnation)>,
    /// The members by the log in the folder, committed or not, even while no process runs.
    pub(super) members: Option<Configuration>,
    pub(super) unit: Option<Unit>,
    /// The folder and its node, while its volume is not mounted.
    pub(super) unmounted: Option<(SimDisk, Option<(NodeId, Incarnation)>)>,
    /// The highest level that the program on the machine supports. It only rises.
    pub(super) supports: Level,
    /// Whether the machine ever lost a folder.
    pub(super) has_lost_files: bool,
    pub(super) clock: SimClock,
    pub(super) process: Option<Process>,
    /// The reason why the last process ended by itself. It is not started again until the operator
    /// acts on that.
    pub(super) ended: Option<String>,
}

/// A running process.
#[derive(Debug)]
pub(super) struct Process {
    /// The number of this run, unique among all runs of all machines.
    pub(super) boot: u64,
    pub(super) id: NodeId,
    pub(super) incarnation: Incarnation,
    /// The highest level that it supports.
    pub(super) supports: Level,
    pub(super) directory: Directory,
    /// The budget in which links and frames are counted.
    pub(super) memory: MemoryBudget,
    pub(super) stage: Stage,
    pub(super) links: BTreeMap<NodeId, Seat>,
    pub(super) forwarder: Forwarder,
    pub(super) inbound: BTreeMap<u64, Inbound>,
    /// The removal that it was notified of, if any. The process continues for a grace period.
    pub(super) removal: Removal,
    /// Whether it was notified of its removal before its last turn.
    pub(super) is_dismissed: bool,
    /// Whether the log on its disk contains its removal.
    pub(super) knows_its_removal: bool,
    /// The process does nothing before this time.
    pub(super) busy_until: u64,
    /// The time of its next planned turn.
    pub(super) wake_at: Option<u64>,
}

/// The stage of a process.
#[derive(Debug)]
pub(super) enum Stage {
    /// It searches for its cluster.
    Searching(Box<Searching>),
    /// It takes part in its cluster.
    Running(Box<Running>),
}

/// A node without a cluster.
#[derive(Debug)]
pub(super) struct Searching {
    pub(super) search: ClusterSearch,
    /// The opened folder, until the node has found its cluster.
    pub(super) opened: Option<OpenedMember>,
    /// The time of the first rejection because its id belongs to another incarnation.
    pub(super) refused_since: Option<u64>,
}

/// A node that takes part in its cluster.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) host: NodeHost,
    pub(super) inbox: Vec<HostInput>,
    pub(super) disk: DiskQueue,
    pub(super) ops: VecDeque<FileOp>,
    pub(super) snapshots: SnapshotFiles,
}

/// A link with its connection.
#[derive(Debug)]
pub(super) struct Seat {
    pub(super) link: Link,
    pub(super) address: Box<str>,
    pub(super) connection: Option<u64>,
    /// Distinguishes this link from an earlier one to the same node.
    pub(super) generation: u64,
}

impl Machine {
    pub(super) fn new(address: Box<str>, clock: SimClock) -> Self {
        Self {
            addresses: vec![address],
            folder: SimDisk::default(),
            holds: None,
            unit: None,
            members: None,
            unmounted: None,
            supports: Level::MAX,
            has_lost_files: false,
            clock,
            process: None,
            ended: None,
        }
    }

    /// The current address of the machine.
    pub(super) fn address(&self) -> Box<str> {
        self.addresses.last().cloned().expect("a machine has an address")
    }

    pub(super) fn is_in_memory(&self) -> bool {
        self.unit.as_ref().is_some_and(|unit| unit.is_in_memory)
    }

    pub(super) fn running(&self) -> Option<&Running> {
        match &self.process.as_ref()?.stage {
            Stage::Running(running) => Some(running),
            Stage::Searching(_) => None,
        }
    }

    pub(super) fn running_mut(&mut self) -> Option<&mut Running> {
        match &mut self.process.as_mut()?.stage {
            Stage::Running(running) => Some(running),
            Stage::Searching(_) => None,
        }
    }
}
