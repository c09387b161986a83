//! Reads a log, line by line, and says how it ends.
//!
//! The one reader of logs: a node's start ([`recover()`](crate::recover())) and the commands that
//! show or verify a log without a server go through it. It changes nothing and needs no metadata;
//! what a start does about a torn or damaged log is not decided here.
//!
//! Whatever is wrong with a log shows at its first bad line: one that is incomplete, or does not
//! continue the chain of checksums. Then all that follows is searched for a line that is valid by
//! itself:
//!
//! - there is none: the bad line and what follows is what a power cut leaves of the last write,
//!   [`TornTail`];
//! - there is one: it was written after the bad line, so the bad line was whole once, and maybe
//!   acknowledged, [`Damage`].
//!
//! With one exception. Blocks of a single write reach the disk in any order, and where one did not,
//! the file has zeros. So valid lines after a hole of whole sectors are part of the same torn
//! write, if all of it is no more than can have waited for one sync ([`GROUP_BYTES_MAX`]). A disk
//! that loses a sector later leaves the same picture; then the floor in the metadata, which is
//! noted every few seconds, tells whether anything is missing that this node had acknowledged.
//!
//! So one changed byte in any line but the last is always damage. A changed byte in the last line
//! cannot be told from a torn write and reads as one; the metadata's floor then decides whether a
//! node may lose it. A last line that is complete but for its line break is torn too: nobody was
//! told of it.
//!
//! A line that is the next entry, and says what this program never does, is [`Damage`] as well: no
//! torn write leaves it.

use std::fmt;
use std::io::BufRead;

use coracle_core::mutant::{self, Mutant};
use coracle_core::raft::{BatchBuilder, Entries, Line, LineFault};

use crate::content::{self, ContentFault, Membership};
use crate::evidence;
use crate::header::LogHeader;
use crate::plan::GROUP_BYTES_MAX;
use crate::sealed::SealedLineFault;

/// The most bytes of text in one run of entries, but for a single entry that is longer. Chosen
/// because a run is one allocation that is freed as a whole: small enough that dropping the front
/// of the log soon frees memory, large enough that a log of gigabytes is some thousand runs.
pub const RUN_BYTES_MAX: usize = 512 * 1024;

/// The unit in which a disk writes: a sector reaches it as a whole or not at all.
pub(crate) const SECTOR_BYTES: usize = 512;

/// What a power cut left of the last write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TornTail {
    /// The number of the torn line; the header is line 1.
    pub line: u64,
    /// The torn line's first byte in the file.
    pub offset: u64,
    /// How many bytes there are from `offset` to the end of the file.
    pub bytes: u64,
}

