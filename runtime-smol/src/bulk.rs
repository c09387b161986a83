//! Fair scheduling for connections that move much data.
//!
//! All tasks share one thread. A client that reads page after page always has more to write, and
//! with hundreds of such clients a small request would wait behind all of them. So a connection
//! that has moved a large piece waits here for its next turn. Each round of the executor lets one
//! waiting connection go on, and nodes, disks and small requests run in between.

use futures_lite::future;

use crate::mailbox::{AnswerSlot, Sender, answer_slot, mailbox};

/// The queue for turns of one executor. Clones are handles to the same queue.
#[derive(Clone, Debug)]
pub(crate) struct Bulk(Sender<AnswerSlot<()>>);

impl Bulk {
    /// Creates the queue and the task that grants the turns, one per round of the executor.
    pub(crate) fn new() -> (Self, impl Future<Output = ()>) {
        let (waiting, turns) = mailbox::<AnswerSlot<()>>();
        let call = async move {
            while let Ok(turn) = turns.recv().await {
                turn.give(());
                future::yield_now().await;
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

    /// Connections that always want another turn, and a task that only wants to run: between any
    /// two of its runs, few of them got a turn.
    #[test]
    fn other_tasks_run_between_the_turns() {
        const CONNECTIONS: usize = 100;
        let executor = smol::LocalExecutor::new();
        let (bulk, call) = Bulk::new();
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
            let turns = Rc::clone(&turns);
            async move {
                let mut most = 0;
                for _ in 0..1000 {
                    let before = turns.get();
                    future::yield_now().await;
                    most = (turns.get() - before).max(most);
                }
                most
            }
        });
        let most = future::block_on(executor.run(other));
        assert!(turns_each.borrow().iter().all(|turns| *turns > 1), "{turns_each:?}");
        assert!(most <= 3, "{most} turns between two runs of another task");
    }
}
