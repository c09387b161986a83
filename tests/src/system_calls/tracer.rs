//! The `strace` commands that record a server's system calls, and make one of them fail.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::Path;

use super::run::Moment;

/// The command prefix that records a program's calls in `trace`, by name alone. The process keeps
/// its id (`-D`).
pub(super) fn watching(trace: &Path) -> Vec<OsString> {
    let mut words: Vec<OsString> =
        ["strace", "-D", "-f", "-qq", "-y", "-s", "0", "-o"].map(OsString::from).into();
    words.push(trace.into());
    words
}

/// The command prefix that makes this call fail.
pub(super) fn failing(trace: &Path, call: &str, error: &str, moment: Moment) -> Vec<OsString> {
    let mut words = watching(trace);
    let when = match moment {
        Moment::At(number) => number.to_string(),
        Moment::From(number) => format!("{number}+"),
    };
    words.extend(["-e".into(), format!("trace={call}").into()]);
    words.extend(["-e".into(), format!("inject={call}:error={error}:when={when}").into()]);
    words
}

/// The number of calls of each kind in a trace.
pub(super) fn calls_made(trace: &Path) -> BTreeMap<String, usize> {
    let text = String::from_utf8_lossy(&fs::read(trace).expect("there is a trace")).into_owned();
    let mut calls = BTreeMap::new();
    for line in text.lines() {
        let call = line.split_once(' ').and_then(|(_, rest)| rest.trim_start().split_once('('));
        if let Some((name, _)) =
            call.filter(|(name, _)| !name.is_empty() && !name.contains([' ', '<', '-', '+']))
        {
            *calls.entry(name.to_owned()).or_default() += 1;
        }
    }
    calls
}

/// Returns whether the fault was injected.
pub(super) fn has_struck(trace: &Path) -> bool {
    fs::read(trace).is_ok_and(|bytes| String::from_utf8_lossy(&bytes).contains("(INJECTED)"))
}

/// Returns whether a fault was injected into a write to an event counter. In a real kernel a write
/// that adds 1 never fails, and a waiter that is not woken up would wait forever.
pub(super) fn has_struck_a_counter(trace: &Path) -> bool {
    let text = fs::read(trace).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    // Where another thread's call comes between, the first half of the line has the descriptor, and
    // the second one the error.
    let mut begun: BTreeMap<&str, bool> = BTreeMap::new();
    text.lines().filter_map(|line| line.split_once(' ')).any(|(thread, call)| {
        let is_resumed = call.trim_start().starts_with("<... ");
        let is_of_counter = if is_resumed {
            begun.remove(thread).unwrap_or_default()
        } else {
            call.contains("<anon_inode:[eventfd]>")
        };
        if call.contains("<unfinished ...>") {
            begun.insert(thread, is_of_counter);
        }
        is_of_counter && call.contains("(INJECTED)")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_is_known_by_its_descriptor() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let is_counter = |trace: &str| {
            fs::write(file.path(), trace).unwrap();
            has_struck_a_counter(file.path())
        };
        assert!(is_counter(
            "7 write(4<anon_inode:[eventfd]>, \"\"..., 8) = -1 EIO (Input/output error) (INJECTED)\n"
        ));
        let torn = "7  write(4<anon_inode:[eventfd]>, \"\"..., 8 <unfinished ...>\n9 write(6</d/log00.txt>, \"\"..., 5) = 5\n\
                    7 <... write resumed>) = -1 EIO (Input/output error) (INJECTED)\n";
        assert!(is_counter(torn));
        assert!(!is_counter(&torn.replace("7 <...", "9 <...").replace("9 write", "9 read")));
        assert!(!is_counter(
            "9 write(6</d/log00.txt>, \"\"..., 5) = -1 EIO (Input/output error) (INJECTED)\n"
        ));
        assert!(!is_counter("7 write(4<anon_inode:[eventfd]>, \"\"..., 8) = 8\n"));
    }
}
