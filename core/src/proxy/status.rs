//! Status requests: all nodes that can be asked are asked at once, and the reply has the answers
//! that arrived in time.

use super::pending::Place;
use super::{Answered, ClusterReport, NodeReport, Proxy, ProxyOutput, STATUS_TIMEOUT};
use crate::raft::NodeId;
use crate::replica::{Request, RequestId};
use crate::time::Instant;

impl Proxy {
    pub(super) fn ask_all(&mut self, id: RequestId, now: Instant, outputs: &mut Vec<ProxyOutput>) {
        let can_answer = |node: &NodeId| !self.stopped.contains(node) && self.is_reachable(*node);
        let running: Vec<_> = self.config.nodes.iter().copied().filter(can_answer).collect();
        let Some(pending) = self.pending.request_mut(id) else { return };
        self.questions.push_back((now + STATUS_TIMEOUT, id));
        outputs.extend(running.iter().map(|node| ProxyOutput::Ask(*node, id, Request::Status)));
        pending.place = Place::AtAll { missing: running.into_iter().collect(), found: Vec::new() };
        self.finish_status(id, outputs);
    }

    pub(super) fn finish_status(&mut self, id: RequestId, outputs: &mut Vec<ProxyOutput>) {
        let Some(pending) = self.pending.request_mut(id) else { return };
        if matches!(&pending.place, Place::AtAll { missing, .. } if missing.is_empty()) {
            self.reply_status(id, outputs);
        }
    }

    pub(super) fn reply_status(&mut self, id: RequestId, outputs: &mut Vec<ProxyOutput>) {
        let Some(pending) = self.pending.request_mut(id) else { return };
        let Place::AtAll { found, .. } = std::mem::replace(&mut pending.place, Place::Waiting) else {
            return;
        };
        let report = |&node: &NodeId| NodeReport {
            node,
            status: found.iter().find(|status| status.id == node).copied(),
            is_here: self.config.local.is_none_or(|local| local == node),
            client_address: self.reachable.get(&node).cloned().flatten(),
        };
        let nodes = self.config.nodes.iter().map(report).collect();
        self.close(id, Ok(Answered::Status(ClusterReport { nodes, memory: None })), outputs);
    }
}
