//! Survey of a data folder: recovers all nodes of a cluster in one process from their files
//! together.
//!
//! The files of one node do not show whether missing ones were removed. The files of all nodes do
//! ("used" means that a node has a term, a vote, an entry or a snapshot):
//!
//! | files found | what follows |
//! | --- | --- |
//! | none | a new cluster is founded |
//! | some missing or unfinished, and no node was used | the founding was interrupted: the cluster is founded again |
//! | some missing, and a node was used | refused: a node that lost its files must not come back under its old identity |
//! | content that no node writes | refused, with a list of the nodes whose files are whole |
//! | logs with different entries of one term, or terms that are too far apart | refused: such nodes cannot go on together |
//! | those of a cluster of another size, or of a node of a cluster of processes | refused |
//! | all | each node recovers; all must be of one cluster |
//!
//! So that an interrupted founding is recognized, logs are written first, and no metadata file
//! exists until all logs are on disk.
//!
//! Deliberately not for a node with a folder for itself: it cannot see the other nodes' files.

use coracle_core::raft::{Entries, HardState, LogIndex, LogPoint, NodeId, Restored, Term};

use crate::files::{FileKind, FileName, FileOp, NodeFiles, SyncPolicy, replace_meta};
use crate::header::LogHeader;
use crate::identity::Identity;
use crate::meta::Meta;
use crate::plan::Planner;
use crate::recover::{RecoverError, Recovery, point_at, recover_beside};
use crate::snapshot::SnapshotPlanner;
use found::{Found, FoundLog, FoundMeta};

mod found;
mod lost_nodes;

pub use lost_nodes::LostNodes;

/// The start of all nodes of a folder.
#[derive(Debug)]
pub struct Survey {
    /// The operations that create the files of a new cluster; empty if there is one. They have to
    /// be carried out before the nodes' repairs.
    pub creation: Vec<FileOp>,
    /// Each node's state, in the order of the ids.
    pub nodes: Vec<Recovery>,
}

/// Why a cluster cannot start from a folder. No file was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SurveyError {
    /// The folder belongs to a cluster of another size.
    #[error(
        "the folder was created for {found} nodes: start it with --nodes {found}, or choose another \
         --data-dir"
    )]
    OtherSize {
        /// How many nodes it was made for.
        found: usize,
    },
    /// The folder holds a node of a cluster of processes.
    #[error(
        "{file} belongs to a node of a cluster of processes: serve it with `coracle node --id {}`, or choose \
         another --data-dir", .file.node
    )]
    OfMember {
        /// One of its files.
        file: FileName,
    },
    /// The folder holds a file of a node that this cluster does not have.
    #[error(
        "{file} belongs to node {}, which this cluster does not have: put the missing files of its cluster \
         back, or choose another --data-dir", .file.node
    )]
    OtherNode {
        /// The file.
        file: FileName,
    },
    /// The files of two nodes are of different clusters.
    #[error(
        "{one} and {other} belong to different clusters: put the files of one cluster back, or start again \
         with another --data-dir"
    )]
    DifferentClusters {
        /// A log.
        one: FileName,
        /// Another node's log.
        other: FileName,
    },
    /// Two logs have different entries of one term at one index. A term has one leader, and a
    /// leader has one log.
    #[error(
        "{one} and {other} hold different entries {index} of the same term, which no leader writes: one of \
         the files was changed. Put the files of one cluster back as they were when it stopped, or start \
         again with another --data-dir"
    )]
    DifferentHistories {
        /// A log.
        one: FileName,
        /// Another node's log.
        other: FileName,
        /// The entry.
        index: LogIndex,
    },
    /// A node's term is so far ahead that the other nodes would reject it.
    #[error(
        "{meta}, line 1: the term {term} is too far above {other}, that of another node, which would reject \
         it. Put the file back as it was when the server stopped last, or start again with another \
         --data-dir"
    )]
    TermsApart {
        /// The metadata with the highest term.
        meta: FileName,
        /// Its term.
        term: Term,
        /// The lowest term of a node.
        other: Term,
    },
    /// Some nodes cannot go on from their files.
    #[error("{0}")]
    Nodes(Box<LostNodes>),
    /// The folder holds no cluster that was ever used.
    #[error("the folder holds no cluster that was ever in use")]
    Unused,
}

/// Surveys the files of all nodes of a folder: `files[i]` are those of the node with the identity
/// `fresh[i]`, if the cluster has to be founded. `sync` is the sync policy from here on; founding
/// always syncs. See [`Surveyor`].
///
/// # Errors
///
/// [`SurveyError`] when the files are not those of one cluster of this size that can go on.
///
/// # Panics
///
/// When `files` and `fresh` differ in length.
pub fn survey(files: Vec<NodeFiles>, fresh: &[Identity], sync: SyncPolicy) -> Result<Survey, SurveyError> {
    let mut surveyor = Surveyor::new(fresh.to_vec(), sync);
    files.iter().for_each(|files| surveyor.look(files));
    surveyor.finish()
}

