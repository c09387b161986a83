//! `backup --data-dir`: writes the same backup file from a data folder that no server uses. This
//! recovers the data when the files of some nodes are lost: a majority of intact nodes holds
//! everything that was acknowledged.
//!
//! [`coracle_storage`] decides which nodes are intact, and which of them has the most up-to-date
//! log.

use std::path::{Path, PathBuf};

use coracle_core::raft::NodeId;
use coracle_storage::blocking::Folder;
use coracle_storage::{
    ClusterId, FileError, FolderLock, Identity, Incarnation, LockError, Salvage, SurveyError, Surveyor,
    SyncPolicy,
};
use thiserror::Error;

use crate::serve::nodes_of;

/// Why a folder yields no backup.
#[derive(Debug, Error)]
pub(crate) enum SalvageError {
    #[error(
        "{} holds no logs of a cluster in one process that agree on the number of nodes: back up a cluster \
         of processes while it runs, from any of its nodes", .0.display()
    )]
    NoCluster(PathBuf),
    #[error(transparent)]
    Lock(#[from] LockError),
    #[error(transparent)]
    Files(#[from] FileError),
    #[error("{}: {cause}", .folder.display())]
    Survey { folder: PathBuf, cause: SurveyError },
}

/// Creates a backup from the folder, without changing the folder.
pub(super) fn salvage(folder: &Path) -> Result<Salvage, SalvageError> {
    let nodes = nodes_of(folder).ok_or_else(|| SalvageError::NoCluster(folder.to_owned()))?;
    let _lock = FolderLock::acquire(folder)?;
    // No cluster is bootstrapped, so these identities are never used.
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
