//! A batch of log entries: one allocation that the log, the messages and the disk share.
//!
//! At the end of a leader's turn all its new entries are sealed into one `Batch`. [`Entries`] is a
//! view of some consecutive entries of a batch.
//!
//! Invariants of a `Batch`, which hold for every [`Entries`]:
//!
//! 1. It holds at least one entry, and the indexes are consecutive, starting after `before`.
//! 2. Terms never decrease from one entry to the next, nor below the term of `before`.
//! 3. Every line's checksum is right for its bytes and for the checksum of its predecessor.
//!
//! [`BatchBuilder`](super::BatchBuilder) is the only gateway: it alone creates batches. So no code
//! behind it checks again.

use std::any::Any;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::configuration::Configuration;
use super::entry::{Entry, EntryKind};
use super::line::TAIL_LEN;
use super::types::{Checksum, LogIndex, LogPoint, Term};

/// The maximum size of a batch in bytes, chosen so that offsets fit in 32 bits with room to spare.
pub const BATCH_BYTES_MAX: usize = 1 << 30;

/// An entry's position in the text of its batch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark {
    pub(super) term: Term,
    pub(super) checksum: Checksum,
    pub(super) start: u32,
    pub(super) payload_start: u32,
    /// The offset just after the line break.
    pub(super) end: u32,
}

/// Consecutive entries in one allocation. The module's documentation states the invariants.
struct Batch {
    before: LogPoint,
    /// Whether any entry holds a configuration. Nearly always none does, and the search is skipped.
    has_configuration: bool,
    text: String,
    marks: Marks,
    parsed: Mutex<Weak<dyn Any + Send + Sync>>,
}

/// The marks of a batch. A single mark is stored in the batch itself, which saves an allocation and
/// a look-up.
pub(super) enum Marks {
    One(Mark),
    Many(Vec<Mark>),
}

/// Some consecutive entries of one batch, at least one. Cloning copies no entries.
#[derive(Clone)]
pub struct Entries {
    batch: Arc<Batch>,
    /// Positions in the batch's marks: the first entry, and one past the last. They fit in 32 bits,
    /// because an entry is longer than a byte.
    start: u32,
    end: u32,
}

impl Entries {
    /// Makes a batch that follows `before`, and returns a view of all its entries. Only for the
    /// gateway, which upholds the invariants.
    pub(super) fn of_batch(before: LogPoint, has_configuration: bool, text: String, marks: Marks) -> Self {
        let batch = Batch { before, has_configuration, text, marks, parsed: Mutex::new(Weak::<()>::new()) };
        let end = offset(batch.marks().len());
        Self { batch: Arc::new(batch), start: 0, end }
    }

    /// The lines, each with its line break, exactly as on disk and on the wire.
    #[must_use]
    pub fn text(&self) -> &str {
        let range = self.range();
        &self.batch.text[self.batch.end_before(range.start)..self.batch.end_before(range.end)]
    }

