//! Timers: waits for an item in a mailbox or for a deadline, whichever comes first. [`Wait`]
//! decides when the timer is armed.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use coracle_core::Instant;
use coracle_core::host::{NextWait, Wait};
use futures_lite::future;
use smol::Timer;

use crate::clock::Clock;
use crate::mailbox::{Closed, Receiver};

#[derive(Debug)]
pub(crate) struct Alarm {
    clock: Clock,
    timer: Timer,
    wait: Wait,
}

impl Alarm {
    pub(crate) fn new(clock: Clock) -> Self {
        Self { clock, timer: Timer::never(), wait: Wait::default() }
    }

    /// Returns the next item of `mailbox`, `None` once `deadline` has passed, or an error when the
    /// mailbox is empty and all its senders are gone.
    pub(crate) async fn receive<T>(
        &mut self,
        mailbox: &Receiver<T>,
        deadline: Option<Instant>,
    ) -> Result<Option<T>, Closed> {
        poll_fn(|context| match mailbox.poll(context) {
            Poll::Ready(received) => Poll::Ready(received.map(Some)),
            Poll::Pending => self.poll_deadline(deadline, context).map(|()| Ok(None)),
        })
        .await
    }

    /// Waits for `deadline`; forever if there is none.
    pub(crate) async fn wait(&mut self, deadline: Option<Instant>) {
        poll_fn(|context| self.poll_deadline(deadline, context)).await;
    }

    fn poll_deadline(&mut self, deadline: Option<Instant>, context: &mut Context<'_>) -> Poll<()> {
        loop {
            match self.wait.next(self.clock.now(), deadline) {
                NextWait::Due => return Poll::Ready(()),
                // Timers have the operating system's resolution. Waking a moment late costs
                // nothing; waking a moment early costs a turn.
                NextWait::Arm(moment) => {
                    self.timer.set_at(self.clock.system_instant(moment) + Duration::from_micros(1));
                }
                NextWait::Sleep => {}
            }
            if Pin::new(&mut self.timer).poll(context).is_pending() {
                return Poll::Pending;
            }
        }
    }
}

/// Returns the output of the future, or `None` if it takes longer than `patience`.
pub(crate) async fn within<T>(patience: Duration, work: impl Future<Output = T>) -> Option<T> {
    let work = async { Some(work.await) };
    let give_up = async {
        Timer::after(patience).await;
        None
    };
    future::or(work, give_up).await
}

/// Runs fallible work with a time limit; `late` is the message of the error when time runs out.
pub(crate) async fn in_time<T, E: From<io::Error>>(
    patience: Duration,
    late: &str,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    let too_late = || Err(io::Error::new(io::ErrorKind::TimedOut, late).into());
    within(patience, work).await.unwrap_or_else(too_late)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mailbox::mailbox;

    const BRIEF: Duration = Duration::from_millis(3);
    /// Far longer than any wait of these tests; it only ends a wait for something that never
    /// happens.
    const NEVER: Duration = Duration::from_secs(60);

    /// Returns the result of the alarm, or `None` when its timer never fires.
    async fn wakes(alarm: &mut Alarm, mailbox: &Receiver<u32>, after: Duration) -> Option<Option<u32>> {
        let deadline = alarm.clock.now() + after;
        let woken = async { Some(alarm.receive(mailbox, Some(deadline)).await.unwrap()) };
        let given_up = async {
            Timer::after(NEVER).await;
            None
        };
        future::or(woken, given_up).await
    }

    #[test]
    fn a_pause_over_two_deadlines_does_not_end_the_timer() {
        smol::block_on(async {
            let (sender, receiver) = mailbox();
            let mut alarm = Alarm::new(Clock::start());
            let first = alarm.clock.now() + BRIEF;
            // The timer is armed for the first deadline. An item ends the wait before that, unless
            // the machine is busy.
            let waiting = async { alarm.receive(&receiver, Some(first)).await.unwrap() };
            let sending = async {
                future::yield_now().await;
                sender.send(1).unwrap();
                future::pending().await
            };
            _ = future::or(waiting, sending).await;
            // The second deadline is later, and the process sleeps past both.
            let second = first + BRIEF;
            std::thread::sleep(3 * BRIEF);
            assert_eq!(alarm.receive(&receiver, Some(second)).await, Ok(None));
            // The third deadline needs a timer that still works.
            assert_eq!(wakes(&mut alarm, &receiver, BRIEF).await, Some(None));
            assert_eq!(wakes(&mut alarm, &receiver, BRIEF).await, Some(None));
        });
    }

    #[test]
    fn an_item_before_the_deadline_comes_at_once_and_the_deadline_after_it() {
        smol::block_on(async {
            let (sender, receiver) = mailbox();
            let mut alarm = Alarm::new(Clock::start());
            sender.send(1).unwrap();
            assert_eq!(wakes(&mut alarm, &receiver, NEVER).await, Some(Some(1)));
            assert_eq!(wakes(&mut alarm, &receiver, BRIEF).await, Some(None));
            sender.send(2).unwrap();
            assert_eq!(wakes(&mut alarm, &receiver, Duration::ZERO).await, Some(Some(2)), "items come first");
        });
    }

    #[test]
    fn an_earlier_deadline_than_the_timer_was_armed_for_is_kept() {
        smol::block_on(async {
            let (sender, receiver) = mailbox();
            let mut alarm = Alarm::new(Clock::start());
            let late = alarm.clock.now() + NEVER;
            let waiting = async { alarm.receive(&receiver, Some(late)).await.unwrap() };
            let sending = async {
                future::yield_now().await;
                sender.send(1).unwrap();
                future::pending().await
            };
            assert_eq!(future::or(waiting, sending).await, Some(1));
            assert_eq!(wakes(&mut alarm, &receiver, BRIEF).await, Some(None));
        });
    }

    #[test]
    fn a_mailbox_without_senders_ends_the_wait() {
        smol::block_on(async {
            let (sender, receiver) = mailbox::<u32>();
            drop(sender);
            let mut alarm = Alarm::new(Clock::start());
            assert!(alarm.receive(&receiver, None).await.is_err());
        });
    }
}
