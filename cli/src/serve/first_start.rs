//! Detects a first start, which bootstraps a new cluster in the data folder.
//!
//! A bootstrap is right only once. At any other time a folder without a cluster means that the
//! right one is missing: its volume is not mounted, its path is misspelled, or its disk was
//! replaced. So a bootstrap logs a warning with the full path of the folder, and
//! `--require-cluster`, for unit files, rejects it.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use coracle_storage::{FileKind, FileName};

use super::ServeError;
use super::options::ServeOptions;

/// The warning that this start bootstraps a cluster.
#[derive(Debug)]
pub(super) struct Founding {
    folder: PathBuf,
}

impl fmt::Display for Founding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the data folder {} holds no cluster: this start bootstraps a new one. If it held one before, \
             stop this server and look for the folder: is its volume mounted? --require-cluster prevents a \
             bootstrap",
            self.folder.display()
        )
    }
}

/// Returns a warning if this start would create the first files of a node in the data folder;
/// `None` if the folder holds some, or if nothing is written to disk.
///
/// # Errors
///
/// [`ServeError::ClusterRequired`] if it would, and `--require-cluster` is set.
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

/// Returns whether the folder holds a file of a node that belongs to a cluster. Read errors are
/// ignored here, because the start itself reports them.
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
