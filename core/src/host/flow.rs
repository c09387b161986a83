//! Flow control of a link: limits the bytes in flight by how long they take.
//!
//! TCP fills whatever queue stands before the slowest piece of a network: a router's buffer may
//! hold seconds of traffic. A heartbeat that is written behind a full queue arrives after it,
//! whichever connection it takes, and its followers hold an election although no node has failed.
//! So the queue must not be filled in the first place. The receiver of a connection says how many
//! bytes it has read ([`PeerFrame::Receipt`](crate::peer::PeerFrame)), and the sender keeps what is
//! in flight within a *window* that follows the delay between the two, as congestion control by
//! delay does:
//!
//! - A delay that is short doubles the window, if it was full: on a fast network it soon is no
//!   limit.
//! - A delay above the limit halves it, once for all bytes that were in flight then.
//! - In between it stays as it is.
//!
//! The limit is a quarter of the shortest election timeout, so a beat and the queue together stay
//! well below that. Where the network alone takes so long, it is half as much again as the shortest
//! delay of the last minute: less would starve a line that is long and fast. The shortest delay may
//! hold a queue of this node's own making, and must not grow by that: so on a long line that was
//! full before the window grows by eighths, and what is left after it was halved is shorter than
//! before.
//!
//! Only what is bulky waits for the window. Heartbeats, votes and acknowledgements are sent
//! whatever it says.
//!
//! Deliberately not here: entries in flight ([`Config::in_flight_bytes_max`](crate::raft::Config)).
//! Their acknowledgement waits for a disk, so its delay says nothing of the network; and snapshots
//! and requests fill a queue as well.

use std::collections::VecDeque;
use std::time::Duration;

use crate::time::Instant;

/// The window at first: a network of 5 Mbit/s sends it in a tenth of a second.
pub const WINDOW_BYTES_FIRST: u64 = 64 << 10;
/// The smallest window: two pieces, so that one is on its way while the receipt of the other comes
/// back.
pub const WINDOW_BYTES_MIN: u64 = 32 << 10;
/// The largest window where memory has no limit: as many bytes as are in flight on a line of 1
/// Gbit/s around half the world.
pub const WINDOW_BYTES_MAX: u64 = 32 << 20;
/// The least number of bytes between two samples of the delay: small messages share one.
const MARK_BYTES: u64 = 4 << 10;
/// For how long the shortest delay is remembered, once or twice: a route may have become longer.
const SHORTEST_VALID: Duration = Duration::from_secs(30);

/// The bytes of one connection that are in flight. See the module.
#[derive(Debug)]
pub(super) struct Flow {
    /// The delay that is always allowed.
    delay_max: Duration,
    window: u64,
    /// The largest window.
    window_max: u64,
    /// Whether the window was never halved.
    is_starting: bool,
    /// Bytes sent, and bytes that the other side has read, since the handshake.
    sent: u64,
    read: u64,
    /// When bytes were sent that are not read yet: up to which one, and when. Ascending.
    marks: VecDeque<(u64, Instant)>,
    /// Delays of bytes up to this one say nothing: they were in flight when the window was halved.
    judged_from: u64,
    /// The shortest delays of the span under way, which began at that time, and of the one before.
    shortest: [Option<Duration>; 2],
    span_since: Instant,
}

/// The other side says that it has read bytes that were never sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NeverSent;

impl Flow {
    /// The flow of a new connection, in a cluster whose elections begin after this time or later,
    /// with at most `window_max` bytes in flight.
    pub(super) fn new(election_timeout_min: Duration, window_max: u64, now: Instant) -> Self {
        Self {
            delay_max: election_timeout_min / 4,
            window: WINDOW_BYTES_FIRST.min(window_max),
            window_max,
            is_starting: true,
            sent: 0,
            read: 0,
            marks: VecDeque::new(),
            judged_from: 0,
            shortest: [None; 2],
            span_since: now,
        }
    }

    /// How many bytes the window has room for.
    pub(super) fn room(&self) -> usize {
        usize::try_from(self.window.saturating_sub(self.sent - self.read)).unwrap_or(usize::MAX)
    }

    /// So many bytes more are in flight; `asks`: and a receipt for all of them is to come at once.
    pub(super) fn sent(&mut self, bytes: usize, asks: bool, now: Instant) {
        self.sent += bytes as u64;
        let marked = self.marks.back().map_or(self.read, |(position, _)| *position);
        if asks || self.sent - marked >= MARK_BYTES {
            self.marks.push_back((self.sent, now));
        }
    }

