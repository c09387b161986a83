//! Checks of the operating system's limits for this user.

use rustix::process::{Resource, getrlimit};

use super::Check;

/// Open files below which a check warns: some hundreds of clients. See `serve::descriptors`.
const FILES_WARN: u64 = 1024;
/// Open files below which a server of several nodes does not start.
const FILES_FAIL: u64 = 64;
/// Processes and threads below which a check warns: a few hundred clients on the threads runtime.
const PROCESSES_WARN: u64 = 1024;
const PROCESSES_FAIL: u64 = 64;

/// Runs all checks of the limits.
pub(super) fn checks() -> Vec<Check> {
    // A server raises its soft limit of open files to the hard one.
    let files = getrlimit(Resource::Nofile).maximum;
    let processes = getrlimit(Resource::Nproc).current;
    vec![
        judge("open files", files, (FILES_FAIL, FILES_WARN), "`ulimit -Hn`, LimitNOFILE= of a systemd unit"),
        judge(
            "processes",
            processes,
            (PROCESSES_FAIL, PROCESSES_WARN),
            "`ulimit -u`, TasksMax= of a systemd unit",
        ),
    ]
}

/// Judges a limit; `None`: there is none.
fn judge(check: &'static str, limit: Option<u64>, (fail, warn): (u64, u64), how: &str) -> Check {
    let Some(limit) = limit else { return Check::ok(check, "there is no limit") };
    let message = format!("at most {limit}");
    if limit < fail {
        Check::fail(check, format!("{message}: a server may not start, raise it ({how})"))
    } else if limit < warn {
        Check::warn(check, format!("{message}: it limits the number of clients, raise it ({how})"))
    } else {
        Check::ok(check, message)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn low_limits_warn_or_fail() {
        for (limit, verdict) in [
            (None, Verdict::Ok),
            (Some(63), Verdict::Fail),
            (Some(64), Verdict::Warn),
            (Some(1023), Verdict::Warn),
            (Some(1024), Verdict::Ok),
        ] {
            assert_eq!(judge("open files", limit, (FILES_FAIL, FILES_WARN), "how").verdict, verdict);
        }
        assert_eq!(checks().len(), 2);
    }
}
