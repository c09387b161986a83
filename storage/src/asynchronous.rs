//! Carries file operations out with `async-fs`, whose blocking calls run on a small pool of threads.
//!
//! It decides nothing: what to write, in which order and when to wait for the disk is all in the
//! operations. [`blocking`](crate::blocking) is the same for threads, and a diff of the two shows async
//! against threads and little else.

use std::io::{self, SeekFrom};
use std::path::{Path, PathBuf};

use async_fs::{self as fs, File, OpenOptions};
use coracle_core::raft::NodeId;
use futures_lite::{AsyncSeekExt, AsyncWriteExt};

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
    pub async fn read(&self, node: NodeId) -> Result<NodeFiles, FileError> {
        let path = |kind| self.path_of(FileName::new(node, kind));
        Ok(NodeFiles {
            log: read_if_there(path(FileKind::Log)).await?,
            meta: read_if_there(path(FileKind::Meta)).await?,
            has_cut_bytes: read_if_there(path(FileKind::LogCut)).await?.is_some(),
        })
    }

    /// Carries `ops` out, in order; all of them, or up to the first that fails. The future is to be driven
    /// to its end: what is on disk when it is dropped before is unknown.
    ///
    /// # Errors
    ///
    /// [`FileError`] names the operation that failed. The folder is not to be used again.
    ///
    /// # Panics
    ///
    /// When it is used again after an error: a write that failed is never retried.
    pub async fn run(&mut self, ops: &[FileOp]) -> Result<(), FileError> {
        assert!(!self.has_failed, "a folder is not used after an error");
        for op in ops {
            let (operation, path) = target(&self.path, op);
            if let Err(cause) = self.execute(op, &path).await {
                self.has_failed = true;
                return Err(FileError { operation, path, cause });
            }
        }
        Ok(())
    }

    async fn execute(&mut self, op: &FileOp, path: &Path) -> io::Result<()> {
        match op {
            FileOp::Create { file, bytes } => self.create(*file, path, bytes).await,
            FileOp::Append { file, entries } => {
                let log = open(&mut self.log, *file, path).await?;
                log.write_all(self.buffer.join(entries)).await?;
                log.flush().await
            }
            FileOp::Overwrite { file, at, bytes } => {
                let log = open(&mut self.log, *file, path).await?;
                log.seek(SeekFrom::Start(*at)).await?;
                log.write_all(bytes).await?;
                log.flush().await?;
                log.seek(SeekFrom::End(0)).await.map(drop)
            }
            FileOp::Truncate { file, len } => {
                let log = open(&mut self.log, *file, path).await?;
                log.set_len(*len).await?;
                log.seek(SeekFrom::End(0)).await.map(drop)
            }
            FileOp::Sync { file } => self.sync(*file, path).await,
            FileOp::Rename { from, .. } => {
                self.close(*from);
                fs::rename(self.path_of(*from), path).await
            }
            FileOp::Remove { file } => {
                self.close(*file);
                fs::remove_file(path).await
            }
            FileOp::SyncFolder => File::open(path).await?.sync_all().await,
        }
    }

    async fn create(&mut self, name: FileName, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.close(name);
        let mut file = File::create(path).await?;
        file.write_all(bytes).await?;
        file.flush().await?;
        self.created = Some(OpenFile { name, file });
        Ok(())
    }

    /// A new file is synced with its inode, through the handle that wrote it; the log only as far as its
    /// content needs it.
    async fn sync(&mut self, name: FileName, path: &Path) -> io::Result<()> {
        match self.created.take_if(|created| created.name == name) {
            Some(created) => created.file.sync_all().await,
            None => open(&mut self.log, name, path).await?.sync_data().await,
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
async fn open<'a>(slot: &'a mut Option<OpenFile>, name: FileName, path: &Path) -> io::Result<&'a mut File> {
    slot.take_if(|open| open.name != name);
    let open = match slot.take() {
        Some(open) => open,
        None => {
            let mut file = OpenOptions::new().write(true).open(path).await?;
            file.seek(SeekFrom::End(0)).await?;
            OpenFile { name, file }
        }
    };
    Ok(&mut slot.insert(open).file)
}

async fn read_if_there(path: PathBuf) -> Result<Option<Vec<u8>>, FileError> {
    match fs::read(&path).await {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(cause) => Err(FileError { operation: Operation::Read, path, cause }),
    }
}
