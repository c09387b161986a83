//! The settings of a server: its long flags, as clap knows them.

use std::ffi::OsStr;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction, Command};

/// The flag that names the file. A file cannot name another one.
pub(super) const CONFIG: &str = "config";
pub(super) const CONFIG_VARIABLE: &str = "CORACLE_CONFIG";

/// The type of a setting's value in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A flag without a value: true or false.
    Switch,
    /// A whole number.
    Number,
    /// A string with a unit, or a whole number where the unit is bytes.
    Quantity,
    Text,
    /// A string with commas, or an array of strings.
    List,
}

impl Kind {
    /// The type that a file must use, for messages.
    pub(super) fn expected(self) -> &'static str {
        match self {
            Self::Switch => "true or false",
            Self::Number => "a whole number without quotes",
            Self::Quantity => "a string with a unit, or a whole number",
            Self::Text => "a string in quotes",
            Self::List => "a string in quotes, or an array of such strings",
        }
    }

    fn of(arg: &Arg) -> Self {
        let value = arg.get_value_names().and_then(|names| names.first()).map(clap::builder::Str::as_str);
        match (arg.get_action(), value) {
            (ArgAction::SetTrue, _) => Self::Switch,
            (ArgAction::Append, _) => Self::List,
            (_, Some("N" | "ID")) => Self::Number,
            (_, Some("SIZE" | "DUR")) => Self::Quantity,
            _ => Self::Text,
        }
    }
}

/// A flag of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Setting {
    /// The name of the flag without its dashes, which is also the key in the file.
    pub(super) name: String,
    pub(super) kind: Kind,
    /// The value that clap uses if there is none.
    pub(super) default: Option<String>,
    /// The default in the words of the help, if it is no fixed value.
    pub(super) default_in_words: Option<String>,
}

impl Setting {
    /// All settings of a command, in the order of its help.
    pub(super) fn all(command: &Command) -> Vec<Self> {
        let is_setting = |name: &str| ![CONFIG, "help", "version"].contains(&name);
        let named = command.get_arguments().filter_map(|arg| Some((arg, arg.get_long()?)));
        named.filter(|(_, name)| is_setting(name)).map(|(arg, name)| Self::of(arg, name)).collect()
    }

    fn of(arg: &Arg, name: &str) -> Self {
        let kind = Kind::of(arg);
        let default = arg.get_default_values().first().and_then(|value| value.to_str());
        let default = if kind == Kind::Switch { Some("false") } else { default };
        let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
        let in_words = help.split_once("[default: ").and_then(|(_, rest)| rest.split_once(']'));
        Self {
            name: name.to_owned(),
            kind,
            default: default.map(str::to_owned),
            default_in_words: in_words.map(|(words, _)| words.to_owned()),
        }
    }

    /// The variable that sets it.
    pub(super) fn variable(&self) -> String {
        format!("CORACLE_{}", self.name.to_ascii_uppercase().replace('-', "_"))
    }

    /// Checks a value as clap checks the flag's. Returns what is wrong with it.
    pub(super) fn check(&self, command: &Command, value: &OsStr) -> Result<(), String> {
        if self.kind == Kind::Switch {
            return truth(value).map(drop).ok_or_else(|| "expected true or false".to_owned());
        }
        let mut word = std::ffi::OsString::from(format!("--{}=", self.name));
        word.push(value);
        let Err(error) = command.clone().try_get_matches_from([OsStr::new("coracle"), &word]) else {
            return Ok(());
        };
        match error.kind() {
            ErrorKind::ValueValidation => {
                Err(std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default())
            }
            ErrorKind::InvalidValue => Err(match error.get(ContextKind::ValidValue) {
                Some(ContextValue::Strings(valid)) if !valid.is_empty() => {
                    format!("possible values are {}", valid.join(", "))
                }
                _ => "expected a value".to_owned(),
            }),
            ErrorKind::InvalidUtf8 => Err("it is not UTF-8 text".to_owned()),
            // Flags that are missing, or exclude each other, are judged when all are known.
            _ => Ok(()),
        }
    }
}

/// The value of a switch.
pub(super) fn truth(value: &OsStr) -> Option<bool> {
    match value.to_str()?.to_ascii_lowercase().as_str() {
        "y" | "yes" | "t" | "true" | "on" | "1" => Some(true),
        "n" | "no" | "f" | "false" | "off" | "0" => Some(false),
        _ => None,
    }
}
