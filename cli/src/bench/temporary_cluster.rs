//! The temporary cluster of a benchmark: this same program as a child process, serving from a
//! temporary folder.
//!
//! It is a separate process so that load and cluster do not share an executor, a heap or the
//! consequences of a panic.

use std::io::{self, BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use thiserror::Error;

use super::options::TemporaryOptions;

/// How long a cluster may take to shut down cleanly, and the interval at which it is polled.
/// Arbitrary.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Why a temporary cluster could not be started.
#[derive(Debug, Error)]
pub(crate) enum TemporaryClusterError {
    #[error("cannot make a temporary folder: {0}")]
    Folder(io::Error),
    #[error("cannot start a cluster: {0}")]
    Start(io::Error),
    #[error("the cluster ended before it served: {said:?} is not `ready ADDR`")]
    NotReady { said: String },
}

/// A running cluster. Dropping it stops the cluster and removes its folder.
#[derive(Debug)]
pub(super) struct TemporaryCluster {
    child: Child,
    address: SocketAddr,
    /// Kept open, because the server may still write to it.
    _stdout: BufReader<ChildStdout>,
    /// Removed after the child has ended: fields are dropped after [`Drop::drop`] has run.
    _folder: TempDir,
}

impl TemporaryCluster {
    /// Starts a cluster and waits until it is ready. Its errors appear on this process's stderr.
    pub(super) fn start(options: TemporaryOptions) -> Result<Self, TemporaryClusterError> {
        let folder = tempfile::Builder::new().prefix("coracle-bench-").tempdir();
        let folder = folder.map_err(TemporaryClusterError::Folder)?;
        let program = std::env::current_exe().map_err(TemporaryClusterError::Start)?;
        let mut command = Command::new(program);
        command.args(["serve", "--listen", "127.0.0.1:0", "--log-level", "error"]);
        command.args(["--runtime", options.runtime.name(), "--nodes", &options.nodes.to_string()]);
        // The settings of a server on this machine are not those of the temporary cluster.
        for name in crate::config::variables() {
            command.env_remove(name);
        }
        if options.ephemeral {
            command.arg("--ephemeral");
        } else {
            command.arg("--data-dir").arg(folder.path());
        }
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
        let mut child = child.map_err(TemporaryClusterError::Start)?;
        let mut stdout = BufReader::new(child.stdout.take().expect("stdout is a pipe"));
        let mut said = String::new();
        let read = stdout.read_line(&mut said);
        let ready = said.strip_prefix("ready ").and_then(|address| address.trim_end().parse().ok());
        let (Ok(_), Some(address)) = (read, ready) else {
            // The child has already ended, or is not a Coracle server.
            _ = child.kill();
            _ = child.wait();
            return Err(TemporaryClusterError::NotReady { said });
        };
        Ok(Self { child, address, _stdout: stdout, _folder: folder })
    }

    /// The address at which the cluster serves.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for TemporaryCluster {
    fn drop(&mut self) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        // The child may have ended already; then there is nothing to stop.
        _ = pid.map(|pid| kill_process(pid, Signal::TERM));
        let begin = Instant::now();
        while begin.elapsed() < STOP_TIMEOUT {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            thread::sleep(LOOK_EVERY);
        }
        _ = self.child.kill();
        _ = self.child.wait();
    }
}
