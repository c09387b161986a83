//! Where members are found, and which life of each is meant: what a transport needs to know of
//! them.
//!
//! It is part of the configuration, so it is replicated, rolled back and kept in snapshots with it,
//! and all nodes that have the same log have the same one. Raft itself only carries it: whether a
//! message really comes from the member that it names is for the transport to find out, before the
//! message gets here.
//!
//! A cluster that lives in one process has an empty roster.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::types::NodeId;
use crate::identity::Incarnation;
use crate::mutant::{self, Mutant};

/// The longest address, in bytes: a host name has at most 253, and a port follows.
pub const ADDRESS_BYTES_MAX: usize = 260;

/// Whether the text can be an address: 1 to [`ADDRESS_BYTES_MAX`] visible characters of ASCII, none
/// of which JSON would have to escape. Whether somebody is there is another question.
#[must_use]
pub fn is_address(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\';
    (1..=ADDRESS_BYTES_MAX).contains(&text.len()) && text.bytes().all(is_plain)
}

/// Which addition made a node a member. They are counted from 1 through the life of a cluster; a
/// founder's is 0. Who is removed and added again under the same id is another member, and its
/// number says so when the log no longer does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Addition(pub u64);

impl Addition {
    /// The highest that is believed of files and of others: each takes an entry of the log.
    pub const MAX: Self = Self(1 << 62);

    /// The one after it.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// Whether this is a founder's, or nobody was added yet: no file mentions it then.
    #[must_use]
    pub fn is_founding(&self) -> bool {
        self.0 == 0
    }
}

/// What is known of a member beside its id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Where its peers reach it: `HOST:PORT`.
    pub address: Box<str>,
    /// The life of the node that is the member. `None`: whoever comes first under the id, with
    /// nothing on its disk; so nobody votes before this is known.
    pub incarnation: Option<Incarnation>,
    /// Which addition made it a member.
    pub addition: Addition,
}

impl Member {
    /// A founder at this address.
    #[must_use]
    pub fn founder(address: Box<str>, incarnation: Option<Incarnation>) -> Self {
        Self { address, incarnation, addition: Addition::default() }
    }
}

/// The members that something is known of. Cloning copies nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roster {
    members: Arc<BTreeMap<NodeId, Member>>,
}

/// A member as it stands in files and messages.
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
    /// These members.
    #[must_use]
    pub fn new(members: impl IntoIterator<Item = (NodeId, Member)>) -> Self {
        Self { members: Arc::new(members.into_iter().collect()) }
    }

    /// Whether nothing is known of anybody.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// What is known of this member.
    #[must_use]
    pub fn member(&self, node: NodeId) -> Option<&Member> {
        self.members.get(&node)
    }

    /// All of them, ascending by id.
    pub fn iter(&self) -> impl Iterator<Item = (NodeId, &Member)> {
        self.members.iter().map(|(node, member)| (*node, member))
    }

    /// Whether this is a member of which nobody knows yet which life it is in.
    #[must_use]
    pub fn is_unbound(&self, node: NodeId) -> bool {
        self.member(node).is_some_and(|member| member.incarnation.is_none())
    }

    /// Whether a vote or an acknowledgement that a node sends in this incarnation counts for the
    /// member of its id. A node that is behind may follow a leader that was added again since, but
    /// must not count its answers: by the configuration that the node knows itself, they are
    /// another node's.
    #[must_use]
    pub fn counts(&self, node: NodeId, incarnation: Option<Incarnation>) -> bool {
        let known = self.member(node).and_then(|member| member.incarnation);
        known.is_none() || known == incarnation || mutant::is_active(Mutant::IncarnationIgnoredByOthers)
    }

    /// Whether the member of this id is the node in this incarnation: the rule by which a node
    /// finds itself in a configuration. Where nothing is known of the member, its id is all there
    /// is to compare.
    #[must_use]
    pub fn names(&self, node: NodeId, incarnation: Option<Incarnation>) -> bool {
        let is_blind = mutant::is_active(Mutant::IncarnationIgnoredBySelf);
        let matches = |member: &Member| member.incarnation.is_some() && member.incarnation == incarnation;
        self.member(node).is_none_or(|member| matches(member) || is_blind)
    }

    /// The same with this member added, or known better.
    #[must_use]
    pub fn with(&self, node: NodeId, member: Member) -> Self {
        let mut members = BTreeMap::clone(&self.members);
        members.insert(node, member);
        Self { members: Arc::new(members) }
    }

    /// What is known here or, of those of whom nothing is, in `other`, without those that `belongs`
    /// denies.
    pub(super) fn merged(&self, other: &Self, belongs: impl Fn(NodeId) -> bool) -> Self {
        if self.is_empty() && other.is_empty() {
            return Self::default();
        }
        let known = other.members.iter().chain(self.members.iter());
        let kept = known.filter(|(node, _)| belongs(**node));
        Self::new(kept.map(|(node, member)| (*node, member.clone())))
    }

    /// The members as they stand in files and messages, ascending by id.
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

    /// Reads what [`to_texts`](Self::to_texts) wrote; `None` when ids do not ascend, an address is
    /// none ([`is_address`]), or an incarnation is none.
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
    fn what_was_written_is_read() {
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
    fn what_no_roster_says_is_none() {
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
    fn what_is_known_better_wins_and_strangers_go() {
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
