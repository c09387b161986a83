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

use std::collections::{BTreeMap, BTreeSet};

use coracle_core::kv::{
    Item, KeyMeta, Outcome, Page, Revision, Scan, ScanContent, SessionLimits, Ttl, TxnResult, Value,
};
use coracle_core::raft::LogIndex;

use super::session_table::{Judgement, SessionTable};
use super::{CommittedEntry, Verdict, require};
use crate::reference::{Content, EntryText, ReferenceMap, Touched};
use crate::simulator::clients::{Operation, Returned};

/// A replay of the committed log by an independent implementation of the rules: a model that called
/// the store would share its bugs.
#[derive(Debug, Default)]
pub struct Model {
    map: ReferenceMap,
    /// The entry that raised the level, from which revisions are counted.
    raised_at: Option<LogIndex>,
    outcomes: BTreeMap<LogIndex, (Outcome, KeyMeta)>,
    /// The keys that each entry may have changed.
    keys: BTreeMap<LogIndex, Vec<String>>,
    sessions: SessionTable,
    /// The first index of each entry that is a retry of an earlier write.
    done_before: BTreeMap<LogIndex, LogIndex>,
    /// The entries by which keys expire.
    ticks: BTreeSet<LogIndex>,
    /// The log time of the last one, in microseconds.
    log_time: u64,
    /// All contents of each key, each with the index from which it is current.
    history: BTreeMap<String, Vec<(LogIndex, Option<Content>)>>,
}

impl Model {
    /// Creates the model of an empty log.
    pub(super) fn new(session_limits: SessionLimits) -> Self {
        Self { sessions: SessionTable::new(session_limits), ..Self::default() }
    }

    /// Returns whether the client's outcomes, or its fingerprint, are remembered.
    pub(super) fn knows_client(&self, name: &str) -> bool {
        self.remembers_client(name) || self.sessions.has_forgotten(name)
    }

    /// Returns whether the client's outcomes are remembered.
    pub(super) fn remembers_client(&self, name: &str) -> bool {
        self.sessions.remembers(name)
    }

    /// Replays an entry.
    pub(super) fn apply(&mut self, index: LogIndex, payload: &str) -> Verdict {
        let object = ["{", payload, "}"].concat();
        let entry = EntryText::parse(&object);
        match &*entry.op {
            "LEVEL" if self.raised_at.is_none() => {
                self.raised_at = Some(index);
                self.sessions.count_time();
                self.map.count_revisions_from(index.0);
            }
            "PUT" | "DELETE" | "CAS" | "INCR" | "DELETE_PREFIX" | "TXN" | "TOUCH" | "PERSIST" | "TICK" => {
                let is_basic = matches!(&*entry.op, "PUT" | "DELETE" | "CAS")
                    && entry.rev.is_none()
                    && entry.ttl_ms.is_none();
                require(is_basic || self.raised_at.is_some(), "levels", || {
                    format!("{payload} is committed at {index}, before the level was raised")
                })?;
                if entry.op == "TICK" {
                    self.ticks.insert(index);
                    self.log_time = self.log_time.max(entry.time_us.unwrap_or_default());
                    self.sessions.tick(index, self.log_time, entry.applied.unwrap_or_default());
                }
                self.apply_write(index, &entry);
            }
            _ => {}
        }
        Ok(())
    }

    fn apply_write(&mut self, index: LogIndex, entry: &EntryText<'_>) {
        let touched = match entry.touches() {
            Touched::Keys(keys) => keys,
            Touched::Prefix(prefix) => self.map.with_prefix(&prefix).map(|(key, _)| key.clone()).collect(),
        };
        self.keys.insert(index, touched.clone());
        let session = entry.client.as_deref().zip(entry.seq);
        match session.map(|(client, seq)| self.sessions.judge(client, seq)) {
            None | Some(Judgement::New) => {}
            Some(Judgement::DoneAt(first)) => {
                let (outcome, meta) = self.outcomes[&first].clone();
                self.outcomes.insert(index, (outcome.clone(), self.meta_of_retry(&outcome, meta)));
                self.done_before.insert(index, first);
                return;
            }
            Some(Judgement::Expired) => {
                self.outcomes.insert(index, (Outcome::SessionExpired, KeyMeta::default()));
                return;
            }
            Some(Judgement::TooMany) => {
                self.outcomes.insert(index, (Outcome::TooManySessions, KeyMeta::default()));
                return;
            }
        }
        let before: Vec<_> = touched.iter().map(|key| self.map.content(key).cloned()).collect();
        let outcome = self.map.execute(entry, Some(index.0), None);
        for (key, before) in touched.into_iter().zip(&before) {
            let after = self.map.content(&key).cloned();
            if after != *before {
                self.history.entry(key).or_default().push((index, after));
            }
        }
        if let Some((client, seq)) = session {
            self.sessions.note(client, seq, index, value_bytes(&outcome));
        }
        let meta = self.meta_after(index, entry, &outcome, before.first().cloned().flatten());
        self.outcomes.insert(index, (outcome, meta));
    }