    /// The receiver reports how many bytes of this connection it has read.
    ///
    /// # Errors
    ///
    /// [`NeverSent`].
    pub(super) fn receipt(&mut self, read: u64, now: Instant) -> Result<(), NeverSent> {
        if read > self.sent {
            return Err(NeverSent);
        }
        if read <= self.read {
            return Ok(());
        }
        // Bytes in flight before this receipt: had there been room for as much again?
        let was_limiting = (self.sent - self.read).saturating_mul(2) > self.window;
        let fresh = read - self.read;
        self.read = read;
        // The last byte that was read was sent with the first mark at or behind it.
        while self.marks.front().is_some_and(|(position, _)| *position < read) {
            self.marks.pop_front();
        }
        let Some(&(position, since)) = self.marks.front() else { return Ok(()) };
        if position == read {
            self.marks.pop_front();
        }
        self.judge(now.since(since), was_limiting.then_some(fresh), now);
        Ok(())
    }

    /// Adapts the window to a sample of the delay. `limited`: the bytes in flight at that time, if
    /// the window was full.
    fn judge(&mut self, delay: Duration, limited: Option<u64>, now: Instant) {
        let shortest = self.shortest(delay, now);
        let longest = self.delay_max.max(shortest + shortest / 2);
        if delay > longest {
            if self.read > self.judged_from {
                self.window = (self.window / 2).max(WINDOW_BYTES_MIN.min(self.window_max));
                self.is_starting = false;
                self.judged_from = self.sent;
            }
        } else if delay <= (shortest + longest) / 2
            && let Some(fresh) = limited
        {
            let doubles = self.is_starting || delay <= self.delay_max / 2;
            let more = if doubles { fresh } else { fresh / 8 };
            self.window = (self.window + more).min(self.window_max);
        }
    }

