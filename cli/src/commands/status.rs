//! `status`: shows each node's role and progress, one row per node.

use std::thread;
use std::time::{Duration, Instant};

use bytesize::ByteSize;
use clap::Args;
use serde_json::value::RawValue;

use super::{CommandError, Context, Execute};
use crate::durations;
use crate::output::{Format, one_line, write_columns};
use crate::reply::{ErrorCode, Memory, NodeStatus, Refusal};
use crate::request::{Consistency, Request};

/// The interval between two requests of `status --wait`.
const ASKED_EVERY: Duration = Duration::from_millis(100);

/// The minimum duration of an unfinished disk write, in milliseconds, for a line below the table.
/// The same as the duration after which a server reports it.
const DISK_WAIT_SHOWN_MS: u64 = 2000;

/// Show every node's role and progress
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  coracle status
  watch -n1 coracle status
  coracle status --wait 30s     for scripts: until requests are answered
  coracle status -o json | jq '.nodes[] | select(.role == \"leader\") | .id'

One row per node: its id, role and term, the last index it knows to be committed (COMMIT), has applied \
(APPLIED) and has in its log (LAST), the leader it knows, its address, the last index that its latest snapshot \
covers (SNAPSHOT, 0 before the first), and how many entries its disk lacks compared with the longest log that \
answered (LAG). `-` means that there is no value. A node that does not answer is `unreachable`; one of this \
process whose disk failed, `stopped`. Lines below the table report a node whose disk hangs, and a server that \
uses more than half of its memory limit; `-o json` always has both.")]
pub(crate) struct Status {
    /// Wait until requests are answered, for at most DUR if it is given
    ///
    /// Waits for the server to start and for a leader; then shows the status. Exit code 3 or 4 if
    /// DUR is over before that.
    #[arg(long, value_name = "DUR", num_args = 0..=1, default_missing_value = "0", value_parser = durations::zero_for_off)]
    wait: Option<Duration>,
}

impl Status {
    /// Repeats a read that needs a leader until it is answered or `patience` has elapsed; zero
    /// waits forever.
    fn wait(patience: Duration, context: &mut Context<'_>) -> Result<(), CommandError> {
        let begin = Instant::now();
        let read = Request::Get { key: "wait", consistency: Consistency::Linearizable, meta: false };
        loop {
            let failure = match context.caller.call(read) {
                Ok(reply) => match reply.refusal(read.effect()) {
                    None | Some(Refusal { code: ErrorCode::NotFound, .. }) => return Ok(()),
                    Some(refusal) => CommandError::Refused(refusal),
                },
                Err(failure) => CommandError::from(failure),
            };
            if failure.is_interrupt() {
                return Err(failure);
            }
            if !patience.is_zero() && begin.elapsed() >= patience {
                return Err(failure);
            }
            thread::sleep(ASKED_EVERY);
        }
    }
}

impl Execute for Status {
    fn execute(&self, context: &mut Context<'_>) -> Result<(), CommandError> {
        if let Some(patience) = self.wait {
            Self::wait(patience, context)?;
        }
        let reply = context.ask(Request::Status)?;
        match context.format {
            Format::Json | Format::Jsonl => context.print_reply(&reply),
            Format::Text => {
                let nodes = reply.nodes.ok_or(CommandError::ReplyIncomplete)?;
                write_columns(context.out, &table(&nodes))?;
                for node in &nodes {
                    if let Some(waited @ DISK_WAIT_SHOWN_MS..) = node.disk_waiting_ms {
                        let id = one_line(&node.id);
                        writeln!(
                            context.out,
                            "the disk of node {id} hangs: no write has finished for {} s",
                            waited / 1000
                        )?;
                    }
                }
                if let Some(line) = reply.memory.and_then(|memory| scarce_memory(&memory)) {
                    writeln!(context.out, "{line}")?;
                }
                Ok(())
            }
        }
    }
}

