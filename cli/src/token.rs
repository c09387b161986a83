//! `token`: makes tokens for clients, and takes them away.
//!
//! The file holds the digest of each token, and the token is printed once. A running server reads
//! the file again when it changes ([`serve`](crate::serve)).

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::{Args, Subcommand, ValueEnum};
use coracle_core::access::{Grant, Role};
use coracle_storage::tokens::{TokenEntry, TokenFile, digest_of, new_token};
use serde_json::json;
use thiserror::Error;

use crate::durations;
use crate::exit::Exit;
use crate::output::Format;

pub(crate) mod file;

use file::TokenFileProblem;

/// Make, list and revoke tokens for clients
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  coracle token new till --role write --prefix till/     prints the token, once
  coracle token new nightly --role admin --expires 90d
  coracle token new kitchen --role read --certificate    for the client certificate with this name
  coracle token list
  coracle token revoke till

A server that is started with --token-file FILE accepts these tokens, and reads the file again when it changes. \
Clients name theirs in the variable CORACLE_TOKEN, or with --token-from FILE.")]
pub(crate) struct Token {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    New(New),
    List(List),
    Revoke(Revoke),
}

#[derive(Args, Debug)]
struct InFile {
    /// The token file, JSON lines that only their owner may read
    #[arg(long, value_name = "FILE", default_value = "tokens.jsonl")]
    file: PathBuf,
}

/// Make a token, print it, and add its digest to the file
#[derive(Args, Debug)]
struct New {
    /// A name for replies, reports and `revoke`: letters, digits and ._-
    name: String,

    /// The kind of requests that the client may send; each role includes those before it
    #[arg(long, value_name = "ROLE", value_enum)]
    role: RoleName,

    /// Only keys with this prefix; may be repeated
    #[arg(long = "prefix", value_name = "PREFIX")]
    prefixes: Vec<String>,

    /// The token expires after this time, such as 90d; without it, never
    #[arg(long, value_name = "DUR", value_parser = durations::positive)]
    expires: Option<Duration>,

    /// Make no token: the rights are those of the client certificate with this name
    #[arg(long)]
    certificate: bool,

    #[command(flatten)]
    place: InFile,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum RoleName {
    /// Read keys, watch them, and read the status
    Read,
    /// Change keys
    Write,
    /// Change members, transfer leadership, make backups
    Admin,
}

impl From<RoleName> for Role {
    fn from(name: RoleName) -> Self {
        match name {
            RoleName::Read => Self::Read,
            RoleName::Write => Self::Write,
            RoleName::Admin => Self::Admin,
        }
    }
}

/// List names, roles, prefixes and expiry, without the tokens
#[derive(Args, Debug)]
struct List {
    #[command(flatten)]
    place: InFile,

    /// A table for people, or one JSON object per line
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t)]
    output: Format,
}

/// Remove a token from the file
#[derive(Args, Debug)]
struct Revoke {
    /// The name of the token
    name: String,

    #[command(flatten)]
    place: InFile,
}

