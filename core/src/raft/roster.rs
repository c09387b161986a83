//! The roster: address and incarnation of each member, as the transport needs them.
//!
//! The roster is part of the configuration. So it is replicated, rolled back and kept in snapshots
//! together with the configuration, and all nodes with the same log have the same roster. Raft only
//! stores it: whether a message really comes from the member that it names is for the transport to
//! verify, before the message gets here.
//!
//! A cluster that runs in one process has an empty roster.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::types::NodeId;
use crate::identity::Incarnation;
use crate::mutant::{self, Mutant};

/// The maximum length of an address in bytes: a host name has at most 253, and a port follows.
pub const ADDRESS_BYTES_MAX: usize = 260;

/// Returns whether the text has the form of an address: 1 to [`ADDRESS_BYTES_MAX`] printable ASCII
/// characters that JSON need not escape. It does not check whether a node listens there.
#[must_use]
pub fn is_address(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\';
    (1..=ADDRESS_BYTES_MAX).contains(&text.len()) && text.bytes().all(is_plain)
}

/// The number of the addition that made a node a member. Additions are counted from 1 over the
/// lifetime of a cluster; a founder has 0. A node that is removed and added again under the same id
/// is another member, and this number still shows it when the log no longer does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Addition(pub u64);

impl Addition {
    /// The maximum that is accepted from files and other nodes. It is never reached, because each
    /// addition takes a log entry.
    pub const MAX: Self = Self(1 << 62);

    /// The next number.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// Returns whether this is the number of a founder, or no node was added yet. Files leave it
    /// out then.
    #[must_use]
    pub fn is_founding(&self) -> bool {
        self.0 == 0
    }
}

/// The data about a member besides its id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The address at which its peers reach it: `HOST:PORT`.
    pub address: Box<str>,
    /// The incarnation of the node that is the member. `None` for a new member: the first node that
    /// connects under the id with nothing on its disk becomes the member; until then no node votes
    /// under this id.
    pub incarnation: Option<Incarnation>,
    /// The addition that made it a member.
    pub addition: Addition,
}

impl Member {
    /// A founder with this address.
    #[must_use]
    pub fn founder(address: Box<str>, incarnation: Option<Incarnation>) -> Self {
        Self { address, incarnation, addition: Addition::default() }
    }
}

/// The members whose data is known. Cloning copies nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roster {
    members: Arc<BTreeMap<NodeId, Member>>,
}

/// A member as encoded in files and messages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemberText {
    id: u64,
    address: Box<str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    incarnation: Option<String>,
    #[serde(default, skip_serializing_if = "Addition::is_founding")]
    addition: Addition,
}

impl Roster {
    /// A roster of these members.
    #[must_use]
    pub fn new(members: impl IntoIterator<Item = (NodeId, Member)>) -> Self {
        Self { members: Arc::new(members.into_iter().collect()) }
    }

    /// Returns whether no member is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// The data about this member.
    #[must_use]
    pub fn member(&self, node: NodeId) -> Option<&Member> {
        self.members.get(&node)
    }

    /// Iterates over all members, in ascending order of ids.
    pub fn iter(&self) -> impl Iterator<Item = (NodeId, &Member)> {
        self.members.iter().map(|(node, member)| (*node, member))
    }

    /// Returns whether this is a member whose incarnation is not known yet.
    #[cfg(test)]
    fn is_unbound(&self, node: NodeId) -> bool {
        self.member(node).is_some_and(|member| member.incarnation.is_none())
    }

    /// Returns whether a vote or an acknowledgement from this node and incarnation counts for the
    /// member with its id. A node that lags may follow a leader that was added again since, but
    /// must not count its answers: by the configuration that the node knows itself, they are those
    /// of another node.
    #[must_use]
    pub fn counts(&self, node: NodeId, incarnation: Option<Incarnation>) -> bool {
        let known = self.member(node).and_then(|member| member.incarnation);
        known.is_none() || known == incarnation || mutant::is_active(Mutant::IncarnationIgnoredByOthers)
    }

    /// Returns whether the member with this id is the node in this incarnation. By this rule a node
    /// finds itself in a configuration. If the roster does not know the member, the id alone
    /// decides.
    #[must_use]
    pub fn names(&self, node: NodeId, incarnation: Option<Incarnation>) -> bool {
        let matches = |member: &Member| member.incarnation.is_some() && member.incarnation == incarnation;
        self.member(node)
            .is_none_or(|member| matches(member) || mutant::is_active(Mutant::IncarnationIgnoredBySelf))
    }

