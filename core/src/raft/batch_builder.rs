//! The gateway of the log: builds batches of entries, either from proposals of a leader or from
//! lines that come from outside.
//!
//! It upholds the invariants of a batch: [`seal`](BatchBuilder::seal) writes correct lines, and
//! [`accept`](BatchBuilder::accept) checks lines that come from outside.

use super::batch::{BATCH_BYTES_MAX, Entries, Mark, Marks, offset};
use super::configuration::CONFIG_PREFIX;
use super::line::{HEAD_INDEX, HEAD_TERM, Line, LineError, TAIL_END, TAIL_START, push_number};
use super::types::{Checksum, LogPoint, Term};
use crate::mutant::{self, Mutant};

/// Builds a batch of [`Entries`], entry by entry: the gateway that upholds its invariants.
#[derive(Clone, Debug)]
pub struct BatchBuilder {
    before: LogPoint,
    has_configuration: bool,
    last: LogPoint,
    text: String,
    marks: Vec<Mark>,
}

impl BatchBuilder {
    /// Discards what was added, and begins a batch that will follow `before`.
    pub(super) fn restart(&mut self, before: LogPoint) {
        self.marks.clear();
        self.text.clear();
        (self.before, self.last, self.has_configuration) = (before, before, false);
    }

    /// Begins a batch that will follow `before`.
    #[must_use]
    pub fn new(before: LogPoint) -> Self {
        Self { before, has_configuration: false, last: before, text: String::new(), marks: Vec::new() }
    }

    /// Reserves room for `entries` entries of `bytes` bytes in total.
    pub fn reserve(&mut self, entries: usize, bytes: usize) {
        self.marks.reserve(entries);
        self.text.reserve(bytes);
    }

    /// The point of the last entry that was added, or the point that the batch follows.
    #[must_use]
    pub fn last(&self) -> LogPoint {
        self.last
    }

    /// The bytes of text so far.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.text.len()
    }

    /// Whether any entry so far holds a configuration.
    pub(super) fn has_configuration(&self) -> bool {
        self.has_configuration
    }

    /// Whether no entry was added yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.marks.is_empty()
    }

    /// Appends an entry: writes its line and checksum around the payload, which `write_payload`
    /// appends to the text.
    ///
    /// # Panics
    ///
    /// When `term` is below the last entry's, when the payload is empty or contains a line break,
    /// or when the batch would exceed [`BATCH_BYTES_MAX`]: each is a bug of the caller.
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
        let before = unchained_by_mutant().unwrap_or(self.last.checksum);
        let checksum = before.chain(&self.text.as_bytes()[start..]);
        self.text.push_str(TAIL_START);
        for digit in checksum.to_text() {
            self.text.push(char::from(digit));
        }
        self.text.push_str(TAIL_END);
        self.close_line(term, checksum, payload_start);
        self.last
    }

    /// Appends a line that came from outside, given without its line break, after checking all of
    /// it.
    ///
    /// # Errors
    ///
    /// [`LineError`] says what is wrong with the line; the batch stays as it was.
    pub fn accept(&mut self, line: &[u8]) -> Result<LogPoint, LineError> {
        self.accept_when(line, |_| Ok(()))
    }

    /// Like [`Self::accept`], with one more check: `check` must accept the line as well, once the
    /// rest of it is right.
    ///
    /// # Errors
    ///
    /// The error of `check`, or that the line is not the next entry; the batch stays as it was.
    pub fn accept_when<E: From<LineError>>(
        &mut self,
        line: &[u8],
        check: impl FnOnce(&Line<'_>) -> Result<(), E>,
    ) -> Result<LogPoint, E> {
        let line = Line::read(line).ok_or(LineError::NotAnEntry)?;
        self.check_place(&line)?;
        check(&line)?;
        let payload_start = self.text.len() + line.payload.start;
        self.has_configuration |= line.payload().starts_with(CONFIG_PREFIX);
        self.text.push_str(line.text);
        self.close_line(line.term, line.checksum, payload_start);
        Ok(self.last)
    }

    /// Checks that the line is the next entry.
    fn check_place(&self, line: &Line<'_>) -> Result<(), LineError> {
        if !line.follows(self.last.checksum) && !mutant::is_active(Mutant::ChecksumIgnored) {
            return Err(LineError::Checksum);
        }
        if line.index != self.last.index.next() {
            return Err(LineError::Index { expected: self.last.index.next(), found: line.index });
        }
        if line.term < self.last.term {
            return Err(LineError::Term { before: self.last.term, found: line.term });
        }
        Ok(())
    }

    /// Returns the batch, or `None` when nothing was added. The builder continues after it, empty.
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
        let before = std::mem::replace(&mut self.before, self.last);
        Some(Entries::of_batch(before, has_configuration, text, marks))
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

/// Deliberate bug: the checksum of an entry covers no other entry.
fn unchained_by_mutant() -> Option<Checksum> {
    mutant::is_active(Mutant::ChainBroken).then(Checksum::default)
}

#[cfg(test)]
mod tests {
    use super::super::entry::EntryKind;
    use super::super::types::LogIndex;
    use super::*;

    fn three_entries() -> Entries {
        let mut builder = BatchBuilder::new(LogPoint::ORIGIN);
        builder.seal(Term(1), |line| line.push_str("\"op\":\"NOOP\""));
        builder.seal(Term(1), |line| line.push_str("\"op\":\"PUT\",\"key\":\"snack\",\"value\":\"chips\""));
        builder.seal(Term(3), |line| line.push_str("\"op\":\"DELETE\",\"key\":\"größe\""));
        builder.finish().unwrap()
    }

    #[test]
    fn a_line_has_the_documented_format() {
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
    fn sealed_lines_are_accepted_and_give_an_equal_batch() {
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
    fn a_line_with_a_flipped_bit_is_rejected() {
        let sealed = three_entries();
        for (number, line) in sealed.text().lines().enumerate() {
            let before = sealed.starting_at(LogIndex(number as u64 + 1)).unwrap().before();
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
    fn a_line_out_of_place_is_rejected_with_its_fault() {
        let sealed = three_entries();
        let second = sealed.text().lines().nth(1).unwrap().as_bytes();
        let mut builder = BatchBuilder::new(LogPoint::ORIGIN);
        assert_eq!(builder.accept(second), Err(LineError::Checksum));
        let wrong_place = LogPoint { index: LogIndex(5), ..sealed.point_at(LogIndex(1)).unwrap() };
        let expected = LogIndex(6);
        let found = LogIndex(2);
        assert_eq!(BatchBuilder::new(wrong_place).accept(second), Err(LineError::Index { expected, found }));
        let newer = LogPoint { term: Term(9), ..sealed.point_at(LogIndex(1)).unwrap() };
        let fault = LineError::Term { before: Term(9), found: Term(1) };
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
    fn fitting_returns_whole_entries_and_at_least_one() {
        let entries = three_entries();
        let sizes: Vec<_> = entries.text().split_inclusive('\n').map(str::len).collect();
        assert_eq!(entries.fitting(1).len(), 1);
        assert_eq!(entries.fitting(sizes[0] + sizes[1] - 1).len(), 1);
        assert_eq!(entries.fitting(sizes[0] + sizes[1]).len(), 2);
        assert_eq!(entries.starting_at(LogIndex(2)).unwrap().fitting(usize::MAX).len(), 2);
        assert_eq!(entries.starting_at(LogIndex(2)).unwrap().fitting(sizes[1]).len(), 1);
    }
}
