//! `restore`: creates the data folder of a new cluster from a backup, without a server.
//!
//! [`coracle_storage`] defines the files. This module chooses the new cluster's identities, ensures
//! that nothing is overwritten, and reads the result back as a server will read it.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use coracle_core::raft::NodeId;
use coracle_storage::blocking::Folder;
use coracle_storage::host::{StartError, draw_cluster, draw_incarnation};
use coracle_storage::{
    FileError, FolderLock, Identity, LockError, MemberError, MemberStart, SnapshotError, SnapshotFile,
    SurveyError, SyncPolicy, first_member, open_member, restore, survey,
};
use thiserror::Error;

use crate::address::Address;
use crate::exit::Exit;
use crate::input::{self, Input, may_be_of_coracle};
use crate::numbers;
use crate::output::Format;

/// Create the data folder of a new cluster from a backup
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  coracle restore backup.txt --data-dir ./restored
  coracle --data-dir ./restored                     serves it
  gunzip < backup.txt.gz | coracle restore - --data-dir ./restored
  coracle restore backup.txt --data-dir ./first --id 1 --address 10.0.0.1:4001
  coracle node --id 1 --data-dir ./first            serves it: others can join

The whole backup is checked before anything is written. The result is a new cluster, which nodes of the old \
cluster cannot join. After an interrupted restore no server accepts the folder: remove it, and restore again.")]
pub(crate) struct Restore {
    /// The backup; `-` for stdin
    file: PathBuf,

    /// The folder for the files; created if missing
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,

    /// Number of nodes, 1 to 9, for a cluster in one process
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = numbers::nodes)]
    nodes: u8,

    /// The id of the first node, for a cluster of processes
    #[arg(long, value_name = "ID", value_parser = numbers::id, requires = "address", conflicts_with = "nodes")]
    id: Option<u64>,

    /// Where the other nodes will reach it
    #[arg(long, value_name = "HOST:PORT", requires = "id")]
    address: Option<Address>,

    /// A line, or a JSON object
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t)]
    output: Format,
}

