//! Reads a part of a published snapshot, to be sent to a follower.
//!
//! Sending a snapshot takes many parts, and reading all of the file for each would make the work
//! grow with the square of its size. So only what a part needs is read: the first line, the last
//! line, and the part's own bytes. What is to be read is said here, and the reading done by whoever
//! drives it: an executor, or a simulator on bytes in memory.
//!
//! Deliberately unchecked: the content's checksum, which needs all of it. Whoever has put the parts
//! together checks it, and that is the only place where it counts.

use std::ops::Range;
use std::sync::Arc;

use coracle_core::raft::{LogPoint, SnapshotEnd, SnapshotMeta, SnapshotPart};

use super::{SnapshotFault, SnapshotHeader, check_length, decode_end};
use crate::execution::FileError;
use crate::files::FileName;
use crate::sealed::SealedLineFault;

/// As many bytes as the first or the last line can have, and some more.
const LINE_BYTES_MAX: u64 = 16 << 10;
/// How much is read at the least in search of the end of a line. Arbitrary.
const PIECE_BYTES_MIN: u64 = 4096;

/// Which part of which snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartWanted {
    /// The last entry that the snapshot covers.
    pub last: LogPoint,
    /// Bytes of content before the part.
    pub offset: u64,
    /// The most bytes of content in the part; a line that is longer goes alone.
    pub bytes_max: usize,
}

/// Reads one part. Whoever drives it reads [`PartReader::range`] of the file and hands it to
/// [`PartReader::take`], until that has an answer. The file must be one and the same meanwhile:
/// opened once, it is, even when another takes its name.
#[derive(Debug)]
pub struct PartReader {
    wanted: PartWanted,
    file_len: u64,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    FirstLine,
    LastLine { meta: SnapshotMeta, content_start: u64 },
    Content { layout: Layout, piece: u64 },
}

/// Where in the file the content is, and what it is.
#[derive(Clone, Debug)]
struct Layout {
    meta: SnapshotMeta,
    end: SnapshotEnd,
    content_start: u64,
}

/// How far a [`PartReader`] is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PartProgress {
    /// There is more to read.
    More,
    /// This is the part.
    Part(SnapshotPart),
    /// There is no such part: the file is another snapshot, or does not have a line that starts at
    /// this offset.
    NoSuchPart,
}

/// Why a part of a snapshot cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadPartError {
    /// The operating system does not give the bytes.
    #[error(transparent)]
    File(#[from] FileError),
    /// The bytes are not those of a snapshot.
    #[error("{file} is damaged: {fault}")]
    Damaged {
        /// The snapshot.
        file: FileName,
        /// What is wrong with it.
        fault: SnapshotFault,
    },
}

impl PartReader {
    /// A reader of a part of a file with this many bytes.
    #[must_use]
    pub fn new(wanted: PartWanted, file_len: u64) -> Self {
        Self { wanted, file_len, stage: Stage::FirstLine }
    }

    /// Which bytes of the file are to be read next. Never past its end.
    #[must_use]
    pub fn range(&self) -> Range<u64> {
        match &self.stage {
            Stage::FirstLine => 0..LINE_BYTES_MAX.min(self.file_len),
            Stage::LastLine { .. } => self.file_len.saturating_sub(LINE_BYTES_MAX)..self.file_len,
            Stage::Content { layout, piece } => {
                // With the byte before, which tells whether a line starts here.
                let start = layout.content_start + self.wanted.offset;
                let content_end = layout.content_start + layout.end.bytes;
                start - 1..content_end.min(start.saturating_add(*piece))
            }
        }
    }

    /// Takes the bytes of [`PartReader::range`].
    ///
    /// # Errors
    ///
    /// [`SnapshotFault`] when the file is not a snapshot, as far as that shows.
    ///
    /// # Panics
    ///
    /// When these are more or fewer bytes than were asked for.
    pub fn take(&mut self, bytes: &[u8]) -> Result<PartProgress, SnapshotFault> {
        let Range { start, end } = self.range();
        assert_eq!(bytes.len() as u64, end - start, "as many bytes as were asked for");
        match &mut self.stage {
            Stage::FirstLine => {
                let line_len = bytes.iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |at| at + 1);
                let header = SnapshotHeader::decode(&bytes[..line_len]).map_err(SnapshotFault::Header)?;
                if header.last() != self.wanted.last {
                    return Ok(PartProgress::NoSuchPart);
                }
                self.stage = Stage::LastLine { meta: header.meta, content_start: line_len as u64 };
                Ok(PartProgress::More)
            }
            Stage::LastLine { meta, content_start } => {
                let content_start = *content_start;
                let (last_line, at) = last_line(bytes, start, content_start)?;
                let end = decode_end(last_line).map_err(SnapshotFault::End)?;
                check_length(end, at - content_start)?;
                if self.wanted.offset > end.bytes {
                    return Ok(PartProgress::NoSuchPart);
                }
                let piece = PIECE_BYTES_MIN.max(self.wanted.bytes_max as u64);
                let layout = Layout { meta: meta.clone(), end, content_start };
                self.stage = Stage::Content { layout, piece };
                Ok(PartProgress::More)
            }
            Stage::Content { layout, piece } => match part(&self.wanted, layout, bytes)? {
                PartProgress::More => {
                    *piece = piece.saturating_mul(2);
                    Ok(PartProgress::More)
                }
                answer => Ok(answer),
            },
        }
    }
}

/// The last line in the file's last bytes, which start at `start`, and where in the file it starts.
fn last_line(bytes: &[u8], start: u64, content_start: u64) -> Result<(&[u8], u64), SnapshotFault> {
    let (before, line) = super::split_off_last_line(bytes);
    let at = start + before.len() as u64;
    // Without a line break before it the line is longer than any that ends a snapshot, or it is the
    // first.
    if at < content_start || before.is_empty() {
        return Err(SnapshotFault::End(SealedLineFault::Incomplete));
    }
    Ok((line, at))
}

/// The part in `bytes`, which are the byte before it and then as much content as was read; more
/// when these end within its first line.
fn part(wanted: &PartWanted, layout: &Layout, bytes: &[u8]) -> Result<PartProgress, SnapshotFault> {
    let (before, piece) = bytes.split_first().expect("the byte before is read too");
    if *before != b'\n' {
        return Ok(PartProgress::NoSuchPart);
    }
    let is_break = |byte: &u8| *byte == b'\n';
    let within = &piece[..piece.len().min(wanted.bytes_max)];
    let last_that_fits = within.iter().rposition(is_break);
    let len = match last_that_fits.or_else(|| piece.iter().position(is_break)) {
        Some(line_break) => line_break + 1,
        None if wanted.offset + piece.len() as u64 == layout.end.bytes => piece.len(),
        None => return Ok(PartProgress::More),
    };
    let text = std::str::from_utf8(&piece[..len]).map_err(|_| SnapshotFault::NotText)?;
    let is_last = wanted.offset + len as u64 == layout.end.bytes;
    Ok(PartProgress::Part(SnapshotPart {
        meta: layout.meta.clone(),
        offset: wanted.offset,
        text: Arc::from(text),
        end: is_last.then_some(layout.end),
    }))
}
