//! Tests of the schedule by which keys expire.

use super::*;

fn key(text: &str) -> Key {
    Key::new(text).unwrap()
}

fn ttl(ms: u64) -> Ttl {
    Ttl::from_ms(ms).unwrap()
}

fn at(ms: u64) -> Instant {
    Instant::from_micros(1000 * ms)
}

/// The expiries of a node whose clock shows this many milliseconds.
fn expiries(ms: u64) -> Expiries {
    let mut expiries = Expiries::seeded(1);
    expiries.advance(at(ms));
    expiries
}

/// Applies a tick as the entry at `index`.
fn apply(expiries: &mut Expiries, index: u64, tick: &Tick) {
    let expired = tick.expired.iter().filter(|key| expiries.is_expired_by(key, tick.applied));
    for key in expired.cloned().collect::<Vec<_>>() {
        expiries.remove(&key);
    }
    for key in expiries.dated_by(tick.applied) {
        expiries.date(&key, tick.time);
    }
    expiries.ticked(Revision(index), tick.time);
}

fn due_tick(expiries: &Expiries, applied: u64) -> Option<Tick> {
    expiries.due_tick(LogTime::default(), Revision(applied), true, |_| false)
}

fn names(tick: &Tick) -> Vec<&str> {
    tick.expired.iter().map(Key::as_str).collect()
}

#[test]
fn a_key_is_due_its_time_to_live_after_it_was_applied() {
    let mut expiries = expiries(5000);
    expiries.set(&key("a"), ttl(250), Revision(7));
    assert_eq!((expiries.next_tick_at(), expiries.left(&key("a"))), (Some(at(5250)), Some(ttl(250))));
    expiries.advance(at(5249));
    assert_eq!((due_tick(&expiries, 7), expiries.left(&key("a"))), (None, Some(ttl(1))));
    expiries.advance(at(5250));
    assert_eq!(names(&due_tick(&expiries, 7).unwrap()), ["a"]);
    assert_eq!(expiries.left(&key("a")), Some(ttl(1)), "it exists until the tick is applied");
}

#[test]
fn a_write_after_the_leaders_last_one_beats_its_tick() {
    let mut expiries = expiries(0);
    expiries.set(&key("a"), ttl(1), Revision(7));
    expiries.advance(at(9));
    let tick = due_tick(&expiries, 7).unwrap();
    expiries.set(&key("a"), ttl(1), Revision(8));
    apply(&mut expiries, 9, &tick);
    assert_eq!((expiries.len(), expiries.get(&key("a")).map(|expiry| expiry.since)), (1, Some(Revision(8))));
}

#[test]
fn a_tick_dates_keys_and_then_log_time_decides() {
    let mut leader = expiries(0);
    leader.set(&key("a"), ttl(60_000), Revision(7));
    assert_eq!(leader.next_tick_at(), Some(at(1000)));
    leader.advance(at(1000));
    let tick = due_tick(&leader, 7).unwrap();
    assert_eq!((tick.time, tick.expired.len()), (LogTime(1_000_000), 0));
    apply(&mut leader, 8, &tick);
    assert_eq!(leader.next_tick_at(), Some(at(61_000)));
    // A node that starts later, with another clock, and hears from the leader.
    let mut restarted = expiries(100_000);
    restarted.set(&key("a"), ttl(60_000), Revision(7));
    apply(&mut restarted, 8, &tick);
    leader.advance(at(31_000));
    restarted.learn_elapsed(Revision(8), leader.elapsed());
    assert_eq!(restarted.next_tick_at(), Some(at(130_000)));
    restarted.learn_elapsed(Revision(8), Duration::from_secs(1));
    restarted.learn_elapsed(Revision(7), Duration::from_secs(100));
    assert_eq!(restarted.next_tick_at(), Some(at(130_000)), "it is less, or of another tick");
    restarted.advance(at(130_000));
    let tick = due_tick(&restarted, 8).unwrap();
    assert_eq!((names(&tick), tick.time), (vec!["a"], LogTime(61_000_000)));
}

