//! The flags of a server, checked for consistency and converted to options.

use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;
use std::{env, io};

use clap::{Args, ValueEnum};
use coracle_core::Settings;
use thiserror::Error;

use super::folder_size;
use super::security::{ClientSecurity, Exposed};
use crate::address::Address;
use crate::durations::{self, DurationRange};
use crate::numbers;
use crate::sizes;

/// The default number of nodes of a new cluster.
const NODES_DEFAULT: u8 = 5;

/// The flags of addresses for clients, for messages about them.
const LISTEN: &str = "--listen";
const ADMIN_LISTEN: &str = "--admin-listen";

/// The default data folder.
const DATA_DIR_DEFAULT: &str = "./data";

/// The flags as given.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Serving")]
pub(crate) struct ServeFlags {
    /// Number of nodes, 1 to 9; their ids are 0 to N-1 [default: the number for which the data
    /// folder was created, or 5]
    #[arg(long, value_name = "N", value_parser = numbers::nodes)]
    nodes: Option<u8>,

    #[command(flatten)]
    pub(crate) serving: ServingFlags,
}

/// The flags that `coracle serve` and `coracle node` share, as given.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Serving")]
pub(crate) struct ServingFlags {
    /// A file of settings (TOML): `listen = "127.0.0.1:3001"` in it is --listen. A variable such as
    /// CORACLE_LISTEN overrides it, and a flag overrides both. Read at the start only
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Runtime of the nodes: one single-threaded smol executor, or std threads
    #[arg(long, value_name = "RUNTIME", value_enum, default_value = "smol")]
    runtime: Runtime,

    /// Address for clients; port 0 picks a free one, and the `ready` line names it
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:3001")]
    listen: Address,

    /// Address for administrators: with it, requests that change the members, transfer leadership
    /// or make backups are answered there alone, and not at --listen. Other requests are answered
    /// at both
    #[arg(long, value_name = "ADDR")]
    admin_listen: Option<Address>,

    /// Folder for logs, terms, votes and snapshots, created if missing [default: ./data]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,

    /// Never bootstrap: reject a data folder without a cluster. For unit files, once the cluster
    /// exists
    #[arg(long, conflicts_with = "ephemeral")]
    require_cluster: bool,

    /// Keep everything in memory: nothing is written, and nothing outlives the process
    #[arg(long)]
    ephemeral: bool,

    /// Whether a write is synced to disk before it is acknowledged: `always` or `never`
    ///
    /// With `never` the operating system decides when: a killed process loses nothing, a power cut
    /// may lose acknowledged writes.
    #[arg(long, value_name = "WHEN", value_enum, default_value = "always")]
    sync: Sync,

    /// Interval of the leader's heartbeats
    #[arg(long, value_name = "DUR", default_value = "50ms", value_parser = durations::positive)]
    heartbeat: Duration,

    /// Time without a leader until an election, drawn at random each time
    #[arg(long, value_name = "MIN..MAX", default_value = "300ms..600ms")]
    election_timeout: DurationRange,

    /// A client silent for this long is disconnected; 0 switches it off
    #[arg(long, value_name = "DUR", default_value = "1000s", value_parser = durations::zero_for_off)]
    idle_timeout: Duration,

    /// A request without an outcome by then is answered with `timeout`
    #[arg(long, value_name = "DUR", default_value = "5s", value_parser = durations::positive)]
    request_timeout: Duration,

    /// Maximum number of clients; further ones are rejected with `busy`
    #[arg(long, value_name = "N", default_value = "10000", value_parser = numbers::clients)]
    max_connections: NonZeroU32,

    /// Memory for clients, data, other nodes and snapshots, as `512MiB` [default: 75% of what the
    /// machine or control group has]
    ///
    /// Beyond this limit, requests that need more memory are rejected with `busy`, and the clients
    /// that have blocked the server longest are disconnected. Data from other nodes and the
    /// retained log get shares of it. At least 64MiB. The process uses somewhat more than it
    /// counts.
    #[arg(long, value_name = "SIZE", value_parser = sizes::memory)]
    memory_max: Option<u64>,

    /// When the `ready` line is written: `answering` requests, or already `listening`
    ///
    /// Requests can be answered when a leader is known, and this node has caught up. A node whose
    /// cluster has no majority yet listens, and is not ready.
    #[arg(long, value_name = "WHEN", value_enum, default_value = "answering")]
    ready_when: ReadyWhen,

