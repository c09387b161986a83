//! Disk operations of the simulated machines: those of the log and, beside them, those of
//! snapshots.

use coracle_core::Input;
use coracle_core::host::HostInput;
use coracle_storage::FileOp;

use super::checks::violation;
use super::machine::{Process, Stage};
use super::world::{SimEvent, World};
use crate::simulator::invariants::Verdict;
use crate::simulator::snapshots::SnapshotStep;

/// The typical duration of one disk operation, in microseconds.
const DISK: u64 = 800;

impl World {
    pub(super) fn begin_disk_work(&mut self, machine: usize) {
        let boot = self.machines[machine].process.as_ref().map_or(0, |process| process.boot);
        let Some(running) = self.machines[machine].running_mut() else { return };
        if running.disk.is_working() {
            return;
        }
        let Some(ops) = running.disk.begin() else { return };
        running.ops = ops.into();
        let delay = DISK / 4 + self.dice.exponential(DISK);
        self.schedule(delay, SimEvent::DiskStep { machine, boot });
    }

    /// Executes one operation of the log.
    pub(super) fn disk_step(&mut self, machine: usize, boot: u64) {
        if self.process_of(machine, boot).is_none() {
            return;
        }
        let place = &mut self.machines[machine];
        let Some(Process { stage: Stage::Running(running), .. }) = place.process.as_mut() else { return };
        // Operations that are no sync complete at once, together with the sync that follows them.
        while let Some(op) = running.ops.pop_front() {
            place.folder.run(&op);
            if matches!(op, FileOp::Sync { .. } | FileOp::SyncFolder) && !running.ops.is_empty() {
                let delay = DISK / 4 + self.dice.exponential(DISK);
                return self.schedule(delay, SimEvent::DiskStep { machine, boot });
            }
        }
        if let Some(id) = running.disk.finish() {
            self.hand(machine, HostInput::Core(Input::Persisted(id)));
        }
        self.begin_disk_work(machine);
    }

    pub(super) fn snapshot_step(&mut self, machine: usize, boot: u64) -> Verdict {
        if self.process_of(machine, boot).is_none() {
            return Ok(());
        }
        let now = self.now;
        let place = &mut self.machines[machine];
        let Some(Process { stage: Stage::Running(running), .. }) = place.process.as_mut() else {
            return Ok(());
        };
        let mut reports = Vec::new();
        let step = running.snapshots.step(now, &mut place.folder, &mut None, &mut reports);
        for (report, is_whole) in reports {
            if is_whole {
                self.sight("a snapshot was taken or installed");
            }
            self.hand(machine, HostInput::Core(report));
        }
        let delay = match step {
            SnapshotStep::Operate(_) => self.dice.exponential(DISK),
            SnapshotStep::Rest(pause) => u64::try_from(pause.as_micros()).unwrap_or(u64::MAX),
            SnapshotStep::Idle => return Ok(()),
            SnapshotStep::Failed => unreachable!("no disk fails here"),
            SnapshotStep::Refused(error) => return violation("snapshots", error.to_string()),
            SnapshotStep::Lost(fault) => return violation("snapshots", fault.to_string()),
        };
        self.schedule(delay, SimEvent::SnapshotStep { machine, boot });
        Ok(())
    }
}
