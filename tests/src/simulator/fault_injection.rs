//! Fault injection: chooses the kind, place and duration of the next fault.

use coracle_core::host::RouterInput;
use coracle_core::raft::NodeId;

use super::invariants::Verdict;
use super::process::DiskFault;
use super::queue::SimEvent;
use super::settings::{Ending, Fault};
use super::world::World;

/// The longest time for which a process is down, in microseconds. When the faults end, all
/// processes that are down start.
const DOWN_MAX: u64 = 10_000_000;

impl World {
    /// Crashes a process, which starts again after `down` microseconds.
    pub(super) fn crash(&mut self, node: usize, down: u64) {
        let process = &mut self.processes[node];
        if process.running.is_none() {
            return;
        }
        if process.durable.snapshot_index() > process.durable.log_start.index {
            self.trace.sight("a crash between a snapshot and the new log");
        }
        if process.running.as_ref().is_some_and(|running| running.disk_queue.planner().can_renew()) {
            self.trace.sight("a crash while a log was made anew");
        }
        process.crash(&mut self.dice);
        let down = down.min(DOWN_MAX);
        self.trace.note(self.now, [1, node as u64, down], || {
            format!("node {node} crashes, to be back in {down} µs")
        });
        self.schedule(down, SimEvent::Start(node));
    }

    /// Restarts a node with a version that supports a higher level.
    pub(super) fn upgrade(&mut self, node: usize) {
        self.trace.sight("a node was upgraded");
        let down = self.dice.exponential(100_000);
        self.crash(node, down);
    }

    /// Injects one fault, and schedules the next.
    pub(super) fn inject_fault(&mut self) -> Verdict {
        let Some(every) = self.settings.fault_every.filter(|_| self.has_faults) else { return Ok(()) };
        let typical = u64::try_from(every.as_micros()).expect("a short time");
        let next = 1 + self.dice.exponential(typical);
        self.schedule(next, SimEvent::Fault);
        // Every third time the network heals instead. Otherwise the faults would only accumulate.
        if self.dice.happens(330) {
            self.network.heal();
            self.trace.note(self.now, [9, 0, 0], || "the network heals".into());
            return Ok(());
        }
        let faults = self.settings.faults.clone();
        let fault = faults[self.dice.position(faults.len())];
        let mut node = self.dice.position(self.processes.len());
        if matches!(
            fault,
            Fault::CrashLeader
                | Fault::IsolateLeader
                | Fault::Depose
                | Fault::Transfer
                | Fault::ChangeMembers
        ) {
            node = self.leader().unwrap_or(node);
        }
        self.trace
            .note(self.now, [10, fault as u64, node as u64], || format!("fault: {fault:?} at node {node}"));
        self.trace.sight(name_of(fault));
        match fault {
            Fault::BitFlip => return self.flip_bit(node),
            Fault::LostPage => return self.lose_page(node),
            Fault::Transfer => self.order_transfer(node),
            Fault::ChangeMembers => self.order_member_change(node),
            Fault::Isolate
            | Fault::IsolateLeader
            | Fault::Depose
            | Fault::Split
            | Fault::Asymmetric
            | Fault::Hub
            | Fault::Ring
            | Fault::Flap
            | Fault::Clog => {
                self.fail_network(fault, node);
            }
            _ => self.fail_process(fault, node),
        }
        Ok(())
    }

    fn fail_process(&mut self, fault: Fault, node: usize) {
        let now = self.now;
        let down = 1000 + self.dice.exponential(self.settings.outage);
        let long = 10_000 + self.dice.exponential(1_000_000);
        let process = &mut self.processes[node];
        match fault {
            Fault::Crash => self.crash(node, down),
            Fault::CrashLeader => self.crash(node, down / 10),
            Fault::CrashInWrite => process.crash_after_ops = Some(self.dice.below(10)),
            Fault::CrashAll => {
                for node in 0..self.processes.len() {
                    let down = 1000 + self.dice.exponential(self.settings.outage);
                    self.crash(node, down);
                }
            }
            Fault::CrashAfterOutput => process.crash_after_outputs = Some(self.dice.below(20)),
            Fault::CrashInRecovery => {
                process.crash_in_recovery = Some(self.dice.position(12));
                self.crash(node, down);
            }
            Fault::Pause => process.busy_until = process.busy_until.max(now + long),
            Fault::SlowNode => process.slow_until = now + long * 3,
            Fault::SlowDisk => process.disk_slow_until = now + long * 3,
            Fault::SyncFails => process.disk_fails = Some(DiskFault::Sync),
            Fault::DiskFull => process.disk_fails = Some(DiskFault::Full),
            _ => unreachable!("the others are of the network or the files"),
        }
    }

