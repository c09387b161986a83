//! Network of a scenario: links that are cut in one direction, intercepted messages, and weather.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::Duration;

use coracle_core::Instant;
use coracle_core::raft::{Message, NodeId};

/// Conditions of network and disks. By default they are calm: no message is lost, and nothing takes
/// time.
#[derive(Clone, Debug)]
pub struct Weather {
    /// The number of lost messages per thousand.
    pub lost_per_mille: u32,
    /// The number of duplicated messages per thousand.
    pub doubled_per_mille: u32,
    /// The latency of a message, in microseconds. Each message draws its own value, so messages can
    /// overtake one another.
    pub latency_us: Range<u64>,
    /// The duration of a disk's write, in microseconds.
    pub disk_us: Range<u64>,
    /// The time in microseconds within which messages that arrive at one node are handed to it in
    /// one turn.
    pub turn_us: u64,
}

impl Default for Weather {
    fn default() -> Self {
        Self { lost_per_mille: 0, doubled_per_mille: 0, latency_us: 0..1, disk_us: 0..1, turn_us: 0 }
    }
}

#[derive(Debug)]
pub(super) struct Network {
    pub(super) weather: Weather,
    rng: fastrand::Rng,
    mail: BTreeMap<(Instant, u64), Message>,
    posted: u64,
    cut: BTreeSet<(NodeId, NodeId)>,
    intercepted: BTreeSet<(NodeId, NodeId)>,
    kept_back: Vec<Message>,
}

impl Network {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            weather: Weather::default(),
            rng: fastrand::Rng::with_seed(seed),
            mail: BTreeMap::new(),
            posted: 0,
            cut: BTreeSet::new(),
            intercepted: BTreeSet::new(),
            kept_back: Vec::new(),
        }
    }

    /// Sends `message`.
    pub(super) fn post(&mut self, message: Message, now: Instant) {
        let link = (message.from, message.to);
        if self.cut.contains(&link) || self.rng.u32(0..1000) < self.weather.lost_per_mille {
            return;
        }
        if self.intercepted.contains(&link) {
            return self.kept_back.push(message);
        }
        if self.rng.u32(0..1000) < self.weather.doubled_per_mille {
            self.carry(message.clone(), now);
        }
        self.carry(message, now);
    }

    fn carry(&mut self, message: Message, now: Instant) {
        let latency = Duration::from_micros(self.rng.u64(self.weather.latency_us.clone()));
        self.posted += 1;
        self.mail.insert((now + latency, self.posted), message);
    }

    pub(super) fn next_due(&self) -> Option<Instant> {
        self.mail.first_key_value().map(|((due, _), _)| *due)
    }

    /// Removes the next message and those to the same node that share its turn. Messages that were
    /// in flight when their link was cut are lost.
    pub(super) fn arrive(&mut self) -> Vec<Message> {
        let Some(((due, _), first)) = self.mail.pop_first() else { return Vec::new() };
        let mut batch = vec![first];
        if self.weather.turn_us > 0 {
            let end = due + Duration::from_micros(self.weather.turn_us);
            let to = batch[0].to;
            let goes_along = |&(at, _): &(Instant, u64), message: &mut Message| at <= end && message.to == to;
            batch.extend(self.mail.extract_if(.., goes_along).map(|(_, message)| message));
        }
        batch.retain(|message| !self.cut.contains(&(message.from, message.to)));
        batch
    }

    pub(super) fn disk_time(&mut self) -> Duration {
        Duration::from_micros(self.rng.u64(self.weather.disk_us.clone()))
    }

    pub(super) fn cut(&mut self, from: NodeId, to: NodeId) {
        self.cut.insert((from, to));
    }

    pub(super) fn mend(&mut self, from: NodeId, to: NodeId) {
        self.cut.remove(&(from, to));
    }

    pub(super) fn intercept(&mut self, from: NodeId, to: NodeId) {
        self.intercepted.insert((from, to));
    }

    pub(super) fn intercepted(&mut self) -> Vec<Message> {
        std::mem::take(&mut self.kept_back)
    }

    pub(super) fn heal(&mut self) {
        self.cut.clear();
        self.intercepted.clear();
        self.weather = Weather::default();
    }
}
