//! Simulated network: loses, duplicates, delays and reorders messages, and cuts links in each
//! direction separately.

use std::collections::{BTreeMap, BTreeSet};

use coracle_core::raft::NodeId;

use super::dice::Dice;
use super::settings::SimSettings;

/// The links between nodes.
#[derive(Debug, Default)]
pub struct SimNetwork {
    cut: BTreeSet<(NodeId, NodeId)>,
    /// The extra delay of every message of a link, in microseconds.
    clogged: BTreeMap<(NodeId, NodeId), u64>,
    /// The arrival time of the last message of a link, where order is kept.
    last_arrival: BTreeMap<(NodeId, NodeId), u64>,
    /// Whether messages are no longer lost or duplicated.
    pub is_calm: bool,
}

/// The fate of a message: the arrival time of each copy.
pub type Arrivals = [Option<u64>; 2];

impl SimNetwork {
    /// Sends a message at `now`.
    pub fn send(
        &mut self,
        from: NodeId,
        to: NodeId,
        now: u64,
        dice: &mut Dice,
        settings: &SimSettings,
    ) -> Arrivals {
        let is_lost = !self.is_calm && dice.happens(settings.loss);
        if self.cut.contains(&(from, to)) || is_lost {
            return [None, None];
        }
        let first = self.arrival(from, to, now, dice, settings);
        let is_doubled = !self.is_calm && dice.happens(settings.duplication);
        let late = if settings.copies_are_late { 1_000_000 } else { settings.delay * 10 };
        let second = is_doubled.then(|| first + dice.exponential(late));
        [Some(first), second]
    }

    fn arrival(
        &mut self,
        from: NodeId,
        to: NodeId,
        now: u64,
        dice: &mut Dice,
        settings: &SimSettings,
    ) -> u64 {
        let part = dice.exponential(settings.delay / 2);
        // Without faults, no message takes so long that an election would be justified.
        let part = if self.is_calm { part.min(settings.delay * 2) } else { part };
        let way = settings.delay / 2 + part;
        let clog = self.clogged.get(&(from, to)).copied().unwrap_or(0);
        let arrival = now + way + clog;
        if !settings.is_fifo {
            return arrival;
        }
        let last = self.last_arrival.entry((from, to)).or_default();
        *last = arrival.max(*last + 1);
        *last
    }

    /// Returns whether messages of `from` reach `to`.
    #[must_use]
    pub fn is_open(&self, from: NodeId, to: NodeId) -> bool {
        !self.cut.contains(&(from, to))
    }

    /// Returns whether some of the links to `node` are cut.
    #[must_use]
    pub fn is_deaf(&self, node: NodeId) -> bool {
        self.cut.iter().any(|(_, to)| *to == node)
    }

    /// Cuts one direction of a link.
    pub fn cut(&mut self, from: NodeId, to: NodeId) {
        self.cut.insert((from, to));
    }

    /// Restores one direction of a link.
    pub fn mend(&mut self, from: NodeId, to: NodeId) {
        self.cut.remove(&(from, to));
    }

    /// Cuts exactly the links for which `is_cut` returns true.
    pub fn shape(&mut self, nodes: &[NodeId], mut is_cut: impl FnMut(NodeId, NodeId) -> bool) {
        self.cut.clear();
        for &from in nodes {
            for &to in nodes {
                if from != to && is_cut(from, to) {
                    self.cut.insert((from, to));
                }
            }
        }
    }

    /// Delays the messages of one direction by this time.
    pub fn clog(&mut self, from: NodeId, to: NodeId, micros: u64) {
        self.clogged.insert((from, to), micros);
    }

    /// Restores all links and removes all delays.
    pub fn heal(&mut self) {
        self.cut.clear();
        self.clogged.clear();
    }
}
