//! Processes with little memory, in some seeds: the bytes that they hold for one another are
//! limited and counted.
//!
//! The number of the seed decides whether it is such a run, not a random draw. So the runs of all
//! other seeds are unaffected.

use coracle_core::host::Inbound;
use coracle_core::kv::{Key, Query};
use coracle_core::memory::MemoryShares;
use coracle_core::raft::{Config, LogIndex};
use coracle_core::{Input, Request};

use super::checks::violation;
use super::world::{MACHINES, SimEvent, World};
use crate::simulator::invariants::Verdict;

/// One seed of this many is such a run.
const SEEDS: u64 = 5;
/// The remainder of the seeds that are.
const SMALL_SEED: u64 = 3;
/// The outbox limit of such a run: a few messages.
const OUTBOX_BYTES: usize = 2000;
/// An upper bound of the length of simulated frames. Two frames may exceed the limit of an outbox:
/// the last request that found room, and the newest message.
const LONGEST_FRAME: usize = 4096;
/// The number of requests that a process forwards at once.
const BURST: usize = 24;

/// The memory shares of the processes of this seed.
pub(super) fn shares_of(seed: u64) -> MemoryShares {
    let unlimited = MemoryShares::of_member(usize::MAX);
    if seed % SEEDS != SMALL_SEED {
        return unlimited;
    }
    MemoryShares {
        outbox_bytes: OUTBOX_BYTES,
        append_bytes: OUTBOX_BYTES / 4,
        in_flight_bytes: OUTBOX_BYTES / 2,
        retained_bytes: 300,
        held_bytes: 2000,
        snapshot_log_bytes: 3000,
        held_back_bytes: 3000,
        parsed_bytes: 1000,
        window_bytes: unlimited.window_bytes.min(32 << 10),
        noted_bytes: 1,
        ..unlimited
    }
}

impl World {
    fn has_little_memory(&self) -> bool {
        self.shares.noted_bytes == 1
    }

    /// Limits the settings of a node to its shares.
    pub(super) fn limited(&self, config: Config) -> Config {
        self.shares.limit_config(config)
    }

    /// Schedules the arrival of bytes. With little memory, they arrive in two pieces, so that
    /// frames are incomplete for a moment.
    pub(super) fn deliver(&mut self, number: u64, at: u64, mut bytes: Vec<u8>) {
        let rest = if self.has_little_memory() { bytes.split_off(bytes.len() / 2) } else { Vec::new() };
        self.schedule(at - self.now, SimEvent::Arrive { number, bytes });
        if !rest.is_empty() {
            self.schedule(at + 1 - self.now, SimEvent::Arrive { number, bytes: rest });
        }
    }

    /// Forwards more requests at once than an outbox holds, if memory is little. Requests that find
    /// no room are rejected.
    pub(super) fn burst(&mut self) -> Verdict {
        if !self.has_little_memory() {
            return Ok(());
        }
        let Some((machine, leader)) =
            (0..MACHINES).find_map(|machine| Some((machine, self.leader_known_at(machine)?)))
        else {
            return Ok(());
        };
        let query = Query::Value(Key::new(&"k".repeat(1000)).expect("it is a key"));
        let read = Request::Read { query, at_least: LogIndex::ORIGIN };
        let ids: Vec<_> = (0..BURST).map(|_| self.clients.next_id()).collect();
        let requests: Vec<_> = ids.into_iter().map(|id| Input::Request(id, read.clone())).collect();
        let Some(process) = self.machines[machine].process.as_mut() else { return Ok(()) };
        let link = process.links.get_mut(&leader).map(|seat| &mut seat.link);
        if link.as_ref().is_some_and(|link| link.is_up()) {
            let refused = process.forwarder.forward_all(leader, &requests, link);
            if !refused.is_empty() {
                self.sight("an outbox had no room");
            }
        }
        self.memory_is_counted(machine)?;
        self.flush(machine);
        Ok(())
    }

    /// Checks that the bytes which a process holds for other nodes equal the count in its budget,
    /// and that no outbox exceeds its share.
    pub(super) fn memory_is_counted(&self, machine: usize) -> Verdict {
        let Some(process) = self.machines[machine].process.as_ref().filter(|_| self.has_little_memory())
        else {
            return Ok(());
        };
        for (node, seat) in &process.links {
            let bytes = seat.link.waiting_bulk();
            if bytes > self.shares.outbox_bytes + 2 * LONGEST_FRAME {
                let what = format!("machine {machine}: {bytes} bytes wait for node {node}");
                return violation("memory_has_limits", what);
            }
        }
        let waiting: usize = process.links.values().map(|seat| seat.link.waiting_bytes()).sum();
        let unfinished: usize = process.inbound.values().map(Inbound::unfinished_bytes).sum();
        let noted = process.memory.in_use().peers;
        if noted != waiting + unfinished {
            let what =
                format!("machine {machine}: {waiting} bytes wait, {unfinished} have no end, {noted} count");
            return violation("memory_is_counted", what);
        }
        Ok(())
    }
}
