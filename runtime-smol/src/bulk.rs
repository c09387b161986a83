//! Fair scheduling for connections that move much data.
//!
//! All tasks share one thread. A client that reads page after page always has more to write, and
//! with hundreds of such clients a small request would wait behind all of them. So a connection
//! that has moved a large piece waits here for its next turn. Each round of the executor lets one
//! waiting connection go on, and nodes, disks and small requests run in between. [`Pace`] limits
//! how many turns there are in a short time.

use coracle_core::host::Pace;
use futures_lite::future;

use crate::alarm::Alarm;
use crate::clock::Clock;
use crate::mailbox::{AnswerSlot, Sender, answer_slot, mailbox};

/// The queue for turns of one executor. Clones are handles to the same queue.
#[derive(Clone, Debug)]
pub(crate) struct Bulk(Sender<AnswerSlot<()>>);

impl Bulk {
    /// Creates the queue and the task that grants the turns, at most one per round of the executor.
    pub(crate) fn new(clock: Clock) -> (Self, impl Future<Output = ()>) {
        let (waiting, turns) = mailbox::<AnswerSlot<()>>();
        let call = async move {
            let (mut pace, mut alarm) = (Pace::default(), Alarm::new(clock));
            while let Ok(turn) = turns.recv().await {
                turn.give(());
                match pace.moved(clock.now()) {
                    None => future::yield_now().await,
                    pause => alarm.wait(pause).await,
                }
            }
        };
        (Self(waiting), call)
    }

    /// Waits for this connection's turn; returns at once if the task that grants turns is gone.
    pub(crate) async fn turn(&self) {
        let (turn, given) = answer_slot();
        if self.0.send(turn).is_ok() {
            given.wait().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};
    use std::rc::Rc;

    use super::*;

    /// Connections that always want another turn, and a task that only wants to run: each of them
    /// gets turns, and few between any two runs of that task.
    #[test]
    fn other_tasks_run_between_the_turns() {
        const CONNECTIONS: usize = 100;
        let executor = smol::LocalExecutor::new();
        let (bulk, call) = Bulk::new(Clock::start());
        executor.spawn(call).detach();
        let turns = Rc::new(Cell::new(0));
        let turns_each = Rc::new(RefCell::new([0; CONNECTIONS]));
        for number in 0..CONNECTIONS {
            let (bulk, turns, each) = (bulk.clone(), Rc::clone(&turns), Rc::clone(&turns_each));
            let connection = async move {
                loop {
                    bulk.turn().await;
                    turns.set(turns.get() + 1);
                    each.borrow_mut()[number] += 1;
                }
            };
            executor.spawn(connection).detach();
        }
        let other = executor.spawn({
            let (turns, each) = (Rc::clone(&turns), Rc::clone(&turns_each));
            async move {
                let mut most = 0;
                while each.borrow().iter().any(|turns| *turns < 2) {
                    let before = turns.get();
                    future::yield_now().await;
                    most = (turns.get() - before).max(most);
                }
                most
            }
        });
        let most = future::block_on(executor.run(other));
        assert!(most <= 3, "{most} turns between two runs of another task");
    }
}
