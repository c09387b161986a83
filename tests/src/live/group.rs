//! Control group for servers: limits their memory or their threads, where this process may create
//! one.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// A limit of a control group, with the names of its files.
#[derive(Debug)]
struct Limit {
    /// The folders of control groups with this limit and their file names, for cgroup version 1 and
    /// version 2.
    places: [(&'static str, Names); 2],
}

#[derive(Clone, Copy, Debug)]
struct Names {
    max: &'static str,
    /// The file with the highest usage so far.
    peak: &'static str,
    /// The file that contains the line `oom_kill N`.
    kills: &'static str,
}

const MEMORY: Limit = Limit {
    places: [
        (
            "/sys/fs/cgroup/memory",
            Names {
                max: "memory.limit_in_bytes",
                peak: "memory.max_usage_in_bytes",
                kills: "memory.oom_control",
            },
        ),
        ("/sys/fs/cgroup", Names { max: "memory.max", peak: "memory.peak", kills: "memory.events" }),
    ],
};

const THREADS: Limit = Limit {
    places: [
        ("/sys/fs/cgroup/pids", Names { max: "pids.max", peak: "pids.peak", kills: "pids.events" }),
        ("/sys/fs/cgroup", Names { max: "pids.max", peak: "pids.peak", kills: "pids.events" }),
    ],
};

/// A new control group, removed when it is dropped, if its processes have ended.
#[derive(Debug)]
pub struct Group {
    path: PathBuf,
    names: Names,
}

impl Group {
    /// Creates a group with a memory limit in bytes; `None` if this process may not create one.
    #[must_use]
    pub fn of_memory(bytes: u64) -> Option<Self> {
        let group = Self::new(&MEMORY)?;
        fs::write(group.path.join(group.names.max), bytes.to_string()).ok()?;
        Some(group)
    }

    /// Creates a group with a limit of threads; `None` if this process may not create one.
    #[must_use]
    pub fn of_threads(threads: u32) -> Option<Self> {
        let group = Self::new(&THREADS)?;
        fs::write(group.path.join(group.names.max), threads.to_string()).ok()?;
        Some(group)
    }

    fn new(limit: &Limit) -> Option<Self> {
        static GROUPS: AtomicU32 = AtomicU32::new(0);
        let number = GROUPS.fetch_add(1, Ordering::Relaxed);
        limit.places.iter().find_map(|(place, names)| {
            let path = Path::new(place).join(format!("coracle-{}-{number}", std::process::id()));
            fs::create_dir(&path).ok()?;
            let group = Self { path, names: *names };
            group.path.join(names.max).exists().then_some(group)
        })
    }

    /// Changes the limit of threads, or bytes.
    ///
    /// # Panics
    ///
    /// When the operating system rejects it.
    pub fn set_max(&self, max: u64) {
        fs::write(self.path.join(self.names.max), max.to_string()).expect("it is our group");
    }

    /// Limits the group to the threads that it has now.
    ///
    /// # Panics
    ///
    /// When the operating system does not report their number, or rejects the limit.
    pub fn close_to_threads(&self) {
        let present = fs::read_to_string(self.path.join("pids.current")).expect("it is our group");
        self.set_max(present.trim().parse().expect("it is a number"));
    }

    /// The command prefix that runs a program in this group.
    #[must_use]
    pub fn tracer(&self) -> Vec<OsString> {
        let enter = format!("echo $$ > {}/cgroup.procs; exec \"$@\"", self.path.display());
        ["sh", "-c", &enter, "sh"].map(OsString::from).into()
    }

    /// The highest usage so far, if the operating system reports it.
    #[must_use]
    pub fn peak(&self) -> Option<u64> {
        fs::read_to_string(self.path.join(self.names.peak)).ok()?.trim().parse().ok()
    }

    /// The number of out-of-memory kills in this group.
    #[must_use]
    pub fn kills(&self) -> u64 {
        let text = fs::read_to_string(self.path.join(self.names.kills)).unwrap_or_default();
        let count = text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.parse().ok());
        count.unwrap_or_default()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Ignore the error: the folder remains while a process in it is about to end, and the
        // operating system offers no other way to remove it.
        _ = fs::remove_dir(&self.path);
    }
}
