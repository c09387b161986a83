//! `log`: reads a log file, a snapshot or a data folder without a server. It only reads, so it may
//! also run while a server writes the file.
//!
//! [`coracle_storage`] defines which files are valid. This module only displays them.

use std::borrow::Cow;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use coracle_storage::{
    Damage, FileError, LogScan, SealedLineError, SnapshotError, SurveyError, TornTail, Verdict,
};
use thiserror::Error;

use crate::exit::Exit;
use crate::input::{self, Input, may_be_of_coracle};
use crate::output::calm;

pub(crate) mod folder;
mod metadata;
mod show;
mod snapshot;
pub(crate) mod verify;

/// Read a log file or a snapshot, without a server
#[derive(Args, Debug)]
pub(crate) struct Log {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    Show(show::Show),
    Verify(verify::Verify),
}

/// Why a file is unreadable or invalid.
#[derive(Debug, Error)]
pub(crate) enum LogError {
    #[error("{}: {cause}", .path.display())]
    Read { path: PathBuf, cause: io::Error },
    #[error("{}: this is not a Coracle file: it does not begin like a log, a snapshot, a backup or metadata", .path.display())]
    Foreign { path: PathBuf },
    #[error(
        "{}: this is a Coracle file in the format \"{format}\", neither a log nor a snapshot", .path.display()
    )]
    OtherKind { path: PathBuf, format: String },
    #[error("{}: line 1, the header: {fault}", .path.display())]
    Header { path: PathBuf, fault: SealedLineError },
    #[error(
        "{}: line {} (at byte {}) is torn: {} bytes that a running or killed server may leave; \
         it cuts them off at its next start",
        .path.display(), .tail.line, .tail.offset, .tail.bytes
    )]
    Torn { path: PathBuf, tail: TornTail },
    #[error("{}: {damage}", .path.display())]
    Damaged { path: PathBuf, damage: Damage },
    #[error("{}: the snapshot is not whole: {fault}", .path.display())]
    Snapshot { path: PathBuf, fault: SnapshotError },
    #[error("{}: {fault}", .path.display())]
    SnapshotLine { path: PathBuf, fault: SnapshotError },
    #[error("{}: the metadata: {fault}", .path.display())]
    Metadata { path: PathBuf, fault: SealedLineError },
    #[error(transparent)]
    File(#[from] FileError),
    #[error("{}: there is no file of a node in this folder", .path.display())]
    NoNode { path: PathBuf },
    #[error("{}: {failed} of {nodes} nodes are not clean", .path.display())]
    Folder { path: PathBuf, failed: usize, nodes: usize },
    #[error("{}: the nodes cannot start together: {error}", .path.display())]
    Together { path: PathBuf, error: SurveyError },
    #[error("cannot write the answer: {0}")]
    Output(#[from] io::Error),
}

impl LogError {
    pub(crate) fn exit(&self) -> Exit {
        Exit::Failure
    }

    /// Returns whether stdout was closed by its reader.
    pub(crate) fn is_broken_pipe(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }
}

impl Log {
    pub(crate) fn run(self) -> Result<(), LogError> {
        match self.action {
            Action::Show(show) => show.run(),
            Action::Verify(verify) => verify.run(),
        }
    }
}

fn read(file: &Path) -> Result<Input, LogError> {
    input::read(file).map_err(|(path, cause)| LogError::Read { path, cause })
}

fn open<'a>(path: &Path, bytes: &'a [u8]) -> Result<LogScan<'a>, LogError> {
    let path = path.to_owned();
    LogScan::new(bytes).map_err(|fault| match fault {
        _ if !may_be_of_coracle(bytes) => LogError::Foreign { path },
        SealedLineError::UnknownFormat { format, known_format, .. } if format != known_format => {
            LogError::OtherKind { path, format }
        }
        fault => LogError::Header { path, fault },
    })
}

/// Returns text of a file for stdout: unchanged, except that a terminal gets no control characters.
fn shown(text: &str) -> Cow<'_, str> {
    if io::stdout().is_terminal() { calm(text) } else { text.into() }
}

/// Converts the verdict of a scan that has returned all its entries to a result.
fn ending(path: &Path, scan: &LogScan<'_>) -> Result<(), LogError> {
    let path = path.to_owned();
    match scan.verdict().expect("a scan that ended has a verdict") {
        Verdict::Clean => Ok(()),
        Verdict::TornTail(tail) => Err(LogError::Torn { path, tail }),
        Verdict::Damaged(damage) => Err(LogError::Damaged { path, damage }),
    }
}
