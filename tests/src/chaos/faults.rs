//! Implementation of the faults of network, processes and disks.

use std::ffi::OsString;
use std::thread;
use std::time::{Duration, Instant};

use super::Violation;
use super::kinds::Kind;
use super::link_faults::{Gate, LinkFaults};
use super::nemesis::Nemesis;
use super::node::End;

/// The time that a node has to stop on SIGTERM.
pub(super) const STOP_TIMEOUT: Duration = Duration::from_secs(20);
/// The time to wait for a disk fault to take effect.
const DISK_TIMEOUT: Duration = Duration::from_secs(8);
/// The exit code after a disk failure.
const STORAGE_FAILED: End = End::Code(6);
const SIGKILL: End = End::Signal(9);

impl Nemesis<'_, '_> {
    /// Breaks the network between nodes, perhaps injects a fault into a node meanwhile, and heals
    /// the network.
    pub(super) fn break_network(&mut self, kind: Kind) -> Result<bool, Violation> {
        let before = self.traces(kind);
        self.is_fair = false;
        self.install(kind);
        self.hold(300..2500);
        let meanwhile = [Kind::Kill, Kind::Pause, Kind::Term, Kind::Transfer];
        let possible: Vec<Kind> = meanwhile.into_iter().filter(|kind| self.kinds.contains(kind)).collect();
        if !possible.is_empty() && self.rng.u8(..3) == 0 {
            let also = possible[self.rng.usize(..possible.len())];
            self.strike(also)?;
        }
        let with_storm = self.rng.bool();
        self.cluster.network.heal(with_storm);
        self.is_fair = true;
        let after = self.traces(kind);
        let how = if with_storm { "connections broken" } else { "what was held up arrives" };
        self.journal.note(format_args!("{}: healed, {how}; {} traces", kind.name(), after - before));
        Ok(after > before)
    }

    /// The number of frames or connections that this kind of fault has affected. A fault without
    /// any effect is not counted.
    fn traces(&self, kind: Kind) -> u64 {
        self.cluster.network.count(|done| match kind {
            Kind::Delay => &done.delayed,
            Kind::Cut => &done.cut,
            Kind::Trickle => &done.trickled,
            Kind::Reorder => &done.reordered,
            Kind::Duplicate => &done.duplicated,
            Kind::Replay => &done.replayed,
            Kind::Flip => &done.flipped,
            Kind::Lengthen => &done.lengthened,
            _ => &done.stopped,
        })
    }

    fn install(&mut self, kind: Kind) {
        let per_mille = [2, 20, 200][self.rng.usize(..3)];
        let delay = Duration::from_millis([1, 20, 200][self.rng.usize(..3)]);
        let fair = LinkFaults::default();
        let faults = match kind {
            Kind::Delay => LinkFaults { delay, jitter: delay * 2, ..fair },
            Kind::Cut => LinkFaults { cut: per_mille, ..fair },
            Kind::Trickle => LinkFaults { trickles: true, ..fair },
            Kind::Reorder => LinkFaults { reorder: per_mille, ..fair },
            Kind::Duplicate => LinkFaults { duplicate: per_mille, repeats_asks: self.repeats_asks, ..fair },
            Kind::Replay => LinkFaults { replay: per_mille, repeats_asks: self.repeats_asks, ..fair },
            Kind::Flip => LinkFaults { flip: per_mille, ..fair },
            Kind::Lengthen => LinkFaults { lengthen: per_mille, ..fair },
            _ => return self.part(kind),
        };
        self.journal.note(format_args!("{faults:?}"));
        self.cluster.network.set_all(&faults);
    }

