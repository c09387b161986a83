//! Content: judges what lines with a right checksum say.
//!
//! A checksum shows that a line is as it was written, not that this program wrote it. A file that
//! was edited and sealed again, or that another program made, may say what no node can go on from:
//! a value that is no JSON, an index without a next one, members that do not exist. The naive way
//! is to let each part notice what it trips over; then one start refuses, another one panics an
//! hour later, and `log verify` calls the file clean. So there is one judge, and all that reads
//! files asks it: recovery, the survey of a folder, a restore, and `log show` and `log verify`.
//!
//! What is judged is the content of one file. Whether the files of a node, or the nodes of a
//! folder, fit each other is the matter of [`recover()`](crate::recover()) and
//! [`survey()`](crate::survey()).
//!
//! Numbers have a ceiling at half of what nodes believe of one another. Whatever is accepted has
//! room above it for more entries and elections than any cluster sees, so that nothing is accepted
//! today and refused after the next append.

use coracle_core::kv::{SessionLimits, StateLineError, StateLines, TextFault, Write};
use coracle_core::raft::{
    Addition, Configuration, EntryKind, HardState, Line, LogIndex, LogPoint, NodeId, Roster, Term, Voters,
};

/// The highest index in a file.
pub(crate) const INDEX_MAX: LogIndex = LogIndex(LogIndex::MAX.0 / 2);
/// The highest term in a file.
pub(crate) const TERM_MAX: Term = Term(Term::MAX.0 / 2);

/// What a line with a right checksum says that no version of this program writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ContentFault {
    /// An index that no log reaches.
    #[error("the index {0} is beyond {INDEX_MAX}, the highest that is accepted")]
    IndexTooHigh(LogIndex),
    /// A term that no election reaches.
    #[error("the term {0} is beyond {TERM_MAX}, the highest that is accepted")]
    TermTooHigh(Term),
    /// An entry of the term in which nobody is elected.
    #[error("entry {0} is of term 0, in which nobody leads")]
    NoTerm(LogIndex),
    /// A point before the first entry that has a term or a checksum, or a snapshot of nothing.
    #[error("it has a term or a checksum for index 0, which is no entry")]
    NoEntry,
    /// An entry for the state machine.
    #[error("its command cannot be carried out: {0}")]
    Command(TextFault),
    /// Members that are none, too many, not in order, described twice or not at all.
    #[error("it names members as this program never does")]
    Members,
    /// A change of members where there is none.
    #[error("it changes the members of a cluster in one process, which are fixed")]
    FixedMembers,
    /// A vote in the term in which nobody is elected, or for a node that is no member.
    #[error("it holds a vote for a node that could not have asked for it")]
    Vote,
    /// What was committed is of a later term than the node knows.
    #[error("its floor is of term {floor}, and its own term is {current}")]
    FloorAhead {
        /// Of the last entry that was known to be committed.
        floor: Term,
        /// Of the node.
        current: Term,
    },
}

/// Who may be a member, by the header of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Membership {
    /// A cluster in one process: its members are those that it was founded with.
    Fixed,
    /// Members without a roster may change: the core alone, without anything that dials.
    Bare,
    /// A cluster of processes: a member has an address and an incarnation.
    Described,
}

impl Membership {
    /// Of a log with this roster in its header, should nothing be known of where its node runs.
    pub(crate) fn of(roster: &Roster) -> Self {
        if roster.is_empty() { Self::Bare } else { Self::Described }
    }
}

/// Judges the point that a log starts after, that a snapshot ends with, or that is known to be
/// committed.
pub(crate) fn check_point(point: LogPoint) -> Result<(), ContentFault> {
    let LogPoint { index, term, .. } = point;
    if index == LogIndex::ORIGIN {
        return if point == LogPoint::ORIGIN { Ok(()) } else { Err(ContentFault::NoEntry) };
    }
    check_numbers(index, term)
}

fn check_numbers(index: LogIndex, term: Term) -> Result<(), ContentFault> {
    if index > INDEX_MAX {
        return Err(ContentFault::IndexTooHigh(index));
    }
    if term > TERM_MAX {
        return Err(ContentFault::TermTooHigh(term));
    }
    if term == Term::INITIAL { Err(ContentFault::NoTerm(index)) } else { Ok(()) }
}

