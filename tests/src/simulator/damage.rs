//! Damage to the files of a node that is down, which its start has to detect. The check is made at
//! once on a copy and the files on disk stay undamaged, as if an operator put them back.

use std::collections::VecDeque;

use coracle_core::raft::{LogIndex, Node};
use coracle_storage::{FileKind, FileName, SyncPolicy, recover};

use super::invariants::{Verdict, Violation};
use super::world::World;

/// The time in microseconds after which a node must detect the loss of an entry that was committed
/// and on its disk. The floor is noted every three seconds, by a clock that may run slow, and the
/// turn that notes it may be late.
const LOSS_NOTICED_AFTER: u64 = 4_500_000;

/// The shortest time between two samples, in microseconds.
const SAMPLED_EVERY: u64 = 500_000;

/// Samples of the log index up to which a node's log was committed and durable, since its last
/// start, oldest first.
#[derive(Debug, Default)]
pub struct DurableCommits {
    life: u64,
    samples: VecDeque<(u64, LogIndex)>,
}

impl DurableCommits {
    /// Takes a sample of the node at `now`.
    pub fn sample(&mut self, now: u64, life: u64, raft: &Node) {
        if self.life != life {
            *self = Self { life, samples: VecDeque::new() };
        }
        if self.samples.back().is_none_or(|(at, _)| at + SAMPLED_EVERY <= now) {
            self.samples.push_back((now, raft.commit_index().min(raft.durable_index())));
            // Keep one sample that is old enough.
            while self.samples.get(1).is_some_and(|(at, _)| at + LOSS_NOTICED_AFTER <= now) {
                self.samples.pop_front();
            }
        }
    }

    /// The index up to which this node must detect any loss.
    fn noted(&self, now: u64, life: u64) -> Option<LogIndex> {
        let (at, index) = self.samples.front().filter(|_| self.life == life)?;
        (at + LOSS_NOTICED_AFTER <= now).then_some(*index)
    }
}

impl World {
    /// Truncates a log in the middle. A node that had the lost entries committed and durable long
    /// enough ago has to refuse to start, because it may have acknowledged them.
    pub(super) fn lose_page(&mut self, node: usize) -> Verdict {
        let (now, process) = (self.now, &self.processes[node]);
        let Some(running) = &process.running else { return Ok(()) };
        let Some(noted) = process.durable_commits.noted(now, process.life) else { return Ok(()) };
        let is_idle = !running.disk_queue.is_working() && !running.disk_queue.has_work();
        let is_awake = process.busy_until < now;
        if !is_idle || !is_awake || !running.inbox.is_empty() {
            return Ok(());
        }
        let down = 1000 + self.dice.exponential(500_000);
        self.crash(node, down);
        let process = &self.processes[node];
        if process.running.is_some() {
            return Ok(());
        }
        let mut files = process.disk.files(process.id);
        let Ok(whole) = recover(process.id, &files, SyncPolicy::Always) else { return Ok(()) };
        if whole.restored.log_start.index >= noted {
            return Ok(());
        }
        let bytes_to = |index: LogIndex| {
            let kept = whole.restored.log.iter().filter_map(|run| run.ending_at(index));
            kept.map(|run| run.text().len()).sum::<usize>()
        };
        let Some(log) = &mut files.log else { return Ok(()) };
        let header_len = log.iter().position(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        log.truncate(header_len + bytes_to(noted.previous()));
        match recover(process.id, &files, SyncPolicy::Always) {
            Err(_) => {
                self.trace.sight("a log that had lost its end was refused");
                Ok(())
            }
            Ok(_) => Err(Violation {
                property: "corruption",
                what: format!("node {} accepted a log without entry {noted}", process.id),
            }),
        }
    }

    /// Flips a bit in a file of a node that is down. The node has to refuse to start, unless the
    /// bit is in the log's last line, which may pass for torn. The operator then puts the file
    /// back.
    pub(super) fn flip_bit(&mut self, node: usize) -> Verdict {
        let down = 1000 + self.dice.exponential(500_000);
        self.crash(node, down);
        let process = &self.processes[node];
        if process.running.is_some() {
            return Ok(());
        }
        let id = process.id;
        let kind = self.dice.one_of(&[FileKind::Log, FileKind::Log, FileKind::Meta, FileKind::Snapshot]);
        let files = process.disk.files(id);
        // Behind a torn tail, a changed byte also looks torn.
        if !recover(id, &files, SyncPolicy::Always).is_ok_and(|recovery| recovery.notices.is_empty()) {
            return Ok(());
        }
        let mut damaged = files.clone();
        let bytes = match kind {
            FileKind::Meta => damaged.meta.as_mut(),
            FileKind::Snapshot => damaged.snapshot.as_mut(),
            _ => damaged.log.as_mut(),
        };
        let Some(bytes) = bytes else { return Ok(()) };
        let before_last_line =
            |bytes: &[u8]| bytes[..bytes.len() - 1].iter().rposition(|byte| *byte == b'\n');
        let end = if kind == FileKind::Log { before_last_line(bytes) } else { Some(bytes.len()) };
        let Some(end) = end.filter(|end| *end > 0) else { return Ok(()) };
        let at = self.dice.position(end);
        bytes[at] ^= 1 << self.dice.below(8);
        let file = FileName::new(id, kind);
        match recover(id, &damaged, SyncPolicy::Always) {
            Err(_) => {
                self.trace.sight("a damaged file was refused");
                Ok(())
            }
            Ok(_) => Err(Violation {
                property: "corruption",
                what: format!("{file} was accepted with byte {at} changed"),
            }),
        }
    }
}
