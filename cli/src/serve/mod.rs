//! The server: runs a cluster, or one node of a cluster of processes, and its proxy. This is the
//! default command.
//!
//! stdout carries only the line `ready ADDR`; everything else goes to stderr.

use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use coracle_core::Settings;
use coracle_core::memory::MEMORY_UNLIMITED;
use coracle_core::peer::Origin;
use coracle_core::raft::NodeId;
use coracle_runtime_smol as smol_runtime;
use coracle_runtime_threads as threads_runtime;
use coracle_storage::asynchronous::try_pool;
use coracle_storage::host::{MemberFailure, MemberOptions, Options, StartError};
use coracle_storage::{LostNodes, Medium, SurveyError, SyncPolicy};
use coracle_tls::Protection;
use smol::{LocalExecutor, future};
use thiserror::Error;

use crate::exit::Exit;
use credentials::{Credentials, CredentialsError};
use descriptors::{ClientPorts, Room, Served, TooFewDescriptors};
use diagnostics::Diagnostics;
use log_fields::EventName;
use poller::NoPoller;
use reports::Reports;
use security::PeerSecurity;
use threads::TooFewThreads;
use way_out::Steps;

mod credentials;
mod descriptors;
mod diagnostics;
mod first_start;
mod folder_size;
mod late_address;
mod log_fields;
mod memory;
mod node;
mod options;
mod outlet;
mod own_name;
mod poller;
mod reports;
mod security;
mod signals;
mod start_watch;
mod supervisor;
mod threads;
mod way_out;

pub(crate) use credentials::Started;
pub(crate) use folder_size::nodes_of;
pub(crate) use node::{NodeFlags, NodeFlagsError, NodeOptions};
pub(crate) use options::{LogLevel, Runtime, ServeFlags, ServeFlagsError, ServeOptions, Sync};

/// The interval at which the server checks whether it should end.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How long a shutdown may take beyond the request timeout. After that the process exits, even if a
/// disk operation is unfinished.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// Why serving failed.
#[derive(Debug, Error)]
pub(crate) enum ServeError {
    #[error(transparent)]
    Start(#[from] StartError),
    #[error("{lost}: {}", Steps(folder))]
    NodesLost { lost: Box<LostNodes>, folder: PathBuf },
    #[error(transparent)]
    Member(MemberFailure),
    #[error(transparent)]
    Descriptors(#[from] TooFewDescriptors),
    #[error(transparent)]
    Threads(#[from] TooFewThreads),
    #[error(transparent)]
    Poller(#[from] NoPoller),
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    #[error("cannot wait for signals: {0}")]
    Signals(io::Error),
    #[error(
        "cannot start a thread for diagnostics: {0}. Is there a limit of processes (ulimit -u, or pids.max \
         of the cgroup)?"
    )]
    Diagnostics(io::Error),
    #[error("the disks of a majority of the nodes failed: nothing can be written any more")]
    MajorityLost,
    #[error(
        "the data folder {} holds no cluster, but --require-cluster is given: is its volume mounted?",
        folder.display()
    )]
    ClusterRequired {
        /// The absolute path.
        folder: PathBuf,
    },
}

impl ServeError {
    /// Adds the recovery steps for nodes that are lost in this folder.
    fn with_steps(self, folder: &Path) -> Self {
        match self {
            Self::Start(StartError::Survey(SurveyError::Nodes(lost))) if lost.majority_is_whole() => {
                Self::NodesLost { lost, folder: folder.to_owned() }
            }
            other => other,
        }
    }

    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Start(StartError::Settings(_) | StartError::PeersExposed(_))
            | Self::Member(MemberFailure::Start(StartError::PeersExposed(_))) => Exit::Usage,
            _ => Exit::Failure,
        }
    }
}

/// Serves until a signal ends it, or until a majority of the nodes has failed.
pub(crate) fn serve(options: &ServeOptions) -> Result<(), ServeError> {
    let start = Diagnostics::start(options.log_level, options.log_format);
    let diagnostics = start.map_err(ServeError::Diagnostics)?;
    let nodes = if options.nodes == 1 { "1 node".to_owned() } else { format!("{} nodes", options.nodes) };
    let served = run_between_lines(&diagnostics, options, &nodes, || serve_cluster(options, &diagnostics));
    diagnostics.flush();
    served.map_err(|error| error.with_steps(&options.data_dir))
}

