//! Tests of `log show` and `log verify` on files as a server writes them, and on damaged ones.

use std::fs;
use std::io::Read;
use std::path::PathBuf;
use std::process::Stdio;

use coracle_core::raft::{
    BatchBuilder, Checksum, Configuration, Entries, LogIndex, LogPoint, NodeId, SnapshotMeta, Term, Voters,
};
use coracle_storage::{ClusterId, Identity, Incarnation, LogHeader, SnapshotHeader};
use tempfile::TempDir;

use crate::{Ended, coracle, run, run_on};

/// The last log entry that the sample snapshot covers; the sample log continues after it.
const LAST: LogPoint = LogPoint { index: LogIndex(41), term: Term(3), checksum: Checksum(0xc0ac_1e00) };

/// The last line of [`Sample::snapshot`].
const SNAPSHOT_END: &str = concat!(
    r#"{"format":"coracle-snapshot-end","version":1,"bytes":60,"checksum":"aa314e70","crc":"7afe3714"}"#,
    "\n"
);

fn identity() -> Identity {
    Identity::for_new_cluster(ClusterId(0xc0), &[Incarnation(1), Incarnation(2)]).remove(0)
}

/// A log or a snapshot in a temporary folder.
struct Sample {
    _folder: TempDir,
    path: PathBuf,
    text: String,
}

