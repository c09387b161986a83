//! Tests of encoding and decoding frames of every kind.

use std::sync::Arc;

use super::*;
use crate::kv::{
    Applied, ClientName, Command, Found, Item, Key, KeyMeta, Outcome, Page, Query, Revision, Scan,
    ScanContent, Session, Ttl, Txn, TxnOutcome, TxnResult, Value,
};
use crate::raft::{
    AppendEntries, AppendEntriesResponse, AppendOutcome, BatchBuilder, Body, ChangeError, Checksum,
    Configuration, Elapsed, Heartbeat, HeartbeatResponse, InstallOutcome, InstallSnapshotResponse, LogIndex,
    LogPoint, Member, NodeId, ReadBatch, ReadIndex, ReadIndexResponse, ReadRound, RequestVote,
    RequestVoteResponse, Role, Roster, Runs, SnapshotEnd, SnapshotMeta, SnapshotPart, Term, Voters,
};
use crate::replica::{BackupPiece, MemberChange, MemberOrder, RequestRefusal, Status};

fn point(index: u64) -> LogPoint {
    LogPoint { index: LogIndex(index), term: Term(2), checksum: Checksum(0xabc) }
}

fn configuration() -> Configuration {
    let voters = Voters::new([NodeId(1), NodeId(2)]).unwrap();
    let roster = Roster::new([(NodeId(1), Member::founder("a:1".into(), None))]);
    Configuration::new(voters, [NodeId(7)]).unwrap().with_roster(&roster)
}

fn append(payloads: &[&[&str]]) -> AppendEntries {
    let mut batch = BatchBuilder::new(point(9));
    let mut entries = Runs::new();
    for run in payloads {
        for payload in *run {
            batch.seal(Term(3), |line| line.push_str(payload));
        }
        entries.extend(batch.finish());
    }
    let (prev_log_index, prev_log_term) = (LogIndex(9), Term(2));
    let prev_log_checksum = Some(point(9).checksum);
    let leader_commit = LogIndex(8);
    AppendEntries { sequence: 5, prev_log_index, prev_log_term, prev_log_checksum, entries, leader_commit }
}

fn bodies() -> Vec<Body> {
    let vote = RequestVote {
        election_term: Term(4),
        round: 7,
        last_log_index: LogIndex(3),
        last_log_term: Term(2),
        is_transfer: true,
    };
    let part = |end| SnapshotPart {
        meta: SnapshotMeta { last: point(9), configuration: configuration() },
        offset: 17,
        text: Arc::from("{\"a\":1}\n"),
        end,
    };
    let rejected = AppendOutcome::Rejected { hint_index: LogIndex(1), hint_term: Term(1) };
    let accepted = AppendOutcome::Accepted { match_index: LogIndex(1) };
    let installed =
        |outcome| Body::InstallSnapshotResponse(InstallSnapshotResponse { last: point(3), outcome });
    let read_index = |index| Body::ReadIndexResponse(ReadIndexResponse { batch: ReadBatch(4), index });
    vec![
        Body::RequestPreVote(vote),
        Body::RequestVote(RequestVote { is_transfer: false, ..vote }),
        Body::RequestPreVoteResponse(RequestVoteResponse { round: 3, granted: true }),
        Body::RequestVoteResponse(RequestVoteResponse { round: 3, granted: false }),
        Body::AppendEntries(append(&[])),
        Body::AppendEntries(append(&[&["\"op\":\"NOOP\""], &["\"a\":1", "\"b\":\"ö\""]])),
        Body::AppendEntriesResponse(AppendEntriesResponse { sequence: 5, outcome: accepted }),
        Body::AppendEntriesResponse(AppendEntriesResponse { sequence: 5, outcome: rejected }),
        Body::Heartbeat(Heartbeat {
            leader_commit: LogIndex(8),
            commit_checksum: Some(Checksum(77)),
            round: ReadRound(2),
            elapsed: Some(Elapsed { since: LogIndex(3), time: std::time::Duration::from_micros(5) }),
        }),
        Body::HeartbeatResponse(HeartbeatResponse { round: ReadRound(2) }),
        Body::NewerTerm,
        Body::ReadIndex(ReadIndex { batch: ReadBatch(4) }),
        read_index(None),
        read_index(Some(LogIndex(5))),
        Body::InstallSnapshot(part(None)),
        Body::InstallSnapshot(part(Some(SnapshotEnd { bytes: 25, checksum: Checksum(9) }))),
        installed(InstallOutcome::Holds { bytes: 12 }),
        installed(InstallOutcome::Installed),
        Body::TimeoutNow,
    ]
}

