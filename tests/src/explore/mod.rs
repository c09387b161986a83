//! Exhaustive model checking: explores every order of a few events on three real nodes.
//!
//! Seeds try long runs at random. This explores short runs exhaustively: a handful of timeouts,
//! commands, a crash, a lost and a duplicated message, and all ways in which messages, disks and
//! clocks can interleave between them. The nodes are the real ones, branched by cloning.
//!
//! Two situations are equal when everything in them is, except the time of the clocks and the
//! random numbers of the timers. These do not matter, because the exploration itself decides when a
//! timer expires. Messages of one link keep their order; those of different links may overtake one
//! another.
//!
//! Checked in every situation: Election Safety, Log Matching, Leader Completeness, State Machine
//! Safety (Raft, Figure 3), and that votes and acknowledgements are sent only when they are
//! durable.

mod rules;
mod situation;

use std::collections::BTreeSet;

use situation::Situation;

/// The number of events of each kind that an exploration allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Scope {
    /// Election timeouts that expire.
    pub timeouts: u8,
    /// Commands that are proposed.
    pub commands: u8,
    /// Nodes that crash, lose what is not durable, and start again.
    pub crashes: u8,
    /// Messages that are lost.
    pub losses: u8,
    /// Messages that arrive twice.
    pub doubles: u8,
}

/// The result of an exploration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exploration {
    /// The number of different situations that were visited.
    pub situations: usize,
    /// The number of steps between situations.
    pub steps: usize,
    /// Whether all situations were visited.
    pub is_complete: bool,
    /// The number of steps in which a leader was elected.
    pub elections: usize,
    /// The highest index that any node committed.
    pub highest_commit: u64,
    /// The violation, if any, with the steps that lead there.
    pub violation: Option<String>,
}

/// Visits every situation that can be reached within `scope`, or `situations_max` of them.
#[must_use]
pub fn explore(scope: Scope, situations_max: usize) -> Exploration {
    let mut exploration = Exploration::default();
    let mut seen = BTreeSet::new();
    let first = Situation::new(scope);
    seen.insert(first.fingerprint());
    let mut open = vec![first];
    while let Some(situation) = open.pop() {
        exploration.situations += 1;
        for step in situation.steps() {
            exploration.steps += 1;
            let mut next = situation.clone();
            let facts = match next.take(step) {
                Ok(facts) => facts,
                Err(what) => {
                    exploration.violation = Some(format!("{what}\n{}", next.story().join("\n")));
                    return exploration;
                }
            };
            exploration.elections += usize::from(facts.has_elected);
            exploration.highest_commit = exploration.highest_commit.max(facts.commit);
            if seen.insert(next.fingerprint()) {
                open.push(next);
            }
        }
        if exploration.situations >= situations_max {
            return exploration;
        }
    }
    exploration.is_complete = true;
    exploration
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUIET: Scope = Scope { timeouts: 1, commands: 1, crashes: 0, losses: 0, doubles: 0 };

    #[test]
    fn one_election_and_one_command_are_explored_to_the_end() {
        let found = explore(QUIET, 1_000_000);
        assert_eq!(found.violation, None);
        assert!(found.is_complete, "{found:?}");
        assert!(found.elections > 0 && found.highest_commit == 2, "{found:?}");
    }

    #[test]
    fn two_campaigns_a_crash_and_a_lost_message_are_explored_in_part() {
        let scope = Scope { timeouts: 2, commands: 1, crashes: 1, losses: 1, doubles: 1 };
        let found = explore(scope, 5_000);
        assert_eq!(found.violation, None);
        assert!(found.situations >= 5_000, "{found:?}");
    }
}
