//! Recovery: rebuilds a node's state from its files at a start, or says why that is impossible.
//!
//! A torn write is repaired and damage is refused (see [`scan`](crate::scan) for the difference).
//! Recovery never guesses: a node that lost a vote or an acknowledged entry must not take part
//! under its old identity. The repairs are file operations that have to be carried out before the
//! state is used. They may be interrupted anywhere: recovering again gives the same state.
//!
//! Every start does two repairs. After a failed sync the page cache may show data that is not on
//! disk, and a later sync then reports success without writing it. So the end of the log, as much
//! as can have waited for one sync, is overwritten in place and synced, and the metadata is
//! replaced. A snapshot needs no such repair: it was synced before it got its name, or does not
//! have the name.
//!
//! Snapshot and log may be from different moments; `recover/snapshot` says from which combinations
//! a start can go on. Temporary files are ignored: only files with their final name count.
//!
//! Not here: reading the files, and checks across the nodes of one folder
//! ([`survey()`](crate::survey())).

use std::fmt;

use coracle_core::mutant::{self, Mutant};
use coracle_core::raft::{
    Configuration, Entries, LogIndex, LogPoint, NodeId, Restored, RestoredSnapshot, Term, Voters,
};

use crate::content::ContentError;
use crate::files::{FileKind, FileName, FileOp, NodeFiles, SyncPolicy, replace_log, replace_meta};
use crate::header::LogHeader;
use crate::identity::Identity;
use crate::meta::Meta;
use crate::plan::{GROUP_BYTES_MAX, Planner};
use crate::scan::{LogScan, TornTail, Verdict};
use crate::snapshot::{SnapshotError, SnapshotPlanner};

mod error;
mod share;
mod snapshot;

pub use error::RecoverError;
use share::share;

/// How many bytes at the end of a log are written again at a start, rounded up to a whole line. A
/// planner lets [`GROUP_BYTES_MAX`] bytes wait for one sync, or a single longer entry. A whole line
/// is enough for both.
pub const REWRITE_BYTES: usize = GROUP_BYTES_MAX;

/// The recovered state of a node, and the planners of its further writes.
#[derive(Debug)]
pub struct Recovery {
    /// The identity stated in the files.
    pub identity: Identity,
    /// Term, vote, snapshot and log.
    pub restored: Restored,
    /// The operations to carry out, in order, before the state is used.
    pub repairs: Vec<FileOp>,
    /// The messages for the operator.
    pub notices: Vec<Notice>,
    /// Plans the writes to the log and the metadata from here on.
    pub planner: Planner,
    /// Plans the writes of snapshots from here on.
    pub snapshots: SnapshotPlanner,
}

/// A repair that a start has made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// The end of a log was torn, and is cut off.
    TornTail {
        /// The log.
        log: FileName,
        /// The file that keeps the bytes that were cut off.
        kept_in: FileName,
        /// The torn tail.
        tail: TornTail,
    },
    /// The log did not contain the end of the snapshot and was not rewritten behind it yet; it is
    /// now.
    LogMadeAnew {
        /// The log.
        log: FileName,
        /// The snapshot.
        snapshot: FileName,
        /// The last entry that the snapshot covers; the log now starts after it, empty.
        after: LogIndex,
    },
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TornTail { log, kept_in, tail: TornTail { line, bytes, .. } } => write!(
                f,
                "{log}: the last write was torn at line {line}, as by a power cut; the {bytes} bytes from \
                 there on were cut off, and kept in {kept_in} if the disk had room for them"
            ),
            Self::LogMadeAnew { log, snapshot, after } => write!(
                f,
                "{log} does not contain entry {after}, the end of {snapshot}: the server was stopped before \
                 it rewrote the log behind the snapshot; the log is rewritten now"
            ),
        }
    }
}

/// Recovers `node` from its files. `sync` is the sync policy from here on.
///
/// # Errors
///
/// [`RecoverError`] with the affected file: it is missing, belongs to another owner, is damaged, or
/// contradicts another file.
pub fn recover(node: NodeId, files: &NodeFiles, sync: SyncPolicy) -> Result<Recovery, RecoverError> {
    recover_as(node, files, sync, &[], false)
}

/// Recovers a node of a cluster in one process, whose members are its founders. `log_beside` is the
/// log of another node in memory: entries that both have are stored only once.
pub(crate) fn recover_beside(
    node: NodeId,
    files: &NodeFiles,
    sync: SyncPolicy,
    log_beside: &[Entries],
) -> Result<Recovery, RecoverError> {
    recover_as(node, files, sync, log_beside, true)
}

