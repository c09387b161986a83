//! InstallSnapshot: sends a snapshot to a follower that lags so far that the leader no longer has
//! its next entries, and installs it there (§7, Fig. 13).
//!
//! The leader asks how much of its snapshot the follower already has, and sends the rest in parts,
//! one at a time: each part is on the follower's disk before the next one is sent. So a transfer
//! resumes where it stopped, after a lost connection and also under another leader that has the
//! same snapshot: its content is a function of the log up to its last entry.
//!
//! Heartbeats, and entries for other followers, are sent meanwhile. The follower installs the
//! snapshot in one step, when all of it is durable: it keeps the entries of its log beyond the
//! snapshot if the log agrees with it, and drops its log otherwise.
//!
//! The driver of the node does the state machine's part: it reads parts ([`Output::ReadSnapshot`]),
//! writes them ([`Output::WriteSnapshot`]), and replaces its state ([`Output::SnapshotInstalled`]).

use super::durability::Promise;
use super::event::{Event, MessageRefusal};
use super::message::{Body, InstallOutcome, InstallSnapshotResponse};
use super::output::Output;
use super::snapshot::{SILENCE_TIMEOUTS_MAX, SnapshotMeta, SnapshotPart};
use super::state::{Node, Part, Progress, Receiving};
use super::types::{LogPoint, NodeId};
use crate::mutant::{self, Mutant};
use crate::time::Instant;

/// The number of election timeouts without progress after which a follower no longer counts as
/// receiving a snapshot. With the default timeouts a minute: a slow line may take that long for a
/// part that shares it with entries for others, and for a connection that is lost and made again.
const SENDING_TIMEOUTS_MAX: u32 = 100;

impl Node {
    /// Starts to send the snapshot to a follower that lacks entries which this log no longer holds.
    pub(super) fn begin_snapshot(&mut self, to: NodeId, now: Instant) {
        let Some(meta) = self.snapshot.clone() else {
            panic!("the log was cut without a snapshot");
        };
        let Part::Leader(leadership) = &mut self.part else { return };
        let Some(progress) = leadership.followers.of_mut(to) else { return };
        progress.begin_snapshot(meta.last, now);
        self.send_snapshot_part(to, SnapshotPart::question(meta));
    }

    /// Repeats the question to a follower that is alive but has not answered about its snapshot for
    /// long.
    pub(super) fn repeat_snapshot_question(&mut self, to: NodeId, now: Instant) {
        let patience = self.config.election_timeout_min;
        let Part::Leader(leadership) = &mut self.part else { return };
        let Some(progress) = leadership.followers.of_mut(to) else { return };
        let is_overdue = progress.snapshot_is_overdue(now, patience);
        if is_overdue && !mutant::is_active(Mutant::SnapshotNotAskedForAgain) {
            self.begin_snapshot(to, now);
        }
    }

    /// Handles the answer of a follower: how much of the snapshot it has, or that it has installed
    /// it.
    pub(super) fn on_install_snapshot_response(
        &mut self,
        from: NodeId,
        response: InstallSnapshotResponse,
        now: Instant,
    ) {
        let last_index = self.log.last().index;
        let Part::Leader(leadership) = &mut self.part else { return };
        let Some(progress) = leadership.followers.of_mut(from) else { return };
        progress.heard(now);
        match response.outcome {
            InstallOutcome::Installed if response.last.index <= last_index => {
                progress.accepted(response.last.index);
            }
            InstallOutcome::Installed => {
                self.report(Event::MessageRefused { from, because: MessageRefusal::UnknownEntries });
            }
            InstallOutcome::Holds { bytes } => {
                if progress.snapshot_continues(response.last, bytes, now) {
                    self.turn.snapshot_reads.push((response.last, bytes));
                }
            }
        }
    }

    /// Accepts the answer to [`Output::ReadSnapshot`]: a part of the snapshot that ends at `last`,
    /// from byte `offset` on. `None`: this snapshot no longer exists.
    pub fn snapshot_read(&mut self, last: LogPoint, offset: u64, part: Option<SnapshotPart>, now: Instant) {
        let Part::Leader(leadership) = &mut self.part else { return };
        let waits =
            |(peer, progress): (NodeId, &Progress)| progress.reads_snapshot_at(last, offset).then_some(peer);
        let waiting: Vec<_> = leadership.followers.iter().filter_map(waits).collect();
        for peer in waiting {
            match &part {
                Some(part) => {
                    if let Some(progress) = leadership_of(&mut self.part, peer) {
                        progress.snapshot_part_sent(offset, now);
                    }
                    self.send_snapshot_part(peer, part.clone());
                }
                // A newer snapshot has replaced it.
                None => self.begin_snapshot(peer, now),
            }
        }
    }

