//! The table of system calls, their possible errors, and the outcomes that are allowed for the
//! server.

/// The outcomes that are allowed for a server in which a call fails, besides continuing normally.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Must {
    /// No other outcome: the server serves.
    Serve,
    /// A start may be refused with an error message.
    ServeOrRefuse,
    /// A start may be refused. A node, or the process without its majority, may stop with an error
    /// message.
    ServeOrStop,
    /// The process cannot get memory, or its own code. It may end in any way that loses no
    /// acknowledged write.
    MayDie,
}

/// A group of calls that fail in the same way.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The calls, by their names in `strace`.
    pub calls: &'static [&'static str],
    /// Temporary errors, by a signal or a momentary shortage, and the outcomes that they allow.
    pub passing: (&'static [&'static str], Must),
    /// All other errors, and the outcomes that they allow.
    pub lasting: (&'static [&'static str], Must),
}

const fn row(
    calls: &'static [&'static str],
    passing: (&'static [&'static str], Must),
    lasting: (&'static [&'static str], Must),
) -> Row {
    Row { calls, passing, lasting }
}

use Must::{MayDie, Serve, ServeOrRefuse, ServeOrStop};

/// All calls that the program makes. The errors are those in the manual pages that an operator's
/// machine may produce. Errors that only a wrong argument causes are left out.
pub const TABLE: &[Row] = &[
    // Connections.
    row(
        &["accept4", "accept"],
        (&["EINTR", "EAGAIN", "ECONNABORTED"], Serve),
        (&["EMFILE", "ENFILE", "ENOMEM", "ENOBUFS", "EPROTO", "EPERM"], Serve),
    ),
    row(&["recvfrom"], (&["EINTR", "EAGAIN"], Serve), (&["ECONNRESET", "ETIMEDOUT", "ENOMEM"], Serve)),
    row(
        &["sendto", "sendmsg"],
        (&["EINTR", "EAGAIN"], Serve),
        (&["EPIPE", "ECONNRESET", "ENOBUFS", "ENOMEM"], Serve),
    ),
    row(
        &["connect"],
        (&["EINTR", "EAGAIN"], Serve),
        (&["ECONNREFUSED", "ETIMEDOUT", "ENETUNREACH", "EADDRNOTAVAIL"], Serve),
    ),
    row(&["shutdown"], (&[], Serve), (&["ENOTCONN", "ENOBUFS"], Serve)),
    row(
        &["getsockname", "getpeername", "getsockopt"],
        (&[], Serve),
        (&["ENOBUFS", "ENOTCONN"], ServeOrRefuse),
    ),
    row(&["setsockopt"], (&[], Serve), (&["ENOMEM", "ENOPROTOOPT", "ENOBUFS"], ServeOrRefuse)),
    row(
        &["socket", "socketpair", "bind", "listen"],
        (&[], Serve),
        (&["EMFILE", "ENOMEM", "EADDRINUSE", "EACCES"], ServeOrRefuse),
    ),
    // Waiting.
    row(&["epoll_wait", "epoll_pwait", "epoll_pwait2"], (&["EINTR"], Serve), (&[], Serve)),
    row(&["poll", "ppoll"], (&["EINTR"], Serve), (&["ENOMEM"], ServeOrStop)),
    row(
        &["epoll_create1", "eventfd2", "timerfd_create", "pipe2"],
        (&[], Serve),
        (&["EMFILE", "ENFILE", "ENOMEM"], ServeOrStop),
    ),
    row(&["epoll_ctl"], (&[], Serve), (&["ENOMEM", "ENOSPC"], ServeOrStop)),
    // Only a wrong argument makes it fail.
    row(&["timerfd_settime"], (&[], Serve), (&[], Serve)),
    row(&["clock_nanosleep", "nanosleep"], (&["EINTR"], Serve), (&[], Serve)),
    // A wait may be interrupted, but a wake-up cannot fail. A tracer cannot distinguish the two.
    row(&["futex"], (&[], Serve), (&[], Serve)),
    // Files.
    row(
        &["openat", "open"],
        (&["EINTR"], ServeOrStop),
        (&["EMFILE", "ENFILE", "ENOMEM", "ENOSPC", "EACCES", "EIO", "EROFS"], ServeOrStop),
    ),
    row(&["read", "pread64"], (&["EINTR"], Serve), (&["EIO", "ENOMEM"], ServeOrStop)),
    row(
        &["write", "writev", "pwrite64"],
        (&["EINTR"], Serve),
        (&["EIO", "ENOSPC", "EDQUOT", "EFBIG", "EPIPE", "EAGAIN"], ServeOrStop),
    ),
    row(
        &["fsync", "fdatasync", "sync_file_range"],
        (&["EINTR"], ServeOrStop),
        (&["EIO", "ENOSPC", "EROFS"], ServeOrStop),
    ),
    row(&["ftruncate", "fallocate"], (&["EINTR"], ServeOrStop), (&["EIO", "ENOSPC", "EFBIG"], ServeOrStop)),
    row(&["lseek", "fadvise64"], (&[], Serve), (&["EINVAL"], ServeOrStop)),
    row(
        &["rename", "renameat", "renameat2", "unlink", "unlinkat", "mkdir", "mkdirat", "fchmod", "chmod"],
        (&[], Serve),
        (&["EIO", "ENOSPC", "EACCES", "EROFS"], ServeOrStop),
    ),
    row(
        &[
            "statx",
            "fstat",
            "newfstatat",
            "stat",
            "lstat",
            "access",
            "faccessat",
            "readlink",
            "readlinkat",
            "statfs",
            "fstatfs",
            "getcwd",
        ],
        (&[], Serve),
        (&["EIO", "ENOMEM", "EACCES"], ServeOrStop),
    ),
    row(&["getdents64"], (&[], Serve), (&["EIO", "ENOENT"], ServeOrStop)),
    row(&["flock"], (&["EINTR"], ServeOrRefuse), (&["EWOULDBLOCK", "ENOLCK", "ENOMEM"], ServeOrRefuse)),
    row(&["fcntl", "ioctl", "dup", "dup3"], (&[], Serve), (&["EMFILE", "EINVAL", "EPERM"], ServeOrStop)),
    // The standard library panics when a folder that was listed cannot be closed, and ignores the
    // error for everything else.
    row(&["close"], (&["EINTR"], Serve), (&["EIO"], MayDie)),
    // Threads, signals and information about the machine.
    row(&["clone3", "clone"], (&[], Serve), (&["EAGAIN", "ENOMEM"], ServeOrStop)),
    row(&["getrandom"], (&["EINTR"], Serve), (&["EAGAIN", "ENOSYS"], ServeOrRefuse)),
    row(
        &["sysinfo", "sched_getaffinity", "uname", "getuid", "geteuid", "getpid", "gettid"],
        (&[], Serve),
        (&["EPERM", "ENOSYS"], ServeOrRefuse),
    ),
    // A process may read its own limits; the library assumes that this succeeds.
    row(&["prlimit64", "getrlimit"], (&[], Serve), (&["EPERM"], MayDie)),
    row(
        &[
            "rt_sigaction",
            "rt_sigprocmask",
            "sigaltstack",
            "prctl",
            "set_robust_list",
            "set_tid_address",
            "rseq",
            "sched_yield",
            "tgkill",
        ],
        (&[], Serve),
        (&["EINVAL", "ENOSYS"], MayDie),
    ),
    row(
        &["mmap", "munmap", "mprotect", "mremap", "madvise", "brk", "arch_prctl", "execve"],
        (&[], Serve),
        (&["ENOMEM"], MayDie),
    ),
    // These cannot fail.
    row(&["umask", "exit", "exit_group", "restart_syscall", "rt_sigreturn"], (&[], Serve), (&[], Serve)),
];

/// The row of the table that contains a call.
#[must_use]
pub fn row_of(call: &str) -> Option<&'static Row> {
    TABLE.iter().find(|row| row.calls.contains(&call))
}
