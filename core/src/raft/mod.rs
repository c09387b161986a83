//! Raft: one [`Node`] of a cluster that agrees on a log, as a function of what it is handed.
//!
//! This module is all that someone with another state machine needs. It knows nothing of keys and values: a
//! payload is text, the members of a JSON object (the file `entry` says why), and is handed back
//! once it is committed. [`Replica`](crate::Replica) puts the key-value store on top.
//!
//! The paper's rules stand above the lines that obey them: search for `Fig. 2`.
//!
//! | file | topic |
//! | --- | --- |
//! | `node` | the entry point: which handler a message goes to |
//! | `gateway` | which messages are believed |
//! | `turn` | what a turn gathers, and what it hands out when it ends |
//! | `election` | pre-vote, vote, winning and giving up (§5.2, §5.4.1; thesis §4.2.3, §9.6) |
//! | `replication` | the leader: sending entries, counting acknowledgements, committing (§5.3, §5.4.2) |
//! | `follower` | taking entries and heartbeats (§5.3) |
//! | `reads` | linearizable reads without a log entry (thesis §6.4) |
//! | `transfer` | handing leadership over (thesis §3.10) |
//! | `state` | what a node, a candidate and a leader keep (Fig. 2, state); no file there names a handler |
//! | `durability` | what must be on disk before what may be said |
//! | `log`, `batch` | the log in memory; the batches of entries that it shares with messages and the disk |
//! | `batch_builder` | the one gateway to the log: seals proposals, checks lines from outside |
//! | `entry`, `line` | an entry as the line that it is everywhere; reading one |
//! | `runs` | some runs of entries on their way |
//! | `snapshot`, `compaction` | the state in place of the log that led to it (§7); dropping that log |
//! | `install_snapshot` | bringing a follower up to date with a snapshot (§7) |
//! | `quorum`, `configuration` | who votes, and what a majority is, of one set of voters and of two |
//! | `membership` | changing who takes part (§6) |
//! | `own_membership` | whether this node takes part: by id and incarnation |
//! | `roster` | where members are found, for the transport |
//! | `message`, `output`, `event`, `config`, `types` | the words |

mod batch;
mod batch_builder;
mod compaction;
mod config;
mod configuration;
mod durability;
mod election;
mod entry;
mod event;
mod follower;
mod gateway;
mod install_snapshot;
mod line;
mod log;
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
mod snapshot;
mod state;
mod transfer;
mod turn;
mod types;

pub use batch::{BATCH_BYTES_MAX, Entries};
pub use batch_builder::BatchBuilder;
pub use config::{ClockDrift, Config, ConfigError};
pub use configuration::{Configuration, LEARNERS_MAX};
pub use durability::{HardState, Persist, PersistId, Restored};
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
pub use roster::{ADDRESS_BYTES_MAX, Member, MemberText, Roster, is_address};
pub use runs::Runs;
pub use snapshot::{Compaction, RestoredSnapshot, SnapshotEnd, SnapshotMeta, SnapshotPart};
pub use state::{Node, READ_BATCHES_MAX, Role};
pub use transfer::TransferError;
pub use types::{Checksum, LogIndex, LogPoint, NodeId, Term};
