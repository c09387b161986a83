//! `config show`: the settings with which a server would start, and where each comes from. The
//! output is a settings file.

use std::env;
use std::ffi::OsString;
use std::io::{self, Write};

use clap::{Args, Subcommand};
use serde_json::json;

use super::layers::{Layers, Origin, Resolved};
use super::settings::{Kind, truth};
use super::{ConfigError, Server};
use crate::arguments;
use crate::output::harmless;

/// Show the settings of a server
#[derive(Args, Debug)]
pub(crate) struct Config {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    Show(Show),
}

/// Print the settings with which a server would start
///
/// The settings are those of the file (--config FILE or CORACLE_CONFIG), the variables CORACLE_…,
/// and the given flags. They are checked as at a start, and nothing is started.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  coracle config show --origin
  coracle config show --origin node --config coracle.toml
  coracle config show --nodes 3 > coracle.toml

The output is a settings file. Settings that are not set are comments.")]
struct Show {
    /// Also print where each value comes from: default, file and line, variable or flag
    #[arg(long)]
    origin: bool,

    /// One JSON object per line
    #[arg(long)]
    json: bool,

    /// `node`, or `serve` (the default), and its flags
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "FLAGS")]
    words: Vec<OsString>,
}

impl Config {
    pub(crate) fn run(self) -> Result<(), ConfigError> {
        let Action::Show(show) = self.action;
        show.run()
    }
}

impl Show {
    fn run(mut self) -> Result<(), ConfigError> {
        // These flags may also stand among those of the server.
        self.origin |= remove(&mut self.words, "--origin");
        self.json |= remove(&mut self.words, "--json");
        let (server, first) = match self.words.first().and_then(|word| word.to_str()) {
            Some("node") => (Server::Node, 1),
            Some("serve") => (Server::Serve, 1),
            _ => (Server::Serve, 0),
        };
        let flags = &self.words[first..];
        let layers = Layers::read(server, flags, &|name| env::var_os(name))?;
        let begin = ["coracle", server.name()].map(OsString::from);
        let words = begin.into_iter().chain(layers.words()).chain(flags.iter().cloned());
        arguments::server(&words.collect::<Vec<_>>())?;
        let mut out = io::stdout().lock();
        self.print(&layers, &mut out)?;
        Ok(out.flush()?)
    }

    fn print(&self, layers: &Layers, out: &mut dyn Write) -> io::Result<()> {
        if self.json {
            return layers.resolved.iter().try_for_each(|it| writeln!(out, "{}", json_of(it)));
        }
        let lines: Vec<_> = layers.resolved.iter().map(|it| (assignment(it), &it.origin)).collect();
        let width = lines.iter().map(|(line, _)| line.chars().count()).max().unwrap_or(0);
        for (line, origin) in &lines {
            if self.origin {
                writeln!(out, "{line:<width$}  # {}", harmless(&origin.to_string()))?;
            } else {
                writeln!(out, "{line}")?;
            }
        }
        Ok(())
    }
}

/// Removes a word, and returns whether it was there.
fn remove(words: &mut Vec<OsString>, word: &str) -> bool {
    let before = words.len();
    words.retain(|it| it != word);
    words.len() < before
}

/// The line of a settings file.
fn assignment(it: &Resolved) -> String {
    let name = &it.setting.name;
    let Some(value) = &it.value else {
        let words = it.setting.default_in_words.as_deref().unwrap_or("not set");
        return format!("# {name}: {words}");
    };
    let text = value.to_string_lossy();
    let is_number = text.parse::<u64>().is_ok();
    let value = match it.setting.kind {
        Kind::Switch => truth(value).unwrap_or_default().to_string(),
        Kind::Number | Kind::Quantity if is_number => text.into_owned(),
        _ => toml::Value::from(text.as_ref()).to_string(),
    };
    format!("{name} = {value}")
}

fn json_of(it: &Resolved) -> serde_json::Value {
    let value = it.value.as_ref().map(|value| value.to_string_lossy());
    let mut object = json!({"name": it.setting.name, "value": value});
    let (origin, place) = match &it.origin {
        Origin::Default => ("default", None),
        Origin::File { path, line } => {
            object["line"] = (*line).into();
            ("file", Some(path.display().to_string()))
        }
        Origin::Variable(name) => ("variable", Some(name.clone())),
        Origin::Flag => ("flag", None),
    };
    object["origin"] = origin.into();
    if let Some(place) = place {
        object[origin] = place.into();
    }
    object
}
