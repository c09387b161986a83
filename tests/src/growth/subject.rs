//! The server that is measured: the real program in a folder of its own, and what the operating
//! system says of it.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::live::{Runtime, Server, Setup};

/// A server with nothing in it yet. Its folder goes away with it.
#[derive(Debug)]
pub(super) struct Subject {
    pub(super) server: Server,
    folder: TempDir,
}

/// The flags of a user who sets none: quick elections are for tests.
const DEFAULTS: &str = "--heartbeat 50ms --election-timeout 300ms..600ms --log-level error";

/// So that the log is all there is.
const NO_SNAPSHOTS: &str = "--snapshot-bytes 1000000000000 --snapshot-entries 1000000000000";

/// How a server is started with `folder`, and with `flags` beside the defaults.
pub(super) fn setup(runtime: Runtime, folder: &Path, flags: &str) -> Setup {
    Setup::in_folder(runtime, folder).with(DEFAULTS).with(flags)
}

/// The flags for a log that is never cut.
pub(super) fn without_snapshots(flags: &str) -> String {
    format!("{NO_SNAPSHOTS} {flags}")
}

/// A new folder, with a name that tells whose it was should it be left behind.
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

    /// Its resident set.
    pub(super) fn resident_mib(&self) -> f64 {
        mib(self.server.memory_bytes())
    }

    /// What its files hold.
    pub(super) fn folder_mib(&self) -> f64 {
        let files = fs::read_dir(self.folder.path()).expect("the folder is there");
        // A file that has been renamed meanwhile is counted by its new name.
        let bytes = files.flatten().filter_map(|file| file.metadata().ok()).map(|data| data.len()).sum();
        mib(bytes)
    }

    /// How much of one core it uses while `span` passes, in per cent.
    pub(super) fn core_percent(&self, span: Duration) -> f64 {
        let (begin, before) = (Instant::now(), self.processor_seconds());
        std::thread::sleep(span);
        (self.processor_seconds() - before) / begin.elapsed().as_secs_f64() * 100.0
    }

    /// The time that it has had on processors so far, its own and the system's on its behalf.
    fn processor_seconds(&self) -> f64 {
        /// Linux tells these times in hundredths of a second, whatever its own clock's grain.
        const TICKS_PER_SECOND: f64 = 100.0;
        let path = format!("/proc/{}/stat", self.server.pid());
        let stat = fs::read_to_string(path).expect("a running process has a state");
        // The second field is a name in brackets, which may hold spaces; what follows starts with
        // the third.
        let (_, fields) = stat.rsplit_once(") ").expect("the name is in brackets");
        let ticks = fields.split_whitespace().skip(11).take(2);
        ticks.map(|ticks| ticks.parse::<f64>().expect("times are numbers")).sum::<f64>() / TICKS_PER_SECOND
    }
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
