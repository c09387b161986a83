//! The metadata file: term and vote, the identity of the node, and the floor, up to which the log
//! must be whole.
//!
//! ```text
//! {"format":"coracle-meta","version":1,"node":0,"cluster":"…","incarnation":"…","currentTerm":3,
//!  "votedFor":1,"floor":{"index":7,"term":2,"crc":"…"},"crc":"9a3c01ff"}      (one line in the file)
//! ```
//!
//! It is replaced as a whole, never changed in place. A metadata file that cannot be read ends the
//! start, because a lost vote cannot be recovered from other nodes. Not here: when it is replaced,
//! which [`Planner`](crate::Planner) decides.

use coracle_core::raft::{HardState, LogPoint, NodeId, Term};
use serde::{Deserialize, Serialize};

use crate::content;
use crate::identity::{ClusterId, Identity, Incarnation};
use crate::sealed::{self, PointText, SealedLineError, VERSION};

/// The name of the metadata's format.
pub const META_FORMAT: &str = "coracle-meta";

/// The content of the metadata file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meta {
    /// The node that the file belongs to.
    pub node: NodeId,
    /// The cluster that the node is a member of.
    pub cluster: ClusterId,
    /// The node's incarnation in that cluster.
    pub incarnation: Incarnation,
    /// Term and vote.
    pub hard_state: HardState,
    /// The last entry that was known to be committed, and durable on this node, when this was
    /// written. A log that does not reach it, or has another entry there, has lost acknowledged
    /// writes.
    pub floor: LogPoint,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct MetaText {
    format: String,
    version: u64,
    node: u64,
    cluster: String,
    incarnation: String,
    current_term: u64,
    voted_for: Option<u64>,
    floor: PointText,
}

impl Meta {
    pub(crate) fn new(identity: &Identity, hard_state: HardState, floor: LogPoint) -> Self {
        let Identity { node, cluster, incarnation, .. } = *identity;
        Self { node, cluster, incarnation, hard_state, floor }
    }

    /// The file's bytes.
    pub(crate) fn encode(&self) -> Vec<u8> {
        sealed::seal(&MetaText {
            format: META_FORMAT.to_owned(),
            version: VERSION,
            node: self.node.0,
            cluster: self.cluster.to_string(),
            incarnation: self.incarnation.to_string(),
            current_term: self.hard_state.current_term.0,
            voted_for: self.hard_state.voted_for.map(|node| node.0),
            floor: PointText::new(self.floor),
        })
    }

    /// Reads the file's bytes.
    ///
    /// # Errors
    ///
    /// [`SealedLineError`] when the file is not whole, of another format or version, or has content
    /// that no node writes.
    pub fn decode(bytes: &[u8]) -> Result<Self, SealedLineError> {
        let text: MetaText = sealed::open(bytes, META_FORMAT)?;
        let meta = || {
            Some(Self {
                node: NodeId(text.node),
                cluster: ClusterId::from_text(&text.cluster)?,
                incarnation: Incarnation::from_text(&text.incarnation)?,
                hard_state: HardState {
                    current_term: Term(text.current_term),
                    voted_for: text.voted_for.map(NodeId),
                },
                floor: text.floor.point()?,
            })
        };
        let meta = meta().ok_or(SealedLineError::Form)?;
        content::check_promises(meta.hard_state, meta.floor)?;
        Ok(meta)
    }

    /// Whether the node has ever voted, entered a term or noted a committed entry, which it must
    /// not forget.
    pub(crate) fn holds_a_promise(&self) -> bool {
        self.hard_state != HardState::default() || self.floor != LogPoint::ORIGIN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta(voted_for: Option<NodeId>) -> Meta {
        let identity = Identity::for_new_cluster(ClusterId(0xfeed), &[Incarnation(5)]).remove(0);
        Meta::new(&identity, HardState { current_term: Term(3), voted_for }, LogPoint::ORIGIN)
    }

    #[test]
    fn it_reads_as_the_contract_says() {
        let covered = concat!(
            r#"{"format":"coracle-meta","version":1,"node":0,"#,
            r#""cluster":"0000000000000000000000000000feed","incarnation":"0000000000000005","#,
            r#""currentTerm":3,"votedFor":null,"floor":{"index":0,"term":0,"crc":"00000000"}"#,
        );
        let checksum = crc32fast::hash(covered.as_bytes());
        let line = format!("{covered},\"crc\":\"{checksum:08x}\"}}\n");
        assert_eq!(String::from_utf8(meta(None).encode()).unwrap(), line);
    }

    #[test]
    fn a_vote_survives_and_no_flipped_bit_or_prefix_is_accepted() {
        let meta = meta(Some(NodeId(1)));
        let bytes = meta.encode();
        assert_eq!(Meta::decode(&bytes), Ok(meta));
        for at in 0..bytes.len() {
            assert!(Meta::decode(&bytes[..at]).is_err(), "prefix of {at} bytes");
            for bit in 0..8 {
                let mut flipped = bytes.clone();
                flipped[at] ^= 1 << bit;
                assert!(Meta::decode(&flipped).is_err(), "byte {at} bit {bit}");
            }
        }
    }

    #[test]
    fn other_files_are_refused() {
        let older_store = b"{\"currentTerm\":4,\"votedFor\":2}\n";
        assert_eq!(Meta::decode(older_store), Err(SealedLineError::Damaged));
        assert_eq!(Meta::decode(b""), Err(SealedLineError::Incomplete));
        let two_lines = [meta(None).encode(), meta(None).encode()].concat();
        assert_eq!(Meta::decode(&two_lines), Err(SealedLineError::Damaged));
        let newer = b"{\"format\":\"coracle-meta\",\"version\":9}\n";
        assert!(matches!(Meta::decode(newer), Err(SealedLineError::UnknownFormat { version: 9, .. })));
    }
}
