//! `log verify`: checks every line of a log and reports whether a server can start from it. Other
//! files of a node are checked in the files beside this one.

use std::fmt;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use coracle_core::raft::LogPoint;
use coracle_storage::SealedLineError;
use serde::Serialize;

use super::{LogError, ending, folder, metadata, open, read, snapshot};
use crate::input::Input;
use crate::output::Format;

/// Check a log, a snapshot, a metadata file, or all files of a data folder
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  coracle log verify data/log00.txt
  gunzip < backup.txt.gz | coracle log verify -
  coracle log verify data

Exit code 0 means clean: every line is complete, in its place, continues the checksum chain and has valid \
content, so that a server can start from it. Everything else is exit code 6, with the line on stderr. A torn \
tail is distinguished from damage (-o json: \"verdict\"), but is not a success: a killed server leaves one, \
which its next start cuts off, and a running server has one for a moment; yet a changed byte in the last line \
looks the same. With -o json a file that is not a log has a verdict, too: \"unreadable\", \"foreign\" (not a \
Coracle file), \"other_kind\", \"unknown_format\" or \"damaged\". A log may start after the snapshot beside \
it; only the entries that it holds are checked. A snapshot is clean or damaged, and so are a backup and \
metadata.

Of a folder, every node is recovered as a start recovers it (log, snapshot and metadata, and whether they fit \
together), and nothing is written. With -o json there is an object per node.")]
pub(super) struct Verify {
    /// A file of a node, such as data/log00.txt, data/snap0.txt or data/meta0.txt, a backup, or a
    /// data folder; `-` for stdin
    file: PathBuf,

    /// A line, or a JSON object
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t)]
    output: Format,
}

/// The verdict on a log and its counts.
#[derive(Debug, Serialize)]
struct Report<'a> {
    file: &'a Path,
    verdict: VerdictName,
    /// Valid entries, up to the first invalid line.
    entries: u64,
    /// The index of the last valid entry, or the one after which the log starts.
    last_index: u64,
    last_term: u64,
    last_crc: String,
    bytes: usize,
    /// The error message.
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
}

/// The verdict on a log, or on a node.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum VerdictName {
    Clean,
    TornTail,
    Damaged,
}

impl fmt::Display for VerdictName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Clean => "clean",
            Self::TornTail => "torn tail",
            Self::Damaged => "damaged",
        })
    }
}

impl Verify {
    pub(super) fn run(&self) -> Result<(), LogError> {
        if self.file.is_dir() {
            return folder::verify(&self.file, self.output);
        }
        let Input { name, bytes } = read(&self.file).or_else(|error| self.give_verdict(&self.file, error))?;
        if snapshot::is_snapshot(&bytes) {
            return snapshot::verify(&name, &bytes, self.output);
        }
        if metadata::is_metadata(&bytes) {
            return metadata::verify(&name, &bytes, self.output);
        }
        let mut scan = open(&name, &bytes).or_else(|error| self.give_verdict(&name, error))?;
        if scan.header().identity.roster.is_empty() {
            scan = scan.with_fixed_members();
        }
        let (mut entries, mut last) = (0, scan.header().after);
        for run in scan.by_ref() {
            entries += run.len() as u64;
            last = run.last();
        }
        let ending = ending(&name, &scan);
        let report = report(&name, bytes.len(), entries, last, &ending);
        let mut out = io::stdout().lock();
        match self.output {
            Format::Text => report.write_line(&mut out)?,
            Format::Json | Format::Jsonl => {
                let json = serde_json::to_string(&report).map_err(io::Error::other)?;
                writeln!(out, "{json}")?;
            }
        }
        ending
    }

    /// Prints the verdict on a file without a readable header, if the format is JSON, and returns
    /// the error.
    fn give_verdict<T>(&self, file: &Path, error: LogError) -> Result<T, LogError> {
        let verdict = match &error {
            LogError::Read { .. } => "unreadable",
            LogError::Foreign { .. } => "foreign",
            LogError::OtherKind { .. } => "other_kind",
            LogError::Header { fault: SealedLineError::UnknownFormat { .. }, .. } => "unknown_format",
            _ => "damaged",
        };
        if !self.output.is_text() {
            let json = serde_json::to_string(&Headless { file, verdict, message: error.to_string() });
            writeln!(io::stdout().lock(), "{}", json.map_err(io::Error::other)?)?;
        }
        Err(error)
    }
}

/// The verdict on a file whose header cannot be read.
#[derive(Debug, Serialize)]
struct Headless<'a> {
    file: &'a Path,
    verdict: &'static str,
    message: String,
}

fn report<'a>(
    file: &'a Path,
    bytes: usize,
    entries: u64,
    last: LogPoint,
    ending: &Result<(), LogError>,
) -> Report<'a> {
    Report {
        file,
        verdict: match ending {
            Ok(()) => VerdictName::Clean,
            Err(LogError::Torn { .. }) => VerdictName::TornTail,
            Err(_) => VerdictName::Damaged,
        },
        entries,
        last_index: last.index.0,
        last_term: last.term.0,
        last_crc: last.checksum.to_string(),
        bytes,
        message: ending.as_ref().err().map(ToString::to_string),
    }
}

impl Report<'_> {
    fn write_line(&self, out: &mut dyn Write) -> io::Result<()> {
        let Self { verdict, entries, last_index, last_term, last_crc, bytes, .. } = self;
        let file = self.file.display();
        let noun = if *entries == 1 { "entry" } else { "entries" };
        let up_to = format!("up to index {last_index}, term {last_term}, crc {last_crc}");
        writeln!(out, "{file}: {verdict}: {entries} valid {noun} {up_to}; {bytes} bytes")
    }
}