    fn send_snapshot_part(&mut self, to: NodeId, part: SnapshotPart) {
        self.send(to, Promise::Nothing, Body::InstallSnapshot(part));
    }

    /// Handles an InstallSnapshot call (Fig. 13, InstallSnapshot receiver). Rule 1, the older term,
    /// was handled before.
    pub(super) fn on_install_snapshot(&mut self, leader: NodeId, part: SnapshotPart, now: Instant) {
        self.follow(leader, now);
        let last = part.meta.last;
        if last.index <= self.commit_index {
            // The snapshot contains everything that is committed here. Another entry at that index
            // cannot be committed.
            if self.log.point_at(last.index).is_some_and(|point| point != last) {
                return self.report(Event::MessageRefused {
                    from: leader,
                    because: MessageRefusal::ChecksumMismatch,
                });
            }
            return self.answer_snapshot(leader, Promise::Log, last, InstallOutcome::Installed);
        }
        if self.receiving.as_ref().is_some_and(Receiving::is_written) {
            // The answer is sent when the write is done. That also holds if the write belongs to
            // another snapshot: if it is the last part, that snapshot becomes the latest of this
            // node before anything else can be written.
            return;
        }
        if self.log.point_at(last.index) == Some(last) && !mutant::is_active(Mutant::SuffixDropped) {
            // This log already holds all that the snapshot covers; the leader did not know.
            self.learn_commit(last.index);
            return self.answer_snapshot(leader, Promise::Log, last, InstallOutcome::Installed);
        }
        if self.is_removed_by(&part.meta) {
            // Installed, this snapshot would leave no record on this node's disk that it was a
            // member: see [`Self::note_removal`].
            self.receiving = None;
            return self.report_removal(last.index);
        }
        if self.receiving.as_ref().is_none_or(|receiving| receiving.meta != part.meta) {
            self.receiving = Some(Receiving::new(part.meta.clone()));
        }
        let Some(receiving) = &mut self.receiving else { return };
        let bytes = receiving.bytes;
        // A snapshot must not be on disk before the term in which it was sent.
        let term_is_durable = !self.turn.hard_state_changed && self.durability.hard_state_is_durable();
        if part.is_question() || !term_is_durable || part.offset != bytes {
            return self.answer_snapshot(leader, Promise::HardState, last, InstallOutcome::Holds { bytes });
        }
        if receiving.add(&part) {
            self.acknowledge_early_by_mutant(leader, &part);
            self.turn.snapshot_writes.push(part);
        } else {
            self.receiving = None;
            self.report(Event::MessageRefused { from: leader, because: MessageRefusal::SnapshotDamaged });
            self.answer_snapshot(leader, Promise::HardState, last, InstallOutcome::Holds { bytes: 0 });
        }
    }

    /// Reports that the part of [`Output::WriteSnapshot`] that ends at byte `bytes` of the snapshot
    /// that ends at `last` is written; if it was the last one, that the whole snapshot is durable.
    pub fn snapshot_written(&mut self, last: LogPoint, bytes: u64) {
        let Some(receiving) = &mut self.receiving else { return };
        let is_it = receiving.meta.last == last
            && receiving.writing.is_some_and(|(len, _)| receiving.bytes + len == bytes);
        if !is_it {
            return;
        }
        receiving.bytes = bytes;
        let is_whole = receiving.writing.take().is_some_and(|(_, is_last)| is_last);
        if is_whole && let Some(receiving) = self.receiving.take() {
            self.install(receiving.meta);
        }
        if let Some(leader) = self.leader().filter(|leader| *leader != self.config.id) {
            let (promise, outcome) = if is_whole {
                (Promise::Log, InstallOutcome::Installed)
            } else {
                (Promise::HardState, InstallOutcome::Holds { bytes })
            };
            self.answer_snapshot(leader, promise, last, outcome);
        }
    }

