//! Leader Append-Only: a leader never overwrites or deletes entries in its log (Raft, Figure 3;
//! S2).

use coracle_core::raft::{Role, Term};
use coracle_core::{Output, Replica};

use super::{ByNode, Verdict, require};

/// The term in which each node led after its last turn.
#[derive(Debug, Default)]
pub(super) struct LeaderAppendOnly {
    led_in: ByNode<Term>,
}

impl LeaderAppendOnly {
    pub(super) fn check(&mut self, replica: &Replica, outputs: &[Output]) -> Verdict {
        let node = replica.node();
        let leads = node.role() == Role::Leader;
        let led_before = self.led_in.get(&node.id()) == Some(&node.current_term());
        if leads {
            self.led_in.insert(node.id(), node.current_term());
        } else {
            self.led_in.remove(&node.id());
        }
        let cuts = outputs
            .iter()
            .any(|output| matches!(output, Output::Persist(persist) if persist.cut_from().is_some()));
        require(!(leads && led_before && cuts), "leader_append_only", || {
            format!("leader {} of term {} cut its log", node.id(), node.current_term())
        })
    }

    pub(super) fn restarted(&mut self, node: coracle_core::raft::NodeId) {
        self.led_in.remove(&node);
    }
}
