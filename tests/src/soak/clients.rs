//! Clients of the soak test, which check their reads against their own writes.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::live::{Broken, Talk};

/// The number of keys of each client.
const KEYS: u64 = 500;
/// The number of requests per connection.
const REQUESTS: u64 = 400;
/// The pause between two requests.
const PAUSE: Duration = Duration::from_millis(10);
/// The errors that say that a request had no effect.
const DEFINITE: [&str; 3] = ["no_leader", "busy", "shutting_down"];

/// The counts of requests by outcome.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Count {
    pub(super) writes: u64,
    pub(super) reads: u64,
    pub(super) refused: u64,
    pub(super) unknown: u64,
    pub(super) connections: u64,
}

impl Count {
    pub(super) fn add(&mut self, other: &Self) {
        self.writes += other.writes;
        self.reads += other.reads;
        self.refused += other.refused;
        self.unknown += other.unknown;
        self.connections += other.connections;
    }
}

/// A client whose keys no other client writes.
#[derive(Debug)]
pub(super) struct Client {
    number: usize,
    addresses: Vec<SocketAddr>,
    /// For each key, the numbers that may be its value, the acknowledged one first. A write without
    /// an answer adds one permanently, because it may take effect after later ones.
    possible: Vec<Vec<u64>>,
    last: u64,
    count: Count,
    violations: Vec<String>,
}

impl Client {
    pub(super) fn new(number: usize, addresses: Vec<SocketAddr>) -> Self {
        let possible = vec![vec![0]; usize::try_from(KEYS).expect("they are few")];
        Self { number, addresses, possible, last: 0, count: Count::default(), violations: Vec::new() }
    }

    /// Sends requests until the end.
    pub(super) fn run(mut self, is_over: &AtomicBool) -> (Count, Vec<String>) {
        while !is_over.load(Ordering::Relaxed) {
            let at = self.number + usize::try_from(self.count.connections).unwrap_or_default();
            self.count.connections += 1;
            let Ok(mut talk) = Talk::try_open(self.addresses[at % self.addresses.len()]) else {
                thread::sleep(PAUSE);
                continue;
            };
            for _ in 0..REQUESTS {
                if is_over.load(Ordering::Relaxed) || self.ask(&mut talk).is_err() {
                    break;
                }
                thread::sleep(PAUSE);
            }
            // Some clients disconnect in the middle of a line.
            _ = talk.try_send(br#"{"key":"#);
        }
        (self.count, self.violations)
    }

    fn ask(&mut self, talk: &mut Talk) -> Result<(), Broken> {
        self.last += 1;
        let key = self.last * 7 % KEYS;
        match self.last % 10 {
            0 => self.read_back(talk, key),
            5 => {
                let scan = format!(r#"{{"op":"scan","prefix":"w{}-","limit":100}}"#, self.number);
                self.count.reads += 1;
                exchange(talk, &scan).map(drop)
            }
            _ => self.write(talk, key),
        }
    }

    fn write(&mut self, talk: &mut Talk, key: u64) -> Result<(), Broken> {
        let (client, number) = (self.number, self.last);
        let padding = "x".repeat(usize::try_from(number * 37 % 3_000).unwrap_or_default());
        let mut line = json!({ "key": format!("w{client}-{key}"), "value": [number, padding] });
        if number.is_multiple_of(2) {
            line["op"] = "put".into();
            line["session"] = json!({ "client": format!("soak-{client}"), "seq": number });
        }
        let possible = &mut self.possible[usize::try_from(key).expect("keys are few")];
        let reply = exchange(talk, &line.to_string());
        let error = reply.as_ref().ok().and_then(|reply| reply["error"].as_str());
        match &reply {
            Ok(reply) if reply["status"] == "ok" => {
                self.count.writes += 1;
                possible[0] = number;
            }
            _ if error.is_some_and(|error| DEFINITE.contains(&error)) => self.count.refused += 1,
            _ => {
                self.count.unknown += 1;
                possible.push(number);
            }
        }
        reply.map(drop)
    }

    fn read_back(&mut self, talk: &mut Talk, key: u64) -> Result<(), Broken> {
        let name = format!("w{}-{key}", self.number);
        let line = json!({ "op": "get", "key": name, "consistency": "linearizable" });
        let reply = exchange(talk, &line.to_string())?;
        self.count.reads += 1;
        let found = match reply["error"].as_str() {
            Some("not_found") => 0,
            Some(_) => return Ok(()),
            None => reply["value"][0].as_u64().unwrap_or_default(),
        };
        let possible = &mut self.possible[usize::try_from(key).expect("keys are few")];
        if possible.contains(&found) {
            possible[0] = found;
        } else {
            self.violations.push(format!("{name} is {found}, and may be {possible:?}"));
        }
        Ok(())
    }
}

fn exchange(talk: &mut Talk, line: &str) -> Result<Value, Broken> {
    talk.try_send(format!("{line}\n").as_bytes())?;
    let reply = talk.try_hear()?;
    Ok(serde_json::from_str(&reply).expect("a reply is JSON"))
}
