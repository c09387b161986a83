//! Extended requests: every `op`, its successful reply, and its specific errors.

use coracle_tests::both_runtimes_and_tls;
use coracle_tests::live::{Runtime, Setup, Talk};
use serde_json::{Value, json};

/// An extended put or get has the reply of a plain one, except that a missing key gives an error
/// code.
fn put_get_and_delete(runtime: Runtime) {
    let server = Setup::in_memory(runtime).start();
    let mut talk = server.connect();
    let stored = r#"{"key":"k","value":[1],"status":"ok"}"#;
    talk.exchange(r#"{"op":"put","key":"k","value":[1]}"#, stored);
    talk.exchange(r#"{"op":"get","key":"k"}"#, stored);
    talk.exchange(r#"{"op":"get","key":"k","consistency":"eventual"}"#, stored);
    talk.exchange(r#"{"op":"delete","key":"k"}"#, r#"{"key":"k","status":"ok"}"#);
    for missing in [r#"{"op":"delete","key":"k"}"#, r#"{"op":"get","key":"k"}"#] {
        let reply = talk.ask(missing);
        assert_eq!((&reply["status"], &reply["error"]), (&json!("error"), &json!("not_found")), "{reply}");
        assert_eq!((&reply["key"], &reply["definite"]), (&json!("k"), &json!(true)), "{reply}");
        assert!(reply["message"].is_string(), "{reply}");
    }
    talk.exchange(r#"{"key":"k"}"#, r#"{"key":"k","value":null,"status":"error"}"#);
}

/// A compare-and-swap takes effect only if the key has the expected value, so a lock built on it
/// has one holder.
fn a_swap_happens_only_when_the_expected_value_is_there(runtime: Runtime) {
    let server = Setup::in_memory(runtime).start();
    let mut talk = server.connect();
    let mismatch = |reply: &Value, actual: &Value| {
        assert_eq!((&reply["status"], &reply["error"]), (&json!("error"), &json!("cas_mismatch")), "{reply}");
        assert_eq!((&reply["key"], &reply["definite"]), (&json!("lock"), &json!(true)), "{reply}");
        assert_eq!(reply.get("actual"), Some(actual), "{reply}");
    };
    mismatch(&talk.ask(r#"{"op":"cas","key":"lock","expect":"alice","value":"bob"}"#), &Value::Null);
    let taken = r#"{"key":"lock","value":"alice","status":"ok"}"#;
    talk.exchange(r#"{"op":"cas","key":"lock","expect":null,"value":"alice"}"#, taken);
    mismatch(&talk.ask(r#"{"op":"cas","key":"lock","expect":null,"value":"bob"}"#), &json!("alice"));
    mismatch(&talk.ask(r#"{"op":"cas","key":"lock","expect":"carol","value":"bob"}"#), &json!("alice"));
    talk.exchange(r#"{"key":"lock"}"#, taken);
    let handed_over = r#"{"key":"lock","value":{"b":2},"status":"ok"}"#;
    talk.exchange(r#"{"op":"cas","key":"lock","expect":"alice","value":{"b":2}}"#, handed_over);
    talk.exchange(r#"{"op":"cas","key":"lock","expect":{"b" : 2},"value":{"b":2}}"#, handed_over);
}

/// Clients that increment a counter concurrently by compare-and-swap count every increment exactly
/// once.
fn concurrent_swaps_lose_no_increment(runtime: Runtime) {
    const CLIENTS: u64 = 4;
    const INCREMENTS: u64 = 25;
    let server = Setup::in_memory(runtime).start();
    server.connect().exchange(r#"{"key":"n","value":0}"#, r#"{"key":"n","value":0,"status":"ok"}"#);
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                let mut talk = server.connect();
                let (mut known, mut done) = (0, 0);
                while done < INCREMENTS {
                    let next = known + 1;
                    let reply =
                        talk.ask(&format!(r#"{{"op":"cas","key":"n","expect":{known},"value":{next}}}"#));
                    let is_done = reply["status"] == "ok";
                    done += u64::from(is_done);
                    known = if is_done { next } else { reply["actual"].as_u64().expect("a number is there") };
                }
            });
        }
    });
    let total = CLIENTS * INCREMENTS;
    let last = format!(r#"{{"op":"cas","key":"n","expect":{total},"value":"end"}}"#);
    server.connect().exchange(&last, r#"{"key":"n","value":"end","status":"ok"}"#);
}

fn keys_of(page: &Value) -> Vec<&str> {
    let items = page["items"].as_array().expect("a page has items");
    items.iter().map(|item| item["key"].as_str().expect("an item has a key")).collect()
}

/// Scans page through a prefix: they return every key once, in byte order, and report the last
/// page.
fn a_scan_pages_in_the_order_of_bytes(runtime: Runtime) {
    let server = Setup::in_memory(runtime).start();
    let mut talk = server.connect();
    talk.exchange(r#"{"op":"scan"}"#, r#"{"items":[],"more":false,"status":"ok"}"#);
    // In byte order "B" < "a" < "a!" < "aa" < "b" < "ä" < "😀", unlike the order of a dictionary or
    // of UTF-16.
    for key in ["b", "ä", "aa", "a", "B", "😀", "a!", "\u{ffee}"] {
        assert_eq!(talk.ask(&json!({ "key": key, "value": key.len() }).to_string())["status"], "ok");
    }
    let all = talk.ask(r#"{"op":"scan"}"#);
    assert_eq!(keys_of(&all), ["B", "a", "a!", "aa", "b", "ä", "\u{ffee}", "😀"]);
    assert_eq!((&all["more"], &all["items"][2]["value"]), (&json!(false), &json!(2)));
    talk.exchange(
        r#"{"op":"scan","prefix":"a","limit":2}"#,
        r#"{"items":[{"key":"a","value":1},{"key":"a!","value":2}],"more":true,"status":"ok"}"#,
    );
    talk.exchange(
        r#"{"op":"scan","prefix":"a","limit":2,"after":"a!"}"#,
        r#"{"items":[{"key":"aa","value":2}],"more":false,"status":"ok"}"#,
    );
    let exact = talk.ask(r#"{"op":"scan","prefix":"a","limit":3}"#);
    assert_eq!((keys_of(&exact).len(), &exact["more"]), (3, &json!(false)));
    assert_eq!(keys_of(&talk.ask(r#"{"op":"scan","after":"aab"}"#)), ["b", "ä", "\u{ffee}", "😀"]);
    assert_eq!(keys_of(&talk.ask(r#"{"op":"scan","prefix":"a","after":"b"}"#)), Vec::<&str>::new());
    assert_eq!(keys_of(&talk.ask(r#"{"op":"scan","prefix":"b","after":"a"}"#)), ["b"]);
    assert_eq!(keys_of(&talk.ask(r#"{"op":"scan","prefix":"zz"}"#)), Vec::<&str>::new());
}

/// A scan without a limit, or of large values, returns a page of limited size and reports that more
/// items follow.
fn a_scan_is_bounded_and_goes_on(runtime: Runtime) {
    let server = Setup::in_memory(runtime).start();
    let mut talk = server.connect();
    let value = "v".repeat(300 << 10);
    for number in 0..6 {
        assert_eq!(talk.ask(&format!(r#"{{"key":"big-{number}","value":"{value}"}}"#))["status"], "ok");
    }
    let mut found = Vec::new();
    let mut more = true;
    while more {
        let after = found.last().map_or_else(String::new, |key| format!(r#","after":"{key}""#));
        talk.say(&format!(r#"{{"op":"scan","prefix":"big-"{after}}}"#));
        let line = talk.hear();
        assert!(line.len() < 2 << 20, "one page has {} bytes", line.len());
        let page: Value = serde_json::from_str(&line).expect("a page is JSON");
        found.extend(keys_of(&page).into_iter().map(str::to_owned));
        more = page["more"] == true;
        assert!(!more || !keys_of(&page).is_empty(), "an empty page leads nowhere");
    }
    assert_eq!(found, (0..6).map(|number| format!("big-{number}")).collect::<Vec<_>>());
}

/// `status` reports every node, and one leader that all nodes agree on.
fn a_status_tells_how_every_node_is_doing(runtime: Runtime) {
    let server = Setup::in_memory(runtime).with("--nodes 3").start();
    let mut talk = server.connect();
    assert_eq!(talk.ask(r#"{"key":"a","value":1}"#)["status"], "ok");
    let last = server.settle();
    let status = talk.ask(r#"{"op":"status"}"#);
    let nodes = status["nodes"].as_array().expect("a status has nodes");
    assert_eq!((nodes.len(), &status["status"]), (3, &json!("ok")));
    let leader = &nodes[0]["leader"];
    for (id, node) in nodes.iter().enumerate() {
        let role = if *leader == id { "leader" } else { "follower" };
        assert_eq!(
            (&node["id"], &node["role"], &node["leader"]),
            (&json!(id), &json!(role), leader),
            "{status}"
        );
        assert!(node["term"].as_u64() >= Some(1), "{status}");
        assert_eq!(node["term"], nodes[0]["term"], "{status}");
        for field in ["commit_index", "last_applied", "last_log_index"] {
            assert_eq!(node[field], last, "{field} in {status}");
        }
        assert_eq!(node["address"], server.address().to_string(), "{status}");
    }
}

/// The `id` of a request comes back unchanged in its reply, on success and on error.
fn an_id_comes_back_with_every_reply(runtime: Runtime) {
    let server = Setup::in_memory(runtime).start();
    let mut talk = server.connect();
    talk.exchange(r#"{"op":"ping"}"#, r#"{"status":"ok"}"#);
    talk.exchange(r#"{"op":"ping","id":7}"#, r#"{"status":"ok","id":7}"#);
    talk.exchange(r#"{"key":"a","value":1,"id":"x"}"#, r#"{"key":"a","value":1,"status":"ok","id":"x"}"#);
    talk.exchange(r#"{"id":[],"key":"a"}"#, r#"{"key":"a","value":1,"status":"ok","id":[]}"#);
    let huge = "123456789012345678901234567890";
    talk.exchange(
        &format!(r#"{{"key":"no","id":{huge}}}"#),
        &format!(r#"{{"key":"no","value":null,"status":"error","id":{huge}}}"#),
    );
    let echoes = |talk: &mut Talk, line: &str, id: Value| {
        let reply = talk.ask(line);
        assert_eq!(reply.get("id"), Some(&id), "{line} gave {reply}");
    };
    for line in [
        r#"{"op":"get","key":"no","id":{"n":1}}"#,
        r#"{"op":"delete","key":"no","id":{"n":1}}"#,
        r#"{"op":"cas","key":"a","expect":9,"value":1,"id":{"n":1}}"#,
        r#"{"op":"scan","id":{"n":1}}"#,
        r#"{"op":"status","id":{"n":1}}"#,
        r#"{"op":"fly","id":{"n":1}}"#,
        r#"{"key":"a","value":null,"id":{"n":1}}"#,
        r#"{"key":5,"id":{"n":1}}"#,
    ] {
        echoes(&mut talk, line, json!({ "n": 1 }));
    }
    echoes(&mut talk, r#"{"op":"ping","id":null}"#, Value::Null);
    echoes(&mut talk, r#"{"op":"ping","id":false}"#, json!(false));
}

both_runtimes_and_tls!(
    put_get_and_delete,
    a_swap_happens_only_when_the_expected_value_is_there,
    concurrent_swaps_lose_no_increment,
    a_scan_pages_in_the_order_of_bytes,
    a_scan_is_bounded_and_goes_on,
    an_id_comes_back_with_every_reply;
    only plain: a_status_tells_how_every_node_is_doing,
);
