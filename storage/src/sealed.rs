//! Sealed line: a single JSON line with a checksum of its content. The header of a log, the
//! metadata, and the first and the last line of a snapshot have this form.
//!
//! ```text
//! {"format":"coracle-meta","version":1,…,"crc":"9a3c01ff"}
//! └───────────── covered ──────────────┘
//! ```
//!
//! The checksum is the CRC-32 of all bytes before `,"crc"`. It is not the chained checksum of log
//! entries, because no line precedes these lines. A line has exactly one valid form: the reader
//! parses it and compares it with the encoding of its content, so a line that differs in a single
//! byte is rejected.

use coracle_core::raft::{Checksum, LogIndex, LogPoint, Term};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::content::ContentError;

const TAIL_START: &str = ",\"crc\":\"";
const TAIL_END: &str = "\"}";
const TAIL_LEN: usize = TAIL_START.len() + Checksum::TEXT_LEN + TAIL_END.len();

/// The version of all these formats, except for the first line of some snapshots.
pub(crate) const VERSION: u64 = 1;

/// Why a line is not a valid sealed line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SealedLineError {
    /// Its format or version is unknown to this program.
    #[error(
        "it is in the format \"{format}\" version {version}, and this program knows only \
         \"{known_format}\" up to version {known_version}: use the program that wrote it"
    )]
    UnknownFormat {
        /// The format it states.
        format: String,
        /// The version it states.
        version: u64,
        /// The format that was expected.
        known_format: &'static str,
        /// The highest version of that format that this program knows.
        known_version: u64,
    },
    /// It does not end in a line break.
    #[error("its line is incomplete")]
    Incomplete,
    /// It does not match its checksum.
    #[error("its content is damaged: it does not match its checksum")]
    Damaged,
    /// It matches its checksum, but does not have the form that this program writes.
    #[error("it has a valid checksum, but this program does not write such a line")]
    Form,
    /// It matches its checksum, but has content that this program never writes.
    #[error("it has a valid checksum but invalid content: {0}")]
    Content(#[from] ContentError),
}

/// The first members of every sealed line.
#[derive(Deserialize)]
struct FormatProbe {
    format: String,
    version: u64,
}

/// A log point in a sealed line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PointText {
    index: u64,
    term: u64,
    crc: String,
}

impl PointText {
    pub(crate) fn new(point: LogPoint) -> Self {
        Self { index: point.index.0, term: point.term.0, crc: point.checksum.to_string() }
    }

    pub(crate) fn point(&self) -> Option<LogPoint> {
        let checksum = Checksum::from_text(self.crc.as_bytes())?;
        Some(LogPoint { index: LogIndex(self.index), term: Term(self.term), checksum })
    }
}

/// Encodes `content`, a struct whose first members are `format` and `version`, with its checksum
/// and a line break.
pub(crate) fn seal(content: &impl Serialize) -> Vec<u8> {
    let mut line = serde_json::to_vec(content).expect("structs of numbers and strings have a JSON form");
    let closing = line.pop();
    assert_eq!(closing, Some(b'}'), "the content is a JSON object");
    let checksum = Checksum(crc32fast::hash(&line));
    line.extend_from_slice(TAIL_START.as_bytes());
    line.extend_from_slice(&checksum.to_text());
    line.extend_from_slice(TAIL_END.as_bytes());
    line.push(b'\n');
    line
}

/// Parses and verifies a line that [`seal`] made, with its line break.
pub(crate) fn open<T: Serialize + DeserializeOwned>(
    line: &[u8],
    known_format: &'static str,
) -> Result<T, SealedLineError> {
    open_up_to(VERSION, line, known_format)
}

/// Like [`open`], for a format that has versions from [`VERSION`] to `known_version`.
pub(crate) fn open_up_to<T: Serialize + DeserializeOwned>(
    known_version: u64,
    line: &[u8],
    known_format: &'static str,
) -> Result<T, SealedLineError> {
    // Format and version are read before the checksum, because another version may have another
    // checksum.
    if let Ok(FormatProbe { format, version }) = serde_json::from_slice(line)
        && (format != known_format || !(VERSION..=known_version).contains(&version))
    {
        return Err(SealedLineError::UnknownFormat { format, version, known_format, known_version });
    }
    let content_len = line
        .strip_suffix(b"\n")
        .ok_or(SealedLineError::Incomplete)?
        .len()
        .checked_sub(TAIL_LEN)
        .ok_or(SealedLineError::Damaged)?;
    let mut object = line[..content_len].to_vec();
    object.push(b'}');
    let covered = &line[..content_len];
    let stated = line[content_len..].strip_prefix(TAIL_START.as_bytes());
    if !stated.is_some_and(|stated| stated.starts_with(&Checksum(crc32fast::hash(covered)).to_text())) {
        return Err(SealedLineError::Damaged);
    }
    let content: T = serde_json::from_slice(&object).map_err(|_| SealedLineError::Form)?;
    if seal(&content) != line {
        return Err(SealedLineError::Form);
    }
    Ok(content)
}
