//! A link: one node's connection to another, which it dials again and again, and what waits to be sent over it.
//!
//! A link is up while there is a connection. Then the node and the router know of it, once for each time it goes up or down, and
//! messages and requests go into its outbox. While it is down nothing but answers is kept for later: all else would be too
//! old. Why it is down is reported once per reason, not once per attempt, and after each failure it backs off.
//!
//! Deliberately not here: sockets. A runtime dials, tells the link what came of it, and carries to their places what the link
//! appends to its news; and it takes bytes out of the link while it is up. Which links there are is decided by the
//! [`Directory`](super::Directory).

use std::fmt;
use std::time::Duration;

use crate::peer::{Backoff, CallId, Meeting, Outbox, PeerEvent, PeerRefusal};
use crate::proxy::ProxyInput;
use crate::raft::{Message, NodeId};
use crate::replica::{Answer, Input};

/// How long a connection, or the answer to a handshake, is waited for.
pub const HANDSHAKE_PATIENCE: Duration = Duration::from_secs(2);
/// How long what a refused connection still sends is read, so that the refusal arrives.
pub const REFUSAL_PATIENCE: Duration = Duration::from_millis(500);
/// How long a peer may take none of the bytes that are sent to it before its connection is given up: a hung peer.
pub const SEND_PATIENCE: Duration = Duration::from_secs(5);
/// How long the other machine may acknowledge nothing of what was sent, before the operating system gives the connection up:
/// it would wait for many minutes otherwise, with ever longer pauses.
pub const SILENCE_MAX: Duration = Duration::from_secs(2);
/// How often a node must hear from one other that it runs twice before it believes it: at the pace at which it dials some
/// eight seconds, in which the other has noticed the end of a run before this one: twice as long as it holds on to that one.
const RUNS_TWICE_MAX: u32 = 24;
/// Bytes sent at once: what is urgent waits for no more than this.
pub const SEND_BYTES: usize = 256 << 10;

/// Why there is no connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DialFailure {
    /// It cannot be made, or it broke: in the words of the operating system.
    Failed(String),
    /// One of the two nodes refuses the other.
    Refused(PeerRefusal),
    /// The other node has no cluster yet.
    NotReady,
}

impl fmt::Display for DialFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(why) => f.write_str(why),
            Self::Refused(refusal) => refusal.fmt(f),
            Self::NotReady => f.write_str("it has no cluster yet"),
        }
    }
}

impl From<std::io::Error> for DialFailure {
    fn from(error: std::io::Error) -> Self {
        Self::Failed(error.to_string())
    }
}

impl From<PeerRefusal> for DialFailure {
    fn from(refusal: PeerRefusal) -> Self {
        Self::Refused(refusal)
    }
}

/// Something that a link has to say, and to whom.
#[derive(Clone, Debug)]
pub enum LinkNews {
    /// To the operator.
    Report(PeerEvent),
    /// To the node.
    Node(Input),
    /// To the router.
    Router(ProxyInput),
    /// The other node says that this one was removed from the cluster: it has nothing more to do.
    Removed(PeerRefusal),
}

/// The state of a link. See the module.
#[derive(Debug)]
pub struct Link {
    own: NodeId,
    node: NodeId,
    outbox: Outbox,
    backoff: Backoff,
    is_up: bool,
    /// Whether what was taken last may still be on its way.
    is_sending: bool,
    /// Whether the link has to end.
    is_over: bool,
    /// Whether anything was sent since it was last asked.
    is_used: bool,
    /// How often the other node has said, since the link was up, that another process runs as this node.
    runs_twice: u32,
    /// The failure that was reported last, since the link was up.
    reported: String,
}

impl Link {
    /// A link from the node `own` to `node`, which is down. `seed` decides how it backs off.
    #[must_use]
    pub fn new(own: NodeId, node: NodeId, seed: u64) -> Self {
        Self {
            own,
            node,
            outbox: Outbox::default(),
            backoff: Backoff::new(seed),
            is_up: false,
            is_sending: false,
            is_over: false,
            is_used: true,
            runs_twice: 0,
            reported: String::new(),
        }
    }

    /// There is a connection; `false`: the link has to end, and the connection with it.
    pub fn go_up(&mut self, meeting: &Meeting, news: &mut Vec<LinkNews>) -> bool {
        if self.is_over {
            return false;
        }
        self.is_up = true;
        self.backoff.reset();
        self.runs_twice = 0;
        self.reported.clear();
        news.push(LinkNews::Report(PeerEvent::Connected(self.node)));
        news.push(LinkNews::Node(meeting.met()));
        let reachable = ProxyInput::Reachable(self.node, meeting.client_address.clone());
        news.push(LinkNews::Router(reachable));
        true
    }

