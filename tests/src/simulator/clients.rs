//! Simulated clients: their requests, the outcomes, and the log indexes that they had seen when
//! they sent each request.

use std::collections::VecDeque;

use coracle_core::kv::{
    ClientName, Command, Found, KeyMeta, Outcome, Page, Query, Revision, Scan, Session, Value,
};
use coracle_core::proxy::{Answered, Reply, RequestError, Ticket};
use coracle_core::raft::LogIndex;
use coracle_core::{Answer, Request};

use super::dice::Dice;
use super::drawing::touched;
use super::settings::{KEPT_FOR_RETRIES, SimSettings};

/// A request with everything that its client knows about it.
#[derive(Clone, Debug)]
pub struct Operation {
    /// The connection and the slot of the request.
    pub ticket: Ticket,
    /// The time of the first attempt, in microseconds.
    pub asked_at: u64,
    /// The key of the request; empty if it is not about a single key.
    pub key: String,
    /// The keys that the request touches, each with whether it may write it; `None` for all keys.
    pub keys: Option<Vec<(String, bool)>>,
    /// The page that a scan requests.
    pub scan: Option<Scan>,
    /// A write's payload in the log.
    pub payload: Option<Box<str>>,
    /// The request, if it is a write of a session, which may be retried.
    pub session_write: Option<Request>,
    /// Whether an earlier attempt was sent whose outcome is unknown.
    pub may_have_happened: bool,
    /// The highest index of a write that was acknowledged to any client before this request.
    pub acknowledged_before: LogIndex,
    /// Whether the request is a linearizable read.
    pub is_linearizable: bool,
    /// The highest index of any answer to any client before this request.
    pub known_before: LogIndex,
    /// The highest index that this client had seen before this request.
    pub seen_before: LogIndex,
}

/// The outcome of a request.
#[derive(Clone, Debug)]
pub enum Returned {
    /// A write was applied.
    Applied {
        /// The log index of the write.
        index: LogIndex,
        /// The outcome that the state machine decided.
        outcome: Outcome,
        /// The revisions of the key.
        meta: KeyMeta,
    },
    /// A key was read.
    Value {
        /// The applied index at which the read was answered.
        index: LogIndex,
        /// The value, if the key exists.
        value: Option<Value>,
    },
    /// A key was read with its revisions.
    Entry {
        /// The applied index at which the read was answered.
        index: LogIndex,
        /// The value and the revisions, if the key exists.
        entry: Option<(Value, KeyMeta)>,
    },
    /// Keys were counted.
    Count {
        /// The applied index at which the count was answered.
        index: LogIndex,
        /// The number of keys.
        keys: u64,
    },
    /// Keys were read.
    Page {
        /// The applied index at which the scan was answered.
        index: LogIndex,
        /// The page that was returned.
        page: Page,
    },
    /// The request failed.
    Failed(RequestError),
}

impl Returned {
    /// Converts a reply of the router.
    ///
    /// # Panics
    ///
    /// When a simulated client cannot get such a reply.
    #[must_use]
    pub fn from_reply(reply: Reply) -> Self {
        match reply {
            Err(failure) => Self::Failed(failure),
            Ok(Answered::ByNode(Answer::Applied { index, outcome, meta })) => {
                Self::Applied { index, outcome, meta }
            }
            Ok(Answered::ByNode(Answer::Read { index, found })) => match found {
                Found::Value(value) => Self::Value { index, value },
                Found::Entry(entry) => Self::Entry { index, entry },
                Found::Page(page) => Self::Page { index, page },
                Found::Count(keys) => Self::Count { index, keys },
            },
            Ok(other) => panic!("a client was given {other:?}"),
        }
    }

    /// The log index at which the request was decided.
    #[must_use]
    pub fn index(&self) -> Option<LogIndex> {
        match self {
            Self::Applied { index, .. }
            | Self::Value { index, .. }
            | Self::Entry { index, .. }
            | Self::Page { index, .. }
            | Self::Count { index, .. } => Some(*index),
            Self::Failed(_) => None,
        }
    }
}

