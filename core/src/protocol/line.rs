//! A line buffer: splits a stream of bytes into lines. A line ends with `\n` or `\r\n`.

use std::ops::Deref;

use crate::memory::{LongLine, LongLines};

/// The longest line, in bytes, without its line ending.
pub const LINE_BYTES_MAX: usize = 1 << 20;

/// The capacity up to which a connection's own buffer grows. More bytes are moved to a buffer for
/// long lines.
const OWN_BYTES_MAX: usize = 128 << 10;

/// The capacity that a buffer with little in it keeps: enough for some tens of short requests, and
/// little for ten thousand silent clients.
const CAPACITY_KEPT: usize = 4 << 10;

/// Bytes received and not yet split into lines.
#[derive(Debug, Default)]
pub(super) struct LineBuffer {
    bytes: Bytes,
    /// The source of buffers for long lines.
    long_lines: LongLines,
    /// The start of the next line.
    start: usize,
    /// The position up to which no line break was found.
    searched: usize,
}

#[derive(Debug)]
enum Bytes {
    /// A buffer of the connection's own.
    Own(Vec<u8>),
    /// A buffer for a long line, until little of its content is left to read.
    Long(LongLine),
}

impl Default for Bytes {
    fn default() -> Self {
        Self::Own(Vec::new())
    }
}

impl Deref for Bytes {
    type Target = Vec<u8>;

    fn deref(&self) -> &Vec<u8> {
        match self {
            Self::Own(bytes) => bytes,
            Self::Long(bytes) => bytes,
        }
    }
}

/// The content at the front of the buffer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NextLine<'a> {
    /// A line, without its line ending.
    Line(&'a [u8]),
    /// An incomplete line.
    Incomplete,
    /// More than [`LINE_BYTES_MAX`] bytes without a line ending.
    TooLong,
}

impl LineBuffer {
    /// An empty buffer, with this source of buffers for long lines.
    pub(super) fn new(long_lines: LongLines) -> Self {
        Self { long_lines, ..Self::default() }
    }

    /// Adds bytes that were received. Returns `false`, and adds none, if they need a buffer for a
    /// long line and there is none.
    #[must_use]
    pub(super) fn push(&mut self, bytes: &[u8]) -> bool {
        // Lines already returned are removed here rather than one by one: one move for many lines.
        self.drop_read();
        if let Bytes::Own(own) = &self.bytes
            && own.len() + bytes.len() > OWN_BYTES_MAX
        {
            let Some(mut long) = self.long_lines.lend() else { return false };
            long.extend_from_slice(own);
            self.bytes = Bytes::Long(long);
        }
        let (buffer, is_own) = match &mut self.bytes {
            Bytes::Own(own) => (own, true),
            Bytes::Long(long) => (&mut **long, false),
        };
        let len = buffer.len() + bytes.len();
        if is_own && len > buffer.capacity() {
            let capacity = (2 * buffer.capacity()).clamp(len, OWN_BYTES_MAX);
            buffer.reserve_exact(capacity - buffer.len());
        }
        buffer.extend_from_slice(bytes);
        true
    }

    /// Frees everything that the buffer holds.
    pub(super) fn clear(&mut self) {
        *self = Self::new(self.long_lines.clone());
    }

    /// The first byte that is not part of a returned line.
    pub(super) fn first_byte(&self) -> Option<u8> {
        self.bytes.get(self.start).copied()
    }

    fn drop_read(&mut self) {
        match &mut self.bytes {
            Bytes::Own(bytes) => drop(bytes.drain(..self.start)),
            Bytes::Long(bytes) => drop(bytes.drain(..self.start)),
        }
        self.searched -= self.start;
        self.start = 0;
    }

    /// The number of bytes that are not part of a returned line.
    pub(super) fn unread(&self) -> usize {
        self.bytes.len() - self.start
    }

