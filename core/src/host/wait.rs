//! Timers of a waiting driver: when its timer must be armed, and when its deadline is due.
//!
//! A driver waits for its inbox or for a deadline, whichever comes first. Deadlines move back all
//! the time (every heartbeat postpones an election), and arming a timer of an async reactor costs
//! more than the rest of a turn. So a timer that fires too early is left alone, and is only armed
//! again after it has fired.
//!
//! The naive way is to remember the moment for which the timer was armed, and to arm it again when
//! it fires before the deadline. That loses a timer which fires while the driver is late for both
//! its moment and the deadline: the deadline is reported, the timer is not armed again, and the
//! next wait trusts a timer that will never fire. So a timer counts as armed only while its moment
//! is in the future. Whether it has really fired by then does not matter.

use crate::time::Instant;

/// The next step of a waiting driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextWait {
    /// The deadline has passed: stop waiting.
    Due,
    /// Arm the timer for this moment, and wait for it or the inbox.
    Arm(Instant),
    /// Wait for the inbox, or for the timer as it is armed, if there is a deadline.
    Sleep,
}

/// The state of one driver's timer. It reads no clock: each call provides the time.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wait {
    armed: Option<Instant>,
}

impl Wait {
    /// Returns what to do at `now` to wait for `deadline`; without one, only the inbox ends the
    /// wait. Call it again whenever the driver wakes up and its inbox is empty.
    pub fn next(&mut self, now: Instant, deadline: Option<Instant>) -> NextWait {
        let Some(deadline) = deadline else { return NextWait::Sleep };
        if now >= deadline {
            return NextWait::Due;
        }
        if self.armed.is_some_and(|armed| now < armed && armed <= deadline) {
            return NextWait::Sleep;
        }
        self.armed = Some(deadline);
        NextWait::Arm(deadline)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(micros: u64) -> Instant {
        Instant::from_micros(micros)
    }

    fn wait_until(wait: &mut Wait, now: u64, deadline: u64) -> NextWait {
        wait.next(at(now), Some(at(deadline)))
    }

    #[test]
    fn a_deadline_that_moves_back_leaves_the_timer_alone_until_it_has_gone_off() {
        let mut wait = Wait::default();
        assert_eq!(wait_until(&mut wait, 0, 10), NextWait::Arm(at(10)));
        assert_eq!(wait_until(&mut wait, 5, 15), NextWait::Sleep);
        assert_eq!(wait_until(&mut wait, 10, 15), NextWait::Arm(at(15)));
        assert_eq!(wait_until(&mut wait, 15, 15), NextWait::Due);
    }

    #[test]
    fn an_earlier_deadline_moves_the_timer_forward() {
        let mut wait = Wait::default();
        assert_eq!(wait_until(&mut wait, 0, 100), NextWait::Arm(at(100)));
        assert_eq!(wait_until(&mut wait, 1, 50), NextWait::Arm(at(50)));
        assert_eq!(wait_until(&mut wait, 2, 100), NextWait::Sleep);
    }

    #[test]
    fn a_timer_that_went_off_while_the_driver_was_late_for_two_deadlines_is_armed_again() {
        let mut wait = Wait::default();
        assert_eq!(wait_until(&mut wait, 0, 10), NextWait::Arm(at(10)));
        assert_eq!(wait_until(&mut wait, 5, 20), NextWait::Sleep);
        // The driver pauses over both: the deadline is due, and the timer has fired unnoticed.
        assert_eq!(wait_until(&mut wait, 1000, 20), NextWait::Due);
        assert_eq!(wait_until(&mut wait, 1001, 1040), NextWait::Arm(at(1040)));
    }

    #[test]
    fn an_item_before_the_first_deadline_does_not_spend_the_timer() {
        let mut wait = Wait::default();
        assert_eq!(wait_until(&mut wait, 0, 10), NextWait::Arm(at(10)));
        // The driver worked from 3 to 30 without waiting; now it waits again.
        assert_eq!(wait_until(&mut wait, 30, 40), NextWait::Arm(at(40)));
        assert_eq!(wait_until(&mut wait, 35, 40), NextWait::Sleep);
    }

    #[test]
    fn a_wait_without_a_deadline_leaves_the_timer_as_it_is() {
        let mut wait = Wait::default();
        assert_eq!(wait.next(at(7), None), NextWait::Sleep);
        assert_eq!(wait_until(&mut wait, 7, 9), NextWait::Arm(at(9)));
        assert_eq!(wait.next(at(8), None), NextWait::Sleep);
        assert_eq!(wait_until(&mut wait, 8, 12), NextWait::Sleep, "armed for 9, which comes first");
        assert_eq!(wait_until(&mut wait, 9, 12), NextWait::Arm(at(12)));
    }

    #[test]
    fn a_waiting_driver_always_has_an_armed_timer_or_is_due() {
        let mut rng = fastrand::Rng::with_seed(1);
        let mut wait = Wait::default();
        let (mut now, mut armed) = (0, None);
        for _ in 0..100_000 {
            now += rng.u64(0..30);
            let deadline = now.saturating_sub(5) + rng.u64(0..40);
            match wait_until(&mut wait, now, deadline) {
                NextWait::Due => assert!(deadline <= now),
                NextWait::Arm(moment) => armed = Some(moment.as_micros()),
                NextWait::Sleep => {
                    let armed = armed.expect("a wait without a timer never ends");
                    assert!(now < armed && armed <= deadline, "{now} {armed} {deadline}");
                }
            }
        }
    }
}
