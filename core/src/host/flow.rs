//! Flow control of a link: limits the bytes in flight by the measured delay.
//!
//! TCP fills whatever queue stands before the slowest part of a network: a router's buffer may hold
//! seconds of traffic. A heartbeat that is written behind a full queue arrives after it, whichever
//! connection carries it, and the followers hold an election although no node has failed. So the
//! queue must not be filled in the first place. The receiver of a connection reports how many bytes
//! it has read ([`PeerFrame::Receipt`](crate::peer::PeerFrame)), and the sender limits the bytes in
//! flight to a *window* that follows the delay of these receipts, as in delay-based congestion
//! control:
//!
//! - A short delay doubles the window, if the window was full: on a fast network it soon is no
//!   limit.
//! - A delay above the limit halves it, once for all bytes that were in flight then.
//! - In between it stays as it is.
//!
//! The limit is a quarter of the shortest election timeout, so a heartbeat interval and the queue
//! together stay well below that timeout. Where the network alone takes that long, the limit is 1.5
//! times the shortest delay of the last minute: less would not fill a long, fast line. That
//! shortest delay may include a queue that this node itself has built up, and must not grow because
//! of it. So on a long line, after the first halving, the window grows only by eighths, and the
//! queue that remains after each further halving is shorter than before.
//!
//! Only bulk data waits for the window. Heartbeats, votes and acknowledgements are sent regardless.
//!
//! Deliberately not here: entries in flight ([`Config::in_flight_bytes_max`](crate::raft::Config)).
//! Their acknowledgement waits for a disk, so its delay does not measure the network; and snapshots
//! and requests fill a queue as well.

use std::collections::VecDeque;
use std::time::Duration;

use crate::time::Instant;

/// The initial window: a network of 5 Mbit/s sends it in a tenth of a second.
pub const WINDOW_BYTES_FIRST: u64 = 64 << 10;
/// The smallest window: two pieces, so that one is in flight while the receipt of the other
/// returns.
pub const WINDOW_BYTES_MIN: u64 = 32 << 10;
/// The largest window where memory has no limit: the bytes in flight on a line of 1 Gbit/s halfway
/// around the world.
pub const WINDOW_BYTES_MAX: u64 = 32 << 20;
/// The least number of bytes between two samples of the delay: small messages share a sample.
const MARK_BYTES: u64 = 4 << 10;
/// How long the shortest delay is remembered, once or twice, because a route may become longer.
const SHORTEST_VALID: Duration = Duration::from_secs(30);

/// The flow control of one connection. See the module.
#[derive(Debug)]
pub(super) struct Flow {
    /// The delay that is allowed on every network.
    delay_max: Duration,
    window: u64,
    /// The largest window.
    window_max: u64,
    /// Whether the window has never been halved.
    is_starting: bool,
    /// Bytes sent since the handshake, and bytes that the receiver has read of them.
    sent: u64,
    read: u64,
    /// Delay samples under way: up to which byte, and when it was sent. Ascending.
    marks: VecDeque<(u64, Instant)>,
    /// Delays of bytes up to this one are ignored: they were in flight when the window was halved.
    judged_from: u64,
    /// The shortest delays of the current span, which began at `span_since`, and of the one before.
    shortest: [Option<Duration>; 2],
    span_since: Instant,
}

/// A receipt claims more bytes than were sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NeverSent;

impl Flow {
    /// Creates the flow control of a new connection, with at most `window_max` bytes in flight, in
    /// a cluster whose shortest election timeout is `election_timeout_min`.
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

    /// Returns how many more bytes the window allows.
    pub(super) fn room(&self) -> usize {
        usize::try_from(self.window.saturating_sub(self.sent - self.read)).unwrap_or(usize::MAX)
    }

    /// Notes that `bytes` more are in flight. `asks`: they end with a ping, which asks for a
    /// receipt at once.
    pub(super) fn sent(&mut self, bytes: usize, asks: bool, now: Instant) {
        self.sent += bytes as u64;
        let marked = self.marks.back().map_or(self.read, |(position, _)| *position);
        if asks || self.sent - marked >= MARK_BYTES {
            self.marks.push_back((self.sent, now));
        }
    }

    /// Accepts a receipt: the receiver has read `read` bytes of this connection.
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
        // Whether the bytes in flight before this receipt filled more than half of the window.
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

    /// Adapts the window to a sample of the delay. `limited`: the bytes that this receipt
    /// acknowledges, if the window was full.
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

    /// Returns the shortest recent delay, including this new sample.
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

    /// Several links that share one line, each with more to send than its window allows.
    struct Line {
        bytes_per_ms: u64,
        /// The one-way delay of bytes and receipts without a queue.
        one_way: Duration,
        flows: Vec<Flow>,
        now: Instant,
        /// The queue before the line: the flow, and up to which of its bytes.
        queue: VecDeque<(usize, u64)>,
        queued: u64,
        /// Receipts in flight: when they arrive, the flow, and the bytes read.
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

        /// Returns the utilization of the line, in percent, and the longest queue, both measured
        /// after a warm-up of ten seconds.
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

    /// Bytes in flight take memory at both ends. With little memory the window is small from the
    /// start, and stays small on a fast line.
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
