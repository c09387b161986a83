//! Raft consensus: one [`Node`] of a cluster that replicates a log, as a function of its inputs.
//!
//! This module is usable alone, with another state machine. It knows nothing of keys and values: a
//! payload is text, the members of a JSON object (the file `entry` says why), which Raft returns
//! unchanged once it is committed. [`Replica`](crate::Replica) adds the key-value store.
//!
//! Each rule of the paper's Figure 2 is a comment above the line that implements it: search for
//! `Fig. 2`.
//!
//! The files form four layers. A file imports from its own layer and from the layers below, and a
//! handler calls only handlers further down in the table. So the tables are also an order of
//! reading, from either end.
//!
//! | file | entry points |
//! | --- | --- |
//! | `node` | the inputs of a node, and the dispatch of messages to handlers |
//! | `turn` | the end of a turn: timers that are due, and the outputs |
//!
//! | file | handlers |
//! | --- | --- |
//! | `transfer` | leadership transfer (thesis §3.10) |
//! | `election` | pre-vote, vote, winning and losing an election (§5.2, §5.4.1; thesis §4.2.3, §9.6) |
//! | `replication` | the leader: sending entries, counting acknowledgements, committing (§5.3, §5.4.2) |
//! | `install_snapshot` | sending a snapshot to a follower that lags, and installing one (§7) |
//! | `append_entries` | the follower: accepting entries and heartbeats (§5.3) |
//! | `membership` | membership changes (§6) |
//! | `step_down` | becoming a follower (§5.1) |
//! | `reads` | linearizable reads without a log entry (thesis §6.4) |
//! | `heartbeat` | the heartbeat that a leader sends (§5.2) |
//! | `log_changes` | appending and cutting, and updating all that depends on the log |
//! | `compaction` | dropping the part of the log that a snapshot covers (§7) |
//! | `own_membership` | whether this node is a member: by id and incarnation |
//! | `gateway` | which messages are accepted |
//!
//! | file | state |
//! | --- | --- |
//! | `state` | the state of a node, a candidate and a leader (Fig. 2, state); no file there names a handler |
//! | `durability`, `log` | which messages wait for the disk; the log in memory |
//! | `output` | the requests of a node to its runtime |
//!
//! | file | vocabulary |
//! | --- | --- |
//! | `message`, `event` | the messages between nodes; the events that a node reports |
//! | `snapshot` | the state in place of the log that led to it (§7) |
//! | `batch`, `runs` | the entries that log, messages and disk share; a sequence of such slices |
//! | `batch_builder` | the one gateway to the log: seals proposals, checks lines from outside |
//! | `entry`, `line` | an entry and its encoding as one line; parsing a line |
//! | `configuration`, `quorum`, `roster` | the members; majorities; addresses and incarnations of members, for the transport |
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
pub use durability::{DISK_TIMEOUT, FLOOR_NOTED_EVERY, HardState, LogChange, Persist, PersistId, Restored};
pub use entry::{Entry, EntryKind};
pub use event::{Event, MessageRefusal, StepDown};
pub use line::{Line, LineError};
pub use log::Log;
pub use membership::{ChangeError, PROMOTION_LAG_MAX};
pub use message::{
    AppendEntries, AppendEntriesResponse, AppendOutcome, Body, ELAPSED_MAX, Elapsed, Heartbeat,
    HeartbeatResponse, InstallOutcome, InstallSnapshotResponse, Message, ReadBatch, ReadIndex,
    ReadIndexResponse, ReadRound, RequestVote, RequestVoteResponse,
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
