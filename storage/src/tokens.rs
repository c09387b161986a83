//! Token files: which tokens a server accepts, and what each of them grants.
//!
//! ```jsonl
//! {"name":"till","role":"write","prefixes":["till/"],"expires":1795000000,"sha256":"3b0c…"}
//! {"name":"nightly-backup","role":"admin"}
//! ```
//!
//! A line has a name, a role, the prefixes to which the client is limited (without them: none), the
//! time at which the grant expires in seconds since 1970 (without it: never), and the SHA-256
//! digest of the token. The file does not hold the token itself, so who reads the file cannot use
//! it. A line without a digest is for a client whose certificate has this name; so is every other
//! line.
//!
//! The digest is that of 256 random bits ([`new_token`]), which cannot be guessed. So a slow hash,
//! as for passwords, would only cost time at each connection.
//!
//! Deliberately not here: reading the file and the clock, which the program does.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use coracle_core::access::{Grant, Proof, Role};
use coracle_core::kv::KEY_BYTES_MAX;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

mod gate;

pub use gate::TokenGate;

/// The most lines of a token file.
pub const TOKENS_MAX: usize = 10_000;
/// The most bytes of a token file.
pub const TOKEN_FILE_BYTES_MAX: usize = 16 << 20;
/// The most bytes of a name, which has letters, digits and `.`, `_`, `-` only.
pub const TOKEN_NAME_BYTES_MAX: usize = 64;
/// The most prefixes of a line.
pub const TOKEN_PREFIXES_MAX: usize = 64;

/// A line of a token file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenEntry {
    /// The rights.
    pub grant: Grant,
    /// When they expire, in seconds since 1970; `None`: never.
    pub expires: Option<u64>,
    /// The SHA-256 digest of the token; `None`: the client proves its name by a certificate.
    pub digest: Option<[u8; 32]>,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct LineText {
    name: String,
    role: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    prefixes: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sha256: Option<String>,
}

/// The content of a token file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenFile {
    entries: Vec<TokenEntry>,
}

/// The reason why a text is not a token file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenFileError {
    /// The number of the line, from 1; 0: the whole file.
    pub line: usize,
    /// The fault.
    pub fault: TokenFault,
}

/// A fault of a token file.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TokenFault {
    /// The line is no JSON object with the members of a line.
    Form,
    /// The name is empty, too long, or has other characters.
    Name,
    /// An earlier line has the same name.
    NameTwice,
    /// The role is unknown.
    Role,
    /// There are too many prefixes, or one is empty or longer than a key.
    Prefixes,
    /// An admin cannot be limited to prefixes: members and backups concern all keys.
    AdminWithPrefixes,
    /// The digest has not 64 hexadecimal digits, or an earlier line has the same.
    Digest,
    /// There are more than [`TOKENS_MAX`] lines or [`TOKEN_FILE_BYTES_MAX`] bytes.
    TooLarge,
}

impl fmt::Display for TokenFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line > 0 {
            write!(f, "line {}: ", self.line)?;
        }
        self.fault.fmt(f)
    }
}

impl std::error::Error for TokenFileError {}

impl fmt::Display for TokenFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Form => f.write_str(
                "it is no object with \"name\", \"role\" and maybe \"prefixes\", \"expires\", \"sha256\"",
            ),
            Self::Name => {
                write!(f, "a name has 1 to {TOKEN_NAME_BYTES_MAX} letters, digits and characters of \"._-\"")
            }
            Self::NameTwice => f.write_str("an earlier line has the same name"),
            Self::Role => f.write_str("a role is \"read\", \"write\" or \"admin\""),
            Self::Prefixes => write!(
                f,
                "there are at most {TOKEN_PREFIXES_MAX} prefixes, of 1 to {KEY_BYTES_MAX} bytes each"
            ),
            Self::AdminWithPrefixes => f.write_str("an admin cannot be limited to prefixes"),
            Self::Digest => {
                f.write_str("\"sha256\" has 64 hexadecimal digits, and each token is in one line only")
            }
            Self::TooLarge => {
                write!(f, "it has more than {TOKENS_MAX} lines or {} MiB", TOKEN_FILE_BYTES_MAX >> 20)
            }
        }
    }
}

impl std::error::Error for TokenFault {}

