//! The command line: lists and groups the commands. Each command's arguments and help are defined
//! with the command.

use std::ffi::OsString;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use thiserror::Error;

use crate::bench::{BenchError, BenchFlags, BenchFlagsError, bench};
#[cfg(feature = "tls")]
use crate::cert::{Cert, CertError};
use crate::client::{Client, ClientError};
use crate::commands::{
    Add, Backup, Cas, CommandError, Context, Delete, Execute, Get, Incr, List, Persist, Promote, Put, Remove,
    Scan, Status, Touch, Transfer, Txn, Watch,
};
use crate::config::{self, Config, ConfigError};
use crate::doctor::Doctor;
use crate::exit::Exit;
use crate::health::Health;
use crate::interrupt;
use crate::lock::{Lock, LockError};
use crate::log::{Log, LogError};
use crate::packaging::{Completions, Manual, PackagingError};
use crate::restore::{Restore, RestoreError};
use crate::serve::{
    NodeFlags, NodeFlagsError, ServeError, ServeFlags, ServeFlagsError, Started, serve, serve_node,
};
use crate::target::Target;
use crate::token::{Token, TokenError};
use crate::value::Stdin;

/// A Raft-backed key-value store: a whole cluster in one process, and its clients
///
/// Without a command, serves: `coracle [FLAGS]` is `coracle serve [FLAGS]`.
#[derive(Debug, Parser)]
#[command(
    name = "coracle",
    version,
    args_conflicts_with_subcommands = true,
    max_term_width = 80,
    after_help = "\
Examples:
  coracle                        serves on 127.0.0.1:3001, files in ./data
  coracle --nodes 3 --ephemeral  serves from memory alone, to play with
  coracle put snack chips
  coracle get snack
  coracle client                 a prompt with history and completion
  printf '{\"key\":\"snack\"}\\n' | nc -q1 127.0.0.1 3001

Exit codes: 0 done, 1 key not found, 2 wrong usage, 3 cannot connect, 4 no leader or timeout (for a write the \
outcome is unknown, and the message says so), 5 precondition failed, 6 server or storage error, 7 not authenticated, 130 interrupted.

`coracle help COMMAND` describes a command."
)]
pub(crate) struct CommandLine {
    #[command(subcommand)]
    command: Option<Command>,

    #[command(flatten)]
    serve: ServeFlags,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a cluster and its proxy in this process: the default
    ///
    /// stdout carries one line, `ready ADDR`; everything else is on stderr. SIGINT or SIGTERM stops
    /// it gracefully, a second one at once.
    Serve(ServeFlags),
    Node(NodeFlags),
    Config(Config),
    Put(Remote<Put>),
    Get(Remote<Get>),
    Delete(Remote<Delete>),
    Cas(Remote<Cas>),
    Incr(Remote<Incr>),
    Touch(Remote<Touch>),
    Persist(Remote<Persist>),
    Txn(Remote<Txn>),
    Scan(Remote<Scan>),
    Watch(Remote<Watch>),
    Lock(Lock),
    Status(Remote<Status>),
    Health(Health),
    Doctor(Doctor),
    Transfer(Remote<Transfer>),
    /// List or change the members of a cluster of processes
    #[command(subcommand)]
    Member(MemberCommand),
    Client(Client),
    /// Measure throughput and latency
    ///
    /// Starts a temporary cluster and loads it, or loads a running server (--connect). All its keys
    /// begin with `bench:` and a random number; on a running server it deletes them at the end.
    #[command(after_help = BENCH_EXAMPLES)]
    Bench(BenchFlags),
    Log(Log),
    Backup(Remote<Backup>),
    Restore(Restore),
    #[cfg(feature = "tls")]
    Cert(Cert),
    Token(Token),
    Completions(Completions),
    #[command(name = "man")]
    Manual(Manual),
}

#[derive(Debug, Subcommand)]
enum MemberCommand {
    List(Remote<List>),
    Add(Remote<Add>),
    Promote(Remote<Promote>),
    Remove(Remote<Remove>),
}

const BENCH_EXAMPLES: &str = "\
Examples:
  coracle bench                             five nodes on smol, half puts
  coracle bench --puts 100 --clients 256 --duration 10s
  coracle bench --puts 0 --linearizable     linearizable gets
  coracle bench --clients 64 --pipeline 16  many requests on each connection
  coracle bench --rate 20000                open loop: 20,000 requests a second
  coracle bench --compare smol,threads      in turn, five rounds: their ratio
  coracle bench --connect 127.0.0.1:3001 -o json | jq .put.p99_us

