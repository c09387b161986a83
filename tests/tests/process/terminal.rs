//! `coracle client` and `coracle get` at a terminal, which the program `script` provides. Without
//! it, the tests say so on stderr and prove nothing.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use coracle_tests::both_runtimes;
use coracle_tests::live::{Runtime, Setup, program};

const TIMEOUT: Duration = Duration::from_secs(30);

/// A program at a terminal, with its keyboard and its screen.
struct Terminal {
    child: Child,
    keyboard: ChildStdin,
    screen: Receiver<Vec<u8>>,
    shown: String,
    _home: tempfile::TempDir,
}

impl Terminal {
    /// Runs `coracle` with these arguments. Returns `None` if there is no `script`.
    fn run(arguments: &str, server: SocketAddr) -> Option<Self> {
        let version = Command::new("script").arg("--version").output();
        if !version.is_ok_and(|version| String::from_utf8_lossy(&version.stdout).contains("util-linux")) {
            eprintln!("skipped: there is no `script` of util-linux, which provides a terminal");
            return None;
        }
        let home = tempfile::tempdir().expect("there is room for a folder");
        let mut child = Command::new("script")
            .args([
                "--quiet",
                "--return",
                "--command",
                // Replaces the shell: a shell that stays would get the interrupts as well, and some
                // shells end with them.
                &format!("exec {} {arguments}", program().display()),
                "/dev/null",
            ])
            .env("CORACLE_CONNECT", server.to_string())
            .env("XDG_STATE_HOME", home.path())
            .env("TERM", "xterm")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("`script` starts");
        let keyboard = child.stdin.take().expect("stdin is a pipe");
        let mut output = child.stdout.take().expect("stdout is a pipe");
        let (show, screen) = channel();
        thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(len @ 1..) = output.read(&mut piece) {
                if show.send(piece[..len].to_vec()).is_err() {
                    break;
                }
            }
        });
        Some(Self { child, keyboard, screen, shown: String::new(), _home: home })
    }

    fn press(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).expect("the terminal is there");
    }

    /// Waits until this text is shown. Returns the output since the last call, up to and including
    /// the text.
    #[track_caller]
    fn wait_for(&mut self, text: &str) -> String {
        let end = Instant::now() + TIMEOUT;
        loop {
            if let Some(at) = self.shown.find(text) {
                let rest = self.shown.split_off(at + text.len());
                return std::mem::replace(&mut self.shown, rest);
            }
            let piece = self.screen.recv_timeout(end.saturating_duration_since(Instant::now()));
            let piece = piece.unwrap_or_else(|_| panic!("{text:?} is not shown: {:?}", self.shown));
            self.shown.push_str(&String::from_utf8_lossy(&piece));
        }
    }

    /// Enters a line. Returns the output until the next prompt.
    #[track_caller]
    fn enter(&mut self, line: &str) -> String {
        self.press(&format!("{line}\r"));
        // The line is echoed after its own prompt, so the prompt to wait for is the next one.
        self.wait_for("\r\n");
        self.wait_for("coracle> ")
    }

    fn end(mut self) -> Option<i32> {
        drop(self.keyboard);
        self.child.wait().expect("it ends").code()
    }
}

/// Returns this text as a paste arrives at a program that has enabled bracketed paste.
fn pasted(text: &str) -> String {
    format!("\x1b[200~{text}\x1b[201~")
}

/// A session may begin before its server starts, accepts a paste of several commands, and accepts
/// JSON without quotes around it.
fn a_session_begins_without_a_server(runtime: Runtime) {
    let free = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
    let address = free.local_addr().expect("a listener has an address");
    drop(free);
    let Some(mut terminal) = Terminal::run("client", address) else { return };
    let greeting = terminal.wait_for("coracle> ");
    assert!(greeting.contains("has no server yet"), "{greeting}");
    assert!(terminal.enter("get a").contains("error: no server answered"));
    let server = Setup::in_memory(runtime).with(&format!("--nodes 1 --listen {address}")).start();
    assert!(terminal.enter("put -5 {\"a\": [1, 2]} --json").contains("ok\r\n"));
    assert!(terminal.enter("get -5").contains("{\"a\":[1,2]}\r\n"));
    terminal.press(&pasted("put b 42\nput c \"two words\"\nget b"));
    terminal.press("\r");
    terminal.wait_for("ok\r\nok\r\n\"42\"\r\n");
    terminal.wait_for("coracle> ");
    assert!(terminal.enter("get c").contains("two words\r\n"));
    terminal.press("\x04");
    assert_eq!(terminal.end(), Some(0));
    server.stop();
}

/// Ctrl-C ends the wait for a reply, reports the unknown outcome of a write, and keeps the session.
#[test]
fn an_interrupt_gives_up_the_request_and_not_the_session() {
    let server = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
    let address = server.local_addr().expect("a listener has an address");
    let answer =
        |mut asked: &TcpStream| writeln!(asked, "{{\"status\":\"ok\"}}").expect("the client listens");
    let ask = |connection: &TcpStream| {
        let mut request = String::new();
        BufReader::new(connection).read_line(&mut request).expect("the client asks");
        request
    };
    let Some(mut terminal) = Terminal::run("client", address) else { return };
    let (mut connection, _) = server.accept().expect("the client connects");
    ask(&connection);
    answer(&connection);
    terminal.wait_for("coracle> ");
    for (line, is_write) in [("put a 2", true), ("get a", false), ("status --wait", false)] {
        terminal.press(&format!("{line}\r"));
        assert!(ask(&connection).starts_with("{\"op\":"));
        terminal.press("\x03");
        let said = terminal.wait_for("coracle> ");
        // The line itself was echoed after a prompt as well.
        let said = if said.contains("interrupted") { said } else { terminal.wait_for("coracle> ") };
        assert!(said.contains("error: interrupted"), "{line}: {said:?}");
        assert_eq!(said.contains("the outcome is unknown"), is_write, "{line}: {said:?}");
        terminal.press("ping\r");
        (connection, _) = server.accept().expect("the client connects again");
        ask(&connection);
        answer(&connection);
        terminal.wait_for("ok\r\n");
        terminal.wait_for("coracle> ");
    }
    terminal.press("\x04");
    assert_eq!(terminal.end(), Some(0));
}

/// A value at a terminal is escaped, so that it cannot clear the screen, and the string "42"
/// differs from the number 42.
fn a_value_at_a_terminal_is_no_command(runtime: Runtime) {
    let server = Setup::in_memory(runtime).with("--nodes 1").start();
    let mut talk = server.connect();
    for (value, shown, raw) in [
        ("42", "42\r\n", "42\r\n"),
        ("\"42\"", "\"42\"\r\n", "42\r\n"),
        ("\"\\u001b[2J\"", "\"\\u001b[2J\"\r\n", "\\u001b[2J\r\n"),
        ("\"two\\nlines\\n\"", "two\r\nlines\r\n\r\n", "two\r\nlines\r\n"),
    ] {
        assert_eq!(talk.ask(&format!("{{\"key\":\"k\",\"value\":{value}}}"))["status"], "ok");
        for (arguments, expected) in [("get k", shown), ("get k --raw", raw)] {
            let Some(mut terminal) = Terminal::run(arguments, server.address()) else { return };
            terminal.wait_for(expected);
            assert_eq!(terminal.end(), Some(0));
        }
    }
    server.stop();
}

both_runtimes!(a_session_begins_without_a_server, a_value_at_a_terminal_is_no_command);