fn recover_as(
    node: NodeId,
    files: &NodeFiles,
    sync: SyncPolicy,
    log_beside: &[Entries],
    members_are_fixed: bool,
) -> Result<Recovery, RecoverError> {
    let log_file = FileName::new(node, FileKind::Log);
    let log_bytes = files.log.as_deref().ok_or(RecoverError::Missing { file: log_file })?;
    let meta = read_meta(node, files)?;
    let mut scan = LogScan::new(log_bytes).map_err(|fault| RecoverError::Header { file: log_file, fault })?;
    let LogHeader { identity, after } = scan.header().clone();
    check_owners(node, &identity, &meta)?;
    let found = snapshot::read(&identity, after, files)?;
    if members_are_fixed {
        scan = scan.with_fixed_members();
        check_fixed_members(&identity, found.as_ref(), &meta)?;
    }
    let log: Vec<_> = scan.by_ref().flat_map(|run| share(run, log_beside)).collect();
    let torn = match scan.verdict() {
        Some(Verdict::Damaged(damage)) => return Err(RecoverError::Damaged { file: log_file, damage }),
        Some(Verdict::TornTail(tail)) => Some(tail),
        Some(Verdict::Clean) | None => None,
    };
    check_against_meta(node, after, &log, &meta)?;
    check_term(node, found.as_ref(), log.last().map_or(after, Entries::last), &meta)?;

    let mut repairs = found.as_ref().map_or_else(Vec::new, |_| wait_for_snapshot(node));
    repairs.extend(cut_off(node, files, log_bytes, torn));
    let mut notices: Vec<_> = torn.map(|tail| torn_notice(node, tail)).into_iter().collect();
    let made_anew = match &found {
        Some(found) if snapshot::supersedes_log(node, found, after, &log, &meta)? => Some(found.meta.last),
        _ => None,
    };
    let mut restored = Restored { hard_state: meta.hard_state, snapshot: None, log_start: after, log };
    let mut header_len = scan.header_len();
    if let Some(after) = made_anew {
        let header = LogHeader { identity: identity.clone(), after }.encode();
        header_len = header.len();
        (restored.log_start, restored.log) = (after, Vec::new());
        repairs.extend(replace_log(node, header));
        notices.push(anew_notice(node, after));
    } else if sync == SyncPolicy::Always {
        repairs.extend(write_end_again(log_file, log_bytes, torn));
    }
    if sync == SyncPolicy::Always {
        repairs.extend(replace_meta(node, meta.encode()));
    }
    restored.snapshot = found;

    let published = restored.snapshot.as_ref().map_or(LogIndex::ORIGIN, |snapshot| snapshot.meta.last.index);
    let mut planner =
        Planner::new(identity.clone(), meta.hard_state, restored.log_start, header_len as u64, sync);
    restored.log.iter().cloned().for_each(|entries| planner.resume_with(entries));
    planner.resume_at(meta.floor);
    let waits = unsynced_by_mutant().unwrap_or(sync);
    Ok(Recovery {
        repairs: waits.apply(repairs),
        snapshots: SnapshotPlanner::new(identity.clone(), published, sync),
        restored,
        notices,
        identity,
        planner,
    })
}

fn read_meta(node: NodeId, files: &NodeFiles) -> Result<Meta, RecoverError> {
    let file = FileName::new(node, FileKind::Meta);
    let bytes = files.meta.as_deref().ok_or(RecoverError::Missing { file })?;
    Meta::decode(bytes).map_err(|fault| RecoverError::Meta { file, fault })
}

fn check_owners(node: NodeId, identity: &Identity, meta: &Meta) -> Result<(), RecoverError> {
    let (log_file, meta_file) = (FileName::new(node, FileKind::Log), FileName::new(node, FileKind::Meta));
    for (file, owner) in [(log_file, identity.node), (meta_file, meta.node)] {
        if owner != node {
            return Err(RecoverError::OfAnotherNode { file, owner });
        }
    }
    if (identity.cluster, identity.incarnation) != (meta.cluster, meta.incarnation) {
        return Err(RecoverError::DifferentOwners { one: log_file, other: meta_file });
    }
    Ok(())
}

/// Checks that the log has the entries that the metadata says it has, and none of a term later than
/// the metadata's.
fn check_against_meta(
    node: NodeId,
    after: LogPoint,
    log: &[Entries],
    meta: &Meta,
) -> Result<(), RecoverError> {
    let (log_file, meta_file) = (FileName::new(node, FileKind::Log), FileName::new(node, FileKind::Meta));
    let last = log.last().map_or(after, Entries::last);
    let floor = meta.floor.index;
    if last.index < floor {
        return Err(RecoverError::LostEntries { log: log_file, meta: meta_file, last: last.index, floor });
    }
    // A floor before the log's start is covered by the snapshot, as far as these files can show.
    let is_another = if floor >= after.index {
        point_at(floor, after, log) != Some(meta.floor)
    } else {
        meta.floor.term > after.term
    };
    if is_another {
        return Err(RecoverError::OtherEntries { log: log_file, meta: meta_file, floor });
    }
    let current = meta.hard_state.current_term;
    if last.term > current {
        return Err(RecoverError::OldMeta { file: log_file, meta: meta_file, found: last.term, current });
    }
    Ok(())
}

/// Checks that elections can have led from the term of the last entry to the node's term. Nodes
/// reject a greater jump from one another, so a node that is further ahead could neither follow nor
/// lead.
fn check_term(
    node: NodeId,
    snapshot: Option<&RestoredSnapshot>,
    last: LogPoint,
    meta: &Meta,
) -> Result<(), RecoverError> {
    let covered = snapshot.map_or(Term::INITIAL, |snapshot| snapshot.meta.last.term);
    let (last, current) = (last.term.max(covered), meta.hard_state.current_term);
    if current.0.saturating_sub(last.0) > Term::JUMP_MAX {
        return Err(RecoverError::TermTooFar { meta: FileName::new(node, FileKind::Meta), current, last });
    }
    Ok(())
}

