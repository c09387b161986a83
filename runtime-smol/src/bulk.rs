//! Turns for connections that move much.
//!
//! All tasks share one thread, in turn. A client that reads pages always has more to write, and
//! with hundreds of them a request that is small would wait behind all. So a connection that has
//! moved a large piece waits here for the next turn: in every round of the executor one of those
//! that wait goes on, and nodes, disks and small requests have theirs in between.

use futures_lite::future;

use crate::mailbox::{AnswerSlot, Sender, answer_slot, mailbox};

/// The turns of one executor. Cloning gives another handle to the same ones.
#[derive(Clone, Debug)]
pub(crate) struct Bulk(Sender<AnswerSlot<()>>);

impl Bulk {
    /// The turns, and what gives them one after the other, each in a round of its own.
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

    /// Waits for this connection's turn, as long as turns are given.
    pub(crate) async fn turn(&self) {
        let (turn, given) = answer_slot();
        if self.0.send(turn).is_ok() {
            given.wait().await;
        }
    }
}
