//! Recovery of one node of a cluster of processes, which has a data folder for itself.
//!
//! | files found | what follows |
//! | --- | --- |
//! | none | the node draws its incarnation and writes it before it contacts any other node |
//! | the incarnation and no metadata | it has no cluster yet; a log, if there is one, is unfinished |
//! | log and metadata | it recovers |
//! | fewer than these | refused: a node that lost its files must not come back under its old identity |
//!
//! Once the node knows its cluster, it creates log and metadata and then removes the file with the
//! incarnation. That file is gone before the node votes or acknowledges anything, so a folder that
//! loses its other files later is not mistaken for a new one.
//!
//! [`survey()`](crate::survey()) does the same for a whole cluster in one folder.

use coracle_core::Incarnation;
use coracle_core::mutant::{self, Mutant};
use coracle_core::peer::Founders;
use coracle_core::raft::{HardState, LogPoint, Member, NodeId, Restored};
use serde::{Deserialize, Serialize};

use crate::files::{FileKind, FileName, FileOp, NodeFiles, SyncPolicy, replace_meta};
use crate::header::LogHeader;
use crate::identity::Identity;
use crate::meta::Meta;
use crate::plan::Planner;
use crate::recover::{RecoverError, Recovery, recover};
use crate::sealed::{self, SealedLineError, VERSION};
use crate::snapshot::SnapshotPlanner;

/// The name of the format of the file with the incarnation.
const FOUNDING_FORMAT: &str = "coracle-founding";

/// The state that a node starts from.
#[derive(Debug)]
pub enum MemberStart {
    /// It has no cluster yet.
    Unfounded {
        /// Its incarnation.
        incarnation: Incarnation,
        /// The operations to carry out before it contacts any other node.
        creation: Vec<FileOp>,
    },
    /// It was a member before.
    Founded(Box<Recovery>),
}

/// Why a node cannot start from its folder. No file was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MemberError {
    /// The file with the incarnation cannot be read.
    #[error("{file}: {fault}. Put it back as it was, or start the node with an empty folder")]
    Founding {
        /// The file.
        file: FileName,
        /// The fault.
        fault: SealedLineError,
    },
    /// The folder holds the nodes of a cluster in one process.
    #[error(
        "{file} belongs to a cluster in one process: serve it with `coracle serve`, or choose another --data-dir"
    )]
    OfOneProcess {
        /// The log.
        file: FileName,
    },
    /// The folder holds a file of another node.
    #[error(
        "{file} belongs to node {}, and this is node {id}: start it with --id {}, or choose another --data-dir",
        .file.node, .file.node
    )]
    OtherNode {
        /// The file.
        file: FileName,
        /// The id of the node that was started.
        id: NodeId,
    },
    /// The other files cannot be recovered from.
    #[error("{fault}. {advice}", fault = .0, advice = .0.advice())]
    Recover(#[from] RecoverError),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FoundingText {
    format: String,
    version: u64,
    node: u64,
    incarnation: String,
}

/// Reads the files of `node`. `fresh` is its incarnation if it has none yet, and `sync` the sync
/// policy from here on.
///
/// # Errors
///
/// [`MemberError`] when the node cannot start from these files.
pub fn open_member(
    node: NodeId,
    files: &NodeFiles,
    fresh: Incarnation,
    sync: SyncPolicy,
) -> Result<MemberStart, MemberError> {
    let file = FileName::new(node, FileKind::Founding);
    let written = match files.founding.as_deref().map(|bytes| decode(node, bytes)) {
        // The power failed while it was written, before the node contacted any other.
        None | Some(Err(SealedLineError::Incomplete)) => None,
        Some(Err(fault)) => return Err(MemberError::Founding { file, fault }),
        Some(Ok(incarnation)) => Some(incarnation).filter(is_kept_unless_mutant),
    };
    let is_untouched = files.log.is_none() && files.meta.is_none() && files.snapshot.is_none();
    match written {
        Some(incarnation) if files.meta.is_none() => {
            Ok(MemberStart::Unfounded { incarnation, creation: Vec::new() })
        }
        None if is_untouched => {
            let create = FileOp::Create { file, bytes: encode(node, fresh) };
            let syncs = vec![FileOp::Sync { file }, FileOp::SyncFolder];
            let syncs = unsynced_by_mutant().unwrap_or(syncs);
            let creation = [vec![create], syncs].concat();
            Ok(MemberStart::Unfounded { incarnation: fresh, creation })
        }
        _ => {
            let mut recovery = recover(node, files, sync)?;
            if recovery.identity.roster.is_empty() {
                return Err(MemberError::OfOneProcess { file: FileName::new(node, FileKind::Log) });
            }
            if files.founding.is_some() {
                recovery.repairs.extend([FileOp::Remove { file }, FileOp::SyncFolder]);
            }
            Ok(MemberStart::Founded(Box::new(recovery)))
        }
    }
}

