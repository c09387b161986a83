//! The tracer: which calls a server makes, and how one of them is made to fail.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::Path;

use super::run::Moment;

/// What to put before a program so that its calls are written to `trace`, by name alone. The process keeps its number (`-D`).
pub(super) fn watching(trace: &Path) -> Vec<OsString> {
    let mut words: Vec<OsString> = ["strace", "-D", "-f", "-qq", "-s", "0", "-o"].map(OsString::from).into();
    words.push(trace.into());
    words
}

/// The same with this call failing.
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

/// How often each call was made, by the file of a trace.
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

/// Whether the call has failed on order.
pub(super) fn has_struck(trace: &Path) -> bool {
    fs::read(trace).is_ok_and(|bytes| String::from_utf8_lossy(&bytes).contains("(INJECTED)"))
}
