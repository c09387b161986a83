//! Backups and restores: the operator takes a backup of the running cluster, restores it as a new
//! cluster on spare machines, and grows that to three nodes beside the old one.
//!
//! The new cluster has nodes with the same ids as the old one, and its first machine also answers
//! at an address of the old one while no other machine does, as when a restore replaces a failed
//! cluster. Still the two never mix: each process belongs to the cluster of its machine. The
//! history of the new cluster begins with the backup, and a backup holds everything that was
//! acknowledged before it was requested.

use std::collections::{BTreeMap, BTreeSet};

use coracle_core::host::HostInput;
use coracle_core::kv::{Command, Key, Query, SessionLimits, State, Value};
use coracle_core::peer::Origin;
use coracle_core::raft::{LogIndex, NodeId, Role, SnapshotPart};
use coracle_core::{
    Answer, BackupPiece, ClusterId, Incarnation, Input, MemberChange, MemberOrder, Request, RequestId,
};
use coracle_storage::{BackupSum, SnapshotFile, backup_header, first_member, restore};

use super::checks::{Checks, violation};
use super::clients::{CLIENTS, key_of};
use super::machine::Unit;
use super::world::{MACHINES, SimEvent, World};
use crate::simulator::disk::SimDisk;
use crate::simulator::invariants::Verdict;

/// The number of machines for the restored cluster.
pub(super) const SPARE: usize = 3;
/// The typical time between actions of its operator and clients, in microseconds.
const EVERY: u64 = 100_000;
/// The time in which it has three voters and serves, once the faults have ended, in simulated
/// microseconds.
const GROWN: u64 = 20_000_000;
/// The first number that its clients write, so that none equals that of a write to the other
/// cluster.
const FIRST_NUMBER: u64 = 1_000_000;

/// The backup in progress, the completed backup file, and the pending requests of the restored
/// cluster's clients.
#[derive(Debug, Default)]
pub(super) struct Restores {
    reading: Option<Reading>,
    file: Option<Vec<u8>>,
    pub(super) is_founded: bool,
    asked: BTreeMap<RequestId, RestoredAsk>,
    numbers: u64,
    acknowledged: LogIndex,
    acknowledgements: u64,
}

/// A backup that is being read from a node.
#[derive(Debug)]
struct Reading {
    machine: usize,
    boot: u64,
    /// The highest index that any client had seen when the backup was requested.
    floor: LogIndex,
    text: String,
    sum: BackupSum,
}

#[derive(Debug)]
enum RestoredAsk {
    Write { key: String, number: u64 },
    Read { key: String, floor: LogIndex },
    Order,
}

impl World {
    /// Takes a backup, or restores the one that the operator has.
    pub(super) fn back_up_or_restore(&mut self) -> Verdict {
        if self.restores.is_founded {
            return Ok(());
        }
        if self.restores.file.is_some() {
            return self.restore();
        }
        let lost = self.restores.reading.take_if(|reading| {
            let process = self.machines[reading.machine].process.as_ref();
            process.is_none_or(|process| process.boot != reading.boot)
        });
        if lost.is_some() {
            self.sight("a backup was broken off");
        }
        let machine = self.dice.position(MACHINES);
        let boot = self.machines[machine].process.as_ref().map(|process| process.boot);
        if let (Some(boot), None) = (boot, &self.restores.reading) {
            let (floor, text, sum) = (self.clients.acknowledged, String::new(), BackupSum::default());
            self.restores.reading = Some(Reading { machine, boot, floor, text, sum });
            self.ask_for_backup(BackupPiece::New);
        }
        Ok(())
    }

    /// Requests the next piece. If the node does not run, there is no answer, and the operator
    /// notices that later.
    pub(super) fn ask_for_backup(&mut self, piece: BackupPiece) {
        let Some(Reading { machine, boot, .. }) = self.restores.reading else { return };
        if self.process_of(machine, boot).is_some() {
            let id = self.clients.expect(super::clients::Asked::Backup);
            self.hand(machine, HostInput::Core(Input::Request(id, Request::Backup(piece))));
        }
    }

    /// Processes a piece of the backup, or the answer that there is none yet, or none any more.
    pub(super) fn backup_answered(&mut self, answer: &Answer) -> Verdict {
        match answer {
            Answer::BackupPending(index) => {
                let piece = BackupPiece::Covering(*index);
                self.schedule(20_000, SimEvent::AskForBackup(piece));
            }
            Answer::BackupPart(part) => return self.backup_part(part),
            _ => self.restores.reading = None,
        }
        Ok(())
    }

