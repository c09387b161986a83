//! Client commands as a script runs them: arguments and stdin in; exit code, stdout and stderr out.

use std::io::Write;
use std::process::{Command, Stdio};

use coracle_tests::live::{Ended, Server, program};

/// Runs client commands against these servers.
#[derive(Debug)]
pub(crate) struct Shell {
    connect: String,
}

impl Shell {
    /// Returns a shell whose commands go to this server.
    pub(crate) fn of(server: &Server) -> Self {
        Self { connect: server.address().to_string() }
    }

    /// Returns a shell whose commands go to these addresses, separated by commas.
    pub(crate) fn of_addresses(connect: &str) -> Self {
        Self { connect: connect.to_owned() }
    }

    /// Runs a command without input.
    pub(crate) fn run(&self, arguments: &[&str]) -> Ended {
        self.run_with_input(arguments, "")
    }

    /// Runs a command with this text on stdin.
    pub(crate) fn run_with_input(&self, arguments: &[&str], input: &str) -> Ended {
        let mut child = Command::new(program())
            .args(arguments)
            .env("CORACLE_CONNECT", &self.connect)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        // A command that does not read its input may have ended already.
        _ = child.stdin.take().expect("stdin is a pipe").write_all(input.as_bytes());
        let output = child.wait_with_output().expect("the program ends");
        let text = |bytes| String::from_utf8(bytes).expect("the program speaks UTF-8");
        Ended { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    /// Runs a command that must end with this exit code and exactly this text on stdout. It must
    /// write to stderr if, and only if, it fails.
    #[track_caller]
    pub(crate) fn expect(&self, arguments: &[&str], code: i32, stdout: &str) -> Ended {
        self.expect_on(arguments, "", code, stdout)
    }

    /// Like [`Shell::expect`], with this text on stdin.
    #[track_caller]
    pub(crate) fn expect_on(&self, arguments: &[&str], input: &str, code: i32, stdout: &str) -> Ended {
        let ended = self.run_with_input(arguments, input);
        assert_eq!(
            (ended.code, ended.stdout.as_str()),
            (Some(code), stdout),
            "{arguments:?}: {}",
            ended.stderr
        );
        assert_eq!(ended.stderr.is_empty(), code == 0, "{arguments:?}: {}", ended.stderr);
        ended
    }
}
