//! `log show` and `log verify` on files as a server writes them, and on what accidents make of such files.

use std::fs;
use std::io::Read;
use std::path::PathBuf;
use std::process::Stdio;

use coracle_core::raft::{BatchBuilder, LogPoint, Term};
use coracle_storage::{ClusterId, Identity, Incarnation, LogHeader};
use tempfile::TempDir;

use crate::{Ended, coracle, run};

/// A log of four entries in a folder of its own.
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
        let identity =
            Identity::for_new_cluster(ClusterId(0xc0), &[Incarnation(1), Incarnation(2)]).remove(0);
        let header = LogHeader { identity, after: LogPoint::ORIGIN };
        let mut builder = BatchBuilder::new(header.after);
        for (term, payload) in entries {
            builder.seal(Term(*term), |line| line.push_str(payload));
        }
        let mut text = String::from_utf8(header.encode()).unwrap();
        text.push_str(builder.finish().unwrap().text());
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log00.txt");
        fs::write(&path, &text).unwrap();
        Self { _folder: folder, path, text }
    }

    /// The same file with other content.
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
fn as_json_a_log_is_its_own_lines() {
    let sample = Sample::new();
    assert_eq!(sample.log(&["show", "-o", "json"]).stdout, sample.text);
    let verified = sample.log(&["verify", "-o", "json"]);
    let report: serde_json::Value = serde_json::from_str(&verified.stdout).unwrap();
    assert_eq!(report["verdict"], "clean");
    assert_eq!(report["entries"], 4);
    assert_eq!(report["last_index"], 4);
}

#[test]
fn a_torn_tail_is_told_apart_from_damage() {
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
fn what_is_no_log_is_refused() {
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

/// `coracle log show FILE | head -1`: the reader leaves while there is more to say.
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