    fn part(&mut self, kind: Kind) {
        let gate = if self.rng.bool() { Gate::Stalled } else { Gate::Refused };
        let mut order = self.cluster.ids();
        self.rng.shuffle(&mut order);
        let name = kind.name();
        match kind {
            Kind::BlackHole => {
                self.journal.note(format_args!("{name}: {} does not hear {}", order[1], order[0]));
                let closed = LinkFaults { gate: Gate::Stalled, ..LinkFaults::default() };
                self.cluster.network.set(order[0], order[1], &closed);
            }
            Kind::Halves => {
                let group = &order[..order.len() / 2];
                self.journal.note(format_args!("{name}: {group:?} and the rest, {gate:?}"));
                self.cluster.network.part_from_rest(group, gate);
            }
            Kind::Ring => {
                self.journal.note(format_args!("{name}: {order:?}, {gate:?}"));
                self.cluster.network.make_ring(&order, gate);
            }
            Kind::Flapping => self.flap(order[0], gate),
            _ => {
                let leader = if kind == Kind::IsolateLeader { self.find_leader() } else { None };
                let node = leader.unwrap_or(order[0]);
                self.journal.note(format_args!("{name}: node {node}, {gate:?}"));
                self.cluster.network.part_from_rest(&[node], gate);
            }
        }
    }

    fn flap(&mut self, node: u64, gate: Gate) {
        self.journal.note(format_args!("flapping: node {node}, {gate:?}"));
        for _ in 0..self.rng.u32(3..12) {
            self.cluster.network.part_from_rest(&[node], gate);
            self.hold(50..500);
            self.cluster.network.heal(false);
            self.hold(50..500);
        }
        self.cluster.network.part_from_rest(&[node], gate);
    }

    /// Injects a fault into nodes, their disks or their leadership, and heals it.
    pub(super) fn break_nodes(&mut self, kind: Kind) -> Result<bool, Violation> {
        let node = match kind {
            Kind::KillLeader | Kind::PauseLeader => match self.find_leader() {
                Some(leader) => leader,
                None => return Ok(false),
            },
            _ => self.any_node(),
        };
        match kind {
            Kind::KillAll | Kind::PowerAll | Kind::Rolling => self.journal.note(kind.name()),
            _ => self.journal.note(format_args!("{}: node {node}", kind.name())),
        }
        match kind {
            Kind::Kill => self.kill(&[node]),
            Kind::KillLeader => {
                let now = self.cluster.shared.now();
                if self.is_fair {
                    self.cluster.shared.gaps.leader_died(now);
                }
                self.kill(&[node])
            }
            Kind::KillAll => self.kill(&self.cluster.ids()),
            Kind::Pause | Kind::PauseLeader => {
                self.cluster.node(node).signal("STOP");
                let ms_max = if self.rng.bool() { 600 } else { 5000 };
                self.hold(100..ms_max);
                self.cluster.node(node).signal("CONT");
                Ok(true)
            }
            Kind::Term => self.end_in_order(node),
            Kind::Rolling => {
                for id in self.cluster.ids() {
                    self.end_in_order(id)?;
                    self.hold(500..1500);
                }
                Ok(true)
            }
            Kind::SyncError => self.run_under(node, "fdatasync", "error=EIO", "+", STORAGE_FAILED),
            Kind::WriteError => self.run_under(node, "write", "error=ENOSPC", "+", STORAGE_FAILED),
            Kind::CrashAtSync => self.run_under(node, "fdatasync", "signal=KILL", "", SIGKILL),
            Kind::Full => self.fill(node),
            Kind::Power => self.cut_power(&[node]),
            Kind::PowerAll => self.cut_power(&self.cluster.ids()),
            _ => Ok(self.transfer(node)),
        }
    }

    fn kill(&mut self, nodes: &[u64]) -> Result<bool, Violation> {
        for node in nodes {
            self.cluster.node(*node).kill();
        }
        self.hold(0..1500);
        for node in nodes {
            self.cluster.start(*node, &[])?;
        }
        Ok(true)
    }

    fn end_in_order(&mut self, id: u64) -> Result<bool, Violation> {
        self.cluster.node(id).signal("TERM");
        self.expect_end(id, STOP_TIMEOUT, End::Code(0), "SIGTERM ends a node in order")?;
        self.hold(0..500);
        self.cluster.start(id, &[])?;
        Ok(true)
    }

    pub(super) fn expect_end(
        &mut self,
        id: u64,
        patience: Duration,
        end: End,
        rule: &'static str,
    ) -> Result<(), Violation> {
        let node = self.cluster.node(id);
        let found = node.ends_within(patience);
        if found == Some(end) {
            return Ok(());
        }
        Err(Violation {
            rule,
            what: format!("node {id}: {found:?} in place of {end:?}: {}", node.last_words()),
        })
    }

