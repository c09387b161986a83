//! Pacing of bulk transfers: how many large pieces all clients together move in a short time.
//!
//! A client that sends as fast as it can, such as the beginning of a long line again and again, has
//! a piece ready whenever the server looks. Turns alone do not keep the server free for others: the
//! connections would use all the time that is left, and a small request would wait for the piece
//! that is being moved, on a processor whose caches hold nothing but such pieces. So after a number
//! of pieces, bulk transfers pause until a fixed time has passed since the first of them.
//!
//! The limit is far above what a disk or a network of a cluster writes, so only clients whose bytes
//! lead to nothing meet it.

use std::time::Duration;

use crate::time::Instant;

/// The time in which at most [`PACED_PIECES`] pieces are moved.
const WINDOW: Duration = Duration::from_millis(1);
/// The number of pieces that are moved in a window. With pieces of 64 KiB, half a gigabyte a
/// second.
pub const PACED_PIECES: u32 = 8;

/// The pace of all bulk transfers of a server. It reads no clock: each call provides the time.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pace {
    window_end: Instant,
    pieces: u32,
}

impl Pace {
    /// Counts a piece that is moved at `now`. Returns the time before which no other piece may be
    /// moved, if that is later than now.
    pub fn moved(&mut self, now: Instant) -> Option<Instant> {
        if now >= self.window_end {
            (self.window_end, self.pieces) = (now + WINDOW, 0);
        }
        self.pieces += 1;
        (self.pieces >= PACED_PIECES).then_some(self.window_end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The number of pieces of a client that moves one whenever it may, each in `each`.
    fn pieces_within(time: Duration, each: Duration) -> u32 {
        let (mut pace, mut now, mut pieces) = (Pace::default(), Instant::default(), 0);
        let end = now + time;
        while now < end {
            pieces += 1;
            now = pace.moved(now).unwrap_or(now).max(now + each);
        }
        pieces
    }

    #[test]
    fn fast_transfers_are_paced_and_slow_ones_are_not() {
        let second = Duration::from_secs(1);
        assert_eq!(pieces_within(second, Duration::from_micros(1)), 1000 * PACED_PIECES);
        assert_eq!(pieces_within(second, Duration::from_micros(500)), 2000);
    }

    #[test]
    fn a_pause_is_no_longer_than_a_window() {
        let (mut pace, now) = (Pace::default(), Instant::default() + Duration::from_secs(9));
        let waits: Vec<_> = (0..PACED_PIECES).map(|_| pace.moved(now)).collect();
        assert_eq!(waits[..waits.len() - 1], [None; PACED_PIECES as usize - 1]);
        assert_eq!(waits.last(), Some(&Some(now + WINDOW)));
        assert_eq!(pace.moved(now + WINDOW), None);
    }
}