    /// Bytes of log after which a node takes a snapshot, or the size of its last snapshot if that
    /// is larger
    ///
    /// The snapshot replaces the log up to it. A smaller value makes restarts faster and writes
    /// more.
    #[arg(long, value_name = "SIZE", default_value_t = Settings::default().snapshot_log_bytes,
          value_parser = sizes::positive)]
    snapshot_bytes: u64,

    /// Entries of log after which a node takes a snapshot, whatever their size
    #[arg(long, value_name = "N", default_value_t = Settings::default().snapshot_log_entries,
          value_parser = numbers::at_least_one)]
    snapshot_entries: u64,

    /// Least important level that is logged to stderr
    #[arg(long, value_name = "LEVEL", value_enum, default_value = "info")]
    log_level: LogLevel,

    /// Format of log lines
    #[arg(long, value_name = "FORMAT", value_enum, default_value = "text")]
    log_format: LogFormat,

    #[command(flatten)]
    pub(super) security: ClientSecurity,
}

/// The runtime of the nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Runtime {
    Smol,
    Threads,
}

impl Runtime {
    /// Returns the runtime's name, as the flag accepts it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Smol => "smol",
            Self::Threads => "threads",
        }
    }
}

/// When a write counts as durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Sync {
    /// A majority has it on disk before it is acknowledged.
    Always,
    /// The operating system decides.
    Never,
}

/// When a server reports that it is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ReadyWhen {
    /// Requests can be answered.
    Answering,
    /// Clients can connect.
    Listening,
}

/// The level of log messages; the option names the least important level that is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

/// The format of log messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// Time, level and message; priority and message where stderr is the journal.
    Text,
    /// An object with the fields of the event.
    Json,
    /// Priority and message.
    Journal,
}

/// The options of a server; every field is within its bounds, and all are consistent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServeOptions {
    pub(crate) runtime: Runtime,
    /// 1 to 9.
    pub(crate) nodes: u8,
    /// Port 0 selects a free port.
    pub(crate) listen: SocketAddr,
    pub(crate) admin_listen: Option<SocketAddr>,
    /// Unused if `ephemeral`.
    pub(crate) data_dir: PathBuf,
    pub(crate) ephemeral: bool,
    /// Whether the data folder must hold a cluster.
    pub(crate) require_cluster: bool,
    /// Without effect if `ephemeral`.
    pub(crate) sync: Sync,
    /// Less than `election_timeout.min`.
    pub(crate) heartbeat: Duration,
    pub(crate) election_timeout: DurationRange,
    /// `None` if a client may be idle forever.
    pub(crate) idle_timeout: Option<Duration>,
    pub(crate) request_timeout: Duration,
    pub(crate) max_connections: NonZeroU32,
    /// `None` for a share of the machine's memory.
    pub(crate) memory_max: Option<u64>,
    /// At least 1.
    pub(crate) snapshot_bytes: u64,
    /// At least 1.
    pub(crate) snapshot_entries: u64,
    pub(crate) ready_when: ReadyWhen,
    pub(crate) log_level: LogLevel,
    pub(crate) log_format: LogFormat,
    pub(crate) security: ClientSecurity,
    /// Notices to log before the start.
    pub(crate) notices: Vec<Notice>,
}

