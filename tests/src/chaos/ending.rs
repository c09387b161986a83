//! The end of a campaign: heals all faults, and then checks liveness, convergence and the final
//! data.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::Violation;
use super::caller::{Caller, Heard, understand};
use super::clients::{FINISH, LEAVE, Shared};
use super::cluster::Cluster;
use super::node::End;
use crate::checker::{Answered, Asked, Observed};

/// The time after healing in which the cluster has to recover. Generous, because the machine may be
/// busy.
const HEALING_MAX: Duration = Duration::from_secs(30);
/// The time that nodes have to stop on SIGTERM.
const STOP_TIMEOUT: Duration = Duration::from_secs(20);

/// Heals all faults while clients still work, and checks that they are served. With `with_storm`,
/// connections that suffered faults are broken; otherwise they have to recover by themselves.
pub(super) fn heal(cluster: &mut Cluster<'_>, with_storm: bool) -> Result<(), Violation> {
    cluster.network.heal(with_storm);
    cluster.start_all()?;
    let shared = cluster.shared;
    let before = shared.acknowledged.load(Ordering::Relaxed);
    wait("after healing, writes go through", HEALING_MAX, || {
        (shared.acknowledged.load(Ordering::Relaxed) > before + 50).then_some(()).ok_or_else(|| {
            let words: Vec<String> =
                cluster.nodes.iter().map(|node| format!("{:?}", cluster.status(node))).collect();
            words.join("\n  ")
        })
    })
}

/// Lets clients finish their requests in flight. Clients without an answer in time are ordered to
/// leave.
pub(super) fn finish(shared: &Shared, mut are_done: impl FnMut() -> bool) -> Result<(), Violation> {
    shared.order.store(FINISH, Ordering::Relaxed);
    let result = wait("after healing, every request is answered", HEALING_MAX, || {
        if are_done() { Ok(()) } else { Err("some client still waits".to_owned()) }
    });
    shared.order.store(LEAVE, Ordering::Relaxed);
    result
}

/// Checks that all nodes have committed and applied the same log. Returns its last index.
pub(super) fn converge(cluster: &mut Cluster<'_>) -> Result<u64, Violation> {
    let mut last = 0;
    wait("nodes agree once nobody writes", HEALING_MAX, || {
        let rows: Vec<Option<Value>> = cluster.nodes.iter().map(|node| cluster.status(node)).collect();
        let fields = ["last_log_index", "commit_index", "last_applied"];
        let row = rows[0].as_ref();
        last = row.and_then(|row| row["last_log_index"].as_u64()).unwrap_or(0);
        let agrees = |row: &Option<Value>| {
            row.as_ref().is_some_and(|row| fields.iter().all(|field| row[field] == last))
        };
        if last > 0 && rows.iter().all(agrees) { Ok(()) } else { Err(format!("{rows:?}")) }
    })?;
    cluster.check_alive()?;
    Ok(last)
}

/// Reads every key that was ever written, so that the search and the counters can check the final
/// values.
pub(super) fn read_everything(cluster: &Cluster<'_>) -> Result<(), Violation> {
    let shared = cluster.shared;
    let mut caller = None;
    for key in shared.history.keys() {
        let call = shared.now();
        let found = read(shared, &mut caller, &key)?;
        let seen = Observed { call, ret: shared.now(), asked: Asked::Get, answered: Answered::Found(found) };
        shared.history.record_key(&key, seen);
    }
    for counter in &shared.counters {
        let floor = counter.acknowledged();
        counter.check(floor, read(shared, &mut caller, &counter.key)?)?;
    }
    Ok(())
}

fn read(shared: &Shared, caller: &mut Option<Caller>, key: &str) -> Result<Option<u32>, Violation> {
    let request = json!({"op":"get","key":key,"consistency":"linearizable"});
    let mut found = None;
    wait("a healthy cluster answers reads", HEALING_MAX, || {
        if caller.is_none() {
            let addresses = shared.addresses.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let address = addresses.first().ok_or("nobody serves")?;
            *caller = Some(Caller::open(*address, HEALING_MAX).map_err(|error| error.to_string())?);
        }
        let asked = caller.as_mut().ok_or("no connection")?.ask(request.clone());
        match asked.map(|reply| understand(&request, &reply)) {
            Ok(Heard::Found(value)) => {
                found = value;
                Ok(())
            }
            other => {
                *caller = None;
                Err(format!("{other:?} for {key}"))
            }
        }
    })?;
    Ok(found)
}

/// Stops all nodes at once by SIGTERM, and checks that they end correctly.
pub(super) fn stop(cluster: &mut Cluster<'_>) -> Result<(), Violation> {
    for node in &mut cluster.nodes {
        node.signal("TERM");
    }
    for node in &mut cluster.nodes {
        let end = node.ends_within(STOP_TIMEOUT);
        if end != Some(End::Code(0)) || node.lines_said() != 1 {
            let what = format!(
                "node {}: {end:?}, {} lines on stdout: {}",
                node.id(),
                node.lines_said(),
                node.last_words()
            );
            return Err(Violation { rule: "SIGTERM ends a node in order", what });
        }
    }
    Ok(())
}

/// Retries until `is_true` succeeds; its error describes the obstacle.
fn wait(
    rule: &'static str,
    patience: Duration,
    mut is_true: impl FnMut() -> Result<(), String>,
) -> Result<(), Violation> {
    let give_up_at = Instant::now() + patience;
    loop {
        match is_true() {
            Ok(()) => return Ok(()),
            Err(what) if Instant::now() > give_up_at => return Err(Violation { rule, what }),
            Err(_) => thread::sleep(Duration::from_millis(20)),
        }
    }
}
