//! A first start: a data folder without a cluster is about to get one.
//!
//! That is right once. At any other time the folder that held the cluster is missing: a volume that
//! is not mounted, a path with a typing error, a disk that was replaced. So a founding is a warning
//! that names the folder in full, and with `--require-cluster`, for unit files, it is refused.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use coracle_storage::{FileKind, FileName};

use super::ServeError;
use super::options::ServeOptions;

/// What is told when a cluster is founded, or is going to be.
#[derive(Debug)]
pub(super) struct Founding {
    folder: PathBuf,
}

impl fmt::Display for Founding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the data folder {} holds no cluster: this start founds a new one. If there was one before, stop this \
             server, and look for the folder: is its volume mounted? --require-cluster refuses to found",
            self.folder.display()
        )
    }
}

/// Whether this start would make the first files of a node in the data folder; `None`: it holds
/// some, or nothing is written.
///
/// # Errors
///
/// [`ServeError::ClusterRequired`] when it would and must not.
pub(super) fn founding(options: &ServeOptions) -> Result<Option<Founding>, ServeError> {
    if options.ephemeral || holds_a_node(&options.data_dir) {
        return Ok(None);
    }
    let folder = std::path::absolute(&options.data_dir).unwrap_or_else(|_| options.data_dir.clone());
    if options.require_cluster {
        return Err(ServeError::ClusterRequired { folder });
    }
    Ok(Some(Founding { folder }))
}

/// Whether there is a file of any node that says more than that the node has no cluster yet. What
/// cannot be read is for the start itself to complain of.
fn holds_a_node(folder: &Path) -> bool {
    let Ok(entries) = fs::read_dir(folder) else { return false };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let is_of_cluster = |name: String| {
        FileName::parse(&name)
            .is_some_and(|file| matches!(file.kind, FileKind::Log | FileKind::Meta | FileKind::Snapshot))
    };
    names.into_iter().any(is_of_cluster)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_with_a_log_is_no_first_start() {
        let place = tempfile::tempdir().unwrap();
        assert!(!holds_a_node(&place.path().join("missing")));
        fs::write(place.path().join("founding3.txt"), "").unwrap();
        fs::write(place.path().join("notes.txt"), "").unwrap();
        assert!(!holds_a_node(place.path()));
        fs::write(place.path().join("log03.txt"), "").unwrap();
        assert!(holds_a_node(place.path()));
    }
}
