//! The well-behaved client of a flood test: puts ever greater numbers to one key, reads each one
//! back, and measures the latency.
//!
//! It knows which values are possible: at least the last acknowledged number, and at most the last
//! one that it has sent. A smaller value is a lost write, and a greater one was never written. A
//! definite error is counted as an error, not as a loss.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::live::{Talk, until};

/// The pause after a put and a get, so that the client is not a flood itself.
const PAUSE: Duration = Duration::from_millis(3);
/// The pause before it connects again.
const REST: Duration = Duration::from_millis(50);

/// The client, with its knowledge of its key.
#[derive(Debug)]
pub(super) struct WellBehaved {
    address: SocketAddr,
    talk: Option<Talk>,
    acknowledged: u64,
    sent: u64,
    wrong: Vec<String>,
}

/// The measurements of one run.
#[derive(Clone, Debug, Default)]
pub(super) struct Figures {
    latencies_us: Vec<u64>,
    /// The number of replies with each error and message; `closed` when the connection has ended.
    errors: BTreeMap<String, u64>,
}

impl WellBehaved {
    pub(super) fn new(address: SocketAddr) -> Self {
        Self { address, talk: None, acknowledged: 0, sent: 0, wrong: Vec::new() }
    }

    /// Puts and gets until `end`, or until `is_over` is set.
    pub(super) fn run(&mut self, end: Instant, is_over: &AtomicBool) -> Figures {
        let mut figures = Figures::default();
        while Instant::now() < end && !is_over.load(Ordering::Relaxed) {
            self.put(&mut figures);
            self.get(&mut figures);
            thread::sleep(PAUSE);
        }
        figures.latencies_us.sort_unstable();
        figures
    }

    fn put(&mut self, figures: &mut Figures) {
        let number = self.sent + 1;
        self.sent = number;
        let put = format!(r#"{{"key":"well-behaved","value":{number}}}"#);
        if let Some(reply) = self.ask(&put, figures) {
            self.acknowledged = number;
            if reply["value"] != number {
                self.wrong.push(format!("{reply} in reply to {put}"));
            }
        }
    }

    fn get(&mut self, figures: &mut Figures) {
        let get = r#"{"op":"get","key":"well-behaved","consistency":"linearizable"}"#;
        if let Some(reply) = self.ask(get, figures) {
            let found = reply["value"].as_u64();
            if !found.is_some_and(|found| (self.acknowledged..=self.sent).contains(&found)) {
                let (least, most) = (self.acknowledged, self.sent);
                self.wrong.push(format!("{reply}, where {least} to {most} could be"));
            }
        }
    }

    /// Sends a request. Returns the reply, unless it is an error.
    fn ask(&mut self, line: &str, figures: &mut Figures) -> Option<Value> {
        let asked = Instant::now();
        let Ok(mut talk) = self.talk.take().map_or_else(|| Talk::try_open(self.address), Ok) else {
            return self.failed("not accepted", figures);
        };
        let reply = talk.try_send(format!("{line}\n").as_bytes()).and_then(|()| talk.try_hear());
        let Ok(reply) = reply else { return self.failed("closed", figures) };
        let took = u64::try_from(asked.elapsed().as_micros()).unwrap_or(u64::MAX);
        let Ok(reply) = serde_json::from_str::<Value>(&reply) else {
            self.wrong.push(format!("{reply}, which is no JSON, in reply to {line}"));
            return None;
        };
        self.talk = Some(talk);
        // A get before the first acknowledged put finds no value.
        if reply["status"] == "ok" || reply["error"] == "not_found" {
            figures.latencies_us.push(took);
            return Some(reply).filter(|reply| reply["status"] == "ok");
        }
        let text = |name: &str| reply[name].as_str().unwrap_or_default().to_owned();
        *figures.errors.entry(format!("{}: {}", text("error"), text("message"))).or_default() += 1;
        None
    }

    fn failed(&self, how: &str, figures: &mut Figures) -> Option<Value> {
        *figures.errors.entry(how.to_owned()).or_default() += 1;
        thread::sleep(REST);
        None
    }

    /// Checks that the client is served again after the flood, and finds a possible value.
    pub(super) fn check_what_is_left(&mut self) {
        until("the client is served after the flood", || {
            let mut figures = Figures::default();
            self.get(&mut figures);
            figures.served() > 0
        });
    }

    /// All wrong answers so far.
    pub(super) fn wrong(&self) -> Vec<String> {
        self.wrong.clone()
    }
}

impl Figures {
    /// The number of served requests.
    pub(super) fn served(&self) -> usize {
        self.latencies_us.len()
    }

    /// A percentile of the latencies, in microseconds; 0 without any.
    pub(super) fn percentile_us(&self, percent: usize) -> u64 {
        let last = self.latencies_us.len().saturating_sub(1);
        self.latencies_us.get(last * percent / 100).copied().unwrap_or_default()
    }

    pub(super) fn to_json(&self) -> Value {
        json!({
            "served": self.served(),
            "p50_us": self.percentile_us(50),
            "p99_us": self.percentile_us(99),
            "max_us": self.percentile_us(100),
            "errors": self.errors,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_the_requests() {
        let figures = Figures { latencies_us: (1..=101).collect(), ..Figures::default() };
        let of = [0, 50, 99, 100].map(|percent| figures.percentile_us(percent));
        assert_eq!(of, [1, 51, 100, 101]);
        assert_eq!(Figures::default().percentile_us(99), 0);
    }
}
