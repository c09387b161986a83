//! Raft: one [`Node`] of a cluster that agrees on a log, as a function of what it is handed.
//!
//! This module is all that someone with another state machine needs. It knows nothing of keys and
//! values: a payload is text, the members of a JSON object (the file `entry` says why), and is
//! handed back once it is committed. [`Replica`](crate::Replica) puts the key-value store on top.
//!
//! The paper's rules stand above the lines that obey them: search for `Fig. 2`.
//!
//! The files stand in four layers. A file imports from its own layer and from those below, and a
//! handler calls only handlers that stand below it. So the tables are also an order of reading,
//! from either end.
//!
//! | file | entry |
//! | --- | --- |
//! | `node` | what a node is handed, and which handler a message goes to |
//! | `turn` | what is done and handed out when a turn ends, and what falls due as time passes |
//!
//! | file | handlers |
//! | --- | --- |
//! | `transfer` | handing leadership over (thesis §3.10) |
//! | `election` | pre-vote, vote, winning and giving up (§5.2, §5.4.1; thesis §4.2.3, §9.6) |
//! | `replication` | the leader: sending entries, counting acknowledgements, committing (§5.3, §5.4.2) |
//! | `install_snapshot` | bringing a follower up to date with a snapshot (§7) |
//! | `append_entries` | the follower: accepting entries and heartbeats (§5.3) |
//! | `membership` | changing who takes part (§6) |
//! | `step_down` | becoming a follower (§5.1) |
//! | `reads` | linearizable reads without a log entry (thesis §6.4) |
//! | `heartbeat` | the heartbeat that a leader sends (§5.2) |
//! | `log_changes` | appending and cutting, with all that depends on the log |
//! | `compaction` | dropping the log that a snapshot covers (§7) |
//! | `own_membership` | whether this node takes part: by id and incarnation |
//! | `gateway` | which messages are believed |
//!
//! | file | state |
//! | --- | --- |
//! | `state` | what a node, a candidate and a leader keep (Fig. 2, state); no file there names a handler |
//! | `durability`, `log` | what must be on disk before what may be said; the log in memory |
//! | `output` | what a node asks of its runtime |
//!
//! | file | words |
//! | --- | --- |
//! | `message`, `event` | what nodes say to one another; what a node tells of itself |
//! | `snapshot` | the state in place of the log that led to it (§7) |
//! | `batch`, `runs` | the entries that log, messages and disk share, and some of them on their way |
//! | `batch_builder` | the one gateway to the log: seals proposals, checks lines from outside |
//! | `entry`, `line` | an entry as the line that it is everywhere; reading one |
//! | `configuration`, `quorum`, `roster` | who votes; what a majority is; where members are found, for the transport |
//! | `settings`, `types` | a node's settings; terms, indexes and ids |

mod append_entries;
mod batch;
mod batch_builder;
mod compaction;
mod configuration;
mod durability;
mod election;
mod entry;
mod event;
mod gateway;
mod heartbeat;
mod install_snapshot;
mod line;
mod log;
mod log_changes;
mod membership;
mod message;
mod node;
mod output;
mod own_membership;
mod quorum;
mod reads;
mod replication;
mod roster;
mod runs;
mod settings;
mod snapshot;
mod state;
mod step_down;
mod transfer;
mod turn;
mod types;

pub use batch::{BATCH_BYTES_MAX, Entries};
pub use batch_builder::BatchBuilder;
pub use configuration::{Configuration, LEARNERS_MAX};
pub use durability::{DISK_PATIENCE, FLOOR_NOTED_EVERY, HardState, Persist, PersistId, Restored};
pub use entry::{Entry, EntryKind};
pub use event::{Event, Refusal, StepDown};
pub use line::{Line, LineFault};
pub use log::Log;
pub use membership::{ChangeError, PROMOTION_LAG_MAX};
pub use message::{
    AppendEntries, AppendEntriesResponse, AppendOutcome, Body, Heartbeat, HeartbeatResponse, InstallOutcome,
    InstallSnapshotResponse, Message, ReadBatch, ReadIndex, ReadIndexResponse, ReadRound, RequestVote,
    RequestVoteResponse,
};
pub use node::ProposeError;
pub use output::Output;
pub use quorum::{VOTERS_MAX, VoteResult, Voters, committed_index};
pub use roster::{ADDRESS_BYTES_MAX, Addition, Member, MemberText, Roster, is_address};
pub use runs::Runs;
pub use settings::{ClockDrift, Config, ConfigError};
pub use snapshot::{Compaction, RestoredSnapshot, SnapshotEnd, SnapshotMeta, SnapshotPart};
pub use state::{Node, READ_BATCHES_MAX, Role};
pub use transfer::TransferError;
pub use types::{Checksum, LogIndex, LogPoint, NodeId, Term};
