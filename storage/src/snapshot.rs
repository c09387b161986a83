//! The snapshot file: its format, and the check that it is whole.
//!
//! ```text
//! {"format":"coracle-snapshot","version":1,"node":0,"cluster":"…","incarnation":"…",
//!  "last":{"index":9,"term":2,"crc":"…"},"voters":[0,1,2],"crc":"…"}                     (one line in the file)
//! …the content: the state machine's lines, as it made them…
//! {"format":"coracle-snapshot-end","version":1,"bytes":4711,"checksum":"…","crc":"…"}
//! ```
//!
//! The first line states the owner of the snapshot and the last entry that it covers. The last line
//! states how many bytes of content there are and their CRC-32. So a file is known to be whole
//! before any byte of it is used, and a file that is not whole is never used, not even in part:
//! once the log was rewritten behind a snapshot, no other file holds the entries that it covers.
//!
//! The content is opaque in this module: lines of JSON, so that `jq` can read the file. Only its
//! beginning matters: content that states a level, with revisions behind it, has version 2 in the
//! first line of the file. So a program that knows no levels refuses the file by its version.
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

use crate::content::{self, ContentError, Membership};
use crate::identity::{ClusterId, Identity, Incarnation};
use crate::sealed::{self, PointText, SealedLineError, VERSION};

/// The version of a snapshot whose content states a level.
const VERSION_OF_LEVELS: u64 = 2;

/// The beginning of content that states a level.
const LEVEL_LINE: &str = "{\"level\":";

mod read;
mod write;

pub use read::{PartProgress, PartReader, PartWanted, ReadPartError};
pub use write::{PublishError, SNAPSHOT_SYNC_BYTES, SnapshotPlanner, rest_after};

/// The name of the format, in the first line.
pub const SNAPSHOT_FORMAT: &str = "coracle-snapshot";
/// The name of the format in the last line.
const END_FORMAT: &str = "coracle-snapshot-end";

