//! Black-box histories of the rarely used keys, for the search checker. That checker does not see
//! the index at which a reply was decided, so it is independent of the witness check.
//!
//! The histories contain only writes, because reads are eventual. A history is searched whole or
//! not at all, because an operation that is left out may be the one that explains another.

use std::collections::{BTreeMap, HashMap};

use coracle_core::kv::{LoggedWrite, Operation as LogOperation, Outcome, Value};
use coracle_core::proxy::RequestError;

use super::clients::{Operation, Returned};
use super::invariants::{Verdict, Violation};
use crate::checker::{Answered, Asked, Observed, SearchVerdict, search};

/// The most operations of a key whose history is searched.
const OPERATIONS_MAX: usize = 80;
/// The most of these that may have no known outcome: each doubles the search space.
const UNKNOWN_MAX: usize = 4;

/// The operations that clients observed on each key.
#[derive(Debug, Default)]
pub struct Samples {
    histories: BTreeMap<String, Vec<Observed>>,
    values: HashMap<String, u32>,
}

impl Samples {
    /// Records a request that got an outcome at `now`, or turned out to have none.
    pub(super) fn record(&mut self, operation: &Operation, returned: &Returned, now: u64) {
        let Some(write) = operation.payload.as_deref().and_then(LoggedWrite::read) else { return };
        let answered = match returned {
            Returned::Failed(RequestError::Timeout | RequestError::Storage) => Answered::Unknown,
            Returned::Failed(_) | Returned::Applied { outcome: Outcome::SessionExpired, .. }
                if operation.may_have_happened =>
            {
                Answered::Unknown
            }
            Returned::Applied { outcome: Outcome::Done, .. } => Answered::Done,
            Returned::Applied { outcome: Outcome::NotFound, .. } => Answered::NotFound,
            Returned::Applied { outcome: Outcome::Mismatch { actual }, .. } => {
                Answered::Mismatch(actual.as_ref().map(Value::as_json).map(|json| self.number(json)))
            }
            _ => return,
        };
        let asked = match write.operation {
            LogOperation::Put { value, .. } => Asked::Put(self.number(value)),
            LogOperation::Delete { .. } => Asked::Delete,
            LogOperation::Cas { expect, value, .. } => {
                Asked::Swap(expect.map(|json| self.number(json)), self.number(value))
            }
        };
        let observed = Observed { call: operation.asked_at, ret: now, asked, answered };
        self.histories.entry(operation.key.clone()).or_default().push(observed);
    }

    /// Searches the histories that are short enough. Returns how many of them are linearizable.
    ///
    /// # Errors
    ///
    /// A history that no order of its operations explains.
    pub(super) fn check(&self) -> Result<usize, Violation> {
        let mut passed = 0;
        for (key, history) in &self.histories {
            let unknown = history.iter().filter(|operation| operation.answered == Answered::Unknown).count();
            if history.len() > OPERATIONS_MAX || unknown > UNKNOWN_MAX {
                continue;
            }
            match search(history) {
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

    fn number(&mut self, json: &str) -> u32 {
        let next = u32::try_from(self.values.len()).expect("a run has few values");
        if let Some(number) = self.values.get(json) {
            return *number;
        }
        self.values.insert(json.to_owned(), next);
        next
    }
}

/// Searches the histories of a run, and counts the successes as sightings.
pub(super) fn check(samples: &Samples, mut sight: impl FnMut(&'static str)) -> Verdict {
    for _ in 0..samples.check()? {
        sight("a history was searched and explained");
    }
    Ok(())
}
