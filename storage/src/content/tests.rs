//! Content that no node writes, with valid checksums: each kind is refused with its own message,
//! and accepted content works.

use coracle_core::raft::{BatchBuilder, Checksum, NodeId};

use super::*;
use crate::files::{FileKind, FileName, NodeFiles, SyncPolicy};
use crate::header::LogHeader;
use crate::scan::{LogScan, Verdict};
use crate::snapshot::SnapshotFile;
use crate::survey::survey;
use crate::testing::{Disk, identities};
use crate::{Salvage, Surveyor, restore};

/// Appends a valid checksum to the covered part of a line.
fn sealed(covered: &str) -> String {
    format!("{covered},\"crc\":\"{:08x}\"}}\n", crc32fast::hash(covered.as_bytes()))
}

/// Changes the content of a line and gives it a valid checksum.
fn resealed(line: &str, from: &str, to: &str) -> String {
    let (covered, _) = line.rsplit_once(",\"crc\":\"").unwrap();
    assert!(covered.contains(from), "{from} is not in {covered}");
    sealed(&covered.replacen(from, to, 1))
}

/// Builds a log whose lines form a valid checksum chain.
fn log_of(header: &str, lines: &[(u64, u64, String)]) -> String {
    let header_of = LogHeader::decode(header.as_bytes());
    let mut before = header_of.map_or(Checksum(0), |header| header.after.checksum);
    let mut text = header.to_owned();
    for (index, term, payload) in lines {
        let covered = format!("{{\"index\":{index},\"term\":{term},{payload}");
        let crc = crc32fast::hash(format!("{before}{covered}").as_bytes());
        before = Checksum(crc);
        text.push_str(&format!("{covered},\"crc\":\"{crc:08x}\"}}\n"));
    }
    text
}

/// The files of a cluster of three nodes in one process.
struct Written {
    disk: Disk,
}

impl Written {
    /// A cluster in use: three entries on each node, and the same term on all.
    fn new() -> Self {
        use crate::testing::{append, entries_after, vote};
        let mut disk = Disk::default();
        let fresh = identities(3);
        let mut start = survey(vec![NodeFiles::default(); 3], &fresh, SyncPolicy::Always).unwrap();
        disk.run(&start.creation);
        let entries = entries_after(LogPoint::ORIGIN, 1, &payloads());
        for node in &mut start.nodes {
            disk.run(&node.planner.plan(&[vote(1, 1, 0), append(2, vec![entries.clone()])]));
        }
        Self { disk }
    }

    fn text(&self, node: u64, kind: FileKind) -> String {
        String::from_utf8(self.disk.content(FileName::new(NodeId(node), kind)).to_vec()).unwrap()
    }

    fn files(&self) -> Vec<NodeFiles> {
        (0..3).map(|node| self.disk.files(NodeId(node))).collect()
    }

    /// The files, with the log of node 1 replaced.
    fn with_log(&self, text: &str) -> Vec<NodeFiles> {
        let mut files = self.files();
        files[1].log = Some(text.as_bytes().to_vec());
        files
    }

    fn with_meta(&self, text: &str) -> Vec<NodeFiles> {
        let mut files = self.files();
        files[1].meta = Some(text.as_bytes().to_vec());
        files
    }
}

fn payloads() -> [&'static str; 3] {
    [
        "\"op\":\"NOOP\"",
        "\"op\":\"PUT\",\"key\":\"snack\",\"value\":\"chips\"",
        "\"op\":\"DELETE\",\"key\":\"a\"",
    ]
}

fn lines() -> Vec<(u64, u64, String)> {
    (1..).zip(payloads()).map(|(index, payload)| (index, 1, payload.to_owned())).collect()
}

/// Whether `log verify` accepts the log.
fn is_clean(text: &str) -> bool {
    LogScan::new(text.as_bytes()).is_ok_and(|scan| {
        let mut scan = scan.with_fixed_members();
        scan.by_ref().for_each(drop);
        scan.verdict() == Some(Verdict::Clean)
    })
}

fn starts(files: Vec<NodeFiles>) -> Result<(), String> {
    survey(files, &identities(3), SyncPolicy::Always).map(drop).map_err(|error| error.to_string())
}

