//! Linearizability: writes are linearizable, and a read returns the content of the map at the index
//! at which it was answered (S12).
//!
//! This is a witness check: every reply carries the index at which it was decided. The committed
//! log is replayed into a model. Each outcome must be the model's at that index, and no write may
//! have an index below one that was acknowledged before the write was sent. A retried write of a
//! session takes effect at the first of its entries, whichever of them was answered, and counts as
//! sent at its first attempt. The order of indexes is a linearization, so a success is a proof, no
//! matter how the order came about. Reads are eventual: they must be right for their index, which
//! must not be below the highest one that their client has seen. A linearizable read must also
//! reflect everything that any client had seen when it was sent.

use std::borrow::Cow;
use std::collections::BTreeMap;

use coracle_core::kv::{Outcome, Page, Scan, SessionLimits, Value};
use coracle_core::raft::LogIndex;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::session_table::{Judgement, SessionTable};
use super::{CommittedEntry, Verdict, require};
use crate::simulator::clients::{Operation, Returned};

/// A replay of the committed log by an independent implementation of the rules: a model that called
/// the store would share its bugs.
#[derive(Debug, Default)]
pub struct Model {
    outcomes: BTreeMap<LogIndex, Outcome>,
    /// The key of each entry.
    keys: BTreeMap<LogIndex, String>,
    sessions: SessionTable,
    /// The first index of each entry that is a retry of an earlier write.
    done_before: BTreeMap<LogIndex, LogIndex>,
    /// All values of each key, each with the index from which it is current.
    history: BTreeMap<String, Vec<(LogIndex, Option<Value>)>>,
}

/// The members of an entry that concern the map.
#[derive(Deserialize)]
struct Members<'a> {
    #[serde(borrow)]
    op: Cow<'a, str>,
    #[serde(borrow)]
    key: Option<Cow<'a, str>>,
    #[serde(borrow)]
    value: Option<&'a RawValue>,
    #[serde(borrow)]
    expect: Option<&'a RawValue>,
    #[serde(borrow)]
    client: Option<Cow<'a, str>>,
    seq: Option<u64>,
}

impl Model {
    /// Creates the model of an empty log.
    pub(super) fn new(session_limits: SessionLimits) -> Self {
        Self { sessions: SessionTable::new(session_limits), ..Self::default() }
    }

    /// Replays an entry.
    pub(super) fn apply(&mut self, index: LogIndex, payload: &str) {
        let object = ["{", payload, "}"].concat();
        let members: Members<'_> =
            serde_json::from_str(&object).expect("a payload is the members of an object");
        let Some(key) = members.key.as_deref() else { return };
        self.keys.insert(index, key.into());
        let session = members.client.as_deref().zip(members.seq);
        match session.map(|(client, seq)| self.sessions.judge(client, seq)) {
            None | Some(Judgement::New) => {}
            Some(Judgement::DoneAt(first)) => {
                self.outcomes.insert(index, self.outcomes[&first].clone());
                self.done_before.insert(index, first);
                return;
            }
            Some(Judgement::Expired) => {
                self.outcomes.insert(index, Outcome::SessionExpired);
                return;
            }
        }
        let value_of = |member: Option<&RawValue>| {
            member.map(|json| Value::from_json(json.get()).expect("a value that a client has sent"))
        };
        let actual = self.value_at(key, index).cloned();
        let (outcome, value) = match &*members.op {
            "PUT" => (Outcome::Done, value_of(members.value)),
            "DELETE" if actual.is_none() => (Outcome::NotFound, None),
            "DELETE" => (Outcome::Done, None),
            _ if actual == value_of(members.expect) => (Outcome::Done, value_of(members.value)),
            _ => (Outcome::Mismatch { actual: actual.clone() }, actual),
        };
        if let Some((client, seq)) = session {
            let value_bytes = match &outcome {
                Outcome::Mismatch { actual: Some(actual) } => actual.as_json().len(),
                _ => 0,
            };
            self.sessions.note(client, seq, index, value_bytes);
        }
        self.outcomes.insert(index, outcome);
        self.history.entry(key.into()).or_default().push((index, value));
    }

