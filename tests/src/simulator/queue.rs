//! Event queue of the simulation, ordered by simulated time, and at equal times by the order of
//! planning.
//!
//! The heap holds only numbers, and the events stay in place: a heap moves its elements at every
//! step, and a message is large.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use coracle_core::host::RouterInput;
use coracle_core::raft::{Message, NodeId};
use coracle_core::{Request, RequestId};

use super::watchers::WatcherEvent;

/// An event of the simulation.
#[derive(Debug)]
pub(super) enum SimEvent {
    /// A node takes a turn, if one is due.
    Alarm { node: usize, life: u64 },
    /// A message arrives.
    Deliver(Message),
    /// A request of the proxy arrives at a node.
    Ask(usize, RequestId, Request),
    /// A disk has finished an operation.
    DiskStep { node: usize, life: u64 },
    /// A node is notified that messages to a peer may have been lost.
    Unreachable { node: usize, life: u64, peer: NodeId },
    /// A disk has finished an operation on a snapshot.
    SnapshotStep { node: usize, life: u64 },
    /// An input arrives at the router.
    ToRouter(RouterInput),
    /// The router's deadline is due.
    RouterWake,
    /// A client may send its next request.
    Client(usize),
    /// An event of a watcher.
    Watcher(WatcherEvent),
    /// A process starts.
    Start(usize),
    /// A process is stopped and started again with a version that supports a higher level.
    Upgrade(usize),
    /// A fault is injected.
    Fault,
    /// The leader is ordered to transfer leadership.
    HandOver,
    /// All links work again.
    Heal,
    /// A link goes up or down once more.
    Flap { from: NodeId, to: NodeId, times: u32 },
}

/// Time, sequence number and place of an event in one number, so that the heap compares it in one
/// operation. The parts have 64, 32 and 32 bits. No two events are equal in the first 96 bits.
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

/// The events that have not happened yet.
#[derive(Debug, Default)]
pub(super) struct Queue {
    dues: BinaryHeap<Reverse<Due>>,
    waiting: Vec<Option<SimEvent>>,
    /// The free places.
    free: Vec<usize>,
    sequence: u32,
}

impl Queue {
    /// Schedules an event at `at`.
    pub(super) fn push(&mut self, at: u64, happening: SimEvent) {
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

    /// Removes the next event, if it is due before `end`, and returns it with its time.
    pub(super) fn pop_before(&mut self, end: u64) -> Option<(u64, SimEvent)> {
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
    fn events_are_ordered_by_time_and_then_by_planning() {
        let mut queue = Queue::default();
        for (at, client) in [(5, 0), (3, 1), (5, 2), (3, 3), (9, 4)] {
            queue.push(at, SimEvent::Client(client));
        }
        let mut found = Vec::new();
        while let Some((at, SimEvent::Client(client))) = queue.pop_before(9) {
            found.push((at, client));
            if client == 1 {
                queue.push(4, SimEvent::Client(5));
            }
        }
        assert_eq!(found, [(3, 1), (3, 3), (4, 5), (5, 0), (5, 2)]);
        assert!(matches!(queue.pop_before(10), Some((9, SimEvent::Client(4)))));
    }
}