#[test]
fn content_that_no_node_writes_in_a_log_is_refused_with_its_line() {
    let written = Written::new();
    let header = written.text(1, FileKind::Log).split_inclusive('\n').next().unwrap().to_owned();
    assert!(
        is_clean(&log_of(&header, &lines())) && starts(written.with_log(&log_of(&header, &lines()))).is_ok()
    );
    let long_key = format!("\"op\":\"DELETE\",\"key\":\"{}\"", "k".repeat(1025));
    let long_value = format!("\"op\":\"PUT\",\"key\":\"k\",\"value\":\"{}\"", "v".repeat(512 << 10));
    for (payload, word) in [
        ("\"op\":\"PUT\",\"key\":\"k\",\"value\":chips", "not JSON"),
        ("\"op\":\"PUT\",\"key\":\"k\",\"value\":[1, 2]", "form"),
        ("\"op\":\"PUT\",\"key\":\"k\",\"value\":null", "null"),
        ("\"op\":\"PUT\",\"key\":\"\",\"value\":1", "empty"),
        ("\"op\":\"SWAP\",\"key\":\"k\"", "cannot parse"),
        ("\"op\":\"NOOP\",\"more\":1", "cannot parse"),
        (
            "\"op\":\"PUT\",\"client\":\"c\",\"seq\":18446744073709551615,\"key\":\"k\",\"value\":1",
            "cannot parse",
        ),
        ("\"op\":\"PUT\",\"client\":\"\",\"seq\":1,\"key\":\"k\",\"value\":1", "cannot parse"),
        ("\"op\":\"CONFIG\",\"voters\":[7]", "members"),
        ("\"op\":\"CONFIG\",\"voters\":[0,1,2]", "members"),
        (&long_key, "at most 1024"),
        (&long_value, "at most 524288"),
    ] {
        let mut lines = lines();
        lines[1].2 = payload.to_owned();
        let text = log_of(&header, &lines);
        assert!(!is_clean(&text), "{payload:.60}");
        let said = starts(written.with_log(&text)).unwrap_err();
        assert!(said.starts_with("log01.txt: line 3 ") && said.contains(word), "{said}");
        assert!(said.contains("Nodes 0 and 2 of 3 are whole"), "{said}");
    }
}

#[test]
fn numbers_at_the_end_of_their_range_are_refused() {
    let written = Written::new();
    let header = written.text(1, FileKind::Log).split_inclusive('\n').next().unwrap().to_owned();
    for term in [0, TERM_MAX.0 + 1, Term::MAX.0, u64::MAX] {
        let mut lines = lines();
        (lines[0].1, lines[1].1, lines[2].1) = if term == 0 { (0, 0, 1) } else { (1, 1, term) };
        let text = log_of(&header, &lines);
        assert!(!is_clean(&text) && starts(written.with_log(&text)).is_err(), "term {term}");
    }
    for index in [INDEX_MAX.0, LogIndex::MAX.0, u64::MAX - 1, u64::MAX] {
        let after = format!("\"after\":{{\"index\":{index},\"term\":1");
        let header = resealed(&header, "\"after\":{\"index\":0,\"term\":0", &after);
        let lines: Vec<_> =
            lines().into_iter().map(|(_, term, payload)| (index.wrapping_add(1), term, payload)).collect();
        let text = log_of(&header, &lines[..1]);
        assert!(!is_clean(&text) && starts(written.with_log(&text)).is_err(), "index {index}");
    }
    for jump in [0, 1, 3, 4, u64::MAX] {
        let mut lines = lines();
        lines[1].0 = jump;
        let text = log_of(&header, &lines);
        assert!(!is_clean(&text) && starts(written.with_log(&text)).is_err(), "entry {jump} in place of 2");
    }
}

#[test]
fn metadata_that_does_not_fit_is_refused() {
    let written = Written::new();
    let meta = written.text(1, FileKind::Meta);
    for (from, to) in [
        ("\"currentTerm\":1", "\"currentTerm\":0"),
        ("\"currentTerm\":1", "\"currentTerm\":18446744073709551615"),
        ("\"currentTerm\":1", "\"currentTerm\":4611686018427387904"),
        ("\"currentTerm\":1", "\"currentTerm\":4294967298"),
        ("\"votedFor\":0", "\"votedFor\":3"),
        ("\"votedFor\":0", "\"votedFor\":-1"),
        ("\"floor\":{\"index\":0,\"term\":0", "\"floor\":{\"index\":0,\"term\":1"),
        ("\"floor\":{\"index\":0,\"term\":0", "\"floor\":{\"index\":2,\"term\":1"),
        ("\"floor\":{\"index\":0,\"term\":0", "\"floor\":{\"index\":9,\"term\":1"),
        ("\"floor\":{\"index\":0,\"term\":0", "\"floor\":{\"index\":18446744073709551615,\"term\":1"),
    ] {
        let said = starts(written.with_meta(&resealed(&meta, from, to))).unwrap_err();
        assert!(said.contains("meta1.txt") || said.contains("log01.txt"), "{to}: {said}");
    }
}

/// Each node's files are valid and match each other, but the nodes cannot go on together.
#[test]
fn two_histories_of_one_term_are_refused() {
    let written = Written::new();
    let header = written.text(1, FileKind::Log).split_inclusive('\n').next().unwrap().to_owned();
    let mut lines = lines();
    lines[1].2 = "\"op\":\"PUT\",\"key\":\"snack\",\"value\":\"nuts\"".to_owned();
    let text = log_of(&header, &lines);
    assert!(is_clean(&text), "alone it could be what a node has written");
    let said = starts(written.with_log(&text)).unwrap_err();
    assert!(said.starts_with("log00.txt and log01.txt hold different entries 3 of the same term"), "{said}");
}