/// Logs a line about the start, runs `run`, and logs a line when it has ended normally.
fn run_between_lines(
    diagnostics: &Diagnostics,
    options: &ServeOptions,
    nodes: &str,
    run: impl FnOnce() -> Result<(), ServeError>,
) -> Result<(), ServeError> {
    let (version, runtime) = (env!("CARGO_PKG_VERSION"), options.runtime.name());
    let place = if options.ephemeral {
        "in memory".to_owned()
    } else {
        let folder = std::path::absolute(&options.data_dir).unwrap_or_else(|_| options.data_dir.clone());
        format!("with the data folder {}", folder.display())
    };
    diagnostics.tell_named(
        EventName::ServerStarts,
        LogLevel::Info,
        &format_args!("coracle {version} starts {nodes} on the {runtime} runtime, {place}"),
    );
    let ended = run();
    if ended.is_ok() {
        diagnostics.tell_named(EventName::ServerStopped, LogLevel::Info, &"coracle has stopped");
    }
    ended
}

fn serve_cluster(options: &ServeOptions, diagnostics: &Diagnostics) -> Result<(), ServeError> {
    options.notices.iter().for_each(|notice| diagnostics.tell(notice.level(), notice));
    let founding = first_start::founding(options)?;
    let settings = settings_within(options, Served::Cluster { nodes: options.nodes }, diagnostics)?;
    let credentials = Credentials::load(&options.security, &PeerSecurity::default(), NodeId(0))?;
    let settings = Settings { gate: credentials.gate(), ..settings };
    let (protection, should_end) = follow(credentials, diagnostics)?;
    if let Some(founding) = founding {
        diagnostics.tell(LogLevel::Warn, &founding);
    }
    let (listen, admin_listen) = (Some(options.listen), options.admin_listen);
    let start = Options { settings, medium: medium(options), listen, admin_listen };
    match options.runtime {
        Runtime::Smol => serve_on_smol(options, (start, protection), diagnostics, &should_end),
        Runtime::Threads => serve_on_threads(options, (start, protection), diagnostics, &should_end),
    }
}

/// Registers the signals, and lets the credentials follow their files. Returns the protection of
/// the ports, and the flag that says that the server should end.
fn follow(
    credentials: Credentials,
    diagnostics: &Diagnostics,
) -> Result<(Protection, Arc<AtomicBool>), ServeError> {
    let signals = signals::register(credentials.has_files()).map_err(ServeError::Signals)?;
    let protection = credentials.protection();
    credentials.follow(diagnostics.clone(), Arc::clone(&signals.should_end), signals.should_read);
    Ok((protection, signals.should_end))
}

fn serve_on_smol(
    options: &ServeOptions,
    (start, protection): (Options, Protection),
    diagnostics: &Diagnostics,
    should_end: &Arc<AtomicBool>,
) -> Result<(), ServeError> {
    let executor = Rc::new(LocalExecutor::new());
    let begin = || {
        let (start, protection) = (start.clone(), protection.clone());
        on_executor(&executor, smol_runtime::Cluster::start_protected(&executor, start, protection))
    };
    let Some(cluster) = late_address::once_there(diagnostics, should_end, options.request_timeout, begin)?
    else {
        return Ok(());
    };
    smol::block_on(executor.run(async {
        let events = cluster.events();
        let mut reports =
            Reports::new(diagnostics, options.ready_when, [cluster.address(), cluster.admin_address()]);
        let mut end = Ok(());
        while end.is_ok() && !should_end.load(Ordering::Acquire) {
            if cluster.majority_is_lost() {
                end = Err(ServeError::MajorityLost);
                continue;
            }
            let event = async { events.recv().await.ok() };
            let nothing = async {
                smol::Timer::after(LOOK_EVERY).await;
                None
            };
            if let Some(event) = future::or(event, nothing).await {
                reports.event(&event);
            }
        }
        if end.is_ok() {
            end_at_last(diagnostics, options.request_timeout);
            cluster.stop().await;
        }
        // The last events of the nodes, including the reason of the end.
        while let Ok(event) = events.try_recv() {
            reports.event(&event);
        }
        end
    }))
}

/// Runs a start to completion. Meanwhile the thread pool that reads its files gets work regularly,
/// because it creates threads only when work arrives, and the operating system may refuse them.
fn on_executor<T>(executor: &LocalExecutor<'_>, start: impl Future<Output = T>) -> T {
    smol::block_on(executor.run(future::or(start, try_pool(smol::Timer::after))))
}

/// Serves as one node of a cluster of processes, until a signal ends it or the node stops by
/// itself.
pub(crate) fn serve_node(options: NodeOptions) -> Result<(), ServeError> {
    let serving = options.serving.clone();
    let start = Diagnostics::start(serving.log_level, serving.log_format);
    let diagnostics = start.map_err(ServeError::Diagnostics)?;
    let node = format!("node {}", options.id);
    let served = run_between_lines(&diagnostics, &serving, &node, || serve_member(options, &diagnostics));
    diagnostics.flush();
    served
}

