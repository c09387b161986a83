//! `status`: how the nodes see the cluster, one row each.

use clap::Args;
use serde_json::value::RawValue;

use super::{CommandError, Context, Execute};
use crate::output::{Format, one_line, write_columns};
use crate::reply::NodeStatus;
use crate::request::Request;

/// A disk that has finished no write for so many milliseconds is shown in the table: the server reports it as well.
const DISK_WAIT_SHOWN_MS: u64 = 2000;

/// Show every node's role and progress
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  coracle status
  watch -n1 coracle status
  coracle status -o json | jq '.nodes[] | select(.role == \"leader\") | .id'

One row per node: its id, role and term, the last index it knows to be committed (COMMIT), has applied \
(APPLIED) and has in its log (LAST), the leader it knows, its address, the last index that its latest snapshot covers \
(SNAPSHOT, 0 before the first), and how many entries its log lacks of the longest one that answered (LAG). `-` stands for \
nothing. A node that does not answer is `unreachable`; one of this process whose disk failed, `stopped`.")]
pub(crate) struct Status {}

impl Execute for Status {
    fn execute(&self, context: &mut Context<'_>) -> Result<(), CommandError> {
        let reply = context.ask(Request::Status)?;
        match context.format {
            Format::Json => context.print_reply(&reply),
            Format::Text => {
                let nodes = reply.nodes.ok_or(CommandError::ReplyIncomplete)?;
                write_columns(context.out, &table(&nodes))?;
                for node in &nodes {
                    if let Some(waited @ DISK_WAIT_SHOWN_MS..) = node.disk_waiting_ms {
                        let id = one_line(&node.id);
                        writeln!(
                            context.out,
                            "node {id} waits for its disk: no write has ended for {} s",
                            waited / 1000
                        )?;
                    }
                }
                Ok(())
            }
        }
    }
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
    fn a_row_says_all_there_is_to_a_node() {
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
}
