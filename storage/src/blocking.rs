//! Blocking executor of file operations: carries them out with `std::fs`, on the calling thread.
//!
//! It decides nothing: the operations themselves say what is written, in which order, and when to
//! wait for the disk. [`asynchronous`](crate::asynchronous) is the same for an async executor.

mod work;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use coracle_core::raft::{NodeId, SnapshotPart};
use rustix::fs::statvfs;

use crate::execution::{AppendBuffer, FileError, Operation, Room, target};
use crate::files::{FileKind, FileName, FileOp, NodeFiles};
use crate::host::FolderNames;
use crate::lock::FILE_MODE;
use crate::snapshot::{PartProgress, PartReader, PartWanted, ReadPartError};
pub use work::{open, prepare};

/// Access to a node's files in a data folder. Files that it writes stay open until they are renamed
/// or removed.
///
/// A node may have several, on different threads, as long as each file is written through one of
/// them at a time: for example one for the log and one for the snapshots.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    /// A short list: the log, and a temporary file that will replace another file.
    open: Vec<OpenFile>,
    buffer: AppendBuffer,
    has_failed: bool,
}

#[derive(Debug)]
struct OpenFile {
    name: FileName,
    file: File,
    /// Created through this handle and not synced yet.
    is_new: bool,
}

impl Folder {
    /// The folder at `path`, which must exist by the time it is used.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        Self { path, open: Vec::new(), buffer: AppendBuffer::default(), has_failed: false }
    }

    /// Returns the names of the files of all nodes, sorted.
    ///
    /// # Errors
    ///
    /// [`FileError`] when the folder cannot be read.
    pub fn names(&self) -> Result<FolderNames, FileError> {
        let unread = |cause| FileError::of(Operation::Read, self.path.clone(), cause);
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(unread)? {
            names.extend(entry.map_err(unread)?.file_name().to_str().and_then(FileName::parse));
        }
        names.sort_unstable();
        Ok(FolderNames(names))
    }

    /// Reads a node's files as they are.
    ///
    /// # Errors
    ///
    /// [`FileError`] when a file exists and cannot be read.
    pub fn read(&self, node: NodeId) -> Result<NodeFiles, FileError> {
        self.read_into(node, NodeFiles::default())
    }

    /// Like [`Folder::read`], in the memory of `before`, the files of another node. An allocator
    /// keeps much of what is freed, and with five logs as large as the data that would be several
    /// times what the nodes need.
    pub(crate) fn read_into(&self, node: NodeId, before: NodeFiles) -> Result<NodeFiles, FileError> {
        let path = |kind| self.path_of(FileName::new(node, kind));
        Ok(NodeFiles {
            log: read_if_there(path(FileKind::Log), before.log)?,
            meta: read_if_there(path(FileKind::Meta), None)?,
            founding: read_if_there(path(FileKind::Founding), None)?,
            snapshot: read_if_there(path(FileKind::Snapshot), before.snapshot)?,
            has_cut_bytes: read_if_there(path(FileKind::LogCut), None)?.is_some(),
        })
    }

    /// Reads a whole file that must exist: a snapshot that was written, to be verified before it
    /// counts.
    ///
    /// # Errors
    ///
    /// [`FileError`] when it cannot be read.
    pub fn read_back(&self, file: FileName) -> Result<Vec<u8>, FileError> {
        let path = self.path_of(file);
        fs::read(&path).map_err(|cause| FileError::of(Operation::Read, path, cause))
    }

    /// Reads one part of a node's snapshot and only that part of the file; `None` when there is no
    /// such part any more.
    ///
    /// # Errors
    ///
    /// [`ReadPartError`] when the file cannot be read, or is damaged where this part shows it.
    pub fn read_part(&self, node: NodeId, wanted: PartWanted) -> Result<Option<SnapshotPart>, ReadPartError> {
        let name = FileName::new(node, FileKind::Snapshot);
        let path = self.path_of(name);
        let refused = |cause| FileError::of(Operation::Read, path.clone(), cause);
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(cause) => return Err(refused(cause).into()),
        };
        let len = file.metadata().map_err(refused)?.len();
        let mut reader = PartReader::new(wanted, len);
        loop {
            let bytes = read_range(&mut file, reader.range()).map_err(refused)?;
            match reader.accept(&bytes).map_err(|fault| ReadPartError::Damaged { file: name, fault })? {
                PartProgress::More => {}
                PartProgress::Part(part) => return Ok(Some(part)),
                PartProgress::NoSuchPart => return Ok(None),
            }
        }
    }

    /// Carries out `ops` in order: all of them, or up to the first that fails.
    ///
    /// # Errors
    ///
    /// [`FileError`] names the operation that failed. The folder must not be used again.
    ///
    /// # Panics
    ///
    /// When it is used again after an error: a write that failed is never retried.
    pub fn run(&mut self, ops: &[FileOp]) -> Result<(), FileError> {
        assert!(!self.has_failed, "a folder is not used after an error");
        for op in ops {
            let (operation, path) = target(&self.path, op);
            if let Err(cause) = self.execute(op, &path) {
                self.has_failed = true;
                let mut error = FileError::of(operation, path, cause);
                if error.is_for_want_of_room() {
                    error.room = Some(Room { need: op.bytes(), free: free_bytes(&self.path) });
                }
                return Err(error);
            }
        }
        Ok(())
    }

    /// Removes a file for which the disk had no room, and makes the folder usable again. The file
    /// must be one that no other file depends on yet.
    ///
    /// # Errors
    ///
    /// [`FileError`] when it cannot be removed.
    pub fn give_up(&mut self, file: FileName) -> Result<(), FileError> {
        self.close(file);
        let path = self.path_of(file);
        match fs::remove_file(&path) {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => {
                Err(FileError::of(Operation::Remove, path, cause))
            }
            Ok(()) | Err(_) => {
                self.has_failed = false;
                Ok(())
            }
        }
    }

    fn execute(&mut self, op: &FileOp, path: &Path) -> io::Result<()> {
        match op {
            FileOp::Create { file, bytes } => self.create(*file, path, bytes),
            FileOp::Append { file, entries } => {
                let at = self.opened(*file, path)?;
                self.open[at].file.write_all(self.buffer.join(entries))
            }
            FileOp::AppendText { file, text } => {
                let at = self.opened(*file, path)?;
                self.open[at].file.write_all(text.as_bytes())
            }
            FileOp::Overwrite { file, at, bytes } => {
                let opened = self.opened(*file, path)?;
                let log = &mut self.open[opened].file;
                log.seek(SeekFrom::Start(*at))?;
                log.write_all(bytes)?;
                log.seek(SeekFrom::End(0)).map(drop)
            }
            FileOp::Truncate { file, len } => {
                let at = self.opened(*file, path)?;
                let log = &mut self.open[at].file;
                log.set_len(*len)?;
                log.seek(SeekFrom::End(0)).map(drop)
            }
            FileOp::Sync { file } => self.sync(*file, path),
            FileOp::Rename { from, to } => {
                // A file that is open under either name is not the one that has the new name.
                self.close(*from);
                self.close(*to);
                fs::rename(self.path_of(*from), path)
            }
            FileOp::Remove { file } => {
                self.close(*file);
                fs::remove_file(path)
            }
            FileOp::SyncFolder => File::open(path)?.sync_all(),
        }
    }

    fn create(&mut self, name: FileName, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.close(name);
        let mut file = create_new(path)?;
        file.write_all(bytes)?;
        self.open.push(OpenFile { name, file, is_new: true });
        Ok(())
    }

    /// Syncs a new file with its inode, and any other file only as far as its content needs it.
    fn sync(&mut self, name: FileName, path: &Path) -> io::Result<()> {
        let at = self.opened(name, path)?;
        let OpenFile { file, is_new, .. } = &mut self.open[at];
        if std::mem::take(is_new) { file.sync_all() } else { file.sync_data() }
    }

    /// Returns the place of this file among the open files, opened for writing at its end.
    fn opened(&mut self, name: FileName, path: &Path) -> io::Result<usize> {
        if let Some(at) = self.open.iter().position(|open| open.name == name) {
            return Ok(at);
        }
        let mut file = OpenOptions::new().write(true).open(path)?;
        file.seek(SeekFrom::End(0))?;
        self.open.push(OpenFile { name, file, is_new: false });
        Ok(self.open.len() - 1)
    }

    fn close(&mut self, name: FileName) {
        self.open.retain(|open| open.name != name);
    }

    fn path_of(&self, file: FileName) -> PathBuf {
        self.path.join(file.to_string())
    }
}