/// Plans the files of a node that has found its cluster. For a node that has joined, `joined` is
/// its entry in the configuration that admitted it. The operations have to be carried out before
/// the node starts.
#[must_use]
pub fn found_member(
    node: NodeId,
    incarnation: Incarnation,
    founders: &Founders,
    joined: Option<&Member>,
    sync: SyncPolicy,
) -> (Vec<FileOp>, Recovery) {
    let identity = Identity {
        node,
        cluster: founders.cluster,
        incarnation,
        voters: founders.ids(),
        roster: founders.roster.clone(),
        joined_at: joined.map(|joined| joined.address.clone()),
        addition: joined.map(|joined| joined.addition).unwrap_or_default(),
    };
    let log = FileName::new(node, FileKind::Log);
    let after = LogPoint::ORIGIN;
    let header = LogHeader { identity: identity.clone(), after }.encode();
    let header_len = header.len() as u64;
    let meta = Meta::new(&identity, HardState::default(), after);
    let mut creation =
        vec![FileOp::Create { file: log, bytes: header }, FileOp::Sync { file: log }, FileOp::SyncFolder];
    creation.extend(replace_meta(node, meta.encode()));
    creation.extend([FileOp::Remove { file: FileName::new(node, FileKind::Founding) }, FileOp::SyncFolder]);
    let recovery = Recovery {
        restored: Restored::default(),
        repairs: Vec::new(),
        notices: Vec::new(),
        planner: Planner::new(identity.clone(), HardState::default(), after, header_len, sync),
        snapshots: SnapshotPlanner::new(identity.clone(), after.index, sync),
        identity,
    };
    (creation, recovery)
}

fn encode(node: NodeId, incarnation: Incarnation) -> Vec<u8> {
    sealed::seal(&FoundingText {
        format: FOUNDING_FORMAT.to_owned(),
        version: VERSION,
        node: node.0,
        incarnation: incarnation.to_string(),
    })
}

fn decode(node: NodeId, bytes: &[u8]) -> Result<Incarnation, SealedLineError> {
    let text: FoundingText = sealed::open(bytes, FOUNDING_FORMAT)?;
    let incarnation = Incarnation::from_text(&text.incarnation).filter(|_| text.node == node.0);
    incarnation.ok_or(SealedLineError::Form)
}

/// Returns whether the written incarnation is kept; deliberate bug: another one is drawn.
fn is_kept_unless_mutant(_written: &Incarnation) -> bool {
    !mutant::is_active(Mutant::IncarnationDrawnAgain)
}

