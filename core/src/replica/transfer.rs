//! Leadership transfers on the replica: starts one for a request, and answers it when a leader is
//! known.

use super::Replica;
use super::interface::{Answer, Output, RequestId, RequestRefusal};
use crate::raft::{NodeId, TransferError};
use crate::time::Instant;

impl Replica {
    pub(super) fn start_transfer(
        &mut self,
        id: RequestId,
        target: NodeId,
        now: Instant,
        outputs: &mut Vec<Output>,
    ) -> Result<(), RequestRefusal> {
        self.node.transfer_leadership(target, now).map_err(|error| match error {
            TransferError::NotLeader(_) => self.not_leader(),
            TransferError::NotVoter => RequestRefusal::NotVoter,
        })?;
        // A later order replaces an earlier one, whose request fails.
        if let Some((earlier, _)) = self.transfer.replace((id, target)) {
            outputs.push(Output::Answer(earlier, Answer::Refused(RequestRefusal::TransferFailed)));
        }
        Ok(())
    }

    /// Answers the pending transfer once its result is known.
    pub(super) fn follow_transfer(&mut self, outputs: &mut Vec<Output>) {
        let Some((_, target)) = self.transfer else { return };
        let leader = self.active_leader();
        let Some(leader) = leader else { return };
        let answer = if leader == target {
            Answer::Transferred { to: target }
        } else {
            Answer::Refused(RequestRefusal::TransferFailed)
        };
        if let Some((request, _)) = self.transfer.take() {
            outputs.push(Output::Answer(request, answer));
        }
    }
}
