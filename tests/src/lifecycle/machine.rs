//! A machine: an address, a data folder, and the process that runs there.

use std::collections::{BTreeMap, VecDeque};

use coracle_core::Incarnation;
use coracle_core::host::{ClusterSearch, Directory, Forwarder, HostInput, Inbound, Link, NodeHost, Removal};
use coracle_core::memory::MemoryBudget;
use coracle_core::peer::Origin;
use coracle_core::raft::{Configuration, NodeId};
use coracle_storage::FileOp;
use coracle_storage::host::{DiskQueue, OpenedMember};

use crate::simulator::disk::SimDisk;
use crate::simulator::process::SimClock;
use crate::simulator::snapshots::SnapshotFiles;

/// How the reason begins for which a removed node ends.
pub(super) const REMOVED: &str = "removed: ";

/// What the machine's unit file starts.
#[derive(Clone, Debug)]
pub(super) struct Unit {
    pub(super) id: NodeId,
    pub(super) origin: Origin,
    /// It keeps everything in memory.
    pub(super) is_in_memory: bool,
}

impl Unit {
    pub(super) fn new(id: NodeId, origin: Origin) -> Self {
        Self { id, origin, is_in_memory: false }
    }
}

/// A machine. It answers at every address that it ever had: moving is for the operator to order,
/// and may be refused.
#[derive(Debug)]
pub(super) struct Machine {
    pub(super) addresses: Vec<Box<str>>,
    pub(super) folder: SimDisk,
    /// Which node's promises the folder keeps, once the node has its cluster.
    pub(super) holds: Option<(NodeId, Incarnation)>,
    /// Who the members are by the log in the folder, committed or not, also while no process runs.
    pub(super) members: Option<Configuration>,
    pub(super) unit: Option<Unit>,
    /// The folder, and whose it is, while its volume is not mounted.
    pub(super) unmounted: Option<(SimDisk, Option<(NodeId, Incarnation)>)>,
    /// Whether it ever lost a folder.
    pub(super) has_lost_files: bool,
    pub(super) clock: SimClock,
    pub(super) process: Option<Process>,
    /// Why the last process ended by itself: nobody starts it again without doing something about
    /// it.
    pub(super) ended: Option<String>,
}

/// A running process.
#[derive(Debug)]
pub(super) struct Process {
    /// Which run this is, of all runs of all machines.
    pub(super) boot: u64,
    pub(super) id: NodeId,
    pub(super) incarnation: Incarnation,
    pub(super) directory: Directory,
    /// What links and frames count in.
    pub(super) memory: MemoryBudget,
    pub(super) stage: Stage,
    pub(super) links: BTreeMap<NodeId, Seat>,
    pub(super) forwarder: Forwarder,
    pub(super) inbound: BTreeMap<u64, Inbound>,
    /// What it was told if it is no member: it goes on for a moment.
    pub(super) removal: Removal,
    /// Whether it was told so before its last turn.
    pub(super) is_dismissed: bool,
    /// Whether its own log says so, on its disk.
    pub(super) knows_its_removal: bool,
    /// It does nothing before this time.
    pub(super) busy_until: u64,
    /// When it is to be woken next.
    pub(super) wake_at: Option<u64>,
}

/// How far a process is.
#[derive(Debug)]
pub(super) enum Stage {
    /// It looks for its cluster.
    Searching(Box<Searching>),
    /// It takes part.
    Running(Box<Running>),
}

/// A node without a cluster.
#[derive(Debug)]
pub(super) struct Searching {
    pub(super) search: ClusterSearch,
    /// What its folder was opened as, until it has found its cluster.
    pub(super) opened: Option<OpenedMember>,
    /// When it was first refused because its id is a member in another incarnation.
    pub(super) refused_since: Option<u64>,
}

/// A node that takes part.
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
    /// Tells this link from an earlier one to the same node.
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
            has_lost_files: false,
            clock,
            process: None,
            ended: None,
        }
    }

    /// The address that it is known by.
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
