//! Partial snapshot reads: reads one part of a published snapshot, to send it to a follower
//! (InstallSnapshot).
//!
//! A snapshot is sent in many parts, and reading the whole file for each part would cost time
//! quadratic in its size. So a read covers only the first line, the last line, and the bytes of the
//! part. This module says which bytes to read; its driver, an executor or a simulator with bytes in
//! memory, reads them.
//!
//! The checksum of the content is deliberately not verified here, because that needs all of the
//! content. The receiver verifies it when it has all parts, and only there does it matter.

use std::ops::Range;
use std::sync::Arc;

use coracle_core::raft::{LogPoint, SnapshotEnd, SnapshotMeta, SnapshotPart};

use super::{SnapshotError, SnapshotHeader, check_length, decode_end};
use crate::execution::FileError;
use crate::files::FileName;
use crate::sealed::SealedLineError;

/// The most bytes that the first or the last line can have, rounded up.
const LINE_BYTES_MAX: u64 = 16 << 10;
/// The least bytes to read in search of the end of a line. An arbitrary value.
const PIECE_BYTES_MIN: u64 = 4096;

/// The part that a follower needs, and of which snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartWanted {
    /// The last entry that the snapshot covers.
    pub last: LogPoint,
    /// Bytes of content before the part.
    pub offset: u64,
    /// The most bytes of content in the part; a single line that is longer is a part by itself.
    pub bytes_max: usize,
}

/// Reads one part. Its driver reads [`PartReader::range`] of the file and hands the bytes to
/// [`PartReader::accept`], until that returns an answer. All reads have to be from the same file,
/// which holds if the driver opens it once, even if another file takes over its name.
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

/// The place of the content in the file, and its metadata.
#[derive(Clone, Debug)]
struct Layout {
    meta: SnapshotMeta,
    end: SnapshotEnd,
    content_start: u64,
}

/// The progress of a [`PartReader`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PartProgress {
    /// The driver has to read more.
    More,
    /// The part is complete.
    Part(SnapshotPart),
    /// There is no such part: the file is another snapshot, or has no line that starts at this
    /// offset.
    NoSuchPart,
}

/// Why a part of a snapshot cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadPartError {
    /// The operating system cannot read the bytes.
    #[error(transparent)]
    File(#[from] FileError),
    /// The file is not a valid snapshot.
    #[error("{file} is damaged: {fault}")]
    Damaged {
        /// The snapshot.
        file: FileName,
        /// The fault.
        fault: SnapshotError,
    },
}

impl PartReader {
    /// Creates a reader for a file of this length.
    #[must_use]
    pub fn new(wanted: PartWanted, file_len: u64) -> Self {
        Self { wanted, file_len, stage: Stage::FirstLine }
    }

    /// The range of bytes to read next. It never reaches past the end of the file.
    #[must_use]
    pub fn range(&self) -> Range<u64> {
        match &self.stage {
            Stage::FirstLine => 0..LINE_BYTES_MAX.min(self.file_len),
            Stage::LastLine { .. } => self.file_len.saturating_sub(LINE_BYTES_MAX)..self.file_len,
            Stage::Content { layout, piece } => {
                // The range includes the byte before, which shows whether a line starts here.
                let start = layout.content_start + self.wanted.offset;
                let content_end = layout.content_start + layout.end.bytes;
                start - 1..content_end.min(start.saturating_add(*piece))
            }
        }
    }

    /// Accepts the bytes of [`PartReader::range`].
    ///
    /// # Errors
    ///
    /// [`SnapshotError`] when these bytes show that the file is not a snapshot.
    ///
    /// # Panics
    ///
    /// When `bytes` does not have the length of the range.
    pub fn accept(&mut self, bytes: &[u8]) -> Result<PartProgress, SnapshotError> {
        let Range { start, end } = self.range();
        assert_eq!(bytes.len() as u64, end - start, "as many bytes as were asked for");
        match &mut self.stage {
            Stage::FirstLine => {
                let line_len = bytes.iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |at| at + 1);
                let header = SnapshotHeader::decode(&bytes[..line_len]).map_err(SnapshotError::Header)?;
                if header.last() != self.wanted.last {
                    return Ok(PartProgress::NoSuchPart);
                }
                self.stage = Stage::LastLine { meta: header.meta, content_start: line_len as u64 };
                Ok(PartProgress::More)
            }
            Stage::LastLine { meta, content_start } => {
                let content_start = *content_start;
                let (last_line, at) = last_line(bytes, start, content_start)?;
                let end = decode_end(last_line).map_err(SnapshotError::End)?;
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

/// Returns the last line from the file's last bytes, which start at `start`, and its offset.
fn last_line(bytes: &[u8], start: u64, content_start: u64) -> Result<(&[u8], u64), SnapshotError> {
    let (before, line) = super::split_off_last_line(bytes);
    let at = start + before.len() as u64;
    // Without a line break before it, the line is longer than any last line of a snapshot, or it is
    // the first line.
    if at < content_start || before.is_empty() {
        return Err(SnapshotError::End(SealedLineError::Incomplete));
    }
    Ok((line, at))
}

/// Returns the part from `bytes`: the byte before the part and then content. Asks for more when the
/// content ends within its first line.
fn part(wanted: &PartWanted, layout: &Layout, bytes: &[u8]) -> Result<PartProgress, SnapshotError> {
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
    let text = std::str::from_utf8(&piece[..len]).map_err(|_| SnapshotError::NotText)?;
    let is_last = wanted.offset + len as u64 == layout.end.bytes;
    Ok(PartProgress::Part(SnapshotPart {
        meta: layout.meta.clone(),
        offset: wanted.offset,
        text: Arc::from(text),
        end: is_last.then_some(layout.end),
    }))
}
