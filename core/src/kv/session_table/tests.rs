//! Tests of the session table through the state: writes in, outcomes out.

use super::*;
use crate::kv::session::LoggedSession;
use crate::kv::{
    Command, Level, LogTime, LoggedWrite, Operation, Revision, SEQ_MAX, State, Tick, Value, Write,
};

fn limits() -> SessionLimits {
    SessionLimits::default()
}

fn write(client: &str, seq: u64, operation: Operation<'_>) -> Write {
    LoggedWrite { session: Some(LoggedSession { client: client.into(), seq }), operation }.into()
}

fn put(client: &str, seq: u64, value: &str) -> Write {
    write(client, seq, Operation::Put { key: "k".into(), value })
}

fn delete(client: &str, seq: u64) -> Write {
    write(client, seq, Operation::Delete { key: "k".into() })
}

fn swap(client: &str, seq: u64, expect: Option<&str>, value: &str) -> Write {
    write(client, seq, Operation::Cas { key: "k".into(), expect, value })
}

fn apply(state: &mut State, write: &Write) -> Outcome {
    state.apply(write, Revision(1)).outcome
}

fn value(state: &State) -> Option<&str> {
    state.store().value("k").map(Value::as_json)
}

/// Computes the table's memory again from its content.
fn recount(sessions: &SessionTable) -> usize {
    let of_client = |(name, client): (&ClientName, &Client)| {
        let outcomes: usize = client.outcomes.values().map(bytes_of_outcome).sum();
        assert_eq!(client.bytes, bytes_of_client(name) + outcomes);
        client.bytes
    };
    sessions.clients.iter().map(of_client).sum()
}

fn raise_level(state: &mut State, at: u64) {
    let raise = Write { session: None, command: Command::RaiseLevel(Level::REVISIONS) };
    assert_eq!(state.apply(&raise, Revision(at)).outcome, Outcome::Done);
}

/// Applies a tick with this log time in microseconds, whose leader had applied `applied`.
fn tick(state: &mut State, at: u64, time: u64, applied: u64) {
    let tick = Tick { time: LogTime(time), applied: Revision(applied), expired: Vec::new() };
    let tick = Write { session: None, command: Command::Tick(tick.into()) };
    assert_eq!(state.apply(&tick, Revision(at)).outcome, Outcome::Done);
}

fn rebuilt(state: &State) -> SessionTable {
    let sessions = state.sessions();
    let mut other = SessionTable::new(sessions.limits);
    if state.store().level() > Level::FIRST {
        other.keep_by_time();
    }
    for line in sessions.lines() {
        assert_eq!(other.restore(&line), Ok(()), "{line}");
    }
    other
}

#[test]
fn a_retried_write_gets_its_first_outcome_and_is_not_applied_again() {
    let mut state = State::default();
    assert_eq!(apply(&mut state, &put("c", 1, "1")), Outcome::Done);
    assert_eq!(apply(&mut state, &delete("c", 2)), Outcome::Done);
    assert_eq!(apply(&mut state, &delete("c", 2)), Outcome::Done, "and not that it is not found");
    assert_eq!(apply(&mut state, &put("c", 1, "1")), Outcome::Done);
    assert_eq!(value(&state), None, "the put was not done again");
    assert_eq!(apply(&mut state, &delete("c", 3)), Outcome::NotFound);
    assert_eq!(
        apply(&mut state, &put("d", 3, "2")),
        Outcome::Done,
        "another client's number is another write"
    );
    assert_eq!(apply(&mut state, &delete("c", 3)), Outcome::NotFound);
    let mismatch = Outcome::Mismatch { actual: Value::from_json("2").ok() };
    assert_eq!(apply(&mut state, &swap("c", 4, None, "3")), mismatch);
    assert_eq!(apply(&mut state, &delete("d", 4)), Outcome::Done);
    assert_eq!(apply(&mut state, &swap("c", 4, None, "3")), mismatch, "although it could be done now");
    assert_eq!(value(&state), None);
}

