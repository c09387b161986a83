//! `coracle bench`: a benchmark of throughput and latency.
//!
//! ```text
//!   options ──► temporary_cluster   this program again, serving from a temporary folder
//!      │
//!      └──────► measurement ──► load ──► lane     clients: a task and a connection each
//!                    │            │        │
//!                    │            │        └───── requests, encoded in advance
//!                    │            └──► tally      histograms
//!                    ▼
//!                 report ──► compare
//! ```
//!
//! A user's data on the server is never touched: the keys have a random prefix and are deleted
//! afterwards. The benchmark uses the client protocol like any other client and depends on no
//! server internals.

use std::io::{self, BufWriter, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde::Serialize;
use thiserror::Error;

use crate::address::Address;
use crate::caller::CallError;
use crate::commands::CommandError;
use crate::exit::Exit;
use crate::interrupt;
use crate::output::Format;
use crate::reply::Reply;
use crate::serve::Runtime;
use crate::tls::Trust;
use compare::Comparison;
use load::LoadError;
use measurement::Measurement;
use options::{LoadOptions, Subject, TemporaryOptions};
use progress::Progress;
use report::Report;
use temporary_cluster::{TemporaryCluster, TemporaryClusterError};

mod compare;
mod lane;
mod load;
mod measurement;
mod options;
mod progress;
mod report;
mod requests;
mod tally;
mod temporary_cluster;

pub(crate) use options::{BenchFlags, BenchFlagsError, BenchOptions};

/// The timeout of the first connection to a server. Arbitrary.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a benchmark has no result.
#[derive(Debug, Error)]
pub(crate) enum BenchError {
    #[error("interrupted")]
    Interrupted,
    #[error("cannot wait for signals: {0}")]
    Signals(io::Error),
    #[error("no server answered\n  {address}: {cause}")]
    Unreachable { address: Address, cause: io::Error },
    #[error(transparent)]
    TemporaryCluster(#[from] TemporaryClusterError),
    #[error("the keys for the benchmark could not be stored: {reply}")]
    Store { reply: String },
    #[error("keys that begin with {prefix} may be left on the server: {reply}")]
    Left { prefix: String, reply: String },
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error(transparent)]
    Command(#[from] CommandError),
    #[error("cannot write the result: {0}")]
    Output(#[from] io::Error),
}

impl BenchError {
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Interrupted => Exit::Interrupted,
            Self::Unreachable { .. } | Self::Load(LoadError::Connect { .. }) => Exit::Unreachable,
            Self::Command(error) => error.exit(),
            Self::Store { reply } | Self::Left { reply, .. } if is_denial(reply) => Exit::Denied,
            _ => Exit::Failure,
        }
    }

    /// Returns whether stdout was closed by its reader, which is no failure worth reporting.
    pub(crate) fn is_broken_pipe(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }
}

/// Returns whether the server has rejected a request because of the client's rights.
fn is_denial(reply: &str) -> bool {
    Reply::parse(reply.to_owned()).is_ok_and(|reply| reply.is_denial())
}

/// A benchmark in progress.
struct Bench {
    load: LoadOptions,
    is_interrupted: Arc<AtomicBool>,
    progress: Progress,
}

/// Runs a benchmark and prints the result.
pub(crate) fn bench(options: BenchOptions) -> Result<(), BenchError> {
    let is_interrupted = interrupt::is_noted().map_err(BenchError::Signals)?;
    if cfg!(debug_assertions) {
        tell(
            "this is a debug build, slower than it could be; `cargo build --release -p cli` makes the fast one",
        );
    }
    let mut bench = Bench { load: options.load, is_interrupted, progress: Progress::new() };
    let outcome = match options.subject {
        Subject::Running(addresses) => {
            bench.running(&addresses, Trust::load(&options.trust)).map(Outcome::Report)
        }
        Subject::Own(own) => bench.own(own).map(Outcome::Report),
        Subject::Compared { runtimes, nodes, ephemeral, rounds } => {
            let own = |runtime| TemporaryOptions { runtime, nodes, ephemeral };
            bench.compare(runtimes.map(own), rounds).map(Box::new).map(Outcome::Comparison)
        }
    };
    bench.progress.clear();
    // After an interrupt, other errors are its consequences, for example a server that received the
    // signal as well, and are not reported. Keys left behind are reported.
    let is_interrupted = bench.is_interrupted.load(Ordering::Acquire);
    if is_interrupted && !matches!(outcome, Err(BenchError::Left { .. })) {
        return Err(BenchError::Interrupted);
    }
    print(&outcome?, options.output)
}

impl Bench {
    fn running(&mut self, addresses: &[Address], trust: Trust) -> Result<Report, BenchError> {
        if let Some(error) = trust.error() {
            return Err(CommandError::from(CallError::Trust(error)).into());
        }
        let found = reachable(addresses)?;
        let trust = found.iter().fold(trust, |trust, (at, host)| trust.knowing(*at, host));
        let addresses: Vec<_> = found.into_iter().map(|(at, _)| at).collect();
        self.measure(&addresses, &trust, None)
    }

    fn own(&mut self, own: TemporaryOptions) -> Result<Report, BenchError> {
        self.progress.show("starting a cluster");
        let cluster = TemporaryCluster::start(own)?;
        self.measure(&[cluster.address()], &Trust::default(), Some(own.runtime))
    }

    /// Runs rounds of both runtimes in turn; the second runtime goes first in every other round.
    fn compare(&mut self, owns: [TemporaryOptions; 2], rounds: u32) -> Result<Comparison, BenchError> {
        let mut all = [Vec::new(), Vec::new()];
        for round in 0..rounds {
            let order = if round.is_multiple_of(2) { [0, 1] } else { [1, 0] };
            for place in order {
                let name = owns[place].runtime.name();
                self.progress.prefix = format!("round {} of {rounds}, {name}: ", round + 1);
                let report = self.own(owns[place])?;
                if self.is_interrupted.load(Ordering::Acquire) {
                    return Err(BenchError::Interrupted);
                }
                all[place].push(report);
            }
        }
        Ok(Comparison::new(all))
    }

    fn measure(
        &mut self,
        addresses: &[SocketAddr],
        trust: &Trust,
        own: Option<Runtime>,
    ) -> Result<Report, BenchError> {
        let Self { load, is_interrupted, progress } = self;
        // A temporary cluster is removed with all its keys.
        let is_cleaned = own.is_none();
        let measured = Measurement { addresses, trust, load, is_interrupted, progress }.run(is_cleaned)?;
        if let Some(reply) = measured.tally.first_error() {
            self.progress.clear();
            tell(&format!("a request was answered with {reply}"));
        }
        Ok(Report::new(own, measured.nodes, &self.load, &measured.tally))
    }
}

/// The result of a benchmark.
#[derive(Serialize)]
#[serde(untagged)]
enum Outcome {
    Report(Report),
    Comparison(Box<Comparison>),
}

fn print(outcome: &Outcome, format: Format) -> Result<(), BenchError> {
    let mut out = BufWriter::new(io::stdout().lock());
    match (format, outcome) {
        (Format::Json | Format::Jsonl, outcome) => {
            serde_json::to_writer(&mut out, outcome).map_err(io::Error::from)?;
            writeln!(out)?;
        }
        (Format::Text, Outcome::Report(report)) => report.write_text(&mut out)?,
        (Format::Text, Outcome::Comparison(comparison)) => comparison.write_text(&mut out)?,
    }
    Ok(out.flush()?)
}

/// Returns the addresses that accept a connection, each with its host.
fn reachable(addresses: &[Address]) -> Result<Vec<(SocketAddr, &str)>, BenchError> {
    let mut found = Vec::new();
    let mut last = None;
    for address in addresses {
        match probe(address) {
            Ok(socket_address) => found.push((socket_address, address.host())),
            Err(cause) => last = Some(BenchError::Unreachable { address: address.clone(), cause }),
        }
    }
    match last {
        Some(error) if found.is_empty() => Err(error),
        _ => Ok(found),
    }
}

/// Returns the first address of the name that accepts a connection.
fn probe(address: &Address) -> io::Result<SocketAddr> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for candidate in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&candidate, PROBE_TIMEOUT) {
            Ok(_) => return Ok(candidate),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn tell(what: &str) {
    // When stderr is closed, the message is lost.
    _ = writeln!(io::stderr(), "{what}");
}