/// All clients of a run.
#[derive(Debug)]
pub struct Clients {
    clients: Vec<Client>,
    /// The highest index of an acknowledged write.
    acknowledged: LogIndex,
    /// The highest index of any answer.
    known: LogIndex,
    /// Whether clients send no more writes.
    pub only_read: bool,
    /// Whether clients retry the writes of their sessions. If forgotten clients are soon taken for
    /// new ones, they must not: a retry may come too late.
    pub retries: bool,
    /// The number of requests with an outcome.
    pub answered: u64,
    /// The number of requests without an outcome.
    pub failed: u64,
}

#[derive(Debug, Default)]
pub(super) struct Client {
    next_slot: u64,
    session: Option<OwnSession>,
    open: Vec<Operation>,
    /// Writes of its session without a known outcome, to be retried.
    kept: VecDeque<Operation>,
    pub(super) seen: LogIndex,
    /// The last value that this client knows a key to have had. Its compare-and-swaps expect it.
    pub(super) last_value: Option<Value>,
    /// The last revision that this client knows a key to have had. Its conditions expect it.
    pub(super) last_rev: Revision,
    /// The next page of the scan that the client reads page by page.
    pub(super) scan: Option<Scan>,
}

/// The session of a client, as the client knows it.
#[derive(Debug)]
struct OwnSession {
    name: ClientName,
    /// The number of names that this client used before.
    generation: u64,
    next_seq: u64,
}

impl OwnSession {
    fn new(client: usize, generation: u64) -> Self {
        let name = ClientName::new(&format!("c{client}/{generation}")).expect("a short name");
        Self { name, generation, next_seq: 0 }
    }

    fn next(&mut self) -> Session {
        let seq = self.next_seq;
        self.next_seq += 1;
        Session::new(self.name.clone(), seq).expect("a run is short")
    }
}

impl Clients {
    /// Creates as many clients as the settings say.
    #[must_use]
    pub fn new(settings: &SimSettings) -> Self {
        let session = |number| (number < settings.session_clients).then(|| OwnSession::new(number, 0));
        let client = |number| Client { session: session(number), ..Client::default() };
        let clients = (0..settings.clients).map(client).collect();
        let origin = LogIndex::ORIGIN;
        let retries = settings.session_limits.kept_for >= KEPT_FOR_RETRIES;
        Self {
            clients,
            acknowledged: origin,
            known: origin,
            only_read: false,
            retries,
            answered: 0,
            failed: 0,
        }
    }

    /// The highest index of any answer to any client.
    #[must_use]
    pub fn known(&self) -> LogIndex {
        self.known
    }

    /// Returns whether a client may send one more request.
    #[must_use]
    pub fn may_ask(&self, client: usize, settings: &SimSettings) -> bool {
        let client = &self.clients[client];
        client.open.len() + client.kept.len() < settings.pipeline
    }

    /// The number of requests that have no reply yet.
    #[must_use]
    pub fn open(&self) -> usize {
        self.clients.iter().map(|client| client.open.len() + client.kept.len()).sum()
    }

    /// Draws a new request of a client.
    pub fn ask(
        &mut self,
        number: usize,
        now: u64,
        dice: &mut Dice,
        settings: &SimSettings,
    ) -> (Ticket, Request) {
        let (acknowledged, known, only_read) = (self.acknowledged, self.known, self.only_read);
        let client = &mut self.clients[number];
        let ticket = Ticket { connection: number as u64 + 1, slot: client.next_slot };
        client.next_slot += 1;
        let text = format!("k{}", dice.below(settings.keys));
        let request = client.draw(&text, ticket, dice, settings, only_read);
        let request = match (request, &mut client.session) {
            (Request::Read { query, .. }, _) if dice.happens(settings.linearizable) => {
                Request::LinearizableRead(query)
            }
            (Request::Write { command, wants_meta, .. }, Some(own)) => {
                Request::Write { command, session: Some(own.next()), wants_meta }
            }
            (request, _) => request,
        };
        let (mut payload, mut session_write) = (None, None);
        if let Request::Write { command, session, .. } = &request {
            let mut text = String::new();
            command.write_payload(session.as_ref(), &mut text);
            payload = Some(text.into_boxed_str());
            session_write = session.is_some().then(|| request.clone());
        }
        let scan = match &request {
            Request::Read { query: Query::Scan(scan), .. } | Request::LinearizableRead(Query::Scan(scan)) => {
                Some(scan.clone())
            }
            _ => None,
        };
        let keys = touched(&request);
        let key = match keys.as_deref() {
            Some([(key, _)]) if !matches!(&request, Request::Write { command: Command::Txn(_), .. }) => {
                key.clone()
            }
            _ => String::new(),
        };
        client.open.push(Operation {
            ticket,
            asked_at: now,
            key,
            keys,
            scan,
            payload,
            session_write,
            may_have_happened: false,
            acknowledged_before: acknowledged,
            is_linearizable: matches!(request, Request::LinearizableRead(_)),
            known_before: known,
            seen_before: client.seen,
        });
        (ticket, request)
    }

