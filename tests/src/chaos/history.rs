//! Histories of the keys, recorded by the clients and kept small enough for the linearizability
//! search.
//!
//! The search can handle a few hundred operations of a key and few of unknown outcome. So clients
//! share a handful of places. In each place a key is replaced by a new one, which is absent at
//! first, once it has been used enough. No client has to pause for that.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::Violation;
use crate::checker::{Answered, Asked, HISTORY_MAX, Observed, Operation as _, SearchVerdict, search};

/// The number of keys in use at a time.
const PLACES: usize = 4;
/// The number of operations for which a key is used.
const OPERATIONS_MAX: usize = 200;
/// The most of these that may have no known outcome: each doubles the search space.
const UNKNOWN_MAX: usize = 3;

#[derive(Debug, Default)]
struct Place {
    generation: u32,
    operations: usize,
    unknown: usize,
    /// A value that the key had recently, for a compare-and-swap to expect.
    hint: Option<u32>,
}

/// The histories of all keys.
#[derive(Debug, Default)]
pub(super) struct History {
    places: [Mutex<Place>; PLACES],
    keys: Mutex<BTreeMap<String, Vec<Observed>>>,
}

/// A key that was chosen for one operation.
#[derive(Clone, Debug)]
pub(super) struct Taken {
    pub(super) key: String,
    pub(super) hint: Option<u32>,
    place: usize,
    generation: u32,
}

/// The totals of the search.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Searched {
    pub(super) keys: usize,
    pub(super) operations: usize,
    pub(super) unknown: usize,
    /// The histories that were too large for the search, which is not a success.
    pub(super) gave_up: usize,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl History {
    /// Chooses a key for one operation.
    pub(super) fn take(&self, rng: &mut fastrand::Rng) -> Taken {
        let at = rng.usize(..PLACES);
        let mut place = locked(&self.places[at]);
        if place.operations >= OPERATIONS_MAX || place.unknown >= UNKNOWN_MAX {
            *place = Place { generation: place.generation + 1, ..Place::default() };
        }
        place.operations += 1;
        let key = format!("key-{at}-{}", place.generation);
        Taken { key, hint: place.hint, place: at, generation: place.generation }
    }

    /// Records an operation on a chosen key that has returned, or will never return.
    pub(super) fn record(&self, taken: &Taken, observed: Observed) {
        let mut place = locked(&self.places[taken.place]);
        if place.generation == taken.generation {
            place.unknown += usize::from(observed.answered == Answered::Unknown);
            match (observed.asked, observed.answered) {
                (Asked::Put(value) | Asked::Swap(_, value), Answered::Done) => place.hint = Some(value),
                (Asked::Delete, Answered::Done | Answered::NotFound) => place.hint = None,
                (_, Answered::Found(value) | Answered::Mismatch(value)) => place.hint = value,
                _ => {}
            }
        }
        drop(place);
        self.record_key(&taken.key, observed);
    }

    /// Records an operation outside of the load, such as a final read.
    pub(super) fn record_key(&self, key: &str, observed: Observed) {
        locked(&self.keys).entry(key.to_owned()).or_default().push(observed);
    }

    /// All keys that were ever used.
    pub(super) fn keys(&self) -> Vec<String> {
        locked(&self.keys).keys().cloned().collect()
    }

    /// Searches every history.
    pub(super) fn check(&self) -> Result<Searched, Violation> {
        let mut searched = Searched::default();
        for (key, history) in &*locked(&self.keys) {
            searched.keys += 1;
            searched.operations += history.len();
            searched.unknown += history.iter().filter(|seen| seen.answered == Answered::Unknown).count();
            let verdict = if history.len() > HISTORY_MAX { SearchVerdict::GaveUp } else { search(history) };
            match verdict {
                SearchVerdict::Linearizable => {}
                SearchVerdict::GaveUp => searched.gave_up += 1,
                SearchVerdict::NotLinearizable => {
                    let shortest = shortest_unexplained(history);
                    let lines: Vec<String> = shortest.iter().map(|seen| format!("  {seen:?}")).collect();
                    let what = format!("no order explains what clients saw of {key}:\n{}", lines.join("\n"));
                    return Err(Violation { rule: "linearizability", what });
                }
            }
        }
        Ok(searched)
    }
}

/// The shortest prefix of a history that is not linearizable: operations that return later are left
/// out, or have an unknown outcome.
fn shortest_unexplained(history: &[Observed]) -> Vec<Observed> {
    let mut ends: Vec<u64> = history.iter().map(Observed::end).filter(|end| *end < u64::MAX).collect();
    ends.sort_unstable();
    let until = |end: u64| -> Vec<Observed> {
        let begun = history.iter().filter(|seen| seen.call <= end);
        let mut begun: Vec<Observed> = begun
            .map(
                |seen| {
                    if seen.end() > end { Observed { answered: Answered::Unknown, ..*seen } } else { *seen }
                },
            )
            .filter(|seen| seen.asked != Asked::Get || seen.answered != Answered::Unknown)
            .collect();
        begun.sort_by_key(|seen| seen.call);
        begun
    };
    let wrong_at = ends.partition_point(|end| search(&until(*end)) != SearchVerdict::NotLinearizable);
    ends.get(wrong_at).map_or_else(|| history.to_vec(), |end| until(*end))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(call: u64, asked: Asked, answered: Answered) -> Observed {
        Observed { call, ret: call + 5, asked, answered }
    }

    #[test]
    fn keys_are_replaced_before_they_exceed_the_search() {
        let (history, mut rng) = (History::default(), fastrand::Rng::with_seed(1));
        for call in 0..5000 {
            let taken = history.take(&mut rng);
            let answered = if call % 100 == 0 { Answered::Unknown } else { Answered::Done };
            history.record(&taken, seen(call * 10, Asked::Put(u32::try_from(call).unwrap()), answered));
        }
        let searched = history.check().unwrap();
        assert_eq!((searched.operations, searched.unknown, searched.gave_up), (5000, 50, 0));
        assert!(searched.keys >= 5000 / OPERATIONS_MAX);
    }

    #[test]
    fn a_lost_write_is_found_and_the_history_is_cut_there() {
        let history = History::default();
        history.record_key("a", seen(10, Asked::Put(1), Answered::Done));
        history.record_key("a", seen(20, Asked::Get, Answered::Found(None)));
        history.record_key("a", seen(30, Asked::Put(2), Answered::Done));
        let violation = history.check().unwrap_err();
        assert_eq!(violation.rule, "linearizability");
        assert!(
            violation.what.contains("Found(None)") && !violation.what.contains("Put(2)"),
            "{}",
            violation.what
        );
    }

    #[test]
    fn a_history_that_is_too_long_counts_as_given_up() {
        let history = History::default();
        for call in 0..=HISTORY_MAX as u64 {
            history.record_key("a", seen(call * 10, Asked::Get, Answered::Found(None)));
        }
        assert_eq!(history.check().unwrap().gave_up, 1);
    }
}
