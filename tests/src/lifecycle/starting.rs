//! Start and end of processes: opening a folder, finding a cluster, taking part, and ending after a
//! removal.

use std::collections::{BTreeMap, VecDeque};

use coracle_core::host::{
    ClusterSearch, Forwarder, NodeHost, PeerActions, PeerPlaces, REMOVAL_GRACE, Removal, Settings,
};
use coracle_core::memory::MemoryBudget;
use coracle_core::peer::{Founders, HandshakeRefusal, LocalNode, Origin};
use coracle_core::raft::Configuration;
use coracle_core::{Incarnation, Replica, ReplicaLimits, SnapshotPolicy};
use coracle_storage::SyncPolicy;
use coracle_storage::host::{
    DiskQueue, FolderNames, FoundMember, MemberOpening, MemberOptions, OpenedMember, StartError,
};
use coracle_storage::{Medium, Recovery, found_member};

use super::checks::violation;
use super::machine::{Process, REMOVED, Running, Searching, Stage, Unit};
use super::wiring::Connection;
use super::world::{SimEvent, World};
use crate::simulator::disk::SimDisk;
use crate::simulator::invariants::{Verdict, Violation};
use crate::simulator::snapshots::SnapshotFiles;

/// The size of snapshot parts in bytes: so small that a snapshot has several.
const PART_BYTES: usize = 200;

impl World {
    /// Starts the machine's unit, unless its process runs, or ended for a reason that a restart
    /// does not fix.
    pub(super) fn start(&mut self, machine: usize) -> Verdict {
        let place = &self.machines[machine];
        let Some(unit) = place.unit.clone() else { return Ok(()) };
        if place.process.is_some() || place.ended.is_some() {
            return Ok(());
        }
        self.last_boot += 1;
        let boot = self.last_boot;
        let fresh = Incarnation(u64::from(self.dice.below(u32::MAX)) << 16 | boot);
        let judged = self.judge(&unit, &self.machines[machine].folder, (fresh, boot));
        let place = &mut self.machines[machine];
        let mut found = match judged {
            Ok(found) => found,
            Err(StartError::NoOrigin) => {
                place.ended = Some("no origin".into());
                return Ok(());
            }
            Err(error) => {
                return violation("a_folder_opens", format!("machine {machine}, node {}: {error}", unit.id));
            }
        };
        found.operations().iter().for_each(|op| place.folder.run(op));
        let address = found.address();
        let mut opened = found.opened(None);
        opened.local.supports = place.supports;
        if opened.founders().is_some() && address.is_none() && !opened.local.was_named {
            let what =
                format!("machine {machine} does not know where it is, and never was a member elsewhere");
            return violation("a_folder_opens", what);
        }
        self.tell(|| format!("m{machine} starts node {} by {:?}", unit.id, unit.origin));
        let memory = MemoryBudget::unlimited().with_shares(self.shares);
        let (directory, _) = opened.directory(BTreeMap::new(), PeerPlaces::default(), memory.clone());
        let (local, founders) = (opened.local.clone(), opened.founders());
        // A node with a cluster does not search, so its search is not used.
        let search = ClusterSearch::new(unit.id, unit.origin.clone());
        let stage = match (founders.as_ref(), search) {
            (Some(founders), _) => self.takes_part(machine, &local, founders, opened)?,
            (None, Some(search)) => {
                Stage::Searching(Box::new(Searching { search, opened: Some(opened), refused_since: None }))
            }
            (None, None) => unreachable!("it was refused: it has no origin"),
        };
        self.machines[machine].process = Some(Process {
            boot,
            id: local.id,
            incarnation: local.incarnation,
            supports: local.supports,
            directory,
            memory,
            stage,
            links: BTreeMap::new(),
            forwarder: Forwarder::new(boot),
            inbound: BTreeMap::new(),
            removal: Removal::default(),
            is_dismissed: false,
            knows_its_removal: false,
            busy_until: 0,
            wake_at: None,
        });
        match founders {
            Some(_) => self.begin_part(machine),
            None => self.schedule(1, SimEvent::Search { machine, boot }),
        }
        Ok(())
    }

    /// Opens this folder as the real program would.
    pub(super) fn judge(
        &self,
        unit: &Unit,
        folder: &SimDisk,
        (fresh, boot): (Incarnation, u64),
    ) -> Result<FoundMember, StartError> {
        let mut opening = MemberOpening::with_numbers(&options(unit, &self.settings), fresh, boot);
        opening.nodes().into_iter().for_each(|node| opening.look(&folder.files(node)));
        opening.judge(&FolderNames(folder.names()))
    }

