//! Formatting of output on stdout: the choice of format, values and keys as text, escaping, and
//! columns.
//!
//! Each command decides what it prints.

use std::borrow::Cow;
use std::io::{self, Write};

use clap::ValueEnum;
use serde_json::value::RawValue;

/// The value of the flag `-o`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people and for line-wise tools.
    #[default]
    Text,
    /// For programs: JSON as the server sent it.
    Json,
    /// The same, but one object per line for a scan.
    Jsonl,
}

impl Format {
    pub(crate) fn is_text(self) -> bool {
        self == Self::Text
    }
}

/// Formats a value as text: a string as its characters, as `jq -r` prints it, and any other value
/// as its JSON.
pub(crate) fn plain(value: &RawValue) -> String {
    // A string that is not valid Unicode, such as half a surrogate pair, stays JSON too.
    serde_json::from_str(value.get()).unwrap_or_else(|_| value.get().to_owned())
}

/// Formats a value for a terminal: as [`plain`], but a string keeps its quotes if it is empty, if
/// it looks like another JSON value, as `42` does, or if it contains terminal control characters.
pub(crate) fn unmistakable(value: &RawValue) -> String {
    match serde_json::from_str::<String>(value.get()) {
        Ok(text) if !looks_like_json(&text) && calm(&text) == text => text,
        _ => harmless(value.get()).into_owned(),
    }
}

/// Returns whether a string without its quotes is empty or looks like another JSON value.
fn looks_like_json(text: &str) -> bool {
    text.is_empty() || serde_json::from_str::<&RawValue>(text).is_ok()
}

/// Escapes text of several lines for a terminal: as [`harmless`], but keeps line breaks and tabs.
pub(crate) fn calm(text: &str) -> Cow<'_, str> {
    if harmless(text) == text {
        return Cow::Borrowed(text);
    }
    let pieces = text.split_inclusive(['\n', '\t']).map(|piece| match piece.strip_suffix(['\n', '\t']) {
        Some(rest) => format!("{}{}", harmless(rest), &piece[rest.len()..]),
        None => harmless(piece).into_owned(),
    });
    Cow::Owned(pieces.collect())
}

/// Formats a value for a table cell or a separate line: as [`plain`], with line breaks and other
/// characters escaped that would break the line.
pub(crate) fn one_line(value: &RawValue) -> String {
    match serde_json::from_str::<String>(value.get()) {
        Ok(text) => escaped(&text),
        // JSON text contains no line breaks and no tabs, but may contain other control characters.
        Err(_) => harmless(value.get()).into_owned(),
    }
}

/// The same for a terminal, where a string must not look like another JSON value.
pub(crate) fn unmistakable_line(value: &RawValue) -> String {
    match serde_json::from_str::<String>(value.get()) {
        Ok(text) if looks_like_json(&text) => harmless(value.get()).into_owned(),
        _ => one_line(value),
    }
}

/// Escapes text so that it stays on its line and in its column: `\t`, `\n`, `\r`, `\\`, and
/// `\u00XX` for other control characters.
pub(crate) fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\t' => escaped.push_str("\\t"),
            '\n' => escaped.push_str("\\n"),
            '\r' => escaped.push_str("\\r"),
            '\\' => escaped.push_str("\\\\"),
            control if control.is_control() || matches!(control, '\u{2028}' | '\u{2029}') => {
                escaped.push_str(&format!("\\u{:04x}", u32::from(control)));
            }
            other => escaped.push(other),
        }
    }
    escaped
}

