//! Durable index: the entries that a node considers durable on its own disk are there (S8, S9). A
//! leader counts them towards a majority.

use super::{Process, Running, Verdict, require};

pub(super) fn check(process: &Process, running: &Running) -> Verdict {
    let node = running.replica.node();
    let claimed = node.durable_index();
    if claimed <= process.durable.snapshot_index() {
        return Ok(());
    }
    let held = process.durable.point_at(claimed);
    require(held.is_some() && held == node.log().point_at(claimed), "durable_index", || {
        format!("node {} takes {claimed} for durable, and its disk holds {held:?} there", process.id)
    })
}
