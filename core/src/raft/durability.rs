//! Durability: holds back each message until the disk writes that it depends on are durable.
//!
//! Every turn that changes the term, the vote or the log ends in one [`Persist`]. Persists are
//! numbered and strictly ordered; the runtime carries them out in that order and reports each
//! [`PersistId`] when it is durable. A report covers all persists up to it. Reports may be late,
//! merged or repeated.
//!
//! A message that promises something about the disk (a vote, an acknowledgement, the term itself)
//! is held here until the persist that makes the promise true is reported. So the runtime may send
//! every message that it is handed at once, and cannot send a promise too early. The same rule
//! applies to the leader's own log: the leader counts itself towards a majority only up to
//! [`Durability::durable_index`].

use std::collections::VecDeque;
use std::time::Duration;

use super::batch::Entries;
use super::configuration::Configuration;
use super::event::Event;
use super::message::{AppendOutcome, Body, InstallOutcome, Message};
use super::runs::Runs;
use super::snapshot::{Compaction, RestoredSnapshot};
use super::types::{LogIndex, LogPoint, NodeId, Term};
use crate::identity::Incarnation;
use crate::mutant::{self, Mutant};
use crate::time::Instant;

/// The number of a [`Persist`]. Consecutive, starting at 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PersistId(pub u64);

/// The state that Figure 2 of the paper calls persistent, except the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HardState {
    /// The latest term that the node has seen.
    pub current_term: Term,
    /// The candidate that it voted for in that term.
    pub voted_for: Option<NodeId>,
}

/// One write to the disk. Its parts are carried out in the order of its fields: the term on disk
/// must never be older than the log on disk, or a crash between the two would undo a promise
/// (openraft's `io_ordering` document shows how a committed entry would be lost otherwise).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Persist {
    /// The id to report when all of it is durable.
    pub id: PersistId,
    /// The term and the vote, if they changed or if the floor is to be noted with them.
    pub hard_state: Option<HardState>,
    /// The change of the log.
    pub log: LogChange,
    /// All entries up to this index are committed and durable on this node: if the log is later
    /// found to be shorter, it is damaged, not torn.
    pub floor: LogIndex,
}

/// The change of the log in one write to the disk. The default changes nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogChange {
    /// Entries are removed from the end of the log, and others are appended.
    Append {
        /// Remove the entries from this index on; set when the log was cut.
        cut_from: Option<LogIndex>,
        /// The entries to append, in order.
        entries: Runs,
    },
    /// The whole new log, when a snapshot has replaced its beginning or all of it. It already
    /// contains what this turn has cut and appended. The part that the snapshot covers may stay on
    /// the disk for a while after the report, if the log continues after it.
    Compact(Compaction),
}

impl Default for LogChange {
    fn default() -> Self {
        Self::append(Runs::new())
    }
}

impl LogChange {
    /// Appends these entries, without a cut.
    #[must_use]
    pub fn append(entries: Runs) -> Self {
        Self::Append { cut_from: None, entries }
    }

    /// Returns whether nothing changes.
    #[must_use]
    pub fn is_none(&self) -> bool {
        matches!(self, Self::Append { cut_from: None, entries } if entries.is_empty())
    }
}

impl Persist {
    /// The new log, if it is replaced as a whole.
    #[must_use]
    pub fn compaction(&self) -> Option<&Compaction> {
        if let LogChange::Compact(compaction) = &self.log { Some(compaction) } else { None }
    }

    /// The first index that is removed from the end of the log, if any is.
    #[must_use]
    pub fn cut_from(&self) -> Option<LogIndex> {
        if let LogChange::Append { cut_from, .. } = self.log { cut_from } else { None }
    }

    /// The entries that are appended to the log.
    #[must_use]
    pub fn entries(&self) -> &[Entries] {
        if let LogChange::Append { entries, .. } = &self.log { entries } else { &[] }
    }

    /// The number of bytes of entries to write.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let entries: &[Entries] = match &self.log {
            LogChange::Append { entries, .. } => entries,
            LogChange::Compact(compaction) => &compaction.entries,
        };
        entries.iter().map(Entries::bytes).sum()
    }
}

/// The state that a node finds on its disk when it starts.
#[derive(Clone, Debug, Default)]
pub struct Restored {
    /// The term and the vote.
    pub hard_state: HardState,
    /// The latest snapshot, if there is one. It reaches `log_start` or beyond.
    pub snapshot: Option<RestoredSnapshot>,
    /// The point that the log starts after.
    pub log_start: LogPoint,
    /// The log, in order. The first run follows `log_start`, and each of the others follows the run
    /// before it.
    pub log: Vec<Entries>,
}

