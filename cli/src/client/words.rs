//! Splits a line into words as a shell does, except that JSON needs no quotes: `put k {"a": 1}
//! --json`.
//!
//! A shell would remove the quotes of JSON and split it at its spaces, so JSON would have to be
//! quoted once more. A user does not expect that at the prompt. So a word that begins with a
//! bracket and is complete JSON counts as one word.

use std::borrow::Cow;

use serde::de::IgnoredAny;

/// Returns the words; `None` when a quote is not closed, or when the line ends in a backslash.
pub(super) fn split(line: &str) -> Option<Vec<String>> {
    shlex::split(&quoted(line))
}

/// Returns the line with quotes around its JSON words.
fn quoted(line: &str) -> Cow<'_, str> {
    let mut result = String::new();
    let (mut copied, mut at) = (0, 0);
    let (mut quote, mut is_escaped, mut is_start) = (None, false, true);
    while let Some(character) = line[at..].chars().next() {
        if is_start && character == '#' {
            // The rest is a comment.
            break;
        }
        if is_start && let Some(json) = json_word(&line[at..]) {
            result.push_str(&line[copied..at]);
            // A zero byte cannot be quoted, but valid JSON contains none.
            result.push_str(&shlex::try_quote(json).unwrap_or(Cow::Borrowed(json)));
            at += json.len();
            (copied, is_start) = (at, false);
            continue;
        }
        is_start = false;
        match (quote, character) {
            _ if is_escaped => is_escaped = false,
            (None | Some('"'), '\\') => is_escaped = true,
            (None, '\'' | '"') => quote = Some(character),
            (Some(open), _) if open == character => quote = None,
            (None, ' ' | '\t' | '\n') => is_start = true,
            _ => {}
        }
        at += character.len_utf8();
    }
    if copied == 0 {
        return Cow::Borrowed(line);
    }
    result.push_str(&line[copied..]);
    Cow::Owned(result)
}

/// Returns the JSON object or array at the beginning of the text, if it is a complete word.
fn json_word(text: &str) -> Option<&str> {
    if !text.starts_with(['{', '[']) {
        return None;
    }
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<IgnoredAny>();
    values.next()?.ok()?;
    let (json, rest) = text.split_at(values.byte_offset());
    (rest.is_empty() || rest.starts_with(char::is_whitespace)).then_some(json)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str, words: &[&str]) {
        assert_eq!(
            split(line).as_deref(),
            Some(&words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>()[..]),
            "{line}"
        );
    }

    #[test]
    fn json_is_one_word_as_it_is() {
        check(r#"put k {"a": [1, "x y"]} --json"#, &["put", "k", r#"{"a": [1, "x y"]}"#, "--json"]);
        check(r#"cas k --expect [1, 2] [] --json"#, &["cas", "k", "--expect", "[1, 2]", "[]", "--json"]);
        check(r#"put k {"it's":"\\"}"#, &["put", "k", r#"{"it's":"\\"}"#]);
        check(r#"put k '{"a": 1}' --json"#, &["put", "k", r#"{"a": 1}"#, "--json"]);
    }

    #[test]
    fn everything_else_is_split_as_in_a_shell() {
        check("put 'a b' \"c d\" e\\ f", &["put", "a b", "c d", "e f"]);
        check("put k {a b", &["put", "k", "{a", "b"]);
        check("put k [x]", &["put", "k", "[x]"]);
        check(r#"put k {"a":1}x"#, &["put", "k", "{a:1}x"]);
        check(r#"put k x{"a":1}"#, &["put", "k", "x{a:1}"]);
        check(r#"put k "{}  []""#, &["put", "k", "{}  []"]);
        check(r#"ping # {"a": 1}"#, &["ping"]);
        check("", &[]);
        assert_eq!(split("put 'a"), None);
        assert_eq!(split("put {} 'a"), None);
        assert_eq!(split("put a\\"), None);
    }
}