    /// Restarts the node so that a call on its log fails, or kills it at that call. Waits for that,
    /// and restarts it without the fault.
    fn run_under(&mut self, id: u64, call: &str, how: &str, more: &str, end: End) -> Result<bool, Violation> {
        let number = self.rng.u32(1..60);
        let node = self.cluster.node(id);
        node.kill();
        let log = node.home.data().join(format!("log{id:02}.txt"));
        let inject = format!("inject={call}:{how}:when={number}{more}");
        let words = [
            "strace",
            "-D",
            "-f",
            "-qq",
            "-o",
            "/dev/null",
            "-e",
            &format!("trace={call}"),
            "-e",
            &inject,
            "-P",
        ];
        let mut words: Vec<OsString> = words.map(OsString::from).into();
        words.push(log.into());
        let failed =
            |error: std::io::Error| Violation { rule: "a node can be traced", what: error.to_string() };
        node.launch(&words).map_err(failed)?;
        self.journal.note(format_args!("node {id} under {inject}"));
        let has_struck = self.watch_for_end(id, end)?;
        self.cluster.node(id).kill();
        self.hold(0..500);
        self.cluster.start(id, &[])?;
        Ok(has_struck)
    }

    /// Waits for a node to end in exactly this way. Returns false if it keeps running.
    fn watch_for_end(&mut self, id: u64, end: End) -> Result<bool, Violation> {
        let give_up_at = Instant::now() + DISK_TIMEOUT;
        while Instant::now() < give_up_at {
            match self.cluster.node(id).ends_within(Duration::from_millis(100)) {
                Some(found) if found == end => return Ok(true),
                Some(found) => {
                    let words = self.cluster.node(id).last_words();
                    let what = format!("node {id}: {found:?} in place of {end:?}: {words}");
                    return Err(Violation { rule: "a failing disk stops its node with 6", what });
                }
                None => self.cluster.tell_addresses(),
            }
        }
        Ok(false)
    }

    fn fill(&mut self, id: u64) -> Result<bool, Violation> {
        if self.cluster.node(id).home.fill().is_err() {
            return Ok(false);
        }
        let has_ended = self.watch_for_end(id, STORAGE_FAILED)?;
        self.journal
            .note(format_args!("node {id} has {}", if has_ended { "stopped" } else { "not stopped" }));
        let has_room = self.cluster.node(id).home.make_room().is_ok();
        if has_ended {
            self.cluster.start(id, &[])?;
        }
        Ok(has_room && has_ended)
    }

    fn cut_power(&mut self, nodes: &[u64]) -> Result<bool, Violation> {
        let mut is_cut = true;
        // A sync that is in progress at the power cut may return as if it had succeeded (ext4 in
        // Linux 6.18 does so once in ten times). Without power, no process could report that. So
        // the processes are stopped first.
        for id in nodes {
            self.cluster.node(*id).signal("STOP");
        }
        for id in nodes {
            is_cut &= self.cluster.node(*id).home.cut_power().is_ok();
        }
        for id in nodes {
            self.cluster.node(*id).kill();
        }
        self.hold(0..500);
        for id in nodes {
            let home = &mut self.cluster.node(*id).home;
            // A tracer or the kernel may keep a file open for a moment.
            let is_back = (0..50).any(|_| {
                let result = home.restore_power();
                if result.is_err() {
                    thread::sleep(Duration::from_millis(100));
                }
                result.is_ok()
            });
            let what = || format!("the file system of node {id} does not come back");
            is_back.then_some(()).ok_or_else(|| Violation { rule: "the harness works", what: what() })?;
            self.cluster.start(*id, &[])?;
        }
        Ok(is_cut)
    }

    fn transfer(&mut self, to: u64) -> bool {
        let output = self.cluster.order(&["transfer", &to.to_string()]);
        let Ok(output) = output else { return false };
        if !output.status.success() {
            self.journal.note(String::from_utf8_lossy(&output.stderr).trim());
        }
        output.status.success()
    }
}