impl TokenFile {
    /// Parses a file. Empty lines are ignored.
    ///
    /// # Errors
    ///
    /// [`TokenFileError`] names the first line that is not valid. Then no token is valid.
    pub fn parse(text: &str) -> Result<Self, TokenFileError> {
        if text.len() > TOKEN_FILE_BYTES_MAX {
            return Err(TokenFileError { line: 0, fault: TokenFault::TooLarge });
        }
        let mut file = Self::default();
        for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let added = parse_line(line).and_then(|entry| file.add(entry));
            added.map_err(|fault| TokenFileError { line: number + 1, fault })?;
        }
        Ok(file)
    }

    /// Adds a line.
    ///
    /// # Errors
    ///
    /// [`TokenFault`] when the file would not be valid with it.
    pub fn add(&mut self, entry: TokenEntry) -> Result<(), TokenFault> {
        entry.check()?;
        let is_name = |other: &TokenEntry| other.grant.name == entry.grant.name;
        let is_digest = |other: &TokenEntry| entry.digest.is_some() && other.digest == entry.digest;
        if self.entries.iter().any(is_name) {
            return Err(TokenFault::NameTwice);
        }
        if self.entries.iter().any(is_digest) {
            return Err(TokenFault::Digest);
        }
        if self.entries.len() >= TOKENS_MAX {
            return Err(TokenFault::TooLarge);
        }
        self.entries.push(entry);
        Ok(())
    }

    /// Removes the line with this name. Returns whether there was one.
    pub fn remove(&mut self, name: &str) -> bool {
        let before = self.entries.len();
        self.entries.retain(|entry| &*entry.grant.name != name);
        self.entries.len() < before
    }

    /// The lines.
    #[must_use]
    pub fn entries(&self) -> &[TokenEntry] {
        &self.entries
    }

    /// Encodes the file.
    #[must_use]
    pub fn encode(&self) -> String {
        self.entries.iter().map(|entry| entry.encode() + "\n").collect()
    }
}

impl TokenEntry {
    fn check(&self) -> Result<(), TokenFault> {
        let Grant { name, role, prefixes } = &self.grant;
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if !(1..=TOKEN_NAME_BYTES_MAX).contains(&name.len()) || !name.bytes().all(is_plain) {
            return Err(TokenFault::Name);
        }
        if prefixes.len() > TOKEN_PREFIXES_MAX
            || !prefixes.iter().all(|prefix| (1..=KEY_BYTES_MAX).contains(&prefix.len()))
        {
            return Err(TokenFault::Prefixes);
        }
        if *role == Role::Admin && !prefixes.is_empty() {
            return Err(TokenFault::AdminWithPrefixes);
        }
        Ok(())
    }

    /// Encodes the line, without its line break.
    fn encode(&self) -> String {
        let line = LineText {
            name: self.grant.name.to_string(),
            role: self.grant.role.name().to_owned(),
            prefixes: self.grant.prefixes.iter().map(ToString::to_string).collect(),
            expires: self.expires,
            sha256: self.digest.map(|digest| hex(&digest)),
        };
        serde_json::to_string(&line).expect("text and numbers always encode")
    }

    /// Returns whether the rights have expired at `now`, in seconds since 1970.
    #[must_use]
    pub fn is_expired(&self, now: u64) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }
}

fn parse_line(line: &str) -> Result<TokenEntry, TokenFault> {
    let LineText { name, role, prefixes, expires, sha256 } =
        serde_json::from_str(line).map_err(|_| TokenFault::Form)?;
    let role = Role::from_name(&role).ok_or(TokenFault::Role)?;
    let digest = match sha256 {
        Some(digits) => Some(digest_from_hex(&digits).ok_or(TokenFault::Digest)?),
        None => None,
    };
    let prefixes = prefixes.into_iter().map(String::into_boxed_str).collect();
    Ok(TokenEntry { grant: Grant { name: name.into(), role, prefixes }, expires, digest })
}

/// The grants of a token file, for look-ups.
#[derive(Debug, Default)]
struct TokenTable {
    by_digest: BTreeMap<[u8; 32], Arc<Grant>>,
    by_name: BTreeMap<Box<str>, Arc<Grant>>,
}

impl TokenTable {
    /// The grants that have not expired at `now`, in seconds since 1970.
    fn new(file: &TokenFile, now: u64) -> Self {
        let mut table = Self::default();
        for entry in file.entries.iter().filter(|entry| !entry.is_expired(now)) {
            let grant = Arc::new(entry.grant.clone());
            table.by_name.insert(entry.grant.name.clone(), Arc::clone(&grant));
            entry
                .digest
                .into_iter()
                .for_each(|digest| drop(table.by_digest.insert(digest, Arc::clone(&grant))));
        }
        table
    }

    fn grant(&self, proof: &Proof) -> Option<Arc<Grant>> {
        match proof {
            Proof::Token(digest) => self.by_digest.get(digest).cloned(),
            Proof::Certificate(name) => self.by_name.get(name).cloned(),
        }
    }
}

/// Makes a token of 256 random bits from the operating system: `coracle_` and 64 hexadecimal
/// digits.
///
/// # Errors
///
/// When the operating system provides no random numbers.
pub fn new_token() -> Result<String, getrandom::Error> {
    let mut bits = [0; 32];
    getrandom::fill(&mut bits)?;
    Ok(format!("coracle_{}", hex(&bits)))
}

/// The SHA-256 digest of a token.
#[must_use]
pub fn digest_of(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

fn hex(bytes: &[u8; 32]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn digest_from_hex(digits: &str) -> Option<[u8; 32]> {
    let is_hex = digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    let mut digest = [0; 32];
    for (at, byte) in digest.iter_mut().enumerate() {
        *byte = u8::from_str_radix(digits.get(2 * at..2 * at + 2).filter(|_| is_hex)?, 16).ok()?;
    }
    Some(digest)
}

#[cfg(test)]
mod tests;
