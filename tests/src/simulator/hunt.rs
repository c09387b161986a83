//! Hunts a deliberate bug: runs seed after seed with it until some property does not hold, which holds in the same seed
//! without it.

use std::time::Duration;

use coracle_core::mutant::Mutant;

use super::run::{Telling, run_seed};

/// How long things break in a hunted run, in simulated time.
pub const TROUBLE: Duration = Duration::from_secs(10);

/// What gave a mutant away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kill {
    /// The seed.
    pub seed: u64,
    /// The property that did not hold.
    pub property: &'static str,
    /// What was seen.
    pub what: String,
}

/// Runs `seed` with `mutant`.
#[must_use]
pub fn try_seed(mutant: Mutant, seed: u64, telling: Telling) -> Option<Kill> {
    Mutant::activate(Some(mutant));
    let report = run_seed(seed, TROUBLE, telling);
    Mutant::activate(None);
    report.violation.map(|violation| Kill { seed, property: violation.property, what: violation.what })
}

/// Whether `seed` without any mutant is as it should be. Otherwise it proves nothing about one.
#[must_use]
pub fn is_clean(seed: u64) -> bool {
    run_seed(seed, TROUBLE, Telling::Silent).violation.is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One of each kind that the first seeds notice: what a vote and an acknowledgement promise, what is committed, what the
    /// disk holds, what a client is told. `mutants`, the program, hunts all of them.
    #[test]
    fn the_first_seeds_kill_some_mutants_of_each_kind() {
        let mutants = [
            Mutant::AckBeforeSync,
            Mutant::VoteBeforeSync,
            Mutant::LeaderCountsUnsynced,
            Mutant::MajorityUnsorted,
            Mutant::MatchingSuffixCut,
            Mutant::AppliedBeforeCommit,
            Mutant::ChainBroken,
            Mutant::LogNotSynced,
            Mutant::RetryExecutedAgain,
        ];
        for mutant in mutants {
            let kill = (0..40).find_map(|seed| try_seed(mutant, seed, Telling::Silent));
            assert!(kill.is_some_and(|kill| is_clean(kill.seed)), "{} survives", mutant.name());
        }
    }
}