    /// The same roster with this member added or replaced.
    #[must_use]
    pub fn with(&self, node: NodeId, member: Member) -> Self {
        let mut members = BTreeMap::clone(&self.members);
        members.insert(node, member);
        Self { members: Arc::new(members) }
    }

    /// This roster merged with `other`, from which it takes the members that it does not know
    /// itself; only members for which `belongs` returns true are kept.
    pub(super) fn merged(&self, other: &Self, belongs: impl Fn(NodeId) -> bool) -> Self {
        if self.is_empty() && other.is_empty() {
            return Self::default();
        }
        let known = other.members.iter().chain(self.members.iter());
        let kept = known.filter(|(node, _)| belongs(**node));
        Self::new(kept.map(|(node, member)| (*node, member.clone())))
    }

    /// The members as encoded in files and messages, in ascending order of ids.
    #[must_use]
    pub fn to_texts(&self) -> Vec<MemberText> {
        let text = |(node, member): (NodeId, &Member)| MemberText {
            id: node.0,
            address: member.address.clone(),
            incarnation: member.incarnation.map(|incarnation| incarnation.to_string()),
            addition: member.addition,
        };
        self.iter().map(text).collect()
    }

    /// Parses the output of [`to_texts`](Self::to_texts); `None` when ids do not ascend, or an
    /// address ([`is_address`]) or incarnation is invalid.
    #[must_use]
    pub fn from_texts(texts: &[MemberText]) -> Option<Self> {
        let ascend = texts.is_sorted_by(|one, next| one.id < next.id);
        let member = |text: &MemberText| {
            let incarnation = text.incarnation.as_deref().map(Incarnation::from_text);
            let is_address = is_address(&text.address);
            let incarnation = incarnation.map_or(Some(None), |known| known.map(Some))?;
            let (address, addition) = (text.address.clone(), text.addition);
            is_address.then_some((NodeId(text.id), Member { address, incarnation, addition }))
        };
        let members = texts.iter().map(member).collect::<Option<Vec<_>>>()?;
        ascend.then(|| Self::new(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(address: &str, incarnation: Option<u64>) -> Member {
        Member::founder(address.into(), incarnation.map(Incarnation))
    }

    #[test]
    fn a_written_roster_is_read_back() {
        let added = Member { addition: Addition(4), ..member("b:2", None) };
        let roster = Roster::new([(NodeId(2), added), (NodeId(1), member("a:1", Some(7)))]);
        let json = serde_json::to_string(&roster.to_texts()).unwrap();
        assert_eq!(
            json,
            r#"[{"id":1,"address":"a:1","incarnation":"0000000000000007"},{"id":2,"address":"b:2","addition":4}]"#
        );
        let texts: Vec<MemberText> = serde_json::from_str(&json).unwrap();
        assert_eq!(Roster::from_texts(&texts), Some(roster));
    }

    #[test]
    fn invalid_rosters_are_rejected() {
        let long = "a".repeat(ADDRESS_BYTES_MAX + 1);
        for wrong in [
            r#"[{"id":1,"address":""}]"#.to_owned(),
            r#"[{"id":1,"address":"a b:1"}]"#.to_owned(),
            r#"[{"id":1,"address":"a\":1"}]"#.to_owned(),
            r#"[{"id":1,"address":"a:1","incarnation":"7"}]"#.to_owned(),
            r#"[{"id":2,"address":"a:1"},{"id":1,"address":"a:1"}]"#.to_owned(),
            format!(r#"[{{"id":1,"address":"{long}"}}]"#),
        ] {
            let texts: Vec<MemberText> = serde_json::from_str(&wrong).unwrap();
            assert_eq!(Roster::from_texts(&texts), None, "{wrong}");
        }
    }

    #[test]
    fn a_merge_prefers_the_newer_roster_and_drops_nodes_that_are_no_members() {
        let old = Roster::new([(NodeId(1), member("a:1", None)), (NodeId(2), member("b:2", None))]);
        let new = old.with(NodeId(1), member("a:1", Some(7)));
        let merged = new.merged(&old, |node| node == NodeId(1));
        assert_eq!(merged, Roster::new([(NodeId(1), member("a:1", Some(7)))]));
        assert!(new.counts(NodeId(1), Some(Incarnation(7))) && !new.counts(NodeId(1), Some(Incarnation(8))));
        assert!(new.names(NodeId(1), Some(Incarnation(7))) && !new.names(NodeId(1), None));
        assert!(!old.names(NodeId(1), Some(Incarnation(7))) && old.names(NodeId(9), None));
        assert!(old.is_unbound(NodeId(1)) && !new.is_unbound(NodeId(1)) && !new.is_unbound(NodeId(9)));
    }
}
