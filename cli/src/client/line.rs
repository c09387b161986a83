//! Parser for one line of the client: splits it into words as a shell does, and parses them as a
//! command.

use clap::error::ErrorKind;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use thiserror::Error;

use super::words;
use crate::commands::{Cas, Delete, Get, Incr, Member, Persist, Ping, Put, Scan, Status, Touch, Transfer};

/// A parsed line.
#[derive(Debug)]
pub(super) enum Line<'a> {
    /// An empty line, or a comment.
    Nothing,
    /// A JSON request that is sent unchanged.
    Raw(&'a str),
    /// A text to print.
    Help(String),
    Word(Word),
}

/// The commands of the client.
#[derive(Debug, Subcommand)]
pub(super) enum Word {
    Put(Put),
    Get(Get),
    Delete(Delete),
    Cas(Cas),
    Incr(Incr),
    Touch(Touch),
    Persist(Persist),
    Scan(Scan),
    Status(Status),
    Transfer(Transfer),
    #[command(subcommand)]
    Member(Member),
    Ping(Ping),
    /// Leave, as does Ctrl-D
    #[command(visible_alias = "quit")]
    Exit,
}

/// Why a line could not be parsed.
#[derive(Debug, Error)]
pub(super) enum LineError {
    #[error("a quote is not closed, or the line ends in a backslash")]
    Quoting,
    #[error("{}", for_the_client(.0))]
    Usage(#[source] Box<clap::Error>),
}

#[derive(Parser)]
#[command(
    name = "",
    no_binary_name = true,
    disable_help_flag = true,
    max_term_width = 80,
    help_template = "{subcommands}{after-help}\n",
    after_help = "\
Words are quoted as in a shell: put motd 'hello, world'
JSON with brackets is one word: put user {\"name\": \"Ada\"} --json
A line that begins with { is sent as it is: {\"op\":\"ping\"}
`help COMMAND` describes a command."
)]
struct Words {
    #[command(subcommand)]
    word: Word,
}

impl<'a> Line<'a> {
    /// Parses a line.
    pub(super) fn parse(line: &'a str) -> Result<Self, LineError> {
        let line = line.trim();
        if line.starts_with('{') {
            return Ok(Self::Raw(line));
        }
        let words = words::split(line).ok_or(LineError::Quoting)?;
        if words.is_empty() {
            return Ok(Self::Nothing);
        }
        let understood = vocabulary().try_get_matches_from(words);
        match understood.and_then(|matches| Words::from_arg_matches(&matches)) {
            Ok(words) => Ok(Self::Word(words.word)),
            Err(help) if help.kind() == ErrorKind::DisplayHelp => Ok(Self::Help(help.to_string())),
            Err(error) => Err(LineError::Usage(Box::new(error))),
        }
    }
}

/// Returns the client's commands as a clap command. It omits the parts of the help that apply only
/// to a shell: the examples, and `-` for stdin, from which the client reads its commands.
pub(super) fn vocabulary() -> clap::Command {
    Words::command().mut_subcommands(for_the_prompt)
}

fn for_the_prompt(command: clap::Command) -> clap::Command {
    let is_of_a_value = |argument: &clap::Arg| argument.get_id() == "value";
    let takes_a_value = command.get_arguments().any(is_of_a_value);
    let command = command.after_help("").mut_subcommands(for_the_prompt);
    if !takes_a_value {
        return command;
    }
    command.mut_arg("value", |value| {
        value.help("A string, or JSON with --json").long_help(
            "A string, or JSON with --json\n\nWords are quoted as in a shell. JSON with brackets needs no quotes around it: \
             put k {\"a\": 1} --json. A value that begins with a dash and is not a number follows `--`.",
        )
    })
}

/// Formats clap's error without the parts that apply only to a shell: the client's messages already
/// begin with "error: ", and its help is a command.
fn for_the_client(error: &clap::Error) -> String {
    let text = error.to_string();
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    let (text, _) = text.split_once("\n\nFor more information").unwrap_or((text, ""));
    match text.trim_end().strip_suffix("\n\nUsage: <COMMAND>") {
        Some(unknown) => format!("{unknown}\n`help` lists the commands"),
        None => text.trim_end().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_as_in_a_shell() {
        let line = r#"put 'my key' "a \"b\" c""#;
        let Ok(Line::Word(Word::Put(put))) = Line::parse(line) else { panic!("no put: {line}") };
        let shown = format!("{put:?}");
        assert!(shown.contains(r#"key: "my key""#) && shown.contains(r#"value: "a \"b\" c""#), "{shown}");
    }

    #[test]
    fn empty_lines_comments_and_raw_requests_are_distinguished() {
        assert!(matches!(Line::parse("  "), Ok(Line::Nothing)));
        assert!(matches!(Line::parse("# a remark, isn't it"), Ok(Line::Nothing)));
        assert!(matches!(Line::parse(" {\"op\":\"ping\"}\r"), Ok(Line::Raw("{\"op\":\"ping\"}"))));
        assert!(matches!(Line::parse("quit"), Ok(Line::Word(Word::Exit))));
        assert!(matches!(Line::parse("exit"), Ok(Line::Word(Word::Exit))));
    }

    #[test]
    fn usage_errors_have_one_style() {
        assert!(matches!(Line::parse("put 'a"), Err(LineError::Quoting)));
        for line in ["fetch a", "get", "get a b", "put a", "cas a b", "member", "member add 4", "--version"] {
            let message = Line::parse(line).unwrap_err().to_string();
            assert!(!message.starts_with("error") && !message.contains("coracle"), "{line}: {message}");
        }
    }

    #[test]
    fn help_omits_hints_for_a_shell() {
        let Ok(Line::Help(all)) = Line::parse("help") else { panic!("no help") };
        for word in ["put", "get", "delete", "cas", "scan", "status", "member", "ping", "exit", "quit"] {
            assert!(all.contains(word), "{word} is missing in {all}");
        }
        let Ok(Line::Help(get)) = Line::parse("help get") else { panic!("no help") };
        assert!(get.contains("--linearizable") && !get.contains("coracle"), "{get}");
        let Ok(Line::Help(put)) = Line::parse("help put") else { panic!("no help") };
        assert!(put.contains("--json") && !put.contains("stdin") && !put.contains("printf"), "{put}");
        let Ok(Line::Help(member)) = Line::parse("help member") else { panic!("no help") };
        assert!(member.contains("promote") && !member.contains("coracle"), "{member}");
        let Ok(Line::Help(add)) = Line::parse("help member add") else { panic!("no help") };
        assert!(add.contains("ID=ADDR") && !add.contains("coracle"), "{add}");
    }
}
