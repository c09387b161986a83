//! Tests without a reachable server: exit code 3, and every address that was tried is named.

use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::process::Stdio;

use crate::{Ended, coracle, run};

/// Returns an address where no server listens: a port that was free a moment ago.
fn deserted() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

#[test]
fn every_address_that_was_tried_is_named() {
    let (one, other) = (deserted(), deserted());
    let connect = format!("{one},{other}");
    for command in [&["put", "snack", "chips"][..], &["get", "snack"], &["scan"], &["member", "list"]] {
        let ended = run(&[command, &["--connect", &connect]].concat());
        assert_eq!(ended.code, Some(3), "{command:?}: {ended:?}");
        assert_eq!(ended.stdout, "", "{command:?}");
        for address in [one, other] {
            assert!(ended.stderr.contains(&address.to_string()), "{command:?}: {ended:?}");
        }
    }
}

#[test]
fn the_environment_names_the_servers_and_a_flag_overrules_it() {
    let (from_environment, from_flag) = (deserted().to_string(), deserted().to_string());
    let ended = |arguments: &[&str]| {
        let mut command = coracle();
        Ended::from(command.env("CORACLE_CONNECT", &from_environment).args(arguments).output().unwrap())
    };
    assert!(ended(&["get", "a"]).stderr.contains(&from_environment));
    let comes_first = ended(&["--connect", &from_flag, "get", "a"]);
    assert_eq!(comes_first.code, Some(3));
    assert!(comes_first.stderr.contains(&from_flag), "{comes_first:?}");
    let overruled = ended(&["get", "a", "--connect", &from_flag]).stderr;
    assert!(overruled.contains(&from_flag) && !overruled.contains(&from_environment), "{overruled}");
}

#[test]
fn piped_commands_are_all_tried_and_the_first_failure_counts() {
    let mut client = coracle()
        .args(["client", "--connect", &deserted().to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = client.stdin.take().unwrap();
    stdin.write_all(b"# a remark\n\nget snack\nput 'unclosed\nhelp\n").unwrap();
    drop(stdin);
    let ended = Ended::from(client.wait_with_output().unwrap());
    assert_eq!(ended.code, Some(3), "{ended:?}");
    assert!(
        ended.stderr.contains("error: line 3: ") && ended.stderr.contains("error: line 4: "),
        "{ended:?}"
    );
    assert!(ended.stdout.contains("status"), "{ended:?}");
}
