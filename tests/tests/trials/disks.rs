//! Small file systems for the trials, which can be full, hang, or be unmounted.

use std::path::{Path, PathBuf};

use crate::run;

/// A file system that is mounted in a temporary folder, and unmounted when it is dropped.
#[derive(Debug)]
pub(crate) struct Disk {
    place: tempfile::TempDir,
    is_frozen: bool,
}

impl Disk {
    /// Returns a disk of this many bytes in memory, or `None` if this process may not mount one.
    pub(crate) fn in_memory(bytes: u64) -> Option<Self> {
        let disk = Self::unmounted();
        let size = format!("size={bytes}");
        disk.mount(&["-t", "tmpfs", "-o", &size, "tmpfs"]).then_some(disk)
    }

    /// Returns a disk of this many bytes with a journal, which can hang, or `None` if this process
    /// may not mount one.
    pub(crate) fn in_file(bytes: u64) -> Option<Self> {
        let disk = Self::unmounted();
        let image = disk.image();
        let file = std::fs::File::create(&image).and_then(|file| file.set_len(bytes));
        let is_made = file.is_ok() && run(&["mkfs.ext4", "-q", &image]);
        (is_made && disk.mount_again()).then_some(disk)
    }

    fn unmounted() -> Self {
        let place = tempfile::tempdir().expect("there is room for a folder");
        std::fs::create_dir(place.path().join("disk")).expect("there is room for a folder");
        Self { place, is_frozen: false }
    }

    fn image(&self) -> String {
        self.place.path().join("image").display().to_string()
    }

    fn mount(&self, words: &[&str]) -> bool {
        run(&[&["mount"], words, &[&self.path().display().to_string()]].concat())
    }

    /// The path at which the disk is mounted.
    pub(crate) fn path(&self) -> PathBuf {
        self.place.path().join("disk")
    }

    /// Mounts a disk in a file again. Returns whether that worked.
    pub(crate) fn mount_again(&self) -> bool {
        self.mount(&["-o", "loop", &self.image()])
    }

    /// Unmounts the disk. Its folder is empty from then on, as if a volume was not mounted yet.
    pub(crate) fn unmount(&self) {
        assert!(run(&["umount", &self.path().display().to_string()]), "nothing in it is open");
    }

    /// Changes the size of a disk in memory to this many bytes.
    pub(crate) fn resize(&self, bytes: u64) {
        assert!(self.mount(&["-o", &format!("remount,size={bytes}")]), "it can grow");
    }

    /// Freezes the disk, so that writes to it hang. Returns whether that is possible.
    pub(crate) fn freeze(&mut self) -> bool {
        self.is_frozen = run(&["fsfreeze", "--freeze", &self.path().display().to_string()]);
        self.is_frozen
    }

    /// Ends the freeze.
    pub(crate) fn thaw(&mut self) {
        if std::mem::replace(&mut self.is_frozen, false) {
            run(&["fsfreeze", "--unfreeze", &self.path().display().to_string()]);
        }
    }

    /// Puts a symbolic link to a folder of this disk where a server expects its data folder.
    pub(crate) fn take_the_place_of(&self, folder: &Path) {
        let data = self.path().join("data");
        std::fs::create_dir(&data).expect("there is room for a folder");
        std::os::unix::fs::symlink(data, folder).expect("nothing is there yet");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.thaw();
        // Lazily, because a server that is about to end may have a file open.
        run(&["umount", "--lazy", &self.path().display().to_string()]);
    }
}