    /// Drops an incoming snapshot if its entries have been committed here meanwhile. It is then
    /// useless, unless a part is being written: that may be the last one, which makes the snapshot
    /// the latest of this node in a moment.
    pub(super) fn drop_overtaken_snapshot(&mut self) {
        let commit_index = self.commit_index;
        self.receiving
            .take_if(|receiving| receiving.meta.last.index <= commit_index && !receiving.is_written());
    }

    /// Drops the incoming snapshot because its content cannot be parsed.
    pub fn refuse_snapshot(&mut self) {
        self.receiving = None;
    }

    /// Returns whether this node is receiving a snapshot.
    #[must_use]
    pub fn receives_snapshot(&self) -> bool {
        self.receiving.is_some()
    }

    /// Returns whether this node, as leader, is sending its snapshot to a follower that answers and
    /// makes progress. Parts may be lost now and then: the answer becomes `false` only after a
    /// number of election timeouts without progress.
    #[must_use]
    pub fn sends_snapshot(&self, now: Instant) -> bool {
        let Part::Leader(leadership) = &self.part else { return false };
        let timeout = self.config.election_timeout_max;
        leadership.followers.iter().any(|(_, progress)| {
            let is_there = progress.is_there(now, timeout * SILENCE_TIMEOUTS_MAX);
            (is_there || mutant::is_active(Mutant::LogHeldForSilentFollower))
                && progress.takes_snapshot(now, timeout * SENDING_TIMEOUTS_MAX)
        })
    }

    /// Installs the snapshot: it replaces the log up to its last entry.
    fn install(&mut self, meta: SnapshotMeta) {
        let last = meta.last;
        if last.index <= self.commit_index {
            // The entries arrived before the snapshot was complete. It is now like a snapshot of
            // this node's own, except that not all of it need be applied yet, and the entries are
            // dropped: so the state machine still has to load it.
            self.turn.installed = Some(meta.clone());
            return self.compact(meta);
        }
        // Fig. 13, InstallSnapshot receiver 6: entries after the snapshot stay if the log agrees
        // with it.
        let agrees = self.log.point_at(last.index) == Some(last) && !mutant::is_active(Mutant::SuffixDropped);
        let is_long = self.log.last().index >= last.index;
        let stays = agrees || (is_long && mutant::is_active(Mutant::ConflictingLogKept));
        if !stays {
            // Fig. 13, InstallSnapshot receiver 7: discard the entire log.
            if self.log.last().index > self.commit_index {
                self.cut_log(self.commit_index.next());
            }
            self.log.restart(last);
            self.membership.restart(last.index, meta.configuration.clone(), self.commit_index);
            self.proposals.restart(last);
        }
        self.commit_index = last.index;
        self.turn.installed = Some(meta.clone());
        self.report(Event::SnapshotInstalled { last: last.index });
        self.compact(meta);
    }

    fn answer_snapshot(&mut self, to: NodeId, promise: Promise, last: LogPoint, outcome: InstallOutcome) {
        let response = InstallSnapshotResponse { last, outcome };
        self.send(to, promise, Body::InstallSnapshotResponse(response));
    }

    /// The outputs of this turn that concern snapshots.
    pub(super) fn take_snapshot_outputs(&mut self) -> impl Iterator<Item = Output> {
        let turn = &mut self.turn;
        let installed = turn.installed.take().map(Output::SnapshotInstalled);
        let writes = turn.snapshot_writes.drain(..).map(Output::WriteSnapshot);
        turn.snapshot_reads.dedup();
        let reads = turn.snapshot_reads.drain(..).map(|(last, offset)| Output::ReadSnapshot { last, offset });
        installed.into_iter().chain(writes).chain(reads)
    }

    /// Deliberate bug: acknowledges a snapshot whose last part is not durable.
    fn acknowledge_early_by_mutant(&mut self, leader: NodeId, part: &SnapshotPart) {
        if part.end.is_some() && mutant::is_active(Mutant::SnapshotAckBeforeSync) {
            self.answer_snapshot(leader, Promise::HardState, part.meta.last, InstallOutcome::Installed);
        }
    }
}

fn leadership_of(part: &mut Part, peer: NodeId) -> Option<&mut Progress> {
    match part {
        Part::Leader(leadership) => leadership.followers.of_mut(peer),
        _ => None,
    }
}
