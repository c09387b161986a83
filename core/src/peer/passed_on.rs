//! Requests of other nodes' clients at this node: who asked, and under which name.

use std::collections::BTreeMap;

use super::CallId;
use crate::raft::NodeId;
use crate::replica::RequestId;

/// The most requests of other nodes that wait at this one; each of them is limited by its own proxy, too.
pub const PASSED_ON_MAX: usize = 1 << 17;

/// Names from here on belong to requests of other nodes; those below, to the own proxy.
const FIRST_ID: u64 = 1 << 63;

/// The requests under way.
#[derive(Debug, Default)]
pub struct PassedOn {
    given_out: u64,
    waiting: BTreeMap<RequestId, (NodeId, CallId)>,
}

impl PassedOn {
    /// A name for a request of `peer`; `None`: too many wait.
    pub fn take(&mut self, peer: NodeId, call: CallId) -> Option<RequestId> {
        if self.waiting.len() >= PASSED_ON_MAX {
            return None;
        }
        // A million of them a second would take a quarter of a million years to get to the end.
        let id = RequestId(FIRST_ID + self.given_out);
        self.given_out += 1;
        self.waiting.insert(id, (peer, call));
        Some(id)
    }

    /// Whom the answer to `id` is for; `None`: the own proxy.
    pub fn answered(&mut self, id: RequestId) -> Option<(NodeId, CallId)> {
        if id.0 < FIRST_ID { None } else { self.waiting.remove(&id) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_finds_who_asked() {
        let mut passed_on = PassedOn::default();
        let call = CallId { boot: 1, request: RequestId(7) };
        let (one, other) =
            (passed_on.take(NodeId(2), call).unwrap(), passed_on.take(NodeId(3), call).unwrap());
        assert_eq!(passed_on.answered(other), Some((NodeId(3), call)));
        assert_eq!(passed_on.answered(RequestId(7)), None, "it is the own proxy's");
        assert_eq!(passed_on.answered(one), Some((NodeId(2), call)));
        assert_eq!(passed_on.answered(one), None);
    }

    #[test]
    fn there_is_a_limit() {
        let mut passed_on = PassedOn::default();
        let call = CallId { boot: 1, request: RequestId(7) };
        let ids: Vec<_> = (0..=PASSED_ON_MAX).map(|_| passed_on.take(NodeId(2), call)).collect();
        assert_eq!(ids.iter().filter(|id| id.is_some()).count(), PASSED_ON_MAX);
        passed_on.answered(ids[0].unwrap());
        assert!(passed_on.take(NodeId(2), call).is_some());
    }
}
