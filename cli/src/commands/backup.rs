//! `backup`: writes a snapshot of all keys and sessions of a running cluster to a file.
//!
//! The server sends the backup in parts. This module joins and verifies them, and the file gets its
//! name only when it is complete and durable. If the server replaces the snapshot by a newer one
//! during the transfer, the backup starts again from scratch, a limited number of times.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use coracle_core::raft::{Checksum, Configuration, LogIndex, LogPoint, SnapshotEnd, SnapshotMeta, Term};
use coracle_storage::{BackupBroken, BackupSum, backup_header};
use serde::Deserialize;
use serde_json::value::RawValue;
use thiserror::Error;

use super::salvage::{SalvageError, salvage};
use super::{CommandError, Context, Execute};
use crate::exit::Exit;
use crate::interrupt;
use crate::output::{Format, calm};
use crate::reply::ErrorCode;
use crate::request::Request;

/// The maximum number of attempts at one backup. Arbitrary: the server delays its next snapshot for
/// long enough, unless it restarts or lags.
const ATTEMPTS_MAX: u32 = 5;

/// The interval at which the server is polled while it takes a snapshot.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(50);

/// The longest wait for the server to take a snapshot. Arbitrary: at the pace at which servers
/// write snapshots, enough for some hundred gigabytes.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(3600);

/// Write all keys and sessions of a cluster to a file
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  coracle backup backup.txt
  coracle backup - | gzip > backup.txt.gz
  coracle log verify backup.txt
  coracle restore backup.txt --data-dir ./restored
  coracle backup backup.txt --data-dir ./data    of a server that does not start

The file holds everything that was acknowledged before the command began: keys, values and sessions. It \
consists of JSON lines; `jq -c 'select(has(\"key\"))' FILE` shows the keys. It is written under a temporary \
name and renamed when it is complete, checked and on disk. The cluster serves meanwhile; the node that answers \
takes a snapshot, unless its last one is recent enough.")]
pub(crate) struct Backup {
    /// The file to write; - for stdout
    file: PathBuf,

    /// Replace the file if it exists
    #[arg(long)]
    force: bool,

    /// Read it from this data folder of a stopped cluster in one process; no server is needed
    ///
    /// The files of some nodes may be lost or damaged, as long as those of a majority are whole:
    /// they hold everything that was acknowledged. Nothing in the folder is changed.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

/// Why a backup failed.
#[derive(Debug, Error)]
pub(crate) enum BackupError {
    #[error("{}: the file already exists; use --force to replace it", .0.display())]
    Exists(PathBuf),
    #[error("{}: {cause}", .path.display())]
    File { path: PathBuf, cause: io::Error },
    #[error(transparent)]
    Broken(#[from] BackupBroken),
    #[error(
        "a newer snapshot replaced the backup's snapshot {ATTEMPTS_MAX} times: retry, or use another node"
    )]
    Overtaken,
    #[error("a newer snapshot replaced the backup's snapshot, and the output on stdout is incomplete: retry")]
    OvertakenOnStdout,
    #[error(transparent)]
    Folder(#[from] SalvageError),
    #[error("the server has not taken a snapshot in {}", humantime::format_duration(SNAPSHOT_TIMEOUT))]
    NoSnapshot,
}

impl BackupError {
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Exists(_) => Exit::Usage,
            Self::Overtaken | Self::OvertakenOnStdout | Self::NoSnapshot => Exit::NoOutcome,
            Self::File { .. } | Self::Broken(_) | Self::Folder(_) => Exit::Failure,
        }
    }
}

/// The members of a reply that concern the backup.
#[derive(Debug, Deserialize)]
struct Part<'a> {
    #[serde(borrow, default)]
    backup: Option<&'a RawValue>,
    #[serde(borrow, default)]
    configuration: Option<&'a RawValue>,
    #[serde(borrow, default)]
    lines: Vec<&'a RawValue>,
    #[serde(default)]
    next: Option<u64>,
    #[serde(default)]
    end: Option<End>,
    #[serde(default)]
    covering: Option<u64>,
}

#[derive(Debug, Deserialize)]
struct End {
    bytes: u64,
    checksum: String,
}