    /// The value of `key` after everything up to `index` was applied.
    pub(super) fn value_at(&self, key: &str, index: LogIndex) -> Option<&Value> {
        let versions = self.history.get(key)?;
        let later = versions.partition_point(|(from, _)| *from <= index);
        versions[..later].last()?.1.as_ref()
    }

    /// The whole map after everything up to `index` was applied.
    pub(super) fn map_at(&self, index: LogIndex) -> impl Iterator<Item = (&str, &Value)> {
        self.history.keys().filter_map(move |key| Some((key.as_str(), self.value_at(key, index)?)))
    }

    /// Returns the index at which the write at `index` took effect: that of its first attempt, if
    /// it is a retry.
    pub(super) fn effect_of(&self, index: LogIndex) -> LogIndex {
        self.done_before.get(&index).copied().unwrap_or(index)
    }

    /// Returns whether the entry at `index` is a retry of an earlier write.
    #[must_use]
    pub fn is_retry(&self, index: LogIndex) -> bool {
        self.done_before.contains_key(&index)
    }

    /// The entries after `from` up to `to`, with their keys.
    pub(super) fn keys_between(
        &self,
        from: LogIndex,
        to: LogIndex,
    ) -> impl Iterator<Item = (LogIndex, &str)> {
        let after = from.next();
        self.keys
            .range(after..=to.max(after))
            .filter(move |(index, _)| **index <= to)
            .map(|(index, key)| (*index, key.as_str()))
    }

    pub(super) fn check(
        &self,
        operation: &Operation,
        returned: &Returned,
        committed: &[CommittedEntry],
    ) -> Verdict {
        match returned {
            Returned::Applied { index, outcome } => {
                require(self.outcomes.get(index) == Some(outcome), "linearizability", || {
                    format!(
                        "{operation:?} was answered {outcome:?}, replay says {:?}",
                        self.outcomes.get(index)
                    )
                })?;
                let effect = self.effect_of(*index);
                require(effect > operation.acknowledged_before, "linearizability", || {
                    format!(
                        "{operation:?} took effect at {effect}, before what was acknowledged when it was asked"
                    )
                })
            }
            Returned::Value { index, value } => {
                self.check_read(operation, *index, committed)?;
                let expected = self.value_at(&operation.key, *index);
                require(value.as_ref() == expected, "linearizability", || {
                    format!("{operation:?} at {index} found {value:?}, the log says {expected:?}")
                })
            }
            Returned::Page { index, page } => {
                self.check_read(operation, *index, committed)?;
                let is_right = operation.scan.as_ref().is_some_and(|scan| self.is_page(scan, *index, page));
                require(is_right, "linearizability", || {
                    let held: Vec<_> = self.map_at(*index).map(|(key, _)| key).collect();
                    format!("{operation:?} at {index} found {page:?}, the log says {held:?}")
                })
            }
            Returned::Failed(_) => Ok(()),
        }
    }

    /// Returns whether this is the page for `scan` after everything up to `index` was applied. Only
    /// the limit of items is considered, because a run has too few keys for the limit of bytes.
    fn is_page(&self, scan: &Scan, index: LogIndex, page: &Page) -> bool {
        let is_wanted = |key: &str| {
            key.starts_with(&scan.prefix) && scan.after.as_deref().is_none_or(|after| key > after)
        };
        let mut expected = self.map_at(index).filter(|(key, _)| is_wanted(key));
        let found = page.items.iter().map(|(key, value)| (key.as_str(), value));
        expected.by_ref().take(scan.items_max).eq(found) && expected.next().is_some() == page.more
    }

    fn check_read(&self, operation: &Operation, index: LogIndex, committed: &[CommittedEntry]) -> Verdict {
        require(index.0 <= committed.len() as u64, "linearizability", || {
            format!("a read at {index}, beyond what is committed")
        })?;
        let must_know = if operation.is_linearizable { operation.known_before } else { LogIndex::ORIGIN };
        require(index >= must_know, "read_index", || {
            format!("{operation:?} at {index}, and {must_know} was known when it was asked")
        })?;
        require(index >= operation.seen_before, "linearizability", || {
            format!("{operation:?} at {index}: its client has seen {} before", operation.seen_before)
        })
    }
}
