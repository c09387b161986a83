//! Log entries as the lines they are on disk and on the wire.
//!
//! An entry is encoded once, by the leader that appends it:
//!
//! ```text
//! {"index":7,"term":2,"op":"PUT","key":"snack","value":"chips","crc":"9a3c01ff"}
//! └────── head ─────┘ └─────────────── payload ─────────────┘ └──── tail ────┘
//! ```
//!
//! The payload belongs to the state machine and is opaque here: the members of a JSON object, as text,
//! without a line break. The head and the tail are Raft's. From then on the line is only copied: to the
//! leader's disk, to the followers and to their disks. It is parsed again only to be applied.
//!
//! A leader's turn seals all its new entries into one `Batch`, one allocation that the log, the messages
//! and the disk share. [`Entries`] is a view of some consecutive entries of a batch.
//!
//! Invariants of a `Batch`, which every [`Entries`] inherits:
//!
//! 1. It holds at least one entry, and their indexes follow one another from `before` on.
//! 2. Terms never fall from one entry to the next, nor below the term of `before`.
//! 3. Every line's checksum is right for its bytes and for the checksum of its predecessor.
//!
//! The one gateway is [`BatchBuilder`]: [`seal`](BatchBuilder::seal) makes lines that are right, and
//! [`accept`](BatchBuilder::accept) checks lines that come from outside. So nothing behind it checks again.

use std::any::Any;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, OnceLock, Weak};

use super::configuration::{CONFIG_PREFIX, Configuration};
use super::line::{HEAD_INDEX, HEAD_TERM, Line, LineFault, TAIL_END, TAIL_LEN, TAIL_START, push_number};
use super::types::{Checksum, LogIndex, LogPoint, Term};
use crate::mutant::{self, Mutant};

/// The payload of the entry that every new leader appends first (§8).
pub(crate) const NOOP_PAYLOAD: &str = "\"op\":\"NOOP\"";

/// The most bytes a batch may hold, chosen so that offsets fit 32 bits with room to spare.
pub const BATCH_BYTES_MAX: usize = 1 << 30;

/// What an entry is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A new leader's first entry (§8): the state machine ignores it.
    Noop,
    /// Who takes part (§6).
    Config,
    /// For the state machine.
    Command,
}

/// One entry, borrowed from its batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Its index, term and chained checksum.
    pub point: LogPoint,
    /// The state machine's part of the line: the members of a JSON object.
    pub payload: &'a str,
    /// Bytes of its line, with the line break.
    pub bytes: usize,
}

impl Entry<'_> {
    /// What the entry is for.
    #[must_use]
    pub fn kind(&self) -> EntryKind {
        if self.payload == NOOP_PAYLOAD {
            EntryKind::Noop
        } else if self.payload.starts_with(CONFIG_PREFIX) {
            EntryKind::Config
        } else {
            EntryKind::Command
        }
    }
}

/// Where an entry lies in its batch's text.
#[derive(Clone, Copy, Debug)]
struct Mark {
    term: Term,
    checksum: Checksum,
    start: u32,
    payload_start: u32,
    /// Just past the line break.
    end: u32,
}

/// Consecutive entries in one allocation. See the module's invariants.
struct Batch {
    before: LogPoint,
    /// Whether an entry holds a configuration: nearly always none does, and nobody looks.
    has_configuration: bool,
    text: String,
    marks: Marks,
    reading: OnceLock<Weak<dyn Any + Send + Sync>>,
}

/// The marks of a batch. That of an entry which came alone lies in the batch itself: the less is to be found and to be freed.
enum Marks {
    One(Mark),
    Many(Vec<Mark>),
}

/// Some consecutive entries of one batch, at least one. Cloning copies no entry.
#[derive(Clone)]
pub struct Entries {
    batch: Arc<Batch>,
    /// Positions in the batch's marks: the first one, and the one after the last. They fit, because an entry is more than a
    /// byte.
    start: u32,
    end: u32,
}

