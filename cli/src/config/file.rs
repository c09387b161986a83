//! The settings file: TOML, one key per flag, with the line of each for messages.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use toml::de::{DeArray, DeTable, DeValue};

use super::settings::{Kind, Setting};
use super::{CONFIG_BYTES_MAX, ConfigError, Server};

/// A value of the file, as its flag would be given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) name: String,
    /// The first line is 1.
    pub(super) line: usize,
    pub(super) value: String,
}

/// Reads the file and checks its keys and types.
pub(super) fn read(path: &Path, server: Server, settings: &[Setting]) -> Result<Vec<Entry>, ConfigError> {
    let failed = |cause| ConfigError::Read { path: path.into(), cause };
    let mut text = String::new();
    // One byte more than is valid, so that a longer file is rejected and not cut.
    let file = File::open(path).map_err(failed)?;
    file.take(CONFIG_BYTES_MAX + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > CONFIG_BYTES_MAX {
        return Err(ConfigError::TooLong { path: path.into() });
    }
    parse(path, &text, server, settings)
}

pub(super) fn parse(
    path: &Path,
    text: &str,
    server: Server,
    settings: &[Setting],
) -> Result<Vec<Entry>, ConfigError> {
    let line_at =
        |offset: usize| text.as_bytes()[..offset.min(text.len())].split(|byte| *byte == b'\n').count();
    let table = DeTable::parse(text).map_err(|error| ConfigError::Syntax {
        path: path.into(),
        line: line_at(error.span().map_or(0, |span| span.start)),
        message: error.message().lines().collect::<Vec<_>>().join(", "),
    })?;
    let mut entries = Vec::new();
    for (key, value) in table.get_ref() {
        let (line, name) = (line_at(key.span().start), key.get_ref().as_ref());
        let Some(setting) = settings.iter().find(|setting| setting.name == name) else {
            let with_dashes = name.replace('_', "-");
            let is_close = settings.iter().any(|setting| setting.name == with_dashes);
            let hint = if is_close { format!(": did you mean `{with_dashes}`?") } else { String::new() };
            let (path, key, command) = (path.into(), name.to_owned(), server.name());
            return Err(ConfigError::Unknown { path, line, key, command, hint });
        };
        let value = text_of(value.get_ref(), setting.kind).ok_or_else(|| ConfigError::Type {
            path: path.into(),
            line,
            key: name.to_owned(),
            expected: setting.kind.expected(),
            found: type_of(value.get_ref()),
        })?;
        entries.push(Entry { name: name.to_owned(), line, value });
    }
    Ok(entries)
}

/// The value as its flag would be given; `None`: its type is wrong.
fn text_of(value: &DeValue<'_>, kind: Kind) -> Option<String> {
    match (value, kind) {
        (DeValue::Boolean(is_on), Kind::Switch) => Some(is_on.to_string()),
        (DeValue::Integer(number), Kind::Number | Kind::Quantity) if number.radix() == 10 => {
            Some(number.as_str().to_owned())
        }
        (DeValue::String(text), Kind::Text | Kind::Quantity | Kind::List) => Some(text.to_string()),
        (DeValue::Array(items), Kind::List) => joined(items),
        _ => None,
    }
}

fn joined(items: &DeArray<'_>) -> Option<String> {
    let texts = items.iter().map(|item| item.get_ref().as_str());
    texts.collect::<Option<Vec<_>>>().map(|texts| texts.join(","))
}

fn type_of(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}
