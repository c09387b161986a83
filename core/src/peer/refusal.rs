//! Handshake refusals: why two nodes do not connect, and what the operator can do about it.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::hello::{PEER_FORMAT, PEER_VERSION, line};
use crate::mutant::{self, Mutant};
use crate::raft::NodeId;

/// The reason why one node refuses a handshake with another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum HandshakeRefusal {
    /// The line is not a handshake of this protocol version.
    NotUnderstood,
    /// The dialler expected another node.
    WrongNode {
        /// The node that the dialler expected.
        wanted: u64,
        /// The node that answered.
        found: u64,
    },
    /// The nodes belong to different clusters.
    OtherCluster {
        /// The cluster of the node that refuses.
        ours: String,
        /// The cluster of the other node.
        theirs: String,
    },
    /// The node is a member with another incarnation: its files were lost, or are those of another
    /// node.
    OtherIncarnation {
        /// The id of the node.
        node: u64,
        /// The member's incarnation.
        known: String,
        /// The node's incarnation.
        found: String,
    },
    /// A node without files uses an id that was added at another address.
    OtherAddress {
        /// The id of the node.
        node: u64,
        /// The member's address.
        expected: Box<str>,
        /// The address that the node states.
        found: Box<str>,
    },
    /// The node states another id than the one in its certificate.
    OtherCertificate {
        /// The id that the node states.
        node: u64,
        /// The id in its certificate.
        proven: u64,
    },
    /// The node was removed from the cluster, by a committed configuration that it may not know.
    Removed {
        /// The id of the node.
        node: u64,
        /// The log index of that configuration.
        index: u64,
    },
    /// Two processes run with the same id and incarnation: a data folder was copied.
    RunsTwice {
        /// The id of the node.
        node: u64,
        /// The client address of the first process, if it is known.
        first: String,
        /// The client address of the second process.
        second: String,
    },
    /// The two nodes do not agree on the founders of a cluster.
    OtherFounders,
    /// The node's program does not support the level of the cluster.
    LevelTooLow {
        /// The id of the node.
        node: u64,
        /// The level of the cluster.
        level: u64,
    },
    /// The node has no files and is not a member.
    NotMember {
        /// The id of the node.
        node: u64,
    },
}

impl fmt::Display for HandshakeRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotUnderstood => write!(
                f,
                "it did not send a {PEER_FORMAT} handshake of version {PEER_VERSION}: check that the address \
                 is a peer address and that both programs have the same version"
            ),
            Self::WrongNode { wanted, found } => {
                write!(
                    f,
                    "node {wanted} was expected and node {found} answered: compare the addresses in --peers"
                )
            }
            Self::OtherCluster { ours, theirs } => {
                write!(f, "it belongs to cluster {theirs}, not to {ours}: compare addresses and data folders")
            }
            Self::OtherIncarnation { node, known, found } => write!(
                f,
                "node {node} is a member with incarnation {known}, but this node has incarnation {found}: \
                 its files were lost or replaced, so it may have forgotten a vote or acknowledged entries. \
                 To bring it back, remove it with `coracle member remove {node}`, add it again with `coracle \
                 member add {node}=HOST:PORT`, and start it with an empty data folder and --join"
            ),
            Self::OtherAddress { node, expected, found } => write!(
                f,
                "node {node} was added at {expected}, but this node has the address {found}: two machines \
                 may have been started as node {node}. If this is the right node, start it with --join, or \
                 add it with `coracle member add {node}={found}`"
            ),
            Self::OtherCertificate { node, proven } => write!(
                f,
                "it is started as node {node}, and its certificate is of node {proven}: give node {node} the \
                 certificate that was made for it"
            ),
            Self::Removed { node, index } => write!(
                f,
                "node {node} was removed from the cluster by entry {index} of the log. Its files are of no \
                 more use; to add a node under this id again, use `coracle member add {node}=HOST:PORT` and \
                 start it with an empty data folder and --join"
            ),
            Self::RunsTwice { node, first, second } => write!(
                f,
                "node {node} runs twice, with copies of one data folder: at {first} and at {second} (client \
                 addresses). The second process is refused. Delete the copied data folder: a node must have \
                 exactly one"
            ),
            Self::OtherFounders => {
                f.write_str("all founders of a cluster must be started with the same --peers")
            }
            Self::LevelTooLow { node, level } => write!(
                f,
                "node {node} runs a version that does not support level {level}, which the cluster has \
                 reached: start it with a newer version"
            ),
            Self::NotMember { node } => write!(
                f,
                "node {node} is not a member of the cluster: add it with `coracle member add \
                 {node}=HOST:PORT`, and start it with --join"
            ),
        }
    }
}

impl std::error::Error for HandshakeRefusal {}

/// The line that sends a refusal.
#[derive(Serialize, Deserialize)]
pub(super) struct RefusalText {
    format: String,
    version: u64,
    pub(super) refused: HandshakeRefusal,
}

/// Distinguishes a final refusal from one by a node that is briefly behind: counts how often it was
/// received.
#[derive(Debug, Default)]
pub struct FinalRefusals {
    heard: u32,
}

/// How often a node without a cluster must receive a refusal that is final for it before it gives
/// up. At the interval of bootstrap and joining, that takes about two seconds, enough for a member
/// that was briefly behind to catch up.
const FINAL_AFTER: u32 = 20;

impl FinalRefusals {
    /// Counts a refusal if it is final for `node`. Returns whether the node must give up.
    pub fn is_reached_by(&mut self, refusal: &HandshakeRefusal, node: NodeId) -> bool {
        if refusal.is_final_for(node) {
            self.heard += 1;
        }
        self.heard >= FINAL_AFTER || (self.heard > 0 && mutant::is_active(Mutant::FirstRefusalBelieved))
    }
}

impl HandshakeRefusal {
    /// Encodes the line, with its line break.
    ///
    /// # Panics
    ///
    /// Never.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let (format, version) = (PEER_FORMAT.to_owned(), PEER_VERSION);
        line(&RefusalText { format, version, refused: self.clone() })
    }

    /// Returns whether the refusal will not change by itself: `node` must be started in another
    /// way.
    #[must_use]
    pub fn is_final_for(&self, node: NodeId) -> bool {
        matches!(self, Self::OtherIncarnation { node: refused, .. } if *refused == node.0)
            || self.says_removed(node)
    }

    /// Returns whether the refusal says that another process runs as `node` already.
    #[must_use]
    pub fn says_runs_twice(&self, node: NodeId) -> bool {
        matches!(self, Self::RunsTwice { node: twice, .. } if *twice == node.0)
    }

    /// Returns whether the refusal says that `node` was removed. A single such refusal is enough,
    /// because it rests on a committed configuration.
    #[must_use]
    pub fn says_removed(&self, node: NodeId) -> bool {
        matches!(self, Self::Removed { node: removed, .. } if *removed == node.0)
    }
}
