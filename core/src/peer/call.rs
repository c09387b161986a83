//! Encoding of forwarded requests, and of their answers.

use super::message::{
    read_configuration, read_index, read_part, read_point, write_configuration, write_part, write_point,
};
use super::wire::{Reader, Writer};
use crate::kv::{
    ClientName, Command, Found, Key, LoggedWrite, Operation, Outcome, Page, Query, Scan, Session, Value,
};
use crate::raft::{ChangeError, NodeId, Role, Term};
use crate::replica::{Answer, BackupPiece, MemberChange, MemberOrder, Request, RequestRefusal, Status};

pub(super) fn write_request(request: &Request, to: &mut Writer<'_>) {
    match request {
        Request::Write { command, session } => {
            to.u8(1);
            let mut payload = String::new();
            command.write_payload(session.as_ref(), &mut payload);
            to.text(&payload);
        }
        Request::Read { query, at_least } => {
            to.u8(2);
            to.u64(at_least.0);
            write_query(query, to);
        }
        Request::LinearizableRead(query) => {
            to.u8(3);
            write_query(query, to);
        }
        Request::Transfer(node) => {
            to.u8(4);
            to.u64(node.0);
        }
        Request::ChangeMembers(order) => {
            to.u8(5);
            to.option(order.given_for, |to, index| to.u64(index.0));
            to.bool(order.insists);
            write_change(&order.change, to);
        }
        Request::Members => to.u8(6),
        Request::Resign => to.u8(7),
        Request::Status => to.u8(8),
        Request::Backup(piece) => {
            to.u8(9);
            write_piece(*piece, to);
        }
    }
}

fn write_piece(piece: BackupPiece, to: &mut Writer<'_>) {
    match piece {
        BackupPiece::New => to.u8(1),
        BackupPiece::Covering(index) => {
            to.u8(2);
            to.u64(index.0);
        }
        BackupPiece::At { last, offset } => {
            to.u8(3);
            write_point(last, to);
            to.u64(offset);
        }
    }
}

fn read_piece(from: &mut Reader<'_>) -> Option<BackupPiece> {
    Some(match from.u8()? {
        1 => BackupPiece::New,
        2 => BackupPiece::Covering(read_index(from)?),
        3 => BackupPiece::At { last: read_point(from)?, offset: from.u64()? },
        _ => return None,
    })
}

pub(super) fn read_request(from: &mut Reader<'_>) -> Option<Request> {
    Some(match from.u8()? {
        1 => read_write(from.text()?)?,
        2 => {
            let at_least = read_index(from)?;
            Request::Read { query: read_query(from)?, at_least }
        }
        3 => Request::LinearizableRead(read_query(from)?),
        4 => Request::Transfer(NodeId(from.u64()?)),
        5 => Request::ChangeMembers(MemberOrder {
            given_for: from.option(read_index)?,
            insists: from.bool()?,
            change: read_change(from)?,
        }),
        6 => Request::Members,
        7 => Request::Resign,
        8 => Request::Status,
        9 => Request::Backup(read_piece(from)?),
        _ => return None,
    })
}

fn read_write(payload: &str) -> Option<Request> {
    let LoggedWrite { session, operation } = LoggedWrite::read(payload)?;
    let key = Key::new(operation.key()).ok()?;
    let value = |json: &str| Value::from_json(json).ok();
    let command = match operation {
        Operation::Put { value: json, .. } => Command::Put { key, value: value(json)? },
        Operation::Delete { .. } => Command::Delete { key },
        Operation::Cas { expect, value: json, .. } => {
            let expect = expect.map_or(Some(None), |json| value(json).map(Some))?;
            Command::Cas { key, expect, value: value(json)? }
        }
    };
    let session = match session {
        None => None,
        Some(logged) => Some(Session::new(ClientName::new(&logged.client).ok()?, logged.seq).ok()?),
    };
    Some(Request::Write { command, session })
}

fn write_query(query: &Query, to: &mut Writer<'_>) {
    match query {
        Query::Value(key) => {
            to.u8(1);
            to.text(key.as_str());
        }
        Query::Scan(scan) => {
            to.u8(2);
            to.text(&scan.prefix);
            to.option(scan.after.as_deref(), Writer::text);
            to.u64(scan.items_max as u64);
            to.u64(scan.bytes_max as u64);
        }
    }
}

