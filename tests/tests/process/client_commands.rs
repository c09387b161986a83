//! The client commands against a real server: the output and the exit codes that scripts rely on.

use std::net::TcpListener;

use coracle_tests::both_runtimes;
use coracle_tests::live::{Runtime, Setup};
use serde_json::Value;

use crate::shell::Shell;

/// A script needs only stdout and the exit code.
fn text_for_people_and_exit_codes_for_scripts(runtime: Runtime) {
    let server = Setup::in_memory(runtime).start();
    let shell = Shell::of(&server);
    shell.expect(&["get", "snack"], 1, "");
    shell.expect(&["delete", "snack"], 1, "");
    shell.expect(&["put", "snack", "chips"], 0, "ok\n");
    // Each command opens a new connection, so a read may reach a follower that lags. A
    // compare-and-swap goes through the log.
    shell.expect(&["cas", "snack", "--expect", "nuts", "fruit"], 5, "chips\n");
    shell.expect(&["cas", "snack", "--absent", "fruit"], 5, "chips\n");
    shell.expect(&["cas", "absent", "--expect", "x", "y"], 5, "");
    shell.expect(&["cas", "snack", "--expect", "chips", "fruit"], 0, "ok\n");
    shell.expect(&["cas", "lock", "--absent", "me"], 0, "ok\n");
    shell.expect(&["get", "snack", "--linearizable"], 0, "fruit\n");
    let _ = server.settle();
    shell.expect(&["get", "snack"], 0, "fruit\n");
    shell.expect(&["scan"], 0, "lock\tme\nsnack\tfruit\n");
    shell.expect(&["scan", "s"], 0, "snack\tfruit\n");
    shell.expect(&["scan", "--limit", "1"], 0, "lock\tme\n");
    shell.expect(&["scan", "--after", "lock"], 0, "snack\tfruit\n");
    shell.expect(&["scan", "nothing"], 0, "");
    shell.expect(&["delete", "snack"], 0, "ok\n");
    shell.expect(&["transfer", "3"], 0, "ok\n");
    shell.expect(&["transfer", "3", "-o", "json"], 0, "{\"leader\":3,\"status\":\"ok\"}\n");
    shell.expect(&["transfer", "99"], 2, "");
    shell.expect(&["put", "", "x"], 2, "");
    shell.expect(&["put", &"k".repeat(1025), "x"], 2, "");
    shell.expect(&["put", "k", "{", "--json"], 2, "");
    shell.expect(&["put", "k", "null", "--json"], 2, "");
    shell.expect(&["get", "k", "--no-such-flag"], 2, "");
}