/// Returns a line about the server's memory, if more than half of the limit is in use.
fn scarce_memory(memory: &Memory) -> Option<String> {
    let max = memory.max?;
    let held_for = memory.held_for();
    let all: u64 = held_for.iter().map(|(bytes, _)| bytes).sum();
    if all <= max / 2 {
        return None;
    }
    let (most, purpose) = held_for.into_iter().max_by_key(|(bytes, _)| *bytes)?;
    let [all, max, most] = [all, max, most].map(ByteSize);
    Some(format!("this server uses {all} of {max} (--memory-max), {most} of it for {purpose}"))
}

fn table(nodes: &[NodeStatus]) -> Vec<[String; 10]> {
    let head = ["ID", "ROLE", "TERM", "COMMIT", "APPLIED", "LAST", "LEADER", "ADDRESS", "SNAPSHOT", "LAG"];
    let row = |node: &NodeStatus| {
        let nothing = || "-".to_owned();
        let known = |value: &RawValue| if value.get() == "null" { nothing() } else { one_line(value) };
        [
            one_line(&node.id),
            one_line(&node.role),
            known(&node.term),
            known(&node.commit_index),
            known(&node.last_applied),
            known(&node.last_log_index),
            node.leader.as_deref().map_or_else(nothing, one_line),
            node.address.as_deref().map_or_else(nothing, one_line),
            node.snapshot_index.as_deref().map_or_else(nothing, one_line),
            node.lag.as_deref().map_or_else(nothing, one_line),
        ]
    };
    std::iter::once(head.map(str::to_owned)).chain(nodes.iter().map(row)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reply::Reply;

    #[test]
    fn a_row_shows_all_facts_of_a_node() {
        let line = r#"{"nodes":[{"id":0,"role":"leader","term":3,"commit_index":17,"last_applied":17,
            "last_log_index":18,"leader":0,"address":"127.0.0.1:3001","snapshot_index":9,"reachable":true,"lag":0},
            {"id":1,"role":"follower","term":3,"commit_index":16,"last_applied":15,"last_log_index":18,"leader":null,
            "address":null},{"id":2,"role":"unreachable","term":null,"commit_index":null,"last_applied":null,
            "last_log_index":null,"leader":null,"address":null,"snapshot_index":null,"reachable":false,
            "lag":null}],"status":"ok"}"#;
        let nodes = Reply::parse(line.to_owned()).unwrap().nodes.unwrap();
        let mut out = Vec::new();
        write_columns(&mut out, &table(&nodes)).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "ID  ROLE         TERM  COMMIT  APPLIED  LAST  LEADER  ADDRESS         SNAPSHOT  LAG\n\
             0   leader       3     17      17       18    0       127.0.0.1:3001  9         0\n\
             1   follower     3     16      15       18    -       -               -         -\n\
             2   unreachable  -     -       -        -     -       -               -         -\n"
        );
    }

    #[test]
    fn scarce_memory_is_reported() {
        let line = |max: &str, data: u64| {
            let memory = format!(
                r#"{{"max":{max},"data":{data},"connections":1048576,"half_lines":0,"requests":0,"replies":0}}"#
            );
            scarce_memory(&serde_json::from_str(&memory).unwrap())
        };
        assert_eq!(line("null", 1 << 30), None);
        assert_eq!(line("33554432", 1 << 20), None);
        assert_eq!(
            line("33554432", 20 << 20).as_deref(),
            Some(
                "this server uses 21.0 MiB of 32.0 MiB (--memory-max), 20.0 MiB of it for keys, values and the log"
            )
        );
        let of_nodes = r#"{"max":67108864,"data":1048576,"sessions":2097152,"snapshots":36700160,"peers":1048576,
            "connections":0,"half_lines":0,"requests":0,"replies":0}"#;
        assert_eq!(
            scarce_memory(&serde_json::from_str(of_nodes).unwrap()).as_deref(),
            Some(
                "this server uses 39.0 MiB of 64.0 MiB (--memory-max), 35.0 MiB of it for snapshots and the log that is kept for followers"
            )
        );
    }
}
