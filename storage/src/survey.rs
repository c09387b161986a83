//! What a whole cluster in one data folder starts from: all of its nodes' files, looked at together.
//!
//! One node's files alone do not show that they are missing because somebody removed them. Together they do:
//!
//! | what is found | what follows |
//! | --- | --- |
//! | no file at all | a new cluster is founded |
//! | some files missing or unfinished, and no node has promised anything | its founding was interrupted: it is founded anew |
//! | some files missing, and a node has promised something (a term, a vote, an entry, a snapshot) | refused: a node that lost its files must not come back under its old identity |
//! | the files of a cluster of another size, or of a node of a cluster of processes | refused |
//! | all files | each node recovers; all must be of one cluster |
//!
//! For the founding to be recognised when a power cut ends it, logs come first, and no metadata file
//! exists until all logs are on disk.
//!
//! Deliberately not for a node that has a folder of its own: it cannot see the others.

use coracle_core::raft::{HardState, LogPoint, NodeId, Restored};

use crate::files::{FileKind, FileName, FileOp, NodeFiles, SyncPolicy, replace_meta};
use crate::header::LogHeader;
use crate::identity::Identity;
use crate::meta::Meta;
use crate::plan::Planner;
use crate::recover::{RecoverError, Recovery, recover_beside};
use crate::sealed::SealedLineFault;
use crate::snapshot::SnapshotPlanner;

/// What the nodes of a folder start from.
#[derive(Debug)]
pub struct Survey {
    /// Makes the files of a new cluster; empty when there is one. To be carried out before the nodes'
    /// repairs.
    pub creation: Vec<FileOp>,
    /// Each node's state, in the order of the ids.
    pub nodes: Vec<Recovery>,
}

/// Why a cluster cannot start from a folder. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SurveyError {
    /// The folder belongs to a cluster of another size.
    #[error(
        "the folder was made for {found} nodes: start it with --nodes {found}, or choose another --data-dir"
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
    /// The folder holds a file of a node that such a cluster does not have.
    #[error(
        "{file} belongs to node {}, which this cluster does not have: put the missing files of its cluster \
         back, or choose another --data-dir", .file.node
    )]
    OtherNode {
        /// The file.
        file: FileName,
    },
    /// A file is missing or empty, and the cluster has been in use.
    #[error(
        "{file} is missing or was never finished, but {witness} shows that the cluster has been in use: a \
         node that lost its files must not come back under its old identity, since it may have promised \
         what it would not know of. Put the file back, or start anew with another --data-dir"
    )]
    Lost {
        /// The file.
        file: FileName,
        /// A file with a term, a vote, an entry or a snapshot.
        witness: FileName,
    },
    /// The files of two nodes are of different clusters.
    #[error(
        "{one} and {other} belong to different clusters: put the files of one cluster back, or start anew \
         with another --data-dir"
    )]
    DifferentClusters {
        /// A log.
        one: FileName,
        /// Another node's log.
        other: FileName,
    },
    /// The files of one node do not do.
    #[error(transparent)]
    Node(#[from] RecoverError),
}

/// Looks at the files of all nodes of a folder: `files[i]` are those of the node that `fresh[i]` is the
/// identity of, should the cluster be founded now. `sync` is the policy from here on; founding always waits
/// for the disk. See [`Surveyor`].
///
/// # Errors
///
/// [`SurveyError`] when the files are not those of one cluster of this size that can go on.
///
/// # Panics
///
/// When `files` and `fresh` are not of the same number.
pub fn survey(files: Vec<NodeFiles>, fresh: &[Identity], sync: SyncPolicy) -> Result<Survey, SurveyError> {
    let mut surveyor = Surveyor::new(fresh.to_vec(), sync);
    files.iter().for_each(|files| surveyor.look(files));
    surveyor.finish()
}

/// Looks at the files of one node after the other, so that no more than one node's bytes have to be in memory: a folder may hold
/// gigabytes.
///
/// The nodes of a cluster have the same log, but for its end. In one process they share its entries, after a start as before.
#[derive(Debug)]
pub struct Surveyor {
    fresh: Vec<Identity>,
    sync: SyncPolicy,
    found: Vec<Found>,
    /// What each node goes on from, as long as none has lost a file.
    recovered: Vec<Result<Recovery, RecoverError>>,
}

impl Surveyor {
    /// A surveyor of the files of these nodes, which get the identities `fresh` should the cluster be founded now.
    #[must_use]
    pub fn new(fresh: Vec<Identity>, sync: SyncPolicy) -> Self {
        Self { fresh, sync, found: Vec::new(), recovered: Vec::new() }
    }

    /// Takes the files of the next node, in the order of the ids.
    ///
    /// # Panics
    ///
    /// When there is no further node.
    pub fn look(&mut self, files: &NodeFiles) {
        let node = self.fresh[self.found.len()].node;
        self.found.push(Found::new(node, files));
        if self.found.iter().all(|found| found.lost_file().is_none()) {
            let logs = self.recovered.iter().flatten().map(|recovery| &recovery.restored.log[..]);
            let longest = logs.max_by_key(|log| log.last().map(|run| run.last().index)).unwrap_or_default();
            let recovered = recover_beside(node, files, self.sync, longest);
            self.recovered.push(recovered);
        }
    }

