//! Bringing a follower up to date whose next entries the leader no longer has (§7, Fig. 13).
//!
//! The leader asks how much of its snapshot the follower holds already, and sends the rest in
//! parts, one at a time: each is on the follower's disk before the next one leaves. So a transfer
//! goes on where it stopped, after a lost connection, and also under another leader that holds the
//! same snapshot: its content is a function of the log up to its last entry.
//!
//! Heartbeats and entries for others go on beside it. The follower takes the snapshot in one step,
//! when all of it is durable: it keeps what its log holds beyond, if the log agrees there, and
//! drops its log otherwise.
//!
//! The state machine's part is done by whoever drives the node: it hands over parts
//! ([`Output::ReadSnapshot`]), writes them ([`Output::WriteSnapshot`]), and takes the state over
//! ([`Output::SnapshotInstalled`]).

use super::durability::Promise;
use super::event::{Event, Refusal};
use super::message::{Body, InstallOutcome, InstallSnapshotResponse};
use super::output::Output;
use super::snapshot::{SILENCE_PATIENCE, SnapshotMeta, SnapshotPart};
use super::state::{Node, Part, Progress, Receiving};
use super::types::{LogPoint, NodeId};
use crate::mutant::{self, Mutant};
use crate::time::Instant;

/// After how many election timeouts without progress a snapshot is no longer taken for being sent.
/// With the usual ones a minute: a slow line may take that long for a part beside entries for
/// others, and a connection is lost and made anew meanwhile.
const SENDING_PATIENCE: u32 = 100;

impl SnapshotPart {
    /// "How much of this have you got?"
    fn question(meta: SnapshotMeta) -> Self {
        Self { meta, offset: 0, text: "".into(), end: None }
    }

    fn is_question(&self) -> bool {
        self.text.is_empty() && self.end.is_none()
    }
}

impl Node {
    /// The follower lacks entries that this log no longer holds.
    pub(super) fn begin_snapshot(&mut self, to: NodeId, now: Instant) {
        let Some(meta) = self.snapshot.clone() else {
            panic!("the log was cut without a snapshot");
        };
        let Part::Leader(leadership) = &mut self.part else { return };
        let Some(progress) = leadership.followers.of_mut(to) else { return };
        progress.begin_snapshot(meta.last, now);
        self.send_snapshot_part(to, SnapshotPart::question(meta));
    }

    /// The follower is alive, and has not said anything of its snapshot for long: ask again.
    pub(super) fn repeat_snapshot_question(&mut self, to: NodeId, now: Instant) {
        if mutant::is_active(Mutant::SnapshotNotAskedForAgain) {
            return;
        }
        let patience = self.config.election_timeout_min;
        let Part::Leader(leadership) = &mut self.part else { return };
        let Some(progress) = leadership.followers.of_mut(to) else { return };
        if progress.snapshot_is_overdue(now, patience) {
            self.begin_snapshot(to, now);
        }
    }