fn serve_member(options: NodeOptions, diagnostics: &Diagnostics) -> Result<(), ServeError> {
    let serving = &options.serving;
    serving.notices.iter().for_each(|notice| diagnostics.tell(notice.level(), notice));
    // A node that joins a cluster does not bootstrap one.
    let founding = first_start::founding(serving)?.filter(|_| matches!(options.origin, Origin::Found(_)));
    if let Some(founding) = founding {
        diagnostics.tell(LogLevel::Warn, &founding);
    }
    own_name::watch(&options, diagnostics.clone());
    let settings = settings_within(serving, Served::Member, diagnostics)?;
    let credentials = Credentials::load(&serving.security, &options.security, options.id)?;
    let settings = Settings { gate: credentials.gate(), ..settings };
    let (protection, should_end) = follow(credentials, diagnostics)?;
    let peers_on_loopback_only = options.security.needs_loopback(&serving.security);
    let NodeOptions { id, origin, peer_listen, dial_overrides, serving, .. } = options;
    let start = MemberOptions {
        settings,
        id,
        origin,
        medium: medium(&serving),
        listen: Some(serving.listen),
        admin_listen: serving.admin_listen,
        peer_listen,
        peers_on_loopback_only,
        dial_overrides,
    };
    match serving.runtime {
        Runtime::Smol => serve_node_on_smol(&serving, (start, protection), diagnostics, &should_end),
        Runtime::Threads => serve_node_on_threads(&serving, (start, protection), diagnostics, &should_end),
    }
}

fn serve_node_on_smol(
    serving: &ServeOptions,
    (start, protection): (MemberOptions, Protection),
    diagnostics: &Diagnostics,
    should_end: &Arc<AtomicBool>,
) -> Result<(), ServeError> {
    let executor = Rc::new(LocalExecutor::new());
    let (ready_when, request_timeout) = (serving.ready_when, serving.request_timeout);
    let begin = || {
        let (start, protection) = (start.clone(), protection.clone());
        on_executor(&executor, smol_runtime::Member::start_protected(&executor, start, protection))
    };
    let Some(member) = late_address::once_there(diagnostics, should_end, request_timeout, begin)? else {
        return Ok(());
    };
    smol::block_on(executor.run(async {
        let events = member.events();
        let mut reports = Reports::new(diagnostics, ready_when, [member.address(), member.admin_address()]);
        let mut end = Ok(());
        while end.is_ok() && !should_end.load(Ordering::Acquire) {
            if let Some(failure) = member.failure() {
                end = Err(ServeError::Member(failure));
                continue;
            }
            let event = async { events.recv().await.ok() };
            let nothing = async {
                smol::Timer::after(LOOK_EVERY).await;
                None
            };
            if let Some(event) = future::or(event, nothing).await {
                reports.event(&event);
            }
        }
        if ends_in_order(&end) {
            end_at_last(diagnostics, request_timeout);
            member.stop().await;
        }
        // The last events of the node, including the reason of the end.
        while let Ok(event) = events.try_recv() {
            reports.event(&event);
        }
        end
    }))
}

fn serve_on_threads(
    options: &ServeOptions,
    (start, protection): (Options, Protection),
    diagnostics: &Diagnostics,
    should_end: &Arc<AtomicBool>,
) -> Result<(), ServeError> {
    let begin = || threads_runtime::Cluster::start_protected(start.clone(), protection.clone());
    let Some(cluster) = late_address::once_there(diagnostics, should_end, options.request_timeout, begin)?
    else {
        return Ok(());
    };
    let events = cluster.events().expect("nobody took the events before");
    let mut reports =
        Reports::new(diagnostics, options.ready_when, [cluster.address(), cluster.admin_address()]);
    let mut end = Ok(());
    while end.is_ok() && !should_end.load(Ordering::Acquire) {
        if cluster.majority_is_lost() {
            end = Err(ServeError::MajorityLost);
        } else if let Ok(event) = events.recv_timeout(LOOK_EVERY) {
            reports.event(&event);
        }
    }
    if end.is_ok() {
        end_at_last(diagnostics, options.request_timeout);
        cluster.stop();
    }
    // The last events of the nodes, including the reason of the end.
    events.try_iter().for_each(|event| reports.event(&event));
    end
}

fn serve_node_on_threads(
    serving: &ServeOptions,
    (start, protection): (MemberOptions, Protection),
    diagnostics: &Diagnostics,
    should_end: &Arc<AtomicBool>,
) -> Result<(), ServeError> {
    let (ready_when, request_timeout) = (serving.ready_when, serving.request_timeout);
    let begin = || threads_runtime::Member::start_protected(start.clone(), protection.clone());
    let Some(member) = late_address::once_there(diagnostics, should_end, request_timeout, begin)? else {
        return Ok(());
    };
    let events = member.events().expect("nobody took the events before");
    let mut reports = Reports::new(diagnostics, ready_when, [member.address(), member.admin_address()]);
    let mut end = Ok(());
    while end.is_ok() && !should_end.load(Ordering::Acquire) {
        if let Some(failure) = member.failure() {
            end = Err(ServeError::Member(failure));
        } else if let Ok(event) = events.recv_timeout(LOOK_EVERY) {
            reports.event(&event);
        }
    }
    if ends_in_order(&end) {
        end_at_last(diagnostics, request_timeout);
        member.stop();
    }
    // The last events of the node, including the reason of the end.
    events.try_iter().for_each(|event| reports.event(&event));
    end
}

