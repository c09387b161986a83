//! Where a node keeps its files: a folder, or a file system of its own that can be full and can
//! lose its power.
//!
//! The power of a file system is cut as its own developers do it to test recovery: it is told to
//! shut down at once and to write nothing more, not even its journal (`EXT4_IOC_SHUTDOWN` with
//! `NOLOGFLUSH`). What was synced is in the image; what was not is gone with the cache. Metadata
//! waits minutes for a commit of its own, so a rename or a new file that nobody synced is lost as
//! well.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::probe::runs;

/// How large a file system is. Sparse, so it costs only what is written to it.
const IMAGE_BYTES: u64 = 256 << 20;
/// What tells a file system, by its folder, to shut down: this workspace has no `unsafe` code to
/// call `ioctl` with.
const SHUT_DOWN: &str = "open(my $folder, '<', $ARGV[0]) or die; my $how = pack('L', 2); \
                         ioctl($folder, 0x8004587d, $how) or die";

/// The place of one node's files.
#[derive(Debug)]
pub(super) struct Home {
    /// The folder; with an image, where it is mounted.
    folder: PathBuf,
    image: Option<PathBuf>,
}

impl Home {
    /// A folder like any other.
    pub(super) fn plain(folder: &Path) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        Ok(Self { folder: folder.to_owned(), image: None })
    }

    /// A file system of its own.
    ///
    /// # Errors
    ///
    /// It cannot be made or mounted here.
    pub(super) fn mounted(folder: &Path) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let image = folder.with_extension("image");
        fs::File::create(&image)?.set_len(IMAGE_BYTES)?;
        let quick = "lazy_itable_init=1,lazy_journal_init=1";
        demand("mkfs.ext4", &["-q", "-F", "-m", "0", "-E", quick, text(&image)])?;
        let home = Self { folder: folder.to_owned(), image: Some(image) };
        home.mount()?;
        fs::create_dir_all(home.data())?;
        fs::File::open(&home.folder)?.sync_all()?;
        Ok(home)
    }

    /// Where the node is to keep its files.
    pub(super) fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    fn mount(&self) -> io::Result<()> {
        let Some(image) = &self.image else { return Ok(()) };
        demand("mount", &["-o", "loop,commit=300", text(image), text(&self.folder)])
    }

    /// The file system stops at once. Whoever uses it gets errors from now on.
    pub(super) fn cut_power(&mut self) -> io::Result<()> {
        demand("perl", &["-e", SHUT_DOWN, text(&self.folder)])
    }

    /// The file system comes back with what it had synced. Nobody may be using it.
    pub(super) fn restore_power(&mut self) -> io::Result<()> {
        demand("umount", &[text(&self.folder)])?;
        self.mount()
    }

    /// Leaves no room for another byte.
    pub(super) fn fill(&self) -> io::Result<()> {
        let mut filler = fs::File::create(self.folder.join("filler"))?;
        for size in [1 << 20, 4 << 10, 1 << 10] {
            let bytes = vec![0; size];
            while filler.write_all(&bytes).is_ok() {}
        }
        // Allocation is delayed: only now it is certain. What did not fit after all is not worth a
        // word.
        _ = filler.sync_all();
        Ok(())
    }

    /// There is room again.
    pub(super) fn make_room(&self) -> io::Result<()> {
        fs::remove_file(self.folder.join("filler"))
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if self.image.is_some() {
            // Kept files stay readable in the image; a mount left behind would be in nobody's way
            // but the folder's.
            _ = runs("umount", &["-l", text(&self.folder)]);
        }
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("the folders of a run have plain names")
}

fn demand(program: &str, arguments: &[&str]) -> io::Result<()> {
    if runs(program, arguments) { Ok(()) } else { Err(io::Error::other(format!("{program} {arguments:?}"))) }
}