    fn backup_part(&mut self, part: &SnapshotPart) -> Verdict {
        let Some(reading) = &mut self.restores.reading else { return Ok(()) };
        reading.sum.add(&part.text);
        reading.text.push_str(&part.text);
        let Some(end) = part.end else {
            let (last, offset) = (part.meta.last, reading.sum.bytes());
            self.ask_for_backup(BackupPiece::At { last, offset });
            return Ok(());
        };
        let Some(Reading { floor, text, sum, .. }) = self.restores.reading.take() else { return Ok(()) };
        let last = part.meta.last.index;
        if last < floor {
            let what = format!("a backup as of {last}, and {floor} was acknowledged when it was asked for");
            return violation("backup_holds_all", what);
        }
        let mut file = backup_header(part.meta.clone(), &text);
        file.extend(text.as_bytes());
        match sum.finish(end) {
            Ok(line) => file.extend(line),
            Err(broken) => return violation("backup_holds_all", broken.to_string()),
        }
        self.sight("a backup was taken");
        self.restores.file = Some(file);
        self.checks.first.is_held(last, &text)
    }

    /// Runs `coracle restore` on a spare machine. An interrupted restore is removed and done again.
    fn restore(&mut self) -> Verdict {
        let Some(file) = self.restores.file.take() else { return Ok(()) };
        let backup = match SnapshotFile::decode(&file) {
            Ok(backup) => backup,
            Err(fault) => return violation("backup_holds_all", fault.to_string()),
        };
        let machine = MACHINES;
        let id = NodeId(1 + u64::from(self.dice.below(3)));
        let cluster = ClusterId(u128::from(self.dice.below(u32::MAX)) | 1 << 64);
        let incarnation = Incarnation(u64::from(self.dice.below(u32::MAX)) << 16 | 0xffff);
        let identity = first_member(id, self.machines[machine].address(), cluster, incarnation);
        let ops = restore(&backup, std::slice::from_ref(&identity));
        if self.dice.happens(300) {
            self.sight("a restore was interrupted");
            let done = self.dice.position(ops.len());
            let place = &mut self.machines[machine];
            ops[..done].iter().for_each(|op| place.folder.run(op));
            place.folder = SimDisk::default();
        }
        let taken_over = self.dice.position(MACHINES);
        let taken_over = self.machines[taken_over].address();
        let place = &mut self.machines[machine];
        ops.iter().for_each(|op| place.folder.run(op));
        place.addresses.insert(0, taken_over);
        place.unit = Some(Unit::new(id, Origin::Known));
        self.tell(|| format!("m{machine} is restored as node {id} of cluster {cluster}"));
        self.sight("a backup was restored");
        self.checks.restored = self.checks.first.restored(&backup, &identity);
        (self.restores.is_founded, self.restores.numbers) = (true, FIRST_NUMBER);
        self.schedule(1, SimEvent::Start(machine));
        self.schedule(EVERY, SimEvent::Restored);
        Ok(())
    }

    /// Lets the operator and the clients of the restored cluster act.
    pub(super) fn restored_acts(&mut self) {
        let pause = 1 + self.dice.exponential(EVERY);
        self.schedule(pause, SimEvent::Restored);
        let Some(leader) = self.leader_among(MACHINES..MACHINES + SPARE) else { return };
        self.grow_restored(leader);
        self.restores.numbers += 1;
        let (key, number) = (key_of(self.dice.position(CLIENTS)), self.restores.numbers);
        let value = Value::from_json(&number.to_string()).expect("a number is JSON");
        let named = Key::new(&key).expect("a short key");
        let command = Command::Put { key: named.clone(), value };
        self.ask_restored(leader, Request::write(command), RestoredAsk::Write { key: key.clone(), number });
        let (machine, floor) = (MACHINES + self.dice.position(SPARE), self.restores.acknowledged);
        let request = Request::LinearizableRead(Query::Value(named));
        self.ask_restored(machine, request, RestoredAsk::Read { key, floor });
    }

    /// Takes one step towards three voters. Their ids also exist in the old cluster.
    fn grow_restored(&mut self, leader: usize) {
        let Some(running) = self.machines[leader].running() else { return };
        let members = running.host.replica().node().configuration().clone();
        let learner = members.learners().first().copied();
        let change = match learner {
            Some(learner) => MemberChange::Promote(learner),
            None if members.members().len() >= SPARE => return,
            None => {
                let machine = MACHINES + members.members().len();
                let taken: BTreeSet<_> = members.members().iter().map(|member| member.0).collect();
                let id = (1..).find(|id| !taken.contains(id)).map_or(NodeId(0), NodeId);
                MemberChange::AddLearnerAt(id, self.machines[machine].address())
            }
        };
        if let MemberChange::AddLearnerAt(id, _) | MemberChange::Promote(id) = &change {
            self.start_restored_joiner(*id, members.members().len(), learner.is_some());
        }
        let order = MemberOrder { change, given_for: None, insists: false };
        self.ask_restored(leader, Request::ChangeMembers(order), RestoredAsk::Order);
    }