/// With one node lost, a backup of the others holds all acknowledged writes, and a new cluster
/// starts from it.
#[test]
fn a_majority_of_intact_nodes_is_salvaged() {
    let written = Written::new();
    let fresh = identities(3);
    let salvage = |files: &[NodeFiles]| {
        let mut surveyor = Surveyor::new(fresh.clone(), SyncPolicy::Always);
        files.iter().for_each(|files| surveyor.look(files));
        surveyor.most_up_to_date().map(|recovery| Salvage::new(&recovery).flatten().collect::<Vec<u8>>())
    };
    let mut files = written.with_log("");
    // One node lags: the one with the longer log counts.
    let whole = String::from_utf8(files[0].log.clone().unwrap()).unwrap();
    let short: String = whole.split_inclusive('\n').take(3).collect();
    files[0].log = Some(short.into_bytes());
    let backup = salvage(&files).unwrap();
    let file = SnapshotFile::decode(&backup).unwrap();
    assert_eq!(file.check_lines(), Ok(1));
    assert_eq!(
        (file.header.last().index, file.content),
        (LogIndex(3), "{\"key\":\"snack\",\"value\":\"chips\"}\n")
    );
    let mut disk = Disk::default();
    disk.run(&restore(&file, &fresh));
    assert!(starts((0..3).map(|node| disk.files(NodeId(node))).collect()).is_ok());

    files[2].meta = None;
    let said = salvage(&files).unwrap_err().to_string();
    assert!(said.contains("Only node 0 of 3 is whole, which is not a majority"), "{said}");
}

/// Lines of a state in any order and with any change are accepted only if the state writes exactly
/// those.
#[test]
fn lines_of_a_snapshot_are_accepted_only_as_a_state_writes_them() {
    let session = "{\"session\":\"c\",\"used\":1,\"forgotten\":null,\"outcomes\":[[1,\"done\"]]}\n";
    let good = format!("{session}{{\"key\":\"a\",\"value\":1}}\n{{\"key\":\"b\",\"value\":[]}}\n");
    assert_eq!(check_state(&good), Ok(2));
    for (from, to, line) in [
        ("\"a\"", "\"b\"", 4),
        ("\"a\"", "\"c\"", 4),
        ("\"a\"", "\"\"", 3),
        ("[]", "[ ]", 4),
        ("[]", "", 4),
        ("\"used\":1", "\"used\":18446744073709551615", 2),
        ("\"c\"", "\"\"", 2),
        ("[[1,", "[[9007199254740993,", 2),
        ("[[1,\"done\"]]", "[]", 2),
        ("null", "9007199254740993", 2),
        ("}\n", "}\r\n", 2),
        ("}\n", "}\n\n", 3),
    ] {
        let changed = good.replacen(from, to, 1);
        assert_eq!(check_state(&changed).unwrap_err().0, line, "{from} to {to}");
    }
    assert_eq!(check_state(good.trim_end()).unwrap_err().0, 4, "a last line is whole");
}

/// Random edits in random places, with valid checksums: `log verify` and a start give the same
/// verdict, and nothing panics.
#[test]
fn verify_and_start_agree_on_any_edit() {
    let written = Written::new();
    let header = written.text(1, FileKind::Log).split_inclusive('\n').next().unwrap().to_owned();
    let mut rng = fastrand::Rng::with_seed(21);
    let snippets =
        ["\"", "\\", "{", "}", ",", ":", "0", "9", "null", "\\u0041", " ", "é", "\"op\":", "-1", "[1]"];
    for _ in 0..3000 {
        let mut lines = lines();
        let line = rng.usize(..lines.len());
        let payload = &mut lines[line].2;
        let places: Vec<_> = payload.char_indices().map(|(at, _)| at).collect();
        let (from, len) = (places[rng.usize(..places.len())], rng.usize(..4));
        let to = (from + len).min(payload.len());
        payload.replace_range(from..to, snippets[rng.usize(..snippets.len())]);
        let text = log_of(&header, &lines);
        let started = starts(written.with_log(&text));
        // An edit that is a valid command is a history that differs from that of the other nodes.
        let is_refused_alone = started.as_ref().is_err_and(|said| said.starts_with("log01.txt: line"));
        assert_eq!(is_clean(&text), !is_refused_alone, "{text}: {started:?}");
        let mut builder = BatchBuilder::new(LogPoint::ORIGIN);
        assert!(
            text.lines().skip(1).all(|line| builder.accept(line.as_bytes()).is_ok()),
            "the checksums are right"
        );
    }
}
