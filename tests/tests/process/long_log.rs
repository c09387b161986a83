//! A start with a long log to apply: long before it is done, the server reports its progress and
//! answers requests that need no node.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use coracle_tests::live::{LogFile, Runtime, Setup, crc32, until};

/// Numbers of entries to apply. The first takes many turns and a large part of a second. The second
/// takes some seconds, for a busy machine that may not run this process during the first.
const ENTRIES: [usize; 2] = [1_000_000, 6_000_000];

/// Creates the folder of one node whose log has this many more entries, each for a different key.
/// Returns its last index.
fn folder_with_a_long_log(folder: &Path, entries: usize) -> usize {
    let server = Setup::in_folder(Runtime::Smol, folder).with("--nodes 1").start();
    assert_eq!(server.connect().ask(r#"{"key":"a","value":1}"#)["status"], "ok");
    server.stop();
    let log = LogFile::read(folder, 0);
    let last = log.entries.last().expect("there are entries");
    let mut chain = last["crc"].as_str().expect("an entry has a checksum").to_owned();
    let path = folder.join("log00.txt");
    let mut text = fs::read_to_string(&path).expect("the log is text");
    let term = &last["term"];
    let end = log.lines.len() + entries;
    for index in log.lines.len() + 1..=end {
        let key = format!(r#""op":"PUT","key":"k{index}","value":{index}"#);
        let covered = format!(r#"{{"index":{index},"term":{term},{key}"#);
        chain = format!("{:08x}", crc32(&[chain.as_bytes(), covered.as_bytes()]));
        writeln!(text, r#"{covered},"crc":"{chain}"}}"#).expect("a String takes any text");
    }
    fs::write(&path, text).expect("the log can be written");
    end
}

/// A node that applies a long log lets the other tasks of its executor run: clients are connected
/// and see its progress, while a read has to wait for the whole log.
#[test]
fn clients_are_served_while_a_long_log_is_applied() {
    let is_seen = ENTRIES.into_iter().any(is_served_while_it_applies);
    assert!(is_seen, "nobody was served before the whole log was applied");
}

/// Returns whether a client was served before the whole log was applied.
fn is_served_while_it_applies(entries: usize) -> bool {
    let folder = tempfile::tempdir().expect("there is room for a folder");
    let last = folder_with_a_long_log(folder.path(), entries);
    let server =
        Setup::in_folder(Runtime::Smol, folder.path()).with("--nodes 1 --request-timeout 60s").start();
    let (mut reader, mut talk) = (server.connect(), server.connect());
    reader.say(&format!(r#"{{"key":"k{last}"}}"#));
    let mut is_seen = false;
    until("the node is seen while it applies its log, or when it has", || {
        talk.exchange(r#"{"op":"ping"}"#, r#"{"status":"ok"}"#);
        let status = talk.ask(r#"{"op":"status"}"#);
        let field = |name: &str| status["nodes"][0][name].as_u64().unwrap_or_default();
        let (committed, applied) = (field("commit_index"), field("last_applied"));
        is_seen = committed > last as u64 && 0 < applied && applied < last as u64;
        is_seen || applied >= last as u64
    });
    reader.expect(&format!(r#"{{"key":"k{last}","value":{last},"status":"ok"}}"#));
    server.stop();
    is_seen
}
