//! A node's snapshots: where they are written, and read again for followers that need them.
//!
//! Beside the node's disk and not through it, in a task of its own: a snapshot is large and nobody waits for it, while every
//! put waits for the log's next sync. There are never many orders here: the replica asks for the next part of a snapshot
//! when the one before is written, and for one part at a time per follower. After each part that was written it rests a
//! while, so that the log has most of a disk that they share.
//!
//! In memory there is nothing to wait for, so orders are answered at once, for the node's next step.
//!
//! Deliberately not here: when a snapshot is due, and what one that arrived is worth. That is the replica's business; and what
//! is checked before one counts, the planner's.

use std::sync::Arc;

use coracle_core::raft::{LogPoint, SnapshotPart};
use coracle_core::{Input, SNAPSHOT_PART_BYTES};
use coracle_storage::asynchronous::Folder;
use coracle_storage::{DiskError, PartWanted, SnapshotPlanner, rest_after};
use smol::Timer;

use crate::clock::Clock;
use crate::mailbox::{Receiver, Sender};
use crate::node::NodeInput;

/// What a node wants done with its snapshots.
#[derive(Debug)]
pub(crate) enum Order {
    /// Write this part; with its end, make the snapshot the latest.
    Write(SnapshotPart),
    /// Read the part of the snapshot up to `last` that begins at byte `offset` of its content.
    Read { last: LogPoint, offset: u64 },
}

/// Where a node's snapshots are.
#[derive(Debug)]
pub(crate) enum Snapshots {
    /// In memory.
    Memory(Kept),
    /// In files, at the other end of this channel.
    Files(Sender<Order>),
}

/// Snapshots in memory: the latest, and the one that is on its way.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    latest: Vec<SnapshotPart>,
    begun: Vec<SnapshotPart>,
}

impl Snapshots {
    /// In memory, and none there yet.
    pub(crate) fn in_memory() -> Self {
        Self::Memory(Kept::default())
    }

    /// Has `order` carried out. What is not answered here will be in the node's inbox.
    pub(crate) fn order(&mut self, order: Order) -> Option<Input> {
        match self {
            Self::Memory(kept) => Some(kept.carry_out(order)),
            Self::Files(orders) => {
                // A disk that is gone has reported its failure, which is the next thing in the inbox.
                let _ = orders.send(order);
                None
            }
        }
    }
}

impl Kept {
    fn carry_out(&mut self, order: Order) -> Input {
        match order {
            Order::Write(part) => {
                let (is_first, is_last, written) = (part.offset == 0, part.end.is_some(), written(&part));
                if is_first {
                    self.begun.clear();
                }
                self.begun.push(part);
                if is_last {
                    self.latest = std::mem::take(&mut self.begun);
                }
                written
            }
            Order::Read { last, offset } => {
                // Every node of this process cuts a snapshot at the same places, so a part that is asked for is a part.
                let is_it = |part: &&SnapshotPart| (part.meta.last, part.offset) == (last, offset);
                Input::SnapshotRead { last, offset, part: self.latest.iter().find(is_it).cloned() }
            }
        }
    }
}

/// Works until the orders end, or an operation fails, and reports that. A snapshot that is half written by then stays
/// so: nobody uses it, and the next one takes its place.
pub(crate) async fn run(
    mut folder: Folder,
    mut planner: SnapshotPlanner,
    orders: Receiver<Order>,
    node: Sender<NodeInput>,
    clock: Clock,
) {
    while let Ok(order) = orders.recv().await {
        // Nobody listens when the node has stopped before its snapshots did.
        let _ = match carry_out(&mut folder, &mut planner, order, clock).await {
            Ok(done) => node.send(NodeInput::Core(done)),
            Err(error) => {
                let _ = node.send(NodeInput::DiskFailed(Arc::new(error)));
                return;
            }
        };
    }
}

async fn carry_out(
    folder: &mut Folder,
    planner: &mut SnapshotPlanner,
    order: Order,
    clock: Clock,
) -> Result<Input, DiskError> {
    match order {
        Order::Write(part) => {
            let begun = clock.now();
            folder.run(planner.plan_part(&part)).await?;
            Timer::after(rest_after(clock.now().since(begun))).await;
            if part.end.is_some() {
                publish(folder, planner).await?;
            }
            Ok(written(&part))
        }
        Order::Read { last, offset } => {
            let wanted = PartWanted { last, offset, bytes_max: SNAPSHOT_PART_BYTES };
            let part = folder.read_part(planner.temporary().node, wanted).await?;
            Ok(Input::SnapshotRead { last, offset, part })
        }
    }
}

/// Makes what was written the node's latest snapshot, if it is what is read back.
async fn publish(folder: &mut Folder, planner: &mut SnapshotPlanner) -> Result<(), DiskError> {
    let file = planner.temporary();
    let read_back = folder.read_back(file).await?;
    // The larger the snapshot, the longer this takes; the executor has nodes to drive meanwhile.
    let mut checking = planner.clone();
    let (checked, ops) = smol::unblock(move || {
        let ops = checking.publish(&read_back);
        (checking, ops)
    })
    .await;
    *planner = checked;
    let ops = ops.map_err(|cause| DiskError::Snapshot { file, cause })?;
    Ok(folder.run(ops).await?)
}

fn written(part: &SnapshotPart) -> Input {
    Input::SnapshotWritten { last: part.meta.last, bytes: part.offset + part.text.len() as u64 }
}