    /// Lets a process take part in the cluster that it has found: it creates its files first.
    pub(super) fn has_found(
        &mut self,
        machine: usize,
        mut opened: OpenedMember,
        founders: &Founders,
        configuration: Option<&Configuration>,
    ) -> Verdict {
        if self.was_misled(machine, founders.cluster) {
            return Ok(());
        }
        let creation = opened.found(founders, configuration).expect("founders are few");
        let local = opened.local.clone();
        match configuration {
            Some(joined) => self.checks.at(machine).lets_in(local.id, joined)?,
            None => self.founds_with_founders((local.id, local.incarnation), founders)?,
        }
        // The power may fail at any step. The next start repeats the step, or finds it done.
        let is_interrupted = self.dice.happens(100) && !creation.is_empty();
        let done = if is_interrupted { self.dice.position(creation.len()) } else { creation.len() };
        let place = &mut self.machines[machine];
        creation[..done].iter().for_each(|op| place.folder.run(op));
        if done < creation.len() {
            self.sight("a crash while a node made its files");
            self.crash(machine, true);
            self.schedule(100_000, SimEvent::Start(machine));
            return Ok(());
        }
        let stage = self.takes_part(machine, &local, founders, opened)?;
        if let Some(process) = self.machines[machine].process.as_mut() {
            process.directory.found(local.standing, configuration);
            process.stage = stage;
        }
        self.begin_part(machine);
        Ok(())
    }

    /// Creates the running node from the content of its folder.
    fn takes_part(
        &mut self,
        machine: usize,
        local: &LocalNode,
        founders: &Founders,
        opened: OpenedMember,
    ) -> Result<Stage, Violation> {
        let first = LocalNode::first_configuration(founders).expect("founders are few");
        self.checks.of(machine).belongs(founders.cluster, first)?;
        let (id, incarnation) = (local.id, local.incarnation);
        let config = self.settings.member_config(local, founders).expect("settings that fit");
        let config = self.limited(config);
        let snapshots = SnapshotPolicy {
            log_entries: self.settings.snapshot_log_entries,
            part_bytes: PART_BYTES,
            ..SnapshotPolicy::default()
        };
        let limits = ReplicaLimits { snapshots, supports: local.supports, ..ReplicaLimits::default() };
        let limits = self.shares.limit_replica(limits);
        let seed = self.dice.below(u32::MAX).into();
        let now = self.local(machine);
        // A node in memory has no files, so its planner is unused.
        let files = opened.files().map(|files| files.recovery);
        let is_in_memory = files.is_none();
        let unused = || found_member(id, incarnation, founders, None, SyncPolicy::Always).1;
        let Recovery { restored, mut planner, snapshots, .. } = files.unwrap_or_else(unused);
        let replica = Replica::with_limits(config, restored, seed, now, limits).expect("its own log");
        planner.set_renewal_bytes(PART_BYTES);
        if !self.is_copy(machine) {
            self.machines[machine].holds = Some((id, incarnation));
        }
        self.tell(|| format!("m{machine} takes part as node {id} in {incarnation}"));
        Ok(Stage::Running(Box::new(Running {
            host: if is_in_memory {
                self.sight("a node in memory takes part");
                NodeHost::in_memory(id, replica)
            } else {
                NodeHost::with_files(id, replica)
            },
            inbox: Vec::new(),
            disk: DiskQueue::new(planner),
            ops: VecDeque::new(),
            snapshots: SnapshotFiles::new(snapshots, PART_BYTES),
        })))
    }

    /// Dials the other nodes, and schedules the first turn.
    fn begin_part(&mut self, machine: usize) {
        let now = self.local(machine);
        let mut actions = PeerActions::default();
        if let Some(process) = self.machines[machine].process.as_mut() {
            process.directory.reach(now, &mut actions);
        }
        self.carry_out_for_directory(machine, actions);
        self.wake_at(machine, self.now);
    }

    /// Checks a node without a cluster that was rejected because its id belongs to another
    /// incarnation. That must not happen to a founder that never lost its files.
    pub(super) fn lost_its_files(&mut self, machine: usize, refusal: &HandshakeRefusal) -> Verdict {
        if self.machines[machine].is_in_memory() {
            self.sight("a node in memory was refused after its restart");
        }
        let place = &self.machines[machine];
        let founds = place.unit.as_ref().is_some_and(|unit| matches!(unit.origin, Origin::Found(_)));
        let what = || format!("machine {machine} never lost a file, and is refused: {refusal}");
        if founds && !place.has_lost_files { violation("a_founder_is_let_in", what()) } else { Ok(()) }
    }

