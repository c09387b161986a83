//! Proofs of identity: compares the node that TLS has proven with the one that a handshake states,
//! and reports connections without a proof.
//!
//! A certificate proves which node the other end is, before the first line of the handshake. That
//! line must state the same id. Without TLS nothing is proven, and each function here is the one
//! without a proof.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{DialError, Directory, Greeting, PeerActions, PeerNews};
use crate::peer::{HandshakeRefusal, HandshakeResult, Hello, PeerEvent, Welcome};
use crate::raft::NodeId;
use crate::time::Instant;

/// The most nodes whose refusals are remembered. Further nodes are refused without a report.
const REFUSED_MAX: usize = 64;
/// The most reasons for a missing proof that are remembered. Further reasons are not reported.
const REASONS_MAX: usize = 16;
/// How long a reason for a missing proof is not reported again. Programs that scan ports would
/// otherwise fill the log.
const REPORT_AGAIN_AFTER: Duration = Duration::from_secs(60);
/// The first byte of TLS.
const TLS: u8 = 0x16;

/// The reasons for a missing proof that were reported, and when.
#[derive(Debug, Default)]
pub(super) struct Reported(BTreeMap<Box<str>, Instant>);

impl Reported {
    /// Returns whether this reason is to be reported now.
    fn is_due(&mut self, why: &str, now: Instant) -> bool {
        self.0.retain(|_, at| now.since(*at) < REPORT_AGAIN_AFTER);
        let is_due = !self.0.contains_key(why) && self.0.len() < REASONS_MAX;
        if is_due {
            self.0.insert(why.into(), now);
        }
        is_due
    }
}

impl Directory {
    /// Returns the first line of a handshake with `to`, as [`Directory::hello`], over a connection
    /// whose other end has proven to be the node `proven`.
    ///
    /// # Errors
    ///
    /// [`DialError::Refused`]: it is another node. Nothing may be sent to it.
    pub fn hello_to(&self, to: Option<NodeId>, proven: Option<NodeId>) -> Result<Vec<u8>, DialError> {
        match (to, proven) {
            (Some(wanted), Some(found)) if wanted != found => {
                Err(HandshakeRefusal::WrongNode { wanted: wanted.0, found: found.0 }.into())
            }
            _ => Ok(self.hello(to)),
        }
    }

    /// Checks the answer of a node that was dialled, as [`Directory::accept`], and that it states
    /// the id that it has proven.
    ///
    /// # Errors
    ///
    /// [`DialError`]: close the connection.
    pub fn accept_proven(
        &mut self,
        to: Option<NodeId>,
        proven: Option<NodeId>,
        line: &[u8],
        now: Instant,
    ) -> Result<(HandshakeResult, Welcome), DialError> {
        if proven.is_none() && line.first() == Some(&TLS) {
            let why = "it speaks TLS: start this node with --peer-cert, --peer-key and --peer-ca";
            return Err(DialError::Unproven(why.into()));
        }
        self.accept(to.or(proven), line, now)
    }

    /// Answers the first line of a node that has dialled, as [`Directory::greet`], if it states the
    /// id that it has proven.
    pub fn greet_proven(
        &mut self,
        proven: Option<NodeId>,
        line: &[u8],
        now: Instant,
        actions: &mut PeerActions,
    ) -> Greeting {
        let stated = Hello::decode(line).ok().map(|hello| hello.node());
        match (proven, stated) {
            (Some(proven), Some(node)) if proven != node => {
                let refusal = HandshakeRefusal::OtherCertificate { node: node.0, proven: proven.0 };
                actions.news.extend(self.report_stranger(node, &refusal).map(PeerNews::Report));
                Greeting { reply: refusal.encode(), handshake: None }
            }
            _ => self.greet(line, now, actions),
        }
    }

    /// Notes that a program has connected that did not prove to be a node of the cluster. This is
    /// reported at a limited rate.
    pub fn unproven(&mut self, why: &str, now: Instant, actions: &mut PeerActions) {
        if self.unproven.is_due(why, now) {
            actions.news.push(PeerNews::Report(PeerEvent::Unproven(None, why.into())));
        }
    }

    pub(super) fn report_stranger(&mut self, node: NodeId, refusal: &HandshakeRefusal) -> Option<PeerEvent> {
        let is_known = self.strangers.get(&node) == Some(refusal);
        let has_room = self.strangers.len() < REFUSED_MAX || self.strangers.contains_key(&node);
        if is_known || !has_room {
            return None;
        }
        self.strangers.insert(node, refusal.clone());
        Some(PeerEvent::Stranger(node, refusal.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_reported_once_a_minute_and_there_is_a_limit_of_reasons() {
        let mut reported = Reported::default();
        let at = |secs| Instant::default() + Duration::from_secs(secs);
        assert!(reported.is_due("expired", at(1)) && !reported.is_due("expired", at(60)));
        assert!(reported.is_due("expired", at(61)));
        for number in 1..REASONS_MAX {
            assert!(reported.is_due(&number.to_string(), at(62)));
        }
        assert!(!reported.is_due("one more", at(62)) && reported.is_due("one more", at(121)));
    }
}
