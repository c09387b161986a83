//! Parser of a dialer's stream: cuts it into one line and then frames.
//!
//! It knows only as much of the peer protocol as a proxy needs: a line ends in `\n`, and a frame
//! begins with its length, its checksum and the checksum of both, four bytes each, little-endian.
//! The content of a frame stays opaque except for its kind. Verifying the checksum is left to the
//! receiver.

/// The length of a frame's head.
const HEAD_LEN: usize = 12;
/// The first payload byte of a frame that forwards a request to another node.
const ASK: u8 = 2;

/// A complete piece of a stream, with all its bytes on the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// The line of the handshake, with its line break.
    Line(Vec<u8>),
    /// A frame, with its head.
    Frame(Vec<u8>),
}

impl Piece {
    /// Returns whether a frame with these bytes forwards a client's request.
    pub(super) fn is_ask(frame: &[u8]) -> bool {
        frame.get(HEAD_LEN) == Some(&ASK)
    }

    pub(super) fn bytes(&self) -> &[u8] {
        let (Self::Line(bytes) | Self::Frame(bytes)) = self;
        bytes
    }
}

/// Cuts a stream into pieces, however its bytes were split in transit.
#[derive(Debug, Default)]
pub(super) struct Cutter {
    bytes: Vec<u8>,
    has_greeted: bool,
}

impl Cutter {
    /// Appends bytes of the stream.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Returns the next complete piece, if there is one.
    pub(super) fn next_piece(&mut self) -> Option<Piece> {
        if self.has_greeted {
            let head = self.bytes.first_chunk::<4>()?;
            let len = usize::try_from(u32::from_le_bytes(*head)).unwrap_or(usize::MAX);
            let end = len.saturating_add(HEAD_LEN);
            return (self.bytes.len() >= end).then(|| Piece::Frame(self.bytes.drain(..end).collect()));
        }
        let end = self.bytes.iter().position(|byte| *byte == b'\n')? + 1;
        self.has_greeted = true;
        Some(Piece::Line(self.bytes.drain(..end).collect()))
    }
}

#[cfg(test)]
pub(super) fn frame(payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).expect("a frame of a test is short");
    let checksum = crate::live::crc32(&[payload]);
    let head = [len.to_le_bytes(), checksum.to_le_bytes()].concat();
    [&head[..], &crate::live::crc32(&[&head]).to_le_bytes(), payload].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_the_same_wherever_the_stream_is_cut() {
        let line = b"{\"format\":\"x\"}\n".to_vec();
        // A frame may contain a line break, and bytes that look like a head.
        let frames = [frame(b"one\n"), frame(b"t"), frame(&frame(b"three"))];
        let stream = [line.clone(), frames.concat()].concat();
        let mut whole = vec![Piece::Line(line)];
        whole.extend(frames.map(Piece::Frame));
        for cut in 0..=stream.len() {
            let mut cutter = Cutter::default();
            let mut found = Vec::new();
            for part in [&stream[..cut], &stream[cut..]] {
                cutter.push(part);
                found.extend(std::iter::from_fn(|| cutter.next_piece()));
            }
            assert_eq!(found, whole, "cut at {cut}");
        }
    }

    #[test]
    fn incomplete_pieces_wait() {
        let mut cutter = Cutter::default();
        cutter.push(b"hello");
        assert_eq!(cutter.next_piece(), None);
        cutter.push(b"\n");
        assert_eq!(cutter.next_piece(), Some(Piece::Line(b"hello\n".to_vec())));
        let frame = frame(b"snack");
        cutter.push(&frame[..frame.len() - 1]);
        assert_eq!(cutter.next_piece(), None);
    }
}
