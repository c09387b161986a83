//! Metadata files in `log verify`: term, vote and floor of a node.

use std::io::{self, Write};
use std::path::Path;

use coracle_storage::{META_FORMAT, Meta, SealedLineError};
use serde::Serialize;

use super::LogError;
use crate::output::Format;

/// Returns whether the text begins like a metadata file, of any format version.
pub(super) fn is_metadata(bytes: &[u8]) -> bool {
    bytes.starts_with(format!("{{\"format\":\"{META_FORMAT}\"").as_bytes())
}

/// The result of a verification.
#[derive(Debug, Serialize)]
struct Report<'a> {
    file: &'a Path,
    verdict: &'static str,
    /// For a valid file: its content.
    #[serde(skip_serializing_if = "Option::is_none", flatten)]
    content: Option<Content>,
    bytes: usize,
    /// The error message.
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
}

#[derive(Debug, Serialize)]
struct Content {
    node: u64,
    current_term: u64,
    voted_for: Option<u64>,
    /// The last index that the log must hold.
    floor_index: u64,
}

/// Verifies the metadata and prints the verdict.
pub(super) fn verify(path: &Path, bytes: &[u8], format: Format) -> Result<(), LogError> {
    let found = Meta::decode(bytes).map_err(|fault| LogError::Metadata { path: path.to_owned(), fault });
    let content = found.as_ref().ok().map(|meta| Content {
        node: meta.node.0,
        current_term: meta.hard_state.current_term.0,
        voted_for: meta.hard_state.voted_for.map(|node| node.0),
        floor_index: meta.floor.index.0,
    });
    let report = Report {
        file: path,
        verdict: match &found {
            Ok(_) => "clean",
            Err(LogError::Metadata { fault: SealedLineError::UnknownFormat { .. }, .. }) => "unknown_format",
            Err(_) => "damaged",
        },
        content,
        bytes: bytes.len(),
        message: found.as_ref().err().map(ToString::to_string),
    };
    let mut out = io::stdout().lock();
    if format.is_text() {
        report.write_line(&mut out)?;
    } else {
        writeln!(out, "{}", serde_json::to_string(&report).map_err(io::Error::other)?)?;
    }
    found.map(drop)
}

impl Report<'_> {
    fn write_line(&self, out: &mut dyn Write) -> io::Result<()> {
        let Self { verdict, bytes, .. } = self;
        let file = self.file.display();
        match &self.content {
            Some(Content { node, current_term, voted_for, floor_index }) => {
                let vote = voted_for.map_or_else(|| "no vote".to_owned(), |node| format!("vote for {node}"));
                let promise = format!("node {node}, term {current_term}, {vote}, floor {floor_index}");
                writeln!(out, "{file}: {verdict}: the metadata of {promise}; {bytes} bytes")
            }
            None => writeln!(out, "{file}: {}: metadata; {bytes} bytes", verdict.replace('_', " ")),
        }
    }
}
