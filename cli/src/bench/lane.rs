//! One client of the load generator: decides which request comes next and when it is due, and
//! matches replies to requests.
//! A lane does no I/O and reads no clock. The caller passes times in, measured from the start of
//! the load, so that the accounting can be tested without waiting. The important idea is
//! [`Pace::Open`], an open-loop load: a request is due at a moment that does not depend on the
//! server, and its latency counts from that moment, even while the request waits for a place in the
//! pipeline.

use std::collections::VecDeque;
use std::time::Duration;

use super::requests::{Kind, Requests};
use super::tally::Tally;

/// The requests that a client sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Work {
    /// Puts and gets of random keys; `puts_percent` of 100 requests are puts.
    Mix { puts_percent: u8 },
    /// One request for every `step`th key, starting with key `next`.
    Each { kind: Kind, next: usize, step: usize },
}

/// When a client sends its requests.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Pace {
    /// Closed loop: as soon as there is a place in the pipeline, before `until`.
    Closed { until: Duration },
    /// Open loop: all clients together send `per_second` requests, in turn, so this client sends
    /// one every `clients / per_second` seconds, at an offset given by its `place`, before `until`.
    Open { place: usize, clients: usize, per_second: f64, until: Duration },
}

/// A client; see the module documentation.
#[derive(Debug)]
pub(super) struct Lane<'a> {
    requests: &'a Requests,
    work: Work,
    pace: Pace,
    pipeline: usize,
    rng: fastrand::Rng,
    /// The number of requests started.
    started: usize,
    has_stopped: bool,
    /// Requests in flight, in the order in which they were sent.
    under_way: VecDeque<(Kind, Duration)>,
    /// The part of a reply line that has arrived so far.
    partial: Vec<u8>,
}

/// The event to wait for before the next request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// A reply.
    Reply,
    /// This moment, or a reply.
    At(Duration),
    /// No event: there are no more requests, and all are answered.
    Nothing,
}

/// A line from the server that answers no request: a rejected connection or a closing message.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unasked(pub(super) String);

impl<'a> Lane<'a> {
    pub(super) fn new(requests: &'a Requests, work: Work, pace: Pace, pipeline: usize) -> Self {
        Self {
            requests,
            work,
            pace,
            pipeline,
            rng: fastrand::Rng::new(),
            started: 0,
            has_stopped: false,
            under_way: VecDeque::new(),
            partial: Vec::new(),
        }
    }

    /// Stops starting requests.
    pub(super) fn stop(&mut self) {
        self.has_stopped = true;
    }

    /// Appends the requests that are due at `now` and have a place in the pipeline.
    pub(super) fn start_due(&mut self, now: Duration, out: &mut Vec<u8>) {
        while self.under_way.len() < self.pipeline {
            let Some(due) = self.next_due(now).filter(|due| *due <= now) else { return };
            let (kind, key) = self.draw();
            self.requests.write(kind, key, out);
            self.under_way.push_back((kind, due));
            self.started += 1;
        }
    }

    /// Returns when the next request is due, or `None` if there is none.
    fn next_due(&self, now: Duration) -> Option<Duration> {
        let is_exhausted = match self.work {
            Work::Mix { .. } => false,
            Work::Each { next, .. } => next >= self.requests.keys(),
        };
        if self.has_stopped || is_exhausted {
            return None;
        }
        match self.pace {
            Pace::Closed { until } => (now < until).then_some(now),
            Pace::Open { place, clients, per_second, until } => {
                // Computed from the start each time, so that rounding errors do not add up.
                let number = (place + self.started * clients) as f64;
                Some(Duration::from_secs_f64(number / per_second)).filter(|due| *due < until)
            }
        }
    }

    fn draw(&mut self) -> (Kind, usize) {
        match &mut self.work {
            Work::Mix { puts_percent } => {
                let is_put = self.rng.u8(0..100) < *puts_percent;
                let kind = if is_put { Kind::Put } else { Kind::Get };
                (kind, self.rng.usize(0..self.requests.keys()))
            }
            Work::Each { kind, next, step } => {
                let key = *next;
                *next += *step;
                (*kind, key)
            }
        }
    }