    /// Starts the machine of the member that is to join. Sometimes it joins the old cluster first,
    /// by mistake, and waits there.
    fn start_restored_joiner(&mut self, id: NodeId, members: usize, is_added: bool) {
        let machine = MACHINES + members - usize::from(is_added);
        let right = self.machines[MACHINES].address();
        let place = &self.machines[machine];
        let is_right = |unit: &Unit| matches!(&unit.origin, Origin::Join(address) if *address == right);
        let is_on_its_way = place.process.is_some() && place.unit.as_ref().is_some_and(is_right);
        if place.holds.is_some() || is_on_its_way {
            return;
        }
        let is_mistaken = self.dice.happens(300);
        if is_mistaken {
            self.sight("a joiner of the restored cluster was pointed at the old one");
        }
        let old = self.dice.position(MACHINES);
        let address = if is_mistaken { self.machines[old].address() } else { right };
        self.crash(machine, false);
        let place = &mut self.machines[machine];
        (place.unit, place.ended) = (Some(Unit::new(id, Origin::Join(address))), None);
        self.schedule(1, SimEvent::Start(machine));
    }

    /// Returns whether a joiner has found the wrong cluster, because a node of that cluster answers
    /// at the address that it was given and waits for its id. No node can detect this mistake. The
    /// joiner takes no part yet, and its machine is cleaned up.
    pub(super) fn was_misled(&mut self, machine: usize, found: ClusterId) -> bool {
        let (old, spare) = self.machines.split_at(MACHINES);
        let (others, cluster) = if machine < MACHINES {
            (spare, self.checks.restored.cluster)
        } else {
            (old, self.checks.first.cluster)
        };
        let origin = self.machines[machine].unit.as_ref().map(|unit| &unit.origin);
        let Some(Origin::Join(via)) = origin.filter(|_| cluster == Some(found)) else { return false };
        if !others.iter().any(|place| place.addresses.contains(via)) {
            return false;
        }
        self.crash(machine, false);
        let place = &mut self.machines[machine];
        (place.folder, place.unit) = (SimDisk::default(), None);
        self.sight("a joiner found the other cluster where it was told to join");
        true
    }

    fn ask_restored(&mut self, machine: usize, request: Request, ask: RestoredAsk) {
        if self.machines[machine].running().is_some() {
            let id = self.clients.next_id();
            self.restores.asked.insert(id, ask);
            self.hand(machine, HostInput::Core(Input::Request(id, request)));
        }
    }

    /// Checks an answer of a node of the restored cluster.
    pub(super) fn restored_answered(
        &mut self,
        node: (NodeId, Incarnation),
        id: RequestId,
        answer: &Answer,
    ) -> Verdict {
        let checks = &self.checks.restored;
        match (self.restores.asked.remove(&id), answer) {
            (Some(RestoredAsk::Write { key, number }), Answer::Applied { index, .. }) => {
                checks.acknowledged(&key, number, *index)?;
                self.restores.acknowledged = self.restores.acknowledged.max(*index);
                self.restores.acknowledgements += 1;
            }
            (Some(RestoredAsk::Read { key, floor }), Answer::Read { index, found }) => {
                checks.was_read_linearizably(&key, *index, floor)?;
                checks.was_read(&key, *index, found, node)?;
                self.sight("a restored cluster answered a read");
            }
            _ => {}
        }
        Ok(())
    }

    /// Checks that the restored cluster gets its three voters and serves.
    pub(super) fn restored_cluster_serves(&mut self) -> Verdict {
        let (end, before) = (self.now + GROWN, self.restores.acknowledgements);
        let voters = |world: &Self| {
            let leader = world.leader_among(MACHINES..MACHINES + SPARE)?;
            let node = world.machines[leader].running()?.host.replica().node();
            let leads = node.role() == Role::Leader && !node.configuration().is_joint();
            leads.then(|| node.configuration().voters().nodes().len())
        };
        while self.restores.is_founded {
            if voters(self) == Some(SPARE) && self.restores.acknowledgements > before + 3 {
                self.sight("a restored cluster grew to three and served");
                break;
            }
            if self.now >= end {
                let what = format!("{:?} voters after {} s", voters(self), GROWN / 1_000_000);
                return violation("a_restored_cluster_serves", what);
            }
            self.run_until(self.now + 100_000)?;
        }
        Ok(())
    }
}

impl Checks {
    /// Checks that a backup as of `last` holds the latest number of each key at that index, and
    /// nothing else.
    fn is_held(&self, last: LogIndex, content: &str) -> Verdict {
        let mut state = State::new(SessionLimits::default());
        for line in content.lines() {
            if state.restore(line).is_err() {
                return violation("backup_holds_all", format!("it has the line {line}"));
            }
        }
        let expected = self.values_at(last);
        let found = |key: &str| state.store().value(key).map(|value| value.as_json().to_owned());
        let wrong = expected.iter().find(|(key, number)| found(key) != Some(number.to_string()));
        if let Some((key, number)) = wrong {
            let what = format!("as of {last} {key} is {number}, and the backup has {:?}", found(key));
            return violation("backup_holds_all", what);
        }
        let (held, written) = (state.store().len(), expected.len());
        let what = || format!("as of {last} there are {written} keys, and the backup has {held}");
        if held == written { Ok(()) } else { violation("backup_holds_all", what()) }
    }
}
