//! Order of requests on one connection: those that touch the same key take effect in their order.
//!
//! The protocol promises this (docs/protocol.md, "Order and pipelining"), so that a client may
//! pipeline requests. If two such requests include a write, the later one takes effect after the
//! earlier one: a later read sees the write, and an earlier read does not. A scan and a delete by
//! prefix touch all keys.
//! Nothing is promised about a request without a known outcome. A retried write is only promised to
//! take effect once.

use std::collections::{BTreeMap, VecDeque};

use coracle_core::kv::Outcome;
use coracle_core::raft::LogIndex;

use super::linearizability::Model;
use super::{Verdict, require};
use crate::simulator::clients::{Operation, Returned};

/// The number of requests remembered per connection: several times as many as are ever in flight.
const REMEMBERED: usize = 64;

/// The effects of the latest requests of each connection.
#[derive(Debug, Default)]
pub(super) struct ConnectionOrder {
    connections: BTreeMap<u64, VecDeque<Effect>>,
}

#[derive(Clone, Debug)]
struct Effect {
    slot: u64,
    /// The keys, each with whether it is written; `None` for all keys.
    keys: Option<Vec<(String, bool)>>,
    is_write: bool,
    at: LogIndex,
}

impl Effect {
    fn excludes(&self, other: &Self) -> bool {
        let (Some(keys), Some(others)) = (&self.keys, &other.keys) else {
            return self.is_write || other.is_write;
        };
        let excludes = |(key, writes): &(String, bool)| {
            others.iter().any(|(other, other_writes)| key == other && (*writes || *other_writes))
        };
        keys.iter().any(excludes)
    }

    /// Returns whether this took effect before `later`, which was sent after it.
    fn is_before(&self, later: &Self) -> bool {
        if later.is_write { self.at < later.at } else { self.at <= later.at }
    }
}

impl ConnectionOrder {
    /// Checks a request that has an outcome against the others of its connection.
    pub(super) fn check(&mut self, operation: &Operation, returned: &Returned, model: &Model) -> Verdict {
        let at = match returned {
            Returned::Failed(_)
            | Returned::Applied { outcome: Outcome::SessionExpired | Outcome::TooManySessions, .. } => {
                return Ok(());
            }
            Returned::Applied { index, .. } => model.effect_of(*index),
            Returned::Value { index, .. }
            | Returned::Entry { index, .. }
            | Returned::Page { index, .. }
            | Returned::Count { index, .. } => *index,
        };
        if operation.may_have_happened {
            return Ok(());
        }
        let (slot, is_write) = (operation.ticket.slot, operation.payload.is_some());
        let this = Effect { slot, keys: operation.keys.clone(), is_write, at };
        let others = self.connections.entry(operation.ticket.connection).or_default();
        for other in others.iter().filter(|other| other.excludes(&this)) {
            let (first, second) = if other.slot < this.slot { (other, &this) } else { (&this, other) };
            require(first.is_before(second), "connection_order", || {
                format!("of one connection, {second:?} took effect before {first:?}")
            })?;
        }
        others.push_back(this);
        if others.len() > REMEMBERED {
            others.pop_front();
        }
        Ok(())
    }
}
