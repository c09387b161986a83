//! Checks of a running cluster, from the replies to `status` and `members` of one server.

use serde_json::value::RawValue;

use super::Check;
use crate::caller::Caller;
use crate::output::one_line;
use crate::reply::{MemberRow, Memory, NodeStatus, Reply};
use crate::request::Request;

/// The lag, in entries, from which a check warns. Chosen above what a follower lags under load.
const LAG_WARN: u64 = 10_000;
/// How long a disk may have finished no write, in milliseconds, before a check fails. The same as
/// the duration after which a server reports it.
const DISK_FAIL_MS: u64 = 2000;
/// The parts of the memory limit from which a check warns and fails, in percent.
const MEMORY_WARN_PERCENT: u64 = 75;
const MEMORY_FAIL_PERCENT: u64 = 95;

/// Runs all checks of a cluster.
pub(super) fn checks(caller: &mut Caller) -> Vec<Check> {
    let status = match ask(caller, Request::Status) {
        Ok(status) => status,
        Err(why) => return vec![Check::fail("connection", why)],
    };
    let mut checks = vec![Check::ok("connection", format!("{} answers", caller.address()))];
    let nodes = status.nodes.unwrap_or_default();
    checks.push(leader(&nodes));
    checks.extend(nodes.iter().map(node));
    // Without a leader the members are not known for sure.
    checks.push(match ask(caller, Request::Members) {
        Ok(reply) => voters(&nodes, &reply.members.unwrap_or_default()),
        Err(why) => Check::fail("voters", why),
    });
    checks.push(memory(status.memory.as_ref()));
    checks
}

/// Sends a request. Returns why it was not answered.
fn ask(caller: &mut Caller, request: Request<'_>) -> Result<Reply, String> {
    let reply = caller.call(request).map_err(|error| error.to_string())?;
    match reply.refusal(request.effect()) {
        None => Ok(reply),
        Some(refusal) => Err(format!("the server answers: {refusal}")),
    }
}

fn number(text: &RawValue) -> Option<u64> {
    text.get().parse().ok()
}

fn answers(node: &NodeStatus) -> bool {
    number(&node.term).is_some()
}

fn leader(nodes: &[NodeStatus]) -> Check {
    const CHECK: &str = "leader";
    let own = nodes.iter().filter(|node| node.here.unwrap_or(true));
    match own.filter_map(|node| node.leader.as_deref().and_then(number)).next() {
        Some(leader) => Check::ok(CHECK, format!("node {leader} leads")),
        None => Check::fail(
            CHECK,
            "this server knows no leader: a majority of the voters has to be up and reach each other",
        ),
    }
}

fn node(node: &NodeStatus) -> Check {
    const CHECK: &str = "node";
    let (id, role) = (one_line(&node.id), one_line(&node.role));
    if !answers(node) {
        return Check::fail(
            CHECK,
            format!("node {id} is {role}: start it, or check its network and its log"),
        );
    }
    if let Some(waited) = node.disk_waiting_ms.filter(|waited| *waited >= DISK_FAIL_MS) {
        return Check::fail(
            CHECK,
            format!("node {id}: its disk has finished no write for {} s", waited / 1000),
        );
    }
    match node.lag.as_deref().and_then(number) {
        Some(lag @ LAG_WARN..) => {
            Check::warn(CHECK, format!("node {id} lags by {lag} entries: is its disk or network slow?"))
        }
        _ => Check::ok(CHECK, format!("node {id} answers as {role}")),
    }
}

/// Judges the number of voters, and whether the cluster tolerates another lost node.
fn voters(nodes: &[NodeStatus], members: &[MemberRow]) -> Check {
    const CHECK: &str = "voters";
    let is_voter = |member: &&MemberRow| member.role.get() == "\"voter\"";
    let ids: Vec<_> = members.iter().filter(is_voter).map(|member| member.id.get()).collect();
    let up = nodes.iter().filter(|node| answers(node) && ids.contains(&node.id.get())).count();
    let (voters, majority) = (ids.len(), ids.len() / 2 + 1);
    let message = format!("{up} of {voters} voters answer");
    if up < majority {
        return Check::fail(CHECK, format!("{message}, and {majority} are needed"));
    }
    if up == majority && voters > up {
        return Check::warn(CHECK, format!("{message}: the loss of one more stops the cluster"));
    }
    if up == majority {
        return Check::warn(CHECK, format!("{message}: the loss of one stops the cluster; add members"));
    }
    if voters.is_multiple_of(2) {
        let fewer = voters - 1;
        return Check::warn(
            CHECK,
            format!("{message}: an even number tolerates no more failures than {fewer}"),
        );
    }
    Check::ok(CHECK, message)
}

