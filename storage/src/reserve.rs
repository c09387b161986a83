//! Room that a data folder keeps for bad times: a file of nothing, which a start on a full disk
//! gives back.
//!
//! A log that has filled its disk leaves room for nothing else, and a start needs some: the
//! metadata is written anew before it is acted on, and again by each election. So as long as there
//! is plenty, a start sets some room aside, and one that finds next to none uses it. What comes of
//! it is a node that can be asked, and can take its part in elections, until an operator has made
//! room.
//!
//! Deliberately not here: room for entries. A log without room ends its node, as any failed write
//! does.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::{FallocateFlags, OFlags, fallocate, statvfs};

use crate::lock::FILE_MODE;

/// The file's name in a data folder.
const RESERVE_FILE: &str = "RESERVE";
/// How much is set aside. Chosen because the metadata of the most nodes that a folder may have, and
/// some hundred small entries, fit into it.
const RESERVE_BYTES: u64 = 1 << 20;
/// A start that finds less than this is given what was set aside. Chosen as four times as much, so
/// that setting it aside never is what fills a disk.
const PLENTY_BYTES: u64 = 4 * RESERVE_BYTES;

/// Sets room aside in `folder`, where there is plenty, or gives back what was set aside. It may be
/// called by the holder of the folder's lock alone. Where the file system tells nothing, or sets
/// nothing aside, nothing is done: a reserve is a help, and a start does not depend on it.
pub(crate) fn balance(folder: &Path) {
    let Ok(disk) = statvfs(folder) else { return };
    balance_with(folder, disk.f_bavail.saturating_mul(disk.f_frsize));
}

fn balance_with(folder: &Path, available_bytes: u64) {
    let path = folder.join(RESERVE_FILE);
    // What this returns would change nothing: a start goes on either way.
    if available_bytes < PLENTY_BYTES {
        _ = fs::remove_file(path);
    } else if set_aside(&path).is_err() {
        // Half a reserve is removed: no later start would give it back before the disk is full.
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
    fn room_is_set_aside_while_there_is_plenty_and_given_back_when_there_is_not() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join(RESERVE_FILE);
        balance_with(place.path(), PLENTY_BYTES - 1);
        assert!(!file.exists(), "a disk that is nearly full is not filled up");
        balance_with(place.path(), PLENTY_BYTES);
        // Where this file system sets nothing aside there is nothing to look at.
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