/// Why a token command failed.
#[derive(Debug, Error)]
pub(crate) enum TokenError {
    #[error(transparent)]
    File(#[from] TokenFileProblem),
    #[error("{}: there is no token with the name {name:?}", .path.display())]
    Unknown { path: PathBuf, name: String },
    #[error("the operating system provides no random numbers: {0}")]
    Randomness(#[from] getrandom::Error),
    #[error("cannot write the answer: {0}")]
    Output(#[from] io::Error),
}

impl TokenError {
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::File(TokenFileProblem::Change { .. }) => Exit::Usage,
            Self::Unknown { .. } => Exit::NotFound,
            Self::File(_) | Self::Randomness(_) | Self::Output(_) => Exit::Failure,
        }
    }

    /// Returns whether stdout was closed by its reader.
    pub(crate) fn is_broken_pipe(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }
}

/// The time in seconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

impl Token {
    pub(crate) fn run(self) -> Result<(), TokenError> {
        match self.action {
            Action::New(new) => new.run(),
            Action::List(list) => list.run(),
            Action::Revoke(revoke) => revoke.run(),
        }
    }
}

impl New {
    fn run(self) -> Result<(), TokenError> {
        let token = if self.certificate { None } else { Some(new_token()?) };
        let prefixes = self.prefixes.into_iter().map(String::into_boxed_str).collect();
        let entry = TokenEntry {
            grant: Grant { name: self.name.into(), role: self.role.into(), prefixes },
            expires: self.expires.map(|after| now().saturating_add(after.as_secs())),
            digest: token.as_deref().map(digest_of),
        };
        file::change(&self.place.file, true, |file| file.add(entry))?;
        if let Some(token) = token {
            writeln!(io::stdout(), "{token}")?;
        }
        Ok(())
    }
}

impl List {
    fn run(&self) -> Result<(), TokenError> {
        let file = file::read(&self.place.file)?;
        let text = match self.output {
            Format::Text => table(&file, now()),
            _ => lines(&file, now()),
        };
        Ok(io::stdout().write_all(text.as_bytes())?)
    }
}

impl Revoke {
    fn run(self) -> Result<(), TokenError> {
        let is_there = file::change(&self.place.file, false, |file| Ok(file.remove(&self.name)))?;
        if is_there { Ok(()) } else { Err(TokenError::Unknown { path: self.place.file, name: self.name }) }
    }
}

/// How an entry proves itself, and when it expires.
fn proof_and_expiry(entry: &TokenEntry, now: u64) -> (&'static str, String) {
    let proof = if entry.digest.is_some() { "token" } else { "certificate" };
    let expiry = match entry.expires {
        None => "never".to_owned(),
        Some(_) if entry.is_expired(now) => "expired".to_owned(),
        Some(expires) => format!("in {}", humantime::format_duration(Duration::from_secs(expires - now))),
    };
    (proof, expiry)
}

fn table(file: &TokenFile, now: u64) -> String {
    let header = ["NAME", "ROLE", "PROOF", "PREFIXES", "EXPIRES"].map(str::to_owned);
    let rows = file.entries().iter().map(|entry| {
        let Grant { name, role, prefixes } = &entry.grant;
        let (proof, expiry) = proof_and_expiry(entry, now);
        let prefixes = if prefixes.is_empty() { "all".to_owned() } else { prefixes.join(",") };
        let prefixes = crate::output::harmless(&prefixes).into_owned();
        [name.to_string(), role.to_string(), proof.to_owned(), prefixes, expiry]
    });
    let rows: Vec<_> = std::iter::once(header).chain(rows).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<_> = (0..4).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        for (cell, width) in row.iter().zip(&widths) {
            text.push_str(&format!("{cell:<width$}  "));
        }
        text.push_str(&row[4]);
        text.push('\n');
    }
    text
}

fn lines(file: &TokenFile, now: u64) -> String {
    let line = |entry: &TokenEntry| {
        let Grant { name, role, prefixes } = &entry.grant;
        let (proof, _) = proof_and_expiry(entry, now);
        let is_expired = entry.is_expired(now);
        let object = json!({"name": name, "role": role.name(), "proof": proof, "prefixes": prefixes,
            "expires": entry.expires, "expired": is_expired});
        format!("{object}\n")
    };
    file.entries().iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_shows_rights_and_no_digests() {
        let text = "{\"name\":\"till\",\"role\":\"write\",\"prefixes\":[\"a/\",\"b\\u001b\"],\"expires\":90000}\n\
                    {\"name\":\"old\",\"role\":\"read\",\"expires\":10}\n\
                    {\"name\":\"root\",\"role\":\"admin\",\"sha256\":\"00";
        let file = TokenFile::parse(&format!("{text}{}\"}}\n", "0".repeat(62))).unwrap();
        let shown = table(&file, 3600);
        let rows: Vec<Vec<_>> = shown.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(rows[1][..3], ["till", "write", "certificate"]);
        assert_eq!(rows[1][4..], ["in", "1day"]);
        assert_eq!(rows[2], ["old", "read", "certificate", "all", "expired"]);
        assert_eq!(rows[3], ["root", "admin", "token", "all", "never"]);
        assert!(!shown.contains('\u{1b}') && !shown.contains("0000"), "{shown}");
        assert!(lines(&file, 3600).lines().nth(1).unwrap().contains("\"expired\":true"));
    }
}
