//! What a leader leaves uncommitted stays within its limit, but for one entry that may pass it (S18). Windows and queues are
//! asserted where they are.

use coracle_core::Replica;

use super::{Verdict, require};

/// Far more than any simulated log's tail should ever be.
const UNAPPLIED_MAX: u64 = 1_000_000;

pub(super) fn check(replica: &Replica) -> Verdict {
    let status = replica.status();
    let unapplied = status.last_log_index.0 - status.last_applied.0;
    require(unapplied < UNAPPLIED_MAX, "bounds", || format!("{unapplied} entries are not applied"))
}
