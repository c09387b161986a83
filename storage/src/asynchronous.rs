//! Carries file operations out beside an async executor.
//!
//! Opening a folder, and reading and writing snapshots, go through `async-fs`: one operation at a time, and the executor is
//! free in between. A group of a log does not ([`Folder::run_group`]): it goes to the pool of threads as a whole, and
//! [`blocking`] carries it out there. What waits for the disk then is one thread that was woken once, and the executor hears
//! of it once, where an operation at a time would be three of each for every put.

mod work;

use std::io::{self, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ::blocking::unblock;
use async_fs::unix::OpenOptionsExt;
use async_fs::{File, OpenOptions};
use coracle_core::raft::{NodeId, SnapshotPart};
use futures_lite::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt, StreamExt};

use crate::blocking;
use crate::execution::{FileError, Operation, target};
use crate::files::{FileKind, FileName, FileOp, NodeFiles};
use crate::host::FolderNames;
use crate::lock::FILE_MODE;
use crate::snapshot::{PartProgress, PartReader, PartWanted, ReadPartError};
pub use work::{open, prepare};

/// How often the pool is given something to do.
const POOL_TRIED_EVERY: Duration = Duration::from_secs(1);

/// Never ends, and gives the pool of threads something to do now and then. The pool lets its threads go when they are idle, and asks
/// the operating system for new ones when work comes and not later: work that comes while there are none to be had would wait for
/// ever. `pause` ends after the time that it is given.
pub async fn try_pool<T, P: Future>(pause: impl Fn(Duration) -> P) -> T {
    loop {
        pause(POOL_TRIED_EVERY).await;
        unblock(|| ()).detach();
    }
}

/// A node's way to its files in a data folder: the like of a [`blocking::Folder`] for an async executor.
///
/// The futures of its methods are to be driven to their end: what is on disk when one is dropped before is unknown, and
/// the folder is gone.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    /// Few: what is going to take a file's place, and what is repaired.
    open: Vec<OpenFile>,
    /// For the groups of a log. Gone for good after an error.
    groups: Option<blocking::Folder>,
    /// Whether an operation has failed, or was given up on its way.
    is_broken: bool,
}

#[derive(Debug)]
struct OpenFile {
    name: FileName,
    file: File,
    /// Created through this handle, and not synced yet.
    is_new: bool,
}