/// Surveys the files of one node after the other, so that only one node's bytes have to be in
/// memory: a folder may hold gigabytes.
///
/// The nodes of a cluster have the same log except for its end. In one process they share the
/// memory of its entries, also after a start.
#[derive(Debug)]
pub struct Surveyor {
    fresh: Vec<Identity>,
    sync: SyncPolicy,
    found: Vec<Found>,
    /// The recovered state of each node.
    recovered: Vec<Result<Recovery, RecoverError>>,
}

/// The nodes of a cluster that has been used.
struct Judged {
    whole: Vec<Recovery>,
    lost: Vec<(NodeId, RecoverError)>,
}

impl Surveyor {
    /// Creates a surveyor of the files of these nodes, which get the identities `fresh` if the
    /// cluster has to be founded.
    #[must_use]
    pub fn new(fresh: Vec<Identity>, sync: SyncPolicy) -> Self {
        Self { fresh, sync, found: Vec::new(), recovered: Vec::new() }
    }

    /// Reads the files of the next node, in the order of the ids.
    ///
    /// # Panics
    ///
    /// When all nodes were read already.
    pub fn look(&mut self, files: &NodeFiles) {
        let node = self.fresh[self.found.len()].node;
        self.found.push(Found::new(node, files));
        let logs = self.recovered.iter().flatten().map(|recovery| &recovery.restored.log[..]);
        let longest = logs.max_by_key(|log| log.last().map(|run| run.last().index)).unwrap_or_default();
        let recovered = recover_beside(node, files, self.sync, longest);
        self.recovered.push(recovered);
    }

    /// The recovered state of the node that was read last, if it can go on.
    pub(crate) fn latest(&mut self) -> Option<&mut Recovery> {
        self.recovered.last_mut()?.as_mut().ok()
    }

    /// Checks the files of all nodes together.
    ///
    /// # Errors
    ///
    /// [`SurveyError`] when the files are not those of one cluster of this size that can go on.
    ///
    /// # Panics
    ///
    /// When the files of a node were not read.
    pub fn finish(self) -> Result<Survey, SurveyError> {
        assert_eq!(self.found.len(), self.fresh.len(), "one set of files per node");
        check_cluster(&self.found, &self.fresh)?;
        if self.is_unused() {
            return Ok(found_anew(&self.found, &self.fresh, self.sync));
        }
        let Judged { whole, lost } = self.judge()?;
        if !lost.is_empty() {
            return Err(nodes_lost(lost, &whole));
        }
        Ok(Survey { creation: Vec::new(), nodes: whole })
    }

    /// Returns the node from which a new cluster is made when some nodes cannot go on: the most up
    /// to date of the whole ones, which must be a majority. See [`LostNodes`].
    ///
    /// # Errors
    ///
    /// [`SurveyError`] when the files are not those of one cluster of this size, or fewer than a
    /// majority are whole.
    ///
    /// # Panics
    ///
    /// When the files of a node were not read.
    pub fn most_up_to_date(self) -> Result<Recovery, SurveyError> {
        assert_eq!(self.found.len(), self.fresh.len(), "one set of files per node");
        check_cluster(&self.found, &self.fresh)?;
        if self.is_unused() {
            return Err(SurveyError::Unused);
        }
        let Judged { whole, lost } = self.judge()?;
        if 2 * whole.len() <= whole.len() + lost.len() {
            return Err(nodes_lost(lost, &whole));
        }
        let end = |recovery: &Recovery| {
            let last = recovery.restored.log.last().map_or(recovery.restored.log_start, Entries::last);
            (last.term, last.index)
        };
        Ok(whole.into_iter().max_by_key(end).expect("a majority is at least one"))
    }

    /// Whether a file is missing, and no file shows, or may have shown, that a node was used: the
    /// founding was interrupted or never begun.
    fn is_unused(&self) -> bool {
        let may_hold_promises = |found: &Found| found.unreadable().is_some() || found.witness().is_some();
        self.found.iter().any(|found| found.lost_file().is_some())
            && !self.found.iter().any(may_hold_promises)
    }

    /// Separates the nodes that can go on from those that cannot, and checks that the former are of
    /// one cluster with one history.
    fn judge(self) -> Result<Judged, SurveyError> {
        let witness = self.found.iter().find_map(Found::witness);
        let mut judged = Judged { whole: Vec::new(), lost: Vec::new() };
        for (found, recovered) in self.found.iter().zip(self.recovered) {
            let fault = match (found.lost_file(), witness) {
                (Some(file), Some(witness)) => RecoverError::Lost { file, witness },
                (Some(file), None) => RecoverError::Missing { file },
                (None, _) => match recovered {
                    Ok(recovery) => {
                        judged.whole.push(recovery);
                        continue;
                    }
                    Err(fault) => fault,
                },
            };
            judged.lost.push((found.node, fault));
        }
        check_together(&judged.whole)?;
        Ok(judged)
    }
}

