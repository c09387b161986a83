//! Command lines that clap alone would misunderstand: flags of a client command before the command,
//! and an invalid address in an environment variable.
//!
//! `coracle --connect ADDR get KEY` has one possible meaning, so it is accepted. Where there is no
//! such meaning, the error message says where the flag belongs; clap would suggest the flag with
//! the most similar name.

use std::error::Error as _;
use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Command, CommandFactory};

use crate::arguments::CommandLine;

/// The flags that client commands share.
const CLIENT_FLAGS: [&str; 4] = ["--connect", "--timeout", "--output", "-o"];

/// Moves leading flags of a client command behind the command.
pub(crate) fn in_order(arguments: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut arguments: Vec<_> = arguments.collect();
    let flags = 1..leading_flags_end(&arguments);
    let end = command_end(&arguments, flags.end);
    let takes_all = |command: &Command| arguments[flags.clone()].iter().all(|word| takes(command, word));
    if flags.is_empty() || !end.is_some_and(|(_, command)| takes_all(&command)) {
        return arguments;
    }
    let (end, _) = command_end(&arguments, flags.end).expect("it was found before");
    arguments[1..end].rotate_left(flags.len());
    arguments
}

/// Returns the index after the leading client flags and their values.
fn leading_flags_end(arguments: &[OsString]) -> usize {
    let mut at = 1;
    while let Some(word) = arguments.get(at).and_then(|word| word.to_str()) {
        if CLIENT_FLAGS.contains(&word) {
            at += 2;
        } else if CLIENT_FLAGS
            .iter()
            .any(|flag| word.strip_prefix(flag).is_some_and(|rest| rest.starts_with('=')))
        {
            at += 1;
        } else {
            break;
        }
    }
    at
}

/// Returns the command whose names begin at index `at`, and the index after its names.
fn command_end(arguments: &[OsString], mut at: usize) -> Option<(usize, Command)> {
    let (begin, mut command) = (at, CommandLine::command());
    while let Some(found) = arguments.get(at).and_then(|name| command.find_subcommand(name)) {
        command = found.clone();
        at += 1;
    }
    (at > begin).then_some((at, command))
}

/// Returns whether the command accepts this flag. A word that is the value of a flag counts as
/// accepted.
fn takes(command: &Command, word: &OsString) -> bool {
    let word = word.to_str().unwrap_or_default();
    let name = word.split('=').next().unwrap_or_default();
    if !CLIENT_FLAGS.contains(&name) {
        return true;
    }
    let is_it = |long: &str| name == format!("--{long}") || (name == "-o" && long == "output");
    command.get_arguments().filter_map(clap::Arg::get_long).any(is_it)
}

/// Returns a better message than clap's, if there is one.
pub(crate) fn complaint(error: &clap::Error, arguments: &[OsString]) -> Option<String> {
    let Some(ContextValue::String(flag)) = error.get(ContextKind::InvalidArg) else { return None };
    let flag = flag.split([' ', '=']).next().unwrap_or_default();
    match error.kind() {
        ErrorKind::UnknownArgument if CLIENT_FLAGS.contains(&flag) => Some(format!(
            "{flag} is a flag of client commands and follows them, as in `coracle get KEY {flag} ...`. A \
             server's own address is set with --listen"
        )),
        ErrorKind::ValueValidation if flag == "--connect" && !is_given(flag, arguments) => {
            let Some(ContextValue::String(value)) = error.get(ContextKind::InvalidValue) else { return None };
            let why = error.source().map(ToString::to_string).unwrap_or_default();
            Some(format!("the variable CORACLE_CONNECT is set to {value:?}: {why}"))
        }
        _ => None,
    }
}

fn is_given(flag: &str, arguments: &[OsString]) -> bool {
    let mut words = arguments.iter().filter_map(|word| word.to_str());
    words.any(|word| word.strip_prefix(flag).is_some_and(|rest| rest.is_empty() || rest.starts_with('=')))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ordered(line: &str) -> String {
        let words = in_order(line.split_whitespace().map(OsString::from));
        words.iter().map(|word| word.to_str().unwrap()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn flags_of_a_client_may_come_first() {
        for (typed, meant) in [
            ("coracle --connect a:1 get k", "coracle get --connect a:1 k"),
            ("coracle --connect=a:1 -o json get k --raw", "coracle get --connect=a:1 -o json k --raw"),
            ("coracle --timeout 1s member list", "coracle member list --timeout 1s"),
            ("coracle --output=json log verify f", "coracle log verify --output=json f"),
        ] {
            assert_eq!(ordered(typed), meant);
        }
    }

    #[test]
    fn a_command_line_without_such_a_meaning_is_unchanged() {
        for line in [
            "coracle",
            "coracle get k --connect a:1",
            "coracle --nodes 3",
            "coracle --connect a:1",
            "coracle --connect",
            "coracle --connect a:1 serve",
            "coracle --connect a:1 log verify f",
            "coracle --connect a:1 frobnicate",
            "coracle --connect get k",
        ] {
            assert_eq!(ordered(line), line);
        }
    }
}
