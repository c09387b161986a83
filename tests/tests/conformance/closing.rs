//! Closing of client connections by the server: idle timeout, connection limit, and orderly
//! shutdown.

use std::thread;

use coracle_tests::both_runtimes_and_tls;
use coracle_tests::live::{LogFile, Runtime, Setup, Talk, signal, until};
use serde_json::{Value, json};

const CLOSE_REPLY: &str = r#"{"close":"ok"}"#;
const PONG: &str = r#"{"status":"ok"}"#;
/// No node ever campaigns with this election timeout, so a write waits until its request timeout.
const NO_LEADER_EVER: &str = "--election-timeout 10h..20h";

/// An idle client gets a closing line and is disconnected. With an idle timeout of 0 it stays
/// connected.
fn silence_ends_a_connection_unless_it_may_last(runtime: Runtime) {
    let impatient = Setup::in_memory(runtime).with("--idle-timeout 300ms").start();
    let patient = Setup::in_memory(runtime).with("--idle-timeout 0").start();
    let mut stays = patient.connect();
    stays.exchange(r#"{"op":"ping"}"#, PONG);
    let (mut silent, mut once) = (impatient.connect(), impatient.connect());
    once.exchange(r#"{"op":"ping"}"#, PONG);
    for talk in [&mut silent, &mut once] {
        talk.expect(CLOSE_REPLY);
        talk.expect_end();
    }
    stays.exchange(r#"{"op":"ping"}"#, PONG);
    impatient.connect().exchange(r#"{"op":"ping"}"#, PONG);
}

/// A client that waits for a reply does not count as idle: it gets the reply first, however long
/// that takes.
fn a_client_that_is_owed_a_reply_is_not_silent(runtime: Runtime) {
    let times = format!("{NO_LEADER_EVER} --idle-timeout 200ms --request-timeout 1s");
    let server = Setup::in_memory(runtime).with(&times).start();
    let mut talk = server.connect();
    let reply = talk.ask(r#"{"key":"a","value":1}"#);
    assert_eq!((&reply["error"], &reply["definite"]), (&json!("no_leader"), &json!(true)), "{reply}");
    talk.expect(CLOSE_REPLY);
    talk.expect_end();
}

/// A client above the connection limit gets a `busy` error and is disconnected, connected clients
/// are not affected, and a freed slot can be used again.
fn a_full_house_turns_away_until_somebody_leaves(runtime: Runtime) {
    let server = Setup::in_memory(runtime).with("--max-connections 2").start();
    let (mut first, mut second) = (server.connect(), server.connect());
    first.exchange(r#"{"op":"ping"}"#, PONG);
    second.exchange(r#"{"op":"ping"}"#, PONG);
    let mut third = server.connect();
    let reply = third.hear_json();
    assert_eq!((&reply["status"], &reply["error"]), (&json!("error"), &json!("busy")), "{reply}");
    assert_eq!(reply["definite"], true, "{reply}");
    third.expect_end();
    first.exchange(r#"{"op":"ping"}"#, PONG);
    second.exchange(r#"{"op":"ping"}"#, PONG);
    drop(first);
    until("the place of the one who left is free", || {
        let mut next = server.connect();
        next.try_send(b"{\"op\":\"ping\"}\n").is_ok() && next.try_hear().is_ok_and(|line| line == PONG)
    });
    second.exchange(r#"{"op":"ping"}"#, PONG);
}

/// A client above the connection limit that sends before it reads still gets the `busy` error: its
/// request must not cost it the reason.
fn a_client_that_is_turned_away_while_it_sends_learns_why(runtime: Runtime) {
    let server = Setup::in_memory(runtime).with("--max-connections 1").start();
    let mut inside = server.connect();
    inside.exchange(r#"{"op":"ping"}"#, PONG);
    for _ in 0..50 {
        let mut outside = server.connect();
        let _ = outside.try_send(b"{\"op\":\"ping\"}\n");
        assert_eq!(outside.hear_json()["error"], "busy");
        outside.expect_end();
    }
}

/// Requests that wait for a leader when the server stops are rejected with a definite error, so
/// that the client knows that they had no effect.
fn a_stop_refuses_what_waits(runtime: Runtime) {
    let server = Setup::in_memory(runtime).with(&format!("{NO_LEADER_EVER} --request-timeout 10h")).start();
    let mut talk = server.connect();
    talk.send(
        "{\"op\":\"ping\"}\n{\"key\":\"a\",\"value\":1,\"id\":1}\n{\"key\":\"b\",\"value\":1,\"id\":2}\n",
    );
    talk.expect(PONG);
    signal(server.pid(), "TERM");
    for id in 1..=2 {
        let reply = talk.hear_json();
        assert_eq!((&reply["error"], &reply["id"]), (&json!("shutting_down"), &json!(id)), "{reply}");
        assert_eq!(reply["definite"], true, "{reply}");
    }
    talk.expect_end();
    assert_eq!(server.wait().code, Some(0));
}

/// Sends puts in windows of 16 until the connection ends. Returns the last acknowledged value.
fn put_until_the_end(talk: &mut Talk, key: usize) -> u64 {
    let (mut sent, mut acknowledged) = (0, 0);
    loop {
        let lines: String =
            (1..=16).map(|n| format!("{{\"key\":\"k{key}\",\"value\":{}}}\n", sent + n)).collect();
        sent += 16;
        if talk.try_send(lines.as_bytes()).is_err() {
            return acknowledged;
        }
        for _ in 0..16 {
            let Ok(line) = talk.try_hear() else { return acknowledged };
            let reply: Value = serde_json::from_str(&line).expect("replies are JSON");
            if reply["status"] == "ok" {
                assert_eq!(reply["value"], acknowledged + 1, "a reply came out of order, or after a refusal");
                acknowledged += 1;
            } else {
                assert_eq!(
                    (&reply["error"], &reply["definite"]),
                    (&json!("shutting_down"), &json!(true)),
                    "{reply}"
                );
            }
        }
    }
}

/// A shutdown under load acknowledges or rejects each request, closes every connection, and leaves
/// intact files in which a majority holds every acknowledged write.
fn a_stop_under_load_keeps_its_word(runtime: Runtime) {
    let folder = tempfile::tempdir().expect("there is room for a folder");
    let server = Setup::in_folder(runtime, folder.path()).start();
    let acknowledged: Vec<u64> = thread::scope(|scope| {
        let clients: Vec<_> = (0..4)
            .map(|key| {
                let mut talk = server.connect();
                scope.spawn(move || put_until_the_end(&mut talk, key))
            })
            .collect();
        let mut observer = server.connect();
        until("there is load", || observer.ask(r#"{"key":"k0"}"#)["value"].as_u64() > Some(200));
        signal(server.pid(), "TERM");
        clients.into_iter().map(|client| client.join().expect("a client does not panic")).collect()
    });
    let ended = server.wait();
    assert_eq!((ended.code, ended.stdout.lines().count()), (Some(0), 1), "{}", ended.stderr);
    let logs = LogFile::read_all(folder.path(), 5);
    for (key, acknowledged) in acknowledged.into_iter().enumerate() {
        let holds = |log: &&LogFile| {
            log.entries
                .iter()
                .any(|entry| entry["key"] == format!("k{key}") && entry["value"] == acknowledged)
        };
        let holders = logs.iter().filter(holds).count();
        assert!(holders >= 3, "k{key}={acknowledged} was acknowledged and is in {holders} logs");
    }
}

both_runtimes_and_tls!(
    silence_ends_a_connection_unless_it_may_last,
    a_client_that_is_owed_a_reply_is_not_silent,
    a_full_house_turns_away_until_somebody_leaves,
    a_client_that_is_turned_away_while_it_sends_learns_why,
    a_stop_refuses_what_waits,
    a_stop_under_load_keeps_its_word,
);
