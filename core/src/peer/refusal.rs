//! Why two nodes do not speak to one another, and what to do about it.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::hello::{PEER_FORMAT, PEER_VERSION, line};
use crate::mutant::{self, Mutant};
use crate::raft::NodeId;

/// Why two nodes do not speak to one another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PeerRefusal {
    /// The line is no greeting of this version.
    NotUnderstood,
    /// Another node was meant.
    WrongNode {
        /// Who was meant.
        wanted: u64,
        /// Who is there.
        found: u64,
    },
    /// They are of different clusters.
    OtherCluster {
        /// That of the node that refuses.
        ours: String,
        /// The other's.
        theirs: String,
    },
    /// The node is a member in another life: its files were lost, or are somebody else's.
    OtherIncarnation {
        /// The node.
        node: u64,
        /// The life in which it is a member.
        known: String,
        /// The life that it has.
        found: String,
    },
    /// A node without files claims an id that was added for another address.
    OtherAddress {
        /// The node.
        node: u64,
        /// Where the member is expected.
        expected: Box<str>,
        /// Where the node says that its peers reach it.
        found: Box<str>,
    },
    /// The node was a member and was removed: by a committed configuration that it does not know
    /// yet.
    Removed {
        /// The node.
        node: u64,
        /// Where that configuration stands in the log.
        index: u64,
    },
    /// Two processes run as one node in one incarnation: a folder was copied.
    RunsTwice {
        /// The node.
        node: u64,
        /// Where clients reach the process that was there first, if it says so.
        first: String,
        /// Where they reach the other one.
        second: String,
    },
    /// Those who want to found a cluster do not agree on who does.
    OtherFounders,
    /// The node has no files and is no member.
    NotMember {
        /// The node.
        node: u64,
    },
}

impl fmt::Display for PeerRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotUnderstood => write!(
                f,
                "its greeting is none of {PEER_FORMAT} version {PEER_VERSION}: is it a peer's address, and a program \
                 that knows this version?"
            ),
            Self::WrongNode { wanted, found } => {
                write!(
                    f,
                    "node {wanted} was meant and node {found} is there: compare the addresses in --peers"
                )
            }
            Self::OtherCluster { ours, theirs } => {
                write!(
                    f,
                    "it belongs to the cluster {theirs}, and not to {ours}: compare addresses and data folders"
                )
            }
            Self::OtherIncarnation { node, known, found } => write!(
                f,
                "node {node} is a member in the life {known}, and this one is {found}: its files were lost or \
                 replaced, so it may have promised what it would not know of. To bring it back, remove it with \
                 `coracle member remove {node}`, add it again with `coracle member add {node}=HOST:PORT`, and start it \
                 with an empty data folder and --join"
            ),
            Self::OtherAddress { node, expected, found } => write!(
                f,
                "node {node} was added at {expected}, and this one says that it is at {found}: two machines may have been \
                 started as node {node}. If this is the right one, start it with --join, or add it with `coracle member add \
                 {node}={found}`"
            ),
            Self::Removed { node, index } => write!(
                f,
                "node {node} was removed from the cluster: it is no member since entry {index} of the log. Its files are of \
                 no more use to the cluster; to let a node in under this id again, add it with `coracle member add \
                 {node}=HOST:PORT` and start it with an empty data folder and --join"
            ),
            Self::RunsTwice { node, first, second } => write!(
                f,
                "node {node} runs twice, with copies of one folder: at {first} and at {second} (where clients reach \
                 them). The one that came second is refused. Only one folder of a node may ever be used: remove the copy"
            ),
            Self::OtherFounders => {
                f.write_str("the nodes that found a cluster must all be started with the same --peers")
            }
            Self::NotMember { node } => write!(
                f,
                "node {node} is no member of the cluster: let it in with `coracle member add {node}=HOST:PORT`, and \
                 start it with --join"
            ),
        }
    }
}

impl std::error::Error for PeerRefusal {}

/// The line that refuses.
#[derive(Serialize, Deserialize)]
pub(super) struct RefusalText {
    format: String,
    version: u64,
    pub(super) refused: PeerRefusal,
}

/// Tells a refusal that lasts from one of a node that is behind by a moment.
#[derive(Debug, Default)]
pub struct Finally {
    heard: u32,
}

/// How often a node without a cluster must hear that it is a member in another life before it
/// believes it: at the pace of founding and joining some two seconds, in which a member that was a
/// little behind has learned better.
const FINAL_AFTER: u32 = 20;

impl Finally {
    /// Counts a refusal of `node`; whether there is no more hope.
    pub fn is_reached_by(&mut self, refusal: &PeerRefusal, node: NodeId) -> bool {
        if refusal.is_final_for(node) {
            self.heard += 1;
        }
        let is_final = self.heard > 0 && mutant::is_active(Mutant::FirstRefusalBelieved);
        is_final || self.heard >= FINAL_AFTER
    }
}

impl PeerRefusal {
    /// The line, with its line break.
    ///
    /// # Panics
    ///
    /// Never.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let (format, version) = (PEER_FORMAT.to_owned(), PEER_VERSION);
        line(&RefusalText { format, version, refused: self.clone() })
    }

    /// Whether it will not change by itself: `node` has to be started in another way.
    #[must_use]
    pub fn is_final_for(&self, node: NodeId) -> bool {
        matches!(self, Self::OtherIncarnation { node: refused, .. } if *refused == node.0)
            || self.says_removed(node)
    }

    /// Whether it says that another process runs as `node` already.
    #[must_use]
    pub fn says_runs_twice(&self, node: NodeId) -> bool {
        matches!(self, Self::RunsTwice { node: twice, .. } if *twice == node.0)
    }

    /// Whether it says that `node` was removed: a single word of it is enough, because it rests on
    /// a committed configuration.
    #[must_use]
    pub fn says_removed(&self, node: NodeId) -> bool {
        matches!(self, Self::Removed { node: removed, .. } if *removed == node.0)
    }
}
