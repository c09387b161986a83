//! Turns for connections that move much.
//!
//! All tasks share one thread, in turn. A client that reads pages always has more to write, and with hundreds of them a request that
//! is small would wait behind all. So who has moved a large piece waits here for the next turn: in every round of the
//! executor one of those who wait goes on, and nodes, disks and small requests have theirs in between.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

use futures_lite::future;

/// The turns of one executor. Cloning gives another handle to the same ones.
#[derive(Clone, Debug, Default)]
pub(crate) struct Bulk(Rc<RefCell<Turns>>);

#[derive(Debug, Default)]
struct Turns {
    /// Who waits, each with its number.
    waiting: VecDeque<(u64, Waker)>,
    next_number: u64,
    /// Wakes the task that gives the turns. It sleeps while no connection waits.
    caller: Option<Waker>,
}

impl Bulk {
    /// Waits for this connection's turn.
    pub(crate) async fn turn(&self) {
        let mut number = None;
        poll_fn(|context| {
            let mut turns = self.0.borrow_mut();
            let Some(number) = number else {
                let own = turns.next_number;
                number = Some(own);
                turns.waiting.push_back((own, context.waker().clone()));
                turns.next_number += 1;
                turns.caller.take().into_iter().for_each(Waker::wake);
                return Poll::Pending;
            };
            match turns.waiting.iter_mut().find(|(waiting, _)| *waiting == number) {
                Some((_, waker)) => waker.clone_from(context.waker()),
                None => return Poll::Ready(()),
            }
            Poll::Pending
        })
        .await;
    }

    /// Calls one after the other, each in a round of its own.
    pub(crate) async fn call(self) {
        loop {
            let next = poll_fn(|context| {
                let mut turns = self.0.borrow_mut();
                match turns.waiting.pop_front() {
                    Some((_, waker)) => Poll::Ready(waker),
                    None => {
                        turns.caller = Some(context.waker().clone());
                        Poll::Pending
                    }
                }
            });
            next.await.wake();
            future::yield_now().await;
        }
    }
}
