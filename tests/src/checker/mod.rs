//! Linearizability checker for black-box histories, in which the order of operations is not known.
//!
//! A history is what clients observed: when each operation was called, when it returned, and the
//! answer. It is linearizable when every operation can be given a moment between its call and its
//! return so that, in the order of these moments, each answer is that of a single map (Herlihy and
//! Wing, 1990).
//!
//! | file | content |
//! | --- | --- |
//! | `search` | searches for such an order (Wing and Gong, with Lowe's cache of states) |
//! | `map` | operations on several keys: increments, transactions, conditions by revision, scans |
//! | `brute` | tries every order, to test the search on tiny histories |
//!
//! Where replies carry the index at which they were decided, there is a far cheaper proof: the
//! witness check of [`simulator::invariants`](crate::simulator::invariants).

mod brute;
mod map;
mod search;

pub use brute::is_linearizable_by_trying_all;
pub use map::{MapAnswered, MapAsked, MapObserved};
pub use search::{HISTORY_MAX, SearchVerdict, search};

/// An operation that a client observed.
pub trait Operation {
    /// The state that operations read and change. Its default is the state before the first one.
    type State: Clone + Default + Ord;

    /// The time of the call.
    fn call(&self) -> u64;

    /// The latest time at which the operation can have taken effect.
    fn end(&self) -> u64;

    /// Returns whether the outcome is unknown, so that the operation may also never take effect.
    fn is_unknown(&self) -> bool;

    /// Returns the state after the operation, if its answer is right for the state before.
    fn apply(&self, before: &Self::State) -> Option<Self::State>;
}

/// A request for one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// Sets the key.
    Put(u32),
    /// Reads the key.
    Get,
    /// Removes the key.
    Delete,
    /// Sets the key to the second value if it has the first; `None` if it must be absent.
    Swap(Option<u32>, u32),
}

/// The answer to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answered {
    /// A write was applied.
    Done,
    /// The value that a read found, if any.
    Found(Option<u32>),
    /// A delete found no value.
    NotFound,
    /// A swap found this value instead of the expected one.
    Mismatch(Option<u32>),
    /// The outcome is unknown: the operation may have taken effect at any time after the call, or
    /// never.
    Unknown,
}

/// One operation on the key of a history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Observed {
    /// The time of the call.
    pub call: u64,
    /// The time of the return, which is after the call. Ignored when the outcome is unknown.
    pub ret: u64,
    /// The request.
    pub asked: Asked,
    /// The answer.
    pub answered: Answered,
}

impl Operation for Observed {
    type State = Option<u32>;

    fn call(&self) -> u64 {
        self.call
    }

    fn end(&self) -> u64 {
        if self.is_unknown() { u64::MAX } else { self.ret }
    }

    fn is_unknown(&self) -> bool {
        self.answered == Answered::Unknown
    }

    fn apply(&self, before: &Option<u32>) -> Option<Option<u32>> {
        let before = *before;
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
