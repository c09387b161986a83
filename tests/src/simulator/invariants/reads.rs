//! Reads after a restart: a restarted node answers no read before it has applied the entries that
//! its disk held at the start, as far as its log still reaches. Otherwise an answer could be older
//! than one that it gave before.

use coracle_core::raft::{LogIndex, NodeId};
use coracle_core::{Answer, Output, Replica};

use super::{ByNode, Verdict, require};

/// The index up to which each node must have applied its log before it answers a read.
#[derive(Debug, Default)]
pub(super) struct Reads {
    from: ByNode<LogIndex>,
}

impl Reads {
    pub(super) fn restarted(&mut self, node: NodeId, end: LogIndex) {
        self.from.insert(node, end);
    }

    pub(super) fn check(&mut self, replica: &Replica, outputs: &[Output]) -> Verdict {
        let id = replica.node().id();
        let from = self.from.entry(id).or_default();
        *from = (*from).min(replica.node().log().last().index);
        for output in outputs {
            let Output::Answer(_, Answer::Read { index, .. }) = output else { continue };
            require(*index >= *from, "reads", || {
                format!("node {id} answers a read at {index}, and its disk held {from} when it started")
            })?;
        }
        Ok(())
    }
}
