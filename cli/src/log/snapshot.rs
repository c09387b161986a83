//! Snapshots in `log show` and `log verify`, which accept a snapshot as well, because it replaces
//! the beginning of the log beside it.
//!
//! A snapshot that is not complete is useless, so none of its lines are counted or shown.

use std::io::{self, BufWriter, Write};
use std::path::Path;

use coracle_core::raft::NodeId;
use coracle_storage::{LogScan, SNAPSHOT_FORMAT, SealedLineError, SnapshotFile, SnapshotHeader};
use serde::Serialize;

use super::{LogError, shown};
use crate::output::Format;

/// Returns whether the first line is that of a snapshot, of any format version.
pub(super) fn is_snapshot(bytes: &[u8]) -> bool {
    matches!(
        LogScan::new(bytes),
        Err(SealedLineError::UnknownFormat { format, .. }) if format == SNAPSHOT_FORMAT
    )
}

/// Prints the snapshot's header and its lines.
pub(super) fn show(path: &Path, bytes: &[u8], format: Format) -> Result<(), LogError> {
    let file = open(path, bytes)?;
    let mut out = BufWriter::new(io::stdout().lock());
    match format {
        Format::Text => {
            write_header(&mut out, &file.header)?;
            out.write_all(shown(file.content).as_bytes())?;
        }
        Format::Json | Format::Jsonl => out.write_all(shown(&String::from_utf8_lossy(bytes)).as_bytes())?,
    }
    Ok(out.flush()?)
}

fn write_header(out: &mut dyn Write, header: &SnapshotHeader) -> io::Result<()> {
    let SnapshotHeader { node, cluster, incarnation, meta, .. } = header;
    let voters = list(meta.configuration.voters().nodes());
    let last = meta.last;
    writeln!(out, "node         {node}")?;
    writeln!(out, "cluster      {cluster}")?;
    writeln!(out, "incarnation  {incarnation}")?;
    writeln!(out, "voters       {voters}")?;
    if let Some(outgoing) = meta.configuration.outgoing() {
        writeln!(out, "outgoing     {}", list(outgoing.nodes()))?;
    }
    if !meta.configuration.learners().is_empty() {
        writeln!(out, "learners     {}", list(meta.configuration.learners()))?;
    }
    writeln!(out, "last         index {}, term {}, crc {}", last.index, last.term, last.checksum)?;
    writeln!(out)
}

fn list(nodes: &[NodeId]) -> String {
    nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// The result of a verification.
#[derive(Debug, Serialize)]
struct Report<'a> {
    file: &'a Path,
    verdict: &'static str,
    /// For a complete snapshot: the number of its lines between the first and the last, and the
    /// last log entry that it covers.
    #[serde(skip_serializing_if = "Option::is_none", flatten)]
    whole: Option<Whole>,
    bytes: usize,
    /// A short description of the fault, for people.
    #[serde(skip)]
    why: &'static str,
    /// The error message.
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
}

#[derive(Debug, Serialize)]
struct Whole {
    lines: usize,
    last_index: u64,
    last_term: u64,
    last_crc: String,
}

/// Verifies the snapshot and prints the verdict.
pub(super) fn verify(path: &Path, bytes: &[u8], format: Format) -> Result<(), LogError> {
    let found = open(path, bytes).and_then(|file| judged(path, file));
    let whole = found.as_ref().ok().map(|file| {
        let last = file.header.last();
        Whole {
            lines: file.content.lines().count(),
            last_index: last.index.0,
            last_term: last.term.0,
            last_crc: last.checksum.to_string(),
        }
    });
    let report = Report {
        file: path,
        verdict: if whole.is_some() { "clean" } else { "damaged" },
        whole,
        bytes: bytes.len(),
        why: match &found {
            Err(LogError::SnapshotLine { .. }) => "has content that no server writes",
            _ => "is not whole",
        },
        message: found.as_ref().err().map(ToString::to_string),
    };
    let mut out = io::stdout().lock();
    match format {
        Format::Text => report.write_line(&mut out)?,
        Format::Json | Format::Jsonl => {
            let json = serde_json::to_string(&report).map_err(io::Error::other)?;
            writeln!(out, "{json}")?;
        }
    }
    found.map(drop)
}

impl Report<'_> {
    fn write_line(&self, out: &mut dyn Write) -> io::Result<()> {
        let Self { verdict, bytes, .. } = self;
        let file = self.file.display();
        match &self.whole {
            Some(Whole { lines, last_index, last_term, last_crc }) => {
                let noun = if *lines == 1 { "line" } else { "lines" };
                let up_to = format!("up to index {last_index}, term {last_term}, crc {last_crc}");
                writeln!(out, "{file}: {verdict}: a snapshot of {lines} {noun} {up_to}; {bytes} bytes")
            }
            None => writeln!(out, "{file}: {verdict}: a snapshot that {}; {bytes} bytes", self.why),
        }
    }
}

fn open<'a>(path: &Path, bytes: &'a [u8]) -> Result<SnapshotFile<'a>, LogError> {
    SnapshotFile::decode(bytes).map_err(|fault| LogError::Snapshot { path: path.to_owned(), fault })
}

/// Returns the file if each of its lines is one that a server writes.
fn judged<'a>(path: &Path, file: SnapshotFile<'a>) -> Result<SnapshotFile<'a>, LogError> {
    match file.check_members().and_then(|()| file.check_lines()) {
        Ok(_) => Ok(file),
        Err(fault) => Err(LogError::SnapshotLine { path: path.to_owned(), fault }),
    }
}