impl Folder {
    /// The folder at `path`, which must exist by the time it is used.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        let groups = Some(blocking::Folder::new(path.clone()));
        Self { path, open: Vec::new(), groups, is_broken: false }
    }

    /// The names of all files of any node, sorted.
    ///
    /// # Errors
    ///
    /// [`FileError`] when the folder cannot be read.
    pub async fn names(&self) -> Result<FolderNames, FileError> {
        let mut names = self.read_names().await.map_err(|cause| self.unread(cause))?;
        names.sort_unstable();
        Ok(FolderNames(names))
    }

    async fn read_names(&self) -> io::Result<Vec<FileName>> {
        let mut names = Vec::new();
        let mut entries = async_fs::read_dir(&self.path).await?;
        while let Some(entry) = entries.next().await {
            names.extend(entry?.file_name().to_str().and_then(FileName::parse));
        }
        Ok(names)
    }

    fn unread(&self, cause: io::Error) -> FileError {
        FileError { operation: Operation::Read, path: self.path.clone(), cause }
    }

    /// Reads a node's files as they are.
    ///
    /// # Errors
    ///
    /// As for [`blocking::Folder::read`].
    pub async fn read(&self, node: NodeId) -> Result<NodeFiles, FileError> {
        Ok(NodeFiles {
            log: self.read_if_there(node, FileKind::Log).await?,
            meta: self.read_if_there(node, FileKind::Meta).await?,
            founding: self.read_if_there(node, FileKind::Founding).await?,
            snapshot: self.read_if_there(node, FileKind::Snapshot).await?,
            has_cut_bytes: self.read_if_there(node, FileKind::LogCut).await?.is_some(),
        })
    }

    async fn read_if_there(&self, node: NodeId, kind: FileKind) -> Result<Option<Vec<u8>>, FileError> {
        match self.read_back(FileName::new(node, kind)).await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.cause.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Reads a file that must be there, all of it: a snapshot that was written, to be checked before it counts.
    ///
    /// # Errors
    ///
    /// As for [`blocking::Folder::read_back`].
    pub async fn read_back(&self, file: FileName) -> Result<Vec<u8>, FileError> {
        let path = self.path.join(file.to_string());
        let read = async_fs::read(&path).await;
        read.map_err(|cause| FileError { operation: Operation::Read, path, cause })
    }

    /// Reads a part of a node's snapshot, and only that of the file; `None` when there is no such part, or no longer.
    ///
    /// # Errors
    ///
    /// As for [`blocking::Folder::read_part`].
    pub async fn read_part(
        &self,
        node: NodeId,
        wanted: PartWanted,
    ) -> Result<Option<SnapshotPart>, ReadPartError> {
        let name = FileName::new(node, FileKind::Snapshot);
        let path = self.path.join(name.to_string());
        let refused = |cause| FileError { operation: Operation::Read, path: path.clone(), cause };
        let mut file = match File::open(&path).await {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(cause) => return Err(refused(cause).into()),
        };
        let len = file.metadata().await.map_err(refused)?.len();
        let mut reader = PartReader::new(wanted, len);
        loop {
            let bytes = read_range(&mut file, reader.range()).await.map_err(refused)?;
            match reader.take(&bytes).map_err(|fault| ReadPartError::Damaged { file: name, fault })? {
                PartProgress::More => {}
                PartProgress::Part(part) => return Ok(Some(part)),
                PartProgress::NoSuchPart => return Ok(None),
            }
        }
    }

    /// Carries `ops` out, in order and one at a time; all of them, or up to the first that fails.
    ///
    /// # Errors
    ///
    /// [`FileError`] names the operation that failed. The folder is not to be used again.
    ///
    /// # Panics
    ///
    /// When it is used again after an error or after the future of an earlier call was dropped: a write that failed is
    /// never retried.
    pub async fn run(&mut self, ops: &[FileOp]) -> Result<(), FileError> {
        assert!(!std::mem::replace(&mut self.is_broken, true), "a folder is not used after an error");
        for op in ops {
            let (operation, path) = target(&self.path, op);
            if let Err(cause) = self.execute(op, &path).await {
                return Err(FileError { operation, path, cause });
            }
        }
        self.is_broken = false;
        Ok(())
    }

    /// Carries `ops` out as one errand to the pool of threads; all of them, or up to the first that fails. Files that are
    /// written in this way are not to be written with [`Folder::run`] as well.
    ///
    /// # Errors
    ///
    /// As for [`Folder::run`].
    ///
    /// # Panics
    ///
    /// As for [`Folder::run`].
    pub async fn run_group(&mut self, ops: Vec<FileOp>) -> Result<(), FileError> {
        let mut folder = self.groups.take().expect("a folder is not used after an error");
        if !ops.is_empty() {
            folder = unblock(move || folder.run(&ops).map(|()| folder)).await?;
        }
        self.groups = Some(folder);
        Ok(())
    }

    /// As [`blocking::Folder::give_up`].
    ///
    /// # Errors
    ///
    /// [`FileError`] when the file cannot be removed.
    pub async fn give_up(&mut self, file: FileName) -> Result<(), FileError> {
        self.open.retain(|open| open.name != file);
        let mut folder = self.groups.take().unwrap_or_else(|| blocking::Folder::new(self.path.clone()));
        let folder = unblock(move || folder.give_up(file).map(|()| folder)).await?;
        (self.groups, self.is_broken) = (Some(folder), false);
        Ok(())
    }

    async fn execute(&mut self, op: &FileOp, path: &Path) -> io::Result<()> {
        match op {
            FileOp::Create { file, bytes } => self.create(*file, path, bytes).await,
            FileOp::Append { file, entries } => {
                let log = &mut self.opened(*file, path).await?.file;
                write(log, entries.iter().map(|run| run.text().as_bytes())).await
            }
            FileOp::AppendText { file, text } => {
                let opened = &mut self.opened(*file, path).await?.file;
                write(opened, [text.as_bytes()]).await
            }
            FileOp::Overwrite { file, at, bytes } => {
                let log = &mut self.opened(*file, path).await?.file;
                log.seek(SeekFrom::Start(*at)).await?;
                write(log, [bytes.as_slice()]).await?;
                log.seek(SeekFrom::End(0)).await.map(drop)
            }
            FileOp::Truncate { file, len } => {
                let log = &mut self.opened(*file, path).await?.file;
                log.set_len(*len).await?;
                log.seek(SeekFrom::End(0)).await.map(drop)
            }
            FileOp::Sync { file } => {
                // A new file is synced with its inode, any other only as far as its content needs it.
                let OpenFile { file, is_new, .. } = self.opened(*file, path).await?;
                if std::mem::take(is_new) { file.sync_all().await } else { file.sync_data().await }
            }
            FileOp::Rename { from, to } => {
                // What is open under either name is not what will have the new name.
                self.close(*from);
                self.close(*to);
                async_fs::rename(self.path.join(from.to_string()), path).await
            }
            FileOp::Remove { file } => {
                self.close(*file);
                async_fs::remove_file(path).await
            }
            FileOp::SyncFolder => File::open(path).await?.sync_all().await,
        }
    }

    async fn create(&mut self, name: FileName, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.close(name);
        let mut file = create_new(path).await?;
        write(&mut file, [bytes]).await?;
        self.open.push(OpenFile { name, file, is_new: true });
        Ok(())
    }

    /// The open file with this name, for writing to its end: it is opened if it is not yet.
    async fn opened(&mut self, name: FileName, path: &Path) -> io::Result<&mut OpenFile> {
        let at = match self.open.iter().position(|open| open.name == name) {
            Some(at) => at,
            None => {
                let mut file = OpenOptions::new().write(true).open(path).await?;
                file.seek(SeekFrom::End(0)).await?;
                self.open.push(OpenFile { name, file, is_new: false });
                self.open.len() - 1
            }
        };
        Ok(&mut self.open[at])
    }

    fn close(&mut self, name: FileName) {
        self.open.retain(|open| open.name != name);
    }
}

/// Writes all of these bytes, and waits until the operating system has them. They go through a pipe to a thread of the pool, which merely
/// takes no more after an error: what the error was, only the flush tells, be it that the disk is full or that it is ill.
async fn write<'a>(file: &mut File, pieces: impl IntoIterator<Item = &'a [u8]>) -> io::Result<()> {
    let mut written = Ok(());
    for piece in pieces {
        written = file.write_all(piece).await;
        if written.is_err() {
            break;
        }
    }
    file.flush().await?;
    written
}

/// As in [`blocking`]: creates a file that was not there before, in the place of whatever has its name.
async fn create_new(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(FILE_MODE);
    match options.open(path).await {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            async_fs::remove_file(path).await?;
            options.open(path).await
        }
        opened => opened,
    }
}

async fn read_range(file: &mut File, range: Range<u64>) -> io::Result<Vec<u8>> {
    let len = usize::try_from(range.end - range.start).map_err(io::Error::other)?;
    let mut bytes = vec![0; len];
    file.seek(SeekFrom::Start(range.start)).await?;
    file.read_exact(&mut bytes).await?;
    Ok(bytes)
}
