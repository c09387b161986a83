//! Restarts: all values survive, in files that people and other programs can read.

use std::fs;

use coracle_tests::both_runtimes;
use coracle_tests::live::{LogFile, Runtime, Setup};
use serde_json::{Value, json};

/// Every acknowledged write is there after each restart, from the first request after `ready` on.
fn values_outlive_the_server(runtime: Runtime) {
    let folder = tempfile::tempdir().expect("there is room for a folder");
    let setup = Setup::in_folder(runtime, folder.path());
    for life in 0..4_usize {
        let server = setup.start();
        // Each key on a new connection, so that it is the first request of that connection.
        for earlier in 0..life {
            let stored = format!(r#"{{"key":"life-{earlier}","value":"x\n1e999","status":"ok"}}"#);
            server.connect().exchange(&format!(r#"{{"key":"life-{earlier}"}}"#), &stored);
        }
        let page = server.connect().ask(r#"{"op":"scan","prefix":"life-"}"#);
        assert_eq!(page["items"].as_array().map(Vec::len), Some(life), "{page}");
        let put = format!(r#"{{"key":"life-{life}","value":"x\n1e999"}}"#);
        assert_eq!(server.connect().ask(&put)["status"], "ok");
        if life % 2 == 0 { drop(server.stop()) } else { drop(server.kill()) }
    }
}

/// A restart replays every kind of command in the log, including swaps and deletes, not only puts.
fn every_kind_of_command_is_replayed(runtime: Runtime) {
    let folder = tempfile::tempdir().expect("there is room for a folder");
    let setup = Setup::in_folder(runtime, folder.path());
    let server = setup.start();
    let mut talk = server.connect();
    for line in [
        r#"{"key":"swapped","value":"old"}"#,
        r#"{"op":"cas","key":"swapped","expect":"old","value":{"deep":[18446744073709551617]}}"#,
        r#"{"key":"deleted","value":1}"#,
        r#"{"op":"delete","key":"deleted"}"#,
        r#"{"op":"cas","key":"created","expect":null,"value":"€ \" \\ \u0000"}"#,
    ] {
        assert_eq!(talk.ask(line)["status"], "ok", "{line}");
    }
    assert_eq!(talk.ask(r#"{"op":"cas","key":"created","expect":1,"value":2}"#)["error"], "cas_mismatch");
    server.stop();
    let server = setup.start();
    let items = concat!(
        r#"[{"key":"created","value":"€ \" \\ \u0000"},"#,
        r#"{"key":"swapped","value":{"deep":[18446744073709551617]}}]"#
    );
    let page = format!(r#"{{"items":{items},"more":false,"status":"ok"}}"#);
    server.connect().exchange(r#"{"op":"scan"}"#, &page);
    server.stop();
}

/// All logs hold the same entries with the same checksums, every line is JSON as documented, and
/// the checksum chain can be recomputed from the documentation alone.
fn all_logs_are_one_verifiable_chain(runtime: Runtime) {
    let folder = tempfile::tempdir().expect("there is room for a folder");
    let setup = Setup::in_folder(runtime, folder.path());
    let mut last = 0;
    for life in 0..2 {
        let server = setup.start();
        let mut talk = server.connect();
        for number in 0..100 {
            talk.say(&format!(r#"{{"key":"k{}","value":"{life}/{number} ä\n\\"}}"#, number % 7));
        }
        for _ in 0..100 {
            assert_eq!(talk.hear_json()["status"], "ok");
        }
        last = server.settle();
        server.stop();
    }
    let logs = LogFile::read_all(folder.path(), 5);
    assert!(last >= 202, "two hundred puts and two no-ops at least: {last}");
    for log in &logs {
        assert_eq!(log.lines, logs[0].lines);
        assert_eq!(log.lines.len() as u64, last);
    }
    let put = logs[0].entries.iter().find(|entry| entry["op"] == "PUT").expect("there are puts");
    assert_eq!((&put["key"], &put["value"]), (&json!("k0"), &json!("0/0 ä\n\\")));
    let members: Vec<_> = ["{\"index\":", ",\"term\":", ",\"op\":\"PUT\",\"key\":\"k0\",\"value\":"].into();
    let line = logs[0].lines.iter().find(|line| line.contains("\"PUT\"")).expect("there are puts");
    let places: Vec<_> = members.iter().map(|member| line.find(member)).collect();
    assert!(places.is_sorted() && places[0] == Some(0), "{line}");
}

/// The files of node X have the documented names; an operator finds its term and vote in
/// `metaX.txt`.
fn files_have_the_names_and_members_of_the_contract(runtime: Runtime) {
    let folder = tempfile::tempdir().expect("there is room for a folder");
    let server = Setup::in_folder(runtime, folder.path()).with("--nodes 3").start();
    assert_eq!(server.connect().ask(r#"{"key":"a","value":1}"#)["status"], "ok");
    server.stop();
    let found = fs::read_dir(folder.path()).expect("the folder is there");
    let mut names: Vec<_> =
        found.map(|file| file.expect("a file").file_name().into_string().expect("text")).collect();
    names.sort();
    for node in 0..3 {
        assert!(names.contains(&format!("log{node:02}.txt")), "{names:?}");
        assert!(names.contains(&format!("meta{node}.txt")), "meta{node}.txt is missing in {names:?}");
    }
}

/// The metadata file holds term and vote under the paper's names, as one JSON object in one line.
fn metadata_tells_term_and_vote(runtime: Runtime) {
    let folder = tempfile::tempdir().expect("there is room for a folder");
    let server = Setup::in_folder(runtime, folder.path()).with("--nodes 3").start();
    let mut talk = server.connect();
    assert_eq!(talk.ask(r#"{"key":"a","value":1}"#)["status"], "ok");
    let _ = server.settle();
    let term = talk.ask(r#"{"op":"status"}"#)["nodes"][0]["term"].clone();
    server.stop();
    let files =
        fs::read_dir(folder.path()).expect("the folder is there").map(|file| file.expect("a file").path());
    let is_meta = |path: &std::path::PathBuf| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("meta"))
    };
    let metas: Vec<_> = files.filter(is_meta).collect();
    assert_eq!(metas.len(), 3);
    for path in metas {
        let text = fs::read_to_string(&path).expect("metadata is text");
        let meta: Value = serde_json::from_str(&text).expect("metadata is JSON");
        assert!(text.ends_with("}\n") && text.lines().count() == 1, "{text}");
        assert_eq!(meta["currentTerm"], term, "{text}");
        assert!(meta["votedFor"].is_null() || meta["votedFor"].as_u64() < Some(3), "{text}");
        assert!(meta["crc"].as_str().is_some_and(|crc| crc.len() == 8), "{text}");
    }
}

/// A server in memory writes nothing, not even into a folder that was named.
fn an_ephemeral_server_writes_nothing(runtime: Runtime) {
    let folder = tempfile::tempdir().expect("there is room for a folder");
    let path = folder.path().join("data");
    let server = Setup::in_folder(runtime, &path).with("--ephemeral").start();
    assert_eq!(server.connect().ask(r#"{"key":"a","value":1}"#)["status"], "ok");
    server.stop();
    assert!(!path.exists());
}

/// Without `--nodes`, a folder is started with the number of nodes that it was made for, and a
/// message says so.
fn a_folder_is_started_with_the_nodes_that_it_was_made_for(runtime: Runtime) {
    let folder = tempfile::tempdir().expect("there is room for a folder");
    let server = Setup::in_folder(runtime, folder.path()).with("--nodes 3").start();
    server.connect().exchange(r#"{"key":"k","value":9}"#, r#"{"key":"k","value":9,"status":"ok"}"#);
    let _ = server.settle();
    server.stop();
    let server = Setup::in_folder(runtime, folder.path()).start();
    let mut talk = server.connect();
    talk.exchange(r#"{"key":"k"}"#, r#"{"key":"k","value":9,"status":"ok"}"#);
    assert_eq!(talk.ask(r#"{"op":"status"}"#)["nodes"].as_array().map(Vec::len), Some(3));
    let told = "the data folder was created for 3 nodes, so 3 nodes are started (--nodes is not given)";
    assert!(server.stderr().contains(told), "{}", server.stderr());
    server.stop();
}

both_runtimes!(
    a_folder_is_started_with_the_nodes_that_it_was_made_for,
    values_outlive_the_server,
    every_kind_of_command_is_replayed,
    all_logs_are_one_verifiable_chain,
    files_have_the_names_and_members_of_the_contract,
    metadata_tells_term_and_vote,
    an_ephemeral_server_writes_nothing,
);
