//! Reads: the value of a key, and scans over ranges of keys.
//!
//! A scan's range is computed before the first key is read: from the prefix, `after` and `end`, one
//! lower and one upper bound. So a scan looks at no key outside its range, and counting the keys of
//! a range touches no values.

use std::ops::Bound;

use super::level::Level;
use super::revision::KeyMeta;
use super::text::{Key, Value};

/// A read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Query {
    /// Asks for the value of one key.
    Value(Key),
    /// Asks for the value of one key, and its revisions.
    Entry(Key),
    /// Asks for a range of keys.
    Scan(Scan),
}

impl Query {
    /// Returns whether the query is a scan.
    #[must_use]
    pub fn is_scan(&self) -> bool {
        matches!(self, Self::Scan(_))
    }

    /// The number of bytes of keys in the query.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let len = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        match self {
            Self::Value(key) | Self::Entry(key) => key.as_str().len(),
            Self::Scan(scan) => scan.prefix.len() + len(&scan.after) + len(&scan.end),
        }
    }

    /// The lowest level of a cluster in which every node understands the query.
    #[must_use]
    pub fn level(&self) -> Level {
        match self {
            Self::Value(_) => Level::FIRST,
            Self::Scan(scan) if scan.is_basic() => Level::FIRST,
            Self::Entry(_) | Self::Scan(_) => Level::REVISIONS,
        }
    }

    /// Returns whether the answer has revisions.
    #[must_use]
    pub fn wants_meta(&self) -> bool {
        match self {
            Self::Value(_) => false,
            Self::Entry(_) => true,
            Self::Scan(scan) => scan.wants_meta,
        }
    }
}

/// The answer to a [`Query`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// The value, if the key has one.
    Value(Option<Value>),
    /// The value and its revisions, if the key has one.
    Entry(Option<(Value, KeyMeta)>),
    /// The keys and values.
    Page(Page),
    /// The number of keys.
    Count(u64),
}

impl Found {
    /// Returns whether this can be the answer to `query`.
    #[must_use]
    pub fn fits(&self, query: &Query) -> bool {
        match (self, query) {
            (Self::Value(_), Query::Value(_)) | (Self::Entry(_), Query::Entry(_)) => true,
            (Self::Page(page), Query::Scan(scan)) => {
                let has_values = scan.content == ScanContent::Values;
                let is_counted = scan.content == ScanContent::Count;
                !is_counted && page.items.iter().all(|item| item.value.is_some() == has_values)
            }
            (Self::Count(_), Query::Scan(scan)) => scan.content == ScanContent::Count,
            _ => false,
        }
    }
}

/// The part of the keys in its range that a scan returns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ScanContent {
    /// Keys and values.
    #[default]
    Values,
    /// Keys alone.
    Keys,
    /// The number of keys, whatever the limits. This takes some milliseconds for a million keys.
    Count,
}

/// A range read: keys with a prefix, in the order of their bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scan {
    /// Only keys with this prefix; empty for all keys.
    pub prefix: String,
    /// Only keys above this one; in a reverse scan, below it.
    pub after: Option<String>,
    /// Only keys below this one.
    pub end: Option<String>,
    /// Whether the keys descend.
    pub is_reverse: bool,
    /// The part of the keys that is returned.
    pub content: ScanContent,
    /// Whether the revisions of the keys are returned.
    pub wants_meta: bool,
    /// The most items in the answer.
    pub items_max: usize,
    /// The most bytes of keys and values in the answer. One item is returned even if it is larger.
    pub bytes_max: usize,
}

impl Scan {
    /// Returns whether every version understands the scan: it has only a prefix, a start and
    /// limits.
    #[must_use]
    pub fn is_basic(&self) -> bool {
        let is_forward = self.end.is_none() && !self.is_reverse;
        is_forward && self.content == ScanContent::Values && !self.wants_meta
    }

    /// The bounds of the range; `None`: no key can be in it.
    pub(super) fn range(&self) -> Option<(Bound<&str>, Bound<String>)> {
        let prefix = self.prefix.as_str();
        let (above, below) =
            if self.is_reverse { (None, &self.after) } else { (self.after.as_deref(), &None) };
        let start = match above {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        let ends = [end_of_prefix(prefix), self.end.clone(), below.clone()];
        let end = ends.into_iter().flatten().min();
        let (Bound::Included(first) | Bound::Excluded(first)) = start else { return None };
        match end {
            Some(end) if *first >= *end => None,
            Some(end) => Some((start, Bound::Excluded(end))),
            None => Some((start, Bound::Unbounded)),
        }
    }
}

/// The first text after all texts with this prefix; `None`: there is none.
pub(super) fn end_of_prefix(prefix: &str) -> Option<String> {
    let mut end = prefix.to_owned();
    while let Some(last) = end.pop() {
        let next = match u32::from(last) + 1 {
            0xd800 => 0xe000,
            next => next,
        };
        if let Some(next) = char::from_u32(next) {
            end.push(next);
            return Some(end);
        }
    }
    None
}

/// An item of a [`Page`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// The key.
    pub key: Key,
    /// Its value; `None`: the scan asks for keys alone.
    pub value: Option<Value>,
    /// Its revisions, if the scan asks for them.
    pub meta: KeyMeta,
}

impl Item {
    /// The number of bytes of key and value.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.key.as_str().len() + self.value.as_ref().map_or(0, |value| value.as_json().len())
    }
}

/// The answer to a [`Scan`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// The keys with their values, in the order of the scan.
    pub items: Vec<Item>,
    /// Whether the limits cut off further items.
    pub more: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_prefix_is_the_first_text_after_it() {
        for (prefix, end) in [
            ("", None),
            ("a", Some("b")),
            ("az", Some("a{")),
            ("a\u{10ffff}", Some("b")),
            ("\u{10ffff}\u{10ffff}", None),
            ("\u{d7ff}", Some("\u{e000}")),
            ("\u{7f}", Some("\u{80}")),
        ] {
            assert_eq!(end_of_prefix(prefix).as_deref(), end, "{prefix:?}");
            let longest = format!("{prefix}\u{10ffff}\u{10ffff}");
            assert!(end.is_none_or(|end| prefix < end && longest.as_str() < end));
        }
    }
}
