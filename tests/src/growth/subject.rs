//! The measured server: the real program in a separate folder, with its resource usage as the
//! operating system reports it.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::live::{Runtime, Server, Setup};

/// A server that is empty at first. Its folder is removed with it.
#[derive(Debug)]
pub(super) struct Subject {
    pub(super) server: Server,
    folder: TempDir,
}

/// The default election times of the program; tests have quicker ones otherwise.
const DEFAULTS: &str = "--heartbeat 50ms --election-timeout 300ms..600ms --log-level error";

/// Flags that disable snapshots, so that all data is in the log.
const NO_SNAPSHOTS: &str = "--snapshot-bytes 1000000000000 --snapshot-entries 1000000000000";

/// The setup of a server with `folder`, and with `flags` in addition to the defaults.
pub(super) fn setup(runtime: Runtime, folder: &Path, flags: &str) -> Setup {
    Setup::in_folder(runtime, folder).with(DEFAULTS).with(flags)
}

/// The flags for a log that is never compacted.
pub(super) fn without_snapshots(flags: &str) -> String {
    format!("{NO_SNAPSHOTS} {flags}")
}

/// Creates a folder, with a name that tells its origin if it is left behind.
pub(super) fn folder() -> TempDir {
    let folder = tempfile::Builder::new().prefix("coracle-growth-").tempdir();
    folder.expect("there is room for a temporary folder")
}

impl Subject {
    /// Starts a server and waits until it has a leader.
    pub(super) fn start(runtime: Runtime, flags: &str) -> Self {
        let folder = folder();
        let server = setup(runtime, folder.path(), flags).start();
        let _ = server.settle();
        Self { server, folder }
    }

    /// The resident memory.
    pub(super) fn resident_mib(&self) -> f64 {
        mib(self.server.memory_bytes())
    }

    /// The size of its files.
    pub(super) fn folder_mib(&self) -> f64 {
        let files = fs::read_dir(self.folder.path()).expect("the folder is there");
        // A file that was renamed in the meantime is counted by its new name.
        let bytes = files.flatten().filter_map(|file| file.metadata().ok()).map(|data| data.len()).sum();
        mib(bytes)
    }

    /// The share of one core that it uses during `span`, in percent.
    pub(super) fn core_percent(&self, span: Duration) -> f64 {
        let (begin, before) = (Instant::now(), self.processor_seconds());
        std::thread::sleep(span);
        (self.processor_seconds() - before) / begin.elapsed().as_secs_f64() * 100.0
    }

    /// The processor time so far, in user and kernel mode.
    fn processor_seconds(&self) -> f64 {
        /// Linux reports these times in hundredths of a second, whatever the kernel's timer
        /// frequency is.
        const TICKS_PER_SECOND: f64 = 100.0;
        let path = format!("/proc/{}/stat", self.server.pid());
        let stat = fs::read_to_string(path).expect("a running process has a state");
        // The second field is a name in brackets, which may contain spaces. The rest starts with
        // the third field.
        let (_, fields) = stat.rsplit_once(") ").expect("the name is in brackets");
        let ticks = fields.split_whitespace().skip(11).take(2);
        ticks.map(|ticks| ticks.parse::<f64>().expect("times are numbers")).sum::<f64>() / TICKS_PER_SECOND
    }
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
