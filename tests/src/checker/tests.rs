//! Tests of the search: compared with the brute-force check, and applied to histories with
//! deliberate errors.

use super::*;

fn observed(call: u64, ret: u64, asked: Asked, answered: Answered) -> Observed {
    Observed { call, ret, asked, answered }
}

/// Creates a tiny history: a few operations at overlapping times with answers that are often, but
/// not always, right.
fn tiny_history(rng: &mut fastrand::Rng) -> Vec<Observed> {
    let count = rng.usize(1..=5);
    (0..count)
        .map(|_| {
            let call = rng.u64(0..10);
            let some = |rng: &mut fastrand::Rng| rng.bool().then(|| rng.u32(0..2));
            let asked = match rng.u8(0..4) {
                0 => Asked::Put(rng.u32(0..2)),
                1 => Asked::Get,
                2 => Asked::Delete,
                _ => Asked::Swap(some(rng), rng.u32(0..2)),
            };
            let answered = match (asked, rng.u8(0..5)) {
                (_, 0) => Answered::Unknown,
                (Asked::Get, _) => Answered::Found(some(rng)),
                (Asked::Delete, 1) => Answered::NotFound,
                (Asked::Swap(..), 1 | 2) => Answered::Mismatch(some(rng)),
                _ => Answered::Done,
            };
            observed(call, call + rng.u64(1..6), asked, answered)
        })
        .collect()
}

/// Creates a linearizable history of one map and several clients: each operation takes effect at a
/// moment between its call and its return.
fn honest_history(rng: &mut fastrand::Rng, count: usize, at_once: u64) -> Vec<Observed> {
    let mut value = None;
    (0..count as u64)
        .map(|moment| {
            let asked = match rng.u8(0..5) {
                0 | 1 => Asked::Put(rng.u32(0..50)),
                2 => Asked::Delete,
                3 => Asked::Swap(value, rng.u32(0..50)),
                _ => Asked::Get,
            };
            let right =
                [Answered::Done, Answered::Found(value), Answered::NotFound, Answered::Mismatch(value)];
            let effect =
                |answered| observed(0, 0, asked, answered).apply(&value).map(|after| (answered, after));
            let (answered, after) = right.into_iter().find_map(effect).expect("one answer is right");
            value = after;
            // Half of the width lies on either side, so about `at_once` operations overlap.
            let middle = moment * 10 + 1000;
            observed(middle - rng.u64(0..=5 * at_once), middle + rng.u64(1..=5 * at_once), asked, answered)
        })
        .collect()
}

#[test]
fn the_search_agrees_with_trying_all_orders() {
    let mut rng = fastrand::Rng::with_seed(11);
    let mut counts = [0; 2];
    // A release build tries a million, and a debug build fewer in the same few seconds.
    let histories = if cfg!(debug_assertions) { 100_000 } else { 1_000_000 };
    for _ in 0..histories {
        let history = tiny_history(&mut rng);
        let expected = is_linearizable_by_trying_all(&history);
        let found = search(&history);
        let as_verdict = if expected { SearchVerdict::Linearizable } else { SearchVerdict::NotLinearizable };
        assert_eq!(found, as_verdict, "{history:?}");
        counts[usize::from(expected)] += 1;
    }
    assert!(counts.iter().all(|count| *count > histories / 20), "both kinds are common: {counts:?}");
}

#[test]
fn linearizable_histories_pass_and_swapped_results_are_found() {
    let mut rng = fastrand::Rng::with_seed(5);
    let mut found = 0;
    for _ in 0..50 {
        let mut history = honest_history(&mut rng, 300, 8);
        assert_eq!(search(&history), SearchVerdict::Linearizable);
        let gets: Vec<_> = (0..300).filter(|at| history[*at].asked == Asked::Get).collect();
        let (one, other) =
            (gets[rng.usize(..gets.len() / 2)], gets[gets.len() / 2 + rng.usize(..gets.len() / 2)]);
        if history[one].answered == history[other].answered {
            continue;
        }
        let answered = history[one].answered;
        history[one].answered = history[other].answered;
        history[other].answered = answered;
        found += usize::from(search(&history) == SearchVerdict::NotLinearizable);
    }
    assert!(found > 30, "{found} of fifty");
}

#[test]
fn a_write_of_unknown_outcome_may_take_effect_late_or_never() {
    let put = observed(1, 0, Asked::Put(7), Answered::Unknown);
    let get = |at, value| observed(at, at + 1, Asked::Get, Answered::Found(value));
    assert_eq!(search(&[put, get(5, None), get(10, Some(7))]), SearchVerdict::Linearizable);
    assert_eq!(search(&[put, get(5, None), get(10, None)]), SearchVerdict::Linearizable);
    assert_eq!(search(&[put, get(5, Some(7)), get(10, None)]), SearchVerdict::NotLinearizable);
}

#[test]
fn a_stale_read_is_found() {
    let put = |at, value| observed(at, at + 1, Asked::Put(value), Answered::Done);
    let get = |at, value| observed(at, at + 1, Asked::Get, Answered::Found(value));
    assert_eq!(search(&[put(0, 1), put(10, 2), get(20, Some(2))]), SearchVerdict::Linearizable);
    assert_eq!(search(&[put(0, 1), put(10, 2), get(20, Some(1))]), SearchVerdict::NotLinearizable);
}

#[test]
fn a_history_that_is_too_long_is_given_up() {
    let get = observed(0, 1, Asked::Get, Answered::Found(None));
    assert_eq!(search(&vec![get; HISTORY_MAX + 1]), SearchVerdict::GaveUp);
}
