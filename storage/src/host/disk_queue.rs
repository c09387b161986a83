//! The disk queue: group commit for one node's log.
//!
//! Persists wait here in order. While one group is being written, the next one gathers, and becomes
//! one append and one sync. Between two groups, and while no persist waits, a piece of the log is
//! rewritten behind a snapshot (see [`Planner::renew`]).
//!
//! A group ends at [`GROUP_BYTES_MAX`], which limits the bytes that wait for one sync. Groups and
//! pieces alternate, so that neither starves the other under load.
//!
//! Deliberately not here: carrying operations out. A runtime does that, one piece of work at a
//! time, and never uses the queue again after an operation that failed.

use std::collections::VecDeque;

use coracle_core::raft::{Persist, PersistId};

use crate::execution::FileError;
use crate::files::{FileKind, FileName, FileOp};
use crate::plan::{GROUP_BYTES_MAX, Planner};

/// The queue of one node's persists before its log. See the module.
#[derive(Debug)]
pub struct DiskQueue {
    planner: Planner,
    waiting: VecDeque<Persist>,
    /// The group whose operations are being carried out.
    in_flight: Vec<Persist>,
    is_working: bool,
    /// The last piece of work was a group, so a piece of the log rewrite comes next, if there is
    /// one.
    renews_next: bool,
}

impl DiskQueue {
    /// Creates an empty queue for the log that `planner` plans.
    #[must_use]
    pub fn new(planner: Planner) -> Self {
        Self {
            planner,
            waiting: VecDeque::new(),
            in_flight: Vec::new(),
            is_working: false,
            renews_next: false,
        }
    }

    /// Adds a persist at the end of the queue.
    pub fn push(&mut self, persist: Persist) {
        self.waiting.push_back(persist);
    }

    /// Whether [`DiskQueue::begin`] has work to return. Otherwise the caller has to wait for the
    /// next persist.
    #[must_use]
    pub fn has_work(&self) -> bool {
        !self.waiting.is_empty() || self.planner.can_renew()
    }

    /// Returns the file operations of the next piece of work, in order; `None` if there is no work.
    /// When all of them are carried out, the caller has to call [`DiskQueue::finish`].
    ///
    /// # Panics
    ///
    /// When the previous work was not finished, and when [`Planner::plan`] panics.
    pub fn begin(&mut self) -> Option<Vec<FileOp>> {
        assert!(!self.is_working, "one piece of work at a time");
        if (self.renews_next || self.waiting.is_empty()) && self.planner.can_renew() {
            (self.renews_next, self.is_working) = (false, true);
            return Some(self.planner.renew());
        }
        let mut bytes = 0;
        while bytes < GROUP_BYTES_MAX
            && let Some(persist) = self.waiting.pop_front()
        {
            bytes += persist.bytes();
            self.in_flight.push(persist);
        }
        if self.in_flight.is_empty() {
            return None;
        }
        (self.renews_next, self.is_working) = (true, true);
        Some(self.planner.plan(&self.in_flight))
    }

    /// Ends a piece of work that was carried out. Returns the persist to report: it and all
    /// persists before it are durable. `None` after a piece of a log rewrite.
    ///
    /// # Panics
    ///
    /// When no work was begun.
    pub fn finish(&mut self) -> Option<PersistId> {
        assert!(self.is_working, "what ends was begun");
        self.is_working = false;
        let last = self.in_flight.last().map(|persist| persist.id);
        self.in_flight.clear();
        last
    }

    /// Ends a piece of work that failed. If only a log rewrite found no room, the old log stays in
    /// use and grows until the next snapshot. Then returns the temporary file of the rewrite, which
    /// the caller has to remove.
    ///
    /// # Errors
    ///
    /// The error itself, if the node has to stop because of it.
    ///
    /// # Panics
    ///
    /// When no work was begun.
    pub fn failed(&mut self, error: FileError) -> Result<FileName, FileError> {
        assert!(self.is_working, "what fails was begun");
        let file = FileName::new(self.planner.node(), FileKind::LogTemporary);
        let is_piece = self.in_flight.is_empty();
        if !is_piece || !error.is_for_want_of_room() || !error.is_about(file) {
            return Err(error);
        }
        self.is_working = false;
        self.planner.give_up_renewal();
        Ok(file)
    }

    /// The persists whose operations are being carried out.
    #[must_use]
    pub fn in_flight(&self) -> &[Persist] {
        &self.in_flight
    }

    /// Whether work was begun and not finished.
    #[must_use]
    pub fn is_working(&self) -> bool {
        self.is_working
    }

    /// Returns the file operations of an orderly shutdown, to be carried out when the queue is
    /// empty.
    #[must_use]
    pub fn close(&mut self) -> Vec<FileOp> {
        self.planner.close()
    }

    /// The planner of the log.
    #[must_use]
    pub fn planner(&self) -> &Planner {
        &self.planner
    }
}

#[cfg(test)]
mod tests {
    use coracle_core::raft::{
        BatchBuilder, Compaction, Entries, HardState, LogChange, LogIndex, LogPoint, Term,
    };
    use coracle_core::{ClusterId, Incarnation};