/// Judges a line of a log whose place is right.
pub(crate) fn check_entry(line: &Line<'_>, membership: Membership) -> Result<(), ContentFault> {
    check_numbers(line.index, line.term)?;
    match EntryKind::of(line.payload()) {
        EntryKind::Noop => Ok(()),
        EntryKind::Config => {
            let configuration = Configuration::read(line.payload()).ok_or(ContentFault::Members)?;
            check_configuration(&configuration, membership)
        }
        EntryKind::Command => Write::checked(line.payload()).map(drop).map_err(ContentFault::Command),
    }
}

/// Judges who takes part.
pub(crate) fn check_configuration(
    configuration: &Configuration,
    membership: Membership,
) -> Result<(), ContentFault> {
    let roster = configuration.roster();
    let members = configuration.members();
    match membership {
        Membership::Fixed => return Err(ContentFault::FixedMembers),
        Membership::Bare if roster.is_empty() => return Ok(()),
        Membership::Bare | Membership::Described => {}
    }
    let is_described = members.iter().all(|node| {
        roster.member(*node).is_some_and(|member| {
            // Nobody votes before it is known in which incarnation.
            member.incarnation.is_some() || !configuration.is_voter(*node)
        })
    });
    if is_described && addresses_differ(roster) { Ok(()) } else { Err(ContentFault::Members) }
}

fn addresses_differ(roster: &Roster) -> bool {
    let mut addresses: Vec<_> = roster.iter().map(|(_, member)| &member.address).collect();
    addresses.sort_unstable();
    addresses.windows(2).all(|pair| pair[0] != pair[1])
}

/// Judges the founders of a cluster, by the log of `node`.
pub(crate) fn check_founders(
    node: NodeId,
    voters: &[NodeId],
    roster: &Roster,
    addition: Addition,
) -> Result<(), ContentFault> {
    let ascend = voters.is_sorted_by(|one, next| one < next);
    let founders = Voters::new(voters.iter().copied()).filter(|_| ascend && addition <= Addition::MAX);
    let founders = founders.ok_or(ContentFault::Members)?;
    let is_right = if roster.is_empty() {
        are_of_one_process(&founders) && founders.contains(node)
    } else {
        let described: Vec<_> = roster.iter().map(|(node, _)| node).collect();
        let all_are_bound = roster.iter().all(|(_, member)| member.incarnation.is_some());
        described == voters && all_are_bound && addresses_differ(roster)
    };
    if is_right { Ok(()) } else { Err(ContentFault::Members) }
}

/// Judges members of whom no roster says more: those of a cluster in one process.
pub(crate) fn check_undescribed(configuration: &Configuration) -> Result<(), ContentFault> {
    let is_plain = !configuration.is_joint() && configuration.learners().is_empty();
    let is_right = is_plain && are_of_one_process(configuration.voters());
    if is_right || !configuration.roster().is_empty() { Ok(()) } else { Err(ContentFault::Members) }
}

/// Whether these are the nodes of a cluster in one process: 0 and those that follow it.
fn are_of_one_process(voters: &Voters) -> bool {
    voters.nodes().iter().zip(0..).all(|(node, number)| node.0 == number)
}

/// Judges the metadata.
pub(crate) fn check_promises(hard_state: HardState, floor: LogPoint) -> Result<(), ContentFault> {
    let current = hard_state.current_term;
    if current > TERM_MAX {
        return Err(ContentFault::TermTooHigh(current));
    }
    check_point(floor)?;
    if floor.term > current {
        return Err(ContentFault::FloorAhead { floor: floor.term, current });
    }
    let has_voted_for_nothing = current == Term::INITIAL && hard_state.voted_for.is_some();
    if has_voted_for_nothing { Err(ContentFault::Vote) } else { Ok(()) }
}

/// Judges the content of a snapshot, whose first line is line 2 of its file, and counts its keys.
pub(crate) fn check_state(content: &str) -> Result<usize, (u64, StateLineError)> {
    let mut lines = StateLines::new(SessionLimits::default());
    for (number, line) in (2..).zip(content.split_inclusive('\n')) {
        // A last line without its line break is none that was written.
        let line = line.strip_suffix('\n').unwrap_or("");
        lines.check(line).map_err(|fault| (number, fault))?;
    }
    Ok(lines.keys())
}

#[cfg(test)]
mod tests;