    /// There is no connection any more, if there was one.
    pub fn go_down(&mut self, news: &mut Vec<LinkNews>) {
        if !std::mem::replace(&mut self.is_up, false) {
            return;
        }
        self.is_sending = false;
        self.outbox.disconnect();
        news.push(LinkNews::Router(ProxyInput::Unreachable(self.node)));
        news.push(LinkNews::Node(Input::PeerUnreachable(self.node)));
    }

    /// The connection broke, or could not be made. Returns how long to wait before it is dialled again.
    pub fn failed(&mut self, failure: DialFailure, news: &mut Vec<LinkNews>) -> Duration {
        self.go_down(news);
        if let DialFailure::Refused(refusal) = &failure {
            self.runs_twice += u32::from(refusal.says_runs_twice(self.own));
            if refusal.says_removed(self.own) || self.runs_twice >= RUNS_TWICE_MAX {
                news.push(LinkNews::Removed(refusal.clone()));
            }
        }
        let why = failure.to_string();
        if why != self.reported {
            self.reported.clone_from(&why);
            news.push(LinkNews::Report(match failure {
                DialFailure::Refused(refusal) => PeerEvent::Refused(self.node, refusal),
                DialFailure::Failed(_) | DialFailure::NotReady => PeerEvent::Lost(self.node, why),
            }));
        }
        self.backoff.pause()
    }

    /// The link is not wanted any more.
    pub fn end(&mut self, news: &mut Vec<LinkNews>) {
        self.is_over = true;
        self.go_down(news);
    }