fn read_query(from: &mut Reader<'_>) -> Option<Query> {
    Some(match from.u8()? {
        1 => Query::Value(Key::new(from.text()?).ok()?),
        2 => Query::Scan(Scan {
            prefix: from.text()?.to_owned(),
            after: from.option(Reader::text)?.map(str::to_owned),
            items_max: usize::try_from(from.u64()?).ok()?,
            bytes_max: usize::try_from(from.u64()?).ok()?,
        }),
        _ => return None,
    })
}

fn write_change(change: &MemberChange, to: &mut Writer<'_>) {
    let mut order = |kind: u8, node: NodeId| {
        to.u8(kind);
        to.u64(node.0);
    };
    match change {
        MemberChange::AddLearner(node) => order(1, *node),
        MemberChange::AddLearnerAt(node, address) => {
            order(2, *node);
            to.text(address);
        }
        MemberChange::Promote(node) => order(3, *node),
        MemberChange::Remove(node) => order(4, *node),
        MemberChange::Set { voters, learners } => {
            to.u8(5);
            for nodes in [voters, learners] {
                to.u32(u32::try_from(nodes.len()).expect("a cluster has a few members"));
                nodes.iter().for_each(|node| to.u64(node.0));
            }
        }
    }
}

fn read_change(from: &mut Reader<'_>) -> Option<MemberChange> {
    let nodes = |from: &mut Reader<'_>| {
        let count = from.u32()?;
        (0..count).map(|_| from.u64().map(NodeId)).collect::<Option<Vec<_>>>()
    };
    Some(match from.u8()? {
        1 => MemberChange::AddLearner(NodeId(from.u64()?)),
        2 => {
            let node = NodeId(from.u64()?);
            let address = from.text()?;
            crate::raft::is_address(address).then(|| MemberChange::AddLearnerAt(node, address.into()))?
        }
        3 => MemberChange::Promote(NodeId(from.u64()?)),
        4 => MemberChange::Remove(NodeId(from.u64()?)),
        5 => MemberChange::Set { voters: nodes(from)?, learners: nodes(from)? },
        _ => return None,
    })
}

pub(super) fn write_answer(answer: &Answer, to: &mut Writer<'_>) {
    match answer {
        Answer::Applied { index, outcome } => {
            to.u8(1);
            to.u64(index.0);
            write_outcome(outcome, to);
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
    }
}

pub(super) fn read_answer(from: &mut Reader<'_>) -> Option<Answer> {
    Some(match from.u8()? {
        1 => Answer::Applied { index: read_index(from)?, outcome: read_outcome(from)? },
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

fn write_outcome(outcome: &Outcome, to: &mut Writer<'_>) {
    match outcome {
        Outcome::Done => to.u8(1),
        Outcome::NotFound => to.u8(2),
        Outcome::Mismatch { actual } => {
            to.u8(3);
            to.option(actual.as_ref(), |to, value| write_value(value, to));
        }
        Outcome::SessionExpired => to.u8(4),
    }
}

fn read_outcome(from: &mut Reader<'_>) -> Option<Outcome> {
    Some(match from.u8()? {
        1 => Outcome::Done,
        2 => Outcome::NotFound,
        3 => Outcome::Mismatch { actual: from.option(read_value)? },
        4 => Outcome::SessionExpired,
        _ => return None,
    })
}

fn write_found(found: &Found, to: &mut Writer<'_>) {
    match found {
        Found::Value(value) => {
            to.u8(1);
            to.option(value.as_ref(), |to, value| write_value(value, to));
        }
        Found::Page(page) => {
            to.u8(2);
            to.bool(page.more);
            to.u32(u32::try_from(page.items.len()).expect("a page has a limit"));
            for (key, value) in &page.items {
                to.text(key.as_str());
                write_value(value, to);
            }
        }
    }
}

fn read_found(from: &mut Reader<'_>) -> Option<Found> {
    Some(match from.u8()? {
        1 => Found::Value(from.option(read_value)?),
        2 => {
            let more = from.bool()?;
            let count = from.u32()?;
            let item = |from: &mut Reader<'_>| Some((Key::new(from.text()?).ok()?, read_value(from)?));
            let items = (0..count).map(|_| item(from)).collect::<Option<Vec<_>>>()?;
            Found::Page(Page { items, more })
        }
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