    /// The memory that the buffer takes, as far as it matters: its capacity counts in full, because
    /// its pages may have been used before.
    pub(super) fn held(&self) -> usize {
        if self.bytes.capacity() > CAPACITY_KEPT { self.bytes.capacity() } else { self.unread() }
    }

    /// Returns whether the unread bytes take more than half of what an own buffer may hold. While
    /// none of them are read, none should be added.
    pub(super) fn is_large(&self) -> bool {
        self.unread() > OWN_BYTES_MAX / 2
    }

    /// Gives the capacity back that the rest of a stream does not need: the client may be silent
    /// from now on.
    fn shrink(&mut self) {
        if self.unread() > CAPACITY_KEPT || self.bytes.capacity() <= CAPACITY_KEPT {
            return;
        }
        self.drop_read();
        match &mut self.bytes {
            Bytes::Own(bytes) => bytes.shrink_to(CAPACITY_KEPT),
            Bytes::Long(bytes) => self.bytes = Bytes::Own(bytes.to_vec()),
        }
    }

    /// Returns whether there may be a complete line in the buffer: it was not searched to its end.
    pub(super) fn may_hold_line(&self) -> bool {
        self.searched < self.bytes.len()
    }

    /// Removes the next line from the front.
    pub(super) fn next_line(&mut self) -> NextLine<'_> {
        let Some(found) = line_break_in(&self.bytes[self.searched..]) else {
            self.searched = self.bytes.len();
            self.shrink();
            let is_too_long = self.unread() > LINE_BYTES_MAX + 1;
            return if is_too_long { NextLine::TooLong } else { NextLine::Incomplete };
        };
        let (start, end) = (self.start, self.searched + found);
        self.start = end + 1;
        self.searched = self.start;
        let line = &self.bytes[start..end];
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.len() > LINE_BYTES_MAX { NextLine::TooLong } else { NextLine::Line(line) }
    }
}

