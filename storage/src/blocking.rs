//! Carries file operations out with `std::fs`, on the thread that asks for it.
//!
//! It decides nothing: what to write, in which order and when to wait for the disk is all in the
//! operations. [`asynchronous`](crate::asynchronous) is the same for an async executor.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use coracle_core::raft::NodeId;

use crate::execution::{AppendBuffer, FileError, Operation, target};
use crate::files::{FileKind, FileName, FileOp, NodeFiles};

/// A node's way to its files in a data folder. Keeps the log open from group to group.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    log: Option<OpenFile>,
    /// A file that was created and not synced yet.
    created: Option<OpenFile>,
    buffer: AppendBuffer,
    has_failed: bool,
}

#[derive(Debug)]
struct OpenFile {
    name: FileName,
    file: File,
}

impl Folder {
    /// The folder at `path`, which must exist by the time it is used.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        Self { path, log: None, created: None, buffer: AppendBuffer::default(), has_failed: false }
    }

    /// Reads a node's files as they are.
    ///
    /// # Errors
    ///
    /// [`FileError`] when a file is there and cannot be read.
    pub fn read(&self, node: NodeId) -> Result<NodeFiles, FileError> {
        let path = |kind| self.path_of(FileName::new(node, kind));
        Ok(NodeFiles {
            log: read_if_there(path(FileKind::Log))?,
            meta: read_if_there(path(FileKind::Meta))?,
            has_cut_bytes: read_if_there(path(FileKind::LogCut))?.is_some(),
        })
    }

    /// Carries `ops` out, in order; all of them, or up to the first that fails.
    ///
    /// # Errors
    ///
    /// [`FileError`] names the operation that failed. The folder is not to be used again.
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
                return Err(FileError { operation, path, cause });
            }
        }
        Ok(())
    }

    fn execute(&mut self, op: &FileOp, path: &Path) -> io::Result<()> {
        match op {
            FileOp::Create { file, bytes } => self.create(*file, path, bytes),
            FileOp::Append { file, entries } => {
                let log = open(&mut self.log, *file, path)?;
                log.write_all(self.buffer.join(entries))
            }
            FileOp::Overwrite { file, at, bytes } => {
                let log = open(&mut self.log, *file, path)?;
                log.seek(SeekFrom::Start(*at))?;
                log.write_all(bytes)?;
                log.seek(SeekFrom::End(0)).map(drop)
            }
            FileOp::Truncate { file, len } => {
                let log = open(&mut self.log, *file, path)?;
                log.set_len(*len)?;
                log.seek(SeekFrom::End(0)).map(drop)
            }
            FileOp::Sync { file } => self.sync(*file, path),
            FileOp::Rename { from, .. } => {
                self.close(*from);
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
        let mut file = File::create(path)?;
        file.write_all(bytes)?;
        self.created = Some(OpenFile { name, file });
        Ok(())
    }

    /// A new file is synced with its inode, through the handle that wrote it; the log only as far as its
    /// content needs it.
    fn sync(&mut self, name: FileName, path: &Path) -> io::Result<()> {
        match self.created.take_if(|created| created.name == name) {
            Some(created) => created.file.sync_all(),
            None => open(&mut self.log, name, path)?.sync_data(),
        }
    }

    fn close(&mut self, name: FileName) {
        self.created.take_if(|created| created.name == name);
        self.log.take_if(|log| log.name == name);
    }

    fn path_of(&self, file: FileName) -> PathBuf {
        self.path.join(file.to_string())
    }
}

/// The handle for writing to the end of a file that exists: the one that is open, or a new one in its place.
fn open<'a>(slot: &'a mut Option<OpenFile>, name: FileName, path: &Path) -> io::Result<&'a mut File> {
    slot.take_if(|open| open.name != name);
    let open = match slot.take() {
        Some(open) => open,
        None => {
            let mut file = OpenOptions::new().write(true).open(path)?;
            file.seek(SeekFrom::End(0))?;
            OpenFile { name, file }
        }
    };
    Ok(&mut slot.insert(open).file)
}

fn read_if_there(path: PathBuf) -> Result<Option<Vec<u8>>, FileError> {
    match fs::read(&path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(cause) => Err(FileError { operation: Operation::Read, path, cause }),
    }
}
