//! Log scan: reads a log line by line and detects a torn or damaged end.
//!
//! All readers of logs use it: a node's start ([`recover()`](crate::recover())) and the commands
//! that show or verify a log without a server. It changes nothing and needs no metadata. How a
//! start reacts to a torn or damaged log is not decided here.
//!
//! Every fault of a log shows at its first bad line: one that is incomplete, or does not continue
//! the checksum chain. Then the scan searches the rest of the file for a line that is valid by
//! itself:
//!
//! - If there is none, the bad line and the rest are what a power cut left of the last write: a
//!   [`TornTail`].
//! - If there is one, it was written after the bad line. So the bad line was whole once, and maybe
//!   acknowledged: [`Damage`].
//!
//! There is one exception. The blocks of a single write reach the disk in any order, and the file
//! has zeros in place of a block that did not. So valid lines after a hole of whole sectors are
//! part of the same torn write, if the hole and the lines are no longer than one sync can cover
//! ([`GROUP_BYTES_MAX`]). A disk that loses a sector later looks the same; then the floor in the
//! metadata, which is noted every few seconds, shows whether the node has lost acknowledged
//! entries.
//!
//! So a changed byte in any line except the last is always damage. A changed byte in the last line
//! looks like a torn write and is reported as one; the metadata's floor then decides whether the
//! node may lose it. A last line that lacks only its line break is torn too, because it was never
//! acknowledged.
//!
//! A line that is the next entry but has content that this program never writes is [`Damage`] as
//! well, because no torn write leaves it.

use std::fmt;
use std::io::BufRead;

use coracle_core::mutant::{self, Mutant};
use coracle_core::raft::{BatchBuilder, Entries, Line, LineError};

use crate::content::{self, ContentError, Membership};
use crate::evidence;
use crate::header::LogHeader;
use crate::plan::GROUP_BYTES_MAX;
use crate::sealed::SealedLineError;

/// The most bytes of text in one run of entries, except for a single entry that is longer. Chosen
/// because a run is one allocation that is freed as a whole: small enough that dropping the front
/// of the log soon frees memory, large enough that a log of gigabytes has a few thousand runs.
pub const RUN_BYTES_MAX: usize = 512 * 1024;

/// The unit in which a disk writes: a sector reaches the disk as a whole or not at all.
pub(crate) const SECTOR_BYTES: usize = 512;

/// The remains of the last write after a power cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TornTail {
    /// The number of the torn line; the header is line 1.
    pub line: u64,
    /// The torn line's first byte in the file.
    pub offset: u64,
    /// The number of bytes from `offset` to the end of the file.
    pub bytes: u64,
}

/// A line that was durable once and has changed since.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The number of the damaged line; the header is line 1.
    pub line: u64,
    /// The damaged line's first byte in the file.
    pub offset: u64,
    /// The fault of the line.
    pub fault: DamageError,
    /// The number of the valid line that comes later. `None` if the bad line itself shows that it
    /// was not torn: its checksum is valid, but its place or its content is not.
    pub later_line: Option<u64>,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { line, offset, fault, later_line } = self;
        if let DamageError::Content(fault) = fault {
            return write!(
                f,
                "line {line} (at byte {offset}) has a valid checksum but invalid content: {fault}"
            );
        }
        write!(f, "line {line} (at byte {offset}) is damaged: {fault}")?;
        match later_line {
            Some(later) if later == line => f.write_str(", and a valid entry follows inside of it"),
            Some(later) => write!(f, ", and line {later} after it is valid"),
            None => Ok(()),
        }
    }
}

/// The fault of a damaged line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DamageError {
    /// It is not the next entry.
    #[error("{0}")]
    Line(#[from] LineError),
    /// It is the next entry, but has content that this program never writes.
    #[error("{0}")]
    Content(#[from] ContentError),
    /// It has no line break at its end.
    #[error("it is incomplete")]
    Incomplete,
}

/// The state of the end of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The last line is complete.
    Clean,
    /// The end is what a power cut left of the last write.
    TornTail(TornTail),
    /// The log cannot be trusted from a damaged line on.
    Damaged(Damage),
}

/// Reads the bytes of a log: an iterator over its entries, in runs of at most [`RUN_BYTES_MAX`], up
/// to the first bad line.
#[derive(Debug)]
pub struct LogScan<'a> {
    bytes: &'a [u8],
    header: LogHeader,
    header_len: usize,
    /// The offset of the first byte that was not read yet.
    at: usize,
    /// The number of the line that starts at `at`.
    line: u64,
    run: BatchBuilder,
    membership: Membership,
    verdict: Option<Verdict>,
}

impl<'a> LogScan<'a> {
    /// Creates a scan, and reads the header of the log.
    ///
    /// # Errors
    ///
    /// [`SealedLineError`] when the header is incomplete, damaged, or in an unknown format.
    pub fn new(bytes: &'a [u8]) -> Result<Self, SealedLineError> {
        let header_len = line_len(bytes).unwrap_or(bytes.len());
        let header = LogHeader::decode(&bytes[..header_len])?;
        let mut run = BatchBuilder::new(header.after);
        run.reserve(0, RUN_BYTES_MAX.min(bytes.len() - header_len));
        let membership = Membership::of(&header.identity.roster);
        Ok(Self { bytes, header, header_len, at: header_len, line: 2, run, membership, verdict: None })
    }

