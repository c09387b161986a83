//! Revisions, counters, deletes by prefix, transactions and scan options, byte for byte where the
//! contract fixes the bytes.

use coracle_tests::both_runtimes_and_tls;
use coracle_tests::live::{Nodes, Runtime, Setup, Talk};
use serde_json::{Value, json};

fn error(talk: &mut Talk, request: &str, code: &str) -> Value {
    let reply = talk.ask(request);
    let is_it = (&reply["status"], &reply["error"], &reply["definite"]);
    assert_eq!(is_it, (&json!("error"), &json!(code), &json!(true)), "{request}: {reply}");
    reply
}

fn rev(talk: &mut Talk, key: &str) -> u64 {
    let reply =
        talk.ask(&format!(r#"{{"op":"get","key":"{key}","consistency":"linearizable","meta":true}}"#));
    reply["rev"].as_u64().unwrap_or_else(|| panic!("{reply}"))
}

/// A request without the new members is answered as before.
fn revisions_are_stated_only_on_request(runtime: Runtime) {
    let server = Setup::in_memory(runtime).start();
    let mut talk = server.connect();
    talk.exchange(r#"{"key":"k","value":1,"meta":false}"#, r#"{"key":"k","value":1,"status":"ok"}"#);
    talk.exchange(r#"{"op":"get","key":"k"}"#, r#"{"key":"k","value":1,"status":"ok"}"#);
    let first = talk.ask(r#"{"key":"k","meta":true}"#);
    let rev = first["rev"].as_u64().expect("it has a revision");
    assert_eq!(first, json!({"key":"k","value":1,"rev":rev,"created":rev,"status":"ok"}));
    let put = format!(r#"{{"key":"k","value":2,"rev":{},"created":{rev},"status":"ok"}}"#, rev + 1);
    talk.exchange(r#"{"key":"k","value":2,"meta":true}"#, &put);
    talk.exchange(r#"{"op":"get","key":"k","meta":true}"#, &put);
    let page = format!(
        r#"{{"items":[{{"key":"k","value":2,"rev":{},"created":{rev}}}],"more":false,"status":"ok"}}"#,
        rev + 1
    );
    talk.exchange(r#"{"op":"scan","meta":true}"#, &page);
    let mismatch =
        error(&mut talk, r#"{"op":"cas","key":"k","expect":1,"value":3,"meta":true}"#, "cas_mismatch");
    assert_eq!((&mismatch["rev"], &mismatch["created"]), (&json!(rev + 1), &json!(rev)));
    let mismatch = error(&mut talk, r#"{"op":"cas","key":"k","expect":1,"value":3}"#, "cas_mismatch");
    assert!(mismatch.get("rev").is_none());
    let deleted = format!(r#"{{"key":"k","rev":{},"created":{rev},"status":"ok"}}"#, rev + 4);
    talk.exchange(r#"{"op":"delete","key":"k","meta":true}"#, &deleted);
    talk.exchange(r#"{"key":"k","meta":true}"#, r#"{"key":"k","value":null,"status":"error"}"#);
    error(&mut talk, r#"{"op":"get","key":"k","meta":true}"#, "not_found");
}

/// A write by revision takes effect only if no one has changed the key since.
fn conditions_by_revision(runtime: Runtime) {
    let server = Setup::in_memory(runtime).start();
    let mut talk = server.connect();
    let absent = error(&mut talk, r#"{"op":"cas","key":"k","rev":7,"value":1}"#, "cas_mismatch");
    assert_eq!((&absent["actual"], &absent["rev"]), (&Value::Null, &json!(0)));
    talk.exchange(r#"{"op":"cas","key":"k","rev":0,"value":1}"#, r#"{"key":"k","value":1,"status":"ok"}"#);
    let present = error(&mut talk, r#"{"op":"cas","key":"k","rev":0,"value":2}"#, "cas_mismatch");
    let first = rev(&mut talk, "k");
    assert_eq!((&present["actual"], &present["rev"]), (&json!(1), &json!(first)));
    // The value is the same as before, and the revision is not.
    talk.ask(r#"{"key":"k","value":1}"#);
    error(&mut talk, &format!(r#"{{"op":"cas","key":"k","rev":{first},"value":2}}"#), "cas_mismatch");
    error(&mut talk, &format!(r#"{{"op":"delete","key":"k","rev":{first}}}"#), "cas_mismatch");
    let second = rev(&mut talk, "k");
    talk.exchange(&format!(r#"{{"op":"delete","key":"k","rev":{second}}}"#), r#"{"key":"k","status":"ok"}"#);
    error(&mut talk, r#"{"op":"delete","key":"k","rev":0}"#, "not_found");
    for bad in [
        r#"{"op":"cas","key":"k","rev":1,"expect":1,"value":1}"#,
        r#"{"op":"cas","key":"k","value":1}"#,
        r#"{"op":"cas","key":"k","rev":-1,"value":1}"#,
        r#"{"op":"put","key":"k","rev":1,"value":1}"#,
        r#"{"op":"ping","meta":true}"#,
    ] {
        error(&mut talk, bad, "bad_request");
    }
}

fn counters(runtime: Runtime) {
    let server = Setup::in_memory(runtime).start();
    let mut talk = server.connect();
    talk.exchange(r#"{"op":"incr","key":"n"}"#, r#"{"key":"n","value":1,"status":"ok"}"#);
    talk.exchange(r#"{"op":"incr","key":"n","by":-3}"#, r#"{"key":"n","value":-2,"status":"ok"}"#);
    talk.exchange(
        r#"{"op":"incr","key":"n","by":0,"id":7}"#,
        r#"{"key":"n","value":-2,"status":"ok","id":7}"#,
    );
    let once = r#"{"op":"incr","key":"n","by":10,"session":{"client":"c","seq":1}}"#;
    (0..3).for_each(|_| talk.exchange(once, r#"{"key":"n","value":8,"status":"ok"}"#));
    error(&mut talk, r#"{"op":"incr","key":"n","by":9223372036854775807}"#, "out_of_range");
    for bad in [r#""by":1.5"#, r#""by":"1""#, r#""by":9223372036854775808"#] {
        error(&mut talk, &format!(r#"{{"op":"incr","key":"n",{bad}}}"#), "bad_request");
    }
    for value in ["1.0", "\"5\"", "[1]", "1e3"] {
        talk.ask(&format!(r#"{{"key":"v","value":{value}}}"#));
        error(&mut talk, r#"{"op":"incr","key":"v"}"#, "not_a_number");
    }
    talk.ask(r#"{"key":"v","value":18446744073709551617}"#);
    error(&mut talk, r#"{"op":"incr","key":"v","by":-1}"#, "out_of_range");
}

/// A session's number that was used for another kind of request gets no answer that could be taken
/// for an outcome of the new one.
fn a_number_used_for_another_request_is_an_error(runtime: Runtime) {
    let server = Setup::in_memory(runtime).start();
    let mut talk = server.connect();
    let session = r#""session":{"client":"c","seq":1}"#;
    talk.exchange(
        &format!(r#"{{"op":"incr","key":"n",{session}}}"#),
        r#"{"key":"n","value":1,"status":"ok"}"#,
    );
    for other in [
        r#""op":"put","key":"n","value":1"#,
        r#""op":"delete","key":"n""#,
        r#""op":"txn","then":[{"op":"get","key":"n"}]"#,
        r#""op":"delete_prefix","prefix":"n""#,
    ] {
        error(&mut talk, &format!("{{{other},{session}}}"), "bad_request");
    }
    talk.exchange(r#"{"op":"incr","key":"n","by":0}"#, r#"{"key":"n","value":1,"status":"ok"}"#);
    let txn = r#""op":"txn","then":[{"op":"get","key":"n"}],"session":{"client":"c","seq":2}"#;
    assert_eq!(talk.ask(&format!("{{{txn}}}"))["replies"][0]["value"], 1);
    let longer = txn.replace("}],", "},{\"op\":\"delete\",\"key\":\"n\"}],");
    error(&mut talk, &format!("{{{longer}}}"), "bad_request");
}

fn deletes_by_prefix(runtime: Runtime) {
    let server = Setup::in_memory(runtime).start();
    let mut talk = server.connect();
    for key in ["a", "a/1", "a/2", "a/3", "b"] {
        talk.ask(&format!(r#"{{"key":"{key}","value":1}}"#));
    }
    let deleted = |keys, more| format!(r#"{{"deleted":{keys},"more":{more},"status":"ok"}}"#);
    talk.exchange(r#"{"op":"delete_prefix","prefix":"a/","limit":2}"#, &deleted(2, true));
    talk.exchange(r#"{"op":"delete_prefix","prefix":"a/"}"#, &deleted(1, false));
    talk.exchange(r#"{"op":"delete_prefix","prefix":"a/"}"#, &deleted(0, false));
    talk.exchange(r#"{"op":"scan","count":true}"#, r#"{"count":2,"status":"ok"}"#);
    for bad in [r#""limit":0,"prefix":"a""#, r#""limit":1001,"prefix":"a""#, r#""limit":1"#] {
        error(&mut talk, &format!(r#"{{"op":"delete_prefix",{bad}}}"#), "bad_request");
    }
}

/// A page ends where `end`, `limit` or the keys end, in both directions.
fn scan_options(runtime: Runtime) {
    let server = Setup::in_memory(runtime).start();
    let mut talk = server.connect();
    for key in ["a", "b", "c", "d"] {
        talk.ask(&format!(r#"{{"key":"{key}","value":1}}"#));
    }
    let mut keys = |options: &str| {
        let reply =
            talk.ask(&format!(r#"{{"op":"scan","consistency":"linearizable","keys_only":true{options}}}"#));
        let keys = reply["items"].as_array().expect("items").iter();
        let keys: String = keys.map(|item| item["key"].as_str().expect("a key")).collect();
        (keys, reply["more"].as_bool().expect("more"))
    };
    assert_eq!(keys(""), ("abcd".to_owned(), false));
    assert_eq!(keys(r#","end":"c""#), ("ab".to_owned(), false));
    assert_eq!(keys(r#","reverse":true,"limit":3"#), ("dcb".to_owned(), true));
    assert_eq!(keys(r#","reverse":true,"after":"b""#), ("a".to_owned(), false));
    assert_eq!(keys(r#","reverse":true,"end":"c","limit":1"#), ("b".to_owned(), true));
    assert_eq!(keys(r#","after":"c","end":"b""#), (String::new(), false));
    let count = r#"{"op":"scan","count":true,"after":"a","limit":1}"#;
    talk.exchange(count, r#"{"count":3,"status":"ok"}"#);
}

/// All or nothing, with the replies that the operations would have alone.
fn transactions(runtime: Runtime) {
    let server = Setup::in_memory(runtime).start();
    let mut talk = server.connect();
    talk.ask(r#"{"key":"a","value":"x"}"#);
    let rev = rev(&mut talk, "a");
    let done = talk.ask(&format!(
        r#"{{"op":"txn","if":[{{"key":"a","rev":{rev}}},{{"key":"b","absent":true}},{{"key":"a","value":"x"}}],"then":[{{"op":"get","key":"a"}},{{"op":"put","key":"a","value":[1, 2]}},{{"op":"incr","key":"n","by":3}},{{"op":"delete","key":"b"}},{{"op":"get","key":"a"}}],"id":1}}"#
    ));
    let missing =
        json!({"key":"b","status":"error","error":"not_found","message":"no such key","definite":true});
    let replies = json!([
        {"key":"a","value":"x","status":"ok"},
        {"key":"a","value":[1, 2],"status":"ok"},
        {"key":"n","value":3,"status":"ok"},
        missing,
        {"key":"a","value":[1, 2],"status":"ok"}
    ]);
    assert_eq!(done, json!({"succeeded":true,"replies":replies,"rev":rev + 1,"status":"ok","id":1}));
    let otherwise =
        talk.ask(r#"{"op":"txn","if":[{"key":"a","absent":true}],"then":[{"op":"delete","key":"a"}]}"#);
    assert_eq!(otherwise, json!({"succeeded":false,"replies":[],"rev":rev + 2,"status":"ok"}));
    let failing = r#"{"op":"txn","then":[{"op":"put","key":"n","value":0},{"op":"incr","key":"a","by":1}]}"#;
    error(&mut talk, failing, "not_a_number");
    assert_eq!(talk.ask(r#"{"op":"get","key":"n","consistency":"linearizable"}"#)["value"], 3);
    let gets = |count: usize| vec![r#"{"op":"get","key":"a"}"#; count].join(",");
    error(&mut talk, &format!(r#"{{"op":"txn","then":[{}]}}"#, gets(129)), "bad_request");
    error(
        &mut talk,
        &format!(r#"{{"op":"txn","then":[{}],"else":[{}]}}"#, gets(100), gets(29)),
        "bad_request",
    );
    assert_eq!(talk.ask(&format!(r#"{{"op":"txn","then":[{}]}}"#, gets(128)))["succeeded"], true);
    let value = "v".repeat(300_000);
    let put = |key: &str| format!(r#"{{"op":"put","key":"{key}","value":"{value}"}}"#);
    error(&mut talk, &format!(r#"{{"op":"txn","then":[{},{}]}}"#, put("p"), put("q")), "too_large");
    talk.ask(&format!(r#"{{"key":"a","value":"{value}"}}"#));
    error(&mut talk, &format!(r#"{{"op":"txn","then":[{}]}}"#, gets(4)), "too_large");
    for bad in [
        r#"{"op":"txn","then":{}}"#,
        r#"{"op":"txn","then":[{"op":"scan","key":"a"}]}"#,
        r#"{"op":"txn","key":"a"}"#,
    ] {
        error(&mut talk, bad, "bad_request");
    }
}

/// In a cluster of processes every node answers alike, whether it leads or not.
fn every_process_answers_alike(runtime: Runtime) {
    let nodes = Nodes::start(&[runtime; 3]);
    for (count, id) in nodes.running().into_iter().enumerate() {
        let mut talk = nodes.connect(id);
        let n = count + 1;
        talk.exchange(r#"{"op":"incr","key":"n"}"#, &format!(r#"{{"key":"n","value":{n},"status":"ok"}}"#));
        let put = talk.ask(&format!(r#"{{"op":"put","key":"k{id}","value":1,"meta":true}}"#));
        assert_eq!(put["rev"], put["created"], "{put}");
        let read = format!(r#"{{"op":"get","key":"k{id}","meta":true}}"#);
        assert_eq!(talk.ask(&read), put);
        let swap = format!(r#"{{"op":"cas","key":"k{id}","rev":{},"value":2,"meta":true}}"#, put["rev"]);
        let swapped = talk.ask(&swap);
        assert_eq!((&swapped["status"], &swapped["created"]), (&json!("ok"), &put["rev"]), "{swapped}");
        let txn = format!(
            r#"{{"op":"txn","if":[{{"key":"k{id}","rev":{}}}],"then":[{{"op":"delete","key":"k{id}"}}]}}"#,
            swapped["rev"]
        );
        assert_eq!(talk.ask(&txn)["succeeded"], true);
        let scan = r#"{"op":"scan","consistency":"linearizable","keys_only":true,"reverse":true}"#;
        talk.exchange(scan, r#"{"items":[{"key":"n"}],"more":false,"status":"ok"}"#);
        talk.exchange(r#"{"op":"scan","count":true}"#, r#"{"count":1,"status":"ok"}"#);
    }
}

/// Revisions survive a snapshot, a restart, and a backup that becomes another cluster.
fn revisions_survive_a_restart(runtime: Runtime) {
    let folder = tempfile::tempdir().expect("there is room for a folder");
    let start = || Setup::in_folder(runtime, folder.path()).with("--snapshot-entries 20").start();
    let server = start();
    let mut talk = server.connect();
    let put = talk.ask(r#"{"key":"k","value":1,"meta":true}"#);
    for number in 0..60 {
        talk.ask(&format!(r#"{{"key":"other","value":{number}}}"#));
    }
    let other = rev(&mut talk, "other");
    let _ = server.settle();
    server.stop();
    let server = start();
    let mut talk = server.connect();
    let read =
        |key: &str| format!(r#"{{"op":"get","key":"{key}","consistency":"linearizable","meta":true}}"#);
    assert_eq!(talk.ask(&read("k")), put);
    assert_eq!(rev(&mut talk, "other"), other);
    let next = talk.ask(r#"{"key":"k","value":2,"meta":true}"#);
    assert!(next["rev"].as_u64() > Some(other) && next["created"] == put["rev"], "{next}");
}

both_runtimes_and_tls! {
    revisions_are_stated_only_on_request,
    conditions_by_revision,
    counters,
    a_number_used_for_another_request_is_an_error,
    deletes_by_prefix,
    scan_options,
    transactions,
    every_process_answers_alike,
    revisions_survive_a_restart,
}