impl Restored {
    /// The index of the last configuration that names this node, among those of the log, of the
    /// snapshot and of the founders; `None` when no configuration names it.
    #[must_use]
    pub fn last_naming(
        &self,
        founders: &Configuration,
        node: NodeId,
        incarnation: Incarnation,
    ) -> Option<LogIndex> {
        let names = |configuration: &Configuration| configuration.names(node, Some(incarnation));
        let snapshot = self.snapshot.as_ref().map(|snapshot| &snapshot.meta);
        let (index, first) =
            snapshot.map_or((LogIndex::ORIGIN, founders), |meta| (meta.last.index, &meta.configuration));
        let in_log = self.log.iter().flat_map(Entries::configurations);
        let naming = in_log.filter(|(_, configuration)| names(configuration)).map(|(index, _)| index);
        naming.last().or_else(|| names(first).then_some(index))
    }

    /// The latest configuration in the log or, if there is none, in the snapshot, with its index;
    /// `None` when only the configuration of the founders is left.
    #[must_use]
    pub fn latest_configuration(&self) -> Option<(LogIndex, Configuration)> {
        let in_log = self.log.iter().rev().find_map(|run| run.configurations().last());
        let in_snapshot = || {
            let meta = &self.snapshot.as_ref()?.meta;
            Some((meta.last.index, meta.configuration.clone()))
        };
        in_log.or_else(in_snapshot)
    }
}

/// How long a disk may take for a write before that is reported. Chosen well above the time that a
/// busy disk takes, and so that an operator reads the report before any other component gives up.
pub const DISK_TIMEOUT: Duration = Duration::from_secs(2);

/// How long the floor in the metadata may lag behind while entries become durable. Chosen so that
/// the loss of a page of the log is noticed unless the page was written in the last seconds, while
/// three syncs in that time cost next to nothing.
pub const FLOOR_NOTED_EVERY: Duration = Duration::from_secs(3);

/// The state that must be durable before a message may leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Promise {
    /// Nothing: the message depends on no write that is still under way.
    Nothing,
    /// The term and the vote as they are now.
    HardState,
    /// The term, the vote and the log as they are now.
    Log,
}

/// The disk as the node sees it: persists in flight, durable state and held-back messages. See the
/// module documentation.
#[derive(Clone, Debug)]
pub(super) struct Durability {
    last_id: PersistId,
    reported: PersistId,
    in_flight: VecDeque<InFlight>,
    hard_state_id: PersistId,
    log_id: PersistId,
    durable_index: LogIndex,
    held: VecDeque<(PersistId, Message)>,
    /// When the disk last reported a persist.
    last_report: Instant,
    /// Bytes of entries in the writes in flight.
    undurable_bytes: usize,
    /// The floor that was last written together with the term and the vote, and when.
    noted_floor: LogIndex,
    noted_at: Instant,
    /// Whether it was reported that the disk hangs.
    hang_is_reported: bool,
}

#[derive(Clone, Debug)]
struct InFlight {
    id: PersistId,
    bytes: usize,
    /// The last index of the log once this write is durable; lowered when the log is cut below it
    /// later.
    last_index: LogIndex,
    since: Instant,
}

impl Durability {
    /// The state at a start: the disk holds a log up to `durable_index`, and no write is in flight.
    pub(super) fn new(durable_index: LogIndex) -> Self {
        Self {
            last_id: PersistId(0),
            reported: PersistId(0),
            in_flight: VecDeque::new(),
            hard_state_id: PersistId(0),
            log_id: PersistId(0),
            durable_index,
            held: VecDeque::new(),
            last_report: Instant::default(),
            undurable_bytes: 0,
            noted_floor: LogIndex::ORIGIN,
            noted_at: Instant::default(),
            hang_is_reported: false,
        }
    }

    /// Returns an event whenever the disk has begun to hang or has recovered.
    pub(super) fn hang_event(&mut self, now: Instant) -> Option<Event> {
        let hanging_since = self.waiting_since().filter(|since| now >= *since + DISK_TIMEOUT);
        if hanging_since.is_some() == self.hang_is_reported {
            return None;
        }
        self.hang_is_reported = hanging_since.is_some();
        let hangs = hanging_since.map(|since| Event::DiskHangs { waited: now.since(since) });
        Some(hangs.unwrap_or(Event::DiskRecovered))
    }

