//! The first line of a connection between nodes: finds its end as bytes arrive.
//!
//! The bytes after the line are frames, and belong to another reader. So a runtime peeks at the
//! bytes that have arrived before it consumes any, and consumes as many as this type says.

use std::{fmt, io};

use super::HELLO_BYTES_MAX;
use crate::protocol::is_binary;

/// The most bytes to peek at.
pub const GREETING_LOOK_BYTES: usize = 1024;

/// The line was longer than [`HELLO_BYTES_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GreetingTooLong;

impl fmt::Display for GreetingTooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the handshake line is too long")
    }
}

impl std::error::Error for GreetingTooLong {}

/// The first line as it arrives. See the module.
#[derive(Debug, Default)]
pub struct GreetingLine {
    line: Vec<u8>,
    is_whole: bool,
}

impl GreetingLine {
    /// Examines bytes that have arrived; none means that the other end has closed the connection.
    /// Returns how many of them to consume.
    ///
    /// # Errors
    ///
    /// [`GreetingTooLong`], or an error because the connection was closed before the end of the
    /// line.
    pub fn look(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let end = bytes.iter().position(|byte| *byte == b'\n');
        self.line.extend_from_slice(&bytes[..end.unwrap_or(bytes.len())]);
        // Another protocol may never send a line break.
        self.is_whole = end.is_some() || is_binary(&self.line);
        if self.line.len() > HELLO_BYTES_MAX {
            return Err(io::Error::other(GreetingTooLong));
        }
        Ok(end.map_or(bytes.len(), |end| end + 1))
    }

    /// Returns whether the line is complete, or known not to be a handshake.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.is_whole
    }

    /// The line, without its line break.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_after_the_line_are_not_consumed() {
        let stream = b"{\"a\":1}\n\x05frames\nmore";
        for cut in 1..stream.len() {
            let mut greeting = GreetingLine::default();
            let mut taken = greeting.look(&stream[..cut]).unwrap();
            if !greeting.is_whole() {
                taken += greeting.look(&stream[taken..]).unwrap();
            }
            assert!(greeting.is_whole());
            assert_eq!((taken, greeting.into_bytes()), (8, b"{\"a\":1}".to_vec()), "cut at {cut}");
        }
    }

    #[test]
    fn a_line_has_a_length_limit() {
        let mut greeting = GreetingLine::default();
        for _ in 0..HELLO_BYTES_MAX / GREETING_LOOK_BYTES {
            assert_eq!(greeting.look(&[b'x'; GREETING_LOOK_BYTES]).unwrap(), GREETING_LOOK_BYTES);
        }
        assert!(!greeting.is_whole());
        assert_eq!(greeting.look(b"x").unwrap_err().to_string(), GreetingTooLong.to_string());
    }

    #[test]
    fn another_protocol_is_recognised_without_a_line_break() {
        let mut greeting = GreetingLine::default();
        greeting.look(b"\x16\x03\x01\x02\x00\x01").unwrap();
        assert!(greeting.is_whole());
    }
}
