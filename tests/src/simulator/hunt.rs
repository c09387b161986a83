//! Hunts a deliberate bug: runs seed after seed with it until some property does not hold, which
//! holds in the same seed without it.

use std::time::Duration;

use coracle_core::mutant::Mutant;

use super::invariants::Violation;
use super::run::{Telling, run_seed};
use crate::lifecycle;

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
    let violation = violation(mutant, seed, telling);
    Mutant::activate(None);
    violation.map(|violation| Kill { seed, property: violation.property, what: violation.what })
}

/// Whether `seed` is as it should be without the mutant. Otherwise it proves nothing about it.
#[must_use]
pub fn is_clean(mutant: Mutant, seed: u64) -> bool {
    violation(mutant, seed, Telling::Silent).is_none()
}

/// What does not hold in the world that hunts this mutant: the life of a cluster under an operator,
/// or a cluster whose nodes are given.
fn violation(mutant: Mutant, seed: u64, telling: Telling) -> Option<Violation> {
    if is_of_lifecycle(mutant) {
        return lifecycle::run_seed(seed, TROUBLE, telling == Telling::Everything).violation;
    }
    run_seed(seed, TROUBLE, telling).violation
}

/// Whether only nodes that come and go can show the bug.
fn is_of_lifecycle(mutant: Mutant) -> bool {
    matches!(
        mutant,
        Mutant::IncarnationIgnoredBySelf
            | Mutant::IncarnationIgnoredByOthers
            | Mutant::ProgressKeptByIncarnations
            | Mutant::JoinerReadsAtOnce
            | Mutant::SilentLearnerPromoted
            | Mutant::SilentMajorityLeft
            | Mutant::OutdatedOrderObeyed
            | Mutant::RemovedIncarnationBound
            | Mutant::RemovedMemberNotTold
            | Mutant::CommitChecksumIgnored
            | Mutant::AnyTermBelieved
            | Mutant::JoinerFoundsAlong
            | Mutant::RemovalByOpenConfiguration
            | Mutant::RemovalByOldConfiguration
            | Mutant::LaterAddressIgnored
            | Mutant::RemovedNodeServes
            | Mutant::UnnamedNodeVotes
            | Mutant::PromotedBeforeItKnowsItself
            | Mutant::MembersNotAsked
            | Mutant::AnyAddressBound
            | Mutant::LonelyNodeWaits
            | Mutant::RemovalForgotten
            | Mutant::RemovedNodeCompacts
            | Mutant::CommitBeyondOwnLog
            | Mutant::ForeignFilesAccepted
            | Mutant::CopyAdmitted
            | Mutant::RestartRefused
            | Mutant::LaterIncarnationRefused
            | Mutant::MoveIgnored
            | Mutant::FirstRefusalBelieved
            | Mutant::JoinedAtIgnored
            | Mutant::IncarnationNotSynced
            | Mutant::IncarnationDrawnAgain
            | Mutant::SharedAddressAccepted
            | Mutant::RemovedLeaderLeadsOn
            | Mutant::LaggardPromoted
            | Mutant::OwnMoveIgnored
            | Mutant::DismissedNodeServes
            | Mutant::TakenBackNotTold
            | Mutant::AdditionForgotten
            | Mutant::OpenAdditionLetsIn
            | Mutant::ForwardedAgain
            | Mutant::ForwardedNumbersKept
            | Mutant::OutboxShareIgnored
            | Mutant::UnfinishedFrameNotCounted
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One of each kind that the first seeds notice: what a vote and an acknowledgement promise,
    /// what is committed, what the disk holds, what a client is told. `mutants`, the program, hunts
    /// all of them.
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
            Mutant::HeldLogUnlimited,
        ];
        for mutant in mutants {
            let kill = (0..40).find_map(|seed| try_seed(mutant, seed, Telling::Silent));
            assert!(kill.is_some_and(|kill| is_clean(mutant, kill.seed)), "{} survives", mutant.name());
        }
    }
}
