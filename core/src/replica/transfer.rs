//! Orders to hand leadership over, and whoever waits for what comes of them.

use super::Replica;
use super::face::{Answer, Output, Refused, RequestId};
use crate::raft::{NodeId, TransferError};
use crate::time::Instant;

impl Replica {
    pub(super) fn start_transfer(
        &mut self,
        id: RequestId,
        target: NodeId,
        now: Instant,
        outputs: &mut Vec<Output>,
    ) -> Result<(), Refused> {
        self.node.transfer_leadership(target, now).map_err(|error| match error {
            TransferError::NotLeader(_) => self.not_leader(),
            TransferError::NotVoter => Refused::NotVoter,
        })?;
        // The latest order counts, also for who waits for an earlier one.
        if let Some((earlier, _)) = self.transfer.replace((id, target)) {
            outputs.push(Output::Answer(earlier, Answer::Refused(Refused::TransferFailed)));
        }
        Ok(())
    }

    /// Answers who waits for leadership to be handed over, once it is known what came of it.
    pub(super) fn follow_transfer(&mut self, outputs: &mut Vec<Output>) {
        let Some((_, target)) = self.transfer else { return };
        let leader = self.active_leader();
        let Some(leader) = leader else { return };
        let answer = if leader == target {
            Answer::Transferred { to: target }
        } else {
            Answer::Refused(Refused::TransferFailed)
        };
        if let Some((request, _)) = self.transfer.take() {
            outputs.push(Output::Answer(request, answer));
        }
    }
}
