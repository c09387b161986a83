//! Final check of the files: each file verifies, and logs are identical where they overlap.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::Violation;
use crate::live::program;

/// Verifies the files of these nodes and compares the logs. Returns the number of entries that all
/// of them share.
pub(super) fn check(folders: &[(u64, PathBuf)]) -> Result<usize, Violation> {
    let mut common: Option<BTreeMap<u64, String>> = None;
    for (node, folder) in folders {
        for name in [format!("log{node:02}.txt"), format!("snap{node:02}.txt")] {
            let path = folder.join(name);
            if path.exists() {
                verify(&path)?;
            }
        }
        let log = entries(&folder.join(format!("log{node:02}.txt")))?;
        common = Some(match common {
            None => log,
            Some(before) => shared_part(before, &log, *node)?,
        });
    }
    Ok(common.map_or(0, |common| common.len()))
}

fn shared_part(
    before: BTreeMap<u64, String>,
    log: &BTreeMap<u64, String>,
    node: u64,
) -> Result<BTreeMap<u64, String>, Violation> {
    for (index, line) in &before {
        if let Some(other) = log.get(index).filter(|other| *other != line) {
            let what = format!("entry {index} of node {node} is {other}, and that of another {line}");
            return Err(Violation { rule: "logs agree where they overlap", what });
        }
    }
    Ok(before.into_iter().filter(|(index, _)| log.contains_key(index)).collect())
}

fn verify(path: &Path) -> Result<(), Violation> {
    let rule = "every file is what its node wrote";
    let output = Command::new(program()).args(["log", "verify"]).arg(path).output();
    let output = output.map_err(|error| Violation { rule, what: error.to_string() })?;
    if output.status.success() {
        return Ok(());
    }
    let what = format!("{}: {}", path.display(), String::from_utf8_lossy(&output.stderr).trim());
    Err(Violation { rule, what })
}

/// The lines of a log by index. Their checksums are chained, so each line covers all lines before
/// it.
fn entries(path: &Path) -> Result<BTreeMap<u64, String>, Violation> {
    let wrong = |what: String| Violation {
        rule: "a log is lines of JSON",
        what: format!("{}: {what}", path.display()),
    };
    let text = fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    let mut entries = BTreeMap::new();
    for line in text.lines().skip(1) {
        let entry: Value = serde_json::from_str(line).map_err(|error| wrong(format!("{error}: {line}")))?;
        let index = entry["index"].as_u64().ok_or_else(|| wrong(format!("no index: {line}")))?;
        entries.insert(index, line.to_owned());
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_that_differ_at_an_index_are_found() {
        let log =
            |lines: &[(u64, &str)]| lines.iter().map(|(index, line)| (*index, (*line).to_owned())).collect();
        let one: BTreeMap<u64, String> = log(&[(1, "a"), (2, "b"), (3, "c")]);
        let shared = shared_part(one.clone(), &log(&[(2, "b"), (3, "c"), (4, "d")]), 2).unwrap();
        assert_eq!(shared.len(), 2);
        assert!(shared_part(one, &log(&[(3, "x")]), 2).is_err());
    }
}
