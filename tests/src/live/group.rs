//! A control group for servers: a limit on their memory or on their threads, where this process may
//! make one.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// What a group limits, with the names of its files.
#[derive(Debug)]
struct Limit {
    /// Where control groups with this limit are found, and the names there: of the version before,
    /// and of the second one.
    places: [(&'static str, Names); 2],
}

#[derive(Clone, Copy, Debug)]
struct Names {
    max: &'static str,
    /// What the group held at the most.
    peak: &'static str,
    /// Where a line `oom_kill N` stands.
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

/// A control group of its own, gone when it is dropped and its processes have ended.
#[derive(Debug)]
pub struct Group {
    path: PathBuf,
    names: Names,
}

impl Group {
    /// A group whose memory is limited to so many bytes; `None` if this process may not create one.
    #[must_use]
    pub fn of_memory(bytes: u64) -> Option<Self> {
        let group = Self::new(&MEMORY)?;
        fs::write(group.path.join(group.names.max), bytes.to_string()).ok()?;
        Some(group)
    }

    /// A group that may have so many threads; `None` if this process may not create one.
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

    /// Changes how many threads, or bytes, it may have.
    ///
    /// # Panics
    ///
    /// When the operating system does not take it.
    pub fn set_max(&self, max: u64) {
        fs::write(self.path.join(self.names.max), max.to_string()).expect("it is our group");
    }

    /// Gives it no more threads than it has.
    ///
    /// # Panics
    ///
    /// When the operating system does not tell, or does not take it.
    pub fn close_to_threads(&self) {
        let present = fs::read_to_string(self.path.join("pids.current")).expect("it is our group");
        self.set_max(present.trim().parse().expect("it is a number"));
    }

    /// What to put before a program, so that it runs in this group.
    #[must_use]
    pub fn tracer(&self) -> Vec<OsString> {
        let enter = format!("echo $$ > {}/cgroup.procs; exec \"$@\"", self.path.display());
        ["sh", "-c", &enter, "sh"].map(OsString::from).into()
    }

    /// The most that it has held, as far as the operating system tells.
    #[must_use]
    pub fn peak(&self) -> Option<u64> {
        fs::read_to_string(self.path.join(self.names.peak)).ok()?.trim().parse().ok()
    }

    /// How often the kernel has killed something in it for want of memory.
    #[must_use]
    pub fn kills(&self) -> u64 {
        let text = fs::read_to_string(self.path.join(self.names.kills)).unwrap_or_default();
        let count = text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.parse().ok());
        count.unwrap_or_default()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // It stays while a process in it is about to end; the operating system gives no other way
        // to remove it.
        _ = fs::remove_dir(&self.path);
    }
}
