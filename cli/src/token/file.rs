//! Reading and changing a token file. The owner alone may read it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use coracle_storage::tokens::{TOKEN_FILE_BYTES_MAX, TokenFault, TokenFile, TokenFileError};
use tempfile::NamedTempFile;
use thiserror::Error;

use crate::private_file::is_open_to_others;

/// Why a token file cannot be used.
#[derive(Debug, Error)]
pub(crate) enum TokenFileProblem {
    #[error("{}: {cause}", .path.display())]
    File { path: PathBuf, cause: io::Error },
    #[error(
        "{}: other users of this machine can read it (mode {mode:03o}): run `chmod 600 {}`",
        .path.display(), .path.display()
    )]
    Open { path: PathBuf, mode: u32 },
    #[error("{}: {cause}", .path.display())]
    Content { path: PathBuf, cause: TokenFileError },
    #[error("{}: {cause}", .path.display())]
    Change { path: PathBuf, cause: TokenFault },
}

/// Reads a token file.
///
/// # Errors
///
/// [`TokenFileProblem`], also when other users can read the file.
pub(crate) fn read(path: &Path) -> Result<TokenFile, TokenFileProblem> {
    let problem = |cause| TokenFileProblem::File { path: path.into(), cause };
    read_open(path, &File::open(path).map_err(problem)?)
}

fn read_open(path: &Path, file: &File) -> Result<TokenFile, TokenFileProblem> {
    let problem = |cause| TokenFileProblem::File { path: path.into(), cause };
    let metadata = file.metadata().map_err(problem)?;
    if is_open_to_others(&metadata) {
        let mode = metadata.permissions().mode() & 0o777;
        return Err(TokenFileProblem::Open { path: path.into(), mode });
    }
    let mut text = String::new();
    // One byte more than is valid, so that a longer file is rejected and not cut.
    file.take(TOKEN_FILE_BYTES_MAX as u64 + 1).read_to_string(&mut text).map_err(problem)?;
    TokenFile::parse(&text).map_err(|cause| TokenFileProblem::Content { path: path.into(), cause })
}

/// Changes a token file, all or nothing: the new content gets the name once it is on disk. Two
/// changes at the same time follow each other. `creates`: a missing file is created.
///
/// # Errors
///
/// [`TokenFileProblem`]; then the file is as before.
pub(crate) fn change<T>(
    path: &Path,
    creates: bool,
    change: impl FnOnce(&mut TokenFile) -> Result<T, TokenFault>,
) -> Result<T, TokenFileProblem> {
    let problem = |cause| TokenFileProblem::File { path: path.into(), cause };
    let held = locked(path, creates).map_err(problem)?;
    let mut file = read_open(path, &held)?;
    let changed = change(&mut file).map_err(|cause| TokenFileProblem::Change { path: path.into(), cause })?;
    write(path, &file.encode()).map_err(problem)?;
    Ok(changed)
}

/// Opens the file and locks it against other changes. One that was replaced meanwhile is opened
/// again.
fn locked(path: &Path, creates: bool) -> io::Result<File> {
    loop {
        let file = OpenOptions::new().read(true).write(true).create(creates).mode(0o600).open(path)?;
        file.lock()?;
        let (held, named) = (file.metadata()?, fs::metadata(path)?);
        if (held.dev(), held.ino()) == (named.dev(), named.ino()) {
            return Ok(file);
        }
    }
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    // A symbolic link stays one.
    let path = fs::canonicalize(path)?;
    let folder = path.parent().unwrap_or(Path::new("/"));
    let mut temporary = NamedTempFile::new_in(folder)?;
    temporary.write_all(text.as_bytes())?;
    temporary.as_file().sync_all()?;
    temporary.persist(&path)?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use coracle_core::access::{Grant, Role};
    use coracle_storage::tokens::TokenEntry;

    use super::*;

    fn entry(name: &str) -> TokenEntry {
        let grant = Grant { name: name.into(), role: Role::Read, prefixes: Vec::new() };
        TokenEntry { grant, expires: None, digest: None }
    }

    #[test]
    fn a_change_is_written_for_its_owner_alone_and_a_failed_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens.jsonl");
        assert!(change(&path, false, |file| file.add(entry("a"))).is_err(), "there is no file");
        change(&path, true, |file| file.add(entry("a"))).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let before = fs::read(&path).unwrap();
        let twice = change(&path, true, |file| file.add(entry("a")));
        assert!(matches!(twice, Err(TokenFileProblem::Change { cause: TokenFault::NameTwice, .. })));
        assert_eq!(fs::read(&path).unwrap(), before);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file is left");
    }

    #[test]
    fn changes_at_the_same_time_all_take_effect() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens.jsonl");
        std::thread::scope(|scope| {
            for number in 0..8 {
                let path = &path;
                scope.spawn(move || {
                    for at in 0..10 {
                        change(path, true, |file| file.add(entry(&format!("n{number}-{at}")))).unwrap();
                    }
                });
            }
        });
        assert_eq!(read(&path).unwrap().entries().len(), 80);
    }

    #[test]
    fn a_file_that_others_can_read_is_refused_with_the_remedy() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens.jsonl");
        change(&path, true, |file| file.add(entry("a"))).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let told = read(&path).unwrap_err().to_string();
        assert!(told.contains("mode 640") && told.contains("chmod 600"), "{told}");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
        assert!(read(&path).is_ok());
    }
}
