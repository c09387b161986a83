//! The followers of a leader, each with what the leader knows of it.

use super::progress::Progress;
use super::types::{LogIndex, NodeId};
use crate::time::Instant;

/// A row, ascending by id. There are at most as many as a configuration has members, and with a few of them nothing is found
/// faster than by looking at one after the other.
#[derive(Clone, Debug, Default)]
pub(super) struct Followers(Vec<(NodeId, Progress)>);

impl Followers {
    /// These are the followers from now on. Of those that are new it is known that the leader's own log ends at `last_index`.
    pub(super) fn serve(&mut self, peers: &[NodeId], last_index: LogIndex, now: Instant) {
        self.0.retain(|(node, _)| peers.contains(node));
        for &peer in peers {
            if self.of(peer).is_none() {
                self.0.push((peer, Progress::new(last_index, now)));
            }
        }
        self.0.sort_unstable_by_key(|(node, _)| *node);
    }

    /// Who is at this place of the row, if there is somebody.
    pub(super) fn at_mut(&mut self, place: usize) -> Option<(NodeId, &mut Progress)> {
        self.0.get_mut(place).map(|(node, progress)| (*node, progress))
    }

    /// What is known of this node, if it is a follower.
    pub(super) fn of(&self, node: NodeId) -> Option<&Progress> {
        self.0.iter().find(|(follower, _)| *follower == node).map(|(_, progress)| progress)
    }

    /// The same, to note what is news.
    pub(super) fn of_mut(&mut self, node: NodeId) -> Option<&mut Progress> {
        self.0.iter_mut().find(|(follower, _)| *follower == node).map(|(_, progress)| progress)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (NodeId, &Progress)> {
        self.0.iter().map(|(node, progress)| (*node, progress))
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Progress> {
        self.0.iter_mut().map(|(_, progress)| progress)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_stays_is_known_as_before_and_who_leaves_is_forgotten() {
        let now = Instant::default();
        let ids = |followers: &Followers| followers.iter().map(|(node, _)| node.0).collect::<Vec<_>>();
        let mut followers = Followers::default();
        followers.serve(&[NodeId(2), NodeId(4)], LogIndex(7), now);
        followers.of_mut(NodeId(4)).unwrap().accepted(LogIndex(7));
        followers.serve(&[NodeId(1), NodeId(3), NodeId(4)], LogIndex(9), now);
        assert_eq!(ids(&followers), [1, 3, 4]);
        assert_eq!(followers.at_mut(1).map(|(node, _)| node), Some(NodeId(3)));
        assert!(followers.at_mut(3).is_none());
        assert!(followers.of(NodeId(2)).is_none());
        let known = |node| followers.of(node).unwrap().match_index();
        assert_eq!((known(NodeId(3)), known(NodeId(4))), (LogIndex::ORIGIN, LogIndex(7)));
    }
}
