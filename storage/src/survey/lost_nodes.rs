//! Lost nodes: which nodes of a folder cannot go on, and whether the others still hold every
//! acknowledged write.
//!
//! Why a majority of whole nodes holds every acknowledged write: an entry is committed once a
//! majority has it on disk, and two majorities have a node in common. So at least one whole node
//! has each committed entry. The log that is most up to date (§5.4.1: the later last term, then the
//! greater length) has them all, by the argument by which a new leader has them (§5.4.3). It may
//! have more: entries that were proposed and never acknowledged, which a new leader might have
//! committed as well.
//!
//! Why a node that lost its files is not refilled from the others: it may have voted in a term that
//! it no longer knows, and acknowledged entries that count towards a majority. If it votes twice,
//! two leaders of one term are possible. A new cluster made from the whole nodes has no such past,
//! because no node of it has voted or acknowledged anything.

use std::fmt;

use coracle_core::raft::NodeId;

use crate::recover::RecoverError;

/// The nodes of a cluster in one process that cannot go on from their files, and those that can.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostNodes {
    /// The faults of the lost nodes, in ascending order of their ids. At least one.
    pub faults: Vec<(NodeId, RecoverError)>,
    /// The nodes whose files are whole, in ascending order.
    pub whole: Vec<NodeId>,
}

impl LostNodes {
    /// Whether the whole nodes hold every acknowledged write, whatever the lost nodes held.
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
                "{} of {count} {} whole: a majority, which holds everything that was acknowledged. {} must \
                 not continue: votes and acknowledgements would be lost. Put the file back as it was when \
                 the server stopped last, or create a new cluster from what the others hold",
                Nodes(whole),
                if whole.len() == 1 { "is" } else { "are" },
                Nodes(&lost),
            )
        } else {
            match &whole[..] {
                [] => write!(f, "None of {count} nodes is whole. ")?,
                [node] => write!(f, "Only node {node} of {count} is whole, which is not a majority. ")?,
                nodes => {
                    write!(f, "Only {} of {count} are whole, which is not a majority. ", LowerNodes(nodes))?;
                }
            }
            f.write_str(
                "Acknowledged writes may be in none of them. Put the file back as it was when the server \
                 stopped last, restore a backup, or start again with another --data-dir",
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

/// Writes ids as `0, 1 and 4`.
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