/// Returns how many bytes this user may still write in a folder; `None` if the file system does not
/// say.
fn free_bytes(folder: &Path) -> Option<u64> {
    statvfs(folder).ok().map(|disk| disk.f_bavail.saturating_mul(disk.f_frsize))
}

/// Creates a file exclusively, after removing any file that has its name.
///
/// Opening the existing file for writing would write wherever its name leads: through a symbolic
/// link to a file outside of the data folder, into a file that has a second name elsewhere, or into
/// a pipe. Removing follows no link.
fn create_new(path: &Path) -> io::Result<File> {
    let options = OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).clone();
    match options.open(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            fs::remove_file(path)?;
            options.open(path)
        }
        opened => opened,
    }
}

fn read_range(file: &mut File, range: Range<u64>) -> io::Result<Vec<u8>> {
    let len = usize::try_from(range.end - range.start).map_err(io::Error::other)?;
    let mut bytes = vec![0; len];
    file.seek(SeekFrom::Start(range.start))?;
    file.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// Reads a file in the memory of `spare`.
fn read_if_there(path: PathBuf, spare: Option<Vec<u8>>) -> Result<Option<Vec<u8>>, FileError> {
    let mut bytes = spare.unwrap_or_default();
    bytes.clear();
    let read = File::open(&path).and_then(|mut file| {
        let len = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
        bytes.try_reserve_exact(len)?;
        file.read_to_end(&mut bytes)
    });
    match read {
        Ok(_) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(cause) => Err(FileError::of(Operation::Read, path, cause)),
    }
}
