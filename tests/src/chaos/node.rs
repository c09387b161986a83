//! One node of a chaos campaign, as a process.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::Violation;
use super::home::Home;
use crate::live::{Runtime, TIMEOUT, program, signal};

/// The options that stay the same over all starts of a node.
#[derive(Debug)]
pub(super) struct Start {
    /// The id of the node.
    pub(super) id: u64,
    pub(super) runtime: Runtime,
    /// `--peers` or `--join` with its value.
    pub(super) origin: [String; 2],
    /// The address at which it listens for peers, if it differs from the address in the
    /// configuration because it was moved.
    pub(super) peer_listen: Option<SocketAddr>,
    /// The address at which it dials each peer: that of a proxy.
    pub(super) dial_map: String,
    pub(super) flags: Vec<String>,
    /// The file with its stderr of all starts.
    pub(super) stderr: PathBuf,
}

/// A node, running or not.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) start: Start,
    pub(super) home: Home,
    child: Option<Child>,
    /// The lines of its stdout.
    stdout: Arc<Mutex<Vec<String>>>,
    pub(super) is_paused: bool,
    pub(super) starts: u32,
}

/// The way in which a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Code(i32),
    Signal(i32),
}

impl From<ExitStatus> for End {
    fn from(status: ExitStatus) -> Self {
        status.code().map_or_else(|| Self::Signal(status.signal().unwrap_or(0)), Self::Code)
    }
}

impl Node {
    pub(super) fn new(start: Start, home: Home) -> Self {
        Self { start, home, child: None, stdout: Arc::default(), is_paused: false, starts: 0 }
    }

    pub(super) fn id(&self) -> u64 {
        self.start.id
    }

    pub(super) fn is_running(&self) -> bool {
        self.child.is_some()
    }

    /// Launches the process, under `tracer` if that is not empty, and does not wait.
    pub(super) fn launch(&mut self, tracer: &[OsString]) -> io::Result<()> {
        let mut words: Vec<OsString> = tracer.to_vec();
        words.push(program().into());
        let id = self.start.id.to_string();
        let runtime = self.start.runtime.name();
        let [how, whom] = &self.start.origin;
        let flags = ["node", "--id", &id, how, whom, "--listen", "127.0.0.1:0", "--ready-when", "listening"];
        words.extend(flags.map(OsString::from));
        if let Some(address) = self.start.peer_listen {
            words.extend(["--peer-listen".to_owned(), address.to_string()].map(OsString::from));
        }
        words.extend(["--runtime", runtime, "--data-dir"].map(OsString::from));
        words.push(self.home.data().into());
        words.extend(self.start.flags.iter().map(OsString::from));
        let stderr: File = OpenOptions::new().create(true).append(true).open(&self.start.stderr)?;
        let mut child = Command::new(&words[0])
            .args(&words[1..])
            .env_remove("CORACLE_CONNECT")
            .env("CORACLE_PEER_DIAL", &self.start.dial_map)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()?;
        let pipe = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
        let said = Arc::new(Mutex::new(Vec::new()));
        self.stdout = Arc::clone(&said);
        thread::spawn(move || {
            for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                said.lock().unwrap_or_else(PoisonError::into_inner).push(line);
            }
        });
        self.child = Some(child);
        self.is_paused = false;
        self.starts += 1;
        Ok(())
    }

    /// Starts the process and waits until it serves. Returns its address.
    pub(super) fn start(&mut self, tracer: &[OsString]) -> Result<SocketAddr, Violation> {
        let failed = |what: String| Violation { rule: "a node starts from what it left", what };
        let id = self.id();
        self.launch(tracer).map_err(|error| failed(format!("node {id}: {error}")))?;
        let give_up_at = Instant::now() + TIMEOUT;
        loop {
            if let Some(address) = self.address() {
                return Ok(address);
            }
            if let Some(end) = self.ended() {
                return Err(failed(format!(
                    "node {id} ended with {end:?} before it was ready: {}",
                    self.last_words()
                )));
            }
            if Instant::now() > give_up_at {
                return Err(failed(format!(
                    "node {id} is not ready after {TIMEOUT:?}: {}",
                    self.last_words()
                )));
            }
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// The address at which it serves clients, once it does.
    pub(super) fn address(&self) -> Option<SocketAddr> {
        let said = self.stdout.lock().unwrap_or_else(PoisonError::into_inner);
        said.first()?.strip_prefix("ready ")?.parse().ok()
    }

    /// The number of lines on stdout since its start.
    pub(super) fn lines_said(&self) -> usize {
        self.stdout.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// The way in which it ended, if it has ended by itself.
    pub(super) fn ended(&mut self) -> Option<End> {
        let end = self.child.as_mut()?.try_wait().ok()??.into();
        self.child = None;
        Some(end)
    }

    /// Waits for its end for this time.
    pub(super) fn ends_within(&mut self, patience: Duration) -> Option<End> {
        let give_up_at = Instant::now() + patience;
        loop {
            let end = self.ended();
            if end.is_some() || !self.is_running() || Instant::now() > give_up_at {
                return end;
            }
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Sends a signal, by its name without `SIG`, to the process if it runs.
    pub(super) fn signal(&mut self, name: &str) {
        if let Some(child) = &self.child {
            signal(child.id(), name);
            self.is_paused = name == "STOP" || (self.is_paused && name != "CONT");
        }
    }

    /// Kills the process with SIGKILL.
    pub(super) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Ignore the error: it may have ended before.
            _ = child.kill();
            _ = child.wait();
        }
        self.is_paused = false;
    }

    /// The last lines of its stderr.
    pub(super) fn last_words(&self) -> String {
        let text = std::fs::read_to_string(&self.start.stderr).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n  ")
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}
