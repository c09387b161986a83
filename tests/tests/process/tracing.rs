//! Fault injection by `strace`: records a server's system calls, delays them, and makes them fail.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// How to run `strace`: the trace file and the arguments.
#[derive(Debug)]
pub(crate) struct Tracer {
    trace: PathBuf,
    arguments: Vec<OsString>,
}

/// One system call in a trace.
#[derive(Debug)]
pub(crate) struct Call {
    /// The lines of the trace at which the call began and ended, in the order of events.
    pub(crate) begun: usize,
    pub(crate) ended: usize,
    pub(crate) name: String,
    /// The arguments as printed when the call began. They name the file or socket, and show the
    /// bytes that are written.
    pub(crate) arguments: String,
    pub(crate) worked: bool,
}

impl Tracer {
    /// Returns whether `strace` can trace calls and make them fail here. If not, it prints that
    /// past the capture of a test's output, because a skipped proof must not look like a passed
    /// one.
    pub(crate) fn can_inject() -> bool {
        static CAN_INJECT: OnceLock<bool> = OnceLock::new();
        *CAN_INJECT.get_or_init(|| {
            let probe = ["-D", "-f", "-qq", "-e", "trace=fsync", "-e", "inject=fsync:error=EIO", "true"];
            let run = Command::new("strace").args(probe).stdout(Stdio::null()).stderr(Stdio::null()).status();
            let works = run.is_ok_and(|status| status.success());
            if !works {
                let told = "SKIPPED: no strace that can inject faults; what the server does to its disk is NOT proved";
                writeln!(io::stderr(), "\n{told}\n").expect("stderr takes text");
            }
            works
        })
    }

    /// Returns a tracer that writes to the file `trace`. The traced process stays our child, under
    /// its own process id (`-D`).
    pub(crate) fn new(trace: PathBuf) -> Self {
        Self { trace, arguments: ["-D", "-f", "-qq", "-yy", "-s", "65536"].map(OsString::from).into() }
    }

    /// Records these calls, separated by commas.
    pub(crate) fn watching(mut self, calls: &str) -> Self {
        self.arguments.extend(["-e".into(), format!("trace={calls}").into()]);
        self
    }

    /// Kills the process at the `number`th of these calls of one of its threads. The smol runtime's
    /// pool for blocking calls is limited to one thread, so that a number always means the same
    /// call.
    pub(crate) fn killing(self, calls: &str, number: usize) -> Self {
        let mut tracer = self.watching(calls);
        tracer.arguments.extend(["-E", "BLOCKING_MAX_THREADS=1"].map(OsString::from));
        tracer.arguments.extend(["-e".into(), format!("inject={calls}:signal=KILL:when={number}").into()]);
        tracer
    }

    /// Makes this call on these files fail, from the `number`th of each thread on.
    pub(crate) fn failing(self, call: &str, error: &str, number: usize, files: &[PathBuf]) -> Self {
        let mut tracer = self.watching(call);
        tracer.arguments.extend(["-e".into(), format!("inject={call}:error={error}:when={number}+").into()]);
        for file in files {
            tracer.arguments.extend(["-P".into(), file.into()]);
        }
        tracer
    }

    /// Makes the first such call of each thread on this file fail.
    pub(crate) fn failing_first(self, call: &str, error: &str, file: PathBuf) -> Self {
        let mut tracer = self.watching(call);
        tracer.arguments.extend(["-E", "BLOCKING_MAX_THREADS=1"].map(OsString::from));
        tracer.arguments.extend(["-e".into(), format!("inject={call}:error={error}:when=1").into()]);
        tracer.arguments.extend(["-P".into(), file.into()]);
        tracer
    }

    /// Makes every sync of these files take `ms` milliseconds longer.
    pub(crate) fn slowing_syncs(self, ms: u64, files: &[PathBuf]) -> Self {
        let mut tracer = self.watching("fdatasync");
        tracer.arguments.extend(["-e".into(), format!("inject=fdatasync:delay_enter={}", ms * 1000).into()]);
        for file in files {
            tracer.arguments.extend(["-P".into(), file.into()]);
        }
        tracer
    }

    /// Records these calls, and makes each thread's first `call` take `ms` milliseconds longer.
    pub(crate) fn slowing_first(self, calls: &str, call: &str, ms: u64) -> Self {
        let mut tracer = self.watching(calls);
        let inject = format!("inject={call}:delay_enter={}:when=1", ms * 1000);
        tracer.arguments.extend(["-e".into(), inject.into()]);
        tracer
    }

    /// Returns the words to put before the program on its command line.
    pub(crate) fn words(&self) -> Vec<OsString> {
        let mut words: Vec<OsString> = vec!["strace".into(), "-o".into(), self.trace.clone().into()];
        words.extend(self.arguments.iter().cloned());
        words
    }

    /// Returns the calls that have ended so far.
    pub(crate) fn calls(&self) -> Vec<Call> {
        read_trace(&self.trace)
    }
}

/// Parses a trace. Its lines are `PID call(arguments) = result`; or, if another thread's call came
/// between, `PID call(arguments <unfinished ...>` and later `PID <... call resumed>more) = result`.
fn read_trace(path: &Path) -> Vec<Call> {
    let text = String::from_utf8_lossy(&fs::read(path).expect("there is a trace")).into_owned();
    let mut calls = Vec::new();
    let mut open: Vec<(String, Call)> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let Some((pid, rest)) = line.split_once(' ') else { continue };
        let rest = rest.trim_start();
        let worked = !rest.contains(") = -1 ") && !rest.ends_with(" = ?");
        if rest.starts_with("<... ") {
            if let Some(at) = open.iter().position(|(thread, _)| thread == pid) {
                let (_, call) = open.remove(at);
                calls.push(Call { ended: number, worked, ..call });
            }
        } else if let Some((name, arguments)) = rest.split_once('(') {
            let call =
                Call { begun: number, ended: number, name: name.into(), arguments: arguments.into(), worked };
            if rest.ends_with("<unfinished ...>") {
                open.push((pid.to_owned(), call));
            } else {
                calls.push(call);
            }
        }
    }
    calls
}

impl Call {
    pub(crate) fn is_sync_of(&self, file: &str) -> bool {
        ["fsync", "fdatasync"].contains(&self.name.as_str()) && self.is_on(file)
    }

    pub(crate) fn is_write_to(&self, file: &str) -> bool {
        ["write", "writev", "pwrite64", "sendto", "sendmsg"].contains(&self.name.as_str()) && self.is_on(file)
    }

    /// Returns whether the first argument, a descriptor, stands for this file or socket.
    fn is_on(&self, file: &str) -> bool {
        let descriptor = self.arguments.split(", \"").next().unwrap_or_default();
        descriptor.contains(file)
    }
}
