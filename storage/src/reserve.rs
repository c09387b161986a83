//! Disk space reserve: a file without content that a data folder keeps allocated, and that a start
//! on a full disk removes.
//!
//! A log that has filled its disk leaves no room, but a start needs some: the metadata is replaced
//! before the state is used, and again by each election. So a start reserves space while there is
//! plenty, and a start that finds almost none releases it. The result is a node that answers
//! requests and takes part in elections until an operator has made room.
//!
//! Deliberately not here: room for entries. A log without room stops its node, as any failed write
//! does.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::{FallocateFlags, OFlags, fallocate, statvfs};

use crate::lock::FILE_MODE;

/// The file's name in a data folder.
const RESERVE_FILE: &str = "RESERVE";
/// The size of the reserve. Chosen because the metadata of the most nodes that a folder may have,
/// and a few hundred small entries, fit into it.
const RESERVE_BYTES: u64 = 1 << 20;
/// A start with less free space than this releases the reserve. Chosen as four times the reserve,
/// so that reserving never fills a disk by itself.
const PLENTY_BYTES: u64 = 4 * RESERVE_BYTES;

/// Reserves space in `folder` if there is plenty, or releases the reserve. Only the holder of the
/// folder's lock may call it. Does nothing if the file system does not report its free space, or
/// cannot reserve: a start does not depend on the reserve.
pub(crate) fn balance(folder: &Path) {
    let Ok(disk) = statvfs(folder) else { return };
    balance_with(folder, disk.f_bavail.saturating_mul(disk.f_frsize));
}

fn balance_with(folder: &Path, available_bytes: u64) {
    let path = folder.join(RESERVE_FILE);
    // The results are ignored, because a start goes on either way.
    if available_bytes < PLENTY_BYTES {
        _ = fs::remove_file(path);
    } else if set_aside(&path).is_err() {
        // A partial reserve is removed: no later start would release it before the disk is full.
        _ = fs::remove_file(path);
    }
}

fn set_aside(path: &Path) -> io::Result<()> {
    let follow_no_link = i32::try_from(OFlags::NOFOLLOW.bits()).map_err(io::Error::other)?;
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(FILE_MODE).custom_flags(follow_no_link);
    let file = options.open(path)?;
    Ok(fallocate(&file, FallocateFlags::empty(), 0, RESERVE_BYTES)?)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn space_is_reserved_while_there_is_plenty_and_released_when_there_is_not() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join(RESERVE_FILE);
        balance_with(place.path(), PLENTY_BYTES - 1);
        assert!(!file.exists(), "a disk that is nearly full is not filled up");
        balance_with(place.path(), PLENTY_BYTES);
        // On a file system that cannot reserve there is no file to check.
        if let Ok(set_aside) = fs::metadata(&file) {
            assert!(set_aside.blocks() * 512 >= RESERVE_BYTES, "a hole is no room");
        }
        balance_with(place.path(), PLENTY_BYTES);
        balance_with(place.path(), PLENTY_BYTES - 1);
        assert!(!file.exists());
    }

    #[test]
    fn a_link_in_its_place_is_not_followed() {
        let place = tempfile::tempdir().unwrap();
        let other = place.path().join("other");
        fs::write(&other, "precious").unwrap();
        std::os::unix::fs::symlink(&other, place.path().join(RESERVE_FILE)).unwrap();
        balance_with(place.path(), PLENTY_BYTES);
        assert_eq!(fs::read_to_string(&other).unwrap(), "precious");
    }
}
