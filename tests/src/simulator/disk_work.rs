//! Disk operations of the simulated nodes, one at a time: those of the log and, beside them, those
//! of snapshots.
//!
//! Both kinds go to one disk: a fault hits whichever comes next, and a crash may come between any
//! two operations.

use std::sync::Arc;

use coracle_core::Input;
use coracle_core::host::SnapshotOrder;
use coracle_core::raft::{Body, LogPoint, Message};

use super::invariants::{Verdict, Violation};
use super::process::{DiskStep, Running};
use super::queue::SimEvent;
use super::snapshots::SnapshotStep;
use super::world::{OUTAGE_MAX, World};

impl World {
    pub(super) fn schedule_disk_step(&mut self, node: usize) {
        let Some(running) = &self.processes[node].running else { return };
        let delay = self.disk_time(node, running.next_op_is_sync());
        let life = self.processes[node].life;
        self.schedule(delay, SimEvent::DiskStep { node, life });
    }

    /// Draws the duration of the next operation.
    fn disk_time(&mut self, node: usize, is_sync: bool) -> u64 {
        let typical = if is_sync { self.settings.sync } else { self.settings.write };
        let slowness = if self.now < self.processes[node].disk_slow_until { 100 } else { 1 };
        let part = self.dice.exponential(typical / 2);
        // Without faults, a disk is never so slow that its leader would have to step down.
        let part = if self.has_faults { part } else { part.min(typical) };
        ((typical / 2 + part) * slowness).min(OUTAGE_MAX)
    }

    /// Crashes the process if it is to end before its next file operation. Returns whether it did.
    fn ends_before_operation(&mut self, node: usize) -> bool {
        let Some(left) = &mut self.processes[node].crash_after_ops else { return false };
        if *left > 0 {
            *left -= 1;
            return false;
        }
        self.trace.sight("a crash between two file operations");
        let down = 1000 + self.dice.exponential(300_000);
        self.crash(node, down);
        true
    }

    fn disk_failed(&mut self, node: usize) {
        self.trace.sight("a node stopped because its disk failed");
        let down = 100_000 + self.dice.exponential(1_000_000);
        self.crash(node, down);
    }

    pub(super) fn disk_step(&mut self, node: usize, life: u64) -> Verdict {
        if self.processes[node].life != life || self.ends_before_operation(node) {
            return Ok(());
        }
        let process = &mut self.processes[node];
        let Some(running) = &mut process.running else { return Ok(()) };
        match running.disk_step(&mut process.disk, &mut process.durable, &mut process.disk_fails) {
            DiskStep::More => self.schedule_disk_step(node),
            DiskStep::Done(id) => {
                self.trace.note(self.now, [3, node as u64, id.0], || {
                    format!("node {node}'s disk has done persist {}", id.0)
                });
                self.hand(node, Input::Persisted(id));
                self.begin_disk_work(node);
            }
            DiskStep::Renewed => {
                self.trace.sight("a piece of a log was made anew");
                self.begin_disk_work(node);
            }
            DiskStep::PutOff => {
                self.trace.sight("a log without room to be made anew stayed as it was");
                self.begin_disk_work(node);
            }
            DiskStep::Failed => self.disk_failed(node),
        }
        Ok(())
    }

    fn begin_disk_work(&mut self, node: usize) {
        if self.processes[node].running.as_mut().is_some_and(Running::begin_disk_work) {
            self.schedule_disk_step(node);
        }
    }

    /// Passes a node's order to write or read a part of a snapshot to its disk.
    pub(super) fn order_snapshot(&mut self, node: usize, order: SnapshotOrder) {
        if let SnapshotOrder::Write(part) = &order {
            self.trace.note(self.now, [16, node as u64, part.offset], || {
                let (last, bytes, end) = (part.meta.last.index, part.text.len(), part.end.is_some());
                format!(
                    "node {node} writes {bytes} bytes of snapshot {last} from {}, end: {end}",
                    part.offset
                )
            });
        }
        let Some(running) = &mut self.processes[node].running else { return };
        if running.snapshots.order(order) {
            let life = self.processes[node].life;
            self.schedule(0, SimEvent::SnapshotStep { node, life });
        }
    }

    pub(super) fn snapshot_step(&mut self, node: usize, life: u64) -> Verdict {
        if self.processes[node].life != life || self.ends_before_operation(node) {
            return Ok(());
        }
        let process = &mut self.processes[node];
        let Some(running) = &mut process.running else { return Ok(()) };
        let mut reports = Vec::new();
        let step = running.snapshots.step(self.now, &mut process.disk, &mut process.disk_fails, &mut reports);
        for (report, is_whole) in reports {
            self.snapshot_reports(node, report, is_whole);
        }
        let refused =
            |what: String| Err(Violation { property: "snapshots", what: format!("node {node}: {what}") });
        let delay = match step {
            SnapshotStep::Operate(is_sync) => self.disk_time(node, is_sync),
            SnapshotStep::Rest(pause) => u64::try_from(pause.as_micros()).unwrap_or(u64::MAX),
            SnapshotStep::Idle => return Ok(()),
            SnapshotStep::Failed => {
                self.disk_failed(node);
                return Ok(());
            }
            SnapshotStep::Refused(error) => return refused(error.to_string()),
            SnapshotStep::Lost(fault) => return refused(format!("it cannot read its own: {fault}")),
        };
        self.schedule(delay, SimEvent::SnapshotStep { node, life });
        Ok(())
    }

    fn snapshot_reports(&mut self, node: usize, report: Input, is_whole: bool) {
        match &report {
            Input::SnapshotWritten { last, bytes } => self.part_written(node, *last, *bytes, is_whole),
            Input::SnapshotPutOff { .. } => self.trace.sight("a snapshot without room was put off"),
            Input::SnapshotRead { part: None, .. } => {
                self.trace.sight("a snapshot to be read had given way to a newer one");
            }
            _ => {}
        }
        self.hand(node, report);
    }

    fn part_written(&mut self, node: usize, last: LogPoint, bytes: u64, is_whole: bool) {
        let process = &mut self.processes[node];
        let now = process.clock.local(self.now);
        let Some(running) = &mut process.running else { return };
        if is_whole {
            process.durable.snapshot = Some(last);
            let is_own = last.index <= running.replica.status().last_applied;
            if is_own {
                self.trace.sight("a snapshot was taken");
            }
            if is_own && running.replica.node().sends_snapshot(now) {
                self.trace.sight("a snapshot was taken while another one was sent");
            }
        }
        self.trace.note(self.now, [17, node as u64, bytes], || {
            format!("node {node} has written {bytes} bytes of snapshot {}, whole: {is_whole}", last.index)
        });
    }

    /// May flip a bit in a part of a snapshot in transit. The result is still valid text.
    pub(super) fn damaged_on_the_way(&mut self, mut message: Message) -> Message {
        if let Body::InstallSnapshot(part) = &mut message.body
            && !part.text.is_empty()
            && !self.network.is_calm
            && self.dice.happens(self.settings.damage)
        {
            let mut bytes = part.text.as_bytes().to_vec();
            let at = self.dice.position(bytes.len());
            if bytes[at].is_ascii() {
                bytes[at] ^= 1 << self.dice.below(7);
            }
            let text = String::from_utf8(bytes).expect("an ASCII byte became another one");
            part.text = Arc::from(text);
            self.trace.sight("fault: damaged snapshot part");
        }
        message
    }
}