The temporary cluster runs in a separate process, with its files in a temporary folder (TMPDIR). Latency is the \
time until the reply arrived, in an open loop from the moment at which the request was due. `nodes` comes from the \
server's status; `runtime` is null for a running server. Requests that were rejected or never answered count as \
errors, without a latency; the first is printed on stderr.";

// A client command and the servers to send it to. No doc comment: clap would use it as the
// command's help.
#[derive(Args, Debug)]
struct Remote<Asked: Args> {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    asked: Asked,
}

/// The error of a command that failed.
#[derive(Debug, Error)]
pub(crate) enum ProgramError {
    #[error(transparent)]
    Flags(#[from] ServeFlagsError),
    #[error(transparent)]
    NodeFlags(#[from] NodeFlagsError),
    #[error(transparent)]
    Serve(#[from] ServeError),
    #[error(transparent)]
    Command(#[from] CommandError),
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    BenchFlags(#[from] BenchFlagsError),
    #[error(transparent)]
    Bench(#[from] BenchError),
    #[error(transparent)]
    Log(#[from] LogError),
    #[error(transparent)]
    Restore(#[from] RestoreError),
    #[error(transparent)]
    Lock(#[from] LockError),
    #[cfg(feature = "tls")]
    #[error(transparent)]
    Cert(#[from] CertError),
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Packaging(#[from] PackagingError),
}

impl ProgramError {
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Flags(_) | Self::NodeFlags(_) | Self::BenchFlags(_) => Exit::Usage,
            Self::Serve(error) => error.exit(),
            Self::Command(error) => error.exit(),
            Self::Client(error) => error.exit(),
            Self::Bench(error) => error.exit(),
            Self::Log(error) => error.exit(),
            Self::Restore(error) => error.exit(),
            Self::Lock(error) => error.exit(),
            #[cfg(feature = "tls")]
            Self::Cert(error) => error.exit(),
            Self::Token(error) => error.exit(),
            Self::Config(error) => error.exit(),
            Self::Packaging(error) => error.exit(),
        }
    }

    /// Returns whether stdout was closed by its reader, which is no failure worth reporting.
    pub(crate) fn is_broken_pipe(&self) -> bool {
        match self {
            Self::Command(error) => error.is_broken_pipe(),
            Self::Client(error) => error.is_broken_pipe(),
            Self::Log(error) => error.is_broken_pipe(),
            Self::Restore(error) => error.is_broken_pipe(),
            #[cfg(feature = "tls")]
            Self::Cert(error) => error.is_broken_pipe(),
            Self::Bench(error) => error.is_broken_pipe(),
            Self::Token(error) => error.is_broken_pipe(),
            Self::Config(error) => error.is_broken_pipe(),
            Self::Packaging(error) => error.is_broken_pipe(),
            Self::Flags(_) | Self::NodeFlags(_) | Self::BenchFlags(_) | Self::Serve(_) | Self::Lock(_) => {
                false
            }
        }
    }
}

impl CommandLine {
    /// Runs the command. The interactive client and a command that holds a lock return their own
    /// exit codes.
    pub(crate) fn run(self) -> Result<ExitCode, ProgramError> {
        let command = self.command.unwrap_or(Command::Serve(self.serve));
        // A server shuts down cleanly on a signal, a benchmark cleans up, and a lock is released:
        // they handle signals themselves.
        if !matches!(command, Command::Serve(_) | Command::Node(_) | Command::Bench(_) | Command::Lock(_)) {
            interrupt::heed();
        }
        match command {
            Command::Serve(flags) => serve(&flags.options()?)?,
            Command::Node(flags) => serve_node(flags.options()?)?,
            Command::Put(remote) => remote.run()?,
            Command::Get(remote) => remote.run()?,
            Command::Delete(remote) => remote.run()?,
            Command::Cas(remote) => remote.run()?,
            Command::Incr(remote) => remote.run()?,
            Command::Touch(remote) => remote.run()?,
            Command::Persist(remote) => remote.run()?,
            Command::Txn(remote) => remote.run()?,
            Command::Scan(remote) => remote.run()?,
            Command::Watch(remote) => remote.run()?,
            Command::Lock(lock) => return Ok(lock.run()?),
            Command::Status(remote) => remote.run()?,
            Command::Health(health) => return Ok(health.run()),
            Command::Doctor(doctor) => return Ok(doctor.run()),
            Command::Transfer(remote) => remote.run()?,
            Command::Member(MemberCommand::List(remote)) => remote.run()?,
            Command::Member(MemberCommand::Add(remote)) => remote.run()?,
            Command::Member(MemberCommand::Promote(remote)) => remote.run()?,
            Command::Member(MemberCommand::Remove(remote)) => remote.run()?,
            Command::Client(client) => return Ok(client.run()?.into()),
            Command::Bench(flags) => bench(flags.options()?)?,
            Command::Log(log) => log.run()?,
            Command::Backup(remote) => remote.run()?,
            Command::Restore(restore) => restore.run()?,
            #[cfg(feature = "tls")]
            Command::Cert(cert) => cert.run()?,
            Command::Token(token) => token.run()?,
            Command::Config(config) => config.run()?,
            Command::Completions(completions) => completions.run()?,
            Command::Manual(manual) => manual.run()?,
        }
        Ok(Exit::Done.into())
    }
}

impl<Asked: Args + Execute> Remote<Asked> {
    fn run(&self) -> Result<(), CommandError> {
        let mut out = BufWriter::new(io::stdout().lock());
        let mut caller = self.target.caller();
        let format = self.target.output;
        let done = self.asked.execute(&mut Context {
            caller: &mut caller,
            format,
            out: &mut out,
            is_terminal: io::stdout().is_terminal(),
            stdin: Stdin::Free,
        });
        // A failed command may have printed output as well, such as the value that a `cas` found.
        let flushed = out.flush();
        done.and(flushed.map_err(CommandError::Output))
    }
}

/// Parses and checks the complete command line of a server as its start does.
pub(crate) fn server(words: &[OsString]) -> Result<Started, ConfigError> {
    let command_line = CommandLine::try_parse_from(words).map_err(ConfigError::Flags)?;
    Ok(match command_line.command {
        Some(Command::Node(flags)) => Started::Node(Box::new(flags.options()?)),
        Some(Command::Serve(flags)) => Started::Cluster(Box::new(flags.options()?)),
        _ => Started::Cluster(Box::new(command_line.serve.options()?)),
    })
}

/// The server that these flags start: a node if they set an id, and otherwise a cluster.
pub(crate) fn server_of(flags: &[OsString]) -> Result<Started, ConfigError> {
    let words = |command: &'static str| ["coracle", command].into_iter().map(OsString::from);
    let complete = |command| config::complete(words(command).chain(flags.iter().cloned()).collect());
    match complete("node") {
        Ok(node) if node.sets("id") => server(&node.words),
        _ => server(&complete("serve")?.words),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn serving_is_spelled_two_ways() {
        let parse = |text: &str| CommandLine::try_parse_from(text.split_whitespace()).unwrap();
        assert!(parse("coracle --nodes 3").command.is_none());
        assert!(matches!(parse("coracle serve --nodes 3").command, Some(Command::Serve(_))));
        assert!(parse("coracle").command.is_none());
    }

    #[test]
    fn flags_of_serving_do_not_mix_with_another_command() {
        assert!(CommandLine::try_parse_from(["coracle", "--nodes", "3", "get", "a"]).is_err());
        assert!(CommandLine::try_parse_from(["coracle", "get", "a", "--nodes", "3"]).is_err());
    }

    #[test]
    fn a_compare_and_swap_needs_exactly_one_condition() {
        let is_fine = |text: &str| CommandLine::try_parse_from(text.split_whitespace()).is_ok();
        assert!(is_fine("coracle cas k --expect old new"));
        assert!(is_fine("coracle cas k --absent new"));
        assert!(!is_fine("coracle cas k new"));
        assert!(!is_fine("coracle cas k --absent --expect old new"));
    }

    #[test]
    fn a_negative_number_is_a_value() {
        for line in [
            "put k -5 --json",
            "put -5 -6",
            "get -5",
            "delete -5",
            "cas -5 --expect -1.5 -2 --json",
            "scan -5",
            "watch -5",
            "watch --key -5",
        ] {
            let words = format!("coracle {line}");
            assert!(CommandLine::try_parse_from(words.split_whitespace()).is_ok(), "{line}");
        }
        assert!(CommandLine::try_parse_from(["coracle", "put", "k", "-"]).is_ok());
        assert!(CommandLine::try_parse_from(["coracle", "put", "k", "--", "--x"]).is_ok());
    }
}
