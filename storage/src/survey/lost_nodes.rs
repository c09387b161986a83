//! Which nodes of a folder cannot go on, and what the others still hold.
//!
//! Why a majority of whole nodes holds everything that was acknowledged: an entry is committed once
//! a majority has it on disk, and two majorities have a node in common. So among the whole nodes at
//! least one has each committed entry; and the log that is most up to date (§5.4.1: the later last
//! term, then the greater length) has them all, by the argument by which a new leader has them
//! (§5.4.3). It may hold more: entries that were proposed and never acknowledged, which a new
//! leader might have committed as well.
//!
//! Why a node that lost its files is not filled up from the others: it may have voted in a term
//! that it does not know of any more, and acknowledged entries that count towards a majority. With
//! its vote given twice, two leaders of one term are possible. A new cluster of what the whole
//! nodes hold has no such past: nobody of it has promised anything to anybody.

use std::fmt;

use coracle_core::raft::NodeId;

use crate::recover::RecoverError;

/// Some nodes of a cluster in one process cannot go on from their files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostNodes {
    /// What is wrong with them, ascending by their ids. At least one.
    pub faults: Vec<(NodeId, RecoverError)>,
    /// The nodes whose files are whole, ascending.
    pub whole: Vec<NodeId>,
}

impl LostNodes {
    /// Whether the whole nodes hold everything that was acknowledged, whatever the others held.
    #[must_use]
    pub fn majority_is_whole(&self) -> bool {
        2 * self.whole.len() > self.count()
    }

    fn count(&self) -> usize {
        self.whole.len() + self.faults.len()
    }
}

impl fmt::Display for LostNodes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, (_, fault)) in self.faults.iter().enumerate() {
            write!(f, "{}{fault}", if number > 0 { "; " } else { "" })?;
        }
        f.write_str(". Nothing was changed. ")?;
        let lost: Vec<_> = self.faults.iter().map(|(node, _)| *node).collect();
        let (whole, count) = (&self.whole, self.count());
        if self.majority_is_whole() {
            write!(
                f,
                "{} of {count} {} whole: a majority, which holds everything that was acknowledged. {} must not go on \
                 as {} now, for fear of promises that would be forgotten. Put the file back as it was when the server stopped last, or \
                 make a new cluster of what the others hold",
                Nodes(whole),
                if whole.len() == 1 { "is" } else { "are" },
                Nodes(&lost),
                if lost.len() == 1 { "it is" } else { "they are" },
            )
        } else {
            match &whole[..] {
                [] => write!(f, "None of {count} nodes is whole. ")?,
                [node] => write!(f, "Only node {node} of {count} is whole, which is no majority. ")?,
                nodes => {
                    write!(f, "Only {} of {count} are whole, which is no majority. ", LowerNodes(nodes))?;
                }
            }
            f.write_str(
                "What was acknowledged may be in none of them. Put the file back as it was when the server stopped last, restore a backup, \
                 or start anew with another --data-dir",
            )
        }
    }
}

/// Ids at the start of a sentence.
struct Nodes<'a>(&'a [NodeId]);

/// Ids within a sentence.
struct LowerNodes<'a>(&'a [NodeId]);

impl fmt::Display for Nodes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.len() == 1 { "Node " } else { "Nodes " })?;
        write_ids(f, self.0)
    }
}

impl fmt::Display for LowerNodes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("nodes ")?;
        write_ids(f, self.0)
    }
}

/// `0, 1 and 4`.
fn write_ids(f: &mut fmt::Formatter<'_>, nodes: &[NodeId]) -> fmt::Result {
    for (place, node) in nodes.iter().enumerate() {
        let is_last = place + 1 == nodes.len();
        let between = if place == 0 {
            ""
        } else if is_last {
            " and "
        } else {
            ", "
        };
        write!(f, "{between}{node}")?;
    }
    Ok(())
}
