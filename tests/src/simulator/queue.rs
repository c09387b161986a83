//! What is going to happen, in the order of simulated time; what is due at one moment, in the order of its planning.
//!
//! The heap holds numbers only, and the happenings stay where they were put: a heap moves what it holds about at every
//! step, and a message is a large thing to move.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use coracle_core::proxy::ProxyInput;
use coracle_core::raft::{LogPoint, Message, NodeId};
use coracle_core::{Request, RequestId};

/// Something that is going to happen.
#[derive(Debug)]
pub(super) enum Happening {
    /// A node takes a turn, if it was not woken since.
    Wake { node: usize, life: u64 },
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
    /// A disk has looked for a part of a snapshot.
    PartRead { node: usize, life: u64, last: LogPoint, offset: u64 },
    /// Something arrives at the proxy.
    ToProxy(ProxyInput),
    /// The proxy looks at the time.
    ProxyWake,
    /// A client thinks of something.
    Client(usize),
    /// A process starts.
    Start(usize),
    /// Something breaks.
    Trouble,
    /// Everyone hears everyone again.
    Heal,
    /// A link goes up or down once more.
    Flap { from: NodeId, to: NodeId, times: u32 },
}

/// When something happens, and where it waits until then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Due {
    at: u64,
    /// No two are equal, so the order is that of the planning.
    sequence: u32,
    place: u32,
}

/// All that is going to happen.
#[derive(Debug, Default)]
pub(super) struct Queue {
    dues: BinaryHeap<Reverse<Due>>,
    waiting: Vec<Option<Happening>>,
    /// The places where nothing waits.
    free: Vec<u32>,
    sequence: u32,
}

impl Queue {
    /// Something is going to happen at `at`.
    pub(super) fn push(&mut self, at: u64, happening: Happening) {
        self.sequence = self.sequence.checked_add(1).expect("less happens in a run");
        let place = if let Some(place) = self.free.pop() {
            self.waiting[place as usize] = Some(happening);
            place
        } else {
            self.waiting.push(Some(happening));
            u32::try_from(self.waiting.len() - 1).expect("less is planned at once")
        };
        self.dues.push(Reverse(Due { at, sequence: self.sequence, place }));
    }

    /// What happens next, and when, if that is before `end`.
    pub(super) fn pop_before(&mut self, end: u64) -> Option<(u64, Happening)> {
        self.dues.peek().filter(|Reverse(due)| due.at < end)?;
        let Reverse(due) = self.dues.pop()?;
        self.free.push(due.place);
        let happening = self.waiting[due.place as usize].take().expect("something waits where it is due");
        Some((due.at, happening))
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
