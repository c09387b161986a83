//! Requests of other nodes' clients at this node: who asked, and under which name.

use std::collections::BTreeMap;

use super::{CallId, PeerFrame};
use crate::identity::Incarnation;
use crate::raft::{Message, NodeId};
use crate::replica::{Input, RequestId};

/// The most requests of other nodes that wait at this one; each of them is limited by its own proxy, too.
pub const PASSED_ON_MAX: usize = 1 << 17;

/// Names from here on belong to requests of other nodes; those below, to the own proxy.
const FIRST_ID: u64 = 1 << 63;

/// The requests under way.
#[derive(Debug, Default)]
pub struct PassedOn {
    given_out: u64,
    waiting: BTreeMap<RequestId, (NodeId, CallId)>,
    /// The run of each node that asks, and the number of its last request.
    last: BTreeMap<NodeId, (u64, u64)>,
}

/// What becomes of a request of another node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Passed {
    /// It has this name here.
    As(RequestId),
    /// It was here before, or came too late: it must not be done, and nobody waits for an answer to this copy.
    Again,
    /// Too many wait.
    Overloaded,
}

impl PassedOn {
    /// Takes a request of `peer`. A network may deliver one twice, and a write without a session must not be done twice: so
    /// each has a number, and none is taken that is not above the last.
    fn take(&mut self, peer: NodeId, call: CallId, sequence: u64) -> Passed {
        let last = self.last.entry(peer).or_insert((call.boot, 0));
        if last.0 != call.boot {
            *last = (call.boot, 0);
        }
        if sequence <= last.1 {
            return Passed::Again;
        }
        last.1 = sequence;
        if self.waiting.len() >= PASSED_ON_MAX {
            return Passed::Overloaded;
        }
        // A million of them a second would take a quarter of a million years to get to the end.
        let id = RequestId(FIRST_ID + self.given_out);
        self.given_out += 1;
        self.waiting.insert(id, (peer, call));
        Passed::As(id)
    }

    /// Turns what `peer`, met in this incarnation, has sent into inputs. Returns the requests that have to be refused at once,
    /// because too many wait. Each message gets the incarnation of its connection: whether it counts is for Raft to say.
    pub fn receive(
        &mut self,
        (peer, incarnation): (NodeId, Incarnation),
        frames: Vec<PeerFrame>,
        inputs: &mut Vec<Input>,
    ) -> Vec<CallId> {
        let mut refused = Vec::new();
        for frame in frames {
            match frame {
                PeerFrame::Message(message) => {
                    let incarnation = Some(incarnation);
                    inputs.push(Input::Message(Message { incarnation, ..message }));
                }
                PeerFrame::Ask { call, sequence, request } => match self.take(peer, call, sequence) {
                    Passed::As(id) => inputs.push(Input::Request(id, request)),
                    Passed::Again => {}
                    Passed::Overloaded => refused.push(call),
                },
                // The proxy's.
                PeerFrame::Answer { .. } => {}
            }
        }
        refused
    }

    /// Whom the answer to `id` is for; `None`: the own proxy.
    pub fn answered(&mut self, id: RequestId) -> Option<(NodeId, CallId)> {
        if id.0 < FIRST_ID { None } else { self.waiting.remove(&id) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::{Body, RequestVoteResponse, Term};

    fn call(boot: u64) -> CallId {
        CallId { boot, request: RequestId(7) }
    }

    fn name(passed: Passed) -> RequestId {
        let Passed::As(id) = passed else { panic!("{passed:?}") };
        id
    }

    #[test]
    fn an_answer_finds_who_asked() {
        let mut passed_on = PassedOn::default();
        let one = name(passed_on.take(NodeId(2), call(1), 1));
        let other = name(passed_on.take(NodeId(3), call(1), 1));
        assert_eq!(passed_on.answered(other), Some((NodeId(3), call(1))));
        assert_eq!(passed_on.answered(RequestId(7)), None, "it is the own proxy's");
        assert_eq!(passed_on.answered(one), Some((NodeId(2), call(1))));
        assert_eq!(passed_on.answered(one), None);
    }

    #[test]
    fn nothing_is_taken_twice() {
        let mut passed_on = PassedOn::default();
        name(passed_on.take(NodeId(2), call(1), 1));
        name(passed_on.take(NodeId(2), call(1), 3));
        for sequence in [1, 2, 3] {
            assert_eq!(passed_on.take(NodeId(2), call(1), sequence), Passed::Again);
        }
        name(passed_on.take(NodeId(3), call(1), 1));
        name(passed_on.take(NodeId(2), call(5), 1));
    }

    #[test]
    fn a_message_has_the_incarnation_of_its_connection() {
        let body = Body::RequestVoteResponse(RequestVoteResponse { round: 1, granted: true });
        let message = Message { from: NodeId(2), incarnation: None, to: NodeId(1), term: Term(3), body };
        let mut inputs = Vec::new();
        let from = (NodeId(2), Incarnation(8));
        let frames = vec![PeerFrame::Message(message)];
        assert_eq!(PassedOn::default().receive(from, frames, &mut inputs), []);
        let [Input::Message(message)] = &inputs[..] else { panic!("{inputs:?}") };
        assert_eq!(message.incarnation, Some(Incarnation(8)));
    }

    #[test]
    fn there_is_a_limit() {
        let mut passed_on = PassedOn::default();
        let ids: Vec<_> =
            (1..=PASSED_ON_MAX as u64 + 1).map(|number| passed_on.take(NodeId(2), call(1), number)).collect();
        assert_eq!(ids.iter().filter(|passed| matches!(passed, Passed::As(_))).count(), PASSED_ON_MAX);
        assert_eq!(ids.last(), Some(&Passed::Overloaded));
        passed_on.answered(name(ids[0]));
        name(passed_on.take(NodeId(2), call(1), u64::MAX));
    }
}
