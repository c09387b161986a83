//! Mutant hunt: runs seeds with a deliberate bug until a property is violated that holds in the
//! same seed without the bug.

use std::time::Duration;

use coracle_core::mutant::Mutant;

use super::invariants::Violation;
use super::run::{Telling, run_seed};
use crate::lifecycle;

/// How long faults are injected in a hunted run, in simulated time.
pub const FAULT_TIME: Duration = Duration::from_secs(10);

/// A violation that revealed a mutant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kill {
    /// The seed of the run.
    pub seed: u64,
    /// The property that was violated.
    pub property: &'static str,
    /// A description of the violation.
    pub what: String,
}

/// Runs `seed` with `mutant`. Returns the violation, if there is one.
#[must_use]
pub fn try_seed(mutant: Mutant, seed: u64, telling: Telling) -> Option<Kill> {
    Mutant::activate(Some(mutant));
    let violation = violation(mutant, seed, telling);
    Mutant::activate(None);
    violation.map(|violation| Kill { seed, property: violation.property, what: violation.what })
}

/// Returns whether `seed` passes without the mutant. Otherwise a violation in it proves nothing
/// about the mutant.
#[must_use]
pub fn is_clean(mutant: Mutant, seed: u64) -> bool {
    violation(mutant, seed, Telling::Silent).is_none()
}

/// Runs a seed in the simulator that can reveal this mutant: the life-cycle simulator with an
/// operator, or the cluster simulator with a fixed set of nodes. Returns the violation, if any.
fn violation(mutant: Mutant, seed: u64, telling: Telling) -> Option<Violation> {
    if is_of_lifecycle(mutant) {
        return lifecycle::run_seed(seed, FAULT_TIME, telling == Telling::Everything).violation;
    }
    run_seed(seed, FAULT_TIME, telling).violation
}

/// Returns whether only the life-cycle simulator, in which nodes come and go, can reveal the bug.
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
            | Mutant::RemovedNodeRedials
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
            | Mutant::LevelOfMembersIgnored
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Mutants of each kind that the first seeds notice: promises of votes and acknowledgements,
    /// commits, disk contents, replies to clients. The program `mutants` hunts all of them.
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