    /// The number of bytes of text.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let range = self.range();
        self.batch.end_before(range.end) - self.batch.end_before(range.start)
    }

    /// The number of entries; never zero.
    #[expect(clippy::len_without_is_empty, reason = "a run of entries is never empty")]
    #[must_use]
    pub fn len(&self) -> usize {
        self.range().len()
    }

    /// The point of the entry before the first one.
    #[must_use]
    pub fn before(&self) -> LogPoint {
        self.batch.point_before(self.range().start)
    }

    /// The index of the first entry.
    #[must_use]
    pub fn first_index(&self) -> LogIndex {
        self.before().index.next()
    }

    /// The point of the last entry.
    #[must_use]
    pub fn last(&self) -> LogPoint {
        self.batch.point_before(self.range().end)
    }

    /// The point of the entry at `index`, if it is among these.
    #[must_use]
    pub fn point_at(&self, index: LogIndex) -> Option<LogPoint> {
        self.position_of(index).map(|position| self.batch.point_before(position + 1))
    }

    /// Iterates over these entries, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Entry<'_>> {
        self.batch.entries(self.range())
    }

    /// Iterates over the entries from `first` to `last` that are among these, in order.
    pub(super) fn between(&self, first: LogIndex, last: LogIndex) -> impl Iterator<Item = Entry<'_>> {
        let Range { start, end } = self.range();
        let after = |index: LogIndex| self.position_of(index).map(|position| position + 1);
        let start = after(first.previous()).unwrap_or(start);
        let end = after(last).unwrap_or(end);
        self.batch.entries(start..end.max(start))
    }

    /// The entries from `index` on; `None` when there are none.
    #[must_use]
    pub fn starting_at(&self, index: LogIndex) -> Option<Self> {
        self.clone().into_starting_at(index)
    }

    /// The same as [`Self::starting_at`], without a clone: consumes the view.
    pub(super) fn into_starting_at(mut self, index: LogIndex) -> Option<Self> {
        if index > self.first_index() {
            self.start = offset(self.position_of(index)?);
        }
        Some(self)
    }

    /// The entries up to and including `index`; `None` when there are none.
    #[must_use]
    pub fn ending_at(&self, index: LogIndex) -> Option<Self> {
        let mut kept = self.clone();
        if index < self.last().index {
            kept.end = offset(self.position_of(index)? + 1);
        }
        Some(kept)
    }

    /// As many entries from the front as fit in `bytes_max` bytes of text, but at least one.
    #[must_use]
    pub fn fitting(&self, bytes_max: usize) -> Self {
        self.clone().into_fitting(bytes_max)
    }

    /// The same as [`Self::fitting`], without a clone: consumes the view.
    pub(super) fn into_fitting(mut self, bytes_max: usize) -> Self {
        if self.bytes() > bytes_max {
            let limit = self.batch.end_before(self.range().start) + bytes_max;
            let fit = self.batch.marks()[self.range()].partition_point(|mark| mark.end as usize <= limit);
            self.end = self.start + offset(fit.max(1));
        }
        self
    }

    /// All entries of the batch to which these belong.
    #[must_use]
    pub fn whole_batch(&self) -> Self {
        Self { batch: Arc::clone(&self.batch), start: 0, end: offset(self.batch.marks().len()) }
    }

    /// The decoded form of the whole batch that another reader has cached here, if a reader still
    /// holds it: several nodes of one process share their batches and need not decode each batch
    /// again. All of them must decode the same log alike.
    #[must_use]
    pub fn parsed<T: Any + Send + Sync>(&self) -> Option<Arc<T>> {
        let parsed = self.batch.parsed.lock().unwrap_or_else(PoisonError::into_inner).upgrade();
        parsed?.downcast().ok()
    }

    /// Caches the decoded form of the whole batch for other readers. They find it while at least
    /// one reader still holds it.
    pub fn attach_parsed<T: Any + Send + Sync>(&self, parsed: &Arc<T>) {
        let parsed: Arc<dyn Any + Send + Sync> = Arc::<T>::clone(parsed);
        *self.batch.parsed.lock().unwrap_or_else(PoisonError::into_inner) = Arc::downgrade(&parsed);
    }

    /// Iterates over the configurations among these entries, with their indexes.
    pub(super) fn configurations(&self) -> impl Iterator<Item = (LogIndex, Configuration)> + '_ {
        let entries = if self.batch.has_configuration { self.range() } else { 0..0 };
        entries.filter_map(|position| {
            let entry = self.batch.entry(position, &self.batch.marks()[position]);
            let is_configuration = entry.kind() == EntryKind::Config;
            is_configuration.then(|| {
                let configuration = Configuration::read(entry.payload);
                (entry.point.index, configuration.expect("the log holds only configurations of this version"))
            })
        })
    }

    /// Returns whether every configuration among these entries can be parsed. Entries from outside
    /// are checked by this before they are kept; behind that gateway `Entries::configurations`
    /// relies on it.
    #[must_use]
    pub fn configurations_are_known(&self) -> bool {
        let entries = if self.batch.has_configuration { self.range() } else { 0..0 };
        entries.into_iter().all(|position| {
            let entry = self.batch.entry(position, &self.batch.marks()[position]);
            entry.kind() != EntryKind::Config || Configuration::read(entry.payload).is_some()
        })
    }

    fn position_of(&self, index: LogIndex) -> Option<usize> {
        let offset = index.0.checked_sub(self.batch.before.index.0 + 1)?;
        usize::try_from(offset).ok().filter(|position| self.range().contains(position))
    }

    fn range(&self) -> Range<usize> {
        self.start as usize..self.end as usize
    }
}

impl fmt::Debug for Entries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Entries({}..={} to term {})", self.first_index(), self.last().index, self.last().term)
    }
}

/// Two views are equal when they hold the same entries after the same log.
impl PartialEq for Entries {
    fn eq(&self, other: &Self) -> bool {
        self.before() == other.before() && self.text() == other.text()
    }
}

impl Eq for Entries {}

impl Batch {
    fn marks(&self) -> &[Mark] {
        match &self.marks {
            Marks::One(mark) => std::slice::from_ref(mark),
            Marks::Many(marks) => marks,
        }
    }

    /// The offset at which the text of the entries before `position` ends.
    fn end_before(&self, position: usize) -> usize {
        position.checked_sub(1).map_or(0, |before| self.marks()[before].end as usize)
    }

    fn point_before(&self, position: usize) -> LogPoint {
        match position.checked_sub(1) {
            None => self.before,
            Some(before) => {
                let mark = self.marks()[before];
                let index = LogIndex(self.before.index.0 + position as u64);
                LogPoint { index, term: mark.term, checksum: mark.checksum }
            }
        }
    }

    fn entries(&self, range: Range<usize>) -> impl ExactSizeIterator<Item = Entry<'_>> {
        let first = range.start;
        let marks = self.marks()[range].iter().enumerate();
        marks.map(move |(place, mark)| self.entry(first + place, mark))
    }

    /// The entry at `position`, whose mark is `mark`.
    fn entry(&self, position: usize, mark: &Mark) -> Entry<'_> {
        let index = LogIndex(self.before.index.0 + 1 + position as u64);
        let payload_end = mark.end as usize - TAIL_LEN - 1;
        Entry {
            point: LogPoint { index, term: mark.term, checksum: mark.checksum },
            payload: &self.text[mark.payload_start as usize..payload_end],
            bytes: (mark.end - mark.start) as usize,
        }
    }
}

pub(super) fn offset(at: usize) -> u32 {
    u32::try_from(at).expect("a batch is smaller than BATCH_BYTES_MAX")
}
