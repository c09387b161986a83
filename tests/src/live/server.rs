//! The program as a process: starting it, ending it in various ways, and its output.

use std::ffi::OsString;
use std::io::Read;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use super::over_tls::{self, is_secured};
use super::{Talk, program, until};

/// The runtime of the nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runtime {
    /// A single-threaded executor.
    Smol,
    /// Threads.
    Threads,
}

impl Runtime {
    /// The name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Smol => "smol",
            Self::Threads => "threads",
        }
    }
}

/// The options with which a server is started.
#[derive(Clone, Debug)]
pub struct Setup {
    runtime: Runtime,
    /// `node`, unless it is the default command.
    command: Option<&'static str>,
    folder: Option<PathBuf>,
    flags: Vec<String>,
    tracer: Vec<OsString>,
    is_secured: bool,
}

/// A process that serves, or is about to. Dropping it kills it.
#[derive(Debug)]
pub struct Server {
    child: Child,
    address: Option<SocketAddr>,
    /// Whether the address is to be that of a relay.
    is_secured: bool,
    stdout: Said,
    stderr: Said,
    listeners: Vec<JoinHandle<()>>,
}

/// The output of a pipe so far.
type Said = Arc<Mutex<String>>;

/// The exit code and the whole output of a process that has ended.
#[derive(Debug)]
pub struct Ended {
    /// The exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Setup {
    /// A server that keeps everything in memory, on a free port.
    ///
    /// Elections are quicker than by default, because most stories have to wait for the first one.
    #[must_use]
    pub fn in_memory(runtime: Runtime) -> Self {
        let flags = ["--heartbeat", "20ms", "--election-timeout", "100ms..200ms"].map(str::to_owned).to_vec();
        Self { runtime, command: None, folder: None, flags, tracer: Vec::new(), is_secured: is_secured() }
    }

    /// A server with its files in `folder`, on a free port.
    #[must_use]
    pub fn in_folder(runtime: Runtime, folder: &Path) -> Self {
        Self { folder: Some(folder.to_owned()), ..Self::in_memory(runtime) }
    }

    /// One node of a cluster of processes, with its files in `folder`.
    #[must_use]
    pub fn node(runtime: Runtime, id: u64, folder: &Path) -> Self {
        Self { command: Some("node"), ..Self::in_folder(runtime, folder) }.with(&format!("--id {id}"))
    }

    /// Adds these flags, separated by spaces. A later flag replaces an earlier one of the same
    /// name.
    #[must_use]
    pub fn with(mut self, flags: &str) -> Self {
        let mut words = flags.split_whitespace().map(str::to_owned).peekable();
        while let Some(flag) = words.next() {
            if let Some(at) = self.flags.iter().position(|earlier| *earlier == flag) {
                self.flags.drain(at..at + 2);
            }
            self.flags.push(flag);
            self.flags.extend(words.next_if(|word| !word.starts_with("--")));
        }
        self
    }

    /// Runs the server under this tracer: a program and its arguments, which starts the following
    /// command and leaves it the process id.
    #[must_use]
    pub fn under(mut self, tracer: Vec<OsString>) -> Self {
        self.tracer = tracer;
        self
    }

    /// Starts the process and waits until it is ready.
    ///
    /// # Panics
    ///
    /// When it ends before that.
    #[must_use]
    pub fn start(&self) -> Server {
        let mut server = self.launch();
        server.wait_until_ready();
        server
    }

    /// Starts a process that must fail to start, and waits for its end.
    #[must_use]
    pub fn fail(&self) -> Ended {
        self.launch().wait()
    }

    /// Launches the process and does not wait.
    ///
    /// # Panics
    ///
    /// When it cannot be started.
    #[must_use]
    pub fn launch(&self) -> Server {
        let mut words: Vec<OsString> = self.tracer.clone();
        words.push(program().into());
        words.extend(self.command.map(OsString::from));
        words.extend(["--runtime", self.runtime.name()].map(OsString::from));
        if !self.flags.iter().any(|flag| flag == "--listen") {
            words.extend(["--listen", "127.0.0.1:0"].map(OsString::from));
        }
        // Most stories start nodes one after the other, and the first node alone is no majority.
        if !self.flags.iter().any(|flag| flag == "--ready-when") {
            words.extend(["--ready-when", "listening"].map(OsString::from));
        }
        match &self.folder {
            Some(folder) => words.extend(["--data-dir".into(), folder.into()]),
            None => words.push("--ephemeral".into()),
        }
        words.extend(self.flags.iter().map(OsString::from));
        if self.is_secured {
            words.extend(over_tls::flags().into_iter().map(OsString::from));
        }
        let mut child = Command::new(&words[0])
            .args(&words[1..])
            .env_remove("CORACLE_CONNECT")
            .env_remove("CORACLE_INSECURE")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", words[0].display()));
        let (stdout, out) = listen(child.stdout.take().expect("stdout is a pipe"));
        let (stderr, err) = listen(child.stderr.take().expect("stderr is a pipe"));
        Server {
            child,
            address: None,
            is_secured: self.is_secured,
            stdout,
            stderr,
            listeners: vec![out, err],
        }
    }
}