    /// What the node that was looked at last goes on from, as far as that is known by now.
    pub(crate) fn latest(&mut self) -> Option<&mut Recovery> {
        let is_latest = self.recovered.len() == self.found.len();
        self.recovered.last_mut().filter(|_| is_latest)?.as_mut().ok()
    }

    /// Judges what was found.
    ///
    /// # Errors
    ///
    /// [`SurveyError`] when the files are not those of one cluster of this size that can go on.
    ///
    /// # Panics
    ///
    /// When not every node was looked at.
    pub fn finish(self) -> Result<Survey, SurveyError> {
        let Self { fresh, sync, found, recovered } = self;
        assert_eq!(found.len(), fresh.len(), "one set of files per node");
        check_cluster(&found, &fresh)?;
        if let Some(file) = found.iter().find_map(Found::lost_file) {
            return found_anew(file, &found, &fresh, sync);
        }
        let nodes = recovered.into_iter().collect::<Result<Vec<_>, _>>()?;
        let cluster = |recovery: &Recovery| (recovery.identity.cluster, recovery.identity.voters.clone());
        if let Some(other) = nodes.iter().find(|other| cluster(other) != cluster(&nodes[0])) {
            let log = |recovery: &Recovery| FileName::new(recovery.identity.node, FileKind::Log);
            return Err(SurveyError::DifferentClusters { one: log(&nodes[0]), other: log(other) });
        }
        Ok(Survey { creation: Vec::new(), nodes })
    }
}

/// What a node's files look like from afar.
#[derive(Debug)]
struct Found {
    node: NodeId,
    log: FoundLog,
    meta: FoundMeta,
    /// Whether there is one, whatever is in it: a snapshot gets its name only when it is whole.
    has_snapshot: bool,
}

#[derive(Debug)]
enum FoundLog {
    Missing,
    /// No line is complete: what a power cut leaves of the founding.
    Unfinished,
    Readable {
        header: LogHeader,
        /// In the file, or in the snapshot before it.
        has_entries: bool,
    },
    Unreadable(SealedLineFault),
}

#[derive(Debug)]
enum FoundMeta {
    Missing,
    Readable(Meta),
    Unreadable(SealedLineFault),
}

impl Found {
    fn new(node: NodeId, files: &NodeFiles) -> Self {
        let log = match &files.log {
            None => FoundLog::Missing,
            Some(bytes) => match bytes.iter().position(|byte| *byte == b'\n') {
                None => FoundLog::Unfinished,
                Some(end) => match LogHeader::decode(&bytes[..=end]) {
                    Ok(header) => {
                        let has_entries = header.after != LogPoint::ORIGIN || bytes.len() > end + 1;
                        FoundLog::Readable { header, has_entries }
                    }
                    Err(fault) => FoundLog::Unreadable(fault),
                },
            },
        };
        let meta = match files.meta.as_deref().map(Meta::decode) {
            None => FoundMeta::Missing,
            Some(Ok(meta)) => FoundMeta::Readable(meta),
            Some(Err(fault)) => FoundMeta::Unreadable(fault),
        };
        Self { node, log, meta, has_snapshot: files.snapshot.is_some() }
    }

    fn file(&self, kind: FileKind) -> FileName {
        FileName::new(self.node, kind)
    }

    /// A file that was never made, never finished, or removed.
    fn lost_file(&self) -> Option<FileName> {
        if matches!(self.log, FoundLog::Missing | FoundLog::Unfinished) {
            return Some(self.file(FileKind::Log));
        }
        matches!(self.meta, FoundMeta::Missing).then(|| self.file(FileKind::Meta))
    }

    /// A file that shows that the node has promised something.
    fn witness(&self) -> Option<FileName> {
        if matches!(self.log, FoundLog::Readable { has_entries: true, .. }) {
            return Some(self.file(FileKind::Log));
        }
        if self.has_snapshot {
            return Some(self.file(FileKind::Snapshot));
        }
        let has_promised = matches!(&self.meta, FoundMeta::Readable(meta) if meta.holds_a_promise());
        has_promised.then(|| self.file(FileKind::Meta))
    }

    /// A file that cannot be read, and so may hold a promise.
    fn unreadable(&self) -> Option<RecoverError> {
        if let FoundLog::Unreadable(fault) = &self.log {
            return Some(RecoverError::Header { file: self.file(FileKind::Log), fault: fault.clone() });
        }
        let FoundMeta::Unreadable(fault) = &self.meta else { return None };
        Some(RecoverError::Meta { file: self.file(FileKind::Meta), fault: fault.clone() })
    }
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

/// Founds a cluster, unless what is there may hold a promise.
fn found_anew(
    lost: FileName,
    found: &[Found],
    fresh: &[Identity],
    sync: SyncPolicy,
) -> Result<Survey, SurveyError> {
    if let Some(error) = found.iter().find_map(Found::unreadable) {
        return Err(error.into());
    }
    if let Some(witness) = found.iter().find_map(Found::witness) {
        return Err(SurveyError::Lost { file: lost, witness });
    }
    let mut creation = Vec::new();
    // The metadata of an interrupted founding goes first: with all of it gone, the logs are unfinished
    // business again, whatever a crash leaves of them.
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
    Ok(Survey { creation, nodes: fresh.iter().map(|identity| new_node(identity, sync)).collect() })
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
