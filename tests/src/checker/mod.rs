//! Linearizability of histories in which nobody knows the order: what a black box shows.
//!
//! A history is what clients saw: when each asked, when it was answered, and what. It is
//! linearizable when every operation can be given a moment between its call and its return so that,
//! taken in the order of these moments, each answer is what a single map would have given (Herlihy
//! and Wing, 1990).
//!
//! | file | what |
//! | --- | --- |
//! | `search` | looks for such an order, one key at a time (Wing and Gong, with Lowe's cache of states) |
//! | `brute` | tries every order: the judge of the other, on tiny histories |
//!
//! Where replies carry the index that they were decided at there is a far cheaper proof, the
//! witness check of [`simulator::invariants`](crate::simulator::invariants).

mod brute;
mod search;

pub use brute::is_linearizable_by_trying_all;
pub use search::{HISTORY_MAX, SearchVerdict, search};

/// What was asked of one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// Set it.
    Put(u32),
    /// What is it?
    Get,
    /// Remove it.
    Delete,
    /// Set it to the second if it is the first; `None`: if it is absent.
    Swap(Option<u32>, u32),
}

/// What was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answered {
    /// A write was done.
    Done,
    /// The value, or none.
    Found(Option<u32>),
    /// There was nothing to delete.
    NotFound,
    /// The swap found this instead.
    Mismatch(Option<u32>),
    /// Nobody knows: it may have taken effect at any time after the call, or never.
    Unknown,
}

/// One operation on the key of a history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Observed {
    /// When it was asked.
    pub call: u64,
    /// When it was answered; after its call. Ignored when the answer is unknown.
    pub ret: u64,
    /// What was asked.
    pub asked: Asked,
    /// What was answered.
    pub answered: Answered,
}

impl Observed {
    /// When it was over at the latest.
    #[must_use]
    pub fn end(&self) -> u64 {
        if self.answered == Answered::Unknown { u64::MAX } else { self.ret }
    }

    /// The key's value after the operation, if this answer fits the value before.
    #[must_use]
    pub fn apply(&self, before: Option<u32>) -> Option<Option<u32>> {
        let (answer, after) = match self.asked {
            Asked::Put(value) => (Answered::Done, Some(value)),
            Asked::Get => (Answered::Found(before), before),
            Asked::Delete if before.is_some() => (Answered::Done, None),
            Asked::Delete => (Answered::NotFound, None),
            Asked::Swap(expect, value) if expect == before => (Answered::Done, Some(value)),
            Asked::Swap(..) => (Answered::Mismatch(before), before),
        };
        (self.answered == Answered::Unknown || self.answered == answer).then_some(after)
    }
}

#[cfg(test)]
mod tests;
