//! VALUE arguments: a string, JSON text with `--json`, or `-` to read from stdin.
//!
//! JSON is validated and compacted to one line. It is never parsed to numbers or objects and
//! encoded again, so the server receives every digit and every key as typed.

use std::io::{self, Read};

use serde_json::value::RawValue;
use thiserror::Error;

use crate::exit::Exit;
use crate::output::harmless;

/// Whether a command may read its value from stdin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stdin {
    Free,
    /// The client reads its commands from stdin.
    Taken,
}

/// Why a VALUE is invalid.
#[derive(Debug, Error)]
pub(crate) enum ValueError {
    #[error("this is not JSON: {0}\nwithout --json the value is taken as a string")]
    NotJson(#[source] serde_json::Error),
    #[error("stdin is not UTF-8 text, and values are JSON: encode binary data first, as with base64")]
    NotText,
    #[error("cannot read the value from stdin: {0}")]
    Stdin(#[source] io::Error),
    #[error("inside the client, - cannot read stdin: it is where the commands come from")]
    StdinTaken,
}

impl ValueError {
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::NotJson(_) | Self::NotText | Self::StdinTaken => Exit::Usage,
            Self::Stdin(_) => Exit::Failure,
        }
    }
}

/// Returns the JSON text of a VALUE, which may be `-`.
pub(crate) fn value(text: &str, is_json: bool, stdin: Stdin) -> Result<Box<RawValue>, ValueError> {
    match (text, stdin) {
        ("-", Stdin::Free) => literal(&from_stdin()?, is_json),
        ("-", Stdin::Taken) => Err(ValueError::StdinTaken),
        _ => literal(text, is_json),
    }
}

/// Returns the JSON text of a value on the command line itself.
pub(crate) fn literal(text: &str, is_json: bool) -> Result<Box<RawValue>, ValueError> {
    let json = if is_json { one_line(text)? } else { quoted(text) };
    RawValue::from_string(json).map_err(ValueError::NotJson)
}

/// Encodes a string as JSON. Line separators and control characters are escaped, so it stays on one
/// line and cannot control a terminal.
pub(crate) fn quoted(text: &str) -> String {
    let json = serde_json::to_string(text).expect("a string always encodes");
    harmless(&json).into_owned()
}

fn from_stdin() -> Result<String, ValueError> {
    let mut text = Vec::new();
    io::stdin().lock().read_to_end(&mut text).map_err(ValueError::Stdin)?;
    String::from_utf8(text).map_err(|_| ValueError::NotText)
}

/// Removes the white space between JSON tokens.
fn one_line(text: &str) -> Result<String, ValueError> {
    let text = serde_json::from_str::<&RawValue>(text).map_err(ValueError::NotJson)?.get();
    let (mut is_inside_string, mut is_escaped) = (false, false);
    let keep = |character: &char| {
        if is_escaped {
            is_escaped = false;
        } else {
            is_inside_string ^= *character == '"';
            is_escaped = is_inside_string && *character == '\\';
        }
        is_inside_string || !character.is_ascii_whitespace()
    };
    Ok(text.chars().filter(keep).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str) -> String {
        value(text, true, Stdin::Taken).unwrap().get().to_owned()
    }

    #[test]
    fn a_plain_value_is_a_string_whatever_it_looks_like() {
        for text in ["chips", "5", "null", "{\"a\":1}", "", "tab\tand\nline", "ünïcödé"] {
            let raw = literal(text, false).unwrap();
            assert!(!raw.get().contains('\n'));
            assert_eq!(serde_json::from_str::<String>(raw.get()).unwrap(), text);
        }
    }

    #[test]
    fn json_keeps_every_digit_and_loses_only_white_space() {
        assert_eq!(json("18446744073709551617"), "18446744073709551617");
        assert_eq!(json(" 1e400 "), "1e400");
        assert_eq!(
            json("{ \"b\" : [ 1.0 ,\n 2 ],\t\"a\\\" b\" : \"c  \\\\\" }"),
            r#"{"b":[1.0,2],"a\" b":"c  \\"}"#
        );
    }

    #[test]
    fn invalid_json_is_rejected() {
        for text in ["", "chips", "{", "{'a':1}", "1 2"] {
            assert!(matches!(literal(text, true), Err(ValueError::NotJson(_))), "{text}");
        }
    }

    #[test]
    fn a_dash_cannot_read_the_stdin_that_carries_the_commands() {
        assert!(matches!(value("-", false, Stdin::Taken), Err(ValueError::StdinTaken)));
        assert_eq!(literal("-", false).unwrap().get(), "\"-\"");
    }
}
