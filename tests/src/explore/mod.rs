//! Every order in which a few things can happen to three real nodes.
//!
//! Seeds try long runs at random; this tries short ones without exception: a handful of timeouts,
//! commands, a crash, a lost and a doubled message, and all ways in which messages, disks and
//! clocks can interleave between them. The nodes are the shipped ones, branched by cloning.
//!
//! Two situations are the same when everything in them is, but for the time on the clocks and the
//! dice of the timers, which the exploration decides by itself: a timer runs out when it says so.
//! Messages of one link keep their order; those of different links overtake one another freely.
//!
//! Checked in every situation: Election Safety, Log Matching, Leader Completeness, State Machine
//! Safety (Raft, Figure 3), and that votes and acknowledgements leave only when they are durable.

mod rules;
mod situation;

use std::collections::BTreeSet;

use situation::Situation;

/// How much may happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Scope {
    /// Election timeouts that run out.
    pub timeouts: u8,
    /// Commands that are proposed.
    pub commands: u8,
    /// Nodes that crash, losing what is not durable, and start again.
    pub crashes: u8,
    /// Messages that are lost.
    pub losses: u8,
    /// Messages that arrive twice.
    pub doubles: u8,
}

/// What an exploration came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exploration {
    /// How many different situations there are; fewer when it was cut short.
    pub situations: usize,
    /// How many steps lead from one to another.
    pub steps: usize,
    /// Whether all were seen.
    pub is_complete: bool,
    /// In how many a leader was just elected.
    pub elections: usize,
    /// The highest index that was committed anywhere.
    pub highest_commit: u64,
    /// What was found wrong, with the steps that lead there.
    pub violation: Option<String>,
}

/// Looks at every situation that can be reached within `scope`, or at `situations_max` of them.
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
