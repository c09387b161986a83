//! Checks of the disk below a data folder: its free space, its file system, and how long a sync
//! takes.

use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use bytesize::ByteSize;

use super::Check;

/// Free space below which a check fails: the log cannot grow to its next snapshot.
const SPACE_FAIL_BYTES: u64 = 128 << 20;
/// Free space below which it warns. Chosen as some snapshots of a store of medium size.
const SPACE_WARN_BYTES: u64 = 1 << 30;

/// The number of syncs that are measured, and their bytes. Chosen as the size of a small batch.
const SYNCS: usize = 16;
const SYNC_BYTES: usize = 4096;
/// The time after which no further sync is measured.
const MEASURE_MAX: Duration = Duration::from_secs(3);
/// A median above this warns: each write waits for a sync of a majority.
const SYNC_WARN: Duration = Duration::from_millis(20);
/// A median above this fails: it is the shortest default election timeout, after which a leader
/// whose disk stalls steps down.
const SYNC_FAIL: Duration = Duration::from_millis(300);

/// File systems by their magic numbers (`statfs(2)`), with whether they are in memory.
const FILE_SYSTEMS: [(u32, &str, bool); 9] = [
    (0x6969, "NFS", false),
    (0x517b, "SMB", false),
    (0xff53_4d42, "CIFS", false),
    (0xfe53_4d42, "SMB2", false),
    (0x00c3_6400, "Ceph", false),
    (0x0102_1997, "9P", false),
    (0x6573_5546, "FUSE", false),
    (0x0102_1994, "tmpfs", true),
    (0x8584_58f6, "ramfs", true),
];

/// Runs all checks of the disk.
pub(super) fn checks(folder: &Path) -> Vec<Check> {
    let statistics = rustix::fs::statfs(folder).map_err(io::Error::from);
    let mut checks = match statistics {
        Ok(found) => {
            let block = u64::try_from(found.f_bsize).unwrap_or(0);
            // The magic number has 32 bits, and the field more.
            let magic = u32::try_from(found.f_type & 0xffff_ffff).unwrap_or(0);
            vec![space(found.f_bavail.saturating_mul(block)), file_system(magic)]
        }
        Err(error) => vec![Check::fail("space", format!("{}: {error}", folder.display()))],
    };
    checks.push(match measure(folder) {
        Ok(times) => judge_syncs(times),
        Err(error) => Check::fail("sync", format!("cannot write to {}: {error}", folder.display())),
    });
    checks
}

fn space(free: u64) -> Check {
    const CHECK: &str = "space";
    let message = format!("{} are free", ByteSize(free));
    match free {
        0..SPACE_FAIL_BYTES => Check::fail(CHECK, message + ": free space now, a full disk stops the node"),
        SPACE_FAIL_BYTES..SPACE_WARN_BYTES => Check::warn(CHECK, message + ": plan for more"),
        _ => Check::ok(CHECK, message),
    }
}

fn file_system(magic: u32) -> Check {
    const CHECK: &str = "file system";
    match FILE_SYSTEMS.iter().find(|(known, ..)| *known == magic) {
        None => Check::ok(CHECK, "it is local"),
        Some((_, name, true)) => {
            Check::warn(CHECK, format!("{name} is in memory: a restart of the machine loses all data"))
        }
        Some((_, name, false)) => Check::warn(
            CHECK,
            format!("{name} may be on the network: locks and syncs may not hold there, use a local disk"),
        ),
    }
}

/// Measures syncs of a temporary file in the folder.
fn measure(folder: &Path) -> io::Result<Vec<Duration>> {
    let mut file = tempfile::Builder::new().prefix(".doctor-").suffix(".tmp").tempfile_in(folder)?;
    let (begin, bytes) = (Instant::now(), [b'x'; SYNC_BYTES]);
    let mut times = Vec::new();
    while times.len() < SYNCS && begin.elapsed() < MEASURE_MAX {
        file.write_all(&bytes)?;
        let before = Instant::now();
        file.as_file().sync_data()?;
        times.push(before.elapsed());
    }
    file.close()?;
    Ok(times)
}

fn judge_syncs(mut times: Vec<Duration>) -> Check {
    const CHECK: &str = "sync";
    times.sort_unstable();
    let (Some(&median), Some(&slowest)) = (times.get(times.len() / 2), times.last()) else {
        return Check::fail(CHECK, "no sync has finished");
    };
    let [shown, most] = [median, slowest].map(|time| format!("{:.1} ms", time.as_secs_f64() * 1000.0));
    let message = format!("a sync takes {shown}, at most {most}");
    if median > SYNC_FAIL {
        Check::fail(CHECK, message + ": a leader on this disk loses its leadership; use another disk")
    } else if median > SYNC_WARN {
        Check::warn(CHECK, message + ": every write waits for it; use a faster disk")
    } else {
        Check::ok(CHECK, message)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::Verdict;
    use super::*;

    #[test]
    fn little_space_warns_and_none_fails() {
        for (free, verdict) in [
            (0, Verdict::Fail),
            (SPACE_FAIL_BYTES - 1, Verdict::Fail),
            (SPACE_FAIL_BYTES, Verdict::Warn),
            (SPACE_WARN_BYTES - 1, Verdict::Warn),
            (SPACE_WARN_BYTES, Verdict::Ok),
        ] {
            assert_eq!(space(free).verdict, verdict, "{free}");
        }
    }

    #[test]
    fn a_file_system_of_the_network_or_in_memory_is_warned_about() {
        for (magic, part) in [(0x6969, "NFS"), (0xff53_4d42, "CIFS"), (0x0102_1994, "in memory")] {
            let check = file_system(magic);
            assert!(check.verdict == Verdict::Warn && check.message.contains(part), "{check:?}");
        }
        assert_eq!(file_system(0xef53).verdict, Verdict::Ok, "ext4");
    }

    #[test]
    fn slow_syncs_warn_or_fail_by_their_median() {
        let times = |ms: [u64; 3]| ms.map(Duration::from_millis).to_vec();
        assert_eq!(judge_syncs(times([1, 2, 900])).verdict, Verdict::Ok);
        assert_eq!(judge_syncs(times([1, 21, 30])).verdict, Verdict::Warn);
        assert_eq!(judge_syncs(times([301, 301, 1])).verdict, Verdict::Fail);
        assert_eq!(judge_syncs(Vec::new()).verdict, Verdict::Fail);
    }

    #[test]
    fn the_measured_file_is_removed_and_a_folder_that_cannot_be_written_fails() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(measure(folder.path()).unwrap().len(), SYNCS);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        assert!(measure(Path::new("/proc")).is_err());
    }
}