/// The position of the first line break. Requests are short, so the first bytes are looked at one
/// by one; a long line is searched in pieces by `contains`, which looks at many bytes at once.
fn line_break_in(bytes: &[u8]) -> Option<usize> {
    const FEW: usize = 128;
    const PIECE: usize = 4 << 10;
    let position = |bytes: &[u8]| bytes.iter().position(|&byte| byte == b'\n');
    let (first, rest) = bytes.split_at(bytes.len().min(FEW));
    position(first).or_else(|| {
        let piece = rest.chunks(PIECE).position(|piece| piece.contains(&b'\n'))?;
        let start = piece * PIECE;
        Some(FEW + start + position(&rest[start..])?)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_break_is_found_wherever_it_is() {
        for len in [0, 1, 127, 128, 129, 4223, 4224, 4225, 9000] {
            let mut bytes = vec![b'x'; len];
            assert_eq!(line_break_in(&bytes), None);
            for at in (0..len).filter(|at| at % 61 == 0 || at + 1 == len || (120..136).contains(at)) {
                bytes[at] = b'\n';
                assert_eq!(line_break_in(&bytes), Some(at), "{at} of {len}");
                bytes[at] = b'x';
            }
        }
    }

    fn lines_of(buffer: &mut LineBuffer) -> Vec<String> {
        let mut lines = Vec::new();
        while let NextLine::Line(line) = buffer.next_line() {
            lines.push(String::from_utf8(line.to_vec()).unwrap());
        }
        lines
    }

    #[test]
    fn lines_are_the_same_wherever_the_stream_is_cut() {
        let stream = b"one\r\n\ntwo\nthree \r\r\nhalf";
        for cut in 0..=stream.len() {
            let mut buffer = LineBuffer::default();
            assert!(buffer.push(&stream[..cut]));
            let mut lines = lines_of(&mut buffer);
            assert!(buffer.push(&stream[cut..]));
            lines.extend(lines_of(&mut buffer));
            assert_eq!(lines, ["one", "", "two", "three \r"], "cut at {cut}");
            assert_eq!(buffer.unread(), 4);
        }
    }

    #[test]
    fn a_long_line_moves_to_a_buffer_of_the_pool() {
        let mut buffer = LineBuffer::new(LongLines::new(1));
        assert!(buffer.push(&vec![b'x'; OWN_BYTES_MAX - 1]));
        assert!(buffer.push(b"x"));
        assert_eq!((buffer.held(), buffer.bytes.capacity()), (OWN_BYTES_MAX, OWN_BYTES_MAX));
        assert!(buffer.push(b"x"));
        let room = buffer.bytes.capacity();
        assert!(room >= LINE_BYTES_MAX + OWN_BYTES_MAX);
        assert_eq!((buffer.unread(), buffer.held()), (OWN_BYTES_MAX + 1, room));
        assert!(buffer.push(&vec![b'x'; LINE_BYTES_MAX - OWN_BYTES_MAX - 1]));
        assert!(buffer.push(b"\n"));
        assert_eq!(buffer.bytes.capacity(), room);
        assert_eq!(lines_of(&mut buffer).len(), 1);
        assert_eq!(buffer.held(), 0);
    }

    /// A client that ends each batch with the beginning of a line must not keep the memory of the
    /// batch.
    #[test]
    fn the_beginning_of_a_line_keeps_little_memory() {
        for len in [OWN_BYTES_MAX - 2, LINE_BYTES_MAX] {
            let mut buffer = LineBuffer::new(LongLines::new(1));
            assert!(buffer.push(&vec![b'x'; len]));
            assert!(buffer.held() >= len);
            assert!(buffer.push(b"\nx"));
            assert_eq!(lines_of(&mut buffer).len(), 1);
            assert!(buffer.bytes.capacity() <= CAPACITY_KEPT);
            assert_eq!((buffer.unread(), buffer.held()), (1, 1));
            assert!(buffer.long_lines.lend().is_some());
        }
    }

    #[test]
    fn without_a_buffer_nothing_is_added() {
        let pool = LongLines::new(1);
        let mut buffers = [LineBuffer::new(pool.clone()), LineBuffer::new(pool)];
        assert!(buffers[0].push(&vec![b'x'; LINE_BYTES_MAX]));
        assert!(buffers[1].push(&vec![b'x'; OWN_BYTES_MAX]));
        assert!(!buffers[1].push(b"x"));
        assert_eq!(buffers[1].unread(), OWN_BYTES_MAX);
        buffers[0].clear();
        assert!(buffers[1].push(b"x"));
    }

    #[test]
    fn an_empty_buffer_gives_its_capacity_back() {
        let mut buffer = LineBuffer::default();
        assert!(buffer.push(&vec![b'x'; LINE_BYTES_MAX]));
        assert!(buffer.push(b"\n"));
        assert_eq!(lines_of(&mut buffer).len(), 1);
        assert!(buffer.bytes.capacity() <= CAPACITY_KEPT);
        assert!(!buffer.may_hold_line());
    }

    #[test]
    fn the_limit_of_a_line_is_exact() {
        for ending in [&b"\n"[..], b"\r\n"] {
            let mut buffer = LineBuffer::default();
            assert!(buffer.push(&vec![b'x'; LINE_BYTES_MAX]));
            assert_eq!(buffer.next_line(), NextLine::Incomplete);
            assert!(buffer.push(ending));
            assert!(matches!(buffer.next_line(), NextLine::Line(line) if line.len() == LINE_BYTES_MAX));
            assert!(buffer.push(&vec![b'x'; LINE_BYTES_MAX + 1]));
            assert_eq!(buffer.next_line(), NextLine::Incomplete, "a \\r may be the last byte");
            assert!(buffer.push(b"\n"));
            assert_eq!(buffer.next_line(), NextLine::TooLong);
        }
        let mut buffer = LineBuffer::default();
        assert!(buffer.push(&vec![b'x'; LINE_BYTES_MAX + 2]));
        assert_eq!(buffer.next_line(), NextLine::TooLong, "no ending can make it short enough");
    }
}
