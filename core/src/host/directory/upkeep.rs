//! Upkeep of the links: unused ones end, and those that could not start are started again.

use std::time::Duration;

use super::{Directory, Start};
use crate::host::{LinkChange, PeerActions, PeerNews};
use crate::mutant::{self, Mutant};
use crate::peer::{PeerEvent, Standing};
use crate::raft::NodeId;
use crate::time::Instant;

/// How long a link to a node that is no member is kept while nothing is sent over it.
pub const LINK_GRACE: Duration = Duration::from_secs(10);

/// The pause between two searches for unused links.
const TIDY_EVERY: Duration = Duration::from_secs(1);

/// After how long without a leader a node dials one of the members anew, and then another one, and
/// so on. Chosen well above the time of an election.
const LONELY_MAX: Duration = Duration::from_secs(5);

impl Directory {
    /// Ends the links to nodes that are no members once nothing was sent over them for
    /// [`LINK_GRACE`]; `was_used` says of a link whether anything was since it was last asked.
    /// Cheap when it is not time for that.
    pub fn tidy(
        &mut self,
        now: Instant,
        mut was_used: impl FnMut(NodeId) -> bool,
        actions: &mut PeerActions,
    ) {
        if now < self.tidy_at {
            return;
        }
        self.tidy_at = now + TIDY_EVERY;
        self.links.retain(|node, linked| {
            let Some(idle_since) = &mut linked.idle_since else { return true };
            if was_used(*node) {
                *idle_since = now;
            }
            let is_needed = now.since(*idle_since) < LINK_GRACE;
            if !is_needed {
                self.retired.insert(*node);
                actions.links.push(LinkChange::End(*node));
            }
            is_needed
        });
        self.dial_a_member_anew(now, actions);
        self.start_again(actions);
    }

    /// Where the members that this node knows have itself; `None`: it is none of them.
    pub(super) fn own_place(&self) -> Option<Box<str>> {
        let Standing::Member(_, configuration) = &self.local.standing else { return None };
        configuration.roster().member(self.local.id).map(|own| own.address.clone())
    }

    /// This node has moved, and is where the members have it from now on. A member whose log lacks
    /// that entry believes it from the node itself, if that knows a later configuration when it
    /// dials; a connection from before was made without. Such a member could never answer a leader
    /// that has moved, and would never get the entry.
    pub(super) fn dial_all_anew(&mut self, actions: &mut PeerActions) {
        for (node, linked) in &mut self.links {
            linked.is_met = false;
            actions.links.push(LinkChange::End(*node));
            actions.links.push(LinkChange::Start(*node, linked.address.clone()));
        }
    }

    /// The operating system does not let the link to this node start, for instance for want of
    /// threads. That ends no node: it is told once, and the link is ordered again with the next
    /// [`tidy`](Self::tidy).
    pub fn not_started(&mut self, node: NodeId, why: &std::io::Error, actions: &mut PeerActions) {
        let Some(linked) = self.links.get_mut(&node) else { return };
        if linked.start == Start::Ordered {
            actions.news.push(PeerNews::Report(PeerEvent::Lost(node, why.to_string())));
        }
        linked.start = Start::Failed;
    }

    fn start_again(&mut self, actions: &mut PeerActions) {
        for (node, linked) in &mut self.links {
            if linked.start == Start::Failed {
                linked.start = Start::OrderedAgain;
                actions.links.push(LinkChange::Start(*node, linked.address.clone()));
            }
        }
    }

    /// A node that hears of no leader may have been removed while it had connections to all
    /// members: none of them has anything to send to it any more. So it dials one after the other
    /// again, to be told. Those that it has no connection to are being dialled: a link that began
    /// anew would forget how often it was refused.
    fn dial_a_member_anew(&mut self, now: Instant, actions: &mut PeerActions) {
        if self.has_leader {
            self.lonely_since = None;
            return;
        }
        let since = *self.lonely_since.get_or_insert(now);
        if now.since(since) < LONELY_MAX || mutant::is_active(Mutant::LonelyNodeWaits) {
            return;
        }
        self.lonely_since = Some(now);
        let met = || self.links.iter().filter(|(_, linked)| linked.is_met).map(|(node, _)| *node);
        let next = met().find(|node| *node > self.dialled_anew).or_else(|| met().next());
        let Some(node) = next else { return };
        self.dialled_anew = node;
        let Some(linked) = self.links.get_mut(&node) else { return };
        linked.is_met = false;
        actions.links.push(LinkChange::End(node));
        actions.links.push(LinkChange::Start(node, linked.address.clone()));
    }
}