    /// How much the follower has got, or that it has got all.
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
                self.tell(Event::MessageRefused { from, because: Refusal::UnknownEntries });
            }
            InstallOutcome::Holds { bytes } => {
                if progress.snapshot_continues(response.last, bytes, now) {
                    self.turn.snapshot_reads.push((response.last, bytes));
                }
            }
        }
    }

    /// The answer to [`Output::ReadSnapshot`]: a part of the snapshot that ends at `last`, from
    /// byte `offset` on. `None`: it is not there any more.
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
                // A newer one has taken its place.
                None => self.begin_snapshot(peer, now),
            }
        }
    }

    fn send_snapshot_part(&mut self, to: NodeId, part: SnapshotPart) {
        self.send(to, Promise::Nothing, Body::InstallSnapshot(part));
    }

    /// Fig. 13, InstallSnapshot receiver. Rule 1, the older term, was dealt with before.
    pub(super) fn on_install_snapshot(&mut self, leader: NodeId, part: SnapshotPart, now: Instant) {
        self.follow(leader, now);
        let last = part.meta.last;
        if last.index <= self.commit_index {
            // What is committed here is in the snapshot. Another entry at that index cannot be.
            if self.log.point_at(last.index).is_some_and(|point| point != last) {
                return self.tell(Event::MessageRefused { from: leader, because: Refusal::ChecksumMismatch });
            }
            return self.answer_snapshot(leader, Promise::Log, last, InstallOutcome::Installed);
        }
        if self.receiving.as_ref().is_some_and(Receiving::is_written) {
            // It is answered when that is done. Also where it is of another snapshot: if it is the
            // last part, that one is the node's latest before anything else can be written.
            return;
        }
        if self.log.point_at(last.index) == Some(last) && !mutant::is_active(Mutant::SuffixDropped) {
            // This log has it all: the leader only did not know.
            self.learn_commit(last.index);
            return self.answer_snapshot(leader, Promise::Log, last, InstallOutcome::Installed);
        }
        if self.is_removed_by(&part.meta) {
            // In the place of this node's log it would name it nowhere: see [`Self::note_removal`].
            self.receiving = None;
            return self.tell_removal(last.index);
        }
        if self.receiving.as_ref().is_none_or(|receiving| receiving.meta != part.meta) {
            self.receiving = Some(Receiving::new(part.meta.clone()));
        }
        let Some(receiving) = &mut self.receiving else { return };
        let bytes = receiving.bytes;
        // A snapshot must not be on disk before the term that it was sent in.
        let term_is_durable = !self.turn.hard_state_changed && self.durability.hard_state_is_durable();
        if part.is_question() || !term_is_durable || part.offset != bytes {
            return self.answer_snapshot(leader, Promise::HardState, last, InstallOutcome::Holds { bytes });
        }
        if receiving.add(&part) {
            if part.end.is_some() && mutant::is_active(Mutant::SnapshotAckBeforeSync) {
                self.answer_snapshot(leader, Promise::HardState, last, InstallOutcome::Installed);
            }
            self.turn.snapshot_writes.push(part);
        } else {
            self.receiving = None;
            self.tell(Event::MessageRefused { from: leader, because: Refusal::SnapshotDamaged });
            self.answer_snapshot(leader, Promise::HardState, last, InstallOutcome::Holds { bytes: 0 });
        }
    }

    /// The part of [`Output::WriteSnapshot`] that ends at byte `bytes` of the snapshot that ends at
    /// `last` is written; if it was the last one, the whole snapshot is durable in its place.
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

    /// What is in the snapshot on its way may be committed here by now. Then it is of no use,
    /// unless a part is being written: that may be the last one, and the snapshot the node's latest
    /// in a moment.
    pub(super) fn drop_overtaken_snapshot(&mut self) {
        let commit_index = self.commit_index;
        self.receiving
            .take_if(|receiving| receiving.meta.last.index <= commit_index && !receiving.is_written());
    }

    /// The content of the snapshot under way cannot be understood: it is dropped.
    pub fn refuse_snapshot(&mut self) {
        self.receiving = None;
    }

    /// Whether a snapshot is on its way to this node.
    #[must_use]
    pub fn receives_snapshot(&self) -> bool {
        self.receiving.is_some()
    }

    /// Whether this node, as leader, is sending its snapshot to a follower that is there and gets
    /// on with it. Parts may be lost now and then: some election timeouts without any more of it
    /// pass before the answer is no.
    #[must_use]
    pub fn sends_snapshot(&self, now: Instant) -> bool {
        let Part::Leader(leadership) = &self.part else { return false };
        let timeout = self.config.election_timeout_max;
        leadership.followers.iter().any(|(_, progress)| {
            let is_there = progress.is_there(now, timeout * SILENCE_PATIENCE);
            (is_there || mutant::is_active(Mutant::LogHeldForSilentFollower))
                && progress.takes_snapshot(now, timeout * SENDING_PATIENCE)
        })
    }

    /// The snapshot takes the place of the log up to its last entry.
    fn install(&mut self, meta: SnapshotMeta) {
        let last = meta.last;
        if last.index <= self.commit_index {
            // The log was faster. It is a snapshot like one of this node's own, but that not all of
            // it need be applied yet, and the entries go: the state is there to be taken over.
            self.turn.installed = Some(meta.clone());
            return self.compact(meta);
        }
        // Fig. 13, InstallSnapshot receiver 6: entries behind the snapshot stay if the log agrees
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
        self.tell(Event::SnapshotInstalled { last: last.index });
        self.compact(meta);
    }

    fn answer_snapshot(&mut self, to: NodeId, promise: Promise, last: LogPoint, outcome: InstallOutcome) {
        let response = InstallSnapshotResponse { last, outcome };
        self.send(to, promise, Body::InstallSnapshotResponse(response));
    }

    /// What the turn asks for and tells of snapshots.
    pub(super) fn take_snapshot_outputs(&mut self) -> impl Iterator<Item = Output> {
        let turn = &mut self.turn;
        let installed = turn.installed.take().map(Output::SnapshotInstalled);
        let writes = turn.snapshot_writes.drain(..).map(Output::WriteSnapshot);
        turn.snapshot_reads.dedup();
        let reads = turn.snapshot_reads.drain(..).map(|(last, offset)| Output::ReadSnapshot { last, offset });
        installed.into_iter().chain(writes).chain(reads)
    }
}

fn leadership_of(part: &mut Part, peer: NodeId) -> Option<&mut Progress> {
    match part {
        Part::Leader(leadership) => leadership.followers.of_mut(peer),
        _ => None,
    }
}
