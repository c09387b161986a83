//! Tests of the settings: every flag from every source, and what is refused.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::Path;

use super::layers::{Layers, Origin};
use super::settings::{Kind, Setting};
use super::{CONFIG_BYTES_MAX, Completed, ConfigError, Server, complete, variables};

/// A valid value for each flag, by the name of its value. A flag with another kind of value needs a
/// line here.
fn sample(setting: &Setting, command: &clap::Command) -> String {
    let arg = command.get_arguments().find(|arg| arg.get_long() == Some(&setting.name)).unwrap();
    if setting.kind == Kind::Switch {
        return "true".to_owned();
    }
    if let Some(last) = arg.get_possible_values().last() {
        return last.get_name().to_owned();
    }
    match arg.get_value_names().unwrap()[0].as_str() {
        "N" | "ID" => "7",
        "ADDR" | "HOST:PORT" => "127.0.0.1:7",
        "DIR" | "FILE" => "some/path",
        "DUR" => "7s",
        "MIN..MAX" => "7s..8s",
        "SIZE" => "777MiB",
        "ID=HOST:PORT,…" => "7=127.0.0.1:7,8=127.0.0.1:8",
        other => panic!("--{}: a value {other} has no sample here", setting.name),
    }
    .to_owned()
}

fn words(text: &str) -> Vec<OsString> {
    text.split_whitespace().map(OsString::from).collect()
}

fn read(server: Server, flags: &str, variables: &[(&str, &str)]) -> Result<Layers, ConfigError> {
    let variables: BTreeMap<_, _> = variables.iter().copied().collect();
    Layers::read(server, &words(flags), &|name| variables.get(name).map(OsString::from))
}

/// The value and origin of a setting.
fn value(layers: &Layers, name: &str) -> (Option<String>, Origin) {
    let it = layers.resolved.iter().find(|it| it.setting.name == name).unwrap();
    (it.value.as_ref().map(|value| value.to_str().unwrap().to_owned()), it.origin.clone())
}

/// A settings file with this text.
fn file(text: &str) -> tempfile::TempPath {
    let file = tempfile::NamedTempFile::new().unwrap().into_temp_path();
    fs::write(&file, text).unwrap();
    file
}

fn in_toml(setting: &Setting, value: &str) -> String {
    match setting.kind {
        Kind::Switch | Kind::Number => format!("{} = {value}\n", setting.name),
        _ => format!("{} = \"{value}\"\n", setting.name),
    }
}

#[test]
fn every_flag_is_set_by_file_variable_and_flag_in_this_order() {
    for server in [Server::Serve, Server::Node] {
        let command = server.command();
        let settings = Setting::all(&command);
        assert!(settings.len() > 20, "{settings:?}");
        for setting in &settings {
            let (name, sample) = (&setting.name, sample(setting, &command));
            let path = file(&format!("# a comment\n{}", in_toml(setting, &sample)));
            let config = format!("--config {}", path.display());
            let of_default = value(&read(server, "", &[]).unwrap(), name);
            assert_eq!(of_default, (setting.default.clone(), Origin::Default), "{name}");
            let layers = read(server, &config, &[]).unwrap();
            let of_file = value(&layers, name);
            let origin = Origin::File { path: Path::new(&path.to_path_buf()).into(), line: 2 };
            assert_eq!(of_file, (Some(sample.clone()), origin), "{name}");
            reaches_clap(&command, &layers, name, &sample);
            let variable = setting.variable();
            // Only a server with a certificate has an authority of clients.
            let variables =
                [(variable.as_str(), sample.as_str()), ("CORACLE_TLS_CERT", "x"), ("CORACLE_TLS_KEY", "x")];
            let with_variable = read(server, &config, &variables).unwrap();
            let of_variable = value(&with_variable, name);
            assert_eq!(of_variable, (of_variable.0.clone(), Origin::Variable(variable.clone())), "{name}");
            let flag = match setting.kind {
                Kind::Switch => format!("--{name}"),
                _ => format!("--{name} {sample}"),
            };
            let with_flag = read(server, &format!("{config} {flag}"), &variables).unwrap();
            assert_eq!(value(&with_flag, name), (Some(sample.clone()), Origin::Flag), "{name}");
            assert!(!with_flag.added().iter().any(|(added, _)| added == name), "{name} is not added twice");
            let equals = read(server, &format!("--{name}={sample}"), &[]).unwrap();
            assert_eq!(value(&equals, name).1, Origin::Flag, "{name}");
        }
    }
}

/// The flag that the layers add has this value when clap parses it.
fn reaches_clap(command: &clap::Command, layers: &Layers, name: &str, sample: &str) {
    // Without the rules between flags, which are judged when all are known.
    let free = |arg: clap::Arg| {
        let long: &'static str = arg.get_long().unwrap().to_owned().leak();
        let own = clap::Arg::new(arg.get_id().clone()).long(long);
        own.action(arg.get_action().clone())
    };
    let args = command.get_arguments().filter(|arg| arg.get_long().is_some_and(|long| long != "help"));
    let free = clap::Command::new("x").args(args.cloned().map(free));
    let matches = free.try_get_matches_from([OsString::from("x")].into_iter().chain(layers.words())).unwrap();
    let id = command.get_arguments().find(|arg| arg.get_long() == Some(name)).unwrap().get_id();
    let raw = matches.get_raw(id.as_str()).unwrap().next().unwrap();
    assert_eq!(raw.to_str(), Some(sample), "{name}");
}