fn nodes_lost(faults: Vec<(NodeId, RecoverError)>, whole: &[Recovery]) -> SurveyError {
    let whole = whole.iter().map(|recovery| recovery.identity.node).collect();
    SurveyError::Nodes(Box::new(LostNodes { faults, whole }))
}

/// Checks that nodes that are each whole are of one cluster and can go on together.
fn check_together(nodes: &[Recovery]) -> Result<(), SurveyError> {
    let Some(first) = nodes.first() else { return Ok(()) };
    let cluster = |recovery: &Recovery| (recovery.identity.cluster, recovery.identity.voters.clone());
    let file = |recovery: &Recovery, kind| FileName::new(recovery.identity.node, kind);
    let log = |recovery| file(recovery, FileKind::Log);
    if let Some(other) = nodes.iter().find(|other| cluster(other) != cluster(first)) {
        return Err(SurveyError::DifferentClusters { one: log(first), other: log(other) });
    }
    for (place, one) in nodes.iter().enumerate() {
        for other in &nodes[place + 1..] {
            if let Some(index) = contradiction(&one.restored, &other.restored) {
                return Err(SurveyError::DifferentHistories { one: log(one), other: log(other), index });
            }
        }
    }
    let term = |recovery: &&Recovery| recovery.restored.hard_state.current_term;
    let highest = nodes.iter().max_by_key(term).expect("there is one");
    let (highest_term, lowest) =
        (term(&highest), nodes.iter().map(|node| term(&node)).min().expect("there is one"));
    if highest_term.0 - lowest.0 > Term::JUMP_MAX {
        let meta = file(highest, FileKind::Meta);
        return Err(SurveyError::TermsApart { meta, term: highest_term, other: lowest });
    }
    Ok(())
}

/// Returns the index at which two logs contradict each other, if they do. By Log Matching (§5.3),
/// entries of one index and one term are the same, and so are all entries before them. The last
/// index at which both logs have the same term decides, since its checksum covers all entries
/// before it.
fn contradiction(one: &Restored, other: &Restored) -> Option<LogIndex> {
    let end = |restored: &Restored| restored.log.last().map_or(restored.log_start, Entries::last).index;
    let start = one.log_start.index.max(other.log_start.index);
    let last = end(one).min(end(other));
    let of_one_term = (start.0..=last.0).rev().map(LogIndex).find_map(|index| {
        let point = |restored: &Restored| point_at(index, restored.log_start, &restored.log);
        let (one, other) = (point(one)?, point(other)?);
        (one.term == other.term).then_some((one, other))
    });
    of_one_term.and_then(|(one, other)| (one != other).then_some(one.index))
}

fn check_cluster(found: &[Found], fresh: &[Identity]) -> Result<(), SurveyError> {
    for node in found {
        let FoundLog::Readable { header, .. } = &node.log else { continue };
        if !header.identity.roster.is_empty() {
            return Err(SurveyError::OfMember { file: node.file(FileKind::Log) });
        }
        if header.identity.voters.len() != fresh.len() {
            return Err(SurveyError::OtherSize { found: header.identity.voters.len() });
        }
    }
    Ok(())
}

/// Plans the founding of a cluster of which no node was used.
fn found_anew(found: &[Found], fresh: &[Identity], sync: SyncPolicy) -> Survey {
    let mut creation = Vec::new();
    // The metadata of an interrupted founding is removed first. Without any of it, the logs count
    // as unfinished again, whatever a crash leaves of them.
    let metas: Vec<_> = found.iter().filter(|node| !matches!(node.meta, FoundMeta::Missing)).collect();
    if !metas.is_empty() {
        creation.extend(metas.iter().map(|node| FileOp::Remove { file: node.file(FileKind::Meta) }));
        creation.push(FileOp::SyncFolder);
    }
    for identity in fresh {
        let file = FileName::new(identity.node, FileKind::Log);
        creation
            .extend([FileOp::Create { file, bytes: header_of(identity).encode() }, FileOp::Sync { file }]);
    }
    creation.push(FileOp::SyncFolder);
    for identity in fresh {
        let meta = Meta::new(identity, HardState::default(), LogPoint::ORIGIN);
        creation.extend(replace_meta(identity.node, meta.encode()));
    }
    Survey { creation, nodes: fresh.iter().map(|identity| new_node(identity, sync)).collect() }
}

fn header_of(identity: &Identity) -> LogHeader {
    LogHeader { identity: identity.clone(), after: LogPoint::ORIGIN }
}

fn new_node(identity: &Identity, sync: SyncPolicy) -> Recovery {
    let header_len = header_of(identity).encode().len() as u64;
    let (restored, after) = (Restored::default(), LogPoint::ORIGIN);
    let planner = Planner::new(identity.clone(), restored.hard_state, after, header_len, sync);
    let snapshots = SnapshotPlanner::new(identity.clone(), after.index, sync);
    let (identity, repairs, notices) = (identity.clone(), Vec::new(), Vec::new());
    Recovery { identity, restored, repairs, notices, planner, snapshots }
}

#[cfg(test)]
mod tests;
