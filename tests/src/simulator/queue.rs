//! What is going to happen, in the order of simulated time; what is due at one moment, in the order
//! of its planning.
//!
//! The heap holds numbers only, and the happenings stay where they were put: a heap moves what it
//! holds about at every step, and a message is a large thing to move.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use coracle_core::host::RouterInput;
use coracle_core::raft::{Message, NodeId};
use coracle_core::{Request, RequestId};

/// Something that is going to happen.
#[derive(Debug)]
pub(super) enum Happening {
    /// A node takes a turn, if one is due.
    Alarm { node: usize, life: u64 },
    /// A message arrives.
    Deliver(Message),
    /// The proxy's request arrives.
    Ask(usize, RequestId, Request),
    /// A disk has finished an operation.
    DiskStep { node: usize, life: u64 },
    /// A node is told that messages to another may have been lost.
    Unreachable { node: usize, life: u64, peer: NodeId },
    /// A disk has finished an operation on a snapshot.
    SnapshotStep { node: usize, life: u64 },
    /// Something arrives at the router.
    ToRouter(RouterInput),
    /// The router looks at the time.
    RouterWake,
    /// A client thinks of something.
    Client(usize),
    /// A process starts.
    Start(usize),
    /// Something breaks.
    Trouble,
    /// The leader is ordered to hand leadership over.
    HandOver,
    /// Everyone hears everyone again.
    Heal,
    /// A link goes up or down once more.
    Flap { from: NodeId, to: NodeId, times: u32 },
}

/// When something happens, its number in the order of planning, and where it waits until then: one
/// number, so that the heap compares it in one go. 64 bits, 32 and 32, and no two have the same
/// first 96.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Due(u128);

impl Due {
    fn new(at: u64, sequence: u32, place: u32) -> Self {
        Self(u128::from(at) << 64 | u128::from(sequence) << 32 | u128::from(place))
    }

    fn at(self) -> u64 {
        (self.0 >> 64) as u64
    }

    #[expect(clippy::cast_possible_truncation, reason = "the last 32 bits are wanted")]
    fn place(self) -> usize {
        self.0 as u32 as usize
    }
}

/// All that is going to happen.
#[derive(Debug, Default)]
pub(super) struct Queue {
    dues: BinaryHeap<Reverse<Due>>,
    waiting: Vec<Option<Happening>>,
    /// The places where nothing waits.
    free: Vec<usize>,
    sequence: u32,
}

impl Queue {
    /// Something is going to happen at `at`.
    pub(super) fn push(&mut self, at: u64, happening: Happening) {
        self.sequence = self.sequence.checked_add(1).expect("less happens in a run");
        let place = if let Some(place) = self.free.pop() {
            self.waiting[place] = Some(happening);
            place
        } else {
            self.waiting.push(Some(happening));
            self.waiting.len() - 1
        };
        let place = u32::try_from(place).expect("less is planned at once");
        self.dues.push(Reverse(Due::new(at, self.sequence, place)));
    }

    /// What happens next, and when, if that is before `end`.
    pub(super) fn pop_before(&mut self, end: u64) -> Option<(u64, Happening)> {
        self.dues.peek().filter(|Reverse(due)| due.at() < end)?;
        let Reverse(due) = self.dues.pop()?;
        let happening = self.waiting[due.place()].take().expect("something waits where it is due");
        self.free.push(due.place());
        Some((due.at(), happening))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_due_comes_in_the_order_of_time_and_of_planning() {
        let mut queue = Queue::default();
        for (at, client) in [(5, 0), (3, 1), (5, 2), (3, 3), (9, 4)] {
            queue.push(at, Happening::Client(client));
        }
        let mut found = Vec::new();
        while let Some((at, Happening::Client(client))) = queue.pop_before(9) {
            found.push((at, client));
            if client == 1 {
                queue.push(4, Happening::Client(5));
            }
        }
        assert_eq!(found, [(3, 1), (3, 3), (4, 5), (5, 0), (5, 2)]);
        assert!(matches!(queue.pop_before(10), Some((9, Happening::Client(4)))));
    }
}