/// Escapes only characters that would break the line or control a terminal: control characters and
/// Unicode line separators, as `\n` or `\u001b`. Unlike [`escaped`], it keeps backslashes.
pub(crate) fn harmless(text: &str) -> Cow<'_, str> {
    let is_harmful = |character: char| character.is_control() || matches!(character, '\u{2028}' | '\u{2029}');
    if !text.contains(is_harmful) {
        return Cow::Borrowed(text);
    }
    let mut harmless = String::with_capacity(text.len() + 8);
    for character in text.chars() {
        match character {
            '\n' => harmless.push_str("\\n"),
            '\t' => harmless.push_str("\\t"),
            '\r' => harmless.push_str("\\r"),
            harmful if is_harmful(harmful) => harmless.push_str(&format!("\\u{:04x}", u32::from(harmful))),
            other => harmless.push(other),
        }
    }
    Cow::Owned(harmless)
}

/// Escapes a message that may contain text from a server or a file: keeps its line breaks, and
/// escapes everything else that could control a terminal.
pub(crate) fn harmless_lines(message: &str) -> String {
    let lines: Vec<_> = message.split('\n').map(harmless).collect();
    lines.join("\n")
}

/// Writes rows in columns, each as wide as its widest cell, without spaces at the end of a line.
pub(crate) fn write_columns<const N: usize>(out: &mut dyn Write, rows: &[[String; N]]) -> io::Result<()> {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    for row in rows {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
        writeln!(out, "{}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(text: &str) -> Box<RawValue> {
        RawValue::from_string(text.to_owned()).unwrap()
    }

    #[test]
    fn strings_lose_their_quotes_and_everything_else_stays_json() {
        assert_eq!(plain(&raw(r#""a\tb\u00e4""#)), "a\tbä");
        for json in ["1e400", "18446744073709551617", "true", r#"{"a":"x"}"#, r#""\ud800""#] {
            assert_eq!(plain(&raw(json)), json);
        }
    }

    #[test]
    fn an_escaped_text_has_no_tab_and_no_line_break_and_can_be_undone() {
        assert_eq!(one_line(&raw(r#""a\tb\nc\rd\\e\u001bf""#)), r"a\tb\nc\rd\\e\u001bf");
        assert_eq!(one_line(&raw(r#"{"a":"x\ty"}"#)), r#"{"a":"x\ty"}"#);
        assert_eq!(escaped("plain text, ünïcödé"), "plain text, ünïcödé");
    }

    #[test]
    fn on_a_terminal_no_string_looks_like_another_value() {
        for (value, shown) in [
            ("42", "42"),
            (r#""42""#, r#""42""#),
            (r#"" 42""#, r#"" 42""#),
            ("true", "true"),
            (r#""true""#, r#""true""#),
            (r#""{\"a\":1}""#, r#""{\"a\":1}""#),
            (r#""\"42\"""#, r#""\"42\"""#),
            (r#""""#, r#""""#),
            (r#""chips""#, "chips"),
            (r#""42 chips""#, "42 chips"),
        ] {
            assert_eq!(unmistakable(&raw(value)), shown);
            assert_eq!(unmistakable_line(&raw(value)), shown);
        }
        assert_eq!(unmistakable(&raw(r#""two\nlines\tand a tab""#)), "two\nlines\tand a tab");
    }

    #[test]
    fn on_a_terminal_control_characters_are_escaped() {
        assert_eq!(unmistakable(&raw(r#""\u001b[2J""#)), r#""\u001b[2J""#);
        assert_eq!(unmistakable(&raw("[\"\u{9b}2J\"]")), r#"["\u009b2J"]"#);
        assert_eq!(one_line(&raw("[\"\u{7f}\"]")), r#"["\u007f"]"#);
        assert_eq!(calm("a\tb\n\u{1b}[2J\r\n"), "a\tb\n\\u001b[2J\\r\n");
        assert_eq!(calm("as it is\n"), "as it is\n");
    }

    #[test]
    fn columns_line_up() {
        let rows = [["ID", "ROLE", "X"], ["0", "follower", "-"], ["10", "leader", ""]];
        let mut out = Vec::new();
        write_columns(&mut out, &rows.map(|row| row.map(str::to_owned))).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "ID  ROLE      X\n0   follower  -\n10  leader\n");
    }
}
