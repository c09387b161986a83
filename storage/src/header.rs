//! The log header: the first line of a log, which states the owner of the log and the point it
//! starts after.
//!
//! ```text
//! {"format":"coracle-log","version":1,"node":0,"cluster":"…","incarnation":"…","voters":[0,1,2],
//!  "after":{"index":0,"term":0,"crc":"00000000"},"crc":"9a3c01ff"}            (one line in the file)
//! ```
//!
//! A node of a cluster of processes has `"members":[…]` after the voters: their addresses and
//! incarnations when the cluster was founded. A node that joined later also has
//! `"joined_at":"HOST:PORT"` and `"addition":3`, the addition that admitted it.
//!
//! The header is written when the file is created, synced before the file is used, and never
//! changed; a log that is rewritten behind a snapshot is a new file with a new header. So a header
//! that cannot be read is damage, unless no other file of the node exists yet. Not here: the
//! entries that follow the header.

use coracle_core::mutant::{self, Mutant};
use coracle_core::raft::{Addition, LogPoint, MemberText, NodeId, Roster, is_address};
use serde::{Deserialize, Serialize};

use crate::content;
use crate::identity::{ClusterId, Identity, Incarnation};
use crate::sealed::{self, PointText, SealedLineError, VERSION};

/// The name of the log's format.
pub(crate) const LOG_FORMAT: &str = "coracle-log";

/// The content of the first line of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogHeader {
    /// The identity of the node that the log belongs to.
    pub identity: Identity,
    /// The point that the log starts after.
    pub after: LogPoint,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct HeaderText {
    format: String,
    version: u64,
    node: u64,
    cluster: String,
    incarnation: String,
    voters: Vec<u64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    members: Vec<MemberText>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    joined_at: Option<Box<str>>,
    #[serde(default, skip_serializing_if = "Addition::is_founding")]
    addition: Addition,
    after: PointText,
}

impl LogHeader {
    /// Returns the header as it stands in the file, with its line break.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        sealed::seal(&HeaderText {
            format: LOG_FORMAT.to_owned(),
            version: VERSION,
            node: self.identity.node.0,
            cluster: self.identity.cluster.to_string(),
            incarnation: self.identity.incarnation.to_string(),
            voters: self.identity.voters.iter().map(|voter| voter.0).collect(),
            members: self.identity.roster.to_texts(),
            joined_at: self.identity.joined_at.clone(),
            addition: self.identity.addition,
            after: PointText::new(self.after),
        })
    }

    /// Parses a header, with its line break.
    ///
    /// # Errors
    ///
    /// [`SealedLineError`] when the line is incomplete, damaged, or in an unknown format.
    pub fn decode(line: &[u8]) -> Result<Self, SealedLineError> {
        let text: HeaderText = sealed::open(line, LOG_FORMAT)?;
        let (identity, after) = text.content().ok_or(SealedLineError::Form)?;
        content::check_founders(identity.node, &identity.voters, &identity.roster, identity.addition)?;
        content::check_point(after)?;
        Ok(Self { identity, after })
    }
}

impl HeaderText {
    /// Parses each field; `None` if one of them is malformed.
    fn content(self) -> Option<(Identity, LogPoint)> {
        let identity = Identity {
            node: NodeId(self.node),
            cluster: ClusterId::from_text(&self.cluster)?,
            incarnation: Incarnation::from_text(&self.incarnation)?,
            voters: self.voters.into_iter().map(NodeId).collect(),
            roster: Roster::from_texts(&self.members)?,
            joined_at: self.joined_at,
            addition: forgotten_by_mutant().unwrap_or(self.addition),
        };
        let joined_somewhere = identity.joined_at.as_deref().is_none_or(is_address);
        joined_somewhere.then_some((identity, self.after.point()?))
    }
}

