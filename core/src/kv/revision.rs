//! Revisions: which log entry changed a key last, and which one created it.
//!
//! A revision is the log index of the entry that made a change. So it is the same on every node,
//! rises, has gaps, and survives snapshots and changes of the leader, and no second counter can
//! disagree with the log. A write may depend on the revision of a key, which says more than its
//! value: a value may change to another one and back.

use std::fmt;

use super::ttl::Ttl;

/// The log index of an entry that changed a key; 0: none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

impl Revision {
    /// No revision: the key is absent, or its revision is not known at this [`Level`].
    ///
    /// [`Level`]: super::Level
    pub const NONE: Self = Self(0);
    /// The highest revision of a key: the highest index of a log.
    pub const MAX: Self = Self(1 << 62);
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The facts about a key besides its value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyMeta {
    /// The revision of the last change.
    pub rev: Revision,
    /// The revision of the change that created the key.
    pub created: Revision,
    /// The time to live that is left, if the key expires and the answer states it.
    pub ttl: Option<Ttl>,
}

impl KeyMeta {
    /// The facts about a key that was changed and created by these entries.
    #[must_use]
    pub fn of(rev: Revision, created: Revision) -> Self {
        Self { rev, created, ttl: None }
    }

    /// The facts as they are counted from `first` on: the revisions of older changes are not known
    /// on every node, so they count as `first`.
    pub(super) fn counted_from(self, first: Revision) -> Self {
        Self { rev: self.rev.max(first), created: self.created.max(first), ttl: self.ttl }
    }

    /// Returns whether the revisions are known.
    #[must_use]
    pub fn is_known(self) -> bool {
        self.rev > Revision::NONE
    }
}

/// The facts about a key that the map holds beside its value: its revisions, and whether it
/// expires. Nearly no key does, so that is one bit, and the rest is in `expiry`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    rev: Revision,
    /// The revision of the creation, and [`Stamp::EXPIRES`].
    created: u64,
}

impl Stamp {
    /// The bit that says that the key expires. It is above every revision.
    const EXPIRES: u64 = 1 << 63;

    /// The stamp of a key that the entry at `rev` creates.
    pub(super) fn created_at(rev: Revision) -> Self {
        Self::of(KeyMeta::of(rev, rev))
    }

    /// The stamp of a key that does not expire.
    pub(super) fn of(KeyMeta { rev, created, .. }: KeyMeta) -> Self {
        Self { rev, created: created.0 & !Self::EXPIRES }
    }

    pub(super) fn meta(self) -> KeyMeta {
        KeyMeta::of(self.rev, Revision(self.created & !Self::EXPIRES))
    }

    pub(super) fn expires(self) -> bool {
        self.created & Self::EXPIRES != 0
    }

    /// Notes that the entry at `rev` changes the key.
    pub(super) fn change(&mut self, rev: Revision) {
        self.rev = rev;
    }

    pub(super) fn set_expires(&mut self, expires: bool) {
        self.created = (self.created & !Self::EXPIRES) | if expires { Self::EXPIRES } else { 0 };
    }
}

impl fmt::Debug for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}, expires: {}", self.meta(), self.expires())
    }
}