    /// Returns whether `floor` must be written to the metadata now, with a persist that changes
    /// neither term nor vote.
    pub(super) fn floor_is_due(&self, floor: LogIndex, now: Instant) -> bool {
        let is_late = floor > self.noted_floor && now >= self.noted_at + FLOOR_NOTED_EVERY;
        is_late && !mutant::is_active(Mutant::FloorNotNoted)
    }

    /// Notes that `floor` is written together with the term and the vote.
    pub(super) fn note_floor(&mut self, floor: LogIndex, now: Instant) {
        (self.noted_floor, self.noted_at) = (floor, now);
    }

    /// The index up to which the log is durable on this node's disk.
    pub(super) fn durable_index(&self) -> LogIndex {
        self.durable_index
    }

    /// Returns whether the current term and vote are on disk.
    pub(super) fn hard_state_is_durable(&self) -> bool {
        self.hard_state_id <= self.reported
    }

    /// Since when the disk has reported nothing although it has work to do. A long queue alone is
    /// no sign of a stall.
    pub(super) fn waiting_since(&self) -> Option<Instant> {
        self.in_flight.front().map(|oldest| oldest.since.max(self.last_report))
    }

    /// Bytes of entries that were handed to the disk and are not durable yet.
    pub(super) fn undurable_bytes(&self) -> usize {
        self.undurable_bytes
    }

    /// Notes that the log was cut in memory: the entries from `from` on are gone, durable or not.
    ///
    /// Writes of the old tail may still be reported later; such a report must not count for the new
    /// tail at the same indexes.
    pub(super) fn cut(&mut self, from: LogIndex) {
        let last_kept = from.previous();
        self.durable_index = self.durable_index.min(last_kept);
        for write in &mut self.in_flight {
            if write.last_index > last_kept && !mutant::is_active(Mutant::ReportOfCutEntriesCounts) {
                write.last_index = last_kept;
            }
        }
    }

    /// Drops the held-back acknowledgements that cover the entry at `from`.
    pub(super) fn forget_acknowledgements(&mut self, from: LogIndex) {
        self.held.retain(|(_, message)| !message.acknowledges(from));
    }

    /// Notes a new persist, after which the log ends at `last_index`, and returns its id.
    pub(super) fn start(&mut self, persist: &PersistScope, now: Instant) -> PersistId {
        self.last_id = PersistId(self.last_id.0 + 1);
        if persist.hard_state {
            self.hard_state_id = self.last_id;
        }
        if persist.log {
            self.log_id = self.last_id;
        }
        let PersistScope { bytes, last_index, .. } = *persist;
        self.undurable_bytes += bytes;
        self.in_flight.push_back(InFlight { id: self.last_id, bytes, last_index, since: now });
        self.last_id
    }

    /// Handles the report of the runtime that `id`, and all persists before it, are durable.
    pub(super) fn report(&mut self, id: PersistId, now: Instant) {
        assert!(id <= self.last_id, "a persist was reported that was never asked for");
        self.reported = self.reported.max(id);
        self.last_report = now;
        while let Some(write) = self.in_flight.pop_front_if(|write| write.id <= id) {
            self.durable_index = self.durable_index.max(write.last_index);
            self.undurable_bytes -= write.bytes;
        }
    }

    /// Hands `message` to `sendable` if the state that it promises is durable already; otherwise
    /// holds it back until then.
    pub(super) fn release_or_hold(
        &mut self,
        promise: Promise,
        message: Message,
        sendable: &mut impl FnMut(Message),
    ) {
        let needed = match promise {
            Promise::Nothing => PersistId(0),
            Promise::HardState => self.hard_state_id,
            Promise::Log => self.hard_state_id.max(self.log_id),
        };
        let needed = self.needed_by_mutant(promise).unwrap_or(needed);
        if needed <= self.reported {
            return sendable(message);
        }
        // While a disk hangs, its node is called again and again. The latest answer contains all
        // that the earlier ones say.
        let replaced = self.held.iter_mut().find(|(held, old)| *held == needed && outdates(&message, old));
        match replaced {
            Some((_, old)) => *old = message,
            None => self.held.push_back((needed, message)),
        }
    }

    /// Hands to `sendable` every held-back message whose promise is durable by now, in their
    /// original order.
    pub(super) fn release(&mut self, sendable: &mut impl FnMut(Message)) {
        // One rotation of the queue: a message that stays returns to its place, and the queue keeps
        // its memory.
        for _ in 0..self.held.len() {
            let Some((needed, message)) = self.held.pop_front() else { return };
            if needed <= self.reported {
                sendable(message);
            } else {
                self.held.push_back((needed, message));
            }
        }
    }

