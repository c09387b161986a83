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