#[derive(Debug, Deserialize)]
struct Point {
    index: u64,
    term: u64,
    crc: String,
}

/// The extent of a complete backup.
struct Written {
    index: u64,
    /// The size of its content, that is, without the first and the last line.
    bytes: u64,
}

impl Execute for Backup {
    fn execute(&self, context: &mut Context<'_>) -> Result<(), CommandError> {
        if self.file == Path::new("-") {
            let written = self.attempt(context, None)?;
            return written.map(drop).ok_or(CommandError::Backup(BackupError::OvertakenOnStdout));
        }
        self.refuse_to_overwrite()?;
        self.write_file(context)
    }
}

impl Backup {
    /// Writes to a temporary file that no other backup uses, and renames it when it is complete and
    /// durable. After an error the temporary file is removed.
    fn write_file(&self, context: &mut Context<'_>) -> Result<(), CommandError> {
        let failed = |cause| BackupError::File { path: self.file.clone(), cause };
        let name = self.file.file_name().unwrap_or_default();
        for _ in 0..ATTEMPTS_MAX {
            let mut prefix = OsString::from(name);
            prefix.push(".");
            let made =
                tempfile::Builder::new().prefix(&prefix).suffix(".tmp").tempfile_in(folder_of(&self.file));
            let mut temporary = made.map_err(failed)?;
            let path = temporary.path().to_owned();
            let _unfinished = interrupt::unfinished(path.clone());
            let Some(written) = self.attempt(context, Some((temporary.as_file_mut(), &path)))? else {
                continue;
            };
            temporary.as_file().sync_all().map_err(failed)?;
            self.refuse_to_overwrite()?;
            let named = if self.force {
                temporary.persist(&self.file)
            } else {
                temporary.persist_noclobber(&self.file)
            };
            match named {
                Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => {
                    return Err(BackupError::Exists(self.file.clone()).into());
                }
                named => named.map_err(|error| failed(error.error))?,
            };
            File::open(folder_of(&self.file)).and_then(|folder| folder.sync_all()).map_err(failed)?;
            return self.report(context, &written);
        }
        Err(BackupError::Overtaken.into())
    }

    /// Writes one backup from the beginning; `None` when the server replaced its snapshot
    /// meanwhile.
    fn attempt(&self, context: &mut Context<'_>, file: Target<'_>) -> Result<Option<Written>, CommandError> {
        match &self.data_dir {
            None => from_server(context, file),
            Some(folder) => from_folder(context, folder, file).map(Some),
        }
    }

    fn refuse_to_overwrite(&self) -> Result<(), BackupError> {
        let is_there = fs::symlink_metadata(&self.file).is_ok();
        if is_there && !self.force { Err(BackupError::Exists(self.file.clone())) } else { Ok(()) }
    }

    fn report(&self, context: &mut Context<'_>, written: &Written) -> Result<(), CommandError> {
        let Written { index, bytes } = written;
        match context.format {
            Format::Text => {
                let file = self.file.display();
                writeln!(
                    context.out,
                    "{file}: everything up to index {index}, {bytes} bytes of keys and sessions"
                )?;
            }
            Format::Json | Format::Jsonl => {
                let file = crate::value::quoted(&self.file.to_string_lossy());
                writeln!(
                    context.out,
                    "{{\"file\":{file},\"last_index\":{index},\"bytes\":{bytes},\"status\":\"ok\"}}"
                )?;
            }
        }
        Ok(())
    }
}