    /// Returns the event to wait for once all requests that are due have been started.
    pub(super) fn next(&self, now: Duration) -> Next {
        let has_place = self.under_way.len() < self.pipeline;
        match self.next_due(now) {
            Some(due) if has_place => Next::At(due),
            None if self.under_way.is_empty() => Next::Nothing,
            _ => Next::Reply,
        }
    }

    /// Accepts bytes that arrived by `now`.
    ///
    /// # Errors
    ///
    /// [`Unasked`] if the server sent a line although no request was waiting for a reply.
    pub(super) fn take(&mut self, bytes: &[u8], now: Duration, tally: &mut Tally) -> Result<(), Unasked> {
        let mut rest = bytes;
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let (line, after) = (&rest[..end], &rest[end + 1..]);
            rest = after;
            let Some((kind, since)) = self.under_way.pop_front() else {
                return Err(Unasked(String::from_utf8_lossy(line).into_owned()));
            };
            if self.partial.is_empty() {
                tally.answered(kind, since, now, line);
            } else {
                self.partial.extend_from_slice(line);
                tally.answered(kind, since, now, &self.partial);
                self.partial.clear();
            }
        }
        self.partial.extend_from_slice(rest);
        Ok(())
    }

    /// Counts as abandoned the requests without a reply and, in an open loop, those that were due
    /// before `now` and never sent.
    pub(super) fn abandon(&mut self, now: Duration, tally: &mut Tally) {
        for (kind, since) in self.under_way.drain(..) {
            tally.abandoned(kind, since);
        }
        let is_open = matches!(self.pace, Pace::Open { .. });
        while let Some(due) = self.next_due(now).filter(|due| is_open && *due < now) {
            let (kind, _) = self.draw();
            tally.abandoned(kind, due);
            self.started += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::tally::Window;

    fn millis(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    /// Simulates a server with virtual time: it answers requests in order, at the next millisecond,
    /// except from `stall.0` to `stall.1`. Steps the lane every millisecond for ten seconds.
    fn run(pace: Pace, pipeline: usize, stall: (Duration, Duration)) -> Tally {
        let requests = Requests::new(1, 8, false);
        let is_open_loop = matches!(pace, Pace::Open { .. });
        let window = Window { from: Duration::ZERO, until: millis(2_000), is_open_loop };
        let mut tally = Tally::new(window);
        let mut lane = Lane::new(&requests, Work::Mix { puts_percent: 100 }, pace, pipeline);
        let mut pending = 0;
        for now in (0..10_000).map(millis) {
            if now < stall.0 || now >= stall.1 {
                for _ in 0..std::mem::take(&mut pending) {
                    lane.take(b"{\"status\":\"ok\"}\n", now, &mut tally).unwrap();
                }
            }
            let mut out = Vec::new();
            lane.start_due(now, &mut out);
            pending += out.iter().filter(|byte| **byte == b'\n').count();
        }
        assert_eq!(lane.next(millis(10_000)), Next::Nothing);
        tally
    }

    const STALL: (Duration, Duration) = (Duration::from_millis(500), Duration::from_millis(1_500));

    /// The reason for the open loop: the server stalls for half of the time, so half of the
    /// requests are due during the stall and all of them show it.
    #[test]
    fn an_open_loop_counts_a_stall_for_every_request_that_was_due() {
        let pace = Pace::Open { place: 0, clients: 1, per_second: 100.0, until: millis(2_000) };
        let tally = run(pace, 1, STALL);
        let micros = &tally.puts().micros;
        assert_eq!((micros.len(), tally.puts().errors), (200, 0));
        let slow = micros.len() - micros.count_between(0, 20_000);
        // A hundred requests were due during the stall. Others were due while the backlog behind it
        // was worked off, and all of these except the last few are slow as well.
        assert!((95..=115).contains(&slow), "{slow}");
        assert!((990_000..=1_001_000).contains(&micros.max()), "{}", micros.max());
        let middle = micros.value_at_quantile(0.75);
        assert!((400_000..=600_000).contains(&middle), "{middle}");
    }

    /// The same stall in a closed loop delays a single request: a closed loop hides the stall.
    #[test]
    fn a_closed_loop_sees_one_slow_request() {
        let tally = run(Pace::Closed { until: millis(2_000) }, 1, STALL);
        let micros = &tally.puts().micros;
        assert_eq!(micros.len() - micros.count_between(0, 20_000), 1);
        assert!(micros.max() >= 1_000_000);
    }

    /// The latency of a request that waits for a place in the pipeline counts from when it was due.
    #[test]
    fn a_full_pipeline_does_not_hide_the_wait() {
        let requests = Requests::new(1, 8, false);
        let window = Window { from: Duration::ZERO, until: millis(100), is_open_loop: true };
        let mut tally = Tally::new(window);
        let pace = Pace::Open { place: 0, clients: 1, per_second: 1_000.0, until: millis(100) };
        let mut lane = Lane::new(&requests, Work::Mix { puts_percent: 0 }, pace, 2);
        let mut out = Vec::new();
        lane.start_due(millis(10), &mut out);
        assert_eq!(lane.next(millis(10)), Next::Reply);
        lane.take(b"{\"status\":\"ok\"}\n{\"stat", millis(40), &mut tally).unwrap();
        lane.start_due(millis(40), &mut out);
        lane.take(b"us\":\"ok\"}\n{\"status\":\"ok\"}\n", millis(50), &mut tally).unwrap();
        // Due at 0, 1 and 2 ms; the third one was sent only at 40 ms.
        assert_eq!(tally.gets().micros.len(), 3);
        assert!(tally.gets().micros.count_at(48_000) == 1 && tally.gets().micros.count_at(40_000) == 1);
        // Requests without a reply and requests that were never sent all count as errors.
        lane.abandon(millis(1_000), &mut tally);
        assert_eq!(tally.gets().errors, 97);
    }

    #[test]
    fn clients_of_an_open_loop_take_turns() {
        let requests = Requests::new(1, 8, false);
        let pace = |place| Pace::Open { place, clients: 4, per_second: 1_000.0, until: millis(100) };
        let lane = |place| Lane::new(&requests, Work::Mix { puts_percent: 0 }, pace(place), 1);
        let due: Vec<_> = (0..4).map(|place| lane(place).next(Duration::ZERO)).collect();
        assert_eq!(due, [0, 1, 2, 3].map(|at| Next::At(millis(at))));
        let mut first = lane(0);
        first.start_due(Duration::ZERO, &mut Vec::new());
        assert_eq!(first.next_due(Duration::ZERO), Some(millis(4)));
    }

    #[test]
    fn each_key_comes_once() {
        let requests = Requests::new(1, 8 << 20, false);
        assert_eq!(requests.keys(), 8);
        let work = Work::Each { kind: Kind::Delete, next: 1, step: 3 };
        let mut lane = Lane::new(&requests, work, Pace::Closed { until: Duration::MAX }, 100);
        let mut out = Vec::new();
        lane.start_due(Duration::ZERO, &mut out);
        assert_eq!(String::from_utf8(out).unwrap().lines().count(), 3);
        assert_eq!(lane.next(Duration::ZERO), Next::Reply);
    }

    #[test]
    fn a_line_without_a_request_is_an_error() {
        let requests = Requests::new(1, 8, false);
        let window = Window { from: Duration::ZERO, until: millis(1), is_open_loop: false };
        let pace = Pace::Closed { until: millis(1) };
        let mut lane = Lane::new(&requests, Work::Mix { puts_percent: 0 }, pace, 1);
        let said = lane.take(b"{\"close\":\"ok\"}\n", Duration::ZERO, &mut Tally::new(window));
        assert_eq!(said, Err(Unasked("{\"close\":\"ok\"}".into())));
    }
}
