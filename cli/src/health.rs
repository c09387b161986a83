//! `health`: a probe for supervisors and containers. Prints one line, and needs no shell.
//!
//! *Alive* and *ready* are different questions. A supervisor restarts a process that is not alive,
//! so liveness must never depend on other nodes: a probe that asked for a leader would restart
//! healthy nodes during an election, and make an outage total. A load balancer sends no clients to
//! a node that is not ready, so readiness asks for a leader, and for a node that has caught up.
//!
//! Liveness also must not depend on rights or certificates. A server that refuses the probe's
//! token, or has a certificate that the probe does not accept, works; a restart would change
//! nothing.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::json;
use serde_json::value::RawValue;

use crate::caller::{CallError, Caller};
use crate::exit::Exit;
use crate::output::harmless;
use crate::reply::{NodeStatus, Reply};
use crate::request::Request;
use crate::target::Target;

/// The interval at which a node that has not caught up is asked again.
const ASKED_EVERY: Duration = Duration::from_millis(50);

/// Probe a server: exit code 0 if it is well, 6 if not
///
/// Without --ready: the server answers, whether or not it knows a leader. A server that refuses the
/// probe's token or certificate, or is busy, answers too, so this probe needs no rights.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  coracle health                      for a supervisor that restarts what fails
  coracle health --ready              for a load balancer
  coracle health --ready --timeout 2s

Prints one line, which begins with ok or fail. --timeout limits the whole probe. With --ready, and a server that \
asks for tokens, the probe needs one with the role read. With several addresses, one server that is well is \
sufficient.")]
pub(crate) struct Health {
    /// A leader is known, and the server has caught up with what was committed when it was asked
    #[arg(long)]
    ready: bool,

    #[command(flatten)]
    target: Target,
}

/// The result of a probe: what is well, or what is not.
type Probed = Result<String, String>;

impl Health {
    /// Probes the server and prints one line.
    pub(crate) fn run(&self) -> ExitCode {
        let probed = self.probe();
        let (word, text) = match &probed {
            Ok(text) => ("ok", text),
            Err(text) => ("fail", text),
        };
        let line = if self.target.output.is_text() {
            format!("{word}: {}", harmless(text))
        } else {
            let probe = if self.ready { "ready" } else { "alive" };
            harmless(&json!({"probe": probe, "status": word, "message": text}).to_string()).into_owned()
        };
        // The exit code is the answer. A prober that does not read the line still gets it.
        _ = writeln!(io::stdout().lock(), "{line}");
        if probed.is_ok() { Exit::Done.into() } else { Exit::Failure.into() }
    }

    /// Probes the server within the timeout.
    fn probe(&self) -> Probed {
        let limit = self.target.timeout();
        if limit.is_zero() {
            return Err("a probe needs a limit: --timeout must be more than 0".into());
        }
        let (mut caller, is_ready) = (self.target.caller(), self.ready);
        let (result, received) = mpsc::channel();
        // A lookup of a name and several addresses may take longer than one timeout.
        let probe = move || {
            let probed = if is_ready { ready(&mut caller, limit) } else { alive(&mut caller) };
            _ = result.send(probed);
        };
        if let Err(error) = thread::Builder::new().name("probe".into()).spawn(probe) {
            return Err(format!("cannot start a thread: {error}"));
        }
        let silence = |_| Err(format!("no answer within {}", humantime::format_duration(limit)));
        received.recv_timeout(limit).unwrap_or_else(silence)
    }
}

/// Asks for any sign of a server that works.
fn alive(caller: &mut Caller) -> Probed {
    match caller.call(Request::Ping) {
        Ok(reply) => Ok(format!("{} answers{}", caller.address(), refusal_of(&reply))),
        // The server has answered, although the two do not trust each other.
        Err(error @ CallError::Unanswered(_)) if error.exit() == Exit::Denied => {
            Ok(format!("a server answers, with a refusal: {}", on_one_line(&error)))
        }
        Err(error) => Err(on_one_line(&error)),
    }
}