impl Entries {
    /// The lines, each with its line break, as they stand on disk and on the wire.
    #[must_use]
    pub fn text(&self) -> &str {
        let range = self.range();
        &self.batch.text[self.batch.end_before(range.start)..self.batch.end_before(range.end)]
    }

    /// How many bytes of text these are.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let range = self.range();
        self.batch.end_before(range.end) - self.batch.end_before(range.start)
    }

    /// How many entries these are; never zero.
    #[expect(clippy::len_without_is_empty, reason = "a run of entries is never empty")]
    #[must_use]
    pub fn len(&self) -> usize {
        self.range().len()
    }

    /// The point that the first entry follows.
    #[must_use]
    pub fn before(&self) -> LogPoint {
        self.batch.point_before(self.range().start)
    }

    /// The first entry's index.
    #[must_use]
    pub fn first_index(&self) -> LogIndex {
        self.before().index.next()
    }

    /// The point of the last entry.
    #[must_use]
    pub fn last(&self) -> LogPoint {
        self.batch.point_before(self.range().end)
    }

    /// The point of the entry at `index`, if it is one of these.
    #[must_use]
    pub fn point_at(&self, index: LogIndex) -> Option<LogPoint> {
        self.position_of(index).map(|position| self.batch.point_before(position + 1))
    }

    /// These entries, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Entry<'_>> {
        self.batch.entries(self.range())
    }

    /// Those of these entries from `first` to `last`, in order.
    pub(super) fn between(&self, first: LogIndex, last: LogIndex) -> impl Iterator<Item = Entry<'_>> {
        let Range { start, end } = self.range();
        let after = |index: LogIndex| self.position_of(index).map(|position| position + 1);
        let start = after(first.previous()).unwrap_or(start);
        let end = after(last).unwrap_or(end);
        self.batch.entries(start..end.max(start))
    }

    /// The entries from `index` on, `None` when there are none.
    #[must_use]
    pub fn starting_at(&self, index: LogIndex) -> Option<Self> {
        self.clone().into_starting_at(index)
    }

    /// The same of a view that nobody needs any more.
    pub(super) fn into_starting_at(mut self, index: LogIndex) -> Option<Self> {
        if index > self.first_index() {
            self.start = offset(self.position_of(index)?);
        }
        Some(self)
    }

    /// The entries up to and with `index`, `None` when there are none.
    #[must_use]
    pub fn ending_at(&self, index: LogIndex) -> Option<Self> {
        let mut kept = self.clone();
        if index < self.last().index {
            kept.end = offset(self.position_of(index)? + 1);
        }
        Some(kept)
    }

    /// As many entries from the front as fit `bytes_max` bytes of text, but one at the least.
    #[must_use]
    pub fn fitting(&self, bytes_max: usize) -> Self {
        self.clone().into_fitting(bytes_max)
    }

    /// The same of a view that nobody needs any more.
    pub(super) fn into_fitting(mut self, bytes_max: usize) -> Self {
        if self.bytes() > bytes_max {
            let limit = self.batch.end_before(self.range().start) + bytes_max;
            let fit = self.batch.marks()[self.range()].partition_point(|mark| mark.end as usize <= limit);
            self.end = self.start + offset(fit.max(1));
        }
        self
    }

    /// All entries of the batch that these belong to.
    #[must_use]
    pub fn whole_batch(&self) -> Self {
        Self { batch: Arc::clone(&self.batch), start: 0, end: offset(self.batch.marks().len()) }
    }

    /// What another reader has made of the whole batch, if it left that here and still holds it: several nodes of one
    /// process share their batches, and need not read each of them anew. The same log must be read alike by all of them.
    #[must_use]
    pub fn reading<T: Any + Send + Sync>(&self) -> Option<Arc<T>> {
        self.batch.reading.get()?.upgrade()?.downcast().ok()
    }

    /// Leaves what was made of the whole batch for other readers, for as long as somebody holds it. Only the first who
    /// does so is heard.
    pub fn leave_reading<T: Any + Send + Sync>(&self, reading: &Arc<T>) {
        let reading: Arc<dyn Any + Send + Sync> = Arc::<T>::clone(reading);
        let _ = self.batch.reading.set(Arc::downgrade(&reading));
    }

    /// The configurations among these entries, with their indexes.
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

    /// Whether every configuration among these entries can be read. What comes from outside is asked before it is kept; behind
    /// that gateway `Entries::configurations` takes it for granted.
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