    fn fail_network(&mut self, fault: Fault, node: usize) {
        let nodes: Vec<_> = self.processes.iter().map(|process| process.id).collect();
        let chosen = nodes[node];
        let count = nodes.len() as u64;
        match fault {
            Fault::Isolate | Fault::IsolateLeader => {
                self.network.shape(&nodes, |from, to| from == chosen || to == chosen);
            }
            Fault::Depose => {
                self.network.shape(&nodes, |from, to| from == chosen || to == chosen);
                let election = u64::try_from(self.settings.election_max.as_micros()).expect("a short time");
                let back = election + self.dice.exponential(election / 4);
                self.schedule(back, SimEvent::Heal);
            }
            Fault::Split => {
                let side: Vec<_> = nodes.iter().map(|_| self.dice.happens(500)).collect();
                let side_of = |id: NodeId| side[usize::try_from(id.0).expect("a small id")];
                self.network.shape(&nodes, |from, to| side_of(from) != side_of(to));
            }
            Fault::Asymmetric => {
                let dice = &mut self.dice;
                self.network.shape(&nodes, |_, _| dice.happens(500));
            }
            Fault::Hub => self.network.shape(&nodes, |from, to| from != chosen && to != chosen),
            Fault::Ring => self.network.shape(&nodes, |from, to| {
                let distance = from.0.abs_diff(to.0);
                distance != 1 && distance != count - 1
            }),
            Fault::Flap => {
                let other = nodes[self.dice.position(nodes.len())];
                self.schedule(0, SimEvent::Flap { from: chosen, to: other, times: 20 });
            }
            Fault::Clog => {
                let other = nodes[self.dice.position(nodes.len())];
                // Messages in transit at the end of the faults arrive within the time for recovery.
                let micros = self.dice.exponential(1_000_000).min(2_000_000);
                self.network.clog(chosen, other, micros);
            }
            _ => unreachable!("the others are of processes"),
        }
    }

    pub(super) fn flap(&mut self, from: NodeId, to: NodeId, times: u32) {
        if times == 0 || !self.has_faults {
            return;
        }
        if times.is_multiple_of(2) {
            self.network.cut(from, to);
            self.network.cut(to, from);
        } else {
            self.network.mend(from, to);
            self.network.mend(to, from);
        }
        let period = 50_000 + self.dice.exponential(200_000);
        self.schedule(period, SimEvent::Flap { from, to, times: times - 1 });
    }

    /// Returns a node that can be elected whatever the other nodes' logs are. Raft promises no
    /// leader when only a node with an older log reaches a majority: the nodes that could lead do
    /// not reach one, and that node cannot win (Ng and others, "Omni-Paxos", EuroSys 2023, §2).
    fn most_up_to_date(&self) -> NodeId {
        let logs = self.processes.iter().map(|process| {
            let last = process.running.as_ref().map(|running| running.replica.node().log().last());
            let last = last.unwrap_or_else(|| process.durable.end());
            (last.term, last.index, process.id)
        });
        logs.max().map(|(_, _, id)| id).expect("a cluster has nodes")
    }

