//! Expiry: `ttl_ms`, `touch` and `persist`, byte for byte where the contract fixes the bytes.

use std::time::{Duration, Instant};

use coracle_tests::both_runtimes_and_tls;
use coracle_tests::live::{Nodes, Runtime, Setup, Talk};
use serde_json::{Value, json};

fn error(talk: &mut Talk, request: &str, code: &str) {
    let reply = talk.ask(request);
    let is_it = (&reply["status"], &reply["error"], &reply["definite"]);
    assert_eq!(is_it, (&json!("error"), &json!(code), &json!(true)), "{request}: {reply}");
}

fn read(talk: &mut Talk, key: &str) -> Value {
    talk.ask(&format!(r#"{{"op":"get","key":"{key}","consistency":"linearizable","meta":true}}"#))
}

/// Waits until a key is gone, and checks that it has lived `ms` milliseconds since `since`, when it
/// was acknowledged or earlier.
fn expires(talk: &mut Talk, key: &str, since: Instant, ms: u64) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while read(talk, key)["status"] == "ok" {
        assert!(Instant::now() < deadline, "{key} has not expired");
        std::thread::sleep(Duration::from_millis(5));
    }
    let lived = since.elapsed();
    assert!(lived >= Duration::from_millis(ms), "{key} has lived {lived:?}");
}

fn a_key_lives_its_time(runtime: Runtime) {
    let server = Setup::in_memory(runtime).start();
    let mut talk = server.connect();
    talk.exchange(r#"{"key":"k","value":1,"ttl_ms":400}"#, r#"{"key":"k","value":1,"status":"ok"}"#);
    let since = Instant::now();
    let found = read(&mut talk, "k");
    assert!((1..=400).contains(&found["ttl_ms"].as_u64().expect("it expires")), "{found}");
    expires(&mut talk, "k", since, 400);
    // A swap, an increment and a transaction.
    let swap = r#"{"op":"cas","key":"k","expect":null,"value":7,"ttl_ms":300}"#;
    talk.exchange(swap, r#"{"key":"k","value":7,"status":"ok"}"#);
    let since = Instant::now();
    talk.exchange(r#"{"op":"incr","key":"k"}"#, r#"{"key":"k","value":8,"status":"ok"}"#);
    expires(&mut talk, "k", since, 300);
    let rev = talk.ask(r#"{"op":"put","key":"k","value":1,"meta":true}"#)["rev"].clone();
    let swap = format!(r#"{{"op":"cas","key":"k","rev":{rev},"value":2,"ttl_ms":200}}"#);
    talk.exchange(&swap, r#"{"key":"k","value":2,"status":"ok"}"#);
    expires(&mut talk, "k", Instant::now(), 200);
    talk.ask(r#"{"op":"txn","then":[{"op":"put","key":"k","value":1,"ttl_ms":200}]}"#);
    expires(&mut talk, "k", Instant::now(), 200);
}

fn a_life_is_set_again_and_taken_away(runtime: Runtime) {
    let server = Setup::in_memory(runtime).start();
    let mut talk = server.connect();
    let put = talk.ask(r#"{"key":"k","value":1,"ttl_ms":600000,"meta":true}"#);
    assert_eq!(put["ttl_ms"], 600_000);
    talk.exchange(r#"{"op":"touch","key":"k","ttl_ms":300}"#, r#"{"key":"k","status":"ok"}"#);
    expires(&mut talk, "k", Instant::now(), 300);
    for request in [r#"{"op":"touch","key":"k","ttl_ms":300}"#, r#"{"op":"persist","key":"k"}"#] {
        error(&mut talk, request, "not_found");
    }
    let put = talk.ask(r#"{"key":"k","value":1,"ttl_ms":300,"meta":true}"#);
    let rev = &put["rev"];
    let persisted = format!(r#"{{"key":"k","rev":{rev},"created":{rev},"status":"ok"}}"#);
    talk.exchange(r#"{"op":"persist","key":"k","meta":true}"#, &persisted);
    talk.exchange(r#"{"op":"persist","key":"k"}"#, r#"{"key":"k","status":"ok"}"#);
    // A put without a time to live takes it away.
    talk.ask(r#"{"key":"other","value":1,"ttl_ms":300}"#);
    talk.ask(r#"{"key":"other","value":2}"#);
    talk.ask(r#"{"key":"last","value":1,"ttl_ms":600}"#);
    expires(&mut talk, "last", Instant::now(), 600);
    let kept = format!(r#"{{"key":"k","value":1,"rev":{rev},"created":{rev},"status":"ok"}}"#);
    talk.exchange(r#"{"op":"get","key":"k","consistency":"linearizable","meta":true}"#, &kept);
    assert_eq!(
        (read(&mut talk, "other")["value"].clone(), read(&mut talk, "other").get("ttl_ms")),
        (json!(2), None)
    );
    let touched = talk.ask(r#"{"op":"touch","key":"k","ttl_ms":900000,"meta":true}"#);
    assert_eq!((&touched["rev"], &touched["ttl_ms"]), (rev, &json!(900_000)), "its revision stays");
    let page = talk.ask(r#"{"op":"scan","prefix":"k","meta":true,"consistency":"linearizable"}"#);
    assert!(page["items"][0]["ttl_ms"].as_u64() > Some(800_000), "{page}");
}

fn a_time_to_live_has_limits(runtime: Runtime) {
    let server = Setup::in_memory(runtime).start();
    let mut talk = server.connect();
    for members in [
        r#""op":"put","key":"k","value":1,"ttl_ms":0"#,
        r#""op":"put","key":"k","value":1,"ttl_ms":315360000001"#,
        r#""op":"put","key":"k","value":1,"ttl_ms":-1"#,
        r#""op":"put","key":"k","value":1,"ttl_ms":1.5"#,
        r#""op":"put","key":"k","value":1,"ttl_ms":"1s""#,
        r#""op":"touch","key":"k""#,
        r#""op":"persist","key":"k","ttl_ms":1"#,
        r#""op":"incr","key":"k","ttl_ms":1"#,
        r#""op":"get","key":"k","ttl_ms":1"#,
        r#""op":"txn","then":[{"op":"delete","key":"k","ttl_ms":1}]"#,
        r#""op":"txn","then":[{"op":"put","key":"k","value":1,"ttl_ms":0}]"#,
    ] {
        error(&mut talk, &format!("{{{members}}}"), "bad_request");
    }
    let longest = r#"{"key":"k","value":1,"ttl_ms":315360000000}"#;
    talk.exchange(longest, r#"{"key":"k","value":1,"status":"ok"}"#);
}

/// A retry in a session does not begin the life again.
fn a_retry_does_not_prolong_a_life(runtime: Runtime) {
    let server = Setup::in_memory(runtime).start();
    let mut talk = server.connect();
    let put = r#"{"key":"k","value":1,"ttl_ms":500,"session":{"client":"c","seq":1}}"#;
    let done = r#"{"key":"k","value":1,"status":"ok"}"#;
    talk.exchange(put, done);
    let since = Instant::now();
    expires(&mut talk, "k", since, 500);
    talk.exchange(put, done);
    assert_eq!(read(&mut talk, "k")["error"], "not_found");
}

/// Keys and their lives survive a snapshot and a restart: none goes early.
fn a_restart_keeps_lives(runtime: Runtime) {
    let folder = tempfile::tempdir().expect("there is room for a folder");
    let start = || Setup::in_folder(runtime, folder.path()).with("--snapshot-entries 20").start();
    let server = start();
    let mut talk = server.connect();
    talk.ask(r#"{"key":"short","value":1,"ttl_ms":1500}"#);
    let since = Instant::now();
    talk.ask(r#"{"key":"long","value":1,"ttl_ms":600000}"#);
    for number in 0..60 {
        talk.ask(&format!(r#"{{"key":"other","value":{number}}}"#));
    }
    let _ = server.settle();
    drop(server.kill());
    let server = start();
    let mut talk = server.connect();
    expires(&mut talk, "short", since, 1500);
    let long = read(&mut talk, "long");
    assert!((1..=600_000).contains(&long["ttl_ms"].as_u64().expect("it expires")), "{long}");
    assert!(read(&mut talk, "other").get("ttl_ms").is_none());
}

/// Any node takes these requests, and a key outlives the leader that has stored it.
fn a_change_of_leader_keeps_lives(runtime: Runtime) {
    let mut nodes = Nodes::start(&[runtime; 3]);
    let leader = nodes.leader();
    let ids = nodes.running();
    let mut talk = nodes.connect(ids[0]);
    talk.ask(r#"{"key":"k","value":1,"ttl_ms":2000}"#);
    let since = Instant::now();
    talk.exchange(r#"{"op":"touch","key":"k","ttl_ms":2500}"#, r#"{"key":"k","status":"ok"}"#);
    drop(nodes.kill(leader));
    let mut talk = nodes.connect(nodes.running()[0]);
    let deadline = Instant::now() + Duration::from_secs(60);
    while read(&mut talk, "k")["error"] == "no_leader" {
        assert!(Instant::now() < deadline, "nobody leads");
    }
    expires(&mut talk, "k", since, 2500);
}

both_runtimes_and_tls! {
    a_key_lives_its_time,
    a_life_is_set_again_and_taken_away,
    a_time_to_live_has_limits,
    a_retry_does_not_prolong_a_life,
    a_restart_keeps_lives,
    a_change_of_leader_keeps_lives,
}
