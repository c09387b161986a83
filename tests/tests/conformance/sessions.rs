//! Exactly-once sessions: a retried write, with the same client name and sequence number, gets its
//! first outcome and is not applied twice.

use coracle_core::kv::SESSIONS_MAX;
use coracle_tests::both_runtimes_and_tls;
use coracle_tests::live::{LogFile, Runtime, Setup};
use serde_json::json;

/// A write that is retried on the same connection or on another gets its first reply, and later
/// writes of other clients stay in effect.
fn a_write_that_is_sent_again_gets_its_first_answer(runtime: Runtime) {
    let server = Setup::in_memory(runtime).start();
    let (mut talk, mut other) = (server.connect(), server.connect());
    let put = r#"{"key":"k","value":1,"session":{"client":"c","seq":1}}"#;
    let stored = r#"{"key":"k","value":1,"status":"ok"}"#;
    talk.exchange(put, stored);
    talk.exchange(put, stored);
    other.exchange(r#"{"key":"k","value":2}"#, r#"{"key":"k","value":2,"status":"ok"}"#);
    other.exchange(put, stored);
    other.exchange(r#"{"key":"k"}"#, r#"{"key":"k","value":2,"status":"ok"}"#);

    let delete = r#"{"op":"delete","key":"k","session":{"client":"c","seq":2}}"#;
    talk.exchange(delete, r#"{"key":"k","status":"ok"}"#);
    other.exchange(delete, r#"{"key":"k","status":"ok"}"#);
    let again = talk.ask(r#"{"op":"delete","key":"k","session":{"client":"c","seq":3}}"#);
    assert_eq!(again["error"], "not_found", "another number is another delete");
    talk.exchange(put, stored);
    assert_eq!(talk.ask(r#"{"op":"get","key":"k"}"#)["error"], "not_found", "the put was not done again");
}

/// A retried compare-and-swap gets its first outcome. Applied twice, it would fail the second time,
/// because the first time has changed the value.
fn a_swap_that_is_sent_again_gets_its_first_answer(runtime: Runtime) {
    let server = Setup::in_memory(runtime).start();
    let mut talk = server.connect();
    let take = r#"{"op":"cas","key":"lock","expect":null,"value":"c","session":{"client":"c","seq":1}}"#;
    let fail = r#"{"op":"cas","key":"lock","expect":null,"value":"d","session":{"client":"d","seq":1}}"#;
    let taken = r#"{"key":"lock","value":"c","status":"ok"}"#;
    talk.exchange(take, taken);
    let failed = talk.ask(fail);
    assert_eq!((&failed["error"], &failed["actual"]), (&json!("cas_mismatch"), &json!("c")));
    talk.exchange(take, taken);
    talk.exchange(r#"{"op":"delete","key":"lock"}"#, r#"{"key":"lock","status":"ok"}"#);
    assert_eq!(server.connect().ask(fail), failed, "although it could be taken now");
    talk.exchange(take, taken);
    assert_eq!(talk.ask(r#"{"op":"get","key":"lock"}"#)["error"], "not_found");
}

/// A session is no lock: many of its writes may be in flight together, in any order of their
/// sequence numbers. On a request that changes nothing, the session has no effect.
fn numbers_may_come_in_any_order(runtime: Runtime) {
    let server = Setup::in_memory(runtime).start();
    let mut talk = server.connect();
    for seq in (0..100).rev() {
        talk.say(&format!(
            r#"{{"key":"{seq}","value":{seq},"session":{{"client":"größe \"","seq":{seq}}}}}"#
        ));
    }
    for seq in (0..100).rev() {
        talk.expect(&format!(r#"{{"key":"{seq}","value":{seq},"status":"ok"}}"#));
    }
    talk.exchange(r#"{"op":"ping","session":{"client":"c","seq":1}}"#, r#"{"status":"ok"}"#);
    let read = r#"{"key":"7","session":{"client":"c","seq":1}}"#;
    talk.exchange(read, r#"{"key":"7","value":7,"status":"ok"}"#);
    let put = r#"{"key":"7","value":8,"session":{"client":"c","seq":1}}"#;
    talk.exchange(put, r#"{"key":"7","value":8,"status":"ok"}"#);
    talk.exchange(read, r#"{"key":"7","value":8,"status":"ok"}"#);
}

/// The session table is part of the state: a restart rebuilds it from the log, where client and
/// sequence number precede the key.
fn a_restarted_server_knows_what_it_did(runtime: Runtime) {
    let folder = tempfile::tempdir().expect("there is room for a folder");
    let server = Setup::in_folder(runtime, folder.path()).start();
    let put = r#"{"key":"k","value":1,"session":{"client":"c","seq":7}}"#;
    let stored = r#"{"key":"k","value":1,"status":"ok"}"#;
    server.connect().exchange(put, stored);
    server.connect().exchange(r#"{"key":"k","value":2}"#, r#"{"key":"k","value":2,"status":"ok"}"#);
    server.kill();
    let server = Setup::in_folder(runtime, folder.path()).start();
    let mut talk = server.connect();
    talk.exchange(put, stored);
    talk.exchange(r#"{"key":"k"}"#, r#"{"key":"k","value":2,"status":"ok"}"#);
    let _ = server.settle();
    server.stop();
    for log in LogFile::read_all(folder.path(), 5) {
        let pairs =
            |line: &&String| line.contains(r#","op":"PUT","client":"c","seq":7,"key":"k","value":1,"crc":"#);
        assert_eq!(log.lines.iter().filter(pairs).count(), 2, "the write and the same one again");
        let plain = |line: &&String| line.contains(r#","op":"PUT","key":"k","value":2,"crc":"#);
        assert_eq!(log.lines.iter().filter(plain).count(), 1);
    }
}

/// A session that was evicted from the table is rejected and not mistaken for a new one.
fn a_forgotten_session_is_refused(runtime: Runtime) {
    let server = Setup::in_memory(runtime).with("--nodes 3").start();
    let mut talk = server.connect();
    let put = |client: usize, value: usize| {
        format!(r#"{{"key":"k{}","value":{value},"session":{{"client":"c{client}","seq":1}}}}"#, client % 500)
    };
    let mut sent = 0;
    for client in 0..=SESSIONS_MAX {
        talk.say(&put(client, 1));
        // No more unread replies than the connection holds.
        if client % 500 == 499 || client == SESSIONS_MAX {
            for number in sent..=client {
                talk.expect(&format!(r#"{{"key":"k{}","value":1,"status":"ok"}}"#, number % 500));
            }
            sent = client + 1;
        }
    }
    let expired = talk.ask(&put(0, 2));
    assert_eq!(
        (&expired["error"], &expired["definite"]),
        (&json!("session_expired"), &json!(true)),
        "{expired}"
    );
    assert_eq!(expired["key"], "k0");
    assert!(
        expired["message"].as_str().is_some_and(|message| message.contains("new client name")),
        "{expired}"
    );
    talk.exchange(r#"{"key":"k0"}"#, r#"{"key":"k0","value":1,"status":"ok"}"#);
    talk.exchange(&put(1, 1), r#"{"key":"k1","value":1,"status":"ok"}"#);
}

/// A sequence number too far below the client's highest one is rejected, because the table no
/// longer records whether it was used.
fn a_number_below_the_window_is_refused(runtime: Runtime) {
    let server = Setup::in_memory(runtime).start();
    let mut talk = server.connect();
    let put = |seq: u64| format!(r#"{{"key":"k","value":{seq},"session":{{"client":"c","seq":{seq}}}}}"#);
    let highest = 9_007_199_254_740_992;
    talk.exchange(&put(highest), &format!(r#"{{"key":"k","value":{highest},"status":"ok"}}"#));
    assert_eq!(talk.ask(&put(highest - 1024))["error"], "session_expired");
    assert_eq!(talk.ask(&put(highest - 1023))["status"], "ok");
    assert_eq!(talk.ask(&put(highest + 1))["error"], "bad_request");
}

both_runtimes_and_tls!(
    a_write_that_is_sent_again_gets_its_first_answer,
    a_swap_that_is_sent_again_gets_its_first_answer,
    numbers_may_come_in_any_order,
    a_restarted_server_knows_what_it_did,
    a_forgotten_session_is_refused,
    a_number_below_the_window_is_refused,
);