/// Equal when they are the same entries after the same log.
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

    /// Where the text of the entries before `position` ends.
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

    /// The entry at `position`, where `mark` is.
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

/// Makes a batch of [`Entries`], entry by entry: the gateway that upholds its invariants.
#[derive(Clone, Debug)]
pub struct BatchBuilder {
    before: LogPoint,
    has_configuration: bool,
    last: LogPoint,
    text: String,
    marks: Vec<Mark>,
}

impl BatchBuilder {
    /// Begins anew, with a batch that will follow `before`.
    pub(super) fn restart(&mut self, before: LogPoint) {
        self.marks.clear();
        self.text.clear();
        (self.before, self.last, self.has_configuration) = (before, before, false);
    }

    /// A batch that will follow `before`.
    #[must_use]
    pub fn new(before: LogPoint) -> Self {
        Self { before, has_configuration: false, last: before, text: String::new(), marks: Vec::new() }
    }

    /// Makes room for `entries` entries of `bytes` bytes in all.
    pub fn reserve(&mut self, entries: usize, bytes: usize) {
        self.marks.reserve(entries);
        self.text.reserve(bytes);
    }

    /// The point of the entry added last, or the one the batch follows.
    #[must_use]
    pub fn last(&self) -> LogPoint {
        self.last
    }