fn memory(memory: Option<&Memory>) -> Check {
    const CHECK: &str = "memory";
    let Some((memory, max)) = memory.and_then(|memory| Some((memory, memory.max.filter(|max| *max > 0)?)))
    else {
        return Check::ok(CHECK, "the server has no limit");
    };
    let used: u64 = memory.held_for().iter().map(|(bytes, _)| bytes).sum();
    let percent = used.saturating_mul(100) / max;
    let message = format!("{percent} % of --memory-max are in use");
    match percent {
        MEMORY_FAIL_PERCENT.. => {
            Check::fail(CHECK, message + ": requests are rejected, raise it or remove keys")
        }
        MEMORY_WARN_PERCENT.. => Check::warn(CHECK, message + ": raise it, or remove keys"),
        _ => Check::ok(CHECK, message),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    fn status(rows: &[String]) -> Vec<NodeStatus> {
        let line = format!(r#"{{"nodes":[{}],"status":"ok"}}"#, rows.join(","));
        Reply::parse(line).unwrap().nodes.unwrap()
    }

    fn row(id: u64, leader: &str, lag: u64, disk: u64) -> String {
        format!(
            r#"{{"id":{id},"role":"follower","term":2,"commit_index":9,"last_applied":9,"last_log_index":9,"leader":{leader},"address":null,"lag":{lag},"disk_waiting_ms":{disk},"here":true}}"#
        )
    }

    fn lost(id: u64) -> String {
        format!(
            r#"{{"id":{id},"role":"unreachable","term":null,"commit_index":null,"last_applied":null,"last_log_index":null,"leader":null,"address":null,"here":false}}"#
        )
    }

    fn members(voters: u64) -> Vec<MemberRow> {
        let row = |id: u64| format!(r#"{{"id":{id},"role":"voter","address":"a:{id}","incarnation":null}}"#);
        let rows = (1..=voters).map(row).chain([r#"{"id":99,"role":"learner"}"#.to_owned()]);
        let line = format!(r#"{{"members":[{}],"status":"ok"}}"#, rows.collect::<Vec<_>>().join(","));
        Reply::parse(line).unwrap().members.unwrap()
    }

    #[test]
    fn a_missing_leader_fails() {
        assert_eq!(leader(&status(&[row(1, "2", 0, 0)])).verdict, Verdict::Ok);
        assert_eq!(leader(&status(&[row(1, "null", 0, 0), lost(2)])).verdict, Verdict::Fail);
    }

    #[test]
    fn a_node_fails_when_it_is_lost_or_its_disk_hangs_and_warns_when_it_lags() {
        for (row, verdict, part) in [
            (row(1, "1", 0, 0), Verdict::Ok, "answers"),
            (lost(2), Verdict::Fail, "unreachable"),
            (row(3, "1", LAG_WARN, 0), Verdict::Warn, "lags"),
            (row(3, "1", LAG_WARN - 1, 0), Verdict::Ok, "answers"),
            (row(4, "1", 0, DISK_FAIL_MS), Verdict::Fail, "disk"),
        ] {
            let check = node(&status(&[row])[0]);
            assert!(check.verdict == verdict && check.message.contains(part), "{check:?}");
        }
    }

    #[test]
    fn voters_are_judged_by_the_majority() {
        let judged = |up: u64, all: u64| {
            let rows: Vec<_> =
                (1..=all).map(|id| if id <= up { row(id, "1", 0, 0) } else { lost(id) }).collect();
            voters(&status(&rows), &members(all))
        };
        for (up, all, verdict, part) in [
            (3, 3, Verdict::Ok, "3 of 3"),
            (5, 5, Verdict::Ok, "5 of 5"),
            (4, 5, Verdict::Ok, "4 of 5"),
            (2, 3, Verdict::Warn, "one more stops"),
            (3, 5, Verdict::Warn, "one more stops"),
            (1, 3, Verdict::Fail, "2 are needed"),
            (4, 4, Verdict::Warn, "even number"),
            (1, 1, Verdict::Warn, "add members"),
        ] {
            let check = judged(up, all);
            assert!(check.verdict == verdict && check.message.contains(part), "{check:?}");
        }
    }

    #[test]
    fn memory_near_its_limit_warns_or_fails() {
        let judged = |max: &str, data: u64| {
            let rest = r#""connections":0,"half_lines":0,"requests":0,"replies":0"#;
            let line = format!(r#"{{"memory":{{"max":{max},"data":{data},{rest}}},"status":"ok"}}"#);
            memory(Reply::parse(line).unwrap().memory.as_ref()).verdict
        };
        assert_eq!(judged("1000", 749), Verdict::Ok);
        assert_eq!(judged("1000", 750), Verdict::Warn);
        assert_eq!(judged("1000", 950), Verdict::Fail);
        assert_eq!((judged("null", 5), judged("0", 5)), (Verdict::Ok, Verdict::Ok));
    }
}
