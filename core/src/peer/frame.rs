//! Frames: the pieces of a byte stream, each preceded by its length and checksums.
//!
//! ```text
//! ┌────────────┬──────────────────┬─────────────────────────┬─────────┐
//! │ length u32 │ CRC-32 of … u32  │ CRC-32 of the two u32   │ … bytes │      little-endian
//! └────────────┴──────────────────┴─────────────────────────┴─────────┘
//! ```
//!
//! The head has a separate checksum: with a wrong length the receiver would wait for bytes that
//! were never sent, and the connection would hang unnoticed.
//!
//! TCP's checksum lets about one in ten million corrupted segments pass. A frame with a wrong
//! checksum ends its connection, because the start of the next frame cannot be trusted.

/// The longest frame that is ever sent, in bytes after its head: an AppendEntries, a part of a
/// snapshot or a page of a scan, with room to spare. A node with little memory accepts only frames
/// within its share.
pub const FRAME_BYTES_MAX: usize = 16 << 20;

/// The length of a frame's head, in bytes.
pub(super) const HEAD_LEN: usize = 12;

/// The capacity that an empty buffer keeps, in bytes.
const CAPACITY_KEPT: usize = 256 << 10;

/// A fault in a stream of frames. Its connection must be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FrameError {
    /// A frame is empty, or longer than the receiver accepts.
    Length(usize),
    /// A frame's bytes do not match their checksum.
    Checksum,
    /// A complete frame has content that this version does not know.
    Unknown,
}

impl std::fmt::Display for FrameError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Length(0) => f.write_str("an empty frame"),
            Self::Length(len) => write!(f, "a frame of {len} bytes, which is more than this node accepts"),
            Self::Checksum => f.write_str("a frame whose checksum is wrong"),
            Self::Unknown => f.write_str("a frame that this version does not know"),
        }
    }
}

impl std::error::Error for FrameError {}

/// Appends a frame to `stream`; `write` adds its content.
///
/// # Panics
///
/// When the content is longer than [`FRAME_BYTES_MAX`].
pub(super) fn push_frame(stream: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let start = stream.len();
    stream.extend_from_slice(&[0; HEAD_LEN]);
    write(stream);
    let len = stream.len() - start - HEAD_LEN;
    assert!(len <= FRAME_BYTES_MAX, "a frame of {len} bytes");
    let checksum = crc32fast::hash(&stream[start + HEAD_LEN..]);
    let len = u32::try_from(len).expect("just checked");
    stream[start..start + 4].copy_from_slice(&len.to_le_bytes());
    stream[start + 4..start + 8].copy_from_slice(&checksum.to_le_bytes());
    let of_head = crc32fast::hash(&stream[start..start + 8]);
    stream[start + 8..start + HEAD_LEN].copy_from_slice(&of_head.to_le_bytes());
}

/// Splits a stream into frames, however its bytes were split in transit.
#[derive(Debug)]
pub struct FrameBuffer {
    bytes: Vec<u8>,
    /// The position of the next frame.
    start: usize,
    /// The longest frame that is accepted.
    frame_max: usize,
}

impl Default for FrameBuffer {
    fn default() -> Self {
        Self::new(FRAME_BYTES_MAX)
    }
}

impl FrameBuffer {
    /// An empty buffer, which rejects frames longer than `frame_max` bytes.
    #[must_use]
    pub fn new(frame_max: usize) -> Self {
        Self { bytes: Vec::new(), start: 0, frame_max: frame_max.min(FRAME_BYTES_MAX) }
    }

    /// Returns the number of bytes of the unfinished frame.
    #[must_use]
    pub fn unfinished(&self) -> usize {
        self.bytes.len() - self.start
    }

    /// Appends received bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.start);
        self.start = 0;
        if self.bytes.is_empty() {
            self.bytes.shrink_to(CAPACITY_KEPT);
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// Returns the content of the next complete frame, if there is one.
    ///
    /// # Errors
    ///
    /// [`FrameError`]: the stream is broken.
    pub fn next_frame(&mut self) -> Result<Option<&[u8]>, FrameError> {
        let unread = &self.bytes[self.start..];
        let Some((head, rest)) = unread.split_first_chunk::<HEAD_LEN>() else { return Ok(None) };
        let [l0, l1, l2, l3, c0, c1, c2, c3, of_head @ ..] = *head;
        if crc32fast::hash(&head[..8]) != u32::from_le_bytes(of_head) {
            return Err(FrameError::Checksum);
        }
        let len = usize::try_from(u32::from_le_bytes([l0, l1, l2, l3])).unwrap_or(usize::MAX);
        if len == 0 || len > self.frame_max {
            return Err(FrameError::Length(len));
        }
        let Some(frame) = rest.get(..len) else { return Ok(None) };
        if crc32fast::hash(frame) != u32::from_le_bytes([c0, c1, c2, c3]) {
            return Err(FrameError::Checksum);
        }
        let from = self.start + HEAD_LEN;
        self.start = from + len;
        Ok(Some(&self.bytes[from..from + len]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(frames: &[&[u8]]) -> Vec<u8> {
        let mut stream = Vec::new();
        for frame in frames {
            push_frame(&mut stream, |bytes| bytes.extend_from_slice(frame));
        }
        stream
    }

    fn frames(buffer: &mut FrameBuffer) -> Vec<Vec<u8>> {
        std::iter::from_fn(|| buffer.next_frame().unwrap().map(<[u8]>::to_vec)).collect()
    }

    #[test]
    fn frames_are_the_same_wherever_the_stream_is_cut() {
        let stream = stream(&[b"one", b"t", b"three"]);
        for cut in 0..=stream.len() {
            let mut buffer = FrameBuffer::default();
            buffer.push(&stream[..cut]);
            let mut found = frames(&mut buffer);
            buffer.push(&stream[cut..]);
            found.extend(frames(&mut buffer));
            assert_eq!(found, [&b"one"[..], b"t", b"three"], "cut at {cut}");
        }
    }

    #[test]
    fn no_flipped_bit_gives_a_frame() {
        let stream = stream(&[b"snack"]);
        for at in 0..stream.len() {
            for bit in 0..8 {
                let mut flipped = stream.clone();
                flipped[at] ^= 1 << bit;
                let mut buffer = FrameBuffer::default();
                buffer.push(&flipped);
                assert_eq!(buffer.next_frame(), Err(FrameError::Checksum), "byte {at} bit {bit}");
            }
        }
    }

    #[test]
    fn a_length_has_limits() {
        let most = u32::try_from(FRAME_BYTES_MAX).unwrap();
        for (len, max) in [(0, FRAME_BYTES_MAX), (most + 1, usize::MAX), (1001, 1000)] {
            let mut buffer = FrameBuffer::new(max);
            let head = [&len.to_le_bytes()[..], &[0; 4]].concat();
            buffer.push(&head);
            buffer.push(&crc32fast::hash(&head).to_le_bytes());
            assert!(matches!(buffer.next_frame(), Err(FrameError::Length(_))));
        }
    }
}
