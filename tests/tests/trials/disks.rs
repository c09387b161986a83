//! Small disks of their own: file systems of a size, which can be full, hang, or not be there.

use std::path::{Path, PathBuf};

use crate::run;

/// A file system of its own, mounted in a temporary folder. It is gone when it is dropped.
#[derive(Debug)]
pub(crate) struct Disk {
    place: tempfile::TempDir,
    is_frozen: bool,
}

impl Disk {
    /// A disk in memory of so many bytes; `None` where this process may mount none.
    pub(crate) fn in_memory(bytes: u64) -> Option<Self> {
        let disk = Self::unmounted();
        let size = format!("size={bytes}");
        disk.mount(&["-t", "tmpfs", "-o", &size, "tmpfs"]).then_some(disk)
    }

    /// A disk of so many bytes with a journal, which can hang; `None` where this process may mount
    /// none.
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

    /// Where it is mounted.
    pub(crate) fn path(&self) -> PathBuf {
        self.place.path().join("disk")
    }

    /// Mounts a disk in a file again.
    pub(crate) fn mount_again(&self) -> bool {
        self.mount(&["-o", "loop", &self.image()])
    }

    /// The folder is empty from now on, as where a volume comes late.
    pub(crate) fn unmount(&self) {
        assert!(run(&["umount", &self.path().display().to_string()]), "nothing in it is open");
    }

    /// From now on a disk in memory has so many bytes.
    pub(crate) fn resize(&self, bytes: u64) {
        assert!(self.mount(&["-o", &format!("remount,size={bytes}")]), "it can grow");
    }

    /// From now on nothing that is written comes back; whether that is possible.
    pub(crate) fn freeze(&mut self) -> bool {
        self.is_frozen = run(&["fsfreeze", "--freeze", &self.path().display().to_string()]);
        self.is_frozen
    }

    /// It goes on.
    pub(crate) fn thaw(&mut self) {
        if std::mem::replace(&mut self.is_frozen, false) {
            run(&["fsfreeze", "--unfreeze", &self.path().display().to_string()]);
        }
    }

    /// Puts a link to a folder of this disk where a server expects its own.
    pub(crate) fn take_the_place_of(&self, folder: &Path) {
        let data = self.path().join("data");
        std::fs::create_dir(&data).expect("there is room for a folder");
        std::os::unix::fs::symlink(data, folder).expect("nothing is there yet");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.thaw();
        // Lazily: a server that is about to end may have a file open.
        run(&["umount", "--lazy", &self.path().display().to_string()]);
    }
}