/// Why a restore failed.
#[derive(Debug, Error)]
pub(crate) enum RestoreError {
    #[error("{}: {cause}", .path.display())]
    File { path: PathBuf, cause: io::Error },
    #[error("{}: this is not a Coracle file: it does not begin like a backup", .path.display())]
    Foreign { path: PathBuf },
    #[error("{}: the backup is not whole: {fault}", .path.display())]
    NotWhole { path: PathBuf, fault: SnapshotError },
    #[error(
        "{}: {fault}. If a later version wrote it, restore with that version", .path.display()
    )]
    Line { path: PathBuf, fault: SnapshotError },
    #[error("the port of --address cannot be 0: the other nodes must know it")]
    PortIsZero,
    #[error(
        "{} holds {file}, which belongs to a node: restore the backup to another folder", .folder.display()
    )]
    InUse { folder: PathBuf, file: String },
    #[error(transparent)]
    Lock(#[from] LockError),
    #[error(transparent)]
    Write(#[from] FileError),
    #[error("the files were written but cannot be read back correctly: {0}")]
    Survey(#[from] SurveyError),
    #[error("the files were written but cannot be read back correctly: {0}")]
    Member(#[from] MemberError),
    #[error(transparent)]
    Identity(#[from] StartError),
    #[error("cannot write the answer: {0}")]
    Output(#[from] io::Error),
}

impl RestoreError {
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::PortIsZero | Self::InUse { .. } => Exit::Usage,
            _ => Exit::Failure,
        }
    }

    /// Returns whether stdout was closed by its reader.
    pub(crate) fn is_broken_pipe(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }
}

impl Restore {
    pub(crate) fn run(&self) -> Result<(), RestoreError> {
        if self.address.as_ref().is_some_and(|address| address.port() == 0) {
            return Err(RestoreError::PortIsZero);
        }
        let Input { name, bytes } =
            input::read(&self.file).map_err(|(path, cause)| RestoreError::File { path, cause })?;
        let refused = |fault| match may_be_of_coracle(&bytes) {
            true => RestoreError::NotWhole { path: name.clone(), fault },
            false => RestoreError::Foreign { path: name.clone() },
        };
        let backup = SnapshotFile::decode(&bytes).map_err(refused)?;
        let keys = backup
            .check_members()
            .and_then(|()| backup.check_lines())
            .map_err(|fault| RestoreError::Line { path: name.clone(), fault })?;
        let folder = &self.data_dir;
        fs::create_dir_all(folder).map_err(|cause| RestoreError::File { path: folder.clone(), cause })?;
        let _lock = FolderLock::acquire(folder)?;
        refuse_folder_in_use(folder)?;
        let identities = self.identities()?;
        Folder::new(folder).run(&restore(&backup, &identities))?;
        self.check(&identities)?;
        self.report(keys, backup.header.last().index.0, &identities)
    }

    fn identities(&self) -> Result<Vec<Identity>, StartError> {
        let cluster = draw_cluster()?;
        if let (Some(id), Some(address)) = (self.id, &self.address) {
            let address = address.to_string().into();
            return Ok(vec![first_member(NodeId(id), address, cluster, draw_incarnation()?)]);
        }
        let incarnations = (0..self.nodes).map(|_| draw_incarnation()).collect::<Result<Vec<_>, _>>()?;
        Ok(Identity::for_new_cluster(cluster, &incarnations))
    }

    /// Reads the files back, every byte of them, with the checks of a server's start.
    fn check(&self, identities: &[Identity]) -> Result<(), RestoreError> {
        let folder = Folder::new(&self.data_dir);
        if let (Some(id), [identity]) = (self.id, identities) {
            let files = folder.read(NodeId(id))?;
            let start = open_member(NodeId(id), &files, identity.incarnation, SyncPolicy::Always)?;
            let is_founded = matches!(start, MemberStart::Founded(_));
            assert!(is_founded, "a folder with a log and metadata is one of a member");
        } else {
            let files = identities.iter().map(|identity| folder.read(identity.node));
            survey(files.collect::<Result<_, _>>()?, identities, SyncPolicy::Always)?;
        }
        Ok(())
    }

    fn report(&self, keys: usize, index: u64, identities: &[Identity]) -> Result<(), RestoreError> {
        let mut out = io::stdout().lock();
        let cluster = identities[0].cluster;
        match self.output {
            Format::Text => {
                let folder = self.data_dir.display();
                let noun = if keys == 1 { "key" } else { "keys" };
                let serve = match self.id {
                    Some(id) => format!("coracle node --id {id} --data-dir {folder}"),
                    None => format!("coracle --data-dir {folder}"),
                };
                writeln!(out, "{folder}: {keys} {noun} as of index {index}; `{serve}` serves them")?;
            }
            Format::Json | Format::Jsonl => writeln!(
                out,
                "{{\"keys\":{keys},\"last_index\":{index},\"nodes\":{},\"cluster\":\"{cluster}\",\"status\":\"ok\"}}",
                identities.len()
            )?,
        }
        Ok(())
    }
}

/// Rejects a folder that holds files of a node. Temporary files do not count, so a restore that was
/// interrupted before it put a file in place may be repeated.
fn refuse_folder_in_use(folder: &Path) -> Result<(), RestoreError> {
    let failed = |cause| RestoreError::File { path: folder.to_owned(), cause };
    for entry in fs::read_dir(folder).map_err(failed)? {
        let file = entry.map_err(failed)?.file_name().to_string_lossy().into_owned();
        if is_of_a_node(&file) {
            return Err(RestoreError::InUse { folder: folder.to_owned(), file });
        }
    }
    Ok(())
}

fn is_of_a_node(file: &str) -> bool {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let names = ["log", "meta", "snap", "founding"];
    let stem = file.strip_suffix(".txt");
    stem.is_some_and(|stem| names.iter().any(|name| stem.strip_prefix(name).is_some_and(is_number)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_nodes_are_known_by_their_names() {
        for file in ["log00.txt", "log12.txt", "meta0.txt", "snap123.txt", "founding4.txt"] {
            assert!(is_of_a_node(file), "{file}");
        }
        for file in ["LOCK", "snap0.txt.tmp", "log.txt", "logs.txt", "backup.txt", "snapshot.txt"] {
            assert!(!is_of_a_node(file), "{file}");
        }
    }
}
