//! Black-box histories of the rarely used keys, for the search checker. That checker does not see
//! the index at which a reply was decided, so it is independent of the witness check.
//!
//! Keys that one request has touched together belong to one history. The histories contain writes
//! and linearizable reads, because other reads are eventual. A history is searched whole or not at
//! all, because an operation that is left out may be the one that explains another.

use std::collections::BTreeMap;

use coracle_core::kv::Outcome;
use coracle_core::proxy::RequestError;

use super::clients::{Operation, Returned};
use super::invariants::{Verdict, Violation};
use crate::checker::{MapAnswered, MapAsked, MapObserved, Operation as _, SearchVerdict, search};
use crate::reference::{EntryText, Touched};

/// The most operations of a history that is searched.
const OPERATIONS_MAX: usize = 80;
/// The most of these that may have no known outcome: each doubles the search space.
const UNKNOWN_MAX: usize = 4;

/// The operations that clients observed.
#[derive(Debug, Default)]
pub struct Samples {
    operations: Vec<(Touched, MapObserved)>,
}

impl Samples {
    /// Records a request that got an outcome at `now`, or turned out to have none.
    pub(super) fn record(&mut self, operation: &Operation, returned: &Returned, now: u64) {
        let key = || operation.key.clone();
        let (touched, asked, answered) = match returned {
            Returned::Value { value, .. } if operation.is_linearizable => {
                let found = value.as_ref().map(|value| value.as_json().to_owned());
                (Touched::Keys(vec![key()]), MapAsked::Get(key()), MapAnswered::Found(found))
            }
            Returned::Applied { .. } | Returned::Failed(_) => {
                let Some(payload) = &operation.payload else { return };
                let object = ["{", payload, "}"].concat();
                let touched = EntryText::parse(&object).touches();
                let Some(answered) = answer_to_write(operation, returned) else { return };
                (touched, MapAsked::Write(object.into()), answered)
            }
            _ => return,
        };
        // A key that expires does so without a request.
        if matches!(&touched, Touched::Keys(keys) if keys.iter().any(|key| key.starts_with('e'))) {
            return;
        }
        let observed = MapObserved { call: operation.asked_at, ret: now, asked, answered };
        self.operations.push((touched, observed));
    }

    /// Searches the histories that are short enough. Returns how many of them are linearizable.
    ///
    /// # Errors
    ///
    /// A history that no order of its operations explains.
    pub(super) fn check(&self) -> Result<usize, Violation> {
        let mut passed = 0;
        for (key, history) in self.histories() {
            let unknown = history.iter().filter(|observed| observed.is_unknown()).count();
            if history.len() > OPERATIONS_MAX || unknown > UNKNOWN_MAX || is_ambiguous(&history) {
                continue;
            }
            match search(&history) {
                SearchVerdict::Linearizable => passed += 1,
                SearchVerdict::GaveUp => {}
                SearchVerdict::NotLinearizable => {
                    let what = format!("no order explains what clients saw of {key}: {history:?}");
                    return Err(Violation { property: "linearizability", what });
                }
            }
        }
        Ok(passed)
    }

    /// The histories, by the first of their keys.
    fn histories(&self) -> BTreeMap<String, Vec<MapObserved>> {
        let mut groups = Groups::default();
        for (touched, _) in &self.operations {
            if let Touched::Keys(keys) = touched {
                groups.join(keys);
            }
        }
        for (touched, _) in &self.operations {
            if let Touched::Prefix(prefix) = touched {
                groups.join(&groups.with_prefix(prefix));
            }
        }
        let mut histories: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (touched, observed) in &self.operations {
            let keys = match touched {
                Touched::Keys(keys) => keys.clone(),
                Touched::Prefix(prefix) => groups.with_prefix(prefix),
            };
            // A delete by prefix that no other request touches shows nothing.
            if let Some(key) = keys.first() {
                histories.entry(groups.first_of(key)).or_default().push(observed.clone());
            }
        }
        histories
    }
}

/// Groups of keys that requests have touched together.
#[derive(Debug, Default)]
struct Groups {
    /// A key of the same group that comes before the key, or the key itself.
    before: BTreeMap<String, String>,
}

impl Groups {
    fn first_of(&self, key: &str) -> String {
        let mut first = key;
        while let Some(before) = self.before.get(first).filter(|before| *before != first) {
            first = before;
        }
        first.to_owned()
    }

    fn join(&mut self, keys: &[String]) {
        let firsts: Vec<_> = keys.iter().map(|key| self.first_of(key)).collect();
        let Some(first) = firsts.iter().min().cloned() else { return };
        self.before.extend(keys.iter().chain(&firsts).map(|key| (key.clone(), first.clone())));
    }

    fn with_prefix(&self, prefix: &str) -> Vec<String> {
        self.before.keys().filter(|key| key.starts_with(prefix)).cloned().collect()
    }
}

/// The answer to a write as its client knows it; `None`: the write had no effect.
fn answer_to_write(operation: &Operation, returned: &Returned) -> Option<MapAnswered> {
    match returned {
        Returned::Failed(RequestError::Timeout | RequestError::Storage) => Some(MapAnswered::Unknown),
        Returned::Failed(_)
        | Returned::Applied { outcome: Outcome::SessionExpired | Outcome::TooManySessions, .. } => {
            operation.may_have_happened.then_some(MapAnswered::Unknown)
        }
        Returned::Applied { outcome, meta, .. } => Some(MapAnswered::Applied(outcome.clone(), *meta)),
        _ => None,
    }
}

/// Returns whether a write without a known outcome depends on a revision, which may be unknown as
/// well: such a history has too many explanations.
fn is_ambiguous(history: &[MapObserved]) -> bool {
    history.iter().filter(|observed| observed.is_unknown()).any(|observed| match &observed.asked {
        MapAsked::Write(object) => EntryText::parse(object).asks_for_revision(),
        MapAsked::Get(_) | MapAsked::Scan(_) => false,
    })
}

/// Searches the histories of a run, and counts the successes as sightings.
pub(super) fn check(samples: &Samples, mut sight: impl FnMut(&'static str)) -> Verdict {
    for _ in 0..samples.check()? {
        sight("a history was searched and explained");
    }
    Ok(())
}
