//! `log verify` of a data folder: whether each node in it can start from its files, and whether the
//! nodes can start together.
//!
//! It recovers every node as a start does, and so gives the same verdict, but writes nothing: not
//! the repairs, and no lock. A server that writes the folder meanwhile may look torn for a moment.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::Path;

use coracle_core::raft::{Entries, NodeId};
use coracle_storage::blocking::Folder;
use coracle_storage::survey::Surveyor;
use coracle_storage::{
    ClusterId, Identity, Incarnation, NodeFiles, Notice, RecoverError, Recovery, SyncPolicy, recover,
};
use serde::Serialize;

use super::LogError;
use super::verify::VerdictName;
use crate::output::Format;

/// The verdict on one node.
#[derive(Debug, Serialize)]
struct Report<'a> {
    file: &'a Path,
    node: u64,
    verdict: VerdictName,
    /// The last index of the log, and its term; 0 if the node cannot be recovered.
    last_index: u64,
    last_term: u64,
    /// The last index that the snapshot covers; 0 without one.
    snapshot_index: u64,
    current_term: u64,
    /// The repairs that a start would make, or the reason why it fails.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    messages: Vec<String>,
}

/// A node of a folder, and whether it can start.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) id: u64,
    pub(crate) verdict: VerdictName,
    /// The repairs that a start would make, or the reason why it fails.
    pub(crate) messages: Vec<String>,
}

/// Verifies all nodes of the folder, without output.
pub(crate) fn nodes_of(path: &Path) -> Result<Vec<Node>, LogError> {
    let folder = Folder::new(path);
    let nodes: BTreeSet<_> = folder.names()?.0.iter().map(|name| name.node).collect();
    let of_node = |node: NodeId| {
        let files = folder.read(node)?;
        let recovered = (!is_waiting(&files)).then(|| recover(node, &files, SyncPolicy::Never));
        let Report { node: id, verdict, messages, .. } = report(path, node, recovered.as_ref());
        Ok(Node { id, verdict, messages })
    };
    nodes.into_iter().map(of_node).collect()
}

/// Verifies all nodes of the folder and prints a line about each.
pub(super) fn verify(path: &Path, output: Format) -> Result<(), LogError> {
    let folder = Folder::new(path);
    let nodes: BTreeSet<_> = folder.names()?.0.iter().map(|name| name.node).collect();
    if nodes.is_empty() {
        return Err(LogError::NoNode { path: path.to_owned() });
    }
    let mut out = io::stdout().lock();
    let mut failed = 0;
    let mut identity = None;
    for node in &nodes {
        let files = folder.read(*node)?;
        let recovered =
            if is_waiting(&files) { None } else { Some(recover(*node, &files, SyncPolicy::Never)) };
        let report = report(path, *node, recovered.as_ref());
        failed += usize::from(!matches!(report.verdict, VerdictName::Clean));
        if output.is_text() {
            report.write_line(&mut out)?;
        } else {
            writeln!(out, "{}", serde_json::to_string(&report).map_err(io::Error::other)?)?;
        }
        identity = identity.or(recovered.and_then(Result::ok).map(|recovery| recovery.identity));
    }
    // The nodes of a cluster in one process start together, from all of their files.
    if let Some(identity) = identity.filter(|identity| identity.roster.is_empty()) {
        survey(path, &folder, &identity)?;
    }
    let (path, nodes) = (path.to_owned(), nodes.len());
    if failed == 0 { Ok(()) } else { Err(LogError::Folder { path, failed, nodes }) }
}

/// Whether these are the files of a node that waits for its cluster: it only knows its incarnation.
fn is_waiting(files: &NodeFiles) -> bool {
    files.founding.is_some() && files.log.is_none() && files.meta.is_none() && files.snapshot.is_none()
}

/// Checks that the nodes of a cluster in one process can start together.
fn survey(path: &Path, folder: &Folder, identity: &Identity) -> Result<(), LogError> {
    let size = identity.voters.len();
    // They are for a new cluster. There is one, so they go nowhere.
    let unused = Identity::for_new_cluster(ClusterId(0), &vec![Incarnation(0); size]);
    let mut surveyor = Surveyor::new(unused, SyncPolicy::Never);
    for node in (0_u64..).map(NodeId).take(size) {
        surveyor.look(&folder.read(node)?);
    }
    surveyor.finish().map(drop).map_err(|error| LogError::Together { path: path.to_owned(), error })
}

fn report<'a>(
    path: &'a Path,
    node: NodeId,
    recovered: Option<&Result<Recovery, RecoverError>>,
) -> Report<'a> {
    let empty = Report {
        file: path,
        node: node.0,
        verdict: VerdictName::Clean,
        last_index: 0,
        last_term: 0,
        snapshot_index: 0,
        current_term: 0,
        messages: Vec::new(),
    };
    match recovered {
        None => Report { messages: vec!["it waits for its cluster".to_owned()], ..empty },
        Some(Err(error)) => {
            Report { verdict: VerdictName::Damaged, messages: vec![error.to_string()], ..empty }
        }
        Some(Ok(recovery)) => {
            let restored = &recovery.restored;
            let is_torn = |notice: &Notice| matches!(notice, Notice::TornTail { .. });
            let last = restored.log.last().map_or(restored.log_start, Entries::last);
            Report {
                verdict: if recovery.notices.iter().any(is_torn) {
                    VerdictName::TornTail
                } else {
                    VerdictName::Clean
                },
                last_index: last.index.0,
                last_term: last.term.0,
                snapshot_index: restored.snapshot.as_ref().map_or(0, |snapshot| snapshot.meta.last.index.0),
                current_term: restored.hard_state.current_term.0,
                messages: recovery.notices.iter().map(ToString::to_string).collect(),
                ..empty
            }
        }
    }
}

impl Report<'_> {
    fn write_line(&self, out: &mut dyn Write) -> io::Result<()> {
        let Self { node, last_index, last_term, snapshot_index, current_term, .. } = self;
        write!(out, "{}: node {node}: {}", self.file.display(), self.verdict)?;
        if !matches!(self.verdict, VerdictName::Damaged) {
            write!(out, ": log up to index {last_index}, term {last_term}; snapshot up to {snapshot_index}")?;
            write!(out, "; current term {current_term}")?;
        }
        for message in &self.messages {
            write!(out, "; {message}")?;
        }
        writeln!(out)
    }
}