    /// Checks a node that has read its removal in its log and is about to end: its next start must
    /// find that entry in its folder.
    pub(super) fn removal_is_on_the_disk(&self, machine: usize, refusal: &HandshakeRefusal) -> Verdict {
        let place = &self.machines[machine];
        let (Some(process), HandshakeRefusal::Removed { index, .. }) = (&place.process, refusal) else {
            return Ok(());
        };
        // A snapshot that covers the removal is not installed. The disk keeps the entries that name
        // the node, and other nodes notify it again.
        let is_of_snapshot = matches!(&process.stage, Stage::Running(running)
            if running.host.replica().node().log().last().index.0 < *index);
        if place.is_in_memory() || is_of_snapshot {
            return Ok(());
        }
        let unit = Unit::new(process.id, Origin::Known);
        let judged = self.judge(&unit, &place.folder.durable_image(), (Incarnation(1), 1));
        let known = judged.map(|mut found| {
            // The repairs are for a real start. This image is only read.
            let _ = found.operations();
            found.opened(None).local.configuration_index.0
        });
        let what = || format!("machine {machine} was removed by entry {index}, and its disk holds {known:?}");
        if known.as_ref().is_ok_and(|known| known >= index) {
            Ok(())
        } else {
            violation("a_removal_is_on_the_disk", what())
        }
    }

    /// Notifies the process that it is no member. It continues for a grace period and then ends.
    pub(super) fn hears_of_its_removal(&mut self, machine: usize, refusal: HandshakeRefusal) {
        let now = self.local(machine);
        self.tell(|| format!("m{machine} hears: {refusal}"));
        let end = self.machines[machine].clock.world(now + REMOVAL_GRACE);
        let Some(process) = self.machines[machine].process.as_mut() else { return };
        process.removal.hear(refusal, now);
        let boot = process.boot;
        self.schedule(end - self.now, SimEvent::Farewell { machine, boot });
    }

    /// Ends a process whose grace period is over.
    pub(super) fn say_farewell(&mut self, machine: usize, boot: u64) -> Verdict {
        let now = self.local(machine);
        let Some(process) = self.process_of(machine, boot) else { return Ok(()) };
        let Some(refusal) = process.removal.is_due(now) else { return Ok(()) };
        let prefix = if process.knows_its_removal { REMOVED } else { "" };
        self.ends(machine, &format!("{prefix}{refusal}"))
    }

    /// Ends the process by itself, because it was notified that it is no member of its cluster.
    pub(super) fn ends(&mut self, machine: usize, why: &str) -> Verdict {
        self.tell(|| format!("m{machine} ends: {why}"));
        let Some(process) = self.machines[machine].process.as_ref() else { return Ok(()) };
        let (id, incarnation) = (process.id, process.incarnation);
        let is_copy = self.is_copy(machine);
        self.crash(machine, false);
        self.machines[machine].ended = Some(why.to_owned());
        if is_copy {
            self.remove_the_copy();
            return Ok(());
        }
        self.checks.at(machine).ended(id, incarnation, why)
    }

    /// Ends the process at once. If the power fails, data that its disk had not synced may be lost.
    pub(super) fn crash(&mut self, machine: usize, is_power: bool) {
        let place = &mut self.machines[machine];
        if place.process.take().is_none() {
            return;
        }
        if place.is_in_memory() {
            (place.holds, place.has_lost_files) = (None, true);
        }
        if is_power {
            place.folder.crash(&mut self.dice);
        }
        let gone = |connection: &Connection| connection.from == machine || connection.to == machine;
        let ended: Vec<_> =
            self.connections.iter().filter(|(_, it)| gone(it)).map(|(number, _)| *number).collect();
        ended.into_iter().for_each(|number| self.break_connection(number));
    }
}

/// The options on the unit's command line.
fn options(unit: &Unit, settings: &Settings) -> MemberOptions {
    MemberOptions {
        settings: settings.clone(),
        id: unit.id,
        origin: unit.origin.clone(),
        medium: if unit.is_in_memory {
            Medium::Memory
        } else {
            Medium::Folder { path: "data".into(), sync: SyncPolicy::Always }
        },
        listen: None,
        admin_listen: None,
        peer_listen: None,
        peers_on_loopback_only: false,
        dial_overrides: BTreeMap::new(),
    }
}
