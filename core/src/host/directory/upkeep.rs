//! Link upkeep: ends unused links to nodes that are not members, restarts links that could not
//! start, and dials members again while there is no leader.

use std::time::Duration;

use super::{Directory, Start};
use crate::host::{LinkChange, PeerActions, PeerNews};
use crate::mutant::{self, Mutant};
use crate::peer::{PeerEvent, Standing};
use crate::raft::NodeId;
use crate::time::Instant;

/// How long an unused link to a node that is not a member is kept.
pub const LINK_GRACE: Duration = Duration::from_secs(10);

/// The interval between two checks for unused links.
const TIDY_EVERY: Duration = Duration::from_secs(1);

/// How long a node is without a leader before it dials one of the members again, and then the next
/// one after each further interval. Chosen well above the duration of an election.
const LEADERLESS_MAX: Duration = Duration::from_secs(5);

impl Directory {
    /// Ends the links to nodes that are not members after [`LINK_GRACE`] without use, and does the
    /// other upkeep of links. `was_used` returns whether anything was sent over a link since the
    /// last check. Cheap when no check is due.
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
        self.redial_next_member(now, actions);
        self.start_again(actions);
    }

    /// Returns this node's address in the configuration; `None`: the node is not a member.
    pub(super) fn own_place(&self) -> Option<Box<str>> {
        let Standing::Member(_, configuration) = &self.local.standing else { return None };
        configuration.roster().member(self.local.id).map(|own| own.address.clone())
    }

    /// Dials all nodes again after this node has moved, so that they learn its new address.
    ///
    /// A member whose log lacks the entry of the move accepts the new address from the node itself,
    /// if the node knows a later configuration when it dials. A connection from before the move
    /// carries no such statement. Without a new handshake that member could never answer a leader
    /// that has moved, and so would never receive the entry.
    pub(super) fn redial_all(&mut self, actions: &mut PeerActions) {
        for (node, linked) in &mut self.links {
            linked.is_connected = false;
            actions.links.push(LinkChange::End(*node));
            actions.links.push(LinkChange::Start(*node, linked.address.clone()));
        }
    }

    /// Notes that the operating system could not start the link to this node, for instance for lack
    /// of threads. This does not end the node: the failure is reported once, and the next
    /// [`tidy`](Self::tidy) orders the link again.
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

    /// Dials one connected member again while there is no leader, so that a removed node learns of
    /// its removal.
    ///
    /// A node may have been removed while it was connected to all members; then none of them has
    /// anything more to send to it. So it dials one after the other again, and any of them reports
    /// the removal. The members without a connection are being dialled already, and a restarted
    /// link would forget how often it was refused.
    fn redial_next_member(&mut self, now: Instant, actions: &mut PeerActions) {
        if self.has_leader {
            self.leaderless_since = None;
            return;
        }
        let since = *self.leaderless_since.get_or_insert(now);
        if now.since(since) < LEADERLESS_MAX || mutant::is_active(Mutant::LonelyNodeWaits) {
            return;
        }
        self.leaderless_since = Some(now);
        let met = || self.links.iter().filter(|(_, linked)| linked.is_connected).map(|(node, _)| *node);
        let next = met().find(|node| *node > self.last_redialed).or_else(|| met().next());
        let Some(node) = next else { return };
        self.last_redialed = node;
        let Some(linked) = self.links.get_mut(&node) else { return };
        linked.is_connected = false;
        actions.links.push(LinkChange::End(node));
        actions.links.push(LinkChange::Start(node, linked.address.clone()));
    }
}
