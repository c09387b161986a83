//! A start with much to apply: the server says what it is doing, and answers what needs no node,
//! long before it is done.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use coracle_tests::live::{LogFile, Runtime, Setup, crc32, until};

/// So many that a node needs many turns for them, and a good part of a second; and for a machine on
/// which this process may not run for so long, some seconds.
const ENTRIES: [usize; 2] = [1_000_000, 6_000_000];

/// A folder of one node whose log has this many more entries, each for a key of its own; its last
/// index.
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

/// On one executor a node that applies a long log must let the others run: clients are greeted and
/// told how far it is, while a read has to wait for the whole log.
#[test]
fn a_long_log_keeps_nobody_waiting_who_asks_for_none_of_it() {
    let is_seen = ENTRIES.into_iter().any(is_served_while_it_applies);
    assert!(is_seen, "nobody was served before the whole log was applied");
}

/// Whether anybody was served before the whole log was applied.
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
