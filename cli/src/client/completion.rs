//! Tab completion of the interactive client: commands, their flags, and the keys in the store.
//!
//! Keys are requested over a separate connection with a short timeout, so that Tab never waits long
//! and its requests never mix with those of a command. When the server does not answer, no keys are
//! offered.

use std::borrow::Cow;
use std::cell::RefCell;
use std::time::Duration;

use rustyline::completion::{Completer, Pair};
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::validate::Validator;
use rustyline::{Context, Helper};

use super::line::vocabulary;
use crate::caller::Caller;
use crate::request::{Effect, Range, Request};
use crate::target::Target;

/// The timeout of a request for keys. Chosen so that the wait is noticeable but not annoying.
const TIMEOUT: Duration = Duration::from_millis(500);

/// The maximum number of keys that Tab offers. Arbitrary: more than a user reads.
const KEYS_MAX: u64 = 100;

/// The completer of the client's prompt.
pub(super) struct Completion {
    caller: RefCell<Caller>,
}

impl Completion {
    pub(super) fn new(target: &Target) -> Self {
        Self { caller: RefCell::new(target.impatient_caller(TIMEOUT)) }
    }

    fn keys(&self, prefix: &str) -> Vec<String> {
        let request = Request::Scan(Range { prefix, limit: KEYS_MAX, ..Range::default() });
        let Ok(reply) = self.caller.borrow_mut().call(request) else { return Vec::new() };
        if reply.refusal(Effect::Reads).is_some() {
            return Vec::new();
        }
        reply.items.unwrap_or_default().into_iter().map(|item| item.key).collect()
    }
}

impl Completer for Completion {
    type Candidate = Pair;

    fn complete(&self, line: &str, pos: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<Pair>)> {
        let typed = Typed::read(&line[..pos]);
        let candidates = match typed.words.as_slice() {
            [] => commands(&typed.last),
            [command] if typed.last.starts_with('-') => flags(command, &typed.last),
            [command] if takes_key(command) => self.keys(&typed.last),
            [command] => actions(command, &typed.last),
            [command, ..] => flags(command, &typed.last),
        };
        Ok((typed.last_start, candidates.into_iter().map(pair).collect()))
    }
}

impl Helper for Completion {}
impl Highlighter for Completion {}
impl Hinter for Completion {
    type Hint = String;
}
impl Validator for Completion {}

/// The part of the line before the cursor, split into words.
#[derive(Debug, PartialEq, Eq)]
struct Typed {
    /// The complete words, without their quotes.
    words: Vec<String>,
    /// The word at the cursor, without its quotes; empty after a space.
    last: String,
    /// The byte offset at which that word begins, including its quotes.
    last_start: usize,
}

impl Typed {
    fn read(text: &str) -> Self {
        let last_start = last_word_start(text);
        let last = &text[last_start..];
        // An unfinished word may have an open quote, or end in a backslash.
        let closings = ["", "'", "\"", " "];
        let unquoted = closings.iter().find_map(|closing| shlex::split(&format!("{last}{closing}")));
        Self {
            words: shlex::split(&text[..last_start]).unwrap_or_default(),
            last: unquoted.unwrap_or_default().into_iter().next().unwrap_or_default(),
            last_start,
        }
    }
}

fn last_word_start(text: &str) -> usize {
    let mut start = 0;
    let mut quote = None;
    let mut is_escaped = false;
    for (position, character) in text.char_indices() {
        match (quote, character) {
            _ if is_escaped => is_escaped = false,
            (None | Some('"'), '\\') => is_escaped = true,
            (None, '\'' | '"') => quote = Some(character),
            (Some(open), _) if open == character => quote = None,
            (None, ' ' | '\t') => start = position + 1,
            _ => {}
        }
    }
    start
}

fn commands(prefix: &str) -> Vec<String> {
    let mut vocabulary = vocabulary();
    // The subcommand `help` exists only after the command is built.
    vocabulary.build();
    let all = vocabulary.get_subcommands().flat_map(clap::Command::get_name_and_visible_aliases);
    all.filter(|name| name.starts_with(prefix)).map(str::to_owned).collect()
}

/// Returns the subcommands of a command such as `member`.
fn actions(command: &str, prefix: &str) -> Vec<String> {
    let vocabulary = vocabulary();
    let Some(command) = vocabulary.find_subcommand(command) else { return Vec::new() };
    let all = command.get_subcommands().map(clap::Command::get_name);
    all.filter(|name| name.starts_with(prefix)).map(str::to_owned).collect()
}

fn flags(command: &str, prefix: &str) -> Vec<String> {
    if !prefix.starts_with('-') {
        return Vec::new();
    }
    let vocabulary = vocabulary();
    let Some(command) = vocabulary.find_subcommand(command) else { return Vec::new() };
    let all = command.get_arguments().filter_map(clap::Arg::get_long).map(|long| format!("--{long}"));
    all.filter(|flag| flag.starts_with(prefix)).collect()
}

fn takes_key(command: &str) -> bool {
    matches!(command, "put" | "get" | "delete" | "cas" | "scan")
}

/// Returns a candidate that is displayed as it is, and inserted with the quotes that it needs.
fn pair(candidate: String) -> Pair {
    let quoted = shlex::try_quote(&candidate).map(Cow::into_owned);
    Pair { replacement: quoted.unwrap_or_else(|_| candidate.clone()), display: candidate }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(text: &str) -> (Vec<String>, String, usize) {
        let typed = Typed::read(text);
        (typed.words, typed.last, typed.last_start)
    }

    #[test]
    fn the_word_at_the_cursor_is_found_through_quotes() {
        let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
        assert_eq!(typed(""), (words(&[]), String::new(), 0));
        assert_eq!(typed("ge"), (words(&[]), "ge".to_owned(), 0));
        assert_eq!(typed("get "), (words(&["get"]), String::new(), 4));
        assert_eq!(typed("get us"), (words(&["get"]), "us".to_owned(), 4));
        assert_eq!(typed("get 'my k"), (words(&["get"]), "my k".to_owned(), 4));
        assert_eq!(typed("get \"my k"), (words(&["get"]), "my k".to_owned(), 4));
        assert_eq!(typed("get my\\ k"), (words(&["get"]), "my k".to_owned(), 4));
        assert_eq!(typed("put 'a b' --j"), (words(&["put", "a b"]), "--j".to_owned(), 10));
    }

    #[test]
    fn commands_and_their_flags_are_offered() {
        assert_eq!(commands("s"), ["scan", "status"]);
        assert_eq!(commands("he"), ["help"]);
        assert!(commands("").len() >= 9);
        assert_eq!(flags("get", "--"), ["--linearizable", "--raw", "--meta"]);
        assert_eq!(flags("cas", "--a"), ["--absent"]);
        assert_eq!(actions("member", "p"), ["promote"]);
        assert_eq!(actions("member", ""), ["list", "add", "promote", "remove"]);
        assert!(actions("status", "").is_empty());
        assert!(flags("get", "x").is_empty() && flags("nonsense", "--").is_empty());
    }

    #[test]
    fn a_key_is_inserted_with_the_quotes_it_needs() {
        assert_eq!(pair("plain:key".to_owned()).replacement, "plain:key");
        let quoted = pair("two words".to_owned());
        assert_eq!(shlex::split(&quoted.replacement).unwrap(), ["two words"]);
        assert_eq!(quoted.display, "two words");
    }
}