impl Sample {
    fn new() -> Self {
        Self::with_entries(&[
            (1, r#""op":"NOOP""#),
            (1, r#""op":"PUT","key":"snack","value":"chips""#),
            (1, r#""op":"PUT","key":"big","value":1e400"#),
            (2, r#""op":"DELETE","key":"snack""#),
        ])
    }

    fn with_entries(entries: &[(u64, &str)]) -> Self {
        Self::after(LogPoint::ORIGIN, entries)
    }

    /// Creates a log that starts after `after`, which a snapshot covers.
    fn after(after: LogPoint, entries: &[(u64, &str)]) -> Self {
        let header = LogHeader { identity: identity(), after };
        let mut builder = BatchBuilder::new(header.after);
        for (term, payload) in entries {
            builder.seal(Term(*term), |line| line.push_str(payload));
        }
        let mut text = String::from_utf8(header.encode()).unwrap();
        text.extend(builder.finish().iter().map(Entries::text));
        Self::of("log00.txt", text)
    }

    /// Creates a snapshot of two keys, as a server writes it.
    fn snapshot() -> Self {
        let voters = Voters::new([NodeId(0), NodeId(1)]).unwrap();
        let header = SnapshotHeader::new(
            &identity(),
            SnapshotMeta { last: LAST, configuration: Configuration::of_voters(voters) },
            "",
        );
        let mut text = String::from_utf8(header.encode()).unwrap();
        text.push_str("{\"key\":\"big\",\"value\":1e400}\n{\"key\":\"snack\",\"value\":\"chips\"}\n");
        text.push_str(SNAPSHOT_END);
        Self::of("snap0.txt", text)
    }

    fn of(name: &str, text: String) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        fs::write(&path, &text).unwrap();
        Self { _folder: folder, path, text }
    }

    /// Replaces the content of the file.
    fn rewritten(self, text: impl FnOnce(&str) -> String) -> Self {
        let text = text(&self.text);
        fs::write(&self.path, &text).unwrap();
        Self { text, ..self }
    }

    fn log(&self, arguments: &[&str]) -> Ended {
        run(&[&["log"], arguments, &[self.path.to_str().unwrap()]].concat())
    }
}

#[test]
fn a_clean_log_is_shown_and_verified() {
    let sample = Sample::new();
    let shown = sample.log(&["show"]);
    assert_eq!((shown.code, shown.stderr.as_str()), (Some(0), ""));
    let rows = shown.stdout.lines().skip_while(|line| !line.contains("INDEX")).skip(1);
    let cells = rows.map(|row| row.split_whitespace().take(5).collect::<Vec<_>>()).collect::<Vec<_>>();
    assert_eq!(cells[0], ["1", "1", "NOOP", "-", "-"]);
    assert_eq!(cells[1], ["2", "1", "PUT", "snack", "chips"]);
    assert_eq!(cells[2], ["3", "1", "PUT", "big", "1e400"]);
    assert_eq!(cells[3], ["4", "2", "DELETE", "snack", "-"]);

    let verified = sample.log(&["verify"]);
    assert_eq!((verified.code, verified.stderr.as_str()), (Some(0), ""));
    assert!(verified.stdout.contains("clean: 4 valid entries up to index 4, term 2"), "{verified:?}");
}

#[test]
fn json_output_is_the_lines_of_the_file() {
    let sample = Sample::new();
    assert_eq!(sample.log(&["show", "-o", "json"]).stdout, sample.text);
    let verified = sample.log(&["verify", "-o", "json"]);
    let report: serde_json::Value = serde_json::from_str(&verified.stdout).unwrap();
    assert_eq!(report["verdict"], "clean");
    assert_eq!(report["entries"], 4);
    assert_eq!(report["last_index"], 4);
}

#[test]
fn a_torn_tail_is_distinguished_from_damage() {
    let sample = Sample::new().rewritten(|text| text[..text.len() - 9].to_owned());
    let verified = sample.log(&["verify", "-o", "json"]);
    assert_eq!(verified.code, Some(6));
    assert!(verified.stdout.contains(r#""verdict":"torn_tail","entries":3"#), "{verified:?}");
    assert!(verified.stderr.contains("line 5") && verified.stderr.contains("torn"), "{verified:?}");
}

#[test]
fn damage_is_named_by_file_and_line() {
    let sample = Sample::new().rewritten(|text| text.replace("chips", "chirp"));
    for action in ["show", "verify"] {
        let ended = sample.log(&[action]);
        assert_eq!(ended.code, Some(6), "{ended:?}");
        assert!(ended.stderr.contains(sample.path.to_str().unwrap()), "{ended:?}");
        assert!(ended.stderr.contains("line 3") && ended.stderr.contains("damaged"), "{ended:?}");
    }
    assert!(sample.log(&["verify"]).stdout.contains("damaged: 1 valid entry "));
}

#[test]
fn a_file_that_is_no_log_is_rejected() {
    let newer = |text: &str| text.replacen("\"version\":1", "\"version\":99", 1);
    let foreign = Sample::new().rewritten(newer).log(&["verify"]);
    assert_eq!(foreign.code, Some(6));
    assert!(foreign.stderr.contains("line 1") && foreign.stderr.contains("version 99"), "{foreign:?}");

    let empty = Sample::new().rewritten(|_| String::new()).log(&["verify"]);
    assert_eq!(empty.code, Some(6), "{empty:?}");

    let missing = run(&["log", "verify", "/no/such/folder/log00.txt"]);
    assert_eq!(missing.code, Some(6));
    assert!(missing.stderr.contains("/no/such/folder/log00.txt"), "{missing:?}");
}

/// JSON output always contains a verdict, even for a file that is not Coracle's.
#[test]
fn a_verdict_is_given_on_any_file() {
    let newer = |text: &str| text.replacen("\"version\":1", "\"version\":99", 1);
    let damaged = |text: &str| text.replacen("\"node\":0", "\"node\":7", 1);
    let other = |text: &str| text.replacen("coracle-log", "coracle-founding", 1);
    let meta = |text: &str| text.replacen("coracle-log", "coracle-meta", 1);
    for (sample, verdict) in [
        (Sample::new().rewritten(newer), "unknown_format"),
        (Sample::new().rewritten(damaged), "damaged"),
        (Sample::new().rewritten(|_| String::new()), "damaged"),
        (Sample::new().rewritten(other), "other_kind"),
        (Sample::new().rewritten(meta), "damaged"),
        (Sample::new().rewritten(|_| "shopping: chips\n".to_owned()), "foreign"),
    ] {
        let verified = sample.log(&["verify", "-o", "json"]);
        assert_eq!(verified.code, Some(6), "{verified:?}");
        let report: serde_json::Value = serde_json::from_str(&verified.stdout).unwrap();
        assert_eq!(report["verdict"], verdict, "{verified:?}");
        assert_eq!(report["file"], sample.path.to_str().unwrap());
        let message = report["message"].as_str().unwrap();
        assert_eq!(verified.stderr, format!("error: {message}\n"));
        // A message about a file without a checksum does not mention checksums.
        assert!(verdict == "damaged" || !message.contains("checksum"), "{message}");
    }
    let missing = run(&["log", "verify", "/no/such/folder/log00.txt", "-o", "json"]);
    assert_eq!(missing.code, Some(6));
    assert!(missing.stdout.contains(r#""verdict":"unreadable""#), "{missing:?}");
}

#[test]
fn a_log_may_come_from_stdin() {
    let sample = Sample::new();
    let verified = run_on(&["log", "verify", "-"], &sample.path);
    assert_eq!((verified.code, verified.stderr.as_str()), (Some(0), ""));
    assert!(verified.stdout.starts_with("stdin: clean: 4 valid entries up to index 4"), "{verified:?}");
    assert_eq!(run_on(&["log", "show", "-", "-o", "json"], &sample.path).stdout, sample.text);
    let sample = sample.rewritten(|text| text.replace("chips", "chirp"));
    let verified = run_on(&["log", "verify", "-"], &sample.path);
    assert_eq!(verified.code, Some(6));
    assert!(verified.stderr.contains("stdin: line 3"), "{verified:?}");
}

/// An input that is not a backup creates no data folder.
#[test]
fn a_file_that_is_no_backup_is_not_restored() {
    let sample = Sample::new().rewritten(|_| "shopping: chips\n".to_owned());
    let folder = sample.path.with_file_name("restored");
    let restored = run_on(&["restore", "-", "--data-dir", folder.to_str().unwrap()], &sample.path);
    assert_eq!((restored.code, restored.stdout.as_str()), (Some(6), ""));
    assert!(restored.stderr.contains("stdin: this is not a Coracle file"), "{restored:?}");
    assert!(!folder.exists());
}

/// The snapshot covers the earlier entries. The rest is a log like any other, except for its first
/// index.
#[test]
fn a_log_behind_a_snapshot_is_shown_and_verified() {
    let sample =
        Sample::after(LAST, &[(3, r#""op":"PUT","key":"snack","value":"chips""#), (4, r#""op":"NOOP""#)]);
    let shown = sample.log(&["show"]);
    assert_eq!((shown.code, shown.stderr.as_str()), (Some(0), ""));
    assert!(shown.stdout.contains("after        index 41, term 3, crc c0ac1e00"), "{shown:?}");
    let first = shown.stdout.lines().find(|line| line.contains("PUT")).unwrap();
    assert_eq!(first.split_whitespace().take(3).collect::<Vec<_>>(), ["42", "3", "PUT"]);

    let verified = sample.log(&["verify"]);
    assert!(verified.stdout.contains("clean: 2 valid entries up to index 43, term 4"), "{verified:?}");

    let empty = Sample::after(LAST, &[]).log(&["verify"]);
    assert_eq!(empty.code, Some(0));
    assert!(empty.stdout.contains("clean: 0 valid entries up to index 41, term 3"), "{empty:?}");
}

#[test]
fn a_whole_snapshot_is_shown_and_verified() {
    let sample = Sample::snapshot();
    let shown = sample.log(&["show"]);
    assert_eq!((shown.code, shown.stderr.as_str()), (Some(0), ""));
    let lines = shown.stdout.lines().collect::<Vec<_>>();
    assert!(lines.contains(&"last         index 41, term 3, crc c0ac1e00"), "{shown:?}");
    assert_eq!(lines.last(), Some(&r#"{"key":"snack","value":"chips"}"#));
    assert_eq!(sample.log(&["show", "-o", "json"]).stdout, sample.text);

    let verified = sample.log(&["verify"]);
    assert_eq!((verified.code, verified.stderr.as_str()), (Some(0), ""));
    assert!(verified.stdout.contains("clean: a snapshot of 2 lines up to index 41, term 3"), "{verified:?}");
    let verified = sample.log(&["verify", "-o", "json"]);
    let report: serde_json::Value = serde_json::from_str(&verified.stdout).unwrap();
    assert_eq!((&report["verdict"], &report["lines"]), (&"clean".into(), &2.into()));
    assert_eq!(report["last_index"], 41);
}

/// An incomplete or changed snapshot is reported as damaged, and none of it is shown.
#[test]
fn a_snapshot_that_is_not_whole_is_named() {
    let changed = |text: &str| text.replace("chips", "chirp");
    let cut = |text: &str| text[..text.len() - SNAPSHOT_END.len()].to_owned();
    let newer = |text: &str| text.replacen("\"version\":1", "\"version\":99", 1);
    let samples = [
        (Sample::snapshot().rewritten(changed), "checksum"),
        (Sample::snapshot().rewritten(cut), "does not end a snapshot"),
        (Sample::snapshot().rewritten(newer), "version 99"),
    ];
    for (sample, word) in samples {
        let shown = sample.log(&["show"]);
        assert_eq!((shown.code, shown.stdout.as_str()), (Some(6), ""));
        let verified = sample.log(&["verify"]);
        assert_eq!(verified.code, Some(6));
        assert!(verified.stdout.contains("damaged: a snapshot that is not whole"), "{verified:?}");
        for ended in [shown, verified] {
            assert!(ended.stderr.contains(sample.path.to_str().unwrap()), "{ended:?}");
            assert!(ended.stderr.contains(word), "{word} is missing in {ended:?}");
        }
        let verified = sample.log(&["verify", "-o", "json"]);
        assert!(verified.stdout.contains(r#""verdict":"damaged","bytes":"#), "{verified:?}");
    }
}

/// As in `coracle log show FILE | head -1`: the reader of stdout leaves before the output ends.
#[test]
fn a_reader_that_leaves_early_is_no_failure() {
    let value = format!(r#""op":"PUT","key":"long","value":"{}""#, "x".repeat(10_000));
    let sample = Sample::with_entries(&vec![(1, value.as_str()); 100]);
    let mut show = coracle()
        .args(["log", "show", "-o", "json"])
        .arg(&sample.path)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = show.stdout.take().unwrap();
    stdout.read_exact(&mut [0]).unwrap();
    drop(stdout);
    let ended = Ended::from(show.wait_with_output().unwrap());
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
}