/// Flags that are valid alone but not together, or an address that cannot be resolved.
#[derive(Debug, Error)]
pub(crate) enum ServeFlagsError {
    #[error(
        "--heartbeat {} must be less than the shorter end of --election-timeout, {}: otherwise followers \
         start elections although their leader is healthy",
        humantime::format_duration(*.heartbeat), humantime::format_duration(*.election_min)
    )]
    Beat { heartbeat: Duration, election_min: Duration },
    #[error("{flag} {address}: the name cannot be looked up: {cause}")]
    Lookup { flag: &'static str, address: Address, cause: io::Error },
    #[error("{flag} {address}: the name has no address")]
    NoAddress { flag: &'static str, address: Address },
    #[error(transparent)]
    Exposed(#[from] Exposed),
}

/// A valid option that its user may not have intended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Notice {
    DebugBuild,
    EvenNodes { nodes: u8 },
    NodesOfFolder { nodes: u8 },
    DataDirUnused,
    Settings { file: PathBuf },
}

impl Notice {
    pub(crate) fn level(&self) -> LogLevel {
        match self {
            Self::NodesOfFolder { .. } | Self::Settings { .. } => LogLevel::Info,
            Self::DebugBuild | Self::EvenNodes { .. } | Self::DataDirUnused => LogLevel::Warn,
        }
    }
}

impl ServeFlags {
    /// Checks the flags for consistency, and resolves the name to listen on.
    pub(crate) fn options(self) -> Result<ServeOptions, ServeFlagsError> {
        let mut options = self.serving.options(self.nodes.unwrap_or(NODES_DEFAULT))?;
        if self.nodes.is_none() && !options.ephemeral {
            options.take_nodes_of_folder();
        }
        if options.nodes.is_multiple_of(2) {
            options.notices.push(Notice::EvenNodes { nodes: options.nodes });
        }
        Ok(options)
    }
}

impl ServeOptions {
    /// Adopts the number of nodes of an existing data folder, and adds a notice if it is not the
    /// default.
    fn take_nodes_of_folder(&mut self) {
        if let Some(nodes) = folder_size::nodes_of(&self.data_dir).filter(|nodes| *nodes != self.nodes) {
            self.nodes = nodes;
            self.notices.push(Notice::NodesOfFolder { nodes });
        }
    }
}

impl ServingFlags {
    /// Checks the flags for a process that runs this number of nodes.
    pub(crate) fn options(self, nodes: u8) -> Result<ServeOptions, ServeFlagsError> {
        let election_min = self.election_timeout.min;
        if self.heartbeat >= election_min {
            return Err(ServeFlagsError::Beat { heartbeat: self.heartbeat, election_min });
        }
        let listen = look_up(LISTEN, &self.listen)?;
        let admin_listen = self.admin_listen.as_ref().map(|address| look_up(ADMIN_LISTEN, address));
        let admin_listen = admin_listen.transpose()?;
        self.security.check(LISTEN, listen)?;
        admin_listen.map_or(Ok(()), |address| self.security.check(ADMIN_LISTEN, address))?;
        Ok(ServeOptions {
            runtime: self.runtime,
            nodes,
            listen,
            admin_listen,
            notices: self.notices(),
            data_dir: self.data_dir.unwrap_or_else(|| PathBuf::from(DATA_DIR_DEFAULT)),
            ephemeral: self.ephemeral,
            require_cluster: self.require_cluster,
            sync: self.sync,
            heartbeat: self.heartbeat,
            election_timeout: self.election_timeout,
            idle_timeout: (!self.idle_timeout.is_zero()).then_some(self.idle_timeout),
            request_timeout: self.request_timeout,
            max_connections: self.max_connections,
            memory_max: self.memory_max,
            snapshot_bytes: self.snapshot_bytes,
            snapshot_entries: self.snapshot_entries,
            ready_when: self.ready_when,
            log_level: self.log_level,
            log_format: self.log_format,
            security: self.security,
        })
    }

    fn notices(&self) -> Vec<Notice> {
        let mut notices = Vec::new();
        if cfg!(debug_assertions) {
            notices.push(Notice::DebugBuild);
        }
        if let Some(file) = &self.config {
            notices.push(Notice::Settings { file: file.clone() });
        }
        if self.ephemeral && self.data_dir.is_some() {
            notices.push(Notice::DataDirUnused);
        }
        notices
    }
}

/// Returns the first IPv4 address of a name, or its first address of any kind. IPv4 is preferred
/// because clients use it by default; `localhost` often has both kinds.
fn look_up(flag: &'static str, address: &Address) -> Result<SocketAddr, ServeFlagsError> {
    let found = address
        .to_socket_addrs()
        .map_err(|cause| ServeFlagsError::Lookup { flag, address: address.clone(), cause })?
        .collect::<Vec<_>>();
    let best = found.iter().find(|candidate| candidate.is_ipv4()).or(found.first());
    best.copied().ok_or_else(|| ServeFlagsError::NoAddress { flag, address: address.clone() })
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DebugBuild => {
                let program = env::args().next().unwrap_or_default();
                write!(f, "this is a debug build, slower than it could be ({program}); ")?;
                f.write_str("`cargo build --release -p cli` makes the fast one")
            }
            Self::EvenNodes { nodes } => {
                write!(
                    f,
                    "{nodes} nodes tolerate no more failures than {} do: prefer an odd number",
                    nodes - 1
                )
            }
            Self::NodesOfFolder { nodes: 1 } => f.write_str(
                "the data folder was created for 1 node, so 1 node is started (--nodes is not given)",
            ),
            Self::NodesOfFolder { nodes } => {
                write!(
                    f,
                    "the data folder was created for {nodes} nodes, so {nodes} nodes are started (--nodes is \
                     not given)"
                )
            }
            Self::Settings { file } => write!(f, "the settings of {} apply", file.display()),
            Self::DataDirUnused => f.write_str("--data-dir is not used: with --ephemeral nothing is written"),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        flags: ServeFlags,
    }

    fn options(flags: &str) -> Result<ServeOptions, ServeFlagsError> {
        let line = Line::try_parse_from(std::iter::once("x").chain(flags.split_whitespace())).unwrap();
        line.flags.options()
    }

    fn complaint(flags: &str) -> String {
        let words = std::iter::once("x").chain(flags.split_whitespace());
        Line::try_parse_from(words).map(|_| ()).unwrap_err().to_string()
    }

    #[test]
    fn the_defaults_are_the_documented_ones() {
        let options = options("").unwrap();
        assert_eq!(options.runtime, Runtime::Smol);
        assert_eq!(options.nodes, 5);
        assert_eq!(options.listen, "127.0.0.1:3001".parse().unwrap());
        assert_eq!(options.data_dir, PathBuf::from("./data"));
        assert!(!options.ephemeral);
        assert_eq!(options.sync, Sync::Always);
        assert_eq!(options.heartbeat, Duration::from_millis(50));
        assert_eq!(options.election_timeout, "300ms..600ms".parse().unwrap());
        assert_eq!(options.idle_timeout, Some(Duration::from_secs(1000)));
        assert_eq!(options.request_timeout, Duration::from_secs(5));
        assert_eq!(options.max_connections.get(), 10_000);
        assert_eq!(options.memory_max, None);
        assert_eq!(options.snapshot_bytes, 64 << 20);
        assert_eq!(options.snapshot_entries, 1_000_000);
        assert_eq!(options.log_level, LogLevel::Info);
        assert_eq!(options.log_format, LogFormat::Text);
    }

    #[test]
    fn zero_switches_the_idle_timeout_off_and_nothing_else() {
        assert_eq!(options("--idle-timeout 0").unwrap().idle_timeout, None);
        assert!(complaint("--request-timeout 0").contains("must be more than 0"));
        assert!(complaint("--heartbeat 0").contains("must be more than 0"));
    }

    #[test]
    fn the_error_for_an_invalid_value_names_a_valid_one() {
        assert!(complaint("--nodes 10").contains("from 1 to 9"));
        assert!(complaint("--nodes 0").contains("from 1 to 9"));
        assert!(complaint("--heartbeat 50").contains("such as 50ms"));
        assert!(complaint("--election-timeout 300ms").contains("such as 300ms..600ms"));
        assert!(complaint("--election-timeout 600ms..300ms").contains("MIN must be less than MAX"));
        assert!(complaint("--listen 3001").contains("HOST:PORT"));
        for flag in ["--snapshot-bytes", "--snapshot-entries"] {
            assert!(complaint(&format!("{flag} 0")).contains("must be at least 1"));
        }
        assert!(complaint("--snapshot-entries 16MiB").contains("a whole number without a unit"));
        assert!(complaint("--snapshot-bytes 16apples").contains("such as 64MiB"));
        assert!(complaint("--memory-max 1MiB").contains("must be at least 64MiB"));
        assert!(complaint("--runtime tokio").contains("possible values: smol, threads"));
        assert!(complaint("--sync sometimes").contains("possible values: always, never"));
        assert!(complaint("--log-level loud").contains("error, warn, info, debug, trace"));
    }

    #[test]
    fn a_heartbeat_must_leave_time_before_an_election() {
        for flags in ["--heartbeat 300ms", "--heartbeat 1s", "--election-timeout 50ms..60ms"] {
            assert!(matches!(options(flags), Err(ServeFlagsError::Beat { .. })), "{flags}");
        }
        assert!(options("--heartbeat 299ms").is_ok());
    }

    #[test]
    fn options_that_may_not_be_intended_are_noticed() {
        assert!(!options("--nodes 5").unwrap().notices.contains(&Notice::EvenNodes { nodes: 5 }));
        assert!(options("--nodes 4").unwrap().notices.contains(&Notice::EvenNodes { nodes: 4 }));
        assert!(options("--ephemeral --data-dir x").unwrap().notices.contains(&Notice::DataDirUnused));
        assert!(!options("--ephemeral").unwrap().notices.contains(&Notice::DataDirUnused));
    }

    #[test]
    fn a_name_to_listen_on_is_looked_up() {
        let listen = options("--listen localhost:0").unwrap().listen;
        assert!(listen.ip().is_loopback());
        assert_eq!(options("").unwrap().admin_listen, None);
        assert!(options("--admin-listen localhost:0").unwrap().admin_listen.unwrap().ip().is_loopback());
        for flags in ["--listen 0.0.0.0:0", "--admin-listen 0.0.0.0:0"] {
            let error = options(flags).unwrap_err();
            assert!(matches!(error, ServeFlagsError::Exposed(_)) && error.to_string().starts_with(flags));
        }
    }
}