/// Asks whether a leader is known, and waits until the server has caught up.
fn ready(caller: &mut Caller, limit: Duration) -> Probed {
    let begin = Instant::now();
    let mut target = None;
    loop {
        let reply = caller.call(Request::Status).map_err(|error| on_one_line(&error))?;
        let Some(nodes) = &reply.nodes else {
            return Err(format!("{}{}", caller.address(), refusal_of(&reply)));
        };
        let own = OwnNodes::of(nodes)?;
        let target = *target.get_or_insert(own.commit_index);
        let (address, leader, applied) = (caller.address(), own.leader, own.applied);
        if applied >= target {
            return Ok(format!("{address} is ready: node {leader} leads, {applied} entries are applied"));
        }
        if begin.elapsed() + ASKED_EVERY >= limit {
            return Err(format!("{address} lags: it has applied {applied} of {target} committed entries"));
        }
        thread::sleep(ASKED_EVERY);
    }
}

/// The progress of the nodes in the server that answered.
#[derive(Debug, PartialEq, Eq)]
struct OwnNodes {
    leader: u64,
    /// The most that one of them has applied.
    applied: u64,
    /// The highest index that any node knows to be committed.
    commit_index: u64,
}

impl OwnNodes {
    /// Reads the rows of a status.
    fn of(nodes: &[NodeStatus]) -> Result<Self, String> {
        // A server that does not say which rows are its own runs all of them, or is an older one.
        let is_own = |node: &&NodeStatus| node.here.unwrap_or(true);
        let following = nodes.iter().filter(is_own).filter(|node| node.leader.is_some());
        let best = following.max_by_key(|node| number(&node.last_applied));
        let own = best.ok_or("no leader is known")?;
        let leader = own.leader.as_deref().and_then(number).ok_or("no leader is known")?;
        let commit_index = nodes.iter().filter_map(|node| number(&node.commit_index)).max();
        let (applied, commit_index) = number(&own.last_applied).zip(commit_index).ok_or("no status")?;
        Ok(Self { leader, applied, commit_index })
    }
}

fn number(text: &RawValue) -> Option<u64> {
    text.get().parse().ok()
}

/// The code and message of a reply that refuses the request.
fn refusal_of(reply: &Reply) -> String {
    let refusal = reply.refusal(Request::Ping.effect());
    refusal.map(|refusal| format!(", with {refusal}")).unwrap_or_default()
}

/// A message of several lines as one.
fn on_one_line(error: &CallError) -> String {
    error.to_string().lines().map(str::trim).fold(String::new(), |mut all, line| {
        let between = if all.is_empty() { "" } else { "; " };
        _ = write!(all, "{between}{line}");
        all
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own_of(rows: &str) -> Result<OwnNodes, String> {
        let reply = Reply::parse(format!(r#"{{"nodes":[{rows}],"status":"ok"}}"#)).unwrap();
        OwnNodes::of(&reply.nodes.unwrap())
    }

    fn row(here: bool, leader: &str, commit_index: u64, applied: u64) -> String {
        format!(
            r#"{{"id":1,"role":"follower","term":2,"commit_index":{commit_index},"last_applied":{applied},
               "last_log_index":9,"leader":{leader},"address":null,"here":{here}}}"#
        )
        .replace('\n', "")
    }

    const SILENT: &str = r#"{"id":3,"role":"unreachable","term":null,"commit_index":null,"last_applied":null,
        "last_log_index":null,"leader":null,"address":null,"here":false}"#;

    #[test]
    fn only_the_own_node_counts_and_the_target_is_what_any_node_has_committed() {
        let rows = [row(false, "1", 9, 9), row(true, "1", 7, 6), SILENT.replace('\n', "")].join(",");
        assert_eq!(own_of(&rows), Ok(OwnNodes { leader: 1, applied: 6, commit_index: 9 }));
    }

    #[test]
    fn a_leader_that_only_another_node_knows_does_not_count() {
        let rows = [row(false, "1", 9, 9), row(true, "null", 9, 9)].join(",");
        assert!(own_of(&rows).unwrap_err().contains("no leader"));
    }

    #[test]
    fn of_several_own_nodes_the_one_that_is_furthest_counts() {
        let rows = [row(true, "1", 9, 2), row(true, "1", 9, 9)].join(",");
        assert_eq!(own_of(&rows).map(|own| own.applied), Ok(9));
    }
}
