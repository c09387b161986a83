//! The snapshot file: what its bytes are, and whether they are whole.
//!
//! ```text
//! {"format":"coracle-snapshot","version":1,"node":0,"cluster":"…","incarnation":"…",
//!  "last":{"index":9,"term":2,"crc":"…"},"voters":[0,1,2],"crc":"…"}                     (one line in the file)
//! …the content: the state machine's lines, as it made them…
//! {"format":"coracle-snapshot-end","version":1,"bytes":4711,"checksum":"…","crc":"…"}
//! ```
//!
//! The first line says whose snapshot it is and what it stands for; the last one, that nothing is
//! missing: it states how many bytes of content there are and their CRC-32. So a file is known to
//! be whole before a byte of it is used, and no part of one that is not whole is ever used: after
//! the log was made anew behind a snapshot, nothing else holds what stood there.
//!
//! The content is opaque here: lines of JSON, so that `jq` reads the file, and nothing more is
//! known of them.
//!
//! | file | topic |
//! | --- | --- |
//! | `snapshot/write` | parts to file operations; what is checked before a snapshot counts |
//! | `snapshot/read` | a part out of the file, to be sent, without reading all of it |

use std::sync::Arc;

use coracle_core::kv::StateLineError;
use coracle_core::raft::{
    Addition, Checksum, Configuration, LogIndex, LogPoint, MemberText, NodeId, RestoredSnapshot, SnapshotEnd,
    SnapshotMeta, Voters,
};
use serde::{Deserialize, Serialize};

use crate::content::{self, ContentFault, Membership};
use crate::identity::{ClusterId, Identity, Incarnation};
use crate::sealed::{self, PointText, SealedLineFault, VERSION};

mod read;
mod write;

pub use read::{PartProgress, PartReader, PartWanted, ReadPartError};
pub use write::{PublishError, SNAPSHOT_SYNC_BYTES, SnapshotPlanner, rest_after};

/// The name of the format, in the first line.
pub const SNAPSHOT_FORMAT: &str = "coracle-snapshot";
/// The name that the last line has.
const END_FORMAT: &str = "coracle-snapshot-end";

/// What the first line of a snapshot says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotHeader {
    /// Whose file it is.
    pub node: NodeId,
    /// The cluster that the node is a member of.
    pub cluster: ClusterId,
    /// The node's life in that cluster.
    pub incarnation: Incarnation,
    /// What the snapshot stands for.
    pub meta: SnapshotMeta,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct HeaderText {
    format: String,
    version: u64,
    node: u64,
    cluster: String,
    incarnation: String,
    last: PointText,
    voters: Vec<u64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    outgoing: Vec<u64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    learners: Vec<u64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    members: Vec<MemberText>,
    #[serde(default, skip_serializing_if = "Addition::is_founding")]
    additions: Addition,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct EndText {
    format: String,
    version: u64,
    bytes: u64,
    checksum: String,
}

impl SnapshotHeader {
    /// The header of a snapshot that the node with this identity keeps.
    #[must_use]
    pub fn new(identity: &Identity, meta: SnapshotMeta) -> Self {
        let Identity { node, cluster, incarnation, .. } = *identity;
        Self { node, cluster, incarnation, meta }
    }

    /// The header as it stands in the file, with its line break.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        sealed::seal(&HeaderText {
            format: SNAPSHOT_FORMAT.to_owned(),
            version: VERSION,
            node: self.node.0,
            cluster: self.cluster.to_string(),
            incarnation: self.incarnation.to_string(),
            last: PointText::new(self.meta.last),
            voters: ids(self.meta.configuration.voters().nodes()),
            outgoing: self
                .meta
                .configuration
                .outgoing()
                .map_or_else(Vec::new, |outgoing| ids(outgoing.nodes())),
            learners: ids(self.meta.configuration.learners()),
            members: self.meta.configuration.roster().to_texts(),
            additions: self.meta.configuration.last_addition(),
        })
    }

    /// Reads a header, with its line break.
    ///
    /// # Errors
    ///
    /// [`SealedLineFault`] when the line is incomplete, damaged, or in an unknown format.
    pub fn decode(line: &[u8]) -> Result<Self, SealedLineFault> {
        let text: HeaderText = sealed::open(line, SNAPSHOT_FORMAT)?;
        let header = || {
            let configuration = configuration(&text.voters, &text.outgoing, &text.learners)?;
            let configuration = configuration.described_by(&text.members, text.additions)?;
            Some(Self {
                node: NodeId(text.node),
                cluster: ClusterId::from_text(&text.cluster)?,
                incarnation: Incarnation::from_text(&text.incarnation)?,
                meta: SnapshotMeta { last: text.last.point()?, configuration },
            })
        };
        let header = header().ok_or(SealedLineFault::Form)?;
        let SnapshotMeta { last, configuration } = &header.meta;
        content::check_point(*last)?;
        if last.index == LogIndex::ORIGIN {
            return Err(ContentFault::NoEntry.into());
        }
        content::check_configuration(configuration, Membership::of(configuration.roster()))?;
        Ok(header)
    }

    /// The last entry that the snapshot covers.
    #[must_use]
    pub fn last(&self) -> LogPoint {
        self.meta.last
    }
}

