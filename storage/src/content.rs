//! Content validation: checks what lines with a valid checksum say.
//!
//! A checksum shows that a line is as it was written, not that this program wrote it. A file that
//! was edited and sealed again, or that another program made, may hold content that no node can go
//! on from: a value that is not JSON, an index without a successor, members that do not exist. The
//! naive way is that each component checks what it needs. Then one start refuses the file, another
//! one panics an hour later, and `log verify` reports it as clean. So there is one validator for
//! all readers of files: recovery, the survey of a folder, a restore, and `log show` and
//! `log verify`.
//!
//! It validates the content of one file. Whether the files of a node, or the nodes of a folder, fit
//! each other is checked by [`recover()`](crate::recover()) and [`survey()`](crate::survey()).
//!
//! Indexes and terms are limited to half of the highest that nodes accept from one another. That
//! leaves room for more entries and elections than any cluster has, so that no file is accepted
//! today and refused after the next append.

use coracle_core::kv::{SessionLimits, StateLineError, StateLines, TextError, Write};
use coracle_core::raft::{
    Addition, Configuration, EntryKind, HardState, Line, LogIndex, LogPoint, NodeId, Roster, Term, Voters,
};

/// The highest log index in a file.
pub(crate) const INDEX_MAX: LogIndex = LogIndex(LogIndex::MAX.0 / 2);
/// The highest term in a file.
pub(crate) const TERM_MAX: Term = Term(Term::MAX.0 / 2);

/// Why a line with a valid checksum was not written by any version of this program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ContentError {
    /// An index higher than any log reaches.
    #[error("the index {0} is beyond {INDEX_MAX}, the highest that is accepted")]
    IndexTooHigh(LogIndex),
    /// A term higher than any election reaches.
    #[error("the term {0} is beyond {TERM_MAX}, the highest that is accepted")]
    TermTooHigh(Term),
    /// An entry of term 0, which has no leader.
    #[error("entry {0} is of term 0, which has no leader")]
    NoTerm(LogIndex),
    /// A log point at index 0 with a term or a checksum, or a snapshot without any entry.
    #[error("it has a term or a checksum for index 0, which is not an entry")]
    NoEntry,
    /// An entry whose command the state machine cannot execute.
    #[error("its command cannot be executed: {0}")]
    Command(TextError),
    /// A set of members that is empty, too large or out of order, or with descriptions that are
    /// duplicate or missing.
    #[error("its list of members is invalid")]
    Members,
    /// A membership change in a cluster whose members are fixed.
    #[error("it changes the members of a cluster in one process, which are fixed")]
    FixedMembers,
    /// A vote in term 0, which has no election, or for a node that is not a member.
    #[error("it has a vote for a node that cannot have been a candidate")]
    Vote,
    /// The last committed entry is of a later term than the node's current term.
    #[error("its floor is of term {floor}, and its own term is {current}")]
    FloorAhead {
        /// The term of the last entry that was known to be committed.
        floor: Term,
        /// The node's current term.
        current: Term,
    },
}

/// Which members a cluster may have, according to the header of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Membership {
    /// A cluster in one process: its members are its founders.
    Fixed,
    /// Members without a roster, which may change: the core alone, without a network.
    Bare,
    /// A cluster of processes: each member has an address and an incarnation.
    Described,
}

impl Membership {
    /// Returns the rule for a log with this roster in its header, when it is unknown how the node
    /// runs.
    pub(crate) fn of(roster: &Roster) -> Self {
        if roster.is_empty() { Self::Bare } else { Self::Described }
    }
}

/// Validates the point that a log starts after, that a snapshot ends with, or that the floor notes.
pub(crate) fn check_point(point: LogPoint) -> Result<(), ContentError> {
    let LogPoint { index, term, .. } = point;
    if index == LogIndex::ORIGIN {
        return if point == LogPoint::ORIGIN { Ok(()) } else { Err(ContentError::NoEntry) };
    }
    check_numbers(index, term)
}

fn check_numbers(index: LogIndex, term: Term) -> Result<(), ContentError> {
    if index > INDEX_MAX {
        return Err(ContentError::IndexTooHigh(index));
    }
    if term > TERM_MAX {
        return Err(ContentError::TermTooHigh(term));
    }
    if term == Term::INITIAL { Err(ContentError::NoTerm(index)) } else { Ok(()) }
}