/// The clock of a state that is built from a snapshot begins with the first step after that.
#[test]
fn restored_keys_count_from_the_first_step() {
    let mut expiries = Expiries::seeded(1);
    expiries.restore_tick(Revision(9), LogTime(5_000_000));
    let expiry = |until| Expiry { since: Revision(7), ttl: ttl(250), until };
    expiries.restore(&key("dated"), expiry(Some(LogTime(5_100_000))));
    expiries.restore(&key("undated"), expiry(None));
    expiries.advance(at(70_000));
    assert_eq!(
        (expiries.left(&key("dated")), expiries.left(&key("undated"))),
        (Some(ttl(100)), Some(ttl(250)))
    );
    expiries.advance(at(70_100));
    assert_eq!(names(&due_tick(&expiries, 9).unwrap()), ["dated"]);
    expiries.advance(at(70_250));
    assert_eq!(names(&due_tick(&expiries, 9).unwrap()), ["dated", "undated"], "in the order of their time");
    let tick = expiries
        .due_tick(LogTime::default(), Revision(9), true, |proposed| *proposed == key("dated"))
        .unwrap();
    assert_eq!(names(&tick), ["undated"]);
}

#[test]
fn a_tick_has_a_limit_of_keys_and_of_bytes() {
    let mut expiries = expiries(0);
    for number in 0..KEYS_PROPOSED_MAX + 1 {
        expiries.set(&key(&format!("{number:04}")), ttl(1), Revision(7));
    }
    expiries.advance(at(1));
    let tick = due_tick(&expiries, 7).unwrap();
    assert_eq!((tick.expired.len(), names(&tick)[0]), (KEYS_PROPOSED_MAX, "0000"));
    apply(&mut expiries, 8, &tick);
    expiries.advance(at(2));
    assert_eq!(names(&due_tick(&expiries, 8).unwrap()), ["0250"]);
    for number in 0..100 {
        expiries.set(&key(&format!("{number:01024}")), ttl(1), Revision(9));
    }
    expiries.advance(at(9));
    assert_eq!(due_tick(&expiries, 9).unwrap().expired.len(), 1 + 32);
}

#[test]
fn a_key_that_lives_on_is_in_no_schedule() {
    let mut expiries = expiries(0);
    expiries.set(&key("a"), ttl(5000), Revision(1));
    expiries.advance(at(1000));
    let tick = due_tick(&expiries, 1).unwrap();
    apply(&mut expiries, 2, &tick);
    expiries.set(&key("b"), ttl(5000), Revision(3));
    expiries.remove(&key("a"));
    expiries.remove(&key("b"));
    expiries.remove(&key("b"));
    assert_eq!((expiries.len(), expiries.next_tick_at()), (0, None));
    assert!(expiries.dated.is_empty() && expiries.undated.is_empty() && expiries.due.is_empty());
}

/// Whatever happens, the schedule holds every key once, and nothing else.
#[test]
fn the_schedule_holds_every_key_once() {
    let mut rng = fastrand::Rng::with_seed(5);
    for _ in 0..200 {
        let mut expiries = Expiries::seeded(rng.u64(..));
        let mut now = 0;
        for index in 1..100 {
            now += rng.u64(0..700);
            expiries.advance(at(now));
            let key = key(&format!("k{}", rng.u32(0..9)));
            match rng.u32(0..4) {
                0 | 1 => expiries.set(&key, ttl(rng.u64(1..3000)), Revision(index)),
                2 => expiries.remove(&key),
                _ => {
                    if let Some(tick) = due_tick(&expiries, rng.u64(0..index)) {
                        apply(&mut expiries, index, &tick);
                    }
                }
            }
            assert_eq!(expiries.dated.len() + expiries.undated.len(), expiries.len());
            assert_eq!(expiries.due.len(), expiries.undated.len());
        }
    }
}
