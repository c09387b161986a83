//! The line format of a log entry: parsing a line that comes from outside, and the faults that it
//! may have.
//!
//! `entry` explains the parts of a line. `batch_builder` writes lines.

use std::fmt;
use std::ops::Range;

use super::types::{Checksum, LogIndex, Term};

pub(super) const HEAD_INDEX: &str = "{\"index\":";
pub(super) const HEAD_TERM: &str = ",\"term\":";
pub(super) const TAIL_START: &str = ",\"crc\":\"";
pub(super) const TAIL_END: &str = "\"}";
/// The tail without its line break: `,"crc":"9a3c01ff"}`.
pub(super) const TAIL_LEN: usize = TAIL_START.len() + Checksum::TEXT_LEN + TAIL_END.len();

/// A line in the form of an entry. Its checksum has not been verified.
#[derive(Debug)]
pub struct Line<'a> {
    /// The index that the line states.
    pub index: LogIndex,
    /// The term that the line states.
    pub term: Term,
    /// The checksum that the line states.
    pub checksum: Checksum,
    pub(super) text: &'a str,
    pub(super) payload: Range<usize>,
}

impl<'a> Line<'a> {
    /// Parses a line, without its line break; `None` when it does not have the form of an entry.
    #[must_use]
    pub fn read(line: &'a [u8]) -> Option<Self> {
        let text = std::str::from_utf8(line).ok()?;
        let (index, rest) = read_number(text.strip_prefix(HEAD_INDEX)?)?;
        let (term, rest) = read_number(rest.strip_prefix(HEAD_TERM)?)?;
        let rest = rest.strip_prefix(',')?;
        let payload_start = text.len() - rest.len();
        let payload_end = text.len().checked_sub(TAIL_LEN)?;
        let tail = text.get(payload_end..)?;
        let digits = tail.strip_prefix(TAIL_START)?.strip_suffix(TAIL_END)?;
        let checksum = Checksum::from_text(digits.as_bytes())?;
        let shape_is_right = payload_start < payload_end && index > 0 && !text.contains('\n');
        shape_is_right.then_some(Self {
            index: LogIndex(index),
            term: Term(term),
            checksum,
            text,
            payload: payload_start..payload_end,
        })
    }

    /// The state machine's part of the line.
    #[must_use]
    pub fn payload(&self) -> &'a str {
        &self.text[self.payload.clone()]
    }

    /// Returns whether the line's checksum is right, given that the entry before has the checksum
    /// `before`.
    #[must_use]
    pub fn follows(&self, before: Checksum) -> bool {
        before.chain(&self.text.as_bytes()[..self.payload.end]) == self.checksum
    }
}

/// Why a line from outside is not the next entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LineError {
    /// It does not have the form of an entry.
    NotAnEntry,
    /// Its checksum does not continue the chain: its bytes, or those of an earlier line, have
    /// changed.
    Checksum,
    /// Its index is not the next one.
    Index {
        /// The next index.
        expected: LogIndex,
        /// The index that the line states.
        found: LogIndex,
    },
    /// Its term is below the term of the entry before.
    Term {
        /// The term of the entry before.
        before: Term,
        /// The term that the line states.
        found: Term,
    },
}

impl fmt::Display for LineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAnEntry => f.write_str("it does not have the shape of a log entry"),
            Self::Checksum => f.write_str("its checksum does not match its bytes and the line before"),
            Self::Index { expected, found } => write!(f, "it has index {found} where {expected} is due"),
            Self::Term { before, found } => write!(f, "it has term {found} after an entry of term {before}"),
        }
    }
}

impl std::error::Error for LineError {}

/// Appends a decimal number without leading zeros.
pub(super) fn push_number(text: &mut String, mut number: u64) {
    let mut digits = [0_u8; 20];
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] = b'0' + u8::try_from(number % 10).expect("a digit");
        number /= 10;
        if number == 0 {
            break;
        }
    }
    text.push_str(std::str::from_utf8(&digits[start..]).expect("digits are ASCII"));
}

/// Parses a decimal number without leading zeros from the front of `text`, and returns it with the
/// rest.
fn read_number(text: &str) -> Option<(u64, &str)> {
    let len = text.bytes().take_while(u8::is_ascii_digit).count();
    let (digits, rest) = text.split_at(len);
    let is_shortest = len == 1 || !digits.starts_with('0');
    if !is_shortest {
        return None;
    }
    Some((digits.parse().ok()?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_parsed_only_without_leading_zeros() {
        assert_eq!(read_number("0,"), Some((0, ",")));
        assert_eq!(read_number("18446744073709551615"), Some((u64::MAX, "")));
        for wrong in ["", "x", "01", "-1", "18446744073709551616"] {
            assert_eq!(read_number(wrong), None, "{wrong}");
        }
    }
}
