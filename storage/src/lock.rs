//! Folder lock: ensures that one process at a time uses a data folder.
//!
//! The operating system holds the lock, on the folder itself and on a file named `LOCK` in it. It
//! ends with the process, however that ends, so a stale lock never has to be removed. A lock on the
//! file alone is not enough: a user who removes the file as a leftover would let a second process
//! in. The process id in the file only serves the error message.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::execution::{SYNC_UNSUPPORTED, is_unsupported};
use crate::reserve;

const LOCK_FILE: &str = "LOCK";

/// The mode of new files: only the user who runs the program may read and write them.
pub(crate) const FILE_MODE: u32 = 0o600;
/// The mode of new folders, likewise.
const FOLDER_MODE: u32 = 0o700;

/// The exclusive right to use a data folder, until it is dropped.
#[derive(Debug)]
pub struct FolderLock {
    /// These hold the lock as long as they are open.
    _folder: File,
    _file: File,
}

/// Why a data folder cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LockError {
    /// Another process uses it.
    #[error("the data folder {} is in use by another process{}", folder.display(), in_brackets(*.pid))]
    InUse {
        /// The data folder.
        folder: PathBuf,
        /// The process id of that process, if it could be read.
        pid: Option<u32>,
    },
    /// The folder does not exist and cannot be created.
    #[error("cannot create the data folder {}: {cause}", folder.display())]
    Create {
        /// The data folder.
        folder: PathBuf,
        /// The error of the operating system.
        cause: io::Error,
    },
    /// The parent of a new folder cannot be synced, so the new name may not be on disk.
    #[error(
        "cannot sync the folder {} above a new data folder: {cause}{}", folder.display(),
        if is_unsupported(cause) { SYNC_UNSUPPORTED } else { "" }
    )]
    SyncAbove {
        /// The parent folder.
        folder: PathBuf,
        /// The error of the operating system.
        cause: io::Error,
    },
    /// The lock file is a symbolic link. This program creates none, and it overwrites the lock
    /// file.
    #[error("{} is a symbolic link, which this program does not follow or make: remove it", folder.join(LOCK_FILE).display())]
    SymbolicLink {
        /// The data folder.
        folder: PathBuf,
    },
    /// The lock file cannot be created or locked.
    #[error("cannot lock the data folder {}: {cause}", folder.display())]
    Lock {
        /// The data folder.
        folder: PathBuf,
        /// The error of the operating system.
        cause: io::Error,
    },
}

fn in_brackets(pid: Option<u32>) -> String {
    pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default()
}

impl FolderLock {
    /// Locks the data folder `folder`, which is created if it is missing.
    ///
    /// # Errors
    ///
    /// [`LockError`] when another process holds the lock, or the operating system refuses.
    pub fn acquire(folder: &Path) -> Result<Self, LockError> {
        create_folder(folder)?;
        let refused = |cause| LockError::Lock { folder: folder.to_owned(), cause };
        let path = folder.join(LOCK_FILE);
        let mut file = open_lock_file(&path).map_err(|cause| match Errno::from_io_error(&cause) {
            Some(Errno::LOOP) => LockError::SymbolicLink { folder: folder.to_owned() },
            _ => refused(cause),
        })?;
        let itself = File::open(folder).map_err(refused)?;
        match itself.try_lock().and_then(|()| file.try_lock()) {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(LockError::InUse { folder: folder.to_owned(), pid: pid_in(&mut file) });
            }
            Err(TryLockError::Error(cause)) => return Err(refused(cause)),
        }
        reserve::balance(folder);
        file.set_len(0).map_err(refused)?;
        // If there is no room for the process id, the folder is locked all the same.
        _ = writeln!(file, "{}", std::process::id());
        Ok(Self { _folder: itself, _file: file })
    }
}

/// Opens the lock file without truncating it, since another process may hold its lock. Never
/// follows a link in its place, because the content of the file is replaced later.
fn open_lock_file(path: &Path) -> io::Result<File> {
    let follow_no_link = i32::try_from(OFlags::NOFOLLOW.bits()).map_err(io::Error::other)?;
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(FILE_MODE);
    options.custom_flags(follow_no_link).open(path)
}