    /// Whether the link has to end.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.is_over
    }

    /// Whether there is a connection.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.is_up
    }

    /// Adds a message of Raft, if the link is up.
    pub fn push_message(&mut self, message: &Message) {
        self.is_used = true;
        if self.is_up {
            self.outbox.push_message(message);
        }
    }

    /// Adds an answer. It waits for the next connection: who asked was there a moment ago.
    pub fn push_answer(&mut self, call: CallId, answer: &Answer) {
        self.is_used = true;
        self.outbox.push_answer(call, answer);
    }

    /// Where requests go, if the link is up.
    pub fn requests(&mut self) -> Option<&mut Outbox> {
        self.is_used = true;
        self.is_up.then_some(&mut self.outbox)
    }

    /// Whether there is something to send.
    #[must_use]
    pub fn has_work(&self) -> bool {
        !self.outbox.is_empty()
    }

    /// Moves what is to be sent next to the end of `bytes`. What was taken before has been sent.
    pub fn take(&mut self, bytes: &mut Vec<u8>) {
        self.outbox.take(bytes, SEND_BYTES);
        self.is_sending = !bytes.is_empty();
    }

    /// What was taken last has been sent.
    pub fn sent(&mut self) {
        self.is_sending = false;
    }

    /// Whether everything was sent that waited, if there is a connection.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        !self.is_up || (self.outbox.is_empty() && !self.is_sending)
    }

    /// Whether anything was to be sent since this was asked last.
    pub fn was_used(&mut self) -> bool {
        std::mem::take(&mut self.is_used)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Incarnation;
    use crate::peer::BACKOFF_MAX;
    use crate::raft::LogIndex;
    use crate::replica::{Request, RequestId};

    fn meeting() -> Meeting {
        Meeting {
            node: NodeId(2),
            incarnation: Incarnation(20),
            address: None,
            client_address: Some("c:2".into()),
            configuration_index: LogIndex(0),
            boot: 0,
            was_member: true,
            is_of_cluster: true,
        }
    }

    /// A removed member learns it from whichever member it dials; a member that dials a removed one learns nothing of itself.
    #[test]
    fn a_refusal_that_says_removed_is_for_the_node_that_it_names() {
        for (removed, told) in [(1, true), (2, false)] {
            let (mut link, mut news) = (Link::new(NodeId(1), NodeId(2), 1), Vec::new());
            link.failed(PeerRefusal::Removed { node: removed, index: 9 }.into(), &mut news);
            let is_told = |item: &LinkNews| matches!(item, LinkNews::Removed(_));
            assert_eq!(news.iter().any(is_told), told, "of node {removed}");
        }
    }

    #[test]
    fn a_node_that_runs_twice_ends_only_when_it_hears_that_again_and_again() {
        let (mut link, mut news) = (Link::new(NodeId(1), NodeId(2), 1), Vec::new());
        let refusal = || PeerRefusal::RunsTwice { node: 1, first: "a:1".into(), second: "b:1".into() };
        let ends = |news: &[LinkNews]| news.iter().any(|item| matches!(item, LinkNews::Removed(_)));
        for _ in 1..RUNS_TWICE_MAX {
            link.failed(refusal().into(), &mut news);
        }
        assert!(!ends(&news));
        assert!(link.go_up(&meeting(), &mut news), "the run before has ended");
        for _ in 1..RUNS_TWICE_MAX {
            link.failed(refusal().into(), &mut news);
        }
        assert!(!ends(&news));
        link.failed(refusal().into(), &mut news);
        assert!(ends(&news));
    }

    fn broken() -> DialFailure {
        DialFailure::Failed("connection refused".into())
    }

    fn reports(news: &mut Vec<LinkNews>) -> Vec<PeerEvent> {
        let report = |news| if let LinkNews::Report(event) = news { Some(event) } else { None };
        news.drain(..).filter_map(report).collect()
    }

    fn call() -> CallId {
        CallId { boot: 1, request: RequestId(7) }
    }

    #[test]
    fn a_failure_is_reported_once_per_reason_and_again_after_the_link_was_up() {
        let (mut link, mut news) = (Link::new(NodeId(1), NodeId(2), 1), Vec::new());
        for _ in 0..5 {
            assert!(link.failed(broken(), &mut news) <= BACKOFF_MAX);
        }
        link.failed(DialFailure::NotReady, &mut news);
        link.failed(DialFailure::NotReady, &mut news);
        assert_eq!(reports(&mut news).len(), 2);
        assert!(link.go_up(&meeting(), &mut news));
        link.failed(DialFailure::NotReady, &mut news);
        let expected =
            [PeerEvent::Connected(NodeId(2)), PeerEvent::Lost(NodeId(2), DialFailure::NotReady.to_string())];
        assert_eq!(reports(&mut news), expected);
        let refusal = PeerRefusal::OtherFounders;
        link.failed(refusal.clone().into(), &mut news);
        assert_eq!(reports(&mut news), [PeerEvent::Refused(NodeId(2), refusal)]);
    }

    #[test]
    fn the_node_and_the_router_hear_once_that_it_is_up_and_once_that_it_is_down() {
        let (mut link, mut news) = (Link::new(NodeId(1), NodeId(2), 1), Vec::new());
        link.go_down(&mut news);
        assert!(news.is_empty(), "it was never up");
        assert!(link.go_up(&meeting(), &mut news));
        assert!(matches!(
            news[..],
            [
                LinkNews::Report(_),
                LinkNews::Node(Input::PeerMet { .. }),
                LinkNews::Router(ProxyInput::Reachable(NodeId(2), Some(_)))
            ]
        ));
        news.clear();
        link.failed(broken(), &mut news);
        link.end(&mut news);
        let down = news.iter().filter(|news| !matches!(news, LinkNews::Report(_))).collect::<Vec<_>>();
        assert!(matches!(
            down[..],
            [
                LinkNews::Router(ProxyInput::Unreachable(NodeId(2))),
                LinkNews::Node(Input::PeerUnreachable(NodeId(2)))
            ]
        ));
    }

    #[test]
    fn without_a_connection_only_answers_are_kept() {
        let (mut link, mut news) = (Link::new(NodeId(1), NodeId(2), 1), Vec::new());
        assert!(link.requests().is_none());
        link.push_answer(call(), &Answer::OutcomeUnknown);
        assert!(link.has_work() && link.is_idle(), "it waits for a connection, and nobody for it");
        link.go_up(&meeting(), &mut news);
        assert!(link.requests().unwrap().push_ask(call(), 1, &Request::Status));
        link.go_down(&mut news);
        link.go_up(&meeting(), &mut news);
        let mut bytes = Vec::new();
        link.take(&mut bytes);
        assert!(!link.has_work() && !link.is_idle(), "it is on its way");
        link.sent();
        assert!(link.is_idle());
    }

    #[test]
    fn a_removed_node_hears_of_it_from_whomever_it_dials() {
        let removed = |node| DialFailure::Refused(PeerRefusal::Removed { node, index: 7 });
        for (node, hears) in [(1, true), (3, false)] {
            let (mut link, mut news) = (Link::new(NodeId(1), NodeId(2), 1), Vec::new());
            link.failed(removed(node), &mut news);
            assert_eq!(news.iter().any(|news| matches!(news, LinkNews::Removed(_))), hears);
        }
    }

    #[test]
    fn a_link_that_is_over_takes_no_connection() {
        let (mut link, mut news) = (Link::new(NodeId(1), NodeId(2), 1), Vec::new());
        link.end(&mut news);
        assert!(!link.go_up(&meeting(), &mut news) && news.is_empty() && link.is_over());
    }
}