    /// Deliberate bugs: a vote waits for no write, an acknowledgement only for term and vote.
    fn needed_by_mutant(&self, promise: Promise) -> Option<PersistId> {
        match promise {
            Promise::HardState => mutant::is_active(Mutant::VoteBeforeSync).then_some(PersistId(0)),
            Promise::Log => mutant::is_active(Mutant::AckBeforeSync).then_some(self.hard_state_id),
            Promise::Nothing => None,
        }
    }
}

/// Returns whether `new` makes `old` redundant, an answer that waits for the same persist.
fn outdates(new: &Message, old: &Message) -> bool {
    let is_to_the_same = (new.to, new.term) == (old.to, old.term);
    let says_as_much = match (&new.body, &old.body) {
        (Body::HeartbeatResponse(new), Body::HeartbeatResponse(old)) => new.round >= old.round,
        (Body::NewerTerm, Body::NewerTerm) => true,
        (Body::InstallSnapshotResponse(new), Body::InstallSnapshotResponse(old)) => {
            let is_more = match (new.outcome, old.outcome) {
                (InstallOutcome::Installed, _) => true,
                (InstallOutcome::Holds { bytes }, InstallOutcome::Holds { bytes: before }) => bytes >= before,
                (InstallOutcome::Holds { .. }, InstallOutcome::Installed) => false,
            };
            new.last == old.last && is_more
        }
        (Body::AppendEntriesResponse(new), Body::AppendEntriesResponse(old)) => {
            match (new.outcome, old.outcome) {
                (
                    AppendOutcome::Accepted { match_index },
                    AppendOutcome::Accepted { match_index: before },
                ) => match_index >= before,
                (_, AppendOutcome::Rejected { .. }) => true,
                (AppendOutcome::Rejected { .. }, AppendOutcome::Accepted { .. }) => false,
            }
        }
        _ => false,
    };
    is_to_the_same && says_as_much
}

/// The extent of a persist: which parts of the state it changes, and how much it writes.
#[derive(Debug)]
pub(super) struct PersistScope {
    pub(super) hard_state: bool,
    pub(super) log: bool,
    pub(super) bytes: usize,
    pub(super) last_index: LogIndex,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log_write(last_index: u64) -> PersistScope {
        PersistScope { hard_state: false, log: true, bytes: 10, last_index: LogIndex(last_index) }
    }

    #[test]
    fn a_late_report_of_a_cut_tail_does_not_count_for_the_new_one() {
        let mut disk = Durability::new(LogIndex(3));
        let old_tail = disk.start(&log_write(10), Instant::default());
        disk.cut(LogIndex(6));
        let new_tail = disk.start(&log_write(9), Instant::default());
        disk.report(old_tail, Instant::default());
        assert_eq!(disk.durable_index(), LogIndex(5));
        disk.report(new_tail, Instant::default());
        assert_eq!(disk.durable_index(), LogIndex(9));
    }

    #[test]
    fn a_report_covers_all_earlier_persists_and_may_be_repeated() {
        let mut disk = Durability::new(LogIndex(0));
        let first = disk.start(&log_write(1), Instant::from_micros(1));
        let second = disk.start(&log_write(2), Instant::from_micros(2));
        assert_eq!(disk.waiting_since(), Some(Instant::from_micros(1)));
        disk.report(second, Instant::from_micros(3));
        assert_eq!(disk.durable_index(), LogIndex(2));
        disk.report(first, Instant::from_micros(4));
        assert_eq!(disk.durable_index(), LogIndex(2));
        assert_eq!(disk.waiting_since(), None);
    }

    #[test]
    fn a_disk_that_reports_is_not_stalled_however_long_its_queue() {
        let mut disk = Durability::new(LogIndex(0));
        let first = disk.start(&log_write(1), Instant::from_micros(1));
        disk.start(&log_write(2), Instant::from_micros(2));
        assert_eq!((disk.waiting_since(), disk.undurable_bytes()), (Some(Instant::from_micros(1)), 20));
        disk.report(first, Instant::from_micros(900));
        assert_eq!((disk.waiting_since(), disk.undurable_bytes()), (Some(Instant::from_micros(900)), 10));
    }

    #[test]
    fn a_cut_lowers_the_durable_index() {
        let mut disk = Durability::new(LogIndex(8));
        disk.cut(LogIndex(5));
        assert_eq!(disk.durable_index(), LogIndex(4));
    }
}
