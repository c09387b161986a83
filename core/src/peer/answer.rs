//! Encoding of the answers to forwarded requests.

use super::message::{read_configuration, read_index, read_part, write_configuration, write_part};
use super::wire::{Reader, Writer};
use crate::kv::{Applied, Found, Item, Key, KeyMeta, Outcome, Page, Revision, Ttl, Value};
use crate::raft::{ChangeError, NodeId, Role, Term};
use crate::replica::{Answer, RequestRefusal, Status};

pub(super) fn write_answer(answer: &Answer, to: &mut Writer<'_>) {
    match answer {
        Answer::Applied { index, outcome, meta } => {
            to.u8(1);
            to.u64(index.0);
            write_outcome(outcome, *meta, to);
        }
        Answer::Read { index, found } => {
            to.u8(2);
            to.u64(index.0);
            write_found(found, to);
        }
        Answer::Transferred { to: node } => {
            to.u8(3);
            to.u64(node.0);
        }
        Answer::MembershipChanged(index, configuration) => {
            to.u8(4);
            to.u64(index.0);
            write_configuration(configuration, to);
        }
        Answer::Members(index, configuration) => {
            to.u8(5);
            to.u64(index.0);
            write_configuration(configuration, to);
        }
        Answer::Status(status) => {
            to.u8(6);
            write_status(status, to);
        }
        Answer::OutcomeUnknown => to.u8(7),
        Answer::Refused(refused) => {
            to.u8(8);
            write_refused(*refused, to);
        }
        Answer::BackupPart(part) => {
            to.u8(9);
            write_part(part, to);
        }
        Answer::BackupPending(index) => {
            to.u8(10);
            to.u64(index.0);
        }
        Answer::Watch(_) => panic!("the node of this process serves watches"),
    }
}

pub(super) fn read_answer(from: &mut Reader<'_>) -> Option<Answer> {
    Some(match from.u8()? {
        1 => {
            let index = read_index(from)?;
            let Applied { outcome, meta } = read_outcome(from)?;
            Answer::Applied { index, outcome, meta }
        }
        2 => Answer::Read { index: read_index(from)?, found: read_found(from)? },
        3 => Answer::Transferred { to: NodeId(from.u64()?) },
        4 => Answer::MembershipChanged(read_index(from)?, read_configuration(from)?),
        5 => Answer::Members(read_index(from)?, read_configuration(from)?),
        6 => Answer::Status(Box::new(read_status(from)?)),
        7 => Answer::OutcomeUnknown,
        8 => Answer::Refused(read_refused(from)?),
        9 => Answer::BackupPart(Box::new(read_part(from)?)),
        10 => Answer::BackupPending(read_index(from)?),
        _ => return None,
    })
}

fn write_value(value: &Value, to: &mut Writer<'_>) {
    to.text(value.as_json());
}

fn read_value(from: &mut Reader<'_>) -> Option<Value> {
    Value::from_json(from.text()?).ok()
}

/// Encodes an outcome. Programs without levels know only those without revisions.
fn write_outcome(outcome: &Outcome, meta: KeyMeta, to: &mut Writer<'_>) {
    match outcome {
        Outcome::Done if meta.is_known() => {
            to.u8(5);
            write_meta(meta, to);
        }
        Outcome::Done => to.u8(1),
        Outcome::NotFound => to.u8(2),
        Outcome::Mismatch { actual } if !meta.is_known() => {
            to.u8(3);
            to.option(actual.as_ref(), |to, value| write_value(value, to));
        }
        Outcome::SessionExpired => to.u8(4),
        Outcome::TooManySessions => to.u8(8),
        outcome => {
            to.u8(if meta.ttl.is_some() { 7 } else { 6 });
            let mut json = String::new();
            Applied { outcome: outcome.clone(), meta }.push_json(&mut json);
            to.text(&json);
            meta.ttl.into_iter().for_each(|ttl| to.u64(ttl.ms()));
        }
    }
}

