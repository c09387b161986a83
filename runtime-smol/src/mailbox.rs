//! Channels between the tasks of one thread.
//!
//! All tasks of this runtime run on one executor, in one thread. So a mailbox is a queue and the
//! waker of its receiver, without locks, atomics or allocations for waiting. It is unbounded,
//! because senders may not wait; the senders limit how much they put in.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// The error that the other end is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Closed;

struct Shared<T> {
    queue: RefCell<VecDeque<T>>,
    /// The waker of the task that waits for the next item.
    waker: Cell<Option<Waker>>,
    senders: Cell<usize>,
    has_receiver: Cell<bool>,
}

/// The sending end of a mailbox, which is closed when all clones of it are gone.
#[derive(Debug)]
pub(crate) struct Sender<T>(Rc<Shared<T>>);

/// The receiving end of a mailbox.
#[derive(Debug)]
pub(crate) struct Receiver<T>(Rc<Shared<T>>);

pub(crate) fn mailbox<T>() -> (Sender<T>, Receiver<T>) {
    let shared = Rc::new(Shared {
        queue: RefCell::default(),
        waker: Cell::default(),
        senders: Cell::new(1),
        has_receiver: Cell::new(true),
    });
    (Sender(Rc::clone(&shared)), Receiver(shared))
}

impl<T> Shared<T> {
    fn wake(&self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl<T> Sender<T> {
    /// Adds an item to the queue; [`Closed`] when the receiver is gone.
    pub(crate) fn send(&self, item: T) -> Result<(), Closed> {
        if !self.0.has_receiver.get() {
            return Err(Closed);
        }
        self.0.queue.borrow_mut().push_back(item);
        self.0.wake();
        Ok(())
    }

    pub(crate) fn len(&self) -> usize {
        self.0.queue.borrow().len()
    }
}

impl<T> Receiver<T> {
    /// Removes and returns the next item, if there is one.
    pub(crate) fn take(&self) -> Option<T> {
        self.0.queue.borrow_mut().pop_front()
    }

    /// Whether no item can ever arrive again.
    pub(crate) fn is_closed(&self) -> bool {
        self.0.senders.get() == 0 && self.0.queue.borrow().is_empty()
    }

    /// Waits for the next item and removes it; [`Closed`] when no item can ever arrive again.
    pub(crate) async fn recv(&self) -> Result<T, Closed> {
        poll_fn(|context| self.poll(context)).await
    }

    /// Like [`Receiver::recv`], for a caller that also waits for something else.
    pub(crate) fn poll(&self, context: &Context<'_>) -> Poll<Result<T, Closed>> {
        if let Some(item) = self.take() {
            return Poll::Ready(Ok(item));
        }
        if self.is_closed() {
            return Poll::Ready(Err(Closed));
        }
        let waker = self.0.waker.take().filter(|waker| waker.will_wake(context.waker()));
        self.0.waker.set(waker.or_else(|| Some(context.waker().clone())));
        Poll::Pending
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.0.senders.set(self.0.senders.get() + 1);
        Self(Rc::clone(&self.0))
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.0.senders.set(self.0.senders.get() - 1);
        if self.0.senders.get() == 0 {
            self.0.wake();
        }
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        self.0.has_receiver.set(false);
        // Items in the queue may hold senders of other mailboxes, whose receivers wake when these
        // are dropped.
        drop(self.0.queue.take());
    }
}

impl<T> fmt::Debug for Shared<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mailbox").field("waiting_items", &self.queue.borrow().len()).finish_non_exhaustive()
    }
}

/// The shared state of an answer slot and the caller that waits for the answer.
struct Expected<T> {
    answer: Cell<Option<T>>,
    waker: Cell<Option<Waker>>,
    is_expected: Cell<bool>,
}

/// The sending end of a one-shot channel. If it is dropped without an answer, the receiver gets
/// `None`.
pub(crate) struct AnswerSlot<T>(Rc<Expected<T>>);

/// The receiving end of a one-shot channel.
pub(crate) struct AwaitedAnswer<T>(Rc<Expected<T>>);

pub(crate) fn answer_slot<T>() -> (AnswerSlot<T>, AwaitedAnswer<T>) {
    let expected =
        Rc::new(Expected { answer: Cell::new(None), waker: Cell::default(), is_expected: Cell::new(true) });
    (AnswerSlot(Rc::clone(&expected)), AwaitedAnswer(expected))
}

impl<T> AnswerSlot<T> {
    /// Gives the answer. The receiver may be gone.
    pub(crate) fn give(self, answer: T) {
        self.0.answer.set(Some(answer));
    }
}

impl<T> Drop for AnswerSlot<T> {
    fn drop(&mut self) {
        self.0.is_expected.set(false);
        if let Some(waker) = self.0.waker.take() {
            waker.wake();
        }
    }
}

impl<T> AwaitedAnswer<T> {
    /// Waits for the answer; `None`: the slot was dropped without one.
    pub(crate) async fn wait(self) -> Option<T> {
        poll_fn(|context| {
            let answer = self.0.answer.take();
            if answer.is_some() || !self.0.is_expected.get() {
                return Poll::Ready(answer);
            }
            self.0.waker.set(Some(context.waker().clone()));
            Poll::Pending
        })
        .await
    }
}

impl<T> fmt::Debug for AnswerSlot<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AnswerSlot").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use futures_lite::future::{block_on, poll_once, zip};

    use super::*;

    #[test]
    fn items_come_out_in_their_order_and_the_end_after_the_last() {
        let (sender, receiver) = mailbox();
        let other = sender.clone();
        assert_eq!((sender.send(1), other.send(2)), (Ok(()), Ok(())));
        assert_eq!(sender.len(), 2);
        drop((sender, other));
        assert!(!receiver.is_closed());
        assert_eq!(block_on(receiver.recv()), Ok(1));
        assert_eq!(receiver.take(), Some(2));
        assert!(receiver.is_closed());
        assert_eq!(block_on(receiver.recv()), Err(Closed));
    }

    #[test]
    fn a_waiting_receiver_is_woken_by_an_item_and_by_the_end() {
        let (sender, receiver) = mailbox();
        let wait = async { (receiver.recv().await, receiver.recv().await) };
        let send = async move { sender.send(7) };
        assert_eq!(block_on(zip(wait, send)), ((Ok(7), Err(Closed)), Ok(())));
    }

    #[test]
    fn sending_fails_when_the_receiver_is_gone() {
        let (sender, receiver) = mailbox();
        let (inner, other) = mailbox::<()>();
        assert_eq!(sender.send(inner), Ok(()));
        drop(receiver);
        assert!(other.is_closed(), "what was left in it is gone, too");
        assert_eq!(sender.send(mailbox().0), Err(Closed));
    }

    #[test]
    fn an_answer_is_given_once_or_never() {
        let (slot, awaited) = answer_slot();
        let give = async move { slot.give(7) };
        assert_eq!(block_on(zip(awaited.wait(), give)).0, Some(7));
        let (slot, awaited) = answer_slot::<()>();
        let mut wait = Box::pin(awaited.wait());
        assert_eq!(block_on(poll_once(&mut wait)), None);
        drop(slot);
        assert_eq!(block_on(wait), None);
        let (slot, awaited) = answer_slot();
        drop(awaited);
        slot.give(());
    }
}
