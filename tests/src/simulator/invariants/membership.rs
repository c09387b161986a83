//! Members change one step at a time, and any two neighbours' majorities overlap (§6; S14): from one set of voters to the next
//! leads a configuration that asks both. A leader proposes none before it has committed something itself (Ongaro, raft-dev,
//! 2015), and no second one before the first is committed.

use coracle_core::raft::{Configuration, Entries, EntryKind, LogIndex, Role};
use coracle_core::{Output, Replica};

use super::{Verdict, require};

/// The latest committed configuration.
#[derive(Debug, Default)]
pub(super) struct Membership {
    committed: Option<Configuration>,
}

/// The configurations among these entries, by their terms.
fn configurations(run: &Entries) -> impl Iterator<Item = coracle_core::raft::Term> + '_ {
    run.iter().filter(|entry| entry.kind() == EntryKind::Config).map(|entry| entry.point.term)
}

pub(super) fn check(replica: &Replica, outputs: &[Output]) -> Verdict {
    let node = replica.node();
    if node.role() != Role::Leader {
        return Ok(());
    }
    let runs = outputs.iter().filter_map(|output| match output {
        Output::Persist(persist) => Some(&persist.entries),
        _ => None,
    });
    let proposes = runs.flatten().flat_map(configurations).any(|term| term == node.current_term());
    if proposes {
        let commit_term = node.log().term_at(node.commit_index());
        require(commit_term == Some(node.current_term()), "membership", || {
            format!("leader {} changes members before it has committed anything itself", node.id())
        })?;
    }
    let open = node.log().entries_from(node.commit_index().next(), usize::MAX);
    // What it has from earlier leaders may be committed without its knowing.
    let open = open.iter().flat_map(configurations).filter(|term| *term == node.current_term()).count();
    require(open <= 1, "membership", || format!("leader {} has {open} changes under way", node.id()))
}

impl Membership {
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