/// Revisions, counters, deletes by prefix and transactions, as scripts use them.
fn conditions_counters_and_transactions(runtime: Runtime) {
    let server = Setup::in_memory(runtime).start();
    let shell = Shell::of(&server);
    let put = shell.run(&["put", "k", "a", "--meta"]);
    let lines: Vec<_> = put.stdout.lines().collect();
    let rev = lines[1].strip_prefix("rev ").expect("the revision of the change");
    assert_eq!((lines[0], lines[2]), ("ok", format!("created {rev}").as_str()));
    shell.expect(&["get", "k", "--meta", "--linearizable"], 0, &format!("a\nrev {rev}\ncreated {rev}\n"));
    shell.expect(&["cas", "k", "--rev", "0", "b"], 5, "a\n");
    shell.expect(&["cas", "k", "--rev", rev, "b"], 0, "ok\n");
    shell.expect(&["delete", "k", "--rev", rev], 5, "b\n");
    assert!(shell.run(&["delete", "k", "--rev", rev]).stderr.contains("its revision is"));
    shell.expect(&["delete", "k", "--rev", "1", "--prefix", "k"], 2, "");
    shell.expect(&["delete"], 2, "");
    shell.expect(&["put", "e", "1", "--ttl", "30min"], 0, "ok\n");
    shell.expect(&["touch", "e", "1h"], 0, "ok\n");
    shell.expect(&["persist", "e"], 0, "ok\n");
    shell.expect(&["cas", "e", "--expect", "1", "2", "--ttl", "1ms"], 0, "ok\n");
    shell.expect(&["touch", "nope", "1h"], 1, "");
    shell.expect(&["persist", "nope"], 1, "");
    shell.expect(&["put", "e", "1", "--ttl", "0s"], 2, "");
    shell.expect(&["touch", "e", "soon"], 2, "");
    shell.expect(&["incr", "n"], 0, "1\n");
    shell.expect(&["incr", "n", "-5"], 0, "-4\n");
    shell.expect(&["incr", "k"], 5, "");
    shell.expect(&["incr", "n", "1.5"], 2, "");
    let txn = r#"{"if":[{"key":"n","value":-4}],"then":[{"op":"get","key":"n"},{"op":"put","key":"n","value":0}],"else":[{"op":"get","key":"none"}]}"#;
    shell.expect_on(&["txn"], txn, 0, "-4\n0\n");
    shell.expect_on(&["txn"], txn, 5, "\n");
    shell.expect_on(&["txn"], "[]", 2, "");
    shell.expect_on(&["txn"], r#"{"then":[{"op":"scan","key":"a"}]}"#, 2, "");
    let _ = server.settle();
    shell.expect(&["scan", "--keys-only", "--reverse"], 0, "n\nk\n");
    shell.expect(&["scan", "--end", "n"], 0, "k\tb\n");
    shell.expect(&["scan", "--count"], 0, "2\n");
    shell.expect(&["scan", "--count", "-o", "json"], 0, "{\"count\":2,\"status\":\"ok\"}\n");
    shell.expect(&["delete", "--prefix", ""], 0, "2\n");
    shell.expect(
        &["delete", "--prefix", "x", "-o", "json"],
        0,
        "{\"deleted\":0,\"more\":false,\"status\":\"ok\"}\n",
    );
}

/// With `-o json`, a program gets the replies of the server itself, errors included.
fn json_for_programs(runtime: Runtime) {
    let server = Setup::in_memory(runtime).start();
    let shell = Shell::of(&server);
    let stored = "{\"key\":\"k\",\"value\":[1,1e999],\"status\":\"ok\"}\n";
    shell.expect(&["put", "k", "[1, 1e999]", "--json", "-o", "json"], 0, stored);
    let _ = server.settle();
    shell.expect(&["get", "k", "-o", "json"], 0, stored);
    let page = "{\"items\":[{\"key\":\"k\",\"value\":[1,1e999]}],\"more\":false,\"status\":\"ok\"}\n";
    shell.expect(&["scan", "-o", "json"], 0, page);
    for (arguments, code, error) in [
        (&["get", "no", "-o", "json"][..], 1, "not_found"),
        (&["delete", "no", "-o", "json"], 1, "not_found"),
        (&["cas", "k", "--absent", "x", "-o", "json"], 5, "cas_mismatch"),
    ] {
        let ended = shell.run(arguments);
        assert_eq!(ended.code, Some(code), "{arguments:?}");
        assert_eq!(ended.stdout.lines().count(), 1, "{arguments:?}: {}", ended.stdout);
        assert!(ended.stdout.contains(&format!("\"error\":\"{error}\"")), "{arguments:?}: {}", ended.stdout);
    }
    shell.expect(&["delete", "k", "-o", "json"], 0, "{\"key\":\"k\",\"status\":\"ok\"}\n");
}

/// Values with unusual characters come back unchanged, and a scan prints each item in one line.
fn odd_values_come_back_whole(runtime: Runtime) {
    let server = Setup::in_memory(runtime).start();
    let shell = Shell::of(&server);
    for (value, in_a_line) in [
        ("tab\tand\nline\r", "tab\\tand\\nline\\r"),
        ("äöü €😀", "äöü €😀"),
        ("", ""),
        ("-5", "-5"),
        ("\"quoted\" \\ back", "\"quoted\" \\\\ back"),
        ("null", "null"),
        ("{\"a\":1}", "{\"a\":1}"),
    ] {
        shell.expect(&["put", "odd\tkey", value], 0, "ok\n");
        let _ = server.settle();
        shell.expect(&["get", "odd\tkey"], 0, &format!("{value}\n"));
        shell.expect(&["scan"], 0, &format!("odd\\tkey\t{in_a_line}\n"));
        shell.expect(&["delete", "odd\tkey"], 0, "ok\n");
    }
    shell.expect(&["put", "--", "--key", "--value"], 0, "ok\n");
    let _ = server.settle();
    shell.expect(&["get", "--", "--key"], 0, "--value\n");
}

/// `-` reads the value from stdin, line breaks included, so that a file can be stored.
fn a_value_may_come_from_stdin(runtime: Runtime) {
    let server = Setup::in_memory(runtime).start();
    let shell = Shell::of(&server);
    let text = "first\tline\nsecond line €\n";
    let ended = shell.run_with_input(&["put", "file", "-"], text);
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(0), "ok\n"), "{}", ended.stderr);
    let large = "v".repeat(512 << 10);
    let ended = shell.run_with_input(&["put", "large", "-"], &large);
    assert_eq!(ended.code, Some(2), "{}", ended.stderr);
    assert!(ended.stderr.contains("too_large"), "{}", ended.stderr);
    let ended = shell.run_with_input(&["put", "large", "-"], &large[2..]);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let ended = shell.run_with_input(&["put", "json", "-", "--json"], "{ \"a\" :\n [1e999] }\n");
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let _ = server.settle();
    shell.expect(&["get", "file"], 0, &format!("{text}\n"));
    shell.expect(&["get", "large"], 0, &format!("{}\n", &large[2..]));
    shell.expect(&["get", "json"], 0, "{\"a\":[1e999]}\n");
}