/// A line that was durable once and is not what it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The number of the damaged line; the header is line 1.
    pub line: u64,
    /// The damaged line's first byte in the file.
    pub offset: u64,
    /// What is wrong with it.
    pub fault: DamageFault,
    /// The number of the line that is valid although it comes later. `None` when the bad line
    /// itself shows that it was not torn: its checksum is right, and its place in the log is not.
    pub later_line: Option<u64>,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { line, offset, fault, later_line } = self;
        if let DamageFault::Content(fault) = fault {
            return write!(
                f,
                "line {line} (at byte {offset}) has a right checksum, but not what it says: {fault}"
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

/// What is wrong with a damaged line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DamageFault {
    /// It is not the next entry.
    #[error("{0}")]
    Line(#[from] LineFault),
    /// It is the next entry, and says what this program never does.
    #[error("{0}")]
    Content(#[from] ContentFault),
    /// It has no line break at its end.
    #[error("it is incomplete")]
    Incomplete,
}

/// How a log ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// With a complete line.
    Clean,
    /// With what a power cut left of the last write.
    TornTail(TornTail),
    /// It cannot be trusted from a damaged line on.
    Damaged(Damage),
}

/// Reads the bytes of a log: an iterator over its entries, in runs of at most [`RUN_BYTES_MAX`], up
/// to the first line that is not what it should be.
#[derive(Debug)]
pub struct LogScan<'a> {
    bytes: &'a [u8],
    header: LogHeader,
    header_len: usize,
    /// The first byte that was not read yet.
    at: usize,
    /// The number of the line that starts at `at`.
    line: u64,
    run: BatchBuilder,
    membership: Membership,
    verdict: Option<Verdict>,
}

impl<'a> LogScan<'a> {
    /// Reads the header of a log with these bytes.
    ///
    /// # Errors
    ///
    /// [`SealedLineFault`] when the header is incomplete, damaged, or in an unknown format.
    pub fn new(bytes: &'a [u8]) -> Result<Self, SealedLineFault> {
        let header_len = line_len(bytes).unwrap_or(bytes.len());
        let header = LogHeader::decode(&bytes[..header_len])?;
        let mut run = BatchBuilder::new(header.after);
        run.reserve(0, RUN_BYTES_MAX.min(bytes.len() - header_len));
        let membership = Membership::of(&header.identity.roster);
        Ok(Self { bytes, header, header_len, at: header_len, line: 2, run, membership, verdict: None })
    }

    /// The same for the log of a cluster in one process, whose members are fixed.
    #[must_use]
    pub fn with_fixed_members(mut self) -> Self {
        self.membership = Membership::Fixed;
        self
    }

    /// What the first line says.
    #[must_use]
    pub fn header(&self) -> &LogHeader {
        &self.header
    }

    /// How many bytes the first line has, with its line break.
    #[must_use]
    pub fn header_len(&self) -> usize {
        self.header_len
    }

    /// How the log ends, once the iterator has given all there is; `None` before.
    #[must_use]
    pub fn verdict(&self) -> Option<Verdict> {
        self.verdict
    }

    /// Takes the next line into the run. `false` when the run is full or the log has ended.
    fn take_line(&mut self) -> bool {
        let rest = &self.bytes[self.at..];
        if self.verdict.is_some() || rest.is_empty() {
            self.verdict.get_or_insert(Verdict::Clean);
            return false;
        }
        let Some(len) = line_len(rest) else {
            self.verdict = Some(self.judge(DamageFault::Incomplete));
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

    /// Says what the line at `self.at`, which is not the next entry, makes of the log.
    fn judge(&self, fault: DamageFault) -> Verdict {
        let (line, offset) = (self.line, self.at as u64);
        let rest = &self.bytes[self.at..];
        let is_whole = matches!(
            fault,
            DamageFault::Line(LineFault::Index { .. } | LineFault::Term { .. }) | DamageFault::Content(_)
        );
        if is_whole {
            // Its checksum is right: it was written as it is, and no torn write leaves a gap
            // behind.
            return Verdict::Damaged(Damage { line, offset, fault, later_line: None });
        }
        let later = evidence::later_valid_line(rest, self.run.last().checksum);
        let is_of_one_write =
            rest.len() <= GROUP_BYTES_MAX && self.has_hole() && !mutant::is_active(Mutant::HoleIsDamage);
        let later = later.filter(|_| !is_of_one_write);
        match later.filter(|_| !mutant::is_active(Mutant::DamageCutOff)) {
            Some(at) => {
                let breaks = rest[..at].iter().filter(|byte| **byte == b'\n').count();
                Verdict::Damaged(Damage { line, offset, fault, later_line: Some(line + breaks as u64) })
            }
            None => Verdict::TornTail(TornTail { line, offset, bytes: rest.len() as u64 }),
        }
    }

    /// Whether the line at `self.at` has zeros where whole sectors were never written: from the
    /// start of a sector, or of the line, with which the write may have begun, up to the end of a
    /// sector or of the file. No line has a zero byte of its own.
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
        // A builder that goes on would start with the size of the run before, and double it for the
        // few bytes more that the next one may need.
        self.run = BatchBuilder::new(run.last());
        self.run.reserve(run.len() + run.len() / 8, RUN_BYTES_MAX.min(self.bytes.len() - self.at));
        Some(run)
    }
}

/// The length of the first line with its line break; `None` when there is no line break.
fn line_len(bytes: &[u8]) -> Option<usize> {
    // Reads many bytes at a time, which a search through an iterator does not: a start looks at
    // every byte of the log.
    let mut rest = bytes;
    let len = rest.skip_until(b'\n').expect("bytes in memory can be read");
    bytes[..len].ends_with(b"\n").then_some(len)
}

#[cfg(test)]
mod tests;
