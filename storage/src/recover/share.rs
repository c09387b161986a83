//! Shared log entries: stores entries that several nodes of one process have only once.

use coracle_core::raft::Entries;

/// Returns the entries of `run`. Those that another node has in its log `beside` are views of that
/// memory.
pub(super) fn share(run: Entries, beside: &[Entries]) -> Vec<Entries> {
    let mut shared = Vec::with_capacity(1);
    let mut rest = run;
    for other in &beside[beside.partition_point(|other| other.last().index < rest.first_index())..] {
        if other.first_index() > rest.first_index() {
            break;
        }
        let last = rest.last().index.min(other.last().index);
        let theirs = other.starting_at(rest.first_index()).and_then(|theirs| theirs.ending_at(last));
        let own = rest.ending_at(last);
        let is_same = theirs == own;
        shared.extend(if is_same { theirs } else { own });
        if !is_same || last == rest.last().index {
            let behind = rest.starting_at(last.next()).filter(|_| last < rest.last().index);
            shared.extend(behind);
            return shared;
        }
        let Some(behind) = rest.starting_at(last.next()) else { return shared };
        rest = behind;
    }
    shared.push(rest);
    shared
}

#[cfg(test)]
mod tests {
    use coracle_core::raft::{LogIndex, LogPoint};

    use super::*;
    use crate::testing::entries_after;

    fn run(after: LogPoint, term: u64, count: usize) -> Entries {
        entries_after(after, term, &vec!["\"op\":\"NOOP\""; count])
    }

    /// Whether the text of these entries is in the memory of `with`.
    fn is_shared(entries: &Entries, with: &[Entries]) -> bool {
        let text = entries.text().as_bytes().as_ptr_range();
        with.iter().any(|other| other.text().as_bytes().as_ptr_range().contains(&text.start))
    }

    #[test]
    fn the_same_entries_are_kept_once_however_they_are_cut() {
        let whole = run(LogPoint::ORIGIN, 1, 9);
        for cut in 1..9 {
            let first = run(LogPoint::ORIGIN, 1, cut);
            let second = run(first.last(), 1, 9 - cut);
            let beside = [first.clone(), second.clone()];
            let shared = share(whole.clone(), &beside);
            assert_eq!(shared, beside);
            assert!(shared.iter().all(|entries| is_shared(entries, &beside)));
            for part in [first, second] {
                let shared = share(part.clone(), std::slice::from_ref(&whole));
                assert_eq!(shared, [part]);
                assert!(is_shared(&shared[0], std::slice::from_ref(&whole)));
            }
        }
    }

    #[test]
    fn entries_that_only_one_node_has_are_not_shared() {
        let first = run(LogPoint::ORIGIN, 1, 3);
        let own = run(first.last(), 2, 2);
        let log = [first.clone(), own];
        let longer = run(LogPoint::ORIGIN, 1, 5);
        let shared: Vec<_> =
            log.iter().flat_map(|run| share(run.clone(), std::slice::from_ref(&longer))).collect();
        assert_eq!(shared, log, "another term");
        assert!(is_shared(&shared[0], std::slice::from_ref(&longer)));
        let behind = share(longer.clone(), std::slice::from_ref(&first));
        assert_eq!(behind.iter().map(Entries::len).collect::<Vec<_>>(), [3, 2]);
        assert_eq!(behind.last().map(|entries| entries.last().index), Some(LogIndex(5)));
        assert_eq!(share(longer.clone(), &[]), [longer]);
    }
}
