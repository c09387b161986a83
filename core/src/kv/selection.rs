//! Selections: the keys that a watch is about, which are one key or all keys with a prefix.

use std::sync::Arc;

use super::change::Changes;
use super::scan::end_of_prefix;
use super::text::Key;
use crate::mutant::{self, Mutant};

/// The keys that a watch is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// One key.
    Key(Key),
    /// All keys with this prefix; empty for all keys.
    Prefix(Arc<str>),
}

impl Selection {
    /// Returns whether the key is one of them.
    #[must_use]
    pub fn selects(&self, key: &Key) -> bool {
        match self {
            Self::Key(selected) => selected == key,
            Self::Prefix(prefix) => {
                let prefix = shortened_by_mutant(prefix).unwrap_or(prefix);
                key.as_str().starts_with(prefix)
            }
        }
    }

    /// The changes of selected keys.
    #[must_use]
    pub fn of(&self, changes: &Changes) -> Changes {
        let mut selected = Changes::None;
        for event in changes.as_slice().iter().filter(|event| self.selects(&event.key)) {
            selected.push(event.clone());
        }
        selected
    }

    /// The range of the selected keys: the first text in it, and the first text after it.
    pub(super) fn range(&self) -> (Box<str>, Option<Box<str>>) {
        match self {
            // No text lies between a text and the same one followed by the smallest character.
            Self::Key(key) => (key.as_str().into(), Some(format!("{}\0", key.as_str()).into())),
            Self::Prefix(prefix) => (Box::from(&**prefix), end_of_prefix(prefix).map(String::into_boxed_str)),
        }
    }

    /// The number of bytes of the key or the prefix.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match self {
            Self::Key(key) => key.as_str().len(),
            Self::Prefix(prefix) => prefix.len(),
        }
    }
}

/// Deliberate bug: a prefix without its last character.
fn shortened_by_mutant(prefix: &str) -> Option<&str> {
    let (last, _) = prefix.char_indices().next_back()?;
    mutant::is_active(Mutant::WatchPrefixShortened).then_some(&prefix[..last])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selection_agrees_with_its_range() {
        let key = |text: &str| Key::new(text).unwrap();
        let texts = ["a", "a\0", "a/", "a/1", "a/\u{10ffff}", "a0", "b", "ä", "\u{10ffff}"];
        for selection in [
            Selection::Key(key("a")),
            Selection::Key(key("a/1")),
            Selection::Prefix("".into()),
            Selection::Prefix("a".into()),
            Selection::Prefix("a/".into()),
            Selection::Prefix("\u{10ffff}".into()),
        ] {
            let (start, end) = selection.range();
            for text in texts {
                let is_in_range = *text >= *start && end.as_deref().is_none_or(|end| text < end);
                assert_eq!(selection.selects(&key(text)), is_in_range, "{selection:?} {text:?}");
            }
        }
    }
}
