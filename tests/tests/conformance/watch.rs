//! Watches, byte for byte where the contract fixes the bytes.

use std::time::{Duration, Instant};

use coracle_tests::both_runtimes_and_tls;
use coracle_tests::live::{Nodes, Runtime, Setup, Talk};
use serde_json::{Value, json};

/// The longest time without a line of a watch that the contract allows.
const SILENCE_MAX: Duration = Duration::from_secs(5);

/// Begins a watch and returns its number, revision and cluster.
fn watch(talk: &mut Talk, members: &str) -> (u64, u64, String) {
    let reply = talk.ask(&format!(r#"{{"op":"watch",{members}}}"#));
    let number = reply["watch"].as_u64().unwrap_or_else(|| panic!("{reply}"));
    let (rev, cluster) = (reply["rev"].as_u64(), reply["cluster"].as_str());
    let (Some(rev), Some(cluster)) = (rev, cluster) else { panic!("{reply}") };
    assert_eq!(reply, json!({"watch":number,"rev":rev,"cluster":cluster,"status":"ok"}));
    (number, rev, cluster.to_owned())
}

/// Receives the next line that is not progress.
fn event_line(talk: &mut Talk) -> String {
    loop {
        let line = talk.hear();
        let parsed: Value = serde_json::from_str(&line).expect("a line is JSON");
        let members = parsed.as_object().expect("a line is an object").len();
        if members > 2 || parsed.get("rev").is_none() {
            return line;
        }
    }
}

fn event(talk: &mut Talk) -> Value {
    serde_json::from_str(&event_line(talk)).expect("a line is JSON")
}

fn put(talk: &mut Talk, key: &str, value: u64) -> u64 {
    let reply = talk.ask(&format!(r#"{{"key":"{key}","value":{value},"meta":true}}"#));
    reply["rev"].as_u64().unwrap_or_else(|| panic!("{reply}"))
}

fn changes_arrive_as_they_commit(runtime: Runtime) {
    let server = Setup::in_memory(runtime).start();
    let (mut writer, mut watcher) = (server.connect(), server.connect());
    // The node of the watch may lag behind what another connection has seen.
    put(&mut watcher, "k", 1);
    let (number, start, cluster) = watch(&mut watcher, r#""prefix":"""#);
    assert_eq!((number, cluster.len()), (1, 32));
    let rev = put(&mut writer, "k", 2);
    assert!(rev > start);
    let line = format!(r#"{{"watch":1,"rev":{rev},"events":[{{"key":"k","value":2,"rev":{rev}}}]}}"#);
    assert_eq!(event_line(&mut watcher), line);
    writer.ask(r#"{"op":"delete","key":"k"}"#);
    let rev = rev + 1;
    let deleted = r#""key":"k","deleted":true,"because":"delete""#;
    let line = format!(r#"{{"watch":1,"rev":{rev},"events":[{{{deleted},"rev":{rev}}}]}}"#);
    assert_eq!(event_line(&mut watcher), line);
    // Commands without an effect are not reported.
    writer.ask(r#"{"op":"delete","key":"k"}"#);
    writer.ask(r#"{"op":"cas","key":"k","expect":7,"value":8}"#);
    writer.ask(r#"{"op":"incr","key":"n","by":5}"#);
    assert_eq!(event(&mut watcher)["events"][0]["value"], 5);
    writer.exchange(r#"{"op":"ping"}"#, r#"{"status":"ok"}"#);
}

/// Everything that one entry did is one line.
fn the_events_of_an_entry_are_one_line(runtime: Runtime) {
    let server = Setup::in_memory(runtime).start();
    let (mut writer, mut watcher) = (server.connect(), server.connect());
    let (number, ..) = watch(&mut watcher, r#""prefix":"a/""#);
    let txn = writer.ask(
        r#"{"op":"txn","then":[{"op":"put","key":"a/1","value":1},{"op":"put","key":"b","value":1},{"op":"incr","key":"a/2","by":1},{"op":"delete","key":"a/3"}]}"#,
    );
    let rev = txn["rev"].as_u64().expect("it has a revision");
    let events = json!([{"key":"a/1","value":1,"rev":rev},{"key":"a/2","value":1,"rev":rev}]);
    assert_eq!(event(&mut watcher), json!({"watch":number,"rev":rev,"events":events}));
    writer.ask(r#"{"op":"delete_prefix","prefix":"a/"}"#);
    let line = event(&mut watcher);
    let keys: Vec<_> = line["events"].as_array().expect("events").iter().map(|event| &event["key"]).collect();
    assert_eq!(keys, [&json!("a/1"), &json!("a/2")]);
}

fn a_watch_selects_one_key_or_a_prefix(runtime: Runtime) {
    let server = Setup::in_memory(runtime).start();
    let (mut writer, mut watcher) = (server.connect(), server.connect());
    let (of_key, ..) = watch(&mut watcher, r#""key":"ab""#);
    let (of_prefix, ..) = watch(&mut watcher, r#""prefix":"ab/ä""#);
    assert_eq!((of_key, of_prefix), (1, 2));
    for key in ["a", "ab/", "abc", "ab/ö", "ab/ä1"] {
        put(&mut writer, key, 1);
    }
    assert_eq!(event(&mut watcher)["events"][0]["key"], "ab/ä1");
    put(&mut writer, "ab", 1);
    let line = event(&mut watcher);
    assert_eq!((&line["watch"], &line["events"][0]["key"]), (&json!(1), &json!("ab")));
}

/// The content as of one revision, then what follows it, whether the content fits one line or not.
fn initial_content_comes_first(runtime: Runtime) {
    let server = Setup::in_memory(runtime).start();
    let (mut writer, mut watcher) = (server.connect(), server.connect());
    let long = "x".repeat(1000);
    for number in 0..300 {
        writer.say(&format!(r#"{{"key":"k/{number:03}","value":"{long}"}}"#));
    }
    (0..300).for_each(|_| drop(writer.hear()));
    let rev = put(&mut writer, "other", 1);
    let (number, start, _) = watch(&mut watcher, r#""prefix":"k/","initial":true"#);
    assert_eq!(start, rev, "the content is that of the present");
    put(&mut writer, "k/299", 7);
    let (mut keys, mut lines) = (Vec::new(), 0);
    let end = loop {
        let line = event(&mut watcher);
        assert_eq!((&line["watch"], &line["rev"]), (&json!(number), &json!(start)));
        if line.get("current").is_some() {
            break line;
        }
        lines += 1;
        for event in line["events"].as_array().expect("events") {
            assert_eq!(event["value"], json!(long));
            assert!(event["rev"].as_u64() < Some(start));
            keys.push(event["key"].as_str().expect("a key").to_owned());
        }
    };
    assert_eq!(end, json!({"watch":number,"rev":start,"current":true}));
    assert_eq!(keys, (0..300).map(|number| format!("k/{number:03}")).collect::<Vec<_>>());
    assert!(lines > 3, "{lines}");
    let next = event(&mut watcher);
    assert_eq!((&next["rev"], &next["events"][0]["value"]), (&json!(start + 1), &json!(7)));
    let (empty, start, _) = watch(&mut watcher, r#""key":"none","initial":true"#);
    assert_eq!(event(&mut watcher), json!({"watch":empty,"rev":start,"current":true}));
}

fn a_watch_resumes_from_a_revision(runtime: Runtime) {
    let server = Setup::in_memory(runtime).start();
    let mut talk = server.connect();
    let first = put(&mut talk, "k", 1);
    (2..=5).for_each(|value| _ = put(&mut talk, "k", value));
    let (_, rev, _) = watch(&mut talk, &format!(r#""key":"k","from":{}"#, first + 2));
    assert_eq!(rev, first + 1, "what follows it is sent");
    for value in 3..=5 {
        assert_eq!(event(&mut talk)["events"][0]["value"], value);
    }
    // One that begins in the future waits.
    let mut other = server.connect();
    watch(&mut other, &format!(r#""key":"k","from":{}"#, first + 6));
    put(&mut talk, "k", 6);
    put(&mut talk, "k", 7);
    assert_eq!(event(&mut other)["events"][0]["value"], 7);
}

/// After a restart from a snapshot, a node does not know what happened before it.
fn a_history_that_is_gone_is_stated(runtime: Runtime) {
    let folder = tempfile::tempdir().expect("there is room for a folder");
    let setup = Setup::in_folder(runtime, folder.path()).with("--nodes 1");
    let server = setup.start();
    let mut talk = server.connect();
    (0..20).for_each(|value| _ = put(&mut talk, "k", value));
    talk.ask(r#"{"op":"backup"}"#);
    let snapshot = loop {
        let status = talk.ask(r#"{"op":"status"}"#);
        match status["nodes"][0]["snapshot_index"].as_u64() {
            Some(index @ 1..) => break index,
            _ => drop(talk.ask(r#"{"op":"backup"}"#)),
        }
    };
    _ = server.stop();
    let server = setup.start();
    let mut talk = server.connect();
    let reply = talk.ask(r#"{"op":"watch","prefix":"","from":2,"id":7}"#);
    let message = reply["message"].clone();
    let expected = json!({"watch":1,"error":"compacted","oldest":snapshot + 1,"status":"error",
        "message":message,"definite":true,"id":7});
    assert_eq!(reply, expected);
    assert!(reply.to_string().len() < 400);
    watch(&mut talk, &format!(r#""prefix":"","from":{}"#, snapshot + 1));
}

fn a_watch_shows_progress(runtime: Runtime) {
    let server = Setup::in_memory(runtime).start();
    let (mut writer, mut watcher) = (server.connect(), server.connect());
    let (number, start, _) = watch(&mut watcher, r#""key":"quiet""#);
    let rev = put(&mut writer, "loud", 1);
    let mut last = start;
    for _ in 0..2 {
        let since = Instant::now();
        let line = watcher.hear_json();
        assert!(since.elapsed() < SILENCE_MAX);
        let reached = line["rev"].as_u64().expect("a revision");
        assert_eq!(line, json!({"watch":number,"rev":reached}));
        assert!(reached >= last);
        last = reached;
    }
    assert!(last >= rev);
}

fn unwatch_ends_a_watch(runtime: Runtime) {
    let server = Setup::in_memory(runtime).start();
    let mut talk = server.connect();
    let (number, ..) = watch(&mut talk, r#""prefix":"""#);
    // The reply to the write may come before or after the event.
    talk.say(r#"{"key":"k","value":1}"#);
    let lines = [talk.hear(), talk.hear()];
    assert!(lines.iter().any(|line| line == r#"{"key":"k","value":1,"status":"ok"}"#), "{lines:?}");
    assert!(lines.iter().any(|line| line.starts_with(r#"{"watch":1,"rev":"#)), "{lines:?}");
    talk.exchange(
        &format!(r#"{{"op":"unwatch","watch":{number},"id":"u"}}"#),
        r#"{"watch":1,"status":"ok","id":"u"}"#,
    );
    for value in 2..50 {
        talk.exchange(
            &format!(r#"{{"key":"k","value":{value}}}"#),
            &format!(r#"{{"key":"k","value":{value},"status":"ok"}}"#),
        );
    }
    let reply = talk.ask(&format!(r#"{{"op":"unwatch","watch":{number}}}"#));
    assert_eq!((&reply["error"], &reply["definite"]), (&json!("bad_request"), &json!(true)));
    let (next, ..) = watch(&mut talk, r#""prefix":"""#);
    assert_eq!(next, 2, "numbers are not used again");
}

fn requests_that_make_no_watch(runtime: Runtime) {
    let server = Setup::in_memory(runtime).start();
    let mut talk = server.connect();
    for bad in [
        r#""op":"watch""#,
        r#""op":"watch","key":"k","prefix":"k""#,
        r#""op":"watch","key":"""#,
        r#""op":"watch","prefix":"","initial":true,"from":1"#,
        r#""op":"watch","prefix":"","from":-1"#,
        r#""op":"watch","prefix":"","from":18446744073709551615"#,
        r#""op":"watch","prefix":1"#,
        r#""op":"watch","prefix":"","limit":1"#,
        r#""op":"unwatch""#,
        r#""op":"unwatch","watch":1"#,
        r#""op":"get","key":"k","from":1"#,
    ] {
        let reply = talk.ask(&format!("{{{bad}}}"));
        assert_eq!((&reply["error"], &reply["definite"]), (&json!("bad_request"), &json!(true)), "{bad}");
    }
    let (_, _, cluster) = watch(&mut talk, r#""prefix":"none/""#);
    let (number, ..) = watch(&mut talk, &format!(r#""prefix":"none/","cluster":"{cluster}""#));
    let other = "0".repeat(32);
    let reply = talk.ask(&format!(r#"{{"op":"watch","prefix":"","cluster":"{other}"}}"#));
    assert_eq!((&reply["error"], &reply["definite"]), (&json!("wrong_cluster"), &json!(true)));
    assert_eq!(reply["watch"], number + 1);
    for _ in 0..254 {
        watch(&mut talk, r#""prefix":"none/""#);
    }
    let reply = talk.ask(r#"{"op":"watch","prefix":""}"#);
    assert_eq!((&reply["error"], &reply["definite"]), (&json!("busy"), &json!(true)));
}

/// A watch reports the writes after it on its connection, and none before it.
fn a_watch_has_a_place_among_pipelined_requests(runtime: Runtime) {
    let server = Setup::in_memory(runtime).start();
    let mut talk = server.connect();
    for round in 0..20 {
        talk.send(format!(
            "{{\"key\":\"k\",\"value\":\"before {round}\"}}\n{{\"op\":\"watch\",\"key\":\"k\",\"id\":{round}}}\n\
             {{\"key\":\"k\",\"value\":\"after {round}\"}}\n"
        ));
        talk.expect(&format!(r#"{{"key":"k","value":"before {round}","status":"ok"}}"#));
        let reply = talk.hear_json();
        assert_eq!((&reply["status"], &reply["id"]), (&json!("ok"), &json!(round)), "{reply}");
        let lines = [talk.hear_json(), talk.hear_json()];
        let of_watch = lines.iter().find(|line| line.get("watch").is_some()).expect("an event");
        assert_eq!(of_watch["events"][0]["value"], json!(format!("after {round}")));
        talk.exchange(
            &format!(r#"{{"op":"unwatch","watch":{}}}"#, round + 1),
            &format!(r#"{{"watch":{},"status":"ok"}}"#, round + 1),
        );
    }
}

/// A node of a cluster of processes serves watches itself, and another one goes on where it
/// stopped.
fn every_node_goes_on_where_another_one_stopped(runtime: Runtime) {
    let mut nodes = Nodes::start(&[runtime; 3]);
    let leader = nodes.leader();
    let followers: Vec<_> = (1..=3).filter(|node| *node != leader).collect();
    let (mut writer, mut watcher) = (nodes.connect(leader), nodes.connect(followers[0]));
    let (_, _, cluster) = watch(&mut watcher, r#""prefix":"""#);
    let mut seen = 0;
    for value in 0..100 {
        writer.exchange(
            &format!(r#"{{"key":"k","value":{value}}}"#),
            &format!(r#"{{"key":"k","value":{value},"status":"ok"}}"#),
        );
    }
    for value in 0..40 {
        let line = event(&mut watcher);
        assert_eq!(line["events"][0]["value"], value);
        seen = line["rev"].as_u64().expect("a revision");
    }
    _ = nodes.kill(followers[0]);
    for node in [followers[1], leader] {
        let mut watcher = nodes.connect(node);
        let from = format!(r#""prefix":"","from":{},"cluster":"{cluster}""#, seen + 1);
        watch(&mut watcher, &from);
        for value in 40..100 {
            assert_eq!(event(&mut watcher)["events"][0]["value"], value, "node {node}");
        }
    }
}

fn a_stop_ends_watches_with_a_line(runtime: Runtime) {
    let server = Setup::in_memory(runtime).start();
    let mut talk = server.connect();
    watch(&mut talk, r#""prefix":"""#);
    let heard = std::thread::scope(|scope| {
        let heard = scope.spawn(move || talk.hear_all());
        _ = server.stop();
        heard.join().expect("it has heard everything")
    });
    let last: Value = serde_json::from_str(heard.lines().last().expect("a line")).expect("JSON");
    assert_eq!((&last["watch"], &last["error"]), (&json!(1), &json!("shutting_down")));
}

both_runtimes_and_tls!(
    changes_arrive_as_they_commit,
    the_events_of_an_entry_are_one_line,
    a_watch_selects_one_key_or_a_prefix,
    initial_content_comes_first,
    a_watch_resumes_from_a_revision,
    a_history_that_is_gone_is_stated,
    a_watch_shows_progress,
    unwatch_ends_a_watch,
    requests_that_make_no_watch,
    a_watch_has_a_place_among_pipelined_requests,
    every_node_goes_on_where_another_one_stopped,
    a_stop_ends_watches_with_a_line,
);
