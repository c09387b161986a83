//! Linearizability search: looks for an order that explains a history, as Wing and Gong (1993) did,
//! and never visits the same state twice, as Lowe (2017) added. A state is the set of operations
//! that have taken effect, and the state that they have left.
//!
//! Operations are tried in the order of their calls. An operation can be next when it was called
//! before the first return of those that have not taken effect. When none fits, the search
//! backtracks.

use std::collections::BTreeSet;

use super::Operation;

/// The longest history that is searched. A set has one bit per operation, in five words.
pub const HISTORY_MAX: usize = 320;
/// The number of states after which the search gives up.
const SITUATIONS_MAX: usize = 2_000_000;

/// The result of a search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SearchVerdict {
    /// Some order explains every answer.
    Linearizable,
    /// No order does.
    NotLinearizable,
    /// The history is too long, or has too much concurrency. This is not a success.
    GaveUp,
}

type Set = [u64; HISTORY_MAX / 64];

/// A choice that can be undone.
struct Choice<State> {
    operation: usize,
    before: State,
}

/// Searches a history.
#[must_use]
pub fn search<O: Operation + Clone>(history: &[O]) -> SearchVerdict {
    if history.len() > HISTORY_MAX {
        return SearchVerdict::GaveUp;
    }
    let mut by_call = history.to_vec();
    by_call.sort_by_key(Operation::call);
    let mut done: Set = [0; HISTORY_MAX / 64];
    let mut known_left = by_call.iter().filter(|operation| !operation.is_unknown()).count();
    let mut state = O::State::default();
    let mut choices: Vec<Choice<O::State>> = Vec::new();
    let mut seen: BTreeSet<(Set, O::State)> = BTreeSet::new();
    let mut from = 0;
    while known_left > 0 {
        if seen.len() > SITUATIONS_MAX {
            return SearchVerdict::GaveUp;
        }
        let next = next_choice(&by_call, &done, &state, from, &mut seen);
        if let Some((operation, after)) = next {
            choices.push(Choice { operation, before: std::mem::replace(&mut state, after) });
            set(&mut done, operation, true);
            known_left -= usize::from(!by_call[operation].is_unknown());
            from = 0;
        } else {
            let Some(choice) = choices.pop() else { return SearchVerdict::NotLinearizable };
            set(&mut done, choice.operation, false);
            known_left += usize::from(!by_call[choice.operation].is_unknown());
            state = choice.before;
            from = choice.operation + 1;
        }
    }
    SearchVerdict::Linearizable
}

/// Returns the first operation, from position `from` on, that can be next and leads to a new state.
fn next_choice<O: Operation>(
    by_call: &[O],
    done: &Set,
    state: &O::State,
    from: usize,
    seen: &mut BTreeSet<(Set, O::State)>,
) -> Option<(usize, O::State)> {
    let open = |at: &usize| !contains(done, *at);
    let first_end = (0..by_call.len()).filter(open).map(|at| by_call[at].end()).min()?;
    for at in (from..by_call.len()).filter(open) {
        if by_call[at].call() > first_end {
            return None;
        }
        if let Some(after) = by_call[at].apply(state) {
            let mut then = *done;
            set(&mut then, at, true);
            if seen.insert((then, after.clone())) {
                return Some((at, after));
            }
        }
    }
    None
}

fn contains(set: &Set, at: usize) -> bool {
    set[at / 64] & (1 << (at % 64)) != 0
}

fn set(set: &mut Set, at: usize, is_in: bool) {
    if is_in {
        set[at / 64] |= 1 << (at % 64);
    } else {
        set[at / 64] &= !(1 << (at % 64));
    }
}
