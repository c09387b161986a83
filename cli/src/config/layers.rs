//! The four sources of a setting, laid over each other: default < file < variable < flag.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::file::Entry;
use super::settings::{CONFIG, CONFIG_VARIABLE, Kind, Setting, truth};
use super::{ConfigError, Server, file};

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    Default,
    File { path: Rc<Path>, line: usize },
    Variable(String),
    Flag,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line } => write!(f, "{}, line {line}", path.display()),
            Self::Variable(name) => write!(f, "the variable {name}"),
            Self::Flag => f.write_str("flag"),
        }
    }
}

/// A setting with its value.
#[derive(Clone, Debug)]
pub(super) struct Resolved {
    pub(super) setting: Setting,
    /// `None`: it is not set, and has no fixed default.
    pub(super) value: Option<OsString>,
    pub(super) origin: Origin,
}

/// All settings of a server.
#[derive(Debug)]
pub(super) struct Layers {
    pub(super) resolved: Vec<Resolved>,
}

impl Layers {
    /// Resolves all settings. `flags` are the words of the command line behind the command.
    ///
    /// # Errors
    ///
    /// When the file or a variable has a value that its flag would not accept.
    pub(super) fn read(
        server: Server,
        flags: &[OsString],
        variable: &dyn Fn(&str) -> Option<OsString>,
    ) -> Result<Self, ConfigError> {
        // An empty variable counts as one that is not set.
        let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
        let command = server.command();
        let settings = Setting::all(&command);
        let path = match given(flags, CONFIG, false) {
            Some(path) if path.is_empty() => return Err(ConfigError::NoName),
            Some(path) => Some(path),
            None => variable(CONFIG_VARIABLE),
        };
        let path: Option<Rc<Path>> = path.map(|path| PathBuf::from(path).into());
        let mut entries = match &path {
            Some(path) => file::read(path, server, &settings)?,
            None => Vec::new(),
        };
        let mut resolved = Vec::new();
        for setting in settings {
            let entry = entries.iter().position(|entry| entry.name == setting.name);
            let of_file = entry.zip(path.clone()).map(|(at, path)| (entries.swap_remove(at), path));
            if let Some((entry, path)) = &of_file {
                setting.check(&command, OsStr::new(&entry.value)).map_err(|why| {
                    let (key, line) = (entry.name.clone(), entry.line);
                    ConfigError::Value { path: path.to_path_buf(), line, key, why }
                })?;
            }
            let name = setting.variable();
            let of_variable = variable(&name);
            if let Some(value) = &of_variable {
                setting.check(&command, value).map_err(|why| {
                    let value = value.to_string_lossy().into_owned();
                    ConfigError::Variable { variable: name.clone(), value, why }
                })?;
            }
            let of_flag = given(flags, &setting.name, setting.kind == Kind::Switch);
            let (value, origin) = match (of_flag, of_variable, of_file) {
                (Some(value), ..) => (Some(value), Origin::Flag),
                (None, Some(value), _) => (Some(value), Origin::Variable(name)),
                (None, None, Some((Entry { line, value, .. }, path))) => {
                    (Some(value.into()), Origin::File { path, line })
                }
                (None, None, None) => (setting.default.clone().map(OsString::from), Origin::Default),
            };
            resolved.push(Resolved { setting, value, origin });
        }
        let mut layers = Self { resolved };
        layers.drop_authority_of_clients();
        Ok(layers)
    }

    /// Ignores the variable `CORACLE_TLS_CA` if the server has no certificate: then it is that of
    /// the client commands of this machine.
    fn drop_authority_of_clients(&mut self) {
        let is_set =
            |name: &str| self.resolved.iter().any(|it| it.setting.name == name && it.value.is_some());
        if !is_set("tls-cert") {
            let authority = self.resolved.iter_mut().find(|it| it.setting.name == "tls-ca");
            if let Some(it) = authority.filter(|it| matches!(it.origin, Origin::Variable(_))) {
                (it.value, it.origin) = (None, Origin::Default);
            }
        }
    }

    /// The settings of the file and the variables, as flags.
    pub(super) fn words(&self) -> Vec<OsString> {
        self.added_flags().filter_map(Resolved::word).collect()
    }

    /// The names of those flags, with their origins.
    pub(super) fn added(&self) -> Vec<(String, Origin)> {
        let named = self.added_flags().filter(|it| it.word().is_some());
        named.map(|it| (it.setting.name.clone(), it.origin.clone())).collect()
    }

    fn added_flags(&self) -> impl Iterator<Item = &Resolved> {
        self.resolved.iter().filter(|it| matches!(it.origin, Origin::File { .. } | Origin::Variable(_)))
    }
}

impl Resolved {
    /// The word that sets the flag; `None` for a switch that is off.
    fn word(&self) -> Option<OsString> {
        let value = self.value.as_ref()?;
        let mut word = OsString::from(format!("--{}", self.setting.name));
        if self.setting.kind == Kind::Switch {
            return (truth(value) == Some(true)).then_some(word);
        }
        word.push("=");
        word.push(value);
        Some(word)
    }
}

/// The value of a flag among these words; that of a switch is `true`. Clap checks the words later.
fn given(words: &[OsString], name: &str, is_switch: bool) -> Option<OsString> {
    let (mut found, mut words) = (None, words.iter());
    while let Some(word) = words.next() {
        let bytes = word.as_encoded_bytes();
        let Some(rest) = bytes.strip_prefix(b"--").and_then(|rest| rest.strip_prefix(name.as_bytes())) else {
            continue;
        };
        match rest.first() {
            None if is_switch => found = Some("true".into()),
            None => found = Some(words.next().cloned().unwrap_or_default()),
            Some(b'=') => found = word_after(word, name),
            Some(_) => {}
        }
    }
    found
}

/// The value in `--name=value`.
fn word_after(word: &OsStr, name: &str) -> Option<OsString> {
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    let value = word.as_bytes().get("--=".len() + name.len()..)?;
    Some(OsString::from_vec(value.to_vec()))
}
