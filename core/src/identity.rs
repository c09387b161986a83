//! Identities: the cluster id and the incarnation of a node. They distinguish clusters and nodes
//! that merely have the same addresses, folders or ids.
//!
//! This module deliberately has no source of randomness: the caller draws the numbers, so that a
//! simulation can draw them from its seed.

use std::fmt;
use std::sync::{Arc, OnceLock};

/// The cluster id: made once, at bootstrap. Keeps the files and messages of two clusters apart that
/// use the same folder names or addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterId(pub u128);

impl ClusterId {
    /// Parses 32 lower-case hexadecimal digits; `None` for anything else.
    #[must_use]
    pub fn from_text(text: &str) -> Option<Self> {
        let digits = lower_case_hex(text, 32)?;
        u128::from_str_radix(digits, 16).ok().map(Self)
    }
}

/// Writes 32 lower-case hexadecimal digits.
impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// The cluster id of a running server, for its connections. It is not known before the server has
/// found its cluster. Cloning returns another handle to the same place.
#[derive(Clone, Debug, Default)]
pub struct KnownCluster(Arc<OnceLock<ClusterId>>);

impl KnownCluster {
    /// Notes the cluster id. It never changes, so a second call has no effect.
    pub fn set(&self, cluster: ClusterId) {
        // A second call would state the same id.
        let _ = self.0.set(cluster);
    }

    /// The cluster id, if it is known.
    #[must_use]
    pub fn id(&self) -> Option<ClusterId> {
        self.0.get().copied()
    }
}

/// The incarnation of a node: a random number that the node draws at its first start. A node whose
/// files were lost and created again has another incarnation, so that it is not mistaken for the
/// node that made promises under the same id before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Incarnation(pub u64);

impl Incarnation {
    /// Parses 16 lower-case hexadecimal digits; `None` for anything else.
    #[must_use]
    pub fn from_text(text: &str) -> Option<Self> {
        let digits = lower_case_hex(text, 16)?;
        u64::from_str_radix(digits, 16).ok().map(Self)
    }
}

/// Writes 16 lower-case hexadecimal digits.
impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

fn lower_case_hex(text: &str, digits: usize) -> Option<&str> {
    let is_hex = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    (text.len() == digits && is_hex).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_parsed_only_as_lower_case_hexadecimal_of_full_length() {
        let text = "00000000000000000000000000c0ffee";
        assert_eq!(ClusterId::from_text(text), Some(ClusterId(0xc0_ffee)));
        assert_eq!(ClusterId(0xc0_ffee).to_string(), text);
        assert_eq!(Incarnation::from_text("000000000000beef"), Some(Incarnation(0xbeef)));
        for wrong in ["", "beef", "000000000000BEEF", "+00000000000beef", "0000000000000beef"] {
            assert_eq!(Incarnation::from_text(wrong), None, "{wrong}");
        }
    }
}
