//! Tests of wrong usage, which ends with exit code 2 and a hint on stderr, and of help, which is no
//! error.

use crate::{Ended, coracle, run};

#[test]
fn wrong_usage_is_answered_with_a_hint() {
    for (arguments, hint) in [
        (&["--nodes", "10"][..], "from 1 to 9"),
        (&["serve", "--nodes", "none"], "--nodes"),
        (&["--runtime", "other"], "possible values: smol, threads"),
        (&["--heartbeat", "50"], "such as 50ms"),
        (&["--heartbeat", "400ms"], "--election-timeout"),
        (&["serve", "--election-timeout", "600ms..300ms"], "MIN must be less than MAX"),
        (&["--listen", "3001"], "HOST:PORT"),
        (&["--max-connections", "0"], "from 1 to 4294967295"),
        (&["--max-connections", "many"], "from 1 to 4294967295"),
        (&["node", "--id", "one"], "a whole number, such as 4"),
        (&["bench", "--clients", "0"], "from 1 to 10000"),
        (&["--connect", "127.0.0.1:3001"], "follows them, as in `coracle get KEY --connect"),
        (&["serve", "-o", "json"], "follows them, as in `coracle get KEY -o"),
        (&["--no-such-flag"], "--no-such-flag"),
        (&["fetch", "snack"], "fetch"),
        (&["--nodes", "3", "get", "snack"], "--nodes"),
        (&["get"], "<KEY>"),
        (&["put", "snack"], "<VALUE>"),
        (&["put", "snack", "{chips", "--json"], "not JSON"),
        (&["cas", "snack", "crisps"], "--expect <OLD>|--absent"),
        (&["scan", "--limit", "0"], "--limit"),
        (&["get", "snack", "--connect", "nowhere"], "HOST:PORT"),
        (&["get", "snack", "--timeout", "soon"], "such as 50ms"),
        (&["log", "verify"], "<FILE>"),
        (&["restore", "b"], "--data-dir"),
        (&["restore", "b", "--data-dir", "d", "--id", "1"], "--address"),
        (&["restore", "b", "--data-dir", "d", "--id", "1", "--address", "a:1", "--nodes", "3"], "--nodes"),
        (&["restore", "b", "--data-dir", "d", "--id", "1", "--address", "a:0"], "cannot be 0"),
        (&["member", "add", "10.0.0.4:4001"], "ID=HOST:PORT"),
        (&["member", "add", "4=10.0.0.4"], "HOST:PORT"),
        (&["member", "promote", "four"], "a whole number, such as 4"),
    ] {
        let ended = run(arguments);
        assert_eq!(ended.code, Some(2), "{arguments:?}: {ended:?}");
        assert_eq!(ended.stdout, "", "{arguments:?}");
        assert!(ended.stderr.starts_with("error: "), "{arguments:?}: {ended:?}");
        assert!(ended.stderr.contains(hint), "{arguments:?}: {hint:?} is missing in {ended:?}");
    }
}

/// The error names the environment variable, because no flag was given.
#[test]
fn an_invalid_variable_is_named_in_the_error() {
    let ended = |arguments: &[&str]| {
        let mut command = coracle();
        command.env("CORACLE_CONNECT", "nowhere").args(arguments);
        Ended::from(command.output().expect("the program starts"))
    };
    let from_variable = ended(&["get", "snack"]);
    assert_eq!(from_variable.code, Some(2));
    assert!(
        from_variable
            .stderr
            .starts_with("error: the variable CORACLE_CONNECT is set to \"nowhere\": expected HOST:PORT"),
        "{from_variable:?}"
    );
    let from_flag = ended(&["get", "snack", "--connect", "elsewhere"]);
    assert!(from_flag.stderr.contains("'elsewhere' for '--connect"), "{from_flag:?}");
    // An empty variable counts as unset.
    let mut command = coracle();
    let empty = command.env("CORACLE_CONNECT", "").args(["get", "snack", "--timeout", "soon"]);
    let ended = Ended::from(empty.output().expect("the program starts"));
    assert!(!ended.stderr.contains("CONNECT") && !ended.stderr.contains("--connect"), "{ended:?}");
}

/// Help must fit terminals of 80 columns, and pipes, which have no width.
#[test]
fn help_fits_a_terminal() {
    let commands: &[&[&str]] = &[
        &[],
        &["serve"],
        &["node"],
        &["put"],
        &["get"],
        &["delete"],
        &["cas"],
        &["scan"],
        &["status"],
        &["transfer"],
        &["member"],
        &["member", "list"],
        &["member", "add"],
        &["member", "promote"],
        &["member", "remove"],
        &["client"],
        &["bench"],
        &["log"],
        &["log", "show"],
        &["log", "verify"],
        &["backup"],
        &["restore"],
    ];
    for command in commands {
        for flag in ["--help", "-h"] {
            let help = run(&[*command, &[flag]].concat()).stdout;
            for line in help.lines() {
                assert!(line.chars().count() <= 80, "{command:?} {flag}: {line:?}");
            }
        }
    }
}

#[test]
fn help_and_version_are_on_stdout() {
    let help = run(&["--help"]);
    assert_eq!((help.code, help.stderr.as_str()), (Some(0), ""));
    for word in [
        "serve",
        "put",
        "get",
        "delete",
        "cas",
        "scan",
        "status",
        "transfer",
        "member",
        "client",
        "log",
        "backup",
        "restore",
        "--election-timeout",
    ] {
        assert!(help.stdout.contains(word), "{word} is missing in {}", help.stdout);
    }
    let version = run(&["--version"]);
    assert_eq!(version.stdout, format!("coracle {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn every_command_explains_itself() {
    let overview = run(&["--help"]).stdout;
    for command in [
        "serve", "put", "get", "delete", "cas", "scan", "status", "transfer", "member", "client", "log",
        "backup", "restore",
    ] {
        let [asked, asked_otherwise] = [run(&[command, "--help"]), run(&["help", command])];
        assert_eq!(asked.code, Some(0), "{command}");
        assert!(asked.stdout.contains(&format!("Usage: coracle {command}")), "{command}: {}", asked.stdout);
        assert_eq!(asked.stdout, asked_otherwise.stdout, "{command}");
        // The first sentence is the one that the list of commands shows.
        let about = asked.stdout.lines().next().unwrap();
        assert!(overview.contains(&format!("{command:<11}  {about}")), "{command}: {about}");
    }
}