    /// Records the reply to a client's request. Returns the request; `None` when there is no such
    /// request.
    pub fn remove(&mut self, ticket: Ticket, returned: &Returned) -> Option<Operation> {
        let client = self.clients.get_mut(usize::try_from(ticket.connection.checked_sub(1)?).ok()?)?;
        let position = client.open.iter().position(|operation| operation.ticket == ticket)?;
        let operation = client.open.swap_remove(position);
        match returned.index() {
            Some(index) => {
                self.known = self.known.max(index);
                client.seen = client.seen.max(index);
                self.answered += 1;
            }
            None => self.failed += 1,
        }
        match returned {
            Returned::Applied { index, outcome, meta } => {
                self.acknowledged = self.acknowledged.max(*index);
                client.last_rev = meta.rev;
                match outcome {
                    Outcome::Mismatch { actual } => client.last_value.clone_from(actual),
                    Outcome::SessionExpired => client.take_new_name(ticket, &operation, self.retries),
                    _ => {}
                }
            }
            Returned::Value { value, .. } => client.last_value.clone_from(value),
            Returned::Entry { entry, .. } => {
                client.last_rev = entry.as_ref().map_or(Revision::NONE, |(_, meta)| meta.rev);
            }
            Returned::Count { .. } => {}
            Returned::Page { page, .. } => {
                let last = page.items.last().filter(|_| page.more).map(|item| item.key.as_str().to_owned());
                let scan = operation.scan.as_ref();
                client.scan = scan.zip(last).map(|(scan, last)| Scan { after: Some(last), ..scan.clone() });
            }
            Returned::Failed(_) => {}
        }
        Some(operation)
    }

    /// Returns whether a request that got this reply is going to be retried.
    #[must_use]
    pub fn may_ask_again(&self, operation: &Operation, returned: &Returned) -> bool {
        let is_write = operation.session_write.is_some() && matches!(returned, Returned::Failed(_));
        is_write && self.retries && !self.only_read
    }

    /// Keeps a request of a client for a retry.
    pub fn keep(&mut self, mut operation: Operation, returned: &Returned) {
        operation.may_have_happened |=
            matches!(returned, Returned::Failed(failure) if !failure.is_definite());
        let client = usize::try_from(operation.ticket.connection).expect("few clients") - 1;
        self.clients[client].kept.push_back(operation);
    }

    /// Sends the first request again that a client keeps for a retry, if there is one.
    pub fn ask_again(&mut self, client: usize) -> Option<(Ticket, Request)> {
        let client = &mut self.clients[client];
        let mut operation = client.kept.pop_front()?;
        operation.ticket.slot = client.next_slot;
        client.next_slot += 1;
        let (ticket, request) = (operation.ticket, operation.session_write.clone());
        client.open.push(operation);
        Some((ticket, request?))
    }

    /// Drops the requests that a client keeps for a retry, and returns them. Their outcomes stay
    /// unknown.
    pub fn give_up(&mut self, client: usize) -> VecDeque<Operation> {
        std::mem::take(&mut self.clients[client].kept)
    }
}

impl Client {
    /// Starts a new session after a write was rejected because the old one has expired, unless an
    /// earlier rejection already did so. A client that does not retry its writes mostly keeps its
    /// name, so that some come back once they are taken for new ones.
    fn take_new_name(&mut self, ticket: Ticket, operation: &Operation, retries: bool) {
        let Some(Request::Write { session: Some(expired), .. }) = &operation.session_write else { return };
        if !retries && !expired.seq().is_multiple_of(8) {
            return;
        }
        if let Some(own) = self.session.as_mut().filter(|own| own.name == *expired.client()) {
            let number = usize::try_from(ticket.connection).expect("few clients") - 1;
            *own = OwnSession::new(number, own.generation + 1);
        }
    }
}
