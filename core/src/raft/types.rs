//! The small words of Raft: who, which reign, which place in the log.

use std::fmt;

/// Which node of a cluster. Never reused for another node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u64);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Raft's logical clock (§5.1): each term has at most one leader. Grows for ever, on every node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Term(pub u64);

impl Term {
    /// The term of a node that has never heard of an election.
    pub const INITIAL: Self = Self(0);

    /// The highest term that is believed of others, far above any that elections reach: one that no
    /// later term could follow would end all elections.
    pub const MAX: Self = Self(1 << 62);

    /// How far above its own term a node believes another's to be. A node that is cut off does not
    /// raise its term (pre-vote), so no honest one is as far ahead; at a thousand elections a
    /// second it would take 49 days.
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

/// A place in the log. The first entry has index 1; ranges of indexes are inclusive on both ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogIndex(pub u64);

impl LogIndex {
    /// The place before the first entry: what an empty log ends at, and what a node has committed
    /// that does not know of any commit.
    pub const ORIGIN: Self = Self(0);

    /// The highest index that is believed of others: a million entries a second take 146,000 years
    /// to get there.
    pub const MAX: Self = Self(1 << 62);

    /// The place after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// The place before this one; the origin has none and stays.
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
/// checksum, every line before. Equal checksums at an equal index mean equal logs up to there, but
/// for the one chance in four thousand million that any CRC-32 leaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Checksum(pub u32);

impl Checksum {
    /// How many characters a checksum has as text.
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

    /// Reads eight lower-case hexadecimal digits; `None` for anything else.
    #[must_use]
    pub fn from_text(text: &[u8]) -> Option<Self> {
        let lower_case = text.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if text.len() != Self::TEXT_LEN || !lower_case {
            return None;
        }
        let digits = std::str::from_utf8(text).ok()?;
        u32::from_str_radix(digits, 16).ok().map(Self)
    }

    /// The checksum of `line` when it follows an entry with the checksum `self`.
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

/// An entry's identity: where it is, which leader made it, and what the log up to it hashes to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogPoint {
    /// The entry's index.
    pub index: LogIndex,
    /// The term of the leader that appended it.
    pub term: Term,
    /// The checksum of its line, chained to all before.
    pub checksum: Checksum,
}

impl LogPoint {
    /// The point before the first entry.
    pub const ORIGIN: Self = Self { index: LogIndex::ORIGIN, term: Term::INITIAL, checksum: Checksum(0) };
}