fn folder_of(file: &Path) -> &Path {
    file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// The destination of a backup and its path for error messages; `None` for stdout.
type Target<'a> = Option<(&'a mut File, &'a Path)>;

fn write(context: &mut Context<'_>, file: &mut Target<'_>, bytes: &[u8]) -> Result<(), CommandError> {
    match file {
        Some((file, path)) => file
            .write_all(bytes)
            .map_err(|cause| BackupError::File { path: path.to_path_buf(), cause }.into()),
        None if context.is_terminal => Ok(write!(context.out, "{}", calm(&String::from_utf8_lossy(bytes)))?),
        None => Ok(context.out.write_all(bytes)?),
    }
}

fn from_folder(
    context: &mut Context<'_>,
    folder: &Path,
    mut file: Target<'_>,
) -> Result<Written, CommandError> {
    let mut salvage = salvage(folder).map_err(BackupError::from)?;
    for piece in salvage.by_ref() {
        write(context, &mut file, &piece)?;
    }
    Ok(Written { index: salvage.reaches().index.0, bytes: salvage.bytes() })
}

fn from_server(context: &mut Context<'_>, mut file: Target<'_>) -> Result<Option<Written>, CommandError> {
    let mut line = begin(context)?;
    let mut sum = BackupSum::default();
    let mut point = None;
    loop {
        let part: Part<'_> = serde_json::from_str(&line).map_err(|_| CommandError::ReplyIncomplete)?;
        let backup = part.backup.ok_or(CommandError::ReplyIncomplete)?;
        let mut text = String::with_capacity(line.len());
        for content in &part.lines {
            text.push_str(content.get());
            text.push('\n');
        }
        let last = match point {
            Some(last) => last,
            None => {
                let meta = meta(backup, part.configuration).ok_or(CommandError::ReplyIncomplete)?;
                let last = meta.last;
                point = Some(last);
                write(context, &mut file, &backup_header(meta, &text))?;
                last
            }
        };
        sum.add(&text);
        write(context, &mut file, text.as_bytes())?;
        if let Some(end) = &part.end {
            let checksum = Checksum::from_text(end.checksum.as_bytes());
            let checksum = checksum.ok_or(CommandError::ReplyIncomplete)?;
            let bytes = sum.bytes();
            let last_line = sum.finish(SnapshotEnd { bytes: end.bytes, checksum });
            write(context, &mut file, &last_line.map_err(BackupError::from)?)?;
            return Ok(Some(Written { index: last.index.0, bytes }));
        }
        // A reply without content, or with a wrong offset, would be requested forever.
        let next = part.next.filter(|next| *next == sum.bytes() && !text.is_empty());
        let offset = Some(next.ok_or(CommandError::ReplyIncomplete)?);
        let request = Request::Backup { backup: Some(backup), offset, covering: None };
        let reply = context.caller.call(request)?;
        line = match reply.refusal(request.effect()) {
            None => reply.line,
            Some(refusal) if refusal.code == ErrorCode::BackupGone => return Ok(None),
            Some(refusal) => return Err(CommandError::Refused(refusal)),
        };
    }
}

/// Returns the first part, once the server has a snapshot that covers the log index that it named.
fn begin(context: &mut Context<'_>) -> Result<String, CommandError> {
    let begun = Instant::now();
    let mut covering = None;
    loop {
        let request = Request::Backup { backup: None, offset: None, covering };
        let reply = context.caller.call(request)?;
        match reply.refusal(request.effect()) {
            // The snapshot existed when it was requested, but a newer one has replaced it since.
            Some(refusal) if refusal.code == ErrorCode::BackupGone => {}
            Some(refusal) => return Err(CommandError::Refused(refusal)),
            None => {
                let part: Part<'_> =
                    serde_json::from_str(&reply.line).map_err(|_| CommandError::ReplyIncomplete)?;
                if part.backup.is_some() {
                    return Ok(reply.line);
                }
                covering = Some(part.covering.ok_or(CommandError::ReplyIncomplete)?);
            }
        }
        if begun.elapsed() > SNAPSHOT_TIMEOUT {
            return Err(BackupError::NoSnapshot.into());
        }
        thread::sleep(ASK_AGAIN_AFTER);
    }
}

/// Parses the snapshot's metadata from the first part of a backup.
fn meta(backup: &RawValue, configuration: Option<&RawValue>) -> Option<SnapshotMeta> {
    let Point { index, term, crc } = serde_json::from_str(backup.get()).ok()?;
    let checksum = Checksum::from_text(crc.as_bytes())?;
    // The configuration has the form of a log entry's payload, in a separate JSON object.
    let payload = configuration?.get().strip_prefix('{')?.strip_suffix('}')?;
    let configuration = Configuration::read(payload)?;
    Some(SnapshotMeta {
        last: LogPoint { index: LogIndex(index), term: Term(term), checksum },
        configuration,
    })
}