    use super::*;
    use crate::files::{NodeFiles, SyncPolicy};
    use crate::identity::Identity;
    use crate::survey::survey;

    /// A queue for the log of a node that was just founded, and a source of persists for it.
    struct Bench {
        queue: DiskQueue,
        last: LogPoint,
        next_id: u64,
    }

    impl Bench {
        fn new() -> Self {
            let fresh = Identity::for_new_cluster(ClusterId(1), &[Incarnation(2)]);
            let mut survey = survey(vec![NodeFiles::default()], &fresh, SyncPolicy::Always).unwrap();
            let mut planner = survey.nodes.remove(0).planner;
            planner.set_renewal_bytes(1);
            Self { queue: DiskQueue::new(planner), last: LogPoint::ORIGIN, next_id: 0 }
        }

        fn persist(&mut self) -> Persist {
            self.next_id += 1;
            let hard_state = HardState { current_term: Term(1), voted_for: None };
            Persist {
                id: PersistId(self.next_id),
                hard_state: (self.next_id == 1).then_some(hard_state),
                log: LogChange::default(),
                floor: LogIndex::ORIGIN,
            }
        }

        fn entry(&mut self, bytes: usize) -> Entries {
            let mut batch = BatchBuilder::new(self.last);
            batch.seal(Term(1), |text| {
                text.push_str("\"op\":\"NOOP\",\"pad\":\"");
                text.extend(std::iter::repeat_n('x', bytes));
                text.push('"');
            });
            let entries = batch.finish().unwrap();
            self.last = entries.last();
            entries
        }

        fn append(&mut self, bytes: usize) {
            let entries = std::iter::once(self.entry(bytes)).collect();
            let persist = Persist { log: LogChange::append(entries), ..self.persist() };
            self.queue.push(persist);
        }

        /// Begins and finishes a piece of work. Returns how many persists it held, and the persist
        /// to report.
        fn work(&mut self) -> Option<(usize, Option<u64>)> {
            self.queue.begin()?;
            let persists = self.queue.in_flight().len();
            Some((persists, self.queue.finish().map(|id| id.0)))
        }
    }

    #[test]
    fn persists_that_arrive_during_a_write_become_the_next_group() {
        let mut bench = Bench::new();
        assert!(!bench.queue.has_work() && bench.queue.begin().is_none());
        bench.append(1);
        assert!(bench.queue.has_work());
        let first = bench.queue.begin().unwrap();
        let appends = |ops: &[FileOp]| ops.iter().filter(|op| matches!(op, FileOp::Append { .. })).count();
        assert_eq!(appends(&first), 1);
        (0..3).for_each(|_| bench.append(1));
        assert_eq!(bench.queue.finish(), Some(PersistId(1)));
        let second = bench.queue.begin().unwrap();
        assert_eq!((appends(&second), second.len()), (1, 2), "three persists, one append and one sync");
        assert_eq!(bench.queue.finish(), Some(PersistId(4)), "the last is reported for all");
        assert!(!bench.queue.has_work());
    }

    #[test]
    fn a_group_has_a_limit() {
        let mut bench = Bench::new();
        (0..5).for_each(|_| bench.append(GROUP_BYTES_MAX / 2));
        assert_eq!(bench.work(), Some((2, Some(2))));
        assert_eq!(bench.work(), Some((2, Some(4))));
        assert_eq!(bench.work(), Some((1, Some(5))));
        assert_eq!(bench.work(), None);
    }

    #[test]
    fn a_new_log_and_the_groups_take_turns() {
        let mut bench = Bench::new();
        (0..6).for_each(|_| bench.append(100));
        assert_eq!(bench.work(), Some((6, Some(6))));
        // The snapshot covers no entry yet; all six entries are committed and have to be copied.
        let mut batch = BatchBuilder::new(LogPoint::ORIGIN);
        for _ in 0..6 {
            batch.seal(Term(1), |text| {
                text.push_str("\"op\":\"NOOP\",\"pad\":\"");
                text.extend(std::iter::repeat_n('x', 100));
                text.push('"');
            });
        }
        let entries: Vec<_> = batch.finish().into_iter().collect();
        let compaction = Compaction { after: LogPoint::ORIGIN, entries };
        let persist = Persist { log: LogChange::Compact(compaction), floor: LogIndex(6), ..bench.persist() };
        bench.queue.push(persist);
        assert_eq!(bench.work(), Some((1, Some(7))));
        bench.append(1);
        assert_eq!(bench.work(), Some((0, None)), "after a group it is the new log's turn");
        assert_eq!(bench.work(), Some((1, Some(8))), "and then the next group's");
        let mut pieces = 0;
        while let Some(worked) = bench.work() {
            assert_eq!(worked, (0, None));
            pieces += 1;
        }
        assert!(pieces > 0 && !bench.queue.planner().can_renew(), "without persists it goes on alone");
    }

    #[test]
    #[should_panic(expected = "one piece of work at a time")]
    fn work_is_finished_before_the_next_is_begun() {
        let mut bench = Bench::new();
        bench.append(1);
        bench.append(1);
        let _ = bench.queue.begin();
        let _ = bench.queue.begin();
    }
}
