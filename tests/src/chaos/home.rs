//! Storage of one node: a folder, or a separate file system that can become full and lose its
//! power.
//!
//! The power of a file system is cut in the way in which its developers test recovery: it is
//! ordered to shut down at once and to write nothing more, not even its journal
//! (`EXT4_IOC_SHUTDOWN` with `NOLOGFLUSH`). Synced data is in the image, and unsynced data is lost
//! with the cache. Metadata is committed only after minutes, so a rename or a new file that was not
//! synced is lost as well.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::probe::runs;

/// The size of a file system. The image is sparse, so it takes only the space that is written.
const IMAGE_BYTES: u64 = 256 << 20;
/// A Perl script that orders the file system of a folder to shut down: this workspace has no
/// `unsafe` code to call `ioctl` with.
const SHUT_DOWN: &str = "open(my $folder, '<', $ARGV[0]) or die; my $how = pack('L', 2); \
                         ioctl($folder, 0x8004587d, $how) or die";

/// The storage of one node.
#[derive(Debug)]
pub(super) struct Home {
    /// The folder, in which the image is mounted if there is one.
    folder: PathBuf,
    image: Option<PathBuf>,
}

impl Home {
    /// Creates an ordinary folder.
    pub(super) fn plain(folder: &Path) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        Ok(Self { folder: folder.to_owned(), image: None })
    }

    /// Creates a separate file system.
    ///
    /// # Errors
    ///
    /// When it cannot be created or mounted here.
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

    /// The data folder of the node.
    pub(super) fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    fn mount(&self) -> io::Result<()> {
        let Some(image) = &self.image else { return Ok(()) };
        demand("mount", &["-o", "loop,commit=300", text(image), text(&self.folder)])
    }

    /// Stops the file system at once. Every process that uses it gets errors from now on.
    pub(super) fn cut_power(&mut self) -> io::Result<()> {
        demand("perl", &["-e", SHUT_DOWN, text(&self.folder)])
    }

    /// Mounts the file system again, with the data that was synced. No process may be using it.
    pub(super) fn restore_power(&mut self) -> io::Result<()> {
        demand("umount", &[text(&self.folder)])?;
        self.mount()
    }

    /// Fills the file system completely.
    pub(super) fn fill(&self) -> io::Result<()> {
        let mut filler = fs::File::create(self.folder.join("filler"))?;
        for size in [1 << 20, 4 << 10, 1 << 10] {
            let bytes = vec![0; size];
            while filler.write_all(&bytes).is_ok() {}
        }
        // Allocation is delayed, so the space is only taken by this sync. Ignore an error for the
        // bytes that did not fit.
        _ = filler.sync_all();
        Ok(())
    }

    /// Frees the space again.
    pub(super) fn make_room(&self) -> io::Result<()> {
        fs::remove_file(self.folder.join("filler"))
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if self.image.is_some() {
            // Kept files stay readable in the image. Unmount lazily, so that only the folder is
            // affected.
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
