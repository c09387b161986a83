//! Forwarded requests: a node sends a client's request to another node, which answers it.
//!
//! A network may deliver a request twice, and a write without a session must not be applied twice.
//! So the sender numbers the requests that it forwards ([`Forwarder`]), and the receiver accepts
//! only a number above the last one ([`Forwarded`]).
//!
//! The numbers belong to a run (boot) of the sender and an incarnation of the receiver, never to a
//! connection. If they started at 1 again for every link, a receiver that remembers the run would
//! drop all requests of a link that replaced another one after the member's address had changed,
//! and the client would receive no answer.

use std::collections::BTreeMap;

use super::Link;
use crate::identity::Incarnation;
use crate::mutant::{self, Mutant};
use crate::peer::{CallId, Outbox, PeerFrame};
use crate::proxy::ProxyInput;
use crate::raft::{Message, NodeId};
use crate::replica::{Answer, Input, Request, RequestId, RequestRefusal};

/// The most forwarded requests that wait at one node; each sender's proxy has a limit as well.
pub const FORWARDED_MAX: usize = 1 << 17;

/// The sender's side: numbers the requests that a node forwards.
#[derive(Debug)]
pub struct Forwarder {
    boot: u64,
    /// Per node: the incarnation of the last connection, and the number of the last request
    /// forwarded to it.
    last: BTreeMap<NodeId, (Incarnation, u64)>,
}

impl Forwarder {
    /// Creates the state for this run (`boot`) of the node, which has not forwarded anything yet.
    #[must_use]
    pub fn new(boot: u64) -> Self {
        Self { boot, last: BTreeMap::new() }
    }

    /// Notes a connection to `node`. Another incarnation than the last one has accepted no requests
    /// yet, so its numbers start again at 1.
    pub fn connected(&mut self, node: NodeId, incarnation: Incarnation) {
        let last = self.last.entry(node).or_insert((incarnation, 0));
        if last.0 != incarnation {
            *last = (incarnation, 0);
        }
    }

    /// Adds a request for `node` to its outbox; `None`: there is no connection. Returns the answer
    /// if the request is not sent: then it had no effect, and the proxy may send it to another
    /// node.
    pub fn forward(
        &mut self,
        node: NodeId,
        input: &Input,
        outbox: Option<&mut Outbox>,
    ) -> Option<ProxyInput> {
        let Input::Request(id, request) = input else { return None };
        let call = CallId { boot: self.boot, request: *id };
        let because = match (outbox, self.last.get_mut(&node)) {
            (Some(outbox), Some((_, sequence))) => {
                *sequence += 1;
                if outbox.push_ask(call, *sequence, request) {
                    return None;
                }
                RequestRefusal::Overloaded
            }
            _ => RequestRefusal::NotConnected,
        };
        Some(ProxyInput::Answer(node, *id, Answer::Refused(because)))
    }

    /// Forwards requests over the link to the node, if there is one. Returns the answers to those
    /// that are rejected.
    pub fn forward_all(
        &mut self,
        node: NodeId,
        requests: &[Input],
        link: Option<&mut Link>,
    ) -> Vec<ProxyInput> {
        let mut link = link;
        let mut outbox = link.as_deref_mut().and_then(Link::requests);
        let refused = |input| self.forward(node, input, outbox.as_deref_mut());
        let refused = requests.iter().filter_map(refused).collect();
        link.into_iter().for_each(Link::note_waiting);
        refused
    }
}

/// The last request that was accepted from a node.
#[derive(Clone, Copy, Debug)]
struct Last {
    incarnation: Incarnation,
    boot: u64,
    sequence: u64,
}

/// The receiver's side: the requests of other nodes that are under way at this node, and the ids
/// that its host assigns.
#[derive(Debug, Default)]
pub struct Forwarded {
    given_out: u64,
    waiting: BTreeMap<RequestId, (NodeId, CallId)>,
    last: BTreeMap<NodeId, Last>,
}

/// The decision about another node's request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// Accepted, under this local id.
    Accepted(RequestId),
    /// A duplicate, or late: it must not be executed, and no client waits for an answer to this
    /// copy.
    Duplicate,
    /// Rejected: too many requests wait.
    Overloaded,
}

impl Forwarded {
    /// Returns an id that no other request at this node has.
    pub(super) fn next_id(&mut self) -> RequestId {
        let id = RequestId::of_host(self.given_out);
        self.given_out += 1;
        id
    }

