//! Writes a new file: complete under its name, or not at all, and readable by its owner alone.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use super::CertError;

/// The mode of a new folder.
const FOLDER_MODE: u32 = 0o700;

/// Makes the folder, unless it is there.
pub(super) fn make_folder(path: &Path) -> Result<(), CertError> {
    let made = DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(path);
    made.map_err(|cause| CertError::File { path: path.to_owned(), cause })
}

/// Writes the file under a temporary name, which only its owner can read, and renames it when it is
/// on disk.
pub(super) fn write(path: &Path, bytes: &[u8], force: bool) -> Result<(), CertError> {
    let failed = |cause| CertError::File { path: path.to_owned(), cause };
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new().suffix(".tmp").tempfile_in(folder).map_err(failed)?;
    file.write_all(bytes).and_then(|()| file.as_file().sync_all()).map_err(failed)?;
    let named = if force { file.persist(path) } else { file.persist_noclobber(path) };
    match named {
        Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => {
            return Err(CertError::Exists(path.to_owned()));
        }
        named => named.map_err(|error| failed(error.error))?,
    };
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)
}

/// Reads a file as text.
pub(super) fn read_text(path: &Path) -> Result<String, CertError> {
    fs::read_to_string(path).map_err(|cause| CertError::File { path: path.to_owned(), cause })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_file_is_private_and_is_replaced_only_when_told() {
        let folder = tempfile::tempdir().unwrap();
        let inside = folder.path().join("a/b");
        make_folder(&inside).unwrap();
        let path = inside.join("x.key");
        write(&path, b"one", false).unwrap();
        assert!(matches!(write(&path, b"two", false), Err(CertError::Exists(_))));
        assert_eq!(read_text(&path).unwrap(), "one");
        write(&path, b"two", true).unwrap();
        assert_eq!(read_text(&path).unwrap(), "two");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(&inside)), (0o600, 0o700));
        assert_eq!(fs::read_dir(&inside).unwrap().count(), 1, "no temporary file is left");
    }
}
