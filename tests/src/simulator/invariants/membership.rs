//! Membership changes: members change one step at a time, and the majorities of two successive
//! configurations overlap (§6; S14). Between two sets of voters there is a joint configuration that
//! needs majorities of both. A leader proposes no change before it has committed an entry of its
//! current term (Ongaro, raft-dev, 2015), and no second change before the first is committed. On
//! each node the last configuration of its log is in force, committed or not, and the one before it
//! again when that is cut.

use coracle_core::raft::{Configuration, Entries, EntryKind, LogIndex, Node, Role, Term};
use coracle_core::{Output, Replica};

use super::{ByNode, Verdict, require};

/// After this number of turns of leaders, the tracked changes are compared with the whole tail of a
/// log. The value is arbitrary.
const ALL_EVERY: u64 = 64;

/// The last committed configuration, and the uncommitted changes of each leader.
#[derive(Debug, Default)]
pub(super) struct Membership {
    committed: Option<Configuration>,
    proposed: ByNode<Proposed>,
    leader_turns: u64,
}

/// The changes of a leader's current term that it has not committed.
#[derive(Debug, Default)]
struct Proposed {
    term: Term,
    open: Vec<LogIndex>,
    /// The end of its log at the last check.
    seen: LogIndex,
}

impl Proposed {
    /// Collects the changes in these entries beyond the end that was seen. Returns whether there
    /// are any.
    fn take(&mut self, runs: &[Entries]) -> bool {
        let before = self.open.len();
        // A rewritten log begins with entries that were seen long ago.
        let first_new = runs.iter().rposition(|run| run.last().index <= self.seen).map_or(0, |last| last + 1);
        for run in &runs[first_new..] {
            self.open.extend(changes(run, self.term).filter(|index| *index > self.seen));
            self.seen = self.seen.max(run.last().index);
        }
        self.open.len() > before
    }
}

/// §6: "a server always uses the latest configuration in its log, regardless of whether the entry
/// is committed".
fn check_in_force(node: &Node, outputs: &[Output]) -> Verdict {
    let (log, index) = (node.log(), node.configuration_index());
    let is_configuration = |index| log.between(index, index).all(|entry| entry.kind() == EntryKind::Config);
    // After a start, the members of a snapshot count as those of its last entry, even where the log
    // still begins before it.
    let snapshot = node.snapshot().map_or(LogIndex::ORIGIN, |meta| meta.last.index);
    let is_there =
        index <= log.start().index.max(snapshot) || (index <= log.last().index && is_configuration(index));
    require(is_there, "membership", || {
        format!("node {} has the members of entry {index} in force, which its log does not hold", node.id())
    })?;
    // If nothing is cut, appended entries are checked when they are proposed or committed.
    let cuts = |output: &Output| matches!(output, Output::Persist(persist) if persist.cut_from().is_some());
    let later = index.max(log.start().index).next();
    let is_latest = !outputs.iter().any(cuts)
        || log.between(later, log.last().index).all(|entry| entry.kind() != EntryKind::Config);
    require(is_latest, "membership", || {
        format!("node {} has the members of entry {index} in force, and its log holds later ones", node.id())
    })
}

/// The indexes at which these entries change members, in one term.
fn changes(run: &Entries, term: Term) -> impl Iterator<Item = LogIndex> + '_ {
    let of_term = run.iter().filter(move |entry| entry.point.term == term);
    of_term.filter(|entry| entry.kind() == EntryKind::Config).map(|entry| entry.point.index)
}

impl Membership {
    pub(super) fn check(&mut self, replica: &Replica, outputs: &[Output]) -> Verdict {
        let node = replica.node();
        check_in_force(node, outputs)?;
        let (id, term) = (node.id(), node.current_term());
        if node.role() != Role::Leader {
            self.proposed.remove(&id);
            return Ok(());
        }
        let proposed = self.proposed.entry(id).or_default();
        if proposed.term != term {
            // Changes that it has from earlier leaders may be committed without its knowledge.
            *proposed = Proposed { term, ..Proposed::default() };
        }
        let mut proposes = false;
        for output in outputs {
            let Output::Persist(persist) = output else { continue };
            let anew = persist.compaction().map(|compaction| compaction.entries.as_slice());
            proposes |= proposed.take(anew.unwrap_or_default());
            proposes |= proposed.take(persist.entries());
        }
        if proposes {
            let commit_term = node.log().term_at(node.commit_index());
            require(commit_term == Some(term), "membership", || {
                format!("leader {id} changes members before it has committed anything itself")
            })?;
        }
        proposed.open.retain(|index| *index > node.commit_index());
        self.leader_turns += 1;
        if self.leader_turns.is_multiple_of(ALL_EVERY) {
            let tail = node.log().entries_from(node.commit_index().next(), usize::MAX);
            let held: Vec<_> = tail.iter().flat_map(|run| changes(run, term)).collect();
            require(held == proposed.open, "membership", || {
                format!("leader {id} has handed out changes at {:?} and has {held:?}", proposed.open)
            })?;
        }
        let open = proposed.open.len();
        require(open <= 1, "membership", || format!("leader {id} has {open} changes under way"))
    }

    pub(super) fn committed(&mut self, index: LogIndex, payload: &str) -> Verdict {
        let Some(next) = Configuration::read(payload) else { return Ok(()) };
        if let Some(before) = self.committed.replace(next.clone()) {
            let is_step = match (before.outgoing(), next.outgoing()) {
                (_, None) => before.voters() == next.voters(),
                (None, Some(outgoing)) => before.voters() == outgoing,
                (Some(_), Some(_)) => false,
            };
            require(is_step, "membership", || {
                format!("at {index} the {before} became the {next} in one step")
            })?;
        }
        Ok(())
    }
}
