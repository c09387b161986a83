//! Plain requests: a key and an optional value, with replies that match the documented protocol
//! byte for byte.

use coracle_tests::both_runtimes_and_tls;
use coracle_tests::live::{Runtime, Setup, Talk};

/// The examples of the protocol hold to the byte, because existing clients compare these replies.
fn the_examples_of_the_contract_hold_to_the_byte(runtime: Runtime) {
    let server = Setup::in_memory(runtime).start();
    let mut talk = server.connect();
    talk.exchange(r#"{"key":"snack","value":"chips"}"#, r#"{"key":"snack","value":"chips","status":"ok"}"#);
    talk.exchange(r#"{"key":"snack"}"#, r#"{"key":"snack","value":"chips","status":"ok"}"#);
    talk.exchange(r#"{"key":"nope"}"#, r#"{"key":"nope","value":null,"status":"error"}"#);
}

/// A `\r` before the line feed belongs to the line ending and not to the request.
fn a_carriage_return_belongs_to_the_line_ending(runtime: Runtime) {
    let server = Setup::in_memory(runtime).start();
    let mut talk = server.connect();
    talk.send("{\"key\":\"a\",\"value\":\"x\"}\r\n{\"key\":\"a\"}\r\n");
    talk.expect(r#"{"key":"a","value":"x","status":"ok"}"#);
    talk.expect(r#"{"key":"a","value":"x","status":"ok"}"#);
}

/// Read-your-writes: an acknowledged put is visible at once on its own connection, whichever
/// follower answers.
fn a_connection_never_loses_sight_of_its_own_writes(runtime: Runtime) {
    let server = Setup::in_memory(runtime).start();
    let mut talk = server.connect();
    for round in 0..200 {
        let reply = format!(r#"{{"key":"own","value":{round},"status":"ok"}}"#);
        talk.exchange(&format!(r#"{{"key":"own","value":{round}}}"#), &reply);
        talk.exchange(r#"{"key":"own"}"#, &reply);
    }
}

/// Monotonic reads: a connection never reads an older state than it has read before, although
/// another follower may answer.
fn a_connection_never_goes_back_in_time(runtime: Runtime) {
    let server = Setup::in_memory(runtime).start();
    let (mut writer, mut reader) = (server.connect(), server.connect());
    let number_in = |talk: &mut Talk| talk.ask(r#"{"key":"clock"}"#)["value"].as_u64().unwrap_or(0);
    let mut seen = 0;
    for tick in 1..=200 {
        writer.say(&format!(r#"{{"key":"clock","value":{tick}}}"#));
        let now = number_in(&mut reader);
        assert!(now >= seen, "{seen} was read before {now}");
        seen = now;
        assert_eq!(writer.hear_json()["status"], "ok");
    }
}

/// A value comes back as the same JSON value; a number outside the range of `f64` keeps every
/// digit.
fn values_come_back_as_they_are(runtime: Runtime) {
    let server = Setup::in_memory(runtime).start();
    let mut talk = server.connect();
    let deep = format!("{}{}", "[".repeat(64), "]".repeat(64));
    let values = [
        "1e999",
        "-1e999",
        "18446744073709551617",
        "0.10",
        "-0",
        "1E+5",
        "true",
        "false",
        "0",
        r#""""#,
        "[]",
        "{}",
        r#"{"b":1,"a":[null,2]}"#,
        r#"{"x":1,"x":2}"#,
        r#""äöü €😀""#,
        r#""a\tb\n\"\\""#,
        r#""\u0000""#,
        &deep,
    ];
    for value in values {
        let reply = format!(r#"{{"key":"v","value":{value},"status":"ok"}}"#);
        talk.exchange(&format!(r#"{{"key":"v","value":{value}}}"#), &reply);
        talk.exchange(r#"{"key":"v"}"#, &reply);
    }
    let spaced = "{\"key\" : \"v\" ,\t\"value\": { \"a\" : [ 1 , 2 ] } }";
    talk.exchange(spaced, r#"{"key":"v","value":{"a":[1,2]},"status":"ok"}"#);
}

/// The longest key, the largest value and the longest line within the limits are accepted.
fn the_largest_key_and_value_are_taken(runtime: Runtime) {
    let server = Setup::in_memory(runtime).start();
    let mut talk = server.connect();
    let key = "k".repeat(1024);
    let value = "v".repeat((512 << 10) - 2);
    let reply = format!(r#"{{"key":"{key}","value":"{value}","status":"ok"}}"#);
    talk.exchange(&format!(r#"{{"key":"{key}","value":"{value}"}}"#), &reply);
    talk.exchange(&format!(r#"{{"key":"{key}"}}"#), &reply);
    let padding = " ".repeat((1 << 20) - 12);
    talk.exchange(&format!(r#"{{"key":"no"{padding}}}"#), r#"{"key":"no","value":null,"status":"error"}"#);
}

both_runtimes_and_tls!(
    the_examples_of_the_contract_hold_to_the_byte,
    a_carriage_return_belongs_to_the_line_ending,
    a_connection_never_loses_sight_of_its_own_writes,
    a_connection_never_goes_back_in_time,
    values_come_back_as_they_are,
    the_largest_key_and_value_are_taken,
);
