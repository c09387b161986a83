//! Simulated clients: their requests, the outcomes, and the log indexes that they had seen when
//! they sent each request.

use std::collections::VecDeque;

use coracle_core::kv::{ClientName, Command, Found, Key, Outcome, Page, Query, Scan, Session, Value};
use coracle_core::protocol::{SCAN_BYTES_MAX, SCAN_ITEMS_DEFAULT};
use coracle_core::proxy::{Answered, Reply, RequestError, Ticket};
use coracle_core::raft::LogIndex;
use coracle_core::{Answer, Request};

use super::dice::Dice;
use super::settings::SimSettings;

/// A request with everything that its client knows about it.
#[derive(Clone, Debug)]
pub struct Operation {
    /// The connection and the slot of the request.
    pub ticket: Ticket,
    /// The time of the first attempt, in microseconds.
    pub asked_at: u64,
    /// The key of the request; empty for a scan.
    pub key: String,
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
    },
    /// A key was read.
    Value {
        /// The applied index at which the read was answered.
        index: LogIndex,
        /// The value, if the key exists.
        value: Option<Value>,
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
            Ok(Answered::ByNode(Answer::Applied { index, outcome })) => Self::Applied { index, outcome },
            Ok(Answered::ByNode(Answer::Read { index, found: Found::Value(value) })) => {
                Self::Value { index, value }
            }
            Ok(Answered::ByNode(Answer::Read { index, found: Found::Page(page) })) => {
                Self::Page { index, page }
            }
            Ok(other) => panic!("a client was given {other:?}"),
        }
    }

    /// The log index at which the request was decided.
    #[must_use]
    pub fn index(&self) -> Option<LogIndex> {
        match self {
            Self::Applied { index, .. } | Self::Value { index, .. } | Self::Page { index, .. } => {
                Some(*index)
            }
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
    /// The number of requests with an outcome.
    pub answered: u64,
    /// The number of requests without an outcome.
    pub failed: u64,
}

#[derive(Debug, Default)]
struct Client {
    next_slot: u64,
    session: Option<OwnSession>,
    open: Vec<Operation>,
    /// Writes of its session without a known outcome, to be retried.
    kept: VecDeque<Operation>,
    seen: LogIndex,
    /// The last value that this client knows a key to have had. Its compare-and-swaps expect it.
    last_value: Option<Value>,
    /// The scan that the client reads page by page: the prefix, and the last key that it received.
    scan: Option<(String, String)>,
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
        Self { clients, acknowledged: origin, known: origin, only_read: false, answered: 0, failed: 0 }
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
        let key = Key::new(&text).expect("a short key");
        let request = match kind(dice, settings) {
            _ if only_read => Request::Read { query: Query::Value(key), at_least: client.seen },
            0 => Request::write(Command::Put { key, value: fresh_value(ticket, dice, settings) }),
            2 => Request::write(Command::Delete { key }),
            3 => {
                let expect = if dice.happens(300) { None } else { client.last_value.clone() };
                Request::write(Command::Cas { key, expect, value: fresh_value(ticket, dice, settings) })
            }
            4 => {
                let query = Query::Scan(next_page(client.scan.take(), text.clone(), dice));
                Request::Read { query, at_least: client.seen }
            }
            _ => Request::Read { query: Query::Value(key), at_least: client.seen },
        };
        let request = match (request, &mut client.session) {
            (Request::Read { query, .. }, _) if dice.happens(settings.linearizable) => {
                Request::LinearizableRead(query)
            }
            (Request::Write { command, .. }, Some(own)) => {
                Request::Write { command, session: Some(own.next()) }
            }
            (request, _) => request,
        };
        let (mut payload, mut session_write) = (None, None);
        if let Request::Write { command, session } = &request {
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
        client.open.push(Operation {
            ticket,
            asked_at: now,
            key: if scan.is_some() { String::new() } else { text },
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
            Returned::Applied { index, outcome } => {
                self.acknowledged = self.acknowledged.max(*index);
                match outcome {
                    Outcome::Mismatch { actual } => client.last_value.clone_from(actual),
                    Outcome::SessionExpired => client.take_new_name(ticket, &operation),
                    Outcome::Done | Outcome::NotFound => {}
                }
            }
            Returned::Value { value, .. } => client.last_value.clone_from(value),
            Returned::Page { page, .. } => {
                let last = page.items.last().filter(|_| page.more).map(|(key, _)| key.as_str().to_owned());
                let prefix = operation.scan.as_ref().map(|scan| scan.prefix.clone());
                client.scan = prefix.zip(last);
            }
            Returned::Failed(_) => {}
        }
        Some(operation)
    }

    /// Returns whether a request that got this reply is going to be retried.
    #[must_use]
    pub fn may_ask_again(&self, operation: &Operation, returned: &Returned) -> bool {
        operation.session_write.is_some() && matches!(returned, Returned::Failed(_)) && !self.only_read
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
    /// earlier rejection already did so.
    fn take_new_name(&mut self, ticket: Ticket, operation: &Operation) {
        let Some(Request::Write { session: Some(expired), .. }) = &operation.session_write else { return };
        if let Some(own) = self.session.as_mut().filter(|own| own.name == *expired.client()) {
            let number = usize::try_from(ticket.connection).expect("few clients") - 1;
            *own = OwnSession::new(number, own.generation + 1);
        }
    }
}

/// Draws the kind of a request by the weights.
fn kind(dice: &mut Dice, settings: &SimSettings) -> usize {
    let mut drawn = dice.below(settings.weights.iter().sum());
    for (kind, weight) in settings.weights.iter().enumerate() {
        if drawn < *weight {
            return kind;
        }
        drawn -= weight;
    }
    0
}

/// Returns the next page of the scan that a client is reading, or the first page of another scan,
/// which may begin after any key.
fn next_page(reading: Option<(String, String)>, key: String, dice: &mut Dice) -> Scan {
    let (prefix, after) = match reading {
        Some((prefix, last)) => (prefix, Some(last)),
        None => (dice.one_of(&["", "", "k", "k1"]).to_owned(), dice.happens(300).then_some(key)),
    };
    let items_max = dice.one_of(&[SCAN_ITEMS_DEFAULT, 1, 2, 7]);
    Scan { prefix, after, items_max, bytes_max: SCAN_BYTES_MAX }
}

/// Returns a value that is unique in the run.
fn fresh_value(ticket: Ticket, dice: &mut Dice, settings: &SimSettings) -> Value {
    let padding = "x".repeat(dice.below(settings.value_bytes_max + 1) as usize);
    Value::from_text(&format!("{}-{}{padding}", ticket.connection, ticket.slot)).expect("a short value")
}
