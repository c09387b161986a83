//! One client: which request comes next and when it is due, and which request a reply belongs to.
//!
//! It knows no socket and no clock. Times are handed in, as those since the load began, so that the
//! accounting can be tested without waiting. The idea that matters is [`Pace::Open`]: a request is
//! due at a moment that does not depend on the server, and its time counts from then, also while it
//! waits for a place in the pipeline.

use std::collections::VecDeque;
use std::time::Duration;

use super::requests::{Kind, Requests};
use super::tally::Tally;

/// What a client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Work {
    /// Random keys, so many puts of a hundred requests.
    Mix { puts_percent: u8 },
    /// Each `step`th key once, from `next` on.
    Each { kind: Kind, next: usize, step: usize },
}

/// When a client asks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Pace {
    /// As soon as there is a place in the pipeline, before `until`.
    Closed { until: Duration },
    /// Every `clients / per_second` from its place among the clients on, before `until`.
    Open { place: usize, clients: usize, per_second: f64, until: Duration },
}

/// A client. See the module.
#[derive(Debug)]
pub(super) struct Lane<'a> {
    requests: &'a Requests,
    work: Work,
    pace: Pace,
    pipeline: usize,
    rng: fastrand::Rng,
    /// How many requests were started.
    started: usize,
    has_stopped: bool,
    /// Sent and not answered, in order.
    under_way: VecDeque<(Kind, Duration)>,
    /// The beginning of a reply.
    partial: Vec<u8>,
}

/// What the next request waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// A reply.
    Reply,
    /// This moment, or a reply.
    At(Duration),
    /// Nothing: there is none, and all are answered.
    Nothing,
}

/// A line that answers no request: a refusal or a farewell.
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

    /// Starts no more requests.
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

    /// When the next request is due; `None`: there is none.
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
                // Reckoned from the start each time, so that no rounding adds up.
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

    /// What there is to wait for, when all that is due was started.
    pub(super) fn next(&self, now: Duration) -> Next {
        let has_place = self.under_way.len() < self.pipeline;
        match self.next_due(now) {
            Some(due) if has_place => Next::At(due),
            None if self.under_way.is_empty() => Next::Nothing,
            _ => Next::Reply,
        }
    }

    /// Takes bytes that arrived by `now`.
    ///
    /// # Errors
    ///
    /// [`Unasked`]: the server says something that is no answer.
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

    /// Gives up what was not answered, and what was due before `now` and never sent.
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

    /// A server in a time of its own: answers each request after `service`, in order, but none from
    /// `stall.0` to `stall.1`. The lane is looked at every millisecond, for ten seconds.
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

    /// The reason why there is an open loop: half of the requests were due while the server stalled
    /// for half of the time.
    #[test]
    fn a_stall_is_felt_by_all_that_were_due_meanwhile() {
        let pace = Pace::Open { place: 0, clients: 1, per_second: 100.0, until: millis(2_000) };
        let tally = run(pace, 1, STALL);
        let micros = &tally.puts().micros;
        assert_eq!((micros.len(), tally.puts().errors), (200, 0));
        let slow = micros.len() - micros.count_between(0, 20_000);
        // A hundred that were due during the stall, and those that were due while the queue behind
        // it was worked off, but for the few that were due at the end of it.
        assert!((95..=115).contains(&slow), "{slow}");
        assert!((990_000..=1_001_000).contains(&micros.max()), "{}", micros.max());
        let middle = micros.value_at_quantile(0.75);
        assert!((400_000..=600_000).contains(&middle), "{middle}");
    }

    /// The same stall in a closed loop is one slow request: that is what a closed loop cannot tell.
    #[test]
    fn a_closed_loop_sees_one_slow_request() {
        let tally = run(Pace::Closed { until: millis(2_000) }, 1, STALL);
        let micros = &tally.puts().micros;
        assert_eq!(micros.len() - micros.count_between(0, 20_000), 1);
        assert!(micros.max() >= 1_000_000);
    }

    /// A request that waits for its place in the pipeline waits since it was due.
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
        // Due at 0, 1 and 2 ms, the third sent at 40 ms only.
        assert_eq!(tally.gets().micros.len(), 3);
        assert!(tally.gets().micros.count_at(48_000) == 1 && tally.gets().micros.count_at(40_000) == 1);
        // Never answered, or never sent: all that were due are errors.
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
    fn what_answers_nothing_is_an_error() {
        let requests = Requests::new(1, 8, false);
        let window = Window { from: Duration::ZERO, until: millis(1), is_open_loop: false };
        let pace = Pace::Closed { until: millis(1) };
        let mut lane = Lane::new(&requests, Work::Mix { puts_percent: 0 }, pace, 1);
        let said = lane.take(b"{\"close\":\"ok\"}\n", Duration::ZERO, &mut Tally::new(window));
        assert_eq!(said, Err(Unasked("{\"close\":\"ok\"}".into())));
    }
}
