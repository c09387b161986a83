//! Encoding of forwarded requests.

use super::message::{read_index, read_point, write_point};
use super::wire::{Reader, Writer};
use crate::kv::{ClientName, Command, Key, LoggedWrite, Operation, Query, Scan, ScanContent, Session, Value};
use crate::raft::NodeId;
use crate::replica::{BackupPiece, MemberChange, MemberOrder, Request};

pub(super) fn write_request(request: &Request, to: &mut Writer<'_>) {
    match request {
        Request::Write { command, session, .. } => {
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
        Request::Watch(_) => panic!("the node of this process serves watches"),
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
    let key = |text: &str| Key::new(text).ok();
    let value = |json: &str| Value::from_json(json).ok();
    let command = match operation {
        Operation::Put { key: text, value: json } => Command::Put { key: key(&text)?, value: value(json)? },
        Operation::Delete { key: text } => Command::Delete { key: key(&text)? },
        Operation::Cas { key: text, expect, value: json } => {
            let expect = expect.map_or(Some(None), |json| value(json).map(Some))?;
            Command::Cas { key: key(&text)?, expect, value: value(json)? }
        }
        Operation::Other(command) if command.is_leaders() => return None,
        Operation::Other(command) => command,
    };
    let session = match session {
        None => None,
        Some(logged) => Some(Session::new(ClientName::new(&logged.client).ok()?, logged.seq).ok()?),
    };
    Some(Request::Write { command, session, wants_meta: false })
}

/// Encodes a query. Programs without levels know only the first two kinds.
fn write_query(query: &Query, to: &mut Writer<'_>) {
    match query {
        Query::Value(key) => {
            to.u8(1);
            to.text(key.as_str());
        }
        Query::Scan(scan) if scan.is_basic() => {
            to.u8(2);
            write_range(scan, to);
        }
        Query::Entry(key) => {
            to.u8(3);
            to.text(key.as_str());
        }
        Query::Scan(scan) => {
            to.u8(4);
            write_range(scan, to);
            to.option(scan.end.as_deref(), Writer::text);
            to.bool(scan.is_reverse);
            to.u8(match scan.content {
                ScanContent::Values => 1,
                ScanContent::Keys => 2,
                ScanContent::Count => 3,
            });
            to.bool(scan.wants_meta);
        }
    }
}

fn write_range(scan: &Scan, to: &mut Writer<'_>) {
    to.text(&scan.prefix);
    to.option(scan.after.as_deref(), Writer::text);
    to.u64(scan.items_max as u64);
    to.u64(scan.bytes_max as u64);
}

fn read_query(from: &mut Reader<'_>) -> Option<Query> {
    Some(match from.u8()? {
        1 => Query::Value(Key::new(from.text()?).ok()?),
        2 => Query::Scan(read_range(from)?),
        3 => Query::Entry(Key::new(from.text()?).ok()?),
        4 => {
            let range = read_range(from)?;
            let end = from.option(Reader::text)?.map(str::to_owned);
            let is_reverse = from.bool()?;
            let content = match from.u8()? {
                1 => ScanContent::Values,
                2 => ScanContent::Keys,
                3 => ScanContent::Count,
                _ => return None,
            };
            Query::Scan(Scan { end, is_reverse, content, wants_meta: from.bool()?, ..range })
        }
        _ => return None,
    })
}

fn read_range(from: &mut Reader<'_>) -> Option<Scan> {
    Some(Scan {
        prefix: from.text()?.to_owned(),
        after: from.option(Reader::text)?.map(str::to_owned),
        items_max: usize::try_from(from.u64()?).ok()?,
        bytes_max: usize::try_from(from.u64()?).ok()?,
        ..Scan::default()
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