/// Checks that exactly the nodes of this process are members, and that the vote is for one of them.
fn check_fixed_members(
    identity: &Identity,
    snapshot: Option<&RestoredSnapshot>,
    meta: &Meta,
) -> Result<(), RecoverError> {
    let name = |kind| FileName::new(identity.node, kind);
    if meta.hard_state.voted_for.is_some_and(|voted_for| !identity.voters.contains(&voted_for)) {
        return Err(RecoverError::Meta { file: name(FileKind::Meta), fault: ContentError::Vote.into() });
    }
    let founders = Voters::new(identity.voters.iter().copied()).map(Configuration::of_voters);
    if snapshot.is_some_and(|snapshot| Some(&snapshot.meta.configuration) != founders.as_ref()) {
        let fault = SnapshotError::Header(ContentError::FixedMembers.into());
        return Err(RecoverError::Snapshot { file: name(FileKind::Snapshot), fault });
    }
    Ok(())
}

/// Returns the point at `index` in a log that starts after `after` and holds `log`. The point that
/// the log starts after counts as part of it.
pub(crate) fn point_at(index: LogIndex, after: LogPoint, log: &[Entries]) -> Option<LogPoint> {
    if index == after.index {
        return Some(after);
    }
    log.get(log.partition_point(|run| run.last().index < index)).and_then(|run| run.point_at(index))
}

/// Syncs the snapshot. The bytes that were read may be in memory only, if the program was killed or
/// does not sync, and nothing that depends on the snapshot may be on disk before it.
fn wait_for_snapshot(node: NodeId) -> Vec<FileOp> {
    vec![FileOp::Sync { file: FileName::new(node, FileKind::Snapshot) }, FileOp::SyncFolder]
}

/// Moves a torn tail to a file beside the log; if there is none, removes an earlier such file.
fn cut_off(node: NodeId, files: &NodeFiles, log_bytes: &[u8], torn: Option<TornTail>) -> Vec<FileOp> {
    let (log_file, cut_file) = (FileName::new(node, FileKind::Log), FileName::new(node, FileKind::LogCut));
    match torn.filter(is_cut_off_unless_mutant) {
        // The bytes are durable beside the log before the log loses them.
        Some(tail) => vec![
            FileOp::Create { file: cut_file, bytes: log_bytes[whole_len(log_bytes, Some(tail))..].to_vec() },
            FileOp::Sync { file: cut_file },
            FileOp::SyncFolder,
            FileOp::Truncate { file: log_file, len: tail.offset },
            FileOp::Sync { file: log_file },
        ],
        None if files.has_cut_bytes => vec![FileOp::Remove { file: cut_file }],
        None => Vec::new(),
    }
}

/// Overwrites the end of the log, without a torn tail, with itself.
fn write_end_again(log_file: FileName, log_bytes: &[u8], torn: Option<TornTail>) -> [FileOp; 2] {
    let torn = torn.filter(is_cut_off_unless_mutant);
    let whole = &log_bytes[..whole_len(log_bytes, torn)];
    let at = rewrite_start(whole);
    [
        FileOp::Overwrite { file: log_file, at: at as u64, bytes: whole[at..].to_vec() },
        FileOp::Sync { file: log_file },
    ]
}

/// Returns the length of the log without the torn tail.
fn whole_len(log_bytes: &[u8], torn: Option<TornTail>) -> usize {
    let torn_len = torn.map_or(0, |tail| usize::try_from(tail.bytes).expect("counted in memory"));
    log_bytes.len() - torn_len
}

/// Returns the offset of the line that holds the first of the last [`REWRITE_BYTES`] bytes.
fn rewrite_start(log: &[u8]) -> usize {
    let within = log.len().saturating_sub(REWRITE_BYTES);
    log[..within].iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1)
}

fn torn_notice(node: NodeId, tail: TornTail) -> Notice {
    let (log, kept_in) = (FileName::new(node, FileKind::Log), FileName::new(node, FileKind::LogCut));
    Notice::TornTail { log, kept_in, tail }
}

fn anew_notice(node: NodeId, after: LogPoint) -> Notice {
    let (log, snapshot) = (FileName::new(node, FileKind::Log), FileName::new(node, FileKind::Snapshot));
    Notice::LogMadeAnew { log, snapshot, after: after.index }
}

/// Deliberate bug: the repairs are not synced.
fn unsynced_by_mutant() -> Option<SyncPolicy> {
    mutant::is_active(Mutant::RepairsNotSynced).then_some(SyncPolicy::Never)
}

/// Returns whether a torn tail is cut off; deliberate bug: it stays.
fn is_cut_off_unless_mutant(_tail: &TornTail) -> bool {
    !mutant::is_active(Mutant::TornTailKept)
}

#[cfg(test)]
mod tests;