    fn accept(&mut self, (peer, incarnation): (NodeId, Incarnation), call: CallId, sequence: u64) -> Verdict {
        let fresh = Last { incarnation, boot: call.boot, sequence: 0 };
        let last = self.last.entry(peer).or_insert(fresh);
        let is_same_boot = last.boot == call.boot || mutant::is_active(Mutant::ForwardedNumbersKept);
        if last.incarnation != incarnation || !is_same_boot {
            *last = fresh;
        }
        if sequence <= last.sequence && !mutant::is_active(Mutant::ForwardedAgain) {
            return Verdict::Duplicate;
        }
        last.sequence = sequence;
        if self.waiting.len() >= FORWARDED_MAX {
            return Verdict::Overloaded;
        }
        let id = self.next_id();
        self.waiting.insert(id, (peer, call));
        Verdict::Accepted(id)
    }

    /// Turns the frames that `peer` has sent over a connection with this incarnation into inputs.
    /// Returns the requests to reject at once, either because too many wait or because `is_refused`
    /// returns `true`: there is no memory for the data that they would add. Each message is
    /// labelled with the incarnation of its connection, by which Raft decides whether the message
    /// counts.
    pub fn receive(
        &mut self,
        peer: (NodeId, Incarnation),
        frames: Vec<PeerFrame>,
        is_refused: impl Fn(&Request) -> bool,
        inputs: &mut Vec<Input>,
    ) -> Vec<CallId> {
        let mut refused = Vec::new();
        for frame in frames {
            match frame {
                PeerFrame::Message(message) => {
                    let incarnation = Some(peer.1);
                    inputs.push(Input::Message(Message { incarnation, ..message }));
                }
                PeerFrame::Ask { call, sequence, request } => match self.accept(peer, call, sequence) {
                    Verdict::Accepted(id) if is_refused(&request) => {
                        self.waiting.remove(&id);
                        refused.push(call);
                    }
                    Verdict::Accepted(id) => inputs.push(Input::Request(id, request)),
                    Verdict::Duplicate => {}
                    Verdict::Overloaded => refused.push(call),
                },
                // The router handles answers, and the connection handles the rest.
                PeerFrame::Answer { .. } | PeerFrame::Piece(_) | PeerFrame::Ping | PeerFrame::Receipt(_) => {}
            }
        }
        refused
    }