/// Deliberate bug: the incarnation is not synced.
fn unsynced_by_mutant() -> Option<Vec<FileOp>> {
    mutant::is_active(Mutant::IncarnationNotSynced).then(Vec::new)
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_core::ClusterId;
    use coracle_core::raft::{Member, Roster};

    const NODE: NodeId = NodeId(2);

    fn founders() -> Founders {
        let member = |id: u64| {
            let address = format!("host:{id}").into();
            (NodeId(id), Member::founder(address, Some(Incarnation(10 + id))))
        };
        Founders::new(Roster::new((1..=3).map(member)))
    }

    /// Carries operations out on files in memory, as far as these tests need it.
    fn carry_out(files: &mut NodeFiles, ops: &[FileOp]) {
        for op in ops {
            match op {
                FileOp::Create { file, bytes } => *slot(files, file.kind) = Some(bytes.clone()),
                FileOp::Remove { file } => *slot(files, file.kind) = None,
                FileOp::Rename { from, to } => {
                    let bytes = slot(files, from.kind).take();
                    *slot(files, to.kind) = bytes;
                }
                FileOp::Sync { .. } | FileOp::SyncFolder => {}
                other => panic!("{other:?}"),
            }
        }
    }

    fn slot(files: &mut NodeFiles, kind: FileKind) -> &mut Option<Vec<u8>> {
        match kind {
            FileKind::Log => &mut files.log,
            FileKind::Founding => &mut files.founding,
            // The temporary file shares the slot of its final name: no test reads it before the
            // rename.
            FileKind::Meta | FileKind::MetaTemporary => &mut files.meta,
            other => panic!("{other:?}"),
        }
    }

    fn open(files: &NodeFiles, fresh: u64) -> Result<MemberStart, MemberError> {
        open_member(NODE, files, Incarnation(fresh), SyncPolicy::Always)
    }

    fn unfounded(start: MemberStart) -> (Incarnation, Vec<FileOp>) {
        match start {
            MemberStart::Unfounded { incarnation, creation } => (incarnation, creation),
            MemberStart::Founded(_) => panic!("it has no cluster"),
        }
    }

    #[test]
    fn a_node_keeps_its_first_incarnation_and_then_its_cluster() {
        let mut files = NodeFiles::default();
        let (incarnation, creation) = unfounded(open(&files, 12).unwrap());
        assert_eq!(incarnation, Incarnation(12));
        carry_out(&mut files, &creation);
        let (again, creation) = unfounded(open(&files, 99).unwrap());
        assert_eq!((again, creation.len()), (incarnation, 0));
        let (creation, _) = found_member(NODE, incarnation, &founders(), None, SyncPolicy::Always);
        carry_out(&mut files, &creation);
        let MemberStart::Founded(recovery) = open(&files, 99).unwrap() else { panic!("it has a cluster") };
        assert_eq!(recovery.identity.incarnation, incarnation);
        assert_eq!(recovery.identity.cluster, founders().cluster);
        assert_eq!(recovery.identity.roster, founders().roster);
        assert_eq!(recovery.identity.voters, founders().ids());
    }

    #[test]
    fn an_interrupted_founding_is_repeated_or_finished() {
        let mut before = NodeFiles::default();
        carry_out(&mut before, &unfounded(open(&NodeFiles::default(), 12).unwrap()).1);
        let (creation, _) = found_member(NODE, Incarnation(12), &founders(), None, SyncPolicy::Always);
        let has_meta = creation.iter().position(|op| matches!(op, FileOp::Rename { .. })).unwrap();
        for done in 0..=creation.len() {
            let mut files = before.clone();
            // A log may be torn before it is synced; here it is either whole or missing.
            carry_out(&mut files, &creation[..done]);
            if done <= has_meta {
                files.meta = None;
            }
            match open(&files, 99).unwrap() {
                MemberStart::Unfounded { incarnation, .. } => {
                    assert!(done <= has_meta, "after {done} operations");
                    assert_eq!(incarnation, Incarnation(12));
                }
                MemberStart::Founded(recovery) => {
                    assert!(done > has_meta, "after {done} operations");
                    carry_out(&mut files, &recovery.repairs[recovery.repairs.len() - 2..]);
                    assert!(done == creation.len() || files.founding.is_none());
                }
            }
        }
    }

    #[test]
    fn a_folder_that_lost_files_is_not_a_new_one() {
        let mut files = NodeFiles::default();
        carry_out(&mut files, &unfounded(open(&NodeFiles::default(), 12).unwrap()).1);
        let torn =
            NodeFiles { founding: files.founding.as_ref().map(|bytes| bytes[..9].to_vec()), ..files.clone() };
        assert_eq!(unfounded(open(&torn, 13).unwrap()).0, Incarnation(13), "nobody was told of the other");
        let mut flipped = files.clone();
        flipped.founding.as_mut().unwrap()[60] ^= 1;
        assert!(matches!(open(&flipped, 13), Err(MemberError::Founding { .. })));
        carry_out(&mut files, &found_member(NODE, Incarnation(12), &founders(), None, SyncPolicy::Always).0);
        for lost in [NodeFiles { log: None, ..files.clone() }, NodeFiles { meta: None, ..files.clone() }] {
            assert!(matches!(open(&lost, 13), Err(MemberError::Recover(RecoverError::Missing { .. }))));
        }
    }

    #[test]
    fn a_cluster_in_one_process_is_not_taken_for_a_node() {
        let identity = Identity::for_new_cluster(ClusterId(1), &[Incarnation(5); 3]).remove(2);
        let header = LogHeader { identity: identity.clone(), after: LogPoint::ORIGIN }.encode();
        let meta = Meta::new(&identity, HardState::default(), LogPoint::ORIGIN).encode();
        let files = NodeFiles { log: Some(header), meta: Some(meta), ..NodeFiles::default() };
        assert!(matches!(open(&files, 1), Err(MemberError::OfOneProcess { .. })));
    }
}