/// The content of the first line of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotHeader {
    /// The node that the file belongs to.
    pub node: NodeId,
    /// The cluster that the node is a member of.
    pub cluster: ClusterId,
    /// The node's incarnation in that cluster.
    pub incarnation: Incarnation,
    /// The last entry that the snapshot covers, and the configuration there.
    pub meta: SnapshotMeta,
    /// Whether the content states a level.
    pub has_level: bool,
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
    /// Creates the header of a snapshot of the node with this identity. `content` is the content,
    /// or its first part.
    #[must_use]
    pub fn new(identity: &Identity, meta: SnapshotMeta, content: &str) -> Self {
        let Identity { node, cluster, incarnation, .. } = *identity;
        Self { node, cluster, incarnation, meta, has_level: states_level(content) }
    }

    /// Returns the header as it stands in the file, with its line break.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        sealed::seal(&HeaderText {
            format: SNAPSHOT_FORMAT.to_owned(),
            version: if self.has_level { VERSION_OF_LEVELS } else { VERSION },
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

    /// Parses a header, with its line break.
    ///
    /// # Errors
    ///
    /// [`SealedLineError`] when the line is incomplete, damaged, or in an unknown format.
    pub fn decode(line: &[u8]) -> Result<Self, SealedLineError> {
        let text: HeaderText = sealed::open_up_to(VERSION_OF_LEVELS, line, SNAPSHOT_FORMAT)?;
        let header = || {
            let configuration = configuration(&text.voters, &text.outgoing, &text.learners)?;
            let configuration = configuration.described_by(&text.members, text.additions)?;
            Some(Self {
                node: NodeId(text.node),
                cluster: ClusterId::from_text(&text.cluster)?,
                incarnation: Incarnation::from_text(&text.incarnation)?,
                meta: SnapshotMeta { last: text.last.point()?, configuration },
                has_level: text.version == VERSION_OF_LEVELS,
            })
        };
        let header = header().ok_or(SealedLineError::Form)?;
        let SnapshotMeta { last, configuration } = &header.meta;
        content::check_point(*last)?;
        if last.index == LogIndex::ORIGIN {
            return Err(ContentError::NoEntry.into());
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

/// Returns whether the content of a snapshot states a level in its first line.
pub(crate) fn states_level(content: &str) -> bool {
    content.starts_with(LEVEL_LINE)
}

fn ids(nodes: &[NodeId]) -> Vec<u64> {
    nodes.iter().map(|node| node.0).collect()
}

/// Returns the configuration of these members; `None` if it is invalid or the ids do not ascend.
fn configuration(voters: &[u64], outgoing: &[u64], learners: &[u64]) -> Option<Configuration> {
    let ascend = [voters, outgoing, learners].iter().all(|ids| ids.is_sorted_by(|one, next| one < next));
    let set = |ids: &[u64]| Voters::new(ids.iter().copied().map(NodeId));
    let outgoing = if outgoing.is_empty() { None } else { Some(set(outgoing)?) };
    Configuration::restored(set(voters)?, outgoing, learners.iter().copied().map(NodeId)).filter(|_| ascend)
}

/// Returns the last line of a snapshot with this content, with its line break.
pub(crate) fn encode_end(end: SnapshotEnd) -> Vec<u8> {
    sealed::seal(&EndText {
        format: END_FORMAT.to_owned(),
        version: VERSION,
        bytes: end.bytes,
        checksum: end.checksum.to_string(),
    })
}

fn decode_end(line: &[u8]) -> Result<SnapshotEnd, SealedLineError> {
    let text: EndText = sealed::open(line, END_FORMAT)?;
    let checksum = Checksum::from_text(text.checksum.as_bytes()).ok_or(SealedLineError::Form)?;
    Ok(SnapshotEnd { bytes: text.bytes, checksum })
}

/// A snapshot file that is whole: every byte of it was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotFile<'a> {
    /// The content of the first line.
    pub header: SnapshotHeader,
    /// The state machine's lines.
    pub content: &'a str,
    /// The content of the last line, which matches the content of the snapshot.
    pub end: SnapshotEnd,
}

impl<'a> SnapshotFile<'a> {
    /// Parses the bytes of a whole snapshot file.
    ///
    /// # Errors
    ///
    /// [`SnapshotError`] when a byte is missing, added or changed.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, SnapshotError> {
        let header_len = bytes.iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |at| at + 1);
        let header = SnapshotHeader::decode(&bytes[..header_len]).map_err(SnapshotError::Header)?;
        let (content, last_line) = split_off_last_line(&bytes[header_len..]);
        let end = decode_end(last_line).map_err(SnapshotError::End)?;
        check_length(end, content.len() as u64)?;
        let found = Checksum(crc32fast::hash(content));
        if found != end.checksum {
            return Err(SnapshotError::Checksum { stated: end.checksum, found });
        }
        let content = std::str::from_utf8(content).map_err(|_| SnapshotError::NotText)?;
        // The other way around is accepted: a program that knows no levels writes its own version
        // into the header of a backup, whatever the server sends.
        if header.has_level && !states_level(content) {
            return Err(SnapshotError::Header(SealedLineError::Form));
        }
        Ok(Self { header, content, end })
    }

    /// Validates each line of the content and returns the number of keys. That a file is whole does
    /// not mean that a state machine of this version wrote it.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::Line`] for the first invalid line.
    pub fn check_lines(&self) -> Result<usize, SnapshotError> {
        content::check_state(self.content).map_err(|(line, fault)| SnapshotError::Line { line, fault })
    }

    /// Validates the members of a snapshot of a cluster in one process, which has no roster: its
    /// nodes have consecutive ids from 0, and its members never change.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::Header`] when the members are not those of such a cluster.
    pub fn check_members(&self) -> Result<(), SnapshotError> {
        content::check_undescribed(&self.header.meta.configuration)
            .map_err(|fault| SnapshotError::Header(fault.into()))
    }

    /// Returns the snapshot as the core's type.
    #[must_use]
    pub fn restored(&self) -> RestoredSnapshot {
        RestoredSnapshot { meta: self.header.meta.clone(), text: Arc::from(self.content) }
    }
}

/// Why a snapshot file is not whole.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// The first line cannot be read.
    #[error("line 1: {0}")]
    Header(SealedLineError),
    /// The last line is not the one that ends a snapshot.
    #[error("its last line does not end a snapshot: {0}")]
    End(SealedLineError),
    /// There is more or less content than the last line states.
    #[error("it holds {found} bytes of content, and its last line states {stated}")]
    Length {
        /// The number of bytes that the last line states.
        stated: u64,
        /// The number of bytes in the file.
        found: u64,
    },
    /// The content has changed.
    #[error("its content has the checksum {found}, and its last line states {stated}")]
    Checksum {
        /// The checksum that the last line states.
        stated: Checksum,
        /// The checksum of the content.
        found: Checksum,
    },
    /// A line of the content is not a valid next line of a state.
    #[error("line {line} has a valid checksum but invalid content: {fault}")]
    Line {
        /// The number of the line; the header is line 1.
        line: u64,
        /// The fault.
        fault: StateLineError,
    },
    /// The content is not UTF-8.
    #[error("its content is not UTF-8")]
    NotText,
}

fn check_length(end: SnapshotEnd, found: u64) -> Result<(), SnapshotError> {
    if end.bytes == found { Ok(()) } else { Err(SnapshotError::Length { stated: end.bytes, found }) }
}

/// Splits off the last line, with its line break if it has one.
fn split_off_last_line(bytes: &[u8]) -> (&[u8], &[u8]) {
    let body = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    bytes.split_at(body.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1))
}

#[cfg(test)]
mod tests;