fn read_outcome(from: &mut Reader<'_>) -> Option<Applied> {
    Some(match from.u8()? {
        1 => Outcome::Done.without_meta(),
        2 => Outcome::NotFound.without_meta(),
        3 => Outcome::Mismatch { actual: from.option(read_value)? }.without_meta(),
        4 => Outcome::SessionExpired.without_meta(),
        5 => Outcome::Done.with_meta(read_meta(from)?),
        kind @ (6 | 7) => {
            let mut applied = Applied::from_json(from.text()?)?;
            applied.meta.ttl = if kind == 7 { Some(Ttl::from_ms(from.u64()?)?) } else { None };
            applied
        }
        8 => Outcome::TooManySessions.without_meta(),
        _ => return None,
    })
}

fn write_meta(meta: KeyMeta, to: &mut Writer<'_>) {
    to.u64(meta.rev.0);
    to.u64(meta.created.0);
    to.u64(meta.ttl.map_or(0, Ttl::ms));
}

fn read_meta(from: &mut Reader<'_>) -> Option<KeyMeta> {
    let (rev, created) = (Revision(from.u64()?), Revision(from.u64()?));
    let ttl = match from.u64()? {
        0 => None,
        ms => Some(Ttl::from_ms(ms)?),
    };
    Some(KeyMeta { rev, created, ttl })
}

/// Encodes the answer to a query. Programs without levels know only the first two kinds.
fn write_found(found: &Found, to: &mut Writer<'_>) {
    match found {
        Found::Value(value) => {
            to.u8(1);
            to.option(value.as_ref(), |to, value| write_value(value, to));
        }
        Found::Page(page) => {
            let is_plain = |item: &Item| item.value.is_some() && !item.meta.is_known();
            let is_plain = page.items.iter().all(is_plain);
            to.u8(if is_plain { 2 } else { 4 });
            to.bool(page.more);
            to.u32(u32::try_from(page.items.len()).expect("a page has a limit"));
            for item in &page.items {
                to.text(item.key.as_str());
                match &item.value {
                    Some(value) if is_plain => write_value(value, to),
                    value => {
                        to.option(value.as_ref(), |to, value| write_value(value, to));
                        write_meta(item.meta, to);
                    }
                }
            }
        }
        Found::Entry(entry) => {
            to.u8(3);
            to.option(entry.as_ref(), |to, (value, meta)| {
                write_value(value, to);
                write_meta(*meta, to);
            });
        }
        Found::Count(keys) => {
            to.u8(5);
            to.u64(*keys);
        }
    }
}

fn read_found(from: &mut Reader<'_>) -> Option<Found> {
    Some(match from.u8()? {
        1 => Found::Value(from.option(read_value)?),
        kind @ (2 | 4) => {
            let more = from.bool()?;
            let count = from.u32()?;
            let item = |from: &mut Reader<'_>| {
                let key = Key::new(from.text()?).ok()?;
                if kind == 2 {
                    return Some(Item { key, value: Some(read_value(from)?), meta: KeyMeta::default() });
                }
                Some(Item { key, value: from.option(read_value)?, meta: read_meta(from)? })
            };
            let items = (0..count).map(|_| item(from)).collect::<Option<Vec<_>>>()?;
            Found::Page(Page { items, more })
        }
        3 => Found::Entry(from.option(|from| Some((read_value(from)?, read_meta(from)?)))?),
        5 => Found::Count(from.u64()?),
        _ => return None,
    })
}

fn write_node(node: Option<NodeId>, to: &mut Writer<'_>) {
    to.option(node, |to, node| to.u64(node.0));
}

fn read_node(from: &mut Reader<'_>) -> Option<Option<NodeId>> {
    from.option(|from| from.u64().map(NodeId))
}

fn write_status(status: &Status, to: &mut Writer<'_>) {
    to.u64(status.id.0);
    to.u8(match status.role {
        Role::Follower if status.is_learner => 5,
        Role::Follower => 1,
        Role::PreCandidate => 2,
        Role::Candidate => 3,
        Role::Leader => 4,
    });
    to.u64(status.term.0);
    for index in [status.commit_index, status.last_applied, status.last_log_index, status.snapshot_index] {
        to.u64(index.0);
    }
    write_node(status.leader, to);
    to.u64(status.durable_index.0);
    to.u64(status.disk_waiting_ms);
}