/// Reads a pipe on a separate thread until it ends.
fn listen(mut pipe: impl Read + Send + 'static) -> (Said, JoinHandle<()>) {
    let said = Said::default();
    let hears = Arc::clone(&said);
    let listener = thread::spawn(move || {
        let mut bytes = [0; 4096];
        while let Ok(len @ 1..) = pipe.read(&mut bytes) {
            let text = String::from_utf8_lossy(&bytes[..len]);
            hears.lock().unwrap_or_else(PoisonError::into_inner).push_str(&text);
        }
    });
    (said, listener)
}

fn text_of(said: &Said) -> String {
    said.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

impl Server {
    /// Waits for the ready line.
    ///
    /// # Panics
    ///
    /// When it ends before that.
    pub fn wait_until_ready(&mut self) {
        assert!(self.becomes_ready(), "the server ended before it was ready: {}", self.stderr());
    }

    /// Returns whether it has written anything to stdout.
    #[must_use]
    pub fn has_said_anything(&self) -> bool {
        !text_of(&self.stdout).is_empty()
    }

    /// Waits until it serves or has ended. Returns whether it serves.
    ///
    /// # Panics
    ///
    /// When it does neither, or prints another line than the ready line.
    pub fn becomes_ready(&mut self) -> bool {
        until("the server is ready, or has ended", || {
            text_of(&self.stdout).ends_with('\n') || self.has_ended()
        });
        if self.has_ended() {
            return false;
        }
        let line = text_of(&self.stdout);
        let address = line.strip_prefix("ready ").and_then(|address| address.trim_end().parse().ok());
        let address = address.unwrap_or_else(|| panic!("no ready line: {line}"));
        self.address = Some(if self.is_secured { over_tls::relay_to(address) } else { address });
        true
    }

    /// Returns whether the process has ended.
    ///
    /// # Panics
    ///
    /// When the operating system does not report it.
    #[must_use]
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("a child can be waited for").is_some()
    }

    /// The client address.
    ///
    /// # Panics
    ///
    /// When the server is not known to be ready.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address.expect("the server is ready")
    }

    /// Opens a new connection.
    #[must_use]
    pub fn connect(&self) -> Talk {
        Talk::open(self.address())
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its stderr so far.
    #[must_use]
    pub fn stderr(&self) -> String {
        text_of(&self.stderr)
    }

    /// Waits until all nodes have the same log, completely committed and applied. Returns its last
    /// index.
    #[must_use]
    pub fn settle(&self) -> u64 {
        let mut talk = self.connect();
        let mut last = 0;
        until("all nodes agree", || {
            let status = talk.ask(r#"{"op":"status"}"#);
            let nodes = status["nodes"].as_array().expect("a status has nodes");
            last = nodes[0]["last_log_index"].as_u64().unwrap_or_default();
            let fields = ["last_log_index", "commit_index", "last_applied"];
            last > 0 && nodes.iter().all(|node| fields.iter().all(|field| node[field] == last))
        });
        last
    }

    /// The memory that the process has in use, in bytes; 0 once it has ended.
    #[must_use]
    pub fn memory_bytes(&self) -> u64 {
        self.status_bytes("VmRSS:")
    }

    /// The most memory that the process has had in use, in bytes; 0 once it has ended.
    #[must_use]
    pub fn memory_peak_bytes(&self) -> u64 {
        self.status_bytes("VmHWM:")
    }

    fn status_bytes(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        line.trim().trim_end_matches(" kB").parse().map_or(0, |kilobytes: u64| kilobytes << 10)
    }

    /// Stops it by SIGTERM, and checks its end: exit code 0, and only the ready line on stdout.
    ///
    /// # Panics
    ///
    /// When it ends in another way.
    pub fn stop(self) -> Ended {
        signal(self.pid(), "TERM");
        let ended = self.wait();
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        assert_eq!(ended.stdout.lines().count(), 1, "{}", ended.stdout);
        ended
    }

    /// Kills it with SIGKILL.
    ///
    /// # Panics
    ///
    /// When the operating system refuses.
    pub fn kill(mut self) -> Ended {
        self.child.kill().expect("a child may be killed");
        self.wait()
    }

    /// Waits for its end.
    ///
    /// # Panics
    ///
    /// When it does not end.
    #[must_use]
    pub fn wait(mut self) -> Ended {
        until("the process ends", || self.has_ended());
        let status = self.child.wait().expect("a child can be waited for");
        // The pipes end with the process, or with a tracer that outlives it for a moment.
        for listener in self.listeners.drain(..) {
            listener.join().expect("a listener does not panic");
        }
        Ended { code: status.code(), stdout: text_of(&self.stdout), stderr: self.stderr() }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Ignore the errors: it may have ended before.
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

/// Sends a signal, by its name without `SIG`.
///
/// # Panics
///
/// When the process does not exist.
pub fn signal(pid: u32, name: &str) {
    let kill = Command::new("kill").args(["-s", name, &pid.to_string()]).status();
    assert!(kill.expect("kill starts").success(), "no process {pid}");
}
