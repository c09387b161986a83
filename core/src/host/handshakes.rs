//! Handshakes under way: limits the connections whose other end has not identified itself yet, at
//! the peer port, and at the client port when it speaks TLS.
//!
//! An unknown program may connect and send nothing, and hold its connection for as long as it is
//! allowed to. A node identifies itself at once. So there are few places for connections before
//! their handshake, and a new connection replaces the oldest one: a node always finds a place.

use std::collections::VecDeque;
use std::time::Duration;

/// The most clients at once whose TLS handshake is not complete. Each costs a descriptor and some
/// kilobytes, and on threads a thread; a handshake takes milliseconds and a few round trips.
pub const CLIENT_HANDSHAKES_MAX: usize = 64;
/// How long a client's TLS handshake may take. Arbitrary, but enough for a slow network that loses
/// a packet.
pub const CLIENT_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// The handshakes under way, each with its connection. See the module.
#[derive(Debug)]
pub struct Handshakes<C> {
    max: usize,
    waiting: VecDeque<(u64, C)>,
}

impl<C> Handshakes<C> {
    /// Creates the table, with at most `max` handshakes at once: see
    /// [`PeerPlaces`](super::PeerPlaces).
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self { max, waiting: VecDeque::new() }
    }

    /// Adds a new connection; numbers are not reused. Returns the oldest connection if it must be
    /// closed to make room.
    #[must_use]
    pub fn begin(&mut self, number: u64, connection: C) -> Option<C> {
        self.waiting.push_back((number, connection));
        let is_full = self.waiting.len() > self.max;
        if is_full { self.waiting.pop_front().map(|(_, oldest)| oldest) } else { None }
    }

    /// Removes all handshakes, because no more connections are accepted.
    #[must_use]
    pub fn end_all(&mut self) -> Vec<C> {
        self.waiting.drain(..).map(|(_, connection)| connection).collect()
    }

    /// Removes a handshake that has succeeded or failed; `None`: it was closed to make room before.
    pub fn end(&mut self, number: u64) -> Option<C> {
        let at = self.waiting.iter().position(|(waiting, _)| *waiting == number)?;
        self.waiting.remove(at).map(|(_, connection)| connection)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_connection_takes_the_place_of_the_oldest() {
        let mut handshakes = Handshakes::new(3);
        for number in 0..3 {
            assert_eq!(handshakes.begin(number, number), None);
        }
        assert_eq!(handshakes.begin(100, 100), Some(0));
        assert_eq!(handshakes.end(0), None, "it has given way");
        assert_eq!(handshakes.end(2), Some(2));
        assert_eq!(handshakes.begin(101, 101), None, "one has shown itself");
        assert_eq!(handshakes.begin(102, 102), Some(1));
        assert_eq!(handshakes.end_all(), [100, 101, 102]);
        assert_eq!(handshakes.end(101), None);
    }
}
