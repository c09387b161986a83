//! The basic types of Raft: node id, term, log index and chained checksum.

use std::fmt;

/// The id of a node in its cluster. Never reused for another node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u64);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A term, Raft's logical clock (§5.1): each term has at most one leader. On every node the term
/// only grows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Term(pub u64);

impl Term {
    /// The term of a node that has not heard of any election.
    pub const INITIAL: Self = Self(0);

    /// The highest term that is accepted from other nodes, far above any that elections reach: a
    /// term that no later one can follow would end all elections.
    pub const MAX: Self = Self(1 << 62);

    /// The maximum by which another node's term may exceed a node's own. A node that is cut off
    /// does not raise its term (pre-vote), so no correct node is so far ahead; at a thousand
    /// elections a second it would take 49 days.
    pub const JUMP_MAX: u64 = 1 << 32;

    /// The term after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A position in the log. The first entry has index 1; ranges of indexes are inclusive at both
/// ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogIndex(pub u64);

impl LogIndex {
    /// The index before the first entry: the last index of an empty log, and the commit index of a
    /// node that knows of no commit.
    pub const ORIGIN: Self = Self(0);

    /// The highest index that is accepted from other nodes: at a million entries a second it takes
    /// 146,000 years to reach it.
    pub const MAX: Self = Self(1 << 62);

    /// The next index.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// The previous index; the origin has none and stays as it is.
    #[must_use]
    pub const fn previous(self) -> Self {
        Self(self.0.saturating_sub(1))
    }
}

impl fmt::Display for LogIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The chained CRC-32 of an entry: it covers the entry's own line and, through its predecessor's
/// checksum, every line before. Equal checksums at an equal index mean equal logs up to there,
/// except for the chance of one in 2^32 that any CRC-32 leaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Checksum(pub u32);

impl Checksum {
    /// The number of characters of a checksum as text.
    pub const TEXT_LEN: usize = 8;

    /// The checksum as eight lower-case hexadecimal digits.
    #[must_use]
    pub fn to_text(self) -> [u8; Self::TEXT_LEN] {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut text = [0; Self::TEXT_LEN];
        for (place, byte) in self.0.to_be_bytes().into_iter().enumerate() {
            text[2 * place] = DIGITS[usize::from(byte >> 4)];
            text[2 * place + 1] = DIGITS[usize::from(byte & 15)];
        }
        text
    }

    /// Parses eight lower-case hexadecimal digits; `None` for anything else.
    #[must_use]
    pub fn from_text(text: &[u8]) -> Option<Self> {
        let lower_case = text.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if text.len() != Self::TEXT_LEN || !lower_case {
            return None;
        }
        let digits = std::str::from_utf8(text).ok()?;
        u32::from_str_radix(digits, 16).ok().map(Self)
    }

    /// The checksum of `line` after an entry with the checksum `self`.
    #[must_use]
    pub(crate) fn chain(self, line: &[u8]) -> Self {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&self.to_text());
        hasher.update(line);
        Self(hasher.finalize())
    }
}

impl fmt::Display for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

/// The identity of an entry: its index, the term of the leader that appended it, and the checksum
/// of the log up to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogPoint {
    /// The entry's index.
    pub index: LogIndex,
    /// The term of the leader that appended it.
    pub term: Term,
    /// The checksum of its line, chained to all lines before.
    pub checksum: Checksum,
}

impl LogPoint {
    /// The point before the first entry.
    pub const ORIGIN: Self = Self { index: LogIndex::ORIGIN, term: Term::INITIAL, checksum: Checksum(0) };
}