#[test]
fn a_write_without_a_session_is_applied_each_time_and_not_remembered() {
    let mut state = State::default();
    let plain = Write { session: None, ..delete("", 0) };
    assert_eq!(apply(&mut state, &Write { session: None, ..put("", 0, "1") }), Outcome::Done);
    assert_eq!((apply(&mut state, &plain), apply(&mut state, &plain)), (Outcome::Done, Outcome::NotFound));
    assert!(state.sessions().is_empty() && state.sessions().bytes() == 0);
}

/// Of several writes in flight, one may be lost, retried, and so applied after later ones.
#[test]
fn sequence_numbers_may_arrive_out_of_order() {
    let mut state = State::default();
    for (seq, json) in [(9, "9"), (3, "3"), (0, "0"), (9, "9"), (3, "3"), (4, "4")] {
        assert_eq!(apply(&mut state, &put("c", seq, json)), Outcome::Done);
    }
    assert_eq!(value(&state), Some("4"));
    assert_eq!(apply(&mut state, &put("c", SEQ_MAX, "5")), Outcome::Done);
    assert_eq!(apply(&mut state, &put("c", SEQ_MAX - 1, "6")), Outcome::Done);
    assert_eq!(apply(&mut state, &put("c", 9, "9")), Outcome::SessionExpired);
    assert_eq!(value(&state), Some("6"));
}

#[test]
fn a_number_below_the_window_is_expired_whether_or_not_it_was_used() {
    let mut state = State::default();
    let top = 2 * SESSION_WINDOW;
    for seq in [5, top - SESSION_WINDOW + 1, top] {
        assert_eq!(apply(&mut state, &put("c", seq, "1")), Outcome::Done);
    }
    for seq in [0, 5, 6, top - SESSION_WINDOW] {
        assert_eq!(apply(&mut state, &put("c", seq, "2")), Outcome::SessionExpired, "{seq}");
    }
    assert_eq!(apply(&mut state, &put("c", top - SESSION_WINDOW + 1, "2")), Outcome::Done, "as at first");
    assert_eq!(value(&state), Some("1"));
    assert_eq!(
        apply(&mut state, &put("c", top - SESSION_WINDOW + 2, "3")),
        Outcome::Done,
        "for the first time"
    );
    assert_eq!(value(&state), Some("3"));
}

#[test]
fn the_least_recent_client_is_forgotten_and_stays_expired() {
    let mut state = State::new(SessionLimits { clients_max: 2, ..limits() });
    for client in ["a", "b"] {
        assert_eq!(apply(&mut state, &put(client, 1, "1")), Outcome::Done);
    }
    // A retry counts as a use: now `b` is the least recent.
    assert_eq!(apply(&mut state, &put("a", 1, "1")), Outcome::Done);
    assert_eq!(apply(&mut state, &put("c", 1, "2")), Outcome::Done);
    for seq in [1, 2] {
        assert_eq!(apply(&mut state, &put("b", seq, "3")), Outcome::SessionExpired);
    }
    assert_eq!(
        apply(&mut state, &put("a", 1, "3")),
        Outcome::Done,
        "it was not pushed out by who is refused"
    );
    assert_eq!((value(&state), state.sessions().len()), (Some("2"), 2));
}

#[test]
fn forgotten_clients_are_told_from_new_ones_up_to_a_limit() {
    let mut state = State::new(SessionLimits { clients_max: 1, expired_max: 2, ..limits() });
    for client in ["a", "b", "c", "d"] {
        assert_eq!(apply(&mut state, &put(client, 1, "1")), Outcome::Done);
    }
    for client in ["b", "c"] {
        assert_eq!(apply(&mut state, &put(client, 1, "2")), Outcome::SessionExpired);
    }
    assert_eq!(apply(&mut state, &put("a", 1, "2")), Outcome::Done, "a stranger");
}