fn ids(nodes: &[NodeId]) -> Vec<u64> {
    nodes.iter().map(|node| node.0).collect()
}

/// The configuration of these members; `None` when there is none, or when they do not ascend.
fn configuration(voters: &[u64], outgoing: &[u64], learners: &[u64]) -> Option<Configuration> {
    let ascend = [voters, outgoing, learners].iter().all(|ids| ids.is_sorted_by(|one, next| one < next));
    let set = |ids: &[u64]| Voters::new(ids.iter().copied().map(NodeId));
    let outgoing = if outgoing.is_empty() { None } else { Some(set(outgoing)?) };
    Configuration::restored(set(voters)?, outgoing, learners.iter().copied().map(NodeId)).filter(|_| ascend)
}

/// The last line of a snapshot with this content, with its line break.
pub(crate) fn encode_end(end: SnapshotEnd) -> Vec<u8> {
    sealed::seal(&EndText {
        format: END_FORMAT.to_owned(),
        version: VERSION,
        bytes: end.bytes,
        checksum: end.checksum.to_string(),
    })
}

fn decode_end(line: &[u8]) -> Result<SnapshotEnd, SealedLineFault> {
    let text: EndText = sealed::open(line, END_FORMAT)?;
    let checksum = Checksum::from_text(text.checksum.as_bytes()).ok_or(SealedLineFault::Form)?;
    Ok(SnapshotEnd { bytes: text.bytes, checksum })
}

/// A snapshot file that is whole: every byte of it was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotFile<'a> {
    /// What the first line says.
    pub header: SnapshotHeader,
    /// The state machine's lines.
    pub content: &'a str,
    /// What the last line says; it is true.
    pub end: SnapshotEnd,
}

impl<'a> SnapshotFile<'a> {
    /// Reads the bytes of a snapshot file, all of them.
    ///
    /// # Errors
    ///
    /// [`SnapshotFault`] when a byte is missing, too many, or not what it was.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, SnapshotFault> {
        let header_len = bytes.iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |at| at + 1);
        let header = SnapshotHeader::decode(&bytes[..header_len]).map_err(SnapshotFault::Header)?;
        let (content, last_line) = split_off_last_line(&bytes[header_len..]);
        let end = decode_end(last_line).map_err(SnapshotFault::End)?;
        check_length(end, content.len() as u64)?;
        let found = Checksum(crc32fast::hash(content));
        if found != end.checksum {
            return Err(SnapshotFault::Checksum { stated: end.checksum, found });
        }
        let content = std::str::from_utf8(content).map_err(|_| SnapshotFault::NotText)?;
        Ok(Self { header, content, end })
    }

    /// Judges each line of the content, and counts the keys. That a file is whole does not show
    /// that a state machine of this version wrote it.
    ///
    /// # Errors
    ///
    /// [`SnapshotFault::Line`].
    pub fn check_lines(&self) -> Result<usize, SnapshotFault> {
        content::check_state(self.content).map_err(|(line, fault)| SnapshotFault::Line { line, fault })
    }

    /// Judges the members of a snapshot of a cluster in one process, where no roster says more: its
    /// nodes are 0 and those that follow, and nobody joins or leaves.
    ///
    /// # Errors
    ///
    /// [`SnapshotFault::Header`].
    pub fn check_members(&self) -> Result<(), SnapshotFault> {
        content::check_undescribed(&self.header.meta.configuration)
            .map_err(|fault| SnapshotFault::Header(fault.into()))
    }

    /// The snapshot as the core wants it.
    #[must_use]
    pub fn restored(&self) -> RestoredSnapshot {
        RestoredSnapshot { meta: self.header.meta.clone(), text: Arc::from(self.content) }
    }
}

/// Why a snapshot file is not whole.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotFault {
    /// The first line cannot be read.
    #[error("line 1: {0}")]
    Header(SealedLineFault),
    /// The last line is not the one that ends a snapshot.
    #[error("its last line does not end a snapshot: {0}")]
    End(SealedLineFault),
    /// There is more or less content than the last line states.
    #[error("it holds {found} bytes of content, and its last line states {stated}")]
    Length {
        /// How many bytes there should be.
        stated: u64,
        /// How many there are.
        found: u64,
    },
    /// The content is not what it was.
    #[error("its content has the checksum {found}, and its last line states {stated}")]
    Checksum {
        /// What the content should add up to.
        stated: Checksum,
        /// What it adds up to.
        found: Checksum,
    },
    /// A line of the content is not the next one of a state.
    #[error("line {line} has a right checksum, but not what it says: {fault}")]
    Line {
        /// The number of the line; the header is line 1.
        line: u64,
        /// What is wrong.
        fault: StateLineError,
    },
    /// The content is not UTF-8.
    #[error("its content is not UTF-8")]
    NotText,
}

fn check_length(end: SnapshotEnd, found: u64) -> Result<(), SnapshotFault> {
    if end.bytes == found { Ok(()) } else { Err(SnapshotFault::Length { stated: end.bytes, found }) }
}

/// What stands before the last line, and the last line, with its line break if it has one.
fn split_off_last_line(bytes: &[u8]) -> (&[u8], &[u8]) {
    let body = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    bytes.split_at(body.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1))
}

#[cfg(test)]
mod tests;