    /// Bytes of text so far.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.text.len()
    }

    /// Whether one of the entries so far holds a configuration.
    pub(super) fn has_configuration(&self) -> bool {
        self.has_configuration
    }

    /// Whether no entry was added yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.marks.is_empty()
    }

    /// Appends an entry: writes its line and checksum around the payload, which `write_payload` adds to the
    /// text it is given.
    ///
    /// # Panics
    ///
    /// When `term` is below the last entry's, when the payload is empty or holds a line break, or when the batch
    /// would pass [`BATCH_BYTES_MAX`]: each is a bug of the caller.
    pub fn seal(&mut self, term: Term, write_payload: impl FnOnce(&mut String)) -> LogPoint {
        assert!(term >= self.last.term, "an entry of an older term after a newer one");
        let start = self.text.len();
        self.text.push_str(HEAD_INDEX);
        push_number(&mut self.text, self.last.index.next().0);
        self.text.push_str(HEAD_TERM);
        push_number(&mut self.text, term.0);
        self.text.push(',');
        let payload_start = self.text.len();
        write_payload(&mut self.text);
        assert!(self.text.len() > payload_start, "a payload is not empty");
        self.has_configuration |= self.text[payload_start..].starts_with(CONFIG_PREFIX);
        debug_assert!(!self.text[payload_start..].contains('\n'), "a payload is one line");
        let is_unchained = mutant::is_active(Mutant::ChainBroken);
        let before = if is_unchained { Checksum::default() } else { self.last.checksum };
        let checksum = before.chain(&self.text.as_bytes()[start..]);
        self.text.push_str(TAIL_START);
        for digit in checksum.to_text() {
            self.text.push(char::from(digit));
        }
        self.text.push_str(TAIL_END);
        self.close_line(term, checksum, payload_start);
        self.last
    }

    /// Appends a line that came from outside, without its line break, after checking all of it.
    ///
    /// # Errors
    ///
    /// [`LineFault`] says what is wrong with the line; the batch is as before.
    pub fn accept(&mut self, line: &[u8]) -> Result<LogPoint, LineFault> {
        let line = Line::read(line).ok_or(LineFault::NotAnEntry)?;
        if !line.follows(self.last.checksum) && !mutant::is_active(Mutant::ChecksumIgnored) {
            return Err(LineFault::Checksum);
        }
        if line.index != self.last.index.next() {
            return Err(LineFault::Index { expected: self.last.index.next(), found: line.index });
        }
        if line.term < self.last.term {
            return Err(LineFault::Term { before: self.last.term, found: line.term });
        }
        let payload_start = self.text.len() + line.payload.start;
        self.has_configuration |= line.payload().starts_with(CONFIG_PREFIX);
        self.text.push_str(line.text);
        self.close_line(line.term, line.checksum, payload_start);
        Ok(self.last)
    }

    /// The batch, or `None` when nothing was added. The builder goes on after it, empty.
    pub fn finish(&mut self) -> Option<Entries> {
        if self.marks.is_empty() {
            return None;
        }
        // The next batch is likely to be about as large as this one.
        let count = self.marks.len();
        let mut text = String::with_capacity(self.text.len());
        std::mem::swap(&mut text, &mut self.text);
        let is_oversized = text.capacity() > 2 * text.len();
        if is_oversized {
            text.shrink_to_fit();
        }
        let marks = if let [mark] = self.marks[..] {
            self.marks.clear();
            Marks::One(mark)
        } else {
            let mut marks = Vec::with_capacity(count);
            std::mem::swap(&mut marks, &mut self.marks);
            if is_oversized {
                marks.shrink_to_fit();
            }
            Marks::Many(marks)
        };
        let has_configuration = std::mem::take(&mut self.has_configuration);
        let reading = OnceLock::new();
        let batch = Arc::new(Batch { before: self.before, has_configuration, text, marks, reading });
        self.before = self.last;
        Some(Entries { batch, start: 0, end: offset(count) })
    }

    fn close_line(&mut self, term: Term, checksum: Checksum, payload_start: usize) {
        self.text.push('\n');
        assert!(self.text.len() <= BATCH_BYTES_MAX, "a batch holds at most {BATCH_BYTES_MAX} bytes");
        self.marks.push(Mark {
            term,
            checksum,
            start: self.marks.last().map_or(0, |before| before.end),
            payload_start: offset(payload_start),
            end: offset(self.text.len()),
        });
        self.last = LogPoint { index: self.last.index.next(), term, checksum };
    }
}

