//! Brute-force linearizability check: tries every order. Far too slow for more than a handful of
//! operations, but obviously correct.

use super::{Answered, Observed, Operation};

/// Returns whether some order of `history` explains every answer. An operation of unknown outcome
/// may be left out.
#[must_use]
pub fn is_linearizable_by_trying_all(history: &[Observed]) -> bool {
    let mut used = vec![false; history.len()];
    try_next(history, &mut used, None)
}

fn try_next(history: &[Observed], used: &mut [bool], value: Option<u32>) -> bool {
    let known_left = (0..history.len()).any(|at| !used[at] && history[at].answered != Answered::Unknown);
    if !known_left {
        return true;
    }
    // An operation that was called after another one had returned cannot come before it.
    let first_end = (0..history.len()).filter(|at| !used[*at]).map(|at| history[at].end()).min();
    for at in 0..history.len() {
        if used[at] || first_end.is_some_and(|end| history[at].call > end) {
            continue;
        }
        if let Some(after) = history[at].apply(&value) {
            used[at] = true;
            if try_next(history, used, after) {
                return true;
            }
            used[at] = false;
        }
    }
    false
}
