//! How processes begin and end: opening a folder, finding a cluster, taking part, and being told to go.

use std::collections::{BTreeMap, VecDeque};

use coracle_core::host::{ClusterSearch, Directory, NodeHost};
use coracle_core::peer::{Founders, LocalNode, Origin, Standing};
use coracle_core::raft::{Configuration, LogIndex, NodeId};
use coracle_core::{Incarnation, Replica, ReplicaLimits, SnapshotPolicy};
use coracle_storage::host::DiskQueue;
use coracle_storage::{MemberStart, Recovery, SyncPolicy, found_member, open_member};

use super::checks::violation;
use super::machine::{Process, Running, Stage, Unit};
use super::wiring::Connection;
use super::world::{Happening, World};
use crate::simulator::invariants::Verdict;
use crate::simulator::snapshots::SnapshotFiles;

/// Bytes of a snapshot that are handled at once: so few that there are several parts.
const PART_BYTES: usize = 200;

impl World {
    /// The machine's unit is started, unless its process runs, or ended for a reason that a start does not mend.
    pub(super) fn start(&mut self, machine: usize) -> Verdict {
        let place = &self.machines[machine];
        let Some(unit) = place.unit.clone() else { return Ok(()) };
        if place.process.is_some() || place.ended.is_some() {
            return Ok(());
        }
        self.last_boot += 1;
        let boot = self.last_boot;
        let fresh = Incarnation(u64::from(self.dice.below(u32::MAX)) << 16 | boot);
        let place = &mut self.machines[machine];
        let found = match open_member(unit.id, &place.folder.files(unit.id), fresh, SyncPolicy::Always) {
            Ok(found) => found,
            Err(error) => {
                return violation("a_folder_opens", format!("machine {machine}, node {}: {error}", unit.id));
            }
        };
        self.tell(|| format!("m{machine} starts node {} by {:?}", unit.id, unit.origin));
        let place = &mut self.machines[machine];
        match found {
            MemberStart::Unfounded { incarnation, creation } => {
                creation.iter().for_each(|op| place.folder.run(op));
                self.begin_search(machine, boot, &unit, incarnation);
                Ok(())
            }
            MemberStart::Founded(mut recovery) => {
                let repairs = std::mem::take(&mut recovery.repairs);
                repairs.iter().for_each(|op| place.folder.run(op));
                self.begin_part(machine, boot, unit.id, *recovery)
            }
        }
    }

    fn begin_search(&mut self, machine: usize, boot: u64, unit: &Unit, incarnation: Incarnation) {
        let (standing, address) = match &unit.origin {
            Origin::Found(peers) => (
                Standing::Founding(peers.clone()),
                peers.member(unit.id).map(|member| member.address.clone()),
            ),
            Origin::Join(_) => (Standing::Joining, None),
            Origin::Known => {
                // The program refuses: the folder is empty, and it was not told how to find a cluster.
                self.machines[machine].ended = Some("no origin".into());
                return;
            }
        };
        let local = local_node(unit.id, incarnation, boot, standing);
        let directory = Directory::new(local, address, BTreeMap::new());
        let search = ClusterSearch::new(unit.id, unit.origin.clone()).expect("it was told how");
        let stage = Stage::Searching(Box::new(search));
        self.machines[machine].process = Some(process(boot, unit.id, incarnation, directory, stage));
        self.schedule(1, Happening::Search { machine, boot });
    }

    /// A process has found its cluster: it makes its files and takes part.
    pub(super) fn has_found(
        &mut self,
        machine: usize,
        founders: &Founders,
        configuration: Option<&Configuration>,
    ) -> Verdict {
        let place = &mut self.machines[machine];
        let Some(process) = place.process.as_mut() else { return Ok(()) };
        let (boot, id, incarnation) = (process.boot, process.id, process.incarnation);
        let own = configuration.and_then(|joined| joined.roster().member(id));
        let joined_at = own.map(|own| own.address.clone());
        let (creation, recovery) = found_member(id, incarnation, founders, joined_at, SyncPolicy::Always);
        // The power may fail at any step: the next start does it again, or finds it done.
        let done = if self.dice.happens(100) { self.dice.position(creation.len()) } else { creation.len() };
        creation[..done].iter().for_each(|op| place.folder.run(op));
        if done < creation.len() {
            self.sight("a crash while a node made its files");
            self.crash(machine, true);
            self.schedule(100_000, Happening::Start(machine));
            return Ok(());
        }
        if let (Some(configuration), Some(process)) = (configuration, place.process.as_mut()) {
            let first = LocalNode::first_configuration(founders).expect("founders are few");
            let standing = Standing::Member(founders.clone(), first);
            process.directory.found(standing, Some(configuration));
        }
        let _ = boot;
        self.begin_part(machine, boot, id, recovery)
    }

