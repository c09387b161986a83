//! The default of `--memory-max`: three quarters of the memory of the machine, or of its control
//! group if that has less.

use std::fs;
use std::path::Path;

/// The file in which Linux reports the memory of the machine.
const MACHINE: &str = "/proc/meminfo";
/// The file that lists the control groups of this process.
const GROUPS: &str = "/proc/self/cgroup";
/// The root folders of control groups version 2, and of the version 1 groups that limit memory.
const UNIFIED: &str = "/sys/fs/cgroup";
const FIRST_VERSION: &str = "/sys/fs/cgroup/memory";

/// Returns the default memory limit in bytes; `None` if the memory size is unknown.
pub(crate) fn default_max() -> Option<u64> {
    smallest(|path| fs::read_to_string(path).ok()).map(|bytes| bytes / 4 * 3)
}

/// Returns the smallest of all limits. A group is also limited by its ancestors. A group that is
/// not visible under its path, as inside a container, is the root of the visible hierarchy.
fn smallest(read: impl Fn(&Path) -> Option<String>) -> Option<u64> {
    let groups = read(Path::new(GROUPS)).unwrap_or_default();
    let mut limits: Vec<u64> = read(Path::new(MACHINE)).as_deref().and_then(of_machine).into_iter().collect();
    for (root, file, path) in groups.lines().filter_map(group) {
        let path = Path::new(path.trim_start_matches('/'));
        let known = path.ancestors().map(|path| Path::new(root).join(path).join(file));
        limits.extend(known.filter_map(|file| read(&file)?.trim().parse::<u64>().ok()));
    }
    limits.into_iter().min()
}

fn of_machine(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

/// Returns where the limit of one group in [`GROUPS`] is found: the root folder, the file name, and
/// the path between.
fn group(line: &str) -> Option<(&'static str, &'static str, &str)> {
    let mut fields = line.splitn(3, ':');
    let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
    if controllers.is_empty() {
        return Some((UNIFIED, "memory.max", path));
    }
    let limits_memory = controllers.split(',').any(|controller| controller == "memory");
    limits_memory.then_some((FIRST_VERSION, "memory.limit_in_bytes", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn smallest_of(files: &[(&str, &str)]) -> Option<u64> {
        smallest(|path| {
            let found = files.iter().find(|(name, _)| Path::new(name) == path);
            found.map(|(_, text)| (*text).to_owned())
        })
    }

    const MACHINE_OF_16_MIB: (&str, &str) = (MACHINE, "MemTotal:       16384 kB\nMemFree: 1 kB\n");

    #[test]
    fn without_control_groups_the_machines_memory_counts() {
        assert_eq!(smallest_of(&[]), None);
        assert_eq!(smallest_of(&[MACHINE_OF_16_MIB]), Some(16 << 20));
    }

    #[test]
    fn the_smallest_limit_of_all_groups_counts() {
        let unified = |limits: &[(&'static str, &'static str)]| {
            let groups = (GROUPS, "0::/system.slice/coracle.service\n");
            smallest_of(&[&[MACHINE_OF_16_MIB, groups], limits].concat())
        };
        let own = ("/sys/fs/cgroup/system.slice/coracle.service/memory.max", "max\n");
        assert_eq!(unified(&[own]), Some(16 << 20));
        let slice = ("/sys/fs/cgroup/system.slice/memory.max", "1048576\n");
        assert_eq!(unified(&[own, slice]), Some(1 << 20));
        let root = ("/sys/fs/cgroup/memory.max", "4096\n");
        assert_eq!(unified(&[root]), Some(4096), "as a container sees it");
    }

    #[test]
    fn groups_of_the_first_version_count_as_well() {
        let groups = (GROUPS, "5:cpu:/a\n4:memory:/b\n");
        let limit = |path| smallest_of(&[MACHINE_OF_16_MIB, groups, (path, "8192\n")]);
        assert_eq!(limit("/sys/fs/cgroup/memory/b/memory.limit_in_bytes"), Some(8192));
        assert_eq!(limit("/sys/fs/cgroup/memory/a/memory.limit_in_bytes"), Some(16 << 20));
    }
}