/// Deliberate bug: a joined node does not know its addition.
fn forgotten_by_mutant() -> Option<Addition> {
    mutant::is_active(Mutant::AdditionForgotten).then(Addition::default)
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_core::raft::{Checksum, LogIndex, Member, Term};

    fn header() -> LogHeader {
        let mut identities = Identity::for_new_cluster(ClusterId(0xfeed), &[Incarnation(5), Incarnation(6)]);
        LogHeader { identity: identities.remove(1), after: LogPoint::ORIGIN }
    }

    #[test]
    fn a_header_reads_as_the_contract_says() {
        let line = String::from_utf8(header().encode()).unwrap();
        let covered = concat!(
            r#"{"format":"coracle-log","version":1,"node":1,"#,
            r#""cluster":"0000000000000000000000000000feed","incarnation":"0000000000000006","#,
            r#""voters":[0,1],"after":{"index":0,"term":0,"crc":"00000000"}"#,
        );
        let checksum = crc32fast::hash(covered.as_bytes());
        assert_eq!(line, format!("{covered},\"crc\":\"{checksum:08x}\"}}\n"));
    }

    #[test]
    fn an_encoded_header_decodes_to_the_same() {
        let mut header = header();
        header.after = LogPoint { index: LogIndex(9), term: Term(2), checksum: Checksum(0xabc) };
        assert_eq!(LogHeader::decode(&header.encode()), Ok(header));
    }

    #[test]
    fn the_founders_of_a_cluster_of_processes_stand_in_it() {
        let mut header = header();
        let member = |port: u16| Member::founder(format!("h:{port}").into(), Some(Incarnation(5)));
        header.identity.roster = Roster::new([(NodeId(0), member(1)), (NodeId(1), member(2))]);
        let line = header.encode();
        let text = String::from_utf8(line.clone()).unwrap();
        assert!(
            text.contains(r#""voters":[0,1],"members":[{"id":0,"address":"h:1","incarnation":"#),
            "{text}"
        );
        assert_eq!(LogHeader::decode(&line), Ok(header.clone()));
        header.identity.joined_at = Some("h:2".into());
        header.identity.addition = Addition(3);
        let text = String::from_utf8(header.encode()).unwrap();
        assert!(text.contains(r#","joined_at":"h:2","addition":3,"after""#), "{text}");
        assert_eq!(LogHeader::decode(&header.encode()), Ok(header.clone()));
        header.identity.joined_at = Some("no address".into());
        assert_eq!(LogHeader::decode(&header.encode()), Err(SealedLineError::Form));
    }

    #[test]
    fn no_flipped_bit_and_no_prefix_is_accepted() {
        let line = header().encode();
        for at in 0..line.len() {
            assert!(LogHeader::decode(&line[..at]).is_err(), "prefix of {at} bytes");
            for bit in 0..8 {
                let mut flipped = line.clone();
                flipped[at] ^= 1 << bit;
                assert!(LogHeader::decode(&flipped).is_err(), "byte {at} bit {bit}");
            }
        }
    }

    /// Lines with a valid checksum and content that this program would not write.
    #[test]
    fn a_right_checksum_alone_is_not_enough() {
        let good = String::from_utf8(header().encode()).unwrap();
        let reseal = |from: &str, to: &str| {
            let covered = good.split(",\"crc\":\"").next().unwrap();
            assert!(covered.contains(from) || good.contains(from), "{from}");
            let covered = good.rsplit_once(",\"crc\"").unwrap().0.replacen(from, to, 1);
            let checksum = crc32fast::hash(covered.as_bytes());
            LogHeader::decode(format!("{covered},\"crc\":\"{checksum:08x}\"}}\n").as_bytes())
        };
        assert!(reseal("\"node\":1", "\"node\":1").is_ok());
        for (from, to) in [
            ("[0,1]", "[1,0]"),
            ("[0,1]", "[0,0]"),
            ("[0,1]", "[0, 1]"),
            ("\"node\":1", "\"node\":-1"),
            ("\"node\":1", "\"node\":1,\"extra\":1"),
            ("feed", "FEED"),
            ("00000000\"}", "0000000\"}"),
            ("{\"format\"", " {\"format\""),
        ] {
            let refused = reseal(from, to);
            assert!(
                matches!(refused, Err(SealedLineError::Form | SealedLineError::Content(_))),
                "{from} to {to}: {refused:?}"
            );
        }
    }

    #[test]
    fn an_unknown_format_or_version_is_named() {
        let newer = br#"{"format":"coracle-log","version":2,"layout":"blocks"}"#;
        let fault = LogHeader::decode(newer).unwrap_err();
        assert_eq!(
            fault.to_string(),
            "it is in the format \"coracle-log\" version 2, and this program knows only \
             \"coracle-log\" up to version 1: use the program that wrote it"
        );
        let other = b"{\"format\":\"other-log\",\"version\":1}\n";
        let named = SealedLineError::UnknownFormat {
            format: "other-log".to_owned(),
            version: 1,
            known_format: LOG_FORMAT,
            known_version: 1,
        };
        assert_eq!(LogHeader::decode(other), Err(named));
    }
}