/// `get --raw` returns a value from stdin byte for byte, so that a stored file can be retrieved.
fn a_value_comes_back_raw(runtime: Runtime) {
    let server = Setup::in_memory(runtime).start();
    let shell = Shell::of(&server);
    for text in [
        "",
        "no line break",
        "one\n",
        "two\r\n\n",
        "\u{1b}[2J\0\u{9b}\u{85}\u{2028}\t\u{feff}€😀",
        "42",
        "\"42\"",
    ] {
        assert_eq!(shell.run_with_input(&["put", "file", "-"], text).code, Some(0));
        shell.expect(&["get", "file", "--raw", "--linearizable"], 0, text);
        shell.expect(&["get", "--raw", "file", "--linearizable", "-o", "json"], 0, text);
    }
    let json = "{\"a\":[1e999,null]}";
    shell.expect(&["put", "json", json, "--json"], 0, "ok\n");
    shell.expect(&["get", "json", "--raw", "--linearizable"], 0, json);
    shell.expect(&["get", "no", "--raw", "--linearizable"], 1, "");
}

/// `scan -o jsonl` prints one JSON object per line for line-based tools, however many pages the
/// scan has.
fn a_scan_may_be_a_json_object_per_line(runtime: Runtime) {
    let server = Setup::in_memory(runtime).start();
    let shell = Shell::of(&server);
    let mut talk = server.connect();
    for number in 0..1_100 {
        assert_eq!(talk.ask(&format!(r#"{{"key":"k{number:04}","value":{number}}}"#))["status"], "ok");
    }
    assert_eq!(talk.ask(r#"{"key":"text","value":"a\tb\n"}"#)["status"], "ok");
    let _ = server.settle();
    let scanned = shell.run(&["scan", "-o", "jsonl"]).stdout;
    let expected: String =
        (0..1_100).map(|number| format!("{{\"key\":\"k{number:04}\",\"value\":{number}}}\n")).collect();
    assert_eq!(scanned, expected + "{\"key\":\"text\",\"value\":\"a\\tb\\n\"}\n");
    shell.expect(&["scan", "none", "-o", "jsonl"], 0, "");
    shell.expect(&["get", "k0007", "-o", "jsonl"], 0, "{\"key\":\"k0007\",\"value\":7,\"status\":\"ok\"}\n");
}

/// `status` shows one row per node and exactly one leader.
fn status_has_a_row_per_node(runtime: Runtime) {
    let server = Setup::in_memory(runtime).with("--nodes 3").start();
    let shell = Shell::of(&server);
    shell.expect(&["put", "a", "1"], 0, "ok\n");
    let _ = server.settle();
    let text = shell.run(&["status"]);
    let rows: Vec<Vec<_>> = text.stdout.lines().map(|line| line.split_whitespace().collect()).collect();
    let head = ["ID", "ROLE", "TERM", "COMMIT", "APPLIED", "LAST", "LEADER", "ADDRESS", "SNAPSHOT", "LAG"];
    assert_eq!(rows[0], head);
    assert!(rows.iter().skip(1).all(|row| row[8] == "0" && row[9] == "0"), "{}", text.stdout);
    assert_eq!(rows.iter().skip(1).map(|row| row[0]).collect::<Vec<_>>(), ["0", "1", "2"]);
    assert_eq!(rows.iter().filter(|row| row[1] == "leader").count(), 1, "{}", text.stdout);
    let json: Value =
        serde_json::from_str(&shell.run(&["status", "-o", "json"]).stdout).expect("the status is JSON");
    assert_eq!(json["nodes"].as_array().map(Vec::len), Some(3));
}

/// A cluster in one process lists its members and rejects membership changes.
fn members_are_told_and_fixed_in_one_process(runtime: Runtime) {
    let server = Setup::in_memory(runtime).with("--nodes 3").start();
    let shell = Shell::of(&server);
    let listed = "ID  ROLE   ADDRESS  INCARNATION\n0   voter  -        -\n1   voter  -        -\n2   voter  -        -\n";
    shell.expect(&["member", "list"], 0, listed);
    let row = |id: u64| format!("{{\"id\":{id},\"role\":\"voter\",\"address\":null,\"incarnation\":null}}");
    let json = format!("{{\"members\":[{},{},{}],\"status\":\"ok\"}}\n", row(0), row(1), row(2));
    shell.expect(&["member", "list", "-o", "json"], 0, &json);
    for change in [&["member", "add", "4=h:1"][..], &["member", "promote", "1"], &["member", "remove", "1"]] {
        let ended = shell.expect(change, 2, "");
        assert!(
            ended.stderr.contains("bad_request") && ended.stderr.contains("one process"),
            "{}",
            ended.stderr
        );
        assert!(!ended.stderr.contains("unknown"), "nothing happened, for certain: {}", ended.stderr);
    }
    let ended = shell.run_with_input(&["client"], "member list\nmember remove 1\n");
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(2), listed), "{}", ended.stderr);
    assert!(ended.stderr.contains("line 2: "), "{}", ended.stderr);
}

/// The listed servers are tried in order until one answers; if none does, the error names them.
fn the_next_server_is_tried(runtime: Runtime) {
    let server = Setup::in_memory(runtime).start();
    let dead = |()| {
        let listener = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
        listener.local_addr().expect("a listener has an address")
    };
    let (first, second) = (dead(()), dead(()));
    let list = format!("{first},{},{second}", server.address());
    let shell = Shell::of_addresses(&list);
    shell.expect(&["put", "a", "1"], 0, "ok\n");
    let _ = server.settle();
    shell.expect(&["get", "a"], 0, "1\n");
    // The flag overrides the environment variable.
    Shell::of_addresses(&first.to_string()).expect(&["get", "a", "--connect", &list], 0, "1\n");
    let ended = Shell::of_addresses(&format!("{first},{second}")).expect(&["put", "a", "2"], 3, "");
    assert!(ended.stderr.contains(&first.to_string()) && ended.stderr.contains(&second.to_string()));
}

/// A server that is full or has no leader is skipped if another one can answer.
fn a_server_that_refuses_is_passed_over(runtime: Runtime) {
    let full = Setup::in_memory(runtime).with("--max-connections 1").start();
    let mut occupant = full.connect();
    occupant.exchange(r#"{"op":"ping"}"#, r#"{"status":"ok"}"#);
    let headless =
        Setup::in_memory(runtime).with("--election-timeout 10h..20h --request-timeout 300ms").start();
    let server = Setup::in_memory(runtime).start();
    let list = format!("{},{},{}", full.address(), headless.address(), server.address());
    Shell::of_addresses(&list).expect(&["put", "a", "1"], 0, "ok\n");
    let _ = server.settle();
    Shell::of(&server).expect(&["get", "a"], 0, "1\n");
    // If it is the only server, the exit code gives the reason.
    let ended = Shell::of(&headless).expect(&["put", "a", "1"], 4, "");
    assert!(ended.stderr.contains("no_leader"), "{}", ended.stderr);
    let ended = Shell::of(&full).expect(&["put", "a", "1"], 6, "");
    assert!(ended.stderr.contains("busy"), "{}", ended.stderr);
}

/// A write whose reply never arrives is reported with an unknown outcome, not as failed.
#[test]
fn a_write_without_a_reply_has_an_unknown_outcome() {
    let silent = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
    let address = silent.local_addr().expect("a listener has an address").to_string();
    let ended = Shell::of_addresses(&address).expect(&["put", "a", "1", "--timeout", "200ms"], 4, "");
    assert!(ended.stderr.contains("outcome is unknown"), "{}", ended.stderr);
    let ended = Shell::of_addresses(&address).expect(&["get", "a", "--timeout", "200ms"], 4, "");
    assert!(!ended.stderr.contains("outcome is unknown"), "{}", ended.stderr);
}

both_runtimes!(
    text_for_people_and_exit_codes_for_scripts,
    conditions_counters_and_transactions,
    json_for_programs,
    odd_values_come_back_whole,
    a_value_may_come_from_stdin,
    a_value_comes_back_raw,
    a_scan_may_be_a_json_object_per_line,
    status_has_a_row_per_node,
    members_are_told_and_fixed_in_one_process,
    the_next_server_is_tried,
    a_server_that_refuses_is_passed_over,
);
