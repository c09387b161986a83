//! `backup --data-dir`: the same file, made of a data folder that no server uses. It is the way out
//! when a node's files are lost: a majority of whole nodes holds everything that was acknowledged.
//!
//! Which nodes are whole, and which of them is the one to take, [`coracle_storage`] decides.

use std::path::{Path, PathBuf};

use coracle_core::raft::NodeId;
use coracle_storage::blocking::Folder;
use coracle_storage::{
    ClusterId, FileError, FolderLock, Identity, Incarnation, LockError, Salvage, SurveyError, Surveyor,
    SyncPolicy,
};
use thiserror::Error;

use crate::serve::nodes_of;

/// Why a folder gives no backup.
#[derive(Debug, Error)]
pub(crate) enum SalvageError {
    #[error(
        "{} holds no logs of a cluster in one process that agree how many nodes it has: a cluster of processes is backed up while it \
         runs, from any of its nodes", .0.display()
    )]
    NoCluster(PathBuf),
    #[error(transparent)]
    Lock(#[from] LockError),
    #[error(transparent)]
    Files(#[from] FileError),
    #[error("{}: {cause}", .folder.display())]
    Survey { folder: PathBuf, cause: SurveyError },
}

/// What a backup of the folder holds. The folder is left as it is.
pub(super) fn salvage(folder: &Path) -> Result<Salvage, SalvageError> {
    let nodes = nodes_of(folder).ok_or_else(|| SalvageError::NoCluster(folder.to_owned()))?;
    let _lock = FolderLock::take(folder)?;
    // Nothing is founded, so nobody gets these identities.
    let fresh = Identity::for_new_cluster(ClusterId(0), &vec![Incarnation(0); usize::from(nodes)]);
    let mut surveyor = Surveyor::new(fresh, SyncPolicy::Always);
    let files = Folder::new(folder);
    for node in 0..u64::from(nodes) {
        surveyor.look(&files.read(NodeId(node))?);
    }
    let recovery = surveyor.most_up_to_date();
    let recovery = recovery.map_err(|cause| SalvageError::Survey { folder: folder.to_owned(), cause })?;
    Ok(Salvage::new(&recovery))
}