fn requests() -> Vec<Request> {
    let key = || Key::new("sn\"ack").unwrap();
    let value = || Value::from_json(r#"{"a":[1,null]}"#).unwrap();
    let session = Session::new(ClientName::new("c").unwrap(), 7).unwrap();
    let scan =
        Scan { prefix: "p".into(), after: Some("q".into()), items_max: 3, bytes_max: 4, ..Scan::default() };
    let later = Scan { end: Some("z".into()), is_reverse: true, wants_meta: true, ..scan.clone() };
    let counted = Scan { content: ScanContent::Count, ..scan.clone() };
    let keys = Scan { content: ScanContent::Keys, ..scan.clone() };
    let then = r#"[{"op":"incr","key":"n","by":-1}]"#;
    let txn = Txn::from_json(None, Some(then), None).unwrap();
    let put = Command::Put { key: key(), value: value() };
    vec![
        Request::Write { command: put.clone(), session: Some(session), wants_meta: false },
        Request::write(put),
        Request::write(Command::Delete { key: key() }),
        Request::write(Command::Cas { key: key(), expect: None, value: value() }),
        Request::write(Command::Cas { key: key(), expect: Some(value()), value: value() }),
        Request::Read { query: Query::Value(key()), at_least: LogIndex(3) },
        Request::Read { query: Query::Scan(scan.clone()), at_least: LogIndex(0) },
        Request::LinearizableRead(Query::Scan(Scan { after: None, ..scan })),
        Request::write(Command::DeleteRevision { key: key(), rev: Revision(7) }),
        Request::write(Command::CasRevision { key: key(), rev: Revision::NONE, value: value() }),
        Request::write(Command::Incr { key: key(), by: -5 }),
        Request::write(Command::DeletePrefix { prefix: "p".into(), keys_max: 7 }),
        Request::write(Command::Txn(txn.into())),
        Request::Read { query: Query::Entry(key()), at_least: LogIndex(3) },
        Request::LinearizableRead(Query::Scan(later)),
        Request::LinearizableRead(Query::Scan(keys)),
        Request::LinearizableRead(Query::Scan(counted)),
        Request::Transfer(NodeId(2)),
        order(MemberChange::AddLearner(NodeId(4))),
        order(MemberChange::AddLearnerAt(NodeId(4), "h:1".into())),
        order(MemberChange::Promote(NodeId(4))),
        order(MemberChange::Remove(NodeId(4))),
        Request::ChangeMembers(MemberOrder {
            change: MemberChange::Remove(NodeId(4)),
            given_for: Some(LogIndex(7)),
            insists: true,
        }),
        order(MemberChange::Set { voters: vec![NodeId(1), NodeId(2)], learners: vec![] }),
        Request::Members,
        Request::Backup(BackupPiece::New),
        Request::Backup(BackupPiece::Covering(LogIndex(3))),
        Request::Backup(BackupPiece::At { last: point(9), offset: 4 }),
        Request::Resign,
        Request::Status,
    ]
}

fn order(change: MemberChange) -> Request {
    Request::ChangeMembers(change.into())
}

fn status() -> Status {
    Status {
        id: NodeId(1),
        role: Role::PreCandidate,
        is_learner: false,
        term: Term(2),
        commit_index: LogIndex(3),
        last_applied: LogIndex(4),
        last_log_index: LogIndex(5),
        snapshot_index: LogIndex(6),
        leader: Some(NodeId(7)),
        durable_index: LogIndex(5),
        disk_waiting_ms: 9,
    }
}

fn answers() -> Vec<Answer> {
    let value = || Value::from_json("\"chips\"").unwrap();
    let applied = |Applied { outcome, meta }| Answer::Applied { index: LogIndex(4), outcome, meta };
    let meta = KeyMeta::of(Revision(9), Revision(3));
    let expiring = KeyMeta { ttl: Ttl::from_ms(250), ..meta };
    let read = |found| Answer::Read { index: LogIndex(4), found };
    let item = Item { key: Key::new("k").unwrap(), value: Some(value()), meta: KeyMeta::default() };
    let status = status();
    let txn = Outcome::Txn(TxnOutcome { succeeded: true, results: vec![TxnResult::Sum(1)] }.into());
    let refused = [
        RequestRefusal::NotLeader { term: Term(1), leader: None },
        RequestRefusal::NotLeader { term: Term(1), leader: Some(NodeId(2)) },
        RequestRefusal::Superseded,
        RequestRefusal::Overloaded,
        RequestRefusal::NotVoter,
        RequestRefusal::TransferFailed,
        RequestRefusal::CatchingUp,
        RequestRefusal::BackupGone,
        RequestRefusal::NotYet,
        RequestRefusal::Change(ChangeError::NotLeader(Some(NodeId(1)))),
        RequestRefusal::Change(ChangeError::TransferPending),
        RequestRefusal::Change(ChangeError::InProgress),
        RequestRefusal::Change(ChangeError::NotEstablished),
        RequestRefusal::Change(ChangeError::CatchingUp(NodeId(3))),
        RequestRefusal::Change(ChangeError::Unchanged),
        RequestRefusal::Change(ChangeError::Invalid),
    ];
    let learner = Status { role: Role::Follower, is_learner: true, ..status };
    let mut answers = vec![
        applied(Outcome::Done.without_meta()),
        applied(Outcome::NotFound.without_meta()),
        applied(Outcome::Mismatch { actual: Some(value()) }.without_meta()),
        applied(Outcome::SessionExpired.without_meta()),
        applied(Outcome::TooManySessions.without_meta()),
        applied(Outcome::Done.with_meta(meta)),
        applied(Outcome::Sum(-3).with_meta(meta)),
        applied(Outcome::Sum(-3).with_meta(expiring)),
        applied(Outcome::NotANumber.without_meta()),
        applied(Outcome::OutOfRange.without_meta()),
        applied(Outcome::TooLarge.without_meta()),
        applied(txn.with_meta(meta)),
        applied(Outcome::Deleted { keys: 3, more: true }.without_meta()),
        read(Found::Entry(None)),
        read(Found::Entry(Some((value(), meta)))),
        read(Found::Entry(Some((value(), expiring)))),
        read(Found::Count(7)),
        read(Found::Page(Page { items: vec![Item { meta: expiring, ..item.clone() }], more: false })),
        read(Found::Page(Page { items: vec![Item { value: None, ..item.clone() }], more: false })),
        read(Found::Value(None)),
        read(Found::Value(Some(value()))),
        read(Found::Page(Page { items: vec![item.clone(), item], more: true })),
        Answer::Transferred { to: NodeId(2) },
        Answer::MembershipChanged(LogIndex(4), configuration()),
        Answer::Members(LogIndex(5), configuration()),
        Answer::Status(Box::new(status)),
        Answer::Status(Box::new(learner)),
        Answer::OutcomeUnknown,
        Answer::BackupPending(LogIndex(5)),
        Answer::BackupPart(Box::new(SnapshotPart {
            meta: SnapshotMeta { last: point(9), configuration: configuration() },
            offset: 0,
            text: Arc::from("{\"a\":1}\n"),
            end: None,
        })),
    ];
    let roles = [Role::Follower, Role::Candidate, Role::Leader];
    answers.extend(roles.map(|role| Answer::Status(Box::new(Status { role, leader: None, ..status }))));
    answers.extend(refused.map(Answer::Refused));
    answers
}

fn every_frame() -> Vec<PeerFrame> {
    let call = |id| CallId { boot: 3, request: RequestId(id) };
    let message = |body| Message { from: NodeId(1), incarnation: None, to: NodeId(2), term: Term(3), body };
    let messages = bodies().into_iter().map(|body| PeerFrame::Message(message(body)));
    let asks = requests().into_iter().map(|request| PeerFrame::Ask { call: call(1), sequence: 9, request });
    let answers = answers().into_iter().map(|answer| PeerFrame::Answer { call: call(2), answer });
    let others = [PeerFrame::Piece(vec![7, 0, 255]), PeerFrame::Ping, PeerFrame::Receipt(u64::MAX)];
    messages.chain(asks).chain(answers).chain(others).collect()
}

fn encode(frame: &PeerFrame) -> Vec<u8> {
    let mut stream = Vec::new();
    match frame {
        PeerFrame::Message(message) => push_message(&mut stream, message),
        PeerFrame::Ask { call, sequence, request } => push_ask(&mut stream, *call, *sequence, request),
        PeerFrame::Answer { call, answer } => push_answer(&mut stream, *call, answer),
        PeerFrame::Piece(piece) => push_piece(&mut stream, piece),
        PeerFrame::Ping => push_ping(&mut stream),
        PeerFrame::Receipt(read) => push_receipt(&mut stream, *read),
    }
    stream
}

#[test]
fn every_frame_survives_a_round_trip() {
    let mut buffer = FrameBuffer::default();
    for frame in every_frame() {
        buffer.push(&encode(&frame));
        let bytes = buffer.next_frame().unwrap().expect("a whole frame");
        assert_eq!(PeerFrame::read(bytes), Ok(frame));
    }
}

/// Decoding rejects these without the frame's checksum.
#[test]
fn a_truncated_or_extended_frame_is_refused() {
    for frame in every_frame() {
        let bytes = &encode(&frame)[frame::HEAD_LEN..];
        for len in 0..bytes.len() {
            assert_eq!(PeerFrame::read(&bytes[..len]), Err(FrameError::Unknown), "{frame:?} cut at {len}");
        }
        let longer = [bytes, &[0]].concat();
        assert_eq!(PeerFrame::read(&longer), Err(FrameError::Unknown), "{frame:?} and a byte");
    }
}

/// Bytes with a correct checksum are rejected or decoded; they never cause a panic, or an
/// allocation for data that did not arrive.
#[test]
fn damaged_frames_are_decoded_or_refused_without_a_panic() {
    let mut rng = fastrand::Rng::with_seed(3);
    let frames: Vec<_> =
        every_frame().iter().map(|frame| encode(frame)[frame::HEAD_LEN..].to_vec()).collect();
    for _ in 0..200_000 {
        let mut bytes = rng.choice(&frames).unwrap().clone();
        for _ in 0..rng.usize(1..4) {
            let at = rng.usize(..bytes.len());
            bytes[at] = rng.u8(..);
        }
        let _ = PeerFrame::read(&bytes);
    }
}

#[test]
fn an_entry_with_a_wrong_checksum_is_refused() {
    let body = Body::AppendEntries(append(&[&["\"key\":\"snack\"", "\"key\":\"chips\""]]));
    let message = Message { from: NodeId(1), incarnation: None, to: NodeId(2), term: Term(3), body };
    let bytes = &encode(&PeerFrame::Message(message))[frame::HEAD_LEN..];
    let at = bytes.windows(5).position(|window| window == b"chips").unwrap();
    let mut changed = bytes.to_vec();
    changed[at] = b'C';
    assert_eq!(PeerFrame::read(&changed), Err(FrameError::Unknown));
}

/// A number near the end of its range would be accepted, stored and spread, and no larger one could
/// follow it.
#[test]
fn absurd_terms_and_indexes_are_refused() {
    let read = |body| {
        let message = Message { from: NodeId(1), incarnation: None, to: NodeId(2), term: Term(3), body };
        PeerFrame::read(&encode(&PeerFrame::Message(message))[frame::HEAD_LEN..])
    };
    let vote = |last: u64, term: u64| {
        let (last_log_index, last_log_term) = (LogIndex(last), Term(term));
        let (election_term, round) = (Term(4), 1);
        Body::RequestVote(RequestVote {
            election_term,
            round,
            last_log_index,
            last_log_term,
            is_transfer: false,
        })
    };
    assert!(read(vote(LogIndex::MAX.0, Term::MAX.0)).is_ok());
    for (index, term) in [(LogIndex::MAX.0 + 1, 1), (1, Term::MAX.0 + 1), (u64::MAX, u64::MAX)] {
        assert_eq!(read(vote(index, term)), Err(FrameError::Unknown), "{index} {term}");
    }
    let commit_checksum = Some(Checksum(1));
    let beat =
        Heartbeat { leader_commit: LogIndex(u64::MAX), commit_checksum, round: ReadRound(0), elapsed: None };
    assert_eq!(read(Body::Heartbeat(beat)), Err(FrameError::Unknown));
}

#[test]
fn a_configuration_that_cannot_be_read_is_refused() {
    let read = |payload: &str| {
        let body = Body::AppendEntries(append(&[&[payload]]));
        let message = Message { from: NodeId(1), incarnation: None, to: NodeId(2), term: Term(3), body };
        PeerFrame::read(&encode(&PeerFrame::Message(message))[frame::HEAD_LEN..]).is_ok()
    };
    assert!(read(&configuration().to_payload()));
    for payload in
        [r#""op":"CONFIG","voters":[]"#, r#""op":"CONFIG","voters":[1],"who":2"#, r#""op":"CONFIG","x":1"#]
    {
        assert!(!read(payload), "{payload}");
    }
}