    /// The revisions that the answer to a write states. `before` is the content of its key before.
    fn meta_after(
        &self,
        index: LogIndex,
        entry: &EntryText<'_>,
        outcome: &Outcome,
        before: Option<Content>,
    ) -> KeyMeta {
        let of_key = || entry.key.as_deref().and_then(|key| self.map.content(key));
        let rev = Revision(index.0);
        match outcome {
            _ if self.raised_at.is_none() => KeyMeta::default(),
            Outcome::Txn(_) => KeyMeta::of(rev, Revision::NONE),
            Outcome::Done if entry.op == "DELETE" => {
                KeyMeta::of(rev, before.map_or(Revision::NONE, |content| self.counted(&content).created))
            }
            Outcome::Done | Outcome::Sum(_) | Outcome::Mismatch { .. } => {
                of_key().map_or_else(KeyMeta::default, |content| self.counted(content))
            }
            _ => KeyMeta::default(),
        }
    }

    /// The revisions that the answer to a retry states: those of the first attempt. If that was
    /// before the level was raised, the entry that raised it stands for them.
    fn meta_of_retry(&self, outcome: &Outcome, meta: KeyMeta) -> KeyMeta {
        let has_key = matches!(outcome, Outcome::Done | Outcome::Mismatch { actual: Some(_) });
        match self.raised_at {
            Some(raised_at) if has_key && meta == KeyMeta::default() => {
                KeyMeta::of(Revision(raised_at.0), Revision(raised_at.0))
            }
            _ => meta,
        }
    }

    /// The revisions of a key, as they are counted once the level is raised.
    fn counted(&self, content: &Content) -> KeyMeta {
        let first = self.raised_at.map_or(0, |index| index.0);
        let count = |revision: Option<u64>| Revision(revision.unwrap_or_default().max(first));
        KeyMeta::of(count(content.rev), count(content.created))
    }

    fn content_at(&self, key: &str, index: LogIndex) -> Option<&Content> {
        let versions = self.history.get(key)?;
        let later = versions.partition_point(|(from, _)| *from <= index);
        versions[..later].last()?.1.as_ref()
    }

    /// The value of `key` after everything up to `index` was applied, as JSON text.
    pub(super) fn value_at(&self, key: &str, index: LogIndex) -> Option<&str> {
        self.content_at(key, index).map(|content| content.value.as_str())
    }

    /// The value that the entry at `index` gave to `key`, or that it removed the key; the outer
    /// `None`: it did not change the key.
    #[expect(clippy::option_option, reason = "the outer one says whether the key was changed")]
    pub(super) fn change_at(&self, key: &str, index: LogIndex) -> Option<Option<&str>> {
        let versions = self.history.get(key)?;
        let at = versions.binary_search_by_key(&index, |(from, _)| *from).ok()?;
        let content = versions[at].1.as_ref();
        // A change of the time to live alone is not one of the key.
        let is_change = content.is_none_or(|content| content.rev == Some(index.0));
        is_change.then(|| content.map(|content| content.value.as_str()))
    }

    /// Returns whether keys expire by the entry at `index`.
    pub(super) fn is_tick(&self, index: LogIndex) -> bool {
        self.ticks.contains(&index)
    }

    /// The revisions of `key` after everything up to `index` was applied, if they are known there.
    pub(super) fn meta_at(&self, key: &str, index: LogIndex) -> Option<KeyMeta> {
        let is_known = self.raised_at.is_some_and(|raised_at| raised_at <= index);
        self.content_at(key, index).filter(|_| is_known).map(|content| self.counted(content))
    }

    /// The map after the last entry.
    pub(super) fn map(&self) -> &ReferenceMap {
        &self.map
    }

    /// Returns whether this can be the time to live that is left to `key` at `index`: none if it
    /// does not expire, and never more than was set.
    fn is_left(&self, key: &str, index: LogIndex, left: Option<Ttl>) -> bool {
        let expiry = self.content_at(key, index).and_then(|content| content.expiry);
        match (expiry, left) {
            (None, None) => true,
            (Some(expiry), Some(left)) => left.ms() <= expiry.ttl_ms,
            _ => false,
        }
    }

