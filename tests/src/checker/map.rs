//! Operations on several keys: the checker's view of increments, deletes by prefix, transactions,
//! conditions by revision, and scans.
//!
//! The state is a [`ReferenceMap`]. A client learns the revision of its write from the answer, so a
//! write without an answer leaves an unknown revision; a later condition on that revision holds if
//! its answer says so.

use coracle_core::kv::{KeyMeta, Outcome};

use super::Operation;
use crate::reference::{EntryText, ReferenceMap};

/// A request of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MapAsked {
    /// The object of a write's entry: its payload in braces.
    Write(Box<str>),
    /// Reads a key.
    Get(String),
    /// Reads all keys with a prefix.
    Scan(String),
}

/// The answer to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MapAnswered {
    /// A write was applied. The revisions may be unknown.
    Applied(Outcome, KeyMeta),
    /// The value that a read found, if any, as JSON text.
    Found(Option<String>),
    /// The keys and values that a scan found.
    Page(Vec<(String, String)>),
    /// The outcome is unknown.
    Unknown,
}

/// One operation of a history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapObserved {
    /// The time of the call.
    pub call: u64,
    /// The time of the return, which is after the call. Ignored when the outcome is unknown.
    pub ret: u64,
    /// The request.
    pub asked: MapAsked,
    /// The answer.
    pub answered: MapAnswered,
}

impl Operation for MapObserved {
    type State = ReferenceMap;

    fn call(&self) -> u64 {
        self.call
    }

    fn end(&self) -> u64 {
        if self.is_unknown() { u64::MAX } else { self.ret }
    }

    fn is_unknown(&self) -> bool {
        self.answered == MapAnswered::Unknown
    }

    fn apply(&self, before: &ReferenceMap) -> Option<ReferenceMap> {
        match (&self.asked, &self.answered) {
            (MapAsked::Write(object), MapAnswered::Applied(outcome, meta)) => {
                let entry = EntryText::parse(object);
                let changed = !matches!(outcome, Outcome::Mismatch { .. });
                let at = Some(meta.rev.0).filter(|rev| *rev > 0 && changed);
                let mut after = before.clone();
                let is_right = after.execute(&entry, at, Some(outcome)) == *outcome
                    && entry.key.as_deref().is_none_or(|key| has_meta(&after, key, *meta));
                is_right.then_some(after)
            }
            (MapAsked::Write(object), MapAnswered::Unknown) => {
                let mut after = before.clone();
                after.execute(&EntryText::parse(object), None, None);
                Some(after)
            }
            (MapAsked::Get(key), MapAnswered::Found(found)) => {
                let is_right = before.content(key).map(|content| &content.value) == found.as_ref();
                is_right.then(|| before.clone())
            }
            (MapAsked::Scan(prefix), MapAnswered::Page(page)) => {
                let held = before.with_prefix(prefix).map(|(key, content)| (key, &content.value));
                let is_right = held.eq(page.iter().map(|(key, value)| (key, value)));
                is_right.then(|| before.clone())
            }
            (MapAsked::Get(_) | MapAsked::Scan(_), MapAnswered::Unknown) => Some(before.clone()),
            _ => None,
        }
    }
}

/// Returns whether the known revisions of a key are these, as far as these are known.
fn has_meta(map: &ReferenceMap, key: &str, meta: KeyMeta) -> bool {
    let agrees = |known: Option<u64>, stated: u64| stated == 0 || known.is_none_or(|known| known == stated);
    // After a delete there is nothing to compare with.
    let Some(content) = map.content(key) else { return true };
    agrees(content.rev, meta.rev.0) && agrees(content.created, meta.created.0)
}
