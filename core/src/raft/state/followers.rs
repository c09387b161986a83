//! The list of a leader's followers, with the replication progress of each.
//!
//! The progress belongs to an incarnation. When another incarnation takes a member's id, its log is
//! another log, and the acknowledgements of its predecessor say nothing about it: so the leader
//! starts its progress from scratch.
//!
//! A removed member stays in the list for a while, so that it receives the entry that removed it
//! and learns that this entry is committed. It does not count towards any majority.

use std::time::Duration;

use super::progress::Progress;
use crate::identity::Incarnation;
use crate::mutant::{self, Mutant};
use crate::raft::types::{LogIndex, NodeId};
use crate::time::Instant;

/// The followers, in ascending order of ids. There are at most as many as a configuration has
/// members, and a linear search is the fastest for so few.
#[derive(Clone, Debug, Default)]
pub(in crate::raft) struct Followers(Vec<Follower>);

#[derive(Clone, Debug)]
struct Follower {
    node: NodeId,
    /// The incarnation whose progress this is; `None` in a cluster without incarnations, or as long
    /// as the incarnation of a new member is not known.
    incarnation: Option<Incarnation>,
    progress: Progress,
    leaving: Option<Leaving>,
}

/// The state of a removed member.
#[derive(Clone, Copy, Debug)]
struct Leaving {
    /// The index of the configuration that removed it.
    index: LogIndex,
    /// When the leader stops sending to it; `None` until the removal is committed.
    until: Option<Instant>,
}

impl Followers {
    /// Sets the followers to the members of the configuration at `index`. A new follower is first
    /// sent the entries after `last_index`, the end of the leader's log.
    pub(in crate::raft) fn serve(
        &mut self,
        peers: &[(NodeId, Option<Incarnation>)],
        last_index: LogIndex,
        index: LogIndex,
        now: Instant,
    ) {
        for follower in &mut self.0 {
            let is_member = peers.iter().any(|(node, _)| *node == follower.node);
            if is_member {
                follower.leaving = None;
            } else if follower.leaving.is_none() {
                follower.leaving = Some(Leaving { index, until: None });
            }
        }
        self.drop_removed_by_mutant();
        for &(node, incarnation) in peers {
            let known = self.0.iter_mut().find(|follower| follower.node == node);
            match known {
                Some(known) => {
                    let is_other = known.incarnation != incarnation;
                    if is_other && !mutant::is_active(Mutant::ProgressKeptByIncarnations) {
                        known.progress = Progress::new(last_index, now);
                    }
                    known.incarnation = incarnation;
                }
                None => {
                    let progress = Progress::new(last_index, now);
                    self.0.push(Follower { node, incarnation, progress, leaving: None });
                }
            }
        }
        self.0.sort_unstable_by_key(|follower| follower.node);
    }

    /// Drops members whose removal has been committed for `patience`.
    pub(in crate::raft) fn let_go(&mut self, commit_index: LogIndex, now: Instant, patience: Duration) {
        for leaving in self.0.iter_mut().filter_map(|follower| follower.leaving.as_mut()) {
            if leaving.index <= commit_index && leaving.until.is_none() {
                leaving.until = Some(now + patience);
            }
        }
        let has_time = |leaving: Leaving| leaving.until.is_none_or(|until| now < until);
        self.0.retain(|follower| follower.leaving.is_none_or(has_time));
    }

    /// Returns whether any removed member is still being sent entries.
    pub(in crate::raft) fn any_is_leaving(&self) -> bool {
        self.0.iter().any(|follower| follower.leaving.is_some())
    }

    /// Returns whether this node in this incarnation was removed and is still being sent entries.
    pub(in crate::raft) fn is_leaving(&self, node: NodeId, incarnation: Option<Incarnation>) -> bool {
        let is_it = |follower: &&Follower| follower.node == node && follower.leaving.is_some();
        self.0.iter().find(is_it).is_some_and(|follower| follower.incarnation == incarnation)
    }

    /// The follower at this position of the list, if there is one.
    pub(in crate::raft) fn at_mut(&mut self, place: usize) -> Option<(NodeId, &mut Progress)> {
        self.0.get_mut(place).map(|follower| (follower.node, &mut follower.progress))
    }