    /// The node starts from what its folder holds.
    fn begin_part(&mut self, machine: usize, boot: u64, id: NodeId, recovery: Recovery) -> Verdict {
        let identity = recovery.identity.clone();
        let (incarnation, joined_at) = (identity.incarnation, identity.joined_at);
        let founders = Founders { cluster: identity.cluster, roster: identity.roster };
        let first = LocalNode::first_configuration(&founders).expect("founders are few");
        self.checks.belongs(founders.cluster, first.clone())?;
        let config = self.settings.member_config(id, incarnation, &founders).expect("settings that fit");
        let snapshots = SnapshotPolicy {
            log_entries: self.settings.snapshot_log_entries,
            part_bytes: PART_BYTES,
            ..SnapshotPolicy::default()
        };
        let limits = ReplicaLimits { snapshots, ..ReplicaLimits::default() };
        let seed = self.dice.below(u32::MAX).into();
        let now = self.local(machine);
        let was_named = recovery.restored.names(&first, id, incarnation);
        let latest = recovery.restored.latest_configuration();
        let (index, configuration) = latest.unwrap_or((LogIndex::ORIGIN, first));
        let restored = recovery.restored;
        let replica = Replica::with_limits(config, restored, seed, now, limits).expect("its own log");
        let mut planner = recovery.planner;
        planner.set_renewal_bytes(PART_BYTES);
        let running = Running {
            host: NodeHost::with_files(id, replica),
            inbox: Vec::new(),
            disk: DiskQueue::new(planner),
            ops: VecDeque::new(),
            snapshots: SnapshotFiles::new(recovery.snapshots, PART_BYTES),
        };
        let address = configuration.roster().member(id).map(|member| member.address.clone());
        let address = address.or(joined_at.filter(|_| !was_named));
        let mut local = local_node(id, incarnation, boot, Standing::Member(founders, configuration));
        (local.configuration_index, local.was_named) = (index, was_named);
        let stage = Stage::Running(Box::new(running));
        let place = &mut self.machines[machine];
        place.holds = Some((id, incarnation));
        match place.process.as_mut() {
            Some(process) => {
                let address = process.directory.address().map(Into::into).or(address);
                let mut directory = Directory::new(local, address, BTreeMap::new());
                std::mem::swap(&mut process.directory, &mut directory);
                process.stage = stage;
            }
            None => {
                let directory = Directory::new(local, address, BTreeMap::new());
                place.process = Some(process(boot, id, incarnation, directory, stage));
            }
        }
        self.tell(|| format!("m{machine} takes part as node {id} in {incarnation}"));
        let mut changes = Vec::new();
        if let Some(process) = self.machines[machine].process.as_mut() {
            process.directory.reach(now, &mut changes);
        }
        self.change_links(machine, changes);
        self.wake_at(machine, self.now);
        Ok(())
    }

    /// The process ends by itself: it is no member of its cluster, as far as it was told.
    pub(super) fn ends(&mut self, machine: usize, why: &str) -> Verdict {
        self.tell(|| format!("m{machine} ends: {why}"));
        let Some(process) = self.machines[machine].process.as_ref() else { return Ok(()) };
        let (id, incarnation) = (process.id, process.incarnation);
        self.crash(machine, false);
        self.machines[machine].ended = Some(why.to_owned());
        self.checks.ended(id, incarnation, why)
    }

    /// The process ends at once; with the power, what its disk had not synced may be lost.
    pub(super) fn crash(&mut self, machine: usize, is_power: bool) {
        let place = &mut self.machines[machine];
        if place.process.take().is_none() {
            return;
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

fn local_node(id: NodeId, incarnation: Incarnation, boot: u64, standing: Standing) -> LocalNode {
    LocalNode {
        id,
        incarnation,
        client_address: None,
        boot,
        standing,
        configuration_index: LogIndex::ORIGIN,
        is_settled: false,
        was_named: false,
    }
}

fn process(boot: u64, id: NodeId, incarnation: Incarnation, directory: Directory, stage: Stage) -> Process {
    Process {
        boot,
        id,
        incarnation,
        directory,
        stage,
        links: BTreeMap::new(),
        inbound: BTreeMap::new(),
        busy_until: 0,
        wake_at: None,
    }
}
