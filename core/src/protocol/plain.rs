//! A fast path for the two plain requests, put and get, which parses them without a JSON parser.
//!
//! Most lines are exactly `{"key":"snack","value":"chips"}` or `{"key":"snack"}`. Lines that differ
//! in any byte of this form, and invalid ones, are left to the full parser. The full parser is also
//! the reference: it gives the same result for plain lines.

use super::request::{Question, Shape};
use crate::kv::{Command, Key, Query, Value, may_need_escape};

/// Parses a plain request; `None`: the line is not a valid plain request.
pub(super) fn plain(line: &[u8]) -> Option<Question> {
    let text = std::str::from_utf8(line).ok()?.strip_prefix("{\"key\":")?;
    let (key, rest) = take_string(text)?;
    let key = Key::new(&key[1..key.len() - 1]).ok()?;
    if rest == "}" {
        return Some(Question::Read(Query::Value(key.clone()), Shape::Get { key, is_plain: true }));
    }
    let (value, rest) = take_string(rest.strip_prefix(",\"value\":")?)?;
    if rest != "}" {
        return None;
    }
    let value = Value::from_plain_string(value).ok()?;
    let command = Command::Put { key: key.clone(), value: value.clone() };
    Some(Question::Write(command, None, Shape::Put { key, value, ttl: None }))
}

/// Splits a string without escapes, with its quotes, off the front of `text`.
fn take_string(text: &str) -> Option<(&str, &str)> {
    let len = text.strip_prefix('"')?.bytes().position(may_need_escape)?;
    let (string, rest) = text.split_at_checked(len + 2)?;
    string.ends_with('"').then_some((string, rest))
}

#[cfg(test)]
mod tests {
    use super::super::request::parse_in_full;
    use super::*;
    use crate::kv::{KEY_BYTES_MAX, VALUE_BYTES_MAX};

    fn parsed(line: &[u8]) -> Option<String> {
        parse_in_full(line).ok().map(|call| format!("{:?} {:?}", call.id, call.question))
    }

    fn read(line: &[u8]) -> Option<String> {
        plain(line).map(|question| format!("None {question:?}"))
    }

    #[test]
    fn the_fast_path_agrees_with_the_parser_on_plain_lines() {
        let longest = format!(r#"{{"key":"{}"}}"#, "k".repeat(KEY_BYTES_MAX));
        let largest = format!(r#"{{"key":"k","value":"{}"}}"#, "v".repeat(VALUE_BYTES_MAX - 2));
        let plain = [r#"{"key":"a"}"#, r#"{"key":"größe","value":""}"#, r#"{"key":"}","value":"{,}"}"#];
        for line in plain.into_iter().chain([longest.as_str(), largest.as_str()]) {
            assert_eq!(read(line.as_bytes()), parsed(line.as_bytes()));
            assert!(read(line.as_bytes()).is_some());
        }
    }

    #[test]
    fn everything_else_is_left_to_the_parser() {
        let too_long = format!(r#"{{"key":"{}"}}"#, "k".repeat(KEY_BYTES_MAX + 1));
        let too_large = format!(r#"{{"key":"k","value":"{}"}}"#, "v".repeat(VALUE_BYTES_MAX - 1));
        let others = [
            r#"{"key":""}"#,
            r#"{"key":"a" }"#,
            r#"{"key":"a","value":1}"#,
            r#"{"key":"a","value":"b","id":1}"#,
            r#"{"key":"a\n","value":"b"}"#,
            r#"{"value":"b","key":"a"}"#,
            r#"{"key":"a"}}"#,
            r#"{"key":"a"#,
            "{\"key\":\"a\tb\"}",
        ];
        for line in others.into_iter().chain([too_long.as_str(), too_large.as_str()]) {
            assert_eq!(read(line.as_bytes()), None, "{line}");
        }
        assert_eq!(read(b"{\"key\":\"\xff\"}"), None);
    }

    #[test]
    fn the_fast_path_agrees_with_the_parser_on_random_lines() {
        let mut rng = fastrand::Rng::with_seed(5);
        let pieces = [
            "{",
            "}",
            "\"",
            "key",
            "value",
            ":",
            ",",
            "\"key\":",
            "\"value\":",
            "a",
            "ä",
            "\\",
            "\\\"",
            " ",
            "\t",
            "\u{0}",
            "{\"key\":\"",
            "\",\"value\":\"",
            "\"}",
        ];
        let mut understood = 0;
        for _ in 0..200_000 {
            let mut line = String::from(if rng.bool() { "{\"key\":\"" } else { "" });
            (0..rng.usize(0..6)).for_each(|_| line.push_str(pieces[rng.usize(..pieces.len())]));
            if let Some(read) = read(line.as_bytes()) {
                understood += 1;
                assert_eq!(Some(read), parsed(line.as_bytes()), "{line}");
            }
        }
        assert!(understood > 100, "{understood}");
    }
}
