//! Exactly-once writes: a request is in the log at most as often as its client sent it, however
//! often the proxy retried it, and not at all when its client got an error that says it had no
//! effect. Of all entries that are the same write of a session, at most one changes a node's state
//! (S11).
//!
//! The second rule is checked on the nodes' maps: the key of an entry has the value that the
//! replayed log gives. In the replay, a retried write changes nothing.

use std::collections::HashMap;

use coracle_core::Replica;
use coracle_core::kv::{KeyMeta, Scan, Value};
use coracle_core::proxy::RequestError;
use coracle_core::raft::{LogIndex, NodeId};

use super::linearizability::Model;
use super::{ByNode, Verdict, require};
use crate::simulator::clients::{Operation, Returned};

/// How often each payload may still be committed.
#[derive(Debug, Default)]
pub(super) struct ExactlyOnce {
    open: HashMap<Box<str>, u32>,
    /// The index up to which each node's map was checked.
    looked_at: ByNode<LogIndex>,
}

impl ExactlyOnce {
    pub(super) fn asked(&mut self, payload: &str) {
        *self.open.entry(payload.into()).or_default() += 1;
    }

    pub(super) fn committed(&mut self, index: LogIndex, payload: &str) -> Verdict {
        // No client sends these payloads.
        if payload == NOOP || [CONFIG, LEVEL, TICK].iter().any(|start| payload.starts_with(start)) {
            return Ok(());
        }
        self.close(payload, || format!("{payload} is committed at {index}, more often than it was asked for"))
    }

    pub(super) fn returned(&mut self, operation: &Operation, returned: &Returned) -> Verdict {
        let nothing_happened = matches!(
            returned,
            Returned::Failed(
                RequestError::NoLeader
                    | RequestError::Busy
                    | RequestError::ShuttingDown
                    | RequestError::NotYet
            )
        );
        let Some(payload) = operation.payload.as_deref().filter(|_| nothing_happened) else { return Ok(()) };
        self.close(payload, || {
            format!("{payload} is committed, and its client is told that nothing happened")
        })
    }

    fn close(&mut self, payload: &str, what: impl FnOnce() -> String) -> Verdict {
        let left = self.open.get_mut(payload).filter(|left| **left > 0);
        require(left.is_some(), "exactly_once", what)?;
        if let Some(left) = left {
            *left -= 1;
        }
        Ok(())
    }

    pub(super) fn restarted(&mut self, node: NodeId) {
        self.looked_at.remove(&node);
    }

    /// Checks the map of a node after a turn, in which it applied only committed entries.
    pub(super) fn check_state(&mut self, replica: &Replica, model: &Model) -> Verdict {
        let id = replica.node().id();
        let applied = replica.status().last_applied;
        let looked_at = self.looked_at.insert(id, applied).unwrap_or(LogIndex::ORIGIN);
        if looked_at == applied {
            return Ok(());
        }
        for (index, key) in model.keys_between(looked_at, applied) {
            let held = (replica.store().value(key).map(Value::as_json), replica.store().meta(key));
            let expected = (model.value_at(key, applied), model.meta_at(key, applied));
            require(held == expected, "exactly_once", || {
                format!(
                    "node {id} has applied {applied}, {key} of {index} holds {held:?}, replay says {expected:?}"
                )
            })?;
        }
        Ok(())
    }
    /// Checks the whole map of a node at rest, including keys that no recent entry has touched.
    pub(super) fn check_at_rest(replica: &Replica, model: &Model) -> Verdict {
        let applied = replica.status().last_applied;
        let everything =
            Scan { wants_meta: true, items_max: usize::MAX, bytes_max: usize::MAX, ..Scan::default() };
        let held = replica.store().scan(&everything).items;
        let held = held.iter().map(|item| {
            let meta = KeyMeta { ttl: None, ..item.meta };
            (item.key.as_str(), item.value.as_ref().map(Value::as_json), meta)
        });
        let expected = model
            .map_at(applied)
            .map(|(key, value)| (key, Some(value), model.meta_at(key, applied).unwrap_or_default()));
        require(held.eq(expected), "exactly_once", || {
            format!(
                "node {} has applied {applied}, and its map is not what replay gives",
                replica.node().id()
            )
        })
    }
}

/// Marks a payload that no client has sent.
const NOOP: &str = "\"op\":\"NOOP\"";
const CONFIG: &str = "\"op\":\"CONFIG\",";
const LEVEL: &str = "\"op\":\"LEVEL\",";
const TICK: &str = "\"op\":\"TICK\",";
