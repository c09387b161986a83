//! One measurement: stores the keys, runs the load, and deletes the keys even if the load failed.

use std::net::SocketAddr;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::{Duration, Instant};

use crate::address::Address;
use crate::caller::Caller;
use crate::commands::CommandError;
use crate::reply::NodeStatus;
use crate::request::{Effect, Request};
use crate::tls::Trust;

use super::lane::{Lane, Pace, Work};
use super::load::{self, GivesUp, Plan};
use super::options::LoadOptions;
use super::progress::Progress;
use super::requests::{Kind, Requests};
use super::tally::{Tally, Window};
use super::{BenchError, tell};

/// Limits for storing and deleting the keys: the number of connections, and the requests and bytes
/// in flight on all of them together. Chosen so that a server can group many writes into one disk
/// write, and is far from rejecting any.
const CHORE_CLIENTS: usize = 8;
const CHORE_REQUESTS: usize = 1024;
const CHORE_BYTES: usize = 4 << 20;

/// How long the followers may take to apply the keys, and the interval at which they are polled.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(5);
const SETTLE_EVERY: Duration = Duration::from_millis(20);

/// The timeout of a `status` request.
const STATUS_TIMEOUT: Duration = Duration::from_secs(10);

/// A load and the server that it measures.
#[derive(Debug)]
pub(super) struct Measurement<'a> {
    /// At least one.
    pub(super) addresses: &'a [SocketAddr],
    pub(super) trust: &'a Trust,
    pub(super) load: &'a LoadOptions,
    pub(super) is_interrupted: &'a AtomicBool,
    pub(super) progress: &'a mut Progress,
}

/// The result of a measurement.
#[derive(Debug)]
pub(super) struct Measured {
    pub(super) nodes: usize,
    pub(super) tally: Tally,
}

impl Measurement<'_> {
    /// Runs the measurement. If `is_cleaned` is false, the keys are left behind, because a server
    /// that is about to stop needs no cleanup.
    pub(super) fn run(&mut self, is_cleaned: bool) -> Result<Measured, BenchError> {
        let LoadOptions { value_bytes, linearizable, .. } = *self.load;
        let requests = Requests::new(fastrand::u32(..), value_bytes, linearizable);
        let measured = self.measure(&requests);
        if !is_cleaned {
            return measured;
        }
        let cleaned = self.clean(&requests);
        match (measured, cleaned) {
            (Ok(measured), cleaned) => cleaned.map(|()| measured),
            (Err(error), Ok(())) => Err(error),
            (Err(error), Err(left)) => {
                self.progress.clear();
                tell(&left.to_string());
                Err(error)
            }
        }
    }

    fn measure(&mut self, requests: &Requests) -> Result<Measured, BenchError> {
        self.progress.show("storing the keys");
        let stored = self.chore(requests, Kind::Put, self.is_interrupted)?;
        if stored.answers() < requests.keys() as u64 || stored.first_error().is_some() {
            let reply = stored.first_error().unwrap_or("no reply");
            return Err(BenchError::Store { reply: reply.to_owned() });
        }
        let nodes = self.settle()?;
        let tally = self.load(requests)?;
        Ok(Measured { nodes, tally })
    }

    fn load(&mut self, requests: &Requests) -> Result<Tally, BenchError> {
        let LoadOptions { clients, pipeline, puts_percent, rate_per_second, warmup, duration, .. } =
            *self.load;
        let until = warmup + duration;
        let window = Window { from: warmup, until, is_open_loop: rate_per_second.is_some() };
        let pace = |place| match rate_per_second {
            None => Pace::Closed { until },
            Some(per_second) => Pace::Open { place, clients, per_second, until },
        };
        let work = Work::Mix { puts_percent };
        let lanes = (0..clients).map(|place| Lane::new(requests, work, pace(place), pipeline)).collect();
        let plan =
            Plan { addresses: self.addresses, trust: self.trust, window, gives_up: GivesUp::AfterWindow };
        let progress = &mut *self.progress;
        let mut watch = |operations, now: Duration| progress.measure(operations, now, warmup, duration);
        Ok(load::run(plan, lanes, self.is_interrupted, &mut watch)?)
    }

    /// Sends the same request once for every key.
    fn chore(
        &self,
        requests: &Requests,
        kind: Kind,
        is_interrupted: &AtomicBool,
    ) -> Result<Tally, BenchError> {
        let window = Window { from: Duration::ZERO, until: Duration::ZERO, is_open_loop: false };
        let under_way = CHORE_REQUESTS.min(CHORE_BYTES / requests.bytes_max());
        let pipeline = (under_way / CHORE_CLIENTS).max(1);
        let pace = Pace::Closed { until: Duration::MAX };
        let lane = |next| Lane::new(requests, Work::Each { kind, next, step: CHORE_CLIENTS }, pace, pipeline);
        let plan =
            Plan { addresses: self.addresses, trust: self.trust, window, gives_up: GivesUp::AfterLastAnswer };
        let lanes = (0..CHORE_CLIENTS).map(lane).collect();
        Ok(load::run(plan, lanes, is_interrupted, &mut |_, _| ())?)
    }

    /// Deletes the keys, also after an interrupt; only a second interrupt ends the program earlier.
    fn clean(&mut self, requests: &Requests) -> Result<(), BenchError> {
        self.progress.show("deleting the keys");
        let left = |reply: &str| BenchError::Left { prefix: requests.prefix().into(), reply: reply.into() };
        let deleted = self.chore(requests, Kind::Delete, &AtomicBool::new(false));
        let deleted = deleted.map_err(|error| left(&error.to_string()))?;
        // A key that was never stored is reported as not found. Any other error leaves a key
        // behind.
        let is_harmless = |reply: &str| reply.contains("\"error\":\"not_found\"");
        match deleted.first_error() {
            Some(reply) if !is_harmless(reply) => Err(left(reply)),
            _ if deleted.answers() < requests.keys() as u64 => Err(left("no reply")),
            _ => Ok(()),
        }
    }

    /// Waits until all nodes have applied the keys, so that reads from followers find them. Returns
    /// the number of nodes.
    fn settle(&self) -> Result<usize, BenchError> {
        let address = |address: &SocketAddr| address.to_string().parse::<Address>();
        let addresses = self.addresses.iter().filter_map(|at| address(at).ok()).collect();
        let mut caller = Caller::new(addresses, STATUS_TIMEOUT, self.trust.clone());
        let begin = Instant::now();
        loop {
            let reply = caller.call(Request::Status).map_err(CommandError::Call)?;
            if let Some(refusal) = reply.refusal(Effect::Reads) {
                return Err(CommandError::Refused(refusal).into());
            }
            let nodes = reply.nodes.ok_or(CommandError::ReplyIncomplete)?;
            if have_settled(&nodes) || begin.elapsed() > SETTLE_TIMEOUT {
                return Ok(nodes.len());
            }
            thread::sleep(SETTLE_EVERY);
        }
    }
}

/// Returns whether every node that reports has applied everything that any node knows to be
/// committed.
fn have_settled(nodes: &[NodeStatus]) -> bool {
    // An unreachable node reports no numbers.
    let numbers =
        |of: fn(&NodeStatus) -> &str| nodes.iter().filter_map(move |node| of(node).parse::<u64>().ok());
    let committed = numbers(|node| node.commit_index.get()).max();
    let applied = numbers(|node| node.last_applied.get()).min();
    applied >= committed
}
