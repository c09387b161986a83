//! Quorums: the voters, majorities of them, and the commit index that a majority has reached.
//!
//! The index is computed in the simplest way: sort the values and take the middle one. In another
//! library a cleverer way once committed entries that only two of five nodes held (openraft#1802),
//! and there are at most nine values to sort.

use super::types::{LogIndex, NodeId};
use crate::mutant::{self, Mutant};

/// The maximum number of voters. More of them make every commit slower, and tolerate more failures
/// than a cluster needs.
pub const VOTERS_MAX: usize = 9;

/// The voters: the nodes whose votes and disks count, in ascending order and without duplicates;
/// one to [`VOTERS_MAX`].
///
/// ```
/// use coracle_core::raft::{NodeId, Voters};
///
/// let voters = Voters::new([3, 1, 2].map(NodeId)).expect("one to nine voters");
/// assert_eq!(voters.nodes(), [1, 2, 3].map(NodeId));
/// assert_eq!(Voters::new([]), None);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Voters(Vec<NodeId>);

/// The result of a vote so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VoteResult {
    /// A majority granted it.
    Won,
    /// It cannot be won any more: half of the voters or more rejected it.
    Lost,
    /// Neither won nor lost yet.
    Pending,
}

impl Voters {
    /// The set of these nodes, given in any order. `None` when there is no node, more than
    /// [`VOTERS_MAX`], or a duplicate.
    #[must_use]
    pub fn new(nodes: impl IntoIterator<Item = NodeId>) -> Option<Self> {
        let mut nodes: Vec<_> = nodes.into_iter().collect();
        nodes.sort_unstable();
        let each_once = nodes.windows(2).all(|pair| pair[0] != pair[1]);
        let is_valid = each_once && (1..=VOTERS_MAX).contains(&nodes.len());
        is_valid.then_some(Self(nodes))
    }

    /// The voters, in ascending order.
    #[must_use]
    pub fn nodes(&self) -> &[NodeId] {
        &self.0
    }

    /// Returns whether `node` is a voter.
    #[must_use]
    pub fn contains(&self, node: NodeId) -> bool {
        self.0.contains(&node)
    }

    /// The number of voters in a majority: more than half.
    #[must_use]
    pub fn majority(&self) -> usize {
        let more_than_half = self.0.len() / 2 + 1;
        half_by_mutant(self.0.len()).unwrap_or(more_than_half)
    }

    /// The highest value that a majority has reached; `reached` returns the value of each voter.
    #[must_use]
    pub fn majority_reached<T: Ord + Copy>(&self, reached: impl Fn(NodeId) -> T) -> T {
        // A leader calls this in every turn, so it avoids an allocation.
        let mut row = [reached(self.0[0]); VOTERS_MAX];
        let values = &mut row[..self.0.len()];
        for (value, &node) in values.iter_mut().zip(&self.0).skip(1) {
            *value = reached(node);
        }
        sort_unless_mutant(values);
        values[self.0.len() - self.majority()]
    }

    /// The result of a vote so far; `vote` returns the answer of each voter that has given one.
    #[must_use]
    pub fn tally(&self, vote: impl Fn(NodeId) -> Option<bool>) -> VoteResult {
        let votes: Vec<_> = self.0.iter().filter_map(|&node| vote(node)).collect();
        let granted = votes.iter().filter(|&&granted| granted).count();
        let refused = votes.len() - granted;
        if granted >= self.majority() {
            VoteResult::Won
        } else if refused > self.0.len() - self.majority() {
            VoteResult::Lost
        } else {
            VoteResult::Pending
        }
    }
}

/// The commit index: the highest index up to which a majority of `voters` holds the log durably.
#[must_use]
pub fn committed_index(voters: &Voters, match_index: impl Fn(NodeId) -> LogIndex) -> LogIndex {
    voters.majority_reached(match_index)
}

/// Deliberate bug: half of the voters are a majority.
fn half_by_mutant(voters: usize) -> Option<usize> {
    mutant::is_active(Mutant::HalfIsMajority).then(|| voters.div_ceil(2))
}

/// Sorts what the voters have reached; deliberate bug: leaves it unsorted.
fn sort_unless_mutant<T: Ord>(values: &mut [T]) {
    if !mutant::is_active(Mutant::MajorityUnsorted) {
        values.sort_unstable();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn voters(count: u64) -> Voters {
        Voters::new((0..count).map(NodeId)).unwrap()
    }

    #[test]
    fn the_commit_index_is_the_largest_that_a_majority_reached() {
        let mut rng = fastrand::Rng::with_seed(7);
        for _ in 0..20_000 {
            let count = rng.u64(1..=9);
            let reached: Vec<u64> = (0..count).map(|_| rng.u64(0..6)).collect();
            let index =
                committed_index(&voters(count), |node| LogIndex(reached[usize::try_from(node.0).unwrap()]));
            let holders = |wanted: u64| reached.iter().filter(|&&value| value >= wanted).count();
            assert!(holders(index.0) > reached.len() / 2, "{reached:?} gave {index}");
            assert!(holders(index.0 + 1) <= reached.len() / 2, "{reached:?} gave {index}");
        }
    }

    #[test]
    fn a_tally_of_up_to_five_voters_equals_a_plain_count() {
        for count in 1..=5_u32 {
            for combination in 0..3_usize.pow(count) {
                let vote = |node: NodeId| {
                    let power = 3_usize.pow(u32::try_from(node.0).unwrap());
                    [None, Some(false), Some(true)][combination / power % 3]
                };
                let all: Vec<_> = (0..u64::from(count)).map(|node| vote(NodeId(node))).collect();
                let granted = all.iter().filter(|vote| **vote == Some(true)).count();
                let open = all.iter().filter(|vote| vote.is_none()).count();
                let expected = if 2 * granted > all.len() {
                    VoteResult::Won
                } else if 2 * (granted + open) <= all.len() {
                    VoteResult::Lost
                } else {
                    VoteResult::Pending
                };
                assert_eq!(voters(u64::from(count)).tally(vote), expected, "{all:?}");
            }
        }
    }

    #[test]
    fn a_set_of_voters_has_one_to_nine_different_nodes() {
        assert!(Voters::new([]).is_none());
        assert!(Voters::new([NodeId(1), NodeId(1)]).is_none());
        assert!(Voters::new((0..10).map(NodeId)).is_none());
        let unsorted = Voters::new([NodeId(4), NodeId(2)]).unwrap();
        assert_eq!(unsorted.nodes(), [NodeId(2), NodeId(4)]);
        assert!(unsorted.contains(NodeId(4)) && !unsorted.contains(NodeId(3)));
    }
}