    /// The shortest delay of late, when bytes took this long just now.
    fn shortest(&mut self, delay: Duration, now: Instant) -> Duration {
        if now.since(self.span_since) >= SHORTEST_VALID {
            self.shortest = [None, self.shortest[0]];
            self.span_since = now;
        }
        let shortest = self.shortest[0].map_or(delay, |shortest| shortest.min(delay));
        self.shortest[0] = Some(shortest);
        self.shortest[1].map_or(shortest, |before| before.min(shortest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ELECTION: Duration = Duration::from_millis(300);

    /// Some links that share one line, each with more to send than it may.
    struct Line {
        bytes_per_ms: u64,
        /// How long bytes and receipts are on their way without a queue.
        one_way: Duration,
        flows: Vec<Flow>,
        now: Instant,
        /// What waits for the line: of which flow, up to which of its bytes.
        queue: VecDeque<(usize, u64)>,
        queued: u64,
        /// Receipts on their way: when they arrive, of which flow, what they say.
        receipts: VecDeque<(Instant, usize, u64)>,
        delivered: u64,
        longest_queue: Duration,
    }

    impl Line {
        fn new(bytes_per_ms: u64, one_way: Duration, flows: usize) -> Self {
            let now = Instant::default();
            Self {
                bytes_per_ms,
                one_way,
                flows: (0..flows).map(|_| Flow::new(ELECTION, WINDOW_BYTES_MAX, now)).collect(),
                now,
                queue: VecDeque::new(),
                queued: 0,
                receipts: VecDeque::new(),
                delivered: 0,
                longest_queue: Duration::ZERO,
            }
        }

        fn run(&mut self, time: Duration) {
            let end = self.now + time;
            let mut budget = 0;
            while self.now < end {
                self.now = self.now + Duration::from_millis(1);
                while let Some(&(at, flow, read)) = self.receipts.front()
                    && at <= self.now
                {
                    self.receipts.pop_front();
                    self.flows[flow].receipt(read, self.now).unwrap();
                }
                for (number, flow) in self.flows.iter_mut().enumerate() {
                    while flow.room() > 0 {
                        flow.sent(16 << 10, false, self.now);
                        self.queue.push_back((number, flow.sent));
                        self.queued += 16 << 10;
                    }
                }
                let wait = Duration::from_millis(self.queued / self.bytes_per_ms);
                self.longest_queue = self.longest_queue.max(wait);
                budget = (budget + self.bytes_per_ms).min(self.queued);
                while budget >= 16 << 10 {
                    let Some((flow, read)) = self.queue.pop_front() else { break };
                    budget -= 16 << 10;
                    self.queued -= 16 << 10;
                    self.delivered += 16 << 10;
                    self.receipts.push_back((self.now + self.one_way + self.one_way, flow, read));
                }
            }
        }

        /// How much of the line was used, in percent, and the longest queue, once it has run for
        /// ten seconds.
        fn settled(mut self) -> (u64, Duration) {
            self.run(Duration::from_secs(10));
            (self.delivered, self.longest_queue) = (0, Duration::ZERO);
            self.run(Duration::from_secs(100));
            (self.delivered * 100 / (self.bytes_per_ms * 100_000), self.longest_queue)
        }
    }

    #[test]
    fn a_slow_line_is_used_and_never_holds_an_election_timeout_of_bytes() {
        for (mbit, flows) in [(4, 1), (10, 2), (20, 2), (20, 4), (100, 2), (1000, 4)] {
            let mut line = Line::new(mbit * 125, Duration::from_millis(1), flows);
            line.run(Duration::from_secs(10));
            let at_first = line.longest_queue;
            assert!(at_first <= ELECTION * 4 / 5, "{mbit} Mbit/s, {flows} flows: {at_first:?} at first");
            let (used, queue) = line.settled();
            assert!(used >= 90, "{mbit} Mbit/s, {flows} flows: {used} % used");
            assert!(queue <= ELECTION * 2 / 3, "{mbit} Mbit/s, {flows} flows: a queue of {queue:?}");
        }
    }

    #[test]
    fn a_fast_line_is_used_however_long_it_is() {
        for one_way in [0, 1, 20, 60, 100] {
            let line = Line::new(125_000, Duration::from_millis(one_way), 1);
            let (used, queue) = line.settled();
            assert!(used >= 80, "{one_way} ms: {used} % used");
            assert!(queue <= ELECTION, "{one_way} ms: a queue of {queue:?}");
        }
    }

    #[test]
    fn a_line_that_becomes_slower_is_noticed() {
        let mut line = Line::new(125_000, Duration::from_millis(1), 2);
        line.run(Duration::from_secs(5));
        line.bytes_per_ms = 2_500;
        line.run(Duration::from_secs(10));
        let (used, queue) = line.settled();
        assert!(used >= 90 && queue <= ELECTION * 2 / 3, "{used} % used, a queue of {queue:?}");
    }

    #[test]
    fn a_line_that_becomes_longer_is_used_again_after_a_while() {
        let mut line = Line::new(12_500, Duration::from_millis(1), 1);
        line.run(Duration::from_secs(5));
        line.one_way = Duration::from_millis(100);
        line.run(SHORTEST_VALID * 3);
        let (used, _) = line.settled();
        assert!(used >= 80, "{used} % used");
    }

    #[test]
    fn one_late_receipt_halves_the_window_once() {
        let mut flow = Flow::new(ELECTION, WINDOW_BYTES_MAX, Instant::default());
        flow.sent(1, true, Instant::default());
        flow.receipt(1, Instant::default()).unwrap();
        for _ in 0..4 {
            flow.sent(16 << 10, false, Instant::default());
        }
        assert_eq!(flow.room(), 0);
        let late = Instant::default() + ELECTION;
        for read in 1..=4 {
            flow.receipt(1 + read * (16 << 10), late).unwrap();
        }
        assert_eq!(flow.room() as u64, WINDOW_BYTES_FIRST / 2);
        assert_eq!(flow.receipt((4 << 14) + 2, late), Err(NeverSent));
        assert_eq!(flow.receipt(1, late), Ok(()), "an old one says nothing");
    }

    #[test]
    fn a_window_that_is_not_full_does_not_grow() {
        let mut flow = Flow::new(ELECTION, WINDOW_BYTES_MAX, Instant::default());
        for round in 1..1000 {
            flow.sent(16 << 10, false, Instant::default());
            flow.receipt(round * (16 << 10), Instant::default()).unwrap();
        }
        assert_eq!(flow.room() as u64, WINDOW_BYTES_FIRST);
    }

    /// What is in flight is memory at both ends: with little of it the window is small from the
    /// start, and stays so on a fast line.
    #[test]
    fn a_window_does_not_outgrow_its_share() {
        let mut now = Instant::default();
        let mut flow = Flow::new(ELECTION, WINDOW_BYTES_MIN, now);
        for _ in 0..100 {
            assert_eq!(flow.room() as u64, WINDOW_BYTES_MIN);
            flow.sent(flow.room(), true, now);
            now = now + Duration::from_micros(100);
            flow.receipt(flow.sent, now).unwrap();
        }
    }
}