    /// The progress of this node, if it is a follower.
    pub(in crate::raft) fn of(&self, node: NodeId) -> Option<&Progress> {
        self.0.iter().find(|follower| follower.node == node).map(|follower| &follower.progress)
    }

    /// The mutable progress of this node, if it is a follower.
    pub(in crate::raft) fn of_mut(&mut self, node: NodeId) -> Option<&mut Progress> {
        self.0.iter_mut().find(|follower| follower.node == node).map(|follower| &mut follower.progress)
    }

    pub(in crate::raft) fn iter(&self) -> impl Iterator<Item = (NodeId, &Progress)> {
        self.0.iter().map(|follower| (follower.node, &follower.progress))
    }

    pub(in crate::raft) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Progress> {
        self.0.iter_mut().map(|follower| &mut follower.progress)
    }

    /// Deliberate bug: the leader sends nothing more to a removed member.
    fn drop_removed_by_mutant(&mut self) {
        if mutant::is_active(Mutant::RemovedMemberNotTold) {
            self.0.retain(|follower| follower.leaving.is_none());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peers(ids: &[u64]) -> Vec<(NodeId, Option<Incarnation>)> {
        ids.iter().map(|id| (NodeId(*id), None)).collect()
    }

    fn ids(followers: &Followers) -> Vec<u64> {
        followers.iter().map(|(node, _)| node.0).collect()
    }

    #[test]
    fn a_staying_member_keeps_its_progress_and_a_removed_one_is_kept_until_its_removal_is_committed() {
        let now = Instant::default();
        let patience = Duration::from_millis(600);
        let mut followers = Followers::default();
        followers.serve(&peers(&[2, 4]), LogIndex(7), LogIndex(1), now);
        followers.of_mut(NodeId(4)).unwrap().accepted(LogIndex(7));
        followers.serve(&peers(&[1, 3, 4]), LogIndex(9), LogIndex(8), now);
        assert_eq!(ids(&followers), [1, 2, 3, 4]);
        assert_eq!(followers.at_mut(1).map(|(node, _)| node), Some(NodeId(2)));
        assert!(followers.at_mut(4).is_none());
        assert!(followers.is_leaving(NodeId(2), None) && !followers.is_leaving(NodeId(4), None));
        let known = |node| followers.of(node).unwrap().match_index();
        assert_eq!((known(NodeId(3)), known(NodeId(4))), (LogIndex::ORIGIN, LogIndex(7)));
        followers.let_go(LogIndex(7), now + patience, patience);
        assert_eq!(ids(&followers), [1, 2, 3, 4], "its removal is not committed");
        followers.let_go(LogIndex(8), now + patience, patience);
        followers.let_go(LogIndex(8), now + patience + patience, patience);
        assert_eq!(ids(&followers), [1, 3, 4]);
    }

    #[test]
    fn another_incarnation_under_the_same_id_starts_with_new_progress() {
        let now = Instant::default();
        let mut followers = Followers::default();
        let member = |incarnation: Option<u64>| [(NodeId(2), incarnation.map(Incarnation))];
        followers.serve(&member(Some(7)), LogIndex(9), LogIndex(1), now);
        followers.of_mut(NodeId(2)).unwrap().accepted(LogIndex(9));
        followers.serve(&member(Some(7)), LogIndex(9), LogIndex(2), now);
        assert_eq!(followers.of(NodeId(2)).unwrap().match_index(), LogIndex(9));
        followers.serve(&[], LogIndex(9), LogIndex(3), now);
        followers.serve(&member(None), LogIndex(9), LogIndex(4), now);
        assert_eq!(followers.of(NodeId(2)).unwrap().match_index(), LogIndex::ORIGIN);
        followers.of_mut(NodeId(2)).unwrap().accepted(LogIndex(5));
        followers.serve(&member(Some(8)), LogIndex(9), LogIndex(5), now);
        assert_eq!(followers.of(NodeId(2)).unwrap().match_index(), LogIndex::ORIGIN);
    }
}