/// Validates an entry of a log, whose place in the log was checked.
pub(crate) fn check_entry(line: &Line<'_>, membership: Membership) -> Result<(), ContentError> {
    check_numbers(line.index, line.term)?;
    match EntryKind::of(line.payload()) {
        EntryKind::Noop => Ok(()),
        EntryKind::Config => {
            let configuration = Configuration::read(line.payload()).ok_or(ContentError::Members)?;
            check_configuration(&configuration, membership)
        }
        EntryKind::Command => Write::checked(line.payload()).map(drop).map_err(ContentError::Command),
    }
}

/// Validates the voters and learners.
pub(crate) fn check_configuration(
    configuration: &Configuration,
    membership: Membership,
) -> Result<(), ContentError> {
    let roster = configuration.roster();
    let members = configuration.members();
    match membership {
        Membership::Fixed => return Err(ContentError::FixedMembers),
        Membership::Bare if roster.is_empty() => return Ok(()),
        Membership::Bare | Membership::Described => {}
    }
    let is_described = members.iter().all(|node| {
        roster.member(*node).is_some_and(|member| {
            // A node votes only once its incarnation is known.
            member.incarnation.is_some() || !configuration.is_voter(*node)
        })
    });
    if is_described && addresses_differ(roster) { Ok(()) } else { Err(ContentError::Members) }
}

fn addresses_differ(roster: &Roster) -> bool {
    let mut addresses: Vec<_> = roster.iter().map(|(_, member)| &member.address).collect();
    addresses.sort_unstable();
    addresses.windows(2).all(|pair| pair[0] != pair[1])
}

/// Validates the founders of a cluster, which the log of `node` names.
pub(crate) fn check_founders(
    node: NodeId,
    voters: &[NodeId],
    roster: &Roster,
    addition: Addition,
) -> Result<(), ContentError> {
    let ascend = voters.is_sorted_by(|one, next| one < next);
    let founders = Voters::new(voters.iter().copied()).filter(|_| ascend && addition <= Addition::MAX);
    let founders = founders.ok_or(ContentError::Members)?;
    let is_right = if roster.is_empty() {
        are_of_one_process(&founders) && founders.contains(node)
    } else {
        let described: Vec<_> = roster.iter().map(|(node, _)| node).collect();
        let all_are_bound = roster.iter().all(|(_, member)| member.incarnation.is_some());
        described == voters && all_are_bound && addresses_differ(roster)
    };
    if is_right { Ok(()) } else { Err(ContentError::Members) }
}

/// Validates members without a roster: those of a cluster in one process.
pub(crate) fn check_undescribed(configuration: &Configuration) -> Result<(), ContentError> {
    let is_plain = !configuration.is_joint() && configuration.learners().is_empty();
    let is_right = is_plain && are_of_one_process(configuration.voters());
    if is_right || !configuration.roster().is_empty() { Ok(()) } else { Err(ContentError::Members) }
}

/// Whether these are the nodes of a cluster in one process: consecutive ids from 0.
fn are_of_one_process(voters: &Voters) -> bool {
    voters.nodes().iter().zip(0..).all(|(node, number)| node.0 == number)
}

/// Validates the metadata: term, vote and floor.
pub(crate) fn check_promises(hard_state: HardState, floor: LogPoint) -> Result<(), ContentError> {
    let current = hard_state.current_term;
    if current > TERM_MAX {
        return Err(ContentError::TermTooHigh(current));
    }
    check_point(floor)?;
    if floor.term > current {
        return Err(ContentError::FloorAhead { floor: floor.term, current });
    }
    let has_voted_for_nothing = current == Term::INITIAL && hard_state.voted_for.is_some();
    if has_voted_for_nothing { Err(ContentError::Vote) } else { Ok(()) }
}

/// Validates the content of a snapshot, whose first line is line 2 of its file, and counts its
/// keys.
pub(crate) fn check_state(content: &str) -> Result<usize, (u64, StateLineError)> {
    let mut lines = StateLines::new(SessionLimits::default());
    for (number, line) in (2..).zip(content.split_inclusive('\n')) {
        // No state machine writes a last line without a line break.
        let line = line.strip_suffix('\n').unwrap_or("");
        lines.check(line).map_err(|fault| (number, fault))?;
    }
    Ok(lines.keys())
}

#[cfg(test)]
mod tests;