fn offset(at: usize) -> u32 {
    u32::try_from(at).expect("a batch is smaller than BATCH_BYTES_MAX")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three_entries() -> Entries {
        let mut builder = BatchBuilder::new(LogPoint::ORIGIN);
        builder.seal(Term(1), |line| line.push_str("\"op\":\"NOOP\""));
        builder.seal(Term(1), |line| line.push_str("\"op\":\"PUT\",\"key\":\"snack\",\"value\":\"chips\""));
        builder.seal(Term(3), |line| line.push_str("\"op\":\"DELETE\",\"key\":\"größe\""));
        builder.finish().unwrap()
    }

    #[test]
    fn a_line_reads_as_the_contract_says() {
        let entries = three_entries();
        let lines: Vec<_> = entries.text().lines().collect();
        let crc = |before: &str, line: &str| {
            let covered = line.split(",\"crc\"").next().unwrap();
            format!("{:08x}", crc32fast::hash(format!("{before}{covered}").as_bytes()))
        };
        let first = crc("00000000", lines[0]);
        assert_eq!(lines[0], format!("{{\"index\":1,\"term\":1,\"op\":\"NOOP\",\"crc\":\"{first}\"}}"));
        let second = crc(&first, lines[1]);
        let body = "\"op\":\"PUT\",\"key\":\"snack\",\"value\":\"chips\"";
        assert_eq!(lines[1], format!("{{\"index\":2,\"term\":1,{body},\"crc\":\"{second}\"}}"));
    }

    #[test]
    fn what_was_sealed_is_accepted_and_equal() {
        let sealed = three_entries();
        let mut builder = BatchBuilder::new(LogPoint::ORIGIN);
        for line in sealed.text().lines() {
            builder.accept(line.as_bytes()).unwrap();
        }
        let accepted = builder.finish().unwrap();
        assert_eq!(accepted, sealed);
        assert_eq!(accepted.last(), sealed.last());
        let payloads: Vec<_> = accepted.iter().map(|entry| entry.payload.to_owned()).collect();
        assert_eq!(payloads[2], "\"op\":\"DELETE\",\"key\":\"größe\"");
        assert_eq!(sealed.iter().next().unwrap().kind(), EntryKind::Noop);
        assert_eq!(sealed.iter().nth(1).unwrap().kind(), EntryKind::Command);
    }

    #[test]
    fn no_flipped_bit_is_accepted() {
        let sealed = three_entries();
        for (number, line) in sealed.text().lines().enumerate() {
            let before = sealed.batch.point_before(number);
            for at in 0..line.len() {
                for bit in 0..8 {
                    let mut bytes = line.as_bytes().to_vec();
                    bytes[at] ^= 1 << bit;
                    let mut builder = BatchBuilder::new(before);
                    assert!(builder.accept(&bytes).is_err(), "byte {at} bit {bit} of line {number}");
                    assert!(builder.finish().is_none());
                }
            }
        }
    }

    #[test]
    fn a_line_out_of_place_is_named() {
        let sealed = three_entries();
        let second = sealed.text().lines().nth(1).unwrap().as_bytes();
        let mut builder = BatchBuilder::new(LogPoint::ORIGIN);
        assert_eq!(builder.accept(second), Err(LineFault::Checksum));
        let wrong_place = LogPoint { index: LogIndex(5), ..sealed.point_at(LogIndex(1)).unwrap() };
        let expected = LogIndex(6);
        let found = LogIndex(2);
        assert_eq!(BatchBuilder::new(wrong_place).accept(second), Err(LineFault::Index { expected, found }));
        let newer = LogPoint { term: Term(9), ..sealed.point_at(LogIndex(1)).unwrap() };
        let fault = LineFault::Term { before: Term(9), found: Term(1) };
        assert_eq!(BatchBuilder::new(newer).accept(second), Err(fault));
    }

    #[test]
    fn views_are_cut_at_both_ends() {
        let entries = three_entries();
        let tail = entries.starting_at(LogIndex(2)).unwrap();
        assert_eq!((tail.first_index(), tail.last().index, tail.len()), (LogIndex(2), LogIndex(3), 2));
        assert_eq!(tail.before(), entries.point_at(LogIndex(1)).unwrap());
        let middle = tail.ending_at(LogIndex(2)).unwrap();
        assert_eq!(middle.text(), entries.text().split_inclusive('\n').nth(1).unwrap());
        assert!(middle.point_at(LogIndex(1)).is_none() && middle.point_at(LogIndex(3)).is_none());
        assert!(entries.starting_at(LogIndex(4)).is_none());
        assert!(tail.ending_at(LogIndex(1)).is_none());
        assert_eq!(entries.starting_at(LogIndex(0)), Some(entries.clone()));
    }

    #[test]
    fn fitting_gives_whole_entries_and_one_at_the_least() {
        let entries = three_entries();
        let sizes: Vec<_> = entries.text().split_inclusive('\n').map(str::len).collect();
        assert_eq!(entries.fitting(1).len(), 1);
        assert_eq!(entries.fitting(sizes[0] + sizes[1] - 1).len(), 1);
        assert_eq!(entries.fitting(sizes[0] + sizes[1]).len(), 2);
        assert_eq!(entries.starting_at(LogIndex(2)).unwrap().fitting(usize::MAX).len(), 2);
        assert_eq!(entries.starting_at(LogIndex(2)).unwrap().fitting(sizes[1]).len(), 1);
    }
}