    /// Ends the faults and starts the ending of the run: what is left has to recover.
    pub(super) fn end_faults(&mut self) {
        self.has_faults = false;
        self.network.heal();
        self.network.is_calm = true;
        let nodes: Vec<_> = self.processes.iter().map(|process| process.id).collect();
        for process in &mut self.processes {
            process.busy_until = process.busy_until.min(self.now);
            process.slow_until = 0;
            process.disk_slow_until = 0;
            process.disk_fails = None;
            process.crash_after_outputs = None;
            process.crash_after_ops = None;
            process.crash_in_recovery = None;
        }
        // Otherwise some nodes would stay down for long.
        for node in 0..nodes.len() {
            let soon = 1 + self.dice.exponential(100_000);
            self.schedule(soon, SimEvent::Start(node));
        }
        match self.settings.ending {
            Ending::Healed => {}
            Ending::MajorityAlive => {
                let majority = nodes.len() / 2 + 1;
                let first = self.dice.position(nodes.len());
                for offset in majority..nodes.len() {
                    let node = (first + offset) % nodes.len();
                    self.crash(node, 1);
                    self.processes[node].is_dead = true;
                    let stopped = self.processes[node].id;
                    self.schedule(0, SimEvent::ToRouter(RouterInput::NodeStopped(stopped)));
                }
            }
            Ending::OneDeaf if nodes.len() < 3 => {}
            Ending::OneDeaf => {
                let deaf = self.leader().unwrap_or_else(|| self.dice.position(nodes.len()));
                self.network.shape(&nodes, |_, to| to == nodes[deaf]);
            }
            Ending::HubConnected => {
                let hub = self.most_up_to_date();
                self.network.shape(&nodes, |from, to| from != hub && to != hub);
            }
        }
        let ending = self.settings.ending;
        self.trace
            .note(self.now, [11, ending as u64, 0], || format!("the time of faults is over: {ending:?}"));
    }
}

impl World {
    /// Cuts one follower off from its leader, in runs in which the others can do without it. It
    /// campaigns in vain.
    pub(super) fn cut_off_a_follower(&mut self, leader: usize) {
        let nodes: Vec<_> = self.processes.iter().map(|process| process.id).collect();
        if self.settings.ending != Ending::Healed || nodes.len() < 3 {
            return;
        }
        let chosen = nodes[(leader + 1 + self.dice.position(nodes.len() - 1)) % nodes.len()];
        // Half of the time it still exchanges messages with all others.
        let is_isolated = self.dice.happens(500);
        self.network.shape(&nodes, |from, to| {
            let of_leader = from == nodes[leader] && to == chosen;
            of_leader || (is_isolated && (from == chosen || to == chosen))
        });
        self.trace.note(self.now, [12, chosen.0, is_isolated.into()], || format!("node {chosen} is cut off"));
    }

    /// Reconnects a node that was cut off at the end.
    pub(super) fn let_back_in(&mut self) {
        if matches!(self.settings.ending, Ending::Healed | Ending::OneDeaf) {
            self.network.heal();
            self.trace.note(self.now, [13, 0, 0], || "everyone hears everyone again".into());
        }
    }
}

fn name_of(fault: Fault) -> &'static str {
    match fault {
        Fault::Crash => "fault: crash",
        Fault::CrashAll => "fault: crash all",
        Fault::CrashAfterOutput => "fault: crash after output",
        Fault::CrashLeader => "fault: crash leader",
        Fault::CrashInWrite => "fault: crash in write",
        Fault::CrashInRecovery => "fault: crash in recovery",
        Fault::Pause => "fault: pause",
        Fault::Isolate => "fault: isolate",
        Fault::IsolateLeader => "fault: isolate leader",
        Fault::Depose => "fault: depose",
        Fault::Split => "fault: split",
        Fault::Asymmetric => "fault: asymmetric",
        Fault::Hub => "fault: hub",
        Fault::Ring => "fault: ring",
        Fault::Flap => "fault: flap",
        Fault::Clog => "fault: clog",
        Fault::SlowNode => "fault: slow node",
        Fault::SlowDisk => "fault: slow disk",
        Fault::SyncFails => "fault: sync fails",
        Fault::DiskFull => "fault: disk full",
        Fault::BitFlip => "fault: bit flip",
        Fault::LostPage => "fault: lost page",
        Fault::Transfer => "fault: transfer",
        Fault::ChangeMembers => "fault: change members",
    }
}