    /// Makes this a scan of the log of a cluster in one process, whose members are fixed.
    #[must_use]
    pub fn with_fixed_members(mut self) -> Self {
        self.membership = Membership::Fixed;
        self
    }

    /// The content of the first line.
    #[must_use]
    pub fn header(&self) -> &LogHeader {
        &self.header
    }

    /// The length of the first line with its line break.
    #[must_use]
    pub fn header_len(&self) -> usize {
        self.header_len
    }

    /// The state of the log's end, once the iterator has ended; `None` before.
    #[must_use]
    pub fn verdict(&self) -> Option<Verdict> {
        self.verdict
    }

    /// Reads the next line into the run; `false` when the run is full or the log has ended.
    fn take_line(&mut self) -> bool {
        let rest = &self.bytes[self.at..];
        if self.verdict.is_some() || rest.is_empty() {
            self.verdict.get_or_insert(Verdict::Clean);
            return false;
        }
        let Some(len) = line_len(rest) else {
            self.verdict = Some(self.judge(DamageError::Incomplete));
            return false;
        };
        if !self.run.is_empty() && self.run.bytes() + len > RUN_BYTES_MAX {
            return false;
        }
        let membership = self.membership;
        let judge = |line: &Line<'_>| Ok(content::check_entry(line, membership)?);
        match self.run.accept_when(&rest[..len - 1], judge) {
            Ok(_) => {
                self.at += len;
                self.line += 1;
                true
            }
            Err(fault) => {
                self.verdict = Some(self.judge(fault));
                false
            }
        }
    }

    /// Decides between torn and damaged for the line at `self.at`, which is not the next entry.
    fn judge(&self, fault: DamageError) -> Verdict {
        let (line, offset) = (self.line, self.at as u64);
        let rest = &self.bytes[self.at..];
        let is_whole = matches!(
            fault,
            DamageError::Line(LineError::Index { .. } | LineError::Term { .. }) | DamageError::Content(_)
        );
        if is_whole {
            // Its checksum is valid: it was written as it is, and no torn write leaves a gap
            // behind.
            return Verdict::Damaged(Damage { line, offset, fault, later_line: None });
        }
        let later = evidence::later_valid_line(rest, self.run.last().checksum);
        let is_of_one_write =
            rest.len() <= GROUP_BYTES_MAX && self.has_hole() && !mutant::is_active(Mutant::HoleIsDamage);
        match later.filter(|_| !is_of_one_write && !mutant::is_active(Mutant::DamageCutOff)) {
            Some(at) => {
                let breaks = rest[..at].iter().filter(|byte| **byte == b'\n').count();
                Verdict::Damaged(Damage { line, offset, fault, later_line: Some(line + breaks as u64) })
            }
            None => Verdict::TornTail(TornTail { line, offset, bytes: rest.len() as u64 }),
        }
    }

    /// Whether the line at `self.at` has zeros where whole sectors were never written. Such a hole
    /// begins at a sector or at the line, with which the write may have begun, and ends at a sector
    /// or at the end of the file. No valid line has a zero byte.
    fn has_hole(&self) -> bool {
        let end = self.at + line_len(&self.bytes[self.at..]).unwrap_or(self.bytes.len() - self.at);
        let mut from = self.at;
        while let Some(zero) = self.bytes[from..end].iter().position(|byte| *byte == 0) {
            let start = from + zero;
            let zeros = self.bytes[start..end].iter().take_while(|byte| **byte == 0).count();
            from = start + zeros;
            let starts_whole = start.is_multiple_of(SECTOR_BYTES) || start == self.at;
            if starts_whole && (from.is_multiple_of(SECTOR_BYTES) || from == self.bytes.len()) {
                return true;
            }
        }
        false
    }
}

impl Iterator for LogScan<'_> {
    type Item = Entries;

    fn next(&mut self) -> Option<Entries> {
        while self.take_line() {}
        let run = self.run.finish()?;
        // A reused builder would start with the size of the previous run, and double it for the few
        // bytes more that the next run may need.
        self.run = BatchBuilder::new(run.last());
        self.run.reserve(run.len() + run.len() / 8, RUN_BYTES_MAX.min(self.bytes.len() - self.at));
        Some(run)
    }
}

/// Returns the length of the first line with its line break; `None` if there is no line break.
fn line_len(bytes: &[u8]) -> Option<usize> {
    // `skip_until` reads many bytes at a time, unlike a search with an iterator. A start reads
    // every byte of the log.
    let mut rest = bytes;
    let len = rest.skip_until(b'\n').expect("bytes in memory can be read");
    bytes[..len].ends_with(b"\n").then_some(len)
}

#[cfg(test)]
mod tests;
