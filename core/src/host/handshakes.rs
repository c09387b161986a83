//! Connections to the port for nodes whose other end has not shown yet who it is.
//!
//! A stranger may say nothing, and hold its connection for as long as it is let. A node shows
//! itself at once. So there are few places for those that have not, and a new connection takes that
//! of the oldest one: whatever strangers do, a node finds a place.

use std::collections::VecDeque;

/// The handshakes under way, each with its connection. See the module.
#[derive(Debug)]
pub struct Handshakes<C> {
    max: usize,
    waiting: VecDeque<(u64, C)>,
}

impl<C> Handshakes<C> {
    /// At most `max` at once: see [`PeerPlaces`](super::PeerPlaces).
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self { max, waiting: VecDeque::new() }
    }

    /// A connection has come; numbers are not used twice. Returns the one that has to give way to
    /// it, if one has to.
    #[must_use]
    pub fn begin(&mut self, number: u64, connection: C) -> Option<C> {
        self.waiting.push_back((number, connection));
        let is_full = self.waiting.len() > self.max;
        if is_full { self.waiting.pop_front().map(|(_, oldest)| oldest) } else { None }
    }

    /// A handshake is done, well or badly; `None`: it had to give way before.
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
    }
}
