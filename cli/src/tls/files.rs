//! Reads the files of certificates and keys.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use coracle_tls::{CredentialError, PemFile};
use thiserror::Error;

use crate::private_file::is_open_to_others;

/// The longest file of certificates or keys, in bytes. Chosen above the bundle of all public
/// authorities, which has some 250 KB.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// Why the files that the flags name cannot be used.
#[derive(Debug, Error)]
pub(crate) enum TlsFileError {
    #[error("{}: {cause}", .path.display())]
    Read { path: PathBuf, cause: io::Error },
    #[error(transparent)]
    Credentials(#[from] CredentialError),
}

/// Reads a file.
pub(crate) fn read(path: &Path) -> Result<PemFile, TlsFileError> {
    let failed = |cause| TlsFileError::Read { path: path.to_owned(), cause };
    let file = File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX).read_to_end(&mut bytes).map_err(failed)?;
    Ok(PemFile { path: path.to_owned(), bytes, is_readable_by_others: is_open_to_others(&metadata) })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_file_says_whether_others_can_read_it_and_has_a_length_limit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key.pem");
        fs::write(&path, vec![b'x'; 5 << 20]).unwrap();
        for (mode, is_readable) in [(0o600, false), (0o640, true), (0o604, true), (0o400, false)] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let file = read(&path).unwrap();
            assert_eq!(file.is_readable_by_others, is_readable, "{mode:o}");
            assert_eq!(file.bytes.len() as u64, FILE_BYTES_MAX);
        }
        assert!(read(&folder.path().join("none")).unwrap_err().to_string().contains("none"));
    }
}