/// A table with one client and three fingerprints: `a`, `b` and `c` are forgotten, in this order.
fn timed() -> State {
    let kept_for = Duration::from_secs(60);
    let limits = SessionLimits { clients_max: 1, expired_max: 1, fingerprints_max: 3, kept_for, ..limits() };
    let mut state = State::new(limits);
    raise_level(&mut state, 1);
    for client in ["a", "b", "c", "d"] {
        assert_eq!(apply(&mut state, &put(client, 1, "1")), Outcome::Done);
    }
    state
}

#[test]
fn new_clients_are_rejected_while_too_many_were_forgotten_a_short_time_ago() {
    const SECOND: u64 = 1_000_000;
    let mut state = timed();
    assert_eq!(apply(&mut state, &put("e", 1, "2")), Outcome::TooManySessions);
    assert_eq!(apply(&mut state, &put("d", 2, "1")), Outcome::Done, "it is remembered");
    assert_eq!(apply(&mut state, &put("a", 1, "2")), Outcome::SessionExpired);
    assert_eq!(state.sessions().next_tick_after(), Some(Duration::from_secs(1)));
    // The second tick says that they were forgotten at its time or before.
    tick(&mut state, 10, 5 * SECOND, 9);
    tick(&mut state, 11, 6 * SECOND, 10);
    tick(&mut state, 12, 66 * SECOND - 1, 11);
    assert_eq!(apply(&mut state, &put("e", 1, "2")), Outcome::TooManySessions);
    tick(&mut state, 13, 66 * SECOND, 12);
    assert_eq!((state.sessions().expired.len(), state.sessions().next_tick_after()), (1, None));
    for client in ["c", "b", "a"] {
        let outcome = if client == "c" { Outcome::SessionExpired } else { Outcome::Done };
        assert_eq!(apply(&mut state, &put(client, 1, "2")), outcome, "{client}");
    }
    let lines: Vec<_> = state.sessions().lines().skip(1).collect();
    let fingerprints = ["c", "d", "b"].map(|name| format!("\"{:016x}\"", fingerprint(name)));
    let expired = format!("{{\"expired\":[{}]}}", fingerprints.join(","));
    assert_eq!(lines, [expired.as_str(), r#"{"marks":[[6000000,1]],"at_tick":1}"#]);
    assert_eq!(rebuilt(&state), *state.sessions());
}

/// A tick that its leader proposed before it had applied the tick before may be committed much
/// later, with writes in between.
#[test]
fn a_tick_says_nothing_about_clients_that_its_leader_had_not_applied() {
    let mut state = timed();
    tick(&mut state, 10, 0, 9);
    tick(&mut state, 11, 1_000_000, 9);
    assert!(state.sessions().last_mark().is_none());
    tick(&mut state, 12, 2_000_000, 11);
    assert_eq!(state.sessions().last_mark(), Some(LogTime(2_000_000)));
}

#[test]
fn malformed_or_misplaced_marks_are_rejected() {
    let lines: Vec<_> = timed().sessions().lines().collect();
    let with = |marks: &str, keeps_by_time: bool| {
        let mut sessions = SessionTable::new(limits());
        sessions.keeps_by_time = keeps_by_time;
        lines.iter().for_each(|line| sessions.restore(line).unwrap());
        sessions.restore(marks)?;
        assert_eq!(sessions.restore(marks), Err(SessionLineError::Order), "a second time");
        Ok(())
    };
    let good = r#"{"marks":[[5,1],[6,2]],"at_tick":3}"#;
    assert_eq!((with(good, true), with(good, false)), (Ok(()), Err(SessionLineError::Order)));
    for (marks, fault) in [
        (r#"{"marks":[[5,1],[6,1]],"at_tick":3}"#, SessionLineError::Order),
        (r#"{"marks":[[6,1],[6,2]],"at_tick":3}"#, SessionLineError::Order),
        (r#"{"marks":[[5,0]],"at_tick":3}"#, SessionLineError::Order),
        (r#"{"marks":[[5,3]],"at_tick":2}"#, SessionLineError::Order),
        (r#"{"marks":[[5,4]],"at_tick":4}"#, SessionLineError::Order),
        (r#"{"marks":[],"at_tick":0}"#, SessionLineError::Order),
        (r#"{"marks":[[5, 1]],"at_tick":3}"#, SessionLineError::Form),
        (r#"{"marks":[[5,1]]}"#, SessionLineError::Form),
    ] {
        assert_eq!(with(marks, true), Err(fault), "{marks}");
    }
}

#[test]
fn the_memory_of_all_clients_has_a_limit_and_counts_values() {
    let of_one = CLIENT_OVERHEAD_BYTES + 1 + OUTCOME_OVERHEAD_BYTES;
    let mut state = State::new(SessionLimits { bytes_max: 3 * of_one, ..limits() });
    for client in ["a", "b", "c"] {
        assert_eq!(apply(&mut state, &put(client, 1, "\"a longer value\"")), Outcome::Done);
    }
    assert_eq!((state.sessions().len(), state.sessions().bytes()), (3, 3 * of_one));
    // The value that a failed swap found is remembered, and makes this outcome larger.
    assert!(matches!(apply(&mut state, &swap("c", 2, None, "1")), Outcome::Mismatch { .. }));
    assert_eq!(apply(&mut state, &put("a", 1, "2")), Outcome::SessionExpired);
    assert_eq!(state.sessions().len(), 2);
    assert_eq!(state.sessions().bytes(), recount(state.sessions()));
}

/// A client whose swaps fail on large values must not push all other clients out.
#[test]
fn the_memory_of_one_client_is_limited() {
    let mut state = State::new(SessionLimits { client_bytes_max: 2000, ..limits() });
    let large = format!("\"{}\"", "v".repeat(700));
    apply(&mut state, &put("other", 1, &large));
    for seq in 1..=4 {
        assert!(matches!(apply(&mut state, &swap("c", seq, None, "1")), Outcome::Mismatch { .. }));
    }
    assert!(matches!(apply(&mut state, &swap("c", 3, None, "1")), Outcome::Mismatch { .. }));
    for seq in [0, 1, 2] {
        assert_eq!(apply(&mut state, &swap("c", seq, None, "1")), Outcome::SessionExpired);
    }
    assert_eq!(state.sessions().bytes(), recount(state.sessions()));
    // A single outcome above the limit is kept: its client has just been answered with it.
    let huge = format!("\"{}\"", "v".repeat(4000));
    assert_eq!(apply(&mut state, &put("other", 2, &huge)), Outcome::Done);
    assert!(matches!(apply(&mut state, &swap("c", 5, None, "1")), Outcome::Mismatch { .. }));
    assert!(matches!(apply(&mut state, &swap("c", 5, None, "1")), Outcome::Mismatch { .. }));
    assert_eq!(state.sessions().len(), 2);
}

#[test]
fn lines_have_the_documented_form() {
    let mut state = State::new(SessionLimits { clients_max: 1, window: 3, ..limits() });
    for client in ["a", "b"] {
        apply(&mut state, &put(client, 1, "1"));
    }
    for write in [put("c", 6, "\"x\""), swap("c", 9, None, "1"), delete("c", 7), delete("c", 8)] {
        apply(&mut state, &write);
    }
    let lines: Vec<_> = state.sessions().lines().collect();
    let of_c = r#"{"session":"c","used":5,"forgotten":6,"outcomes":[[7,"done"],[8,"not_found"],[9,{"actual":"x"}]]}"#;
    assert_eq!(lines, [of_c, r#"{"expired":["af63dc4c8601ec8c","af63df4c8601f1a5"]}"#]);
    assert_eq!(rebuilt(&state), *state.sessions());
}

#[test]
fn malformed_or_misplaced_lines_are_rejected() {
    let of_c = r#"{"session":"c","used":5,"forgotten":null,"outcomes":[[7,"done"]]}"#;
    let broken = [
        (of_c.replace("done", "gone"), SessionLineError::Form),
        (of_c.replace("used", "use"), SessionLineError::Form),
        (of_c.replace("\"c\"", "\"\""), SessionLineError::Form),
        (of_c.replace("[7,", "[9007199254740993,"), SessionLineError::Form),
        (of_c.replace("null", "7"), SessionLineError::Order),
        (of_c.replace("[[7", "[[7,\"done\"],[7"), SessionLineError::Order),
        (of_c.replace("\"c\"", "\"d\""), SessionLineError::Order),
        (of_c.replace(":5", ":6"), SessionLineError::Order),
        (r#"{"expired":["af63dc4c8601ec8"]}"#.into(), SessionLineError::Form),
        (r#"{"expired":["+f63dc4c8601ec8c"]}"#.into(), SessionLineError::Form),
        (r#"{"expired":["af63dc4c8601ec8c","af63dc4c8601ec8c"]}"#.into(), SessionLineError::Order),
    ];
    for (line, error) in broken {
        let mut sessions = SessionTable::new(limits());
        assert_eq!(sessions.restore(of_c), Ok(()));
        assert_eq!(sessions.restore(&line), Err(error), "{line}");
    }
}

/// A table that is rebuilt at any point of a history continues exactly like the original.
#[test]
fn a_rebuilt_table_behaves_like_the_original() {
    let mut rng = fastrand::Rng::with_seed(7);
    for round in 0..200 {
        let limits = SessionLimits {
            clients_max: rng.usize(0..6),
            bytes_max: rng.usize(0..4000),
            window: rng.u64(1..20),
            client_bytes_max: rng.usize(0..2000),
            expired_max: rng.usize(0..4),
            fingerprints_max: rng.usize(1..6),
            kept_for: Duration::from_micros(rng.u64(60..600)),
        };
        let mut state = State::new(limits);
        let mut copy = State::new(limits);
        let raised_at = rng.u64(..600);
        for at in 1..300 {
            if at == raised_at {
                [&mut state, &mut copy].into_iter().for_each(|state| raise_level(state, at));
            }
            if at > raised_at && rng.u8(..8) == 0 {
                let applied = (at - 1).saturating_sub(at % 20);
                [&mut state, &mut copy].into_iter().for_each(|state| tick(state, at, 20 * at, applied));
            }
            let client = ["a", "b\"", "ü", "d", "e", "f", "g", "\u{1f600}"][rng.usize(..8)];
            let seq = rng.u64(..30);
            let json = ["1", "\"two\"", "[3,{\"x\":null}]"][rng.usize(..3)];
            let write = match rng.u8(..4) {
                0 => put(client, seq, json),
                1 => delete(client, seq),
                _ => swap(client, seq, [None, Some("1"), Some("\"two\"")][rng.usize(..3)], json),
            };
            assert_eq!(apply(&mut state, &write), apply(&mut copy, &write), "round {round}");
            if rng.u8(..20) == 0 {
                copy = State::from_parts(copy.store().clone(), rebuilt(&copy));
            }
            assert_eq!(state, copy, "round {round}");
        }
        let sessions = state.sessions();
        assert_eq!(sessions.bytes(), recount(sessions));
        let is_within = sessions.bytes() <= limits.bytes_max && sessions.len() <= limits.clients_max;
        assert!(is_within || sessions.len() <= 1, "round {round}");
        assert_eq!(sessions.by_use.len(), sessions.clients.len());
        let len_max = limits.expired_max.max(limits.fingerprints_max) + limits.clients_max.max(1);
        assert!(sessions.expired.len() <= len_max, "round {round}");
    }
}

#[test]
fn the_fingerprint_is_fnv_1a() {
    assert_eq!(fingerprint(""), 0xcbf2_9ce4_8422_2325);
    assert_eq!(fingerprint("a"), 0xaf63_dc4c_8601_ec8c);
    assert_eq!(fingerprint("foobar"), 0x8594_4171_f739_67e8);
}