/// Returns whether to stop cleanly, so that requests in flight are answered. A node that was
/// removed from its cluster does this too, because its clients wait for replies.
fn ends_in_order(end: &Result<(), ServeError>) -> bool {
    matches!(end, Ok(()) | Err(ServeError::Member(MemberFailure::Refused(_))))
}

/// Starts a watchdog that ends the process if the shutdown takes too long.
fn end_at_last(diagnostics: &Diagnostics, request_timeout: Duration) {
    supervisor::notify(&supervisor::State::Stopping);
    let (patience, diagnostics) = (stop_patience(request_timeout), diagnostics.clone());
    // Without this thread, a shutdown takes as long as the disk does.
    drop(thread::Builder::new().name("end at last".into()).spawn(move || {
        thread::sleep(patience);
        end_without_waiting(&diagnostics, patience);
    }));
}

/// Returns how long a shutdown may take: the request timeout plus some time for the disk.
fn stop_patience(request_timeout: Duration) -> Duration {
    request_timeout + STOP_TIMEOUT
}

/// Ends the process without waiting for a disk that hangs, which would block its node forever, at a
/// start or at a shutdown. By now, acknowledged writes are on the disks of a majority; other writes
/// may be lost, as after any other end of the process.
fn end_without_waiting(diagnostics: &Diagnostics, patience: Duration) -> ! {
    let waited = patience.as_secs();
    let why = format!(
        "the shutdown has taken {waited} s, so a disk may hang: the process exits without waiting for it"
    );
    diagnostics.tell(LogLevel::Error, &why);
    diagnostics.flush();
    std::process::exit(Exit::Failure as i32);
}

/// Returns the configured maximum of clients, reduced to what the operating system allows.
fn connections_max(options: &ServeOptions, room: Room, diagnostics: &Diagnostics) -> usize {
    let wanted = u64::from(options.max_connections.get());
    let allowed = match room.clients {
        Some((possible, limit)) if possible < wanted => {
            let notice = format_args!("--max-connections {wanted} is reduced to {possible}: {limit}");
            diagnostics.tell(LogLevel::Warn, &notice);
            possible
        }
        _ => wanted,
    };
    usize::try_from(allowed).unwrap_or(usize::MAX)
}

/// Returns the configured settings, reduced to what the operating system allows.
fn settings_within(
    options: &ServeOptions,
    served: Served,
    diagnostics: &Diagnostics,
) -> Result<Settings, ServeError> {
    poller::check(options.runtime)?;
    let count = 1 + u8::from(options.admin_listen.is_some());
    let ports = ClientPorts { count, are_secured: options.security.tls_cert.is_some() };
    threads::check(options.runtime, served, ports)?;
    let room = descriptors::room(options.runtime, served, ports)?;
    Ok(settings(options, room, diagnostics))
}

fn settings(options: &ServeOptions, room: Room, diagnostics: &Diagnostics) -> Settings {
    Settings {
        nodes: options.nodes.into(),
        heartbeat_interval: options.heartbeat,
        election_timeout_min: options.election_timeout.min,
        election_timeout_max: options.election_timeout.max,
        request_timeout: options.request_timeout,
        idle_timeout: options.idle_timeout,
        connections_max: connections_max(options, room, diagnostics),
        client_handshakes_max: room.handshakes,
        peer_places: room.peers,
        memory_max: memory_max(options),
        scans_max: scans_max(options.runtime),
        snapshot_log_bytes: options.snapshot_bytes,
        snapshot_log_entries: options.snapshot_entries,
        ..Settings::default()
    }
}

/// Returns the number of concurrent scans: one per thread that can run them.
fn scans_max(runtime: Runtime) -> usize {
    match runtime {
        Runtime::Smol => 1,
        Runtime::Threads => thread::available_parallelism().map_or(1, usize::from),
    }
}

/// Returns the configured memory limit, or a share of the available memory.
fn memory_max(options: &ServeOptions) -> usize {
    let bytes = options.memory_max.or_else(memory::default_max);
    bytes.and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or(MEMORY_UNLIMITED)
}

fn medium(options: &ServeOptions) -> Medium {
    if options.ephemeral {
        return Medium::Memory;
    }
    let sync = match options.sync {
        Sync::Always => SyncPolicy::Always,
        Sync::Never => SyncPolicy::Never,
    };
    Medium::Folder { path: options.data_dir.clone(), sync }
}