    /// Returns the node that forwarded the request `id`, to send it the answer; `None`: the request
    /// is the local router's.
    pub fn answered(&mut self, id: RequestId) -> Option<(NodeId, CallId)> {
        if id.is_of_host() { self.waiting.remove(&id) } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::FrameBuffer;
    use crate::raft::{Body, RequestVoteResponse, Term};

    const PEER: (NodeId, Incarnation) = (NodeId(2), Incarnation(20));

    fn call(boot: u64) -> CallId {
        CallId { boot, request: RequestId(7) }
    }

    fn id(verdict: Verdict) -> RequestId {
        let Verdict::Accepted(id) = verdict else { panic!("{verdict:?}") };
        id
    }

    /// Returns everything in an outbox, as the peer decodes it.
    fn delivered(outbox: &mut Outbox) -> Vec<PeerFrame> {
        let mut stream = Vec::new();
        outbox.drain(&mut stream, usize::MAX, usize::MAX);
        let mut buffer = FrameBuffer::default();
        buffer.push(&stream);
        let next = || buffer.next_frame().unwrap().map(|bytes| PeerFrame::read(bytes).unwrap());
        std::iter::from_fn(next).collect()
    }

    #[test]
    fn an_answer_goes_to_the_node_that_forwarded_the_request() {
        let mut forwarded = Forwarded::default();
        let one = id(forwarded.accept(PEER, call(1), 1));
        let other = id(forwarded.accept((NodeId(3), Incarnation(30)), call(1), 1));
        assert_eq!(forwarded.answered(other), Some((NodeId(3), call(1))));
        assert_eq!(forwarded.answered(RequestId(7)), None, "it is the own router's");
        assert_eq!(forwarded.answered(one), Some((NodeId(2), call(1))));
        assert_eq!(forwarded.answered(one), None);
    }

    #[test]
    fn no_request_is_accepted_twice() {
        let mut forwarded = Forwarded::default();
        id(forwarded.accept(PEER, call(1), 1));
        id(forwarded.accept(PEER, call(1), 3));
        for sequence in [1, 2, 3] {
            assert_eq!(forwarded.accept(PEER, call(1), sequence), Verdict::Duplicate);
        }
        id(forwarded.accept((NodeId(3), Incarnation(30)), call(1), 1));
        id(forwarded.accept(PEER, call(5), 1));
        id(forwarded.accept((NodeId(2), Incarnation(21)), call(5), 1));
    }

    /// A member's address changes, so its link is replaced by one with a new outbox. The member
    /// itself keeps running, and remembers the numbers that it has accepted.
    #[test]
    fn a_new_link_loses_no_requests() {
        let (mut forwarder, mut forwarded) = (Forwarder::new(5), Forwarded::default());
        let mut accepted = |forwarder: &mut Forwarder, incarnation, asked: std::ops::Range<u64>| {
            forwarder.connected(NodeId(2), incarnation);
            let mut link = Outbox::default();
            for id in asked {
                let input = Input::Request(RequestId(id), Request::Status);
                assert!(forwarder.forward(NodeId(2), &input, Some(&mut link)).is_none());
            }
            let mut inputs = Vec::new();
            let sender = (NodeId(1), Incarnation(10));
            let refused = forwarded.receive(sender, delivered(&mut link), |_| false, &mut inputs);
            assert!(refused.is_empty());
            inputs.len()
        };
        assert_eq!(accepted(&mut forwarder, Incarnation(20), 0..3), 3);
        assert_eq!(accepted(&mut forwarder, Incarnation(20), 3..5), 2, "over the new link");
        // A node that has lost its files runs under the same id: the numbers start again at 1.
        forwarder.connected(NodeId(2), Incarnation(21));
        assert_eq!(forwarder.last[&NodeId(2)], (Incarnation(21), 0));
    }

    #[test]
    fn a_request_that_cannot_be_sent_is_answered_at_once() {
        let mut forwarder = Forwarder::new(5);
        let input = Input::Request(RequestId(7), Request::Status);
        let Some(ProxyInput::Answer(node, id, answer)) = forwarder.forward(NodeId(2), &input, None) else {
            panic!("there is no connection");
        };
        assert_eq!((node, id), (NodeId(2), RequestId(7)));
        assert_eq!(answer, Answer::Refused(RequestRefusal::NotConnected));
    }

    #[test]
    fn a_message_has_the_incarnation_of_its_connection() {
        let body = Body::RequestVoteResponse(RequestVoteResponse { round: 1, granted: true });
        let message = Message { from: NodeId(2), incarnation: None, to: NodeId(1), term: Term(3), body };
        let mut inputs = Vec::new();
        let frames = vec![PeerFrame::Message(message)];
        assert_eq!(Forwarded::default().receive(PEER, frames, |_| false, &mut inputs), []);
        assert!(matches!(&inputs[..], [Input::Message(Message { incarnation: Some(Incarnation(20)), .. })]));
    }

    #[test]
    fn a_request_without_memory_is_rejected_and_does_not_count_as_waiting() {
        let mut forwarded = Forwarded::default();
        let ask = |sequence, request| PeerFrame::Ask { call: call(1), sequence, request };
        let frames = vec![ask(1, Request::Status), ask(2, Request::Resign)];
        let mut inputs = Vec::new();
        let refused = forwarded.receive(PEER, frames, |request| *request == Request::Status, &mut inputs);
        assert_eq!((refused, forwarded.waiting.len()), (vec![call(1)], 1));
        assert!(matches!(inputs[..], [Input::Request(_, Request::Resign)]));
    }

    #[test]
    fn forwarded_requests_have_a_limit() {
        let mut forwarded = Forwarded::default();
        let verdicts: Vec<_> =
            (1..=FORWARDED_MAX as u64 + 1).map(|number| forwarded.accept(PEER, call(1), number)).collect();
        let accepted = verdicts.iter().filter(|verdict| matches!(verdict, Verdict::Accepted(_)));
        assert_eq!(accepted.count(), FORWARDED_MAX);
        assert_eq!(verdicts.last(), Some(&Verdict::Overloaded));
        forwarded.answered(id(verdicts[0]));
        id(forwarded.accept(PEER, call(1), u64::MAX));
    }
}
