//! A network that loses, doubles, delays and reorders, and whose links are cut by direction.

use std::collections::{BTreeMap, BTreeSet};

use coracle_core::raft::NodeId;

use super::dice::Dice;
use super::settings::SimSettings;

/// The links between nodes.
#[derive(Debug, Default)]
pub struct SimNetwork {
    cut: BTreeSet<(NodeId, NodeId)>,
    /// Added to every message's way, by link, in microseconds.
    clogged: BTreeMap<(NodeId, NodeId), u64>,
    /// When the last message of a link arrives, where order is kept.
    last_arrival: BTreeMap<(NodeId, NodeId), u64>,
    /// Neither loss nor doubling any more.
    pub is_calm: bool,
}

/// What becomes of a message: when each copy of it arrives.
pub type Arrivals = [Option<u64>; 2];

impl SimNetwork {
    /// A message is sent at `now`.
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
        // Without trouble nothing takes so long that an election would be right.
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

    /// Whether `to` hears `from`.
    #[must_use]
    pub fn is_open(&self, from: NodeId, to: NodeId) -> bool {
        !self.cut.contains(&(from, to))
    }

    /// Whether some of what is sent to `node` does not arrive.
    #[must_use]
    pub fn is_deaf(&self, node: NodeId) -> bool {
        self.cut.iter().any(|(_, to)| *to == node)
    }

    /// Cuts one direction of a link.
    pub fn cut(&mut self, from: NodeId, to: NodeId) {
        self.cut.insert((from, to));
    }

    /// Mends one direction of a link.
    pub fn mend(&mut self, from: NodeId, to: NodeId) {
        self.cut.remove(&(from, to));
    }

    /// Cuts all links for which `is_cut` says so, and no others.
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

    /// Messages of one direction take so much longer.
    pub fn clog(&mut self, from: NodeId, to: NodeId, micros: u64) {
        self.clogged.insert((from, to), micros);
    }

    /// Everything is open and quick again.
    pub fn heal(&mut self) {
        self.cut.clear();
        self.clogged.clear();
    }
}