#[test]
fn a_variable_beats_the_file_and_a_flag_beats_the_variable_in_value_too() {
    let path = file("heartbeat = \"1ms\"\nephemeral = true\nnodes = 3\n");
    let config = format!("--config {}", path.display());
    let variables = [("CORACLE_HEARTBEAT", "2ms"), ("CORACLE_EPHEMERAL", "off"), ("CORACLE_NODES", "")];
    let layers = read(Server::Serve, &format!("{config} --heartbeat 3ms"), &variables).unwrap();
    assert_eq!(value(&layers, "heartbeat").0.unwrap(), "3ms");
    assert_eq!(layers.words(), ["--nodes=3"], "an empty variable is not set, and `off` is no flag");
    let layers = read(Server::Serve, "", &[("CORACLE_CONFIG", path.to_str().unwrap())]).unwrap();
    assert_eq!(layers.words(), ["--nodes=3", "--ephemeral", "--heartbeat=1ms"]);
}

#[test]
fn a_mistake_is_reported_with_its_place() {
    for (text, line, part) in [
        ("nodes = 3\nlisten_ = \"a\"", 2, "`listen_` is not a flag of `coracle serve`"),
        ("data_dir = \"x\"", 1, "did you mean `data-dir`?"),
        ("config = \"x\"", 1, "`config` is not a flag"),
        ("peers = \"1=a:1\"", 1, "`peers` is not a flag of `coracle serve`"),
        ("\n\nheartbeat = 50", 3, "heartbeat: expected a number with a unit, such as 50ms"),
        ("memory-max = \"64 apples\"", 1, "such as 64MiB"),
        ("nodes = \"3\"", 1, "nodes: expected a whole number without quotes, and found a string"),
        ("nodes = 30", 1, "nodes: expected a whole number from 1 to 9"),
        ("nodes = 0x3", 1, "expected a whole number"),
        ("nodes = 3.5", 1, "found a number with a fraction"),
        ("ephemeral = \"true\"", 1, "ephemeral: expected true or false"),
        ("listen = 3001", 1, "listen: expected a string in quotes"),
        ("listen = [\"a:1\"]", 1, "found an array"),
        ("runtime = \"tokio\"", 1, "runtime: possible values are smol, threads"),
        ("[serve]\nnodes = 3", 1, "`serve` is not a flag"),
        ("nodes = 3\nnodes = 5", 2, "not TOML"),
        ("nodes = 3\n=", 2, "not TOML"),
    ] {
        let path = file(text);
        let error = read(Server::Serve, &format!("--config {}", path.display()), &[]).unwrap_err();
        let told = error.to_string();
        let place = format!("{}: line {line}: ", path.display());
        assert!(told.starts_with(&place) && told.contains(part), "{text:?}: {told}");
        assert_eq!(error.exit(), crate::exit::Exit::Usage);
    }
}

#[test]
fn a_wrong_variable_is_named_with_its_value() {
    let told = |name: &str, value: &str| read(Server::Serve, "", &[(name, value)]).unwrap_err().to_string();
    assert!(
        told("CORACLE_HEARTBEAT", "50").contains("CORACLE_HEARTBEAT is set to \"50\": expected a number")
    );
    assert!(told("CORACLE_EPHEMERAL", "maybe").contains("expected true or false"));
    assert!(told("CORACLE_CONFIG", "/nowhere/at/all").contains("/nowhere/at/all"));
}

#[test]
fn a_list_may_be_an_array() {
    let path = file("id = 2\npeers = [\"1=a:1\", \"2=b:2\"]\n");
    let layers = read(Server::Node, &format!("--config={}", path.display()), &[]).unwrap();
    assert_eq!(layers.words(), ["--id=2", "--peers=1=a:1,2=b:2"]);
}

#[test]
fn a_file_that_is_too_long_is_refused() {
    let path = file(&"#".repeat(usize::try_from(CONFIG_BYTES_MAX).unwrap() + 1));
    let error = read(Server::Serve, &format!("--config {}", path.display()), &[]).unwrap_err();
    assert!(matches!(error, ConfigError::TooLong { .. }), "{error}");
    assert!(matches!(read(Server::Serve, "--config", &[]), Err(ConfigError::NoName)));
}

#[test]
fn the_authority_of_client_commands_is_not_that_of_a_server_without_a_certificate() {
    let authority = [("CORACLE_TLS_CA", "ca.pem")];
    assert!(read(Server::Node, "", &authority).unwrap().words().is_empty());
    let words = read(Server::Node, "--tls-cert a --tls-key b", &authority).unwrap().words();
    assert_eq!(words, ["--tls-ca=ca.pem"]);
}

#[test]
fn a_message_about_an_added_flag_says_where_it_comes_from() {
    let added = vec![("peers".to_owned(), Origin::Variable("CORACLE_PEERS".to_owned()))];
    let completed = Completed { words: Vec::new(), added };
    let notes = completed.notes("the argument '--peers <ID>' cannot be used with '--join <A>'");
    assert_eq!(notes, ["note: --peers is set by the variable CORACLE_PEERS"]);
    assert!(completed.notes("the argument '--peers-of <ID>'").is_empty());
}

#[test]
fn other_commands_and_requests_for_help_are_unchanged() {
    for line in ["coracle get a", "coracle serve --help --config /nowhere", "coracle help node", "coracle -h"]
    {
        assert_eq!(complete(words(line)).unwrap().words, words(line));
    }
    assert!(complete(words("coracle --config /nowhere/at/all")).is_err());
}

#[test]
fn secrets_are_paths_only() {
    let is_secret = |name: &String| ["TOKEN", "PASSWORD", "SECRET"].iter().any(|word| name.ends_with(word));
    let variables = variables();
    assert!(!variables.iter().any(is_secret), "{variables:?}");
}