/// Creates `folder` and its missing parents, and waits until these names are on disk: if a power
/// cut removed a folder, everything in it would be lost.
fn create_folder(folder: &Path) -> Result<(), LockError> {
    let missing: Vec<_> = folder.ancestors().take_while(|folder| !folder.exists()).collect();
    let created = DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(folder);
    created.map_err(|cause| LockError::Create { folder: folder.to_owned(), cause })?;
    for created in missing.into_iter().filter(|folder| !folder.as_os_str().is_empty()) {
        let parent = created.parent().filter(|parent| !parent.as_os_str().is_empty());
        let parent = parent.unwrap_or(Path::new("."));
        let synced = File::open(parent).and_then(|parent| parent.sync_all());
        synced.map_err(|cause| LockError::SyncAbove { folder: parent.to_owned(), cause })?;
    }
    Ok(())
}

fn pid_in(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// A user may remove the `LOCK` file as a leftover.
    #[test]
    fn a_lock_holds_without_its_file() {
        let place = tempfile::tempdir().unwrap();
        let first = FolderLock::acquire(place.path()).unwrap();
        fs::remove_file(place.path().join(LOCK_FILE)).unwrap();
        assert!(matches!(FolderLock::acquire(place.path()), Err(LockError::InUse { .. })));
        drop(first);
        FolderLock::acquire(place.path()).unwrap();
    }

    #[test]
    fn a_new_folder_is_for_its_user_alone() {
        use std::os::unix::fs::PermissionsExt;
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("new/data");
        let _lock = FolderLock::acquire(&folder).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&folder), mode(&folder.join(LOCK_FILE))), (0o700, 0o600));
    }

    #[test]
    fn a_second_lock_is_refused_until_the_first_is_dropped() {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("new/data");
        let first = FolderLock::acquire(&folder).unwrap();
        let refusal = FolderLock::acquire(&folder).unwrap_err();
        let pid = std::process::id();
        assert!(matches!(&refusal, LockError::InUse { pid: Some(found), .. } if *found == pid));
        let said = format!("the data folder {} is in use by another process (pid {pid})", folder.display());
        assert_eq!(refusal.to_string(), said);
        drop(first);
        FolderLock::acquire(&folder).unwrap();
    }

    #[test]
    fn an_old_lock_file_is_no_lock() {
        let place = tempfile::tempdir().unwrap();
        fs::write(place.path().join(LOCK_FILE), "4294967295 and more text than a new one has\n").unwrap();
        let lock = FolderLock::acquire(place.path()).unwrap();
        let text = fs::read_to_string(place.path().join(LOCK_FILE)).unwrap();
        assert_eq!(text, format!("{}\n", std::process::id()));
        drop(lock);
    }

    /// A user who can put a link into the folder could otherwise have any file of the server's user
    /// overwritten.
    #[test]
    fn a_link_in_the_place_of_the_file_is_not_followed() {
        let place = tempfile::tempdir().unwrap();
        let (folder, other) = (place.path().join("data"), place.path().join("other"));
        fs::create_dir(&folder).unwrap();
        fs::write(&other, "precious").unwrap();
        std::os::unix::fs::symlink(&other, folder.join(LOCK_FILE)).unwrap();
        let refusal = FolderLock::acquire(&folder).unwrap_err();
        assert!(matches!(refusal, LockError::SymbolicLink { .. }), "{refusal}");
        assert!(refusal.to_string().contains("LOCK is a symbolic link"), "{refusal}");
        assert_eq!(fs::read_to_string(&other).unwrap(), "precious");
    }

    #[test]
    fn a_file_in_the_place_of_the_folder_is_named() {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("data");
        fs::write(&folder, "a file").unwrap();
        let refusal = FolderLock::acquire(&folder).unwrap_err();
        assert!(matches!(refusal, LockError::Create { .. }), "{refusal}");
        assert!(refusal.to_string().contains(&folder.display().to_string()));
    }

    #[test]
    fn a_holder_that_left_no_number_is_unknown() {
        let place = tempfile::tempdir().unwrap();
        let holder = File::create(place.path().join(LOCK_FILE)).unwrap();
        holder.lock().unwrap();
        let refusal = FolderLock::acquire(place.path()).unwrap_err();
        assert!(refusal.to_string().ends_with("is in use by another process"), "{refusal}");
    }
}