    /// The whole map after everything up to `index` was applied.
    pub(super) fn map_at(&self, index: LogIndex) -> impl DoubleEndedIterator<Item = (&str, &str)> {
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

    /// The entries after `from` up to `to`, each with one of its keys.
    pub(super) fn keys_between(
        &self,
        from: LogIndex,
        to: LogIndex,
    ) -> impl Iterator<Item = (LogIndex, &str)> {
        let after = from.next();
        self.keys
            .range(after..=to.max(after))
            .filter(move |(index, _)| **index <= to)
            .flat_map(|(index, keys)| keys.iter().map(|key| (*index, key.as_str())))
    }

    pub(super) fn check(
        &self,
        operation: &Operation,
        returned: &Returned,
        committed: &[CommittedEntry],
    ) -> Verdict {
        match returned {
            Returned::Applied { index, outcome, meta } => {
                let expected = self.outcomes.get(index);
                let stated = KeyMeta { ttl: None, ..*meta };
                let is_right =
                    expected.is_some_and(|expected| (&expected.0, &expected.1) == (outcome, &stated));
                require(is_right, "linearizability", || {
                    format!("{operation:?} was answered {outcome:?} {meta:?}, replay says {expected:?}")
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
                require(value.as_ref().map(Value::as_json) == expected, "linearizability", || {
                    format!("{operation:?} at {index} found {value:?}, the log says {expected:?}")
                })
            }
            Returned::Entry { index, entry } => {
                self.check_read(operation, *index, committed)?;
                let expected =
                    self.value_at(&operation.key, *index).zip(self.meta_at(&operation.key, *index));
                let found =
                    entry.as_ref().map(|(value, meta)| (value.as_json(), KeyMeta { ttl: None, ..*meta }));
                let ttl = entry.as_ref().and_then(|(_, meta)| meta.ttl);
                require(self.is_left(&operation.key, *index, ttl), "expiry", || {
                    format!("{operation:?} at {index} found {ttl:?} left")
                })?;
                require(found == expected, "linearizability", || {
                    format!("{operation:?} at {index} found {found:?}, the log says {expected:?}")
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
            Returned::Count { index, keys } => {
                self.check_read(operation, *index, committed)?;
                let expected = operation.scan.as_ref().map(|scan| self.in_range(scan, *index).len() as u64);
                require(Some(*keys) == expected, "linearizability", || {
                    format!("{operation:?} at {index} counted {keys}, the log says {expected:?}")
                })
            }
            Returned::Failed(_) => Ok(()),
        }
    }

    /// The keys and values in the range of `scan`, in its order, after everything up to `index` was
    /// applied.
    fn in_range(&self, scan: &Scan, index: LogIndex) -> Vec<(&str, &str)> {
        let is_past = |key: &str, after: &str| if scan.is_reverse { key < after } else { key > after };
        let is_wanted = |key: &str| {
            key.starts_with(&scan.prefix)
                && scan.after.as_deref().is_none_or(|after| is_past(key, after))
                && scan.end.as_deref().is_none_or(|end| key < end)
        };
        let mut pairs: Vec<_> = self.map_at(index).filter(|(key, _)| is_wanted(key)).collect();
        if scan.is_reverse {
            pairs.reverse();
        }
        pairs
    }

    /// Returns whether this is the page for `scan` after everything up to `index` was applied. Only
    /// the limit of items is considered, because a run has too few keys for the limit of bytes.
    fn is_page(&self, scan: &Scan, index: LogIndex, page: &Page) -> bool {
        let pairs = self.in_range(scan, index);
        let is_item = |(item, (key, value)): (&Item, &(&str, &str))| {
            let value = Some(*value).filter(|_| scan.content == ScanContent::Values);
            let meta = self.meta_at(key, index).filter(|_| scan.wants_meta).unwrap_or_default();
            let stated = KeyMeta { ttl: None, ..item.meta };
            let has_ttl = !scan.wants_meta || self.is_left(key, index, item.meta.ttl);
            has_ttl
                && (item.key.as_str(), item.value.as_ref().map(Value::as_json), stated) == (*key, value, meta)
        };
        page.items.len() == pairs.len().min(scan.items_max)
            && page.items.iter().zip(&pairs).all(is_item)
            && page.more == (pairs.len() > page.items.len())
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

/// The bytes of values in an outcome, as the limits of the session table count them.
fn value_bytes(outcome: &Outcome) -> usize {
    let of_result = |result: &TxnResult| match result {
        TxnResult::Found(Some(value)) => 32 + value.as_json().len(),
        _ => 32,
    };
    match outcome {
        Outcome::Mismatch { actual: Some(actual) } => actual.as_json().len(),
        Outcome::Txn(txn) => txn.results.iter().map(of_result).sum(),
        _ => 0,
    }
}