fn read_status(from: &mut Reader<'_>) -> Option<Status> {
    let id = NodeId(from.u64()?);
    let (role, is_learner) = match from.u8()? {
        1 => (Role::Follower, false),
        2 => (Role::PreCandidate, false),
        3 => (Role::Candidate, false),
        4 => (Role::Leader, false),
        5 => (Role::Follower, true),
        _ => return None,
    };
    Some(Status {
        id,
        role,
        is_learner,
        term: Term(from.u64()?),
        commit_index: read_index(from)?,
        last_applied: read_index(from)?,
        last_log_index: read_index(from)?,
        snapshot_index: read_index(from)?,
        leader: read_node(from)?,
        durable_index: read_index(from)?,
        disk_waiting_ms: from.u64()?,
    })
}

fn write_refused(refused: RequestRefusal, to: &mut Writer<'_>) {
    match refused {
        RequestRefusal::NotLeader { term, leader } => {
            to.u8(1);
            to.u64(term.0);
            write_node(leader, to);
        }
        // No node answers a request that it did not get: to the one that reads this, both mean the
        // same.
        RequestRefusal::Superseded | RequestRefusal::NotConnected => to.u8(2),
        RequestRefusal::Overloaded => to.u8(3),
        RequestRefusal::NotVoter => to.u8(4),
        RequestRefusal::TransferFailed => to.u8(5),
        RequestRefusal::Change(error) => {
            to.u8(6);
            write_change_error(error, to);
        }
        RequestRefusal::CatchingUp => to.u8(7),
        RequestRefusal::BackupGone => to.u8(8),
        RequestRefusal::NotYet => to.u8(9),
    }
}

fn read_refused(from: &mut Reader<'_>) -> Option<RequestRefusal> {
    Some(match from.u8()? {
        1 => RequestRefusal::NotLeader { term: Term(from.u64()?), leader: read_node(from)? },
        2 => RequestRefusal::Superseded,
        3 => RequestRefusal::Overloaded,
        4 => RequestRefusal::NotVoter,
        5 => RequestRefusal::TransferFailed,
        6 => RequestRefusal::Change(read_change_error(from)?),
        7 => RequestRefusal::CatchingUp,
        8 => RequestRefusal::BackupGone,
        9 => RequestRefusal::NotYet,
        _ => return None,
    })
}

fn write_change_error(error: ChangeError, to: &mut Writer<'_>) {
    match error {
        ChangeError::NotLeader(leader) => {
            to.u8(1);
            write_node(leader, to);
        }
        ChangeError::TransferPending => to.u8(2),
        ChangeError::InProgress => to.u8(3),
        ChangeError::NotEstablished => to.u8(4),
        ChangeError::CatchingUp(node) => write_change_node(5, node, to),
        ChangeError::Unchanged => to.u8(6),
        ChangeError::Invalid => to.u8(7),
        ChangeError::Silent(node) => write_change_node(8, node, to),
        ChangeError::MajoritySilent => to.u8(9),
        ChangeError::NotMember(node) => write_change_node(10, node, to),
        ChangeError::LastVoter => to.u8(11),
        ChangeError::AddressTaken(node) => write_change_node(12, node, to),
        ChangeError::Outdated => to.u8(13),
    }
}

fn write_change_node(kind: u8, node: NodeId, to: &mut Writer<'_>) {
    to.u8(kind);
    to.u64(node.0);
}

fn read_change_error(from: &mut Reader<'_>) -> Option<ChangeError> {
    Some(match from.u8()? {
        1 => ChangeError::NotLeader(read_node(from)?),
        2 => ChangeError::TransferPending,
        3 => ChangeError::InProgress,
        4 => ChangeError::NotEstablished,
        5 => ChangeError::CatchingUp(NodeId(from.u64()?)),
        6 => ChangeError::Unchanged,
        7 => ChangeError::Invalid,
        8 => ChangeError::Silent(NodeId(from.u64()?)),
        9 => ChangeError::MajoritySilent,
        10 => ChangeError::NotMember(NodeId(from.u64()?)),
        11 => ChangeError::LastVoter,
        12 => ChangeError::AddressTaken(NodeId(from.u64()?)),
        13 => ChangeError::Outdated,
        _ => return None,
    })
}
