//! Simulated clients: what they ask, what came of it, and what they had seen when they asked.

use std::collections::VecDeque;

use coracle_core::kv::{ClientName, Command, Found, Key, Outcome, Page, Query, Scan, Session, Value};
use coracle_core::protocol::{SCAN_BYTES_MAX, SCAN_ITEMS_DEFAULT};
use coracle_core::proxy::{Answered, Failure, Reply, Ticket};
use coracle_core::raft::LogIndex;
use coracle_core::{Answer, Request};

use super::dice::Dice;
use super::settings::SimSettings;

/// A request as its client knows it.
#[derive(Clone, Debug)]
pub struct Operation {
    /// Who asked, and which of its requests.
    pub ticket: Ticket,
    /// When for the first time, in microseconds.
    pub asked_at: u64,
    /// The key it is about; a scan's is empty.
    pub key: String,
    /// The page that a scan asks for.
    pub scan: Option<Scan>,
    /// A write's payload in the log.
    pub payload: Option<Box<str>>,
    /// A write of a session: it may be sent again.
    pub session_write: Option<Request>,
    /// Whether it was sent before, and no outcome of that became known.
    pub may_have_happened: bool,
    /// The highest index of a write that anybody had an answer to by then.
    pub acknowledged_before: LogIndex,
    /// Whether it is a linearizable read.
    pub is_linearizable: bool,
    /// The highest index that anybody had an answer from by then.
    pub known_before: LogIndex,
    /// The highest index that this client had seen by then.
    pub seen_before: LogIndex,
}

/// What came of a request.
#[derive(Clone, Debug)]
pub enum Returned {
    /// A write was applied.
    Applied {
        /// Where.
        index: LogIndex,
        /// What it did.
        outcome: Outcome,
    },
    /// A key was read.
    Value {
        /// Answered with everything up to here applied.
        index: LogIndex,
        /// What was found.
        value: Option<Value>,
    },
    /// Keys were read.
    Page {
        /// Answered with everything up to here applied.
        index: LogIndex,
        /// What was found.
        page: Page,
    },
    /// There was no outcome.
    Failed(Failure),
}

impl Returned {
    /// What a reply says.
    ///
    /// # Panics
    ///
    /// When the reply is none that a simulated client can get.
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

    /// The index that it was decided at.
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
    /// Whether they write nothing more.
    pub only_read: bool,
    /// How many requests had an outcome.
    pub answered: u64,
    /// How many had none.
    pub failed: u64,
}

#[derive(Debug, Default)]
struct Client {
    next_slot: u64,
    session: Option<OwnSession>,
    open: Vec<Operation>,
    /// Writes of its session without a known outcome, to be sent again.
    kept: VecDeque<Operation>,
    seen: LogIndex,
    /// The last value that it knows a key to have had: what its swaps expect.
    last_value: Option<Value>,
    /// The scan that it is reading page by page: the prefix, and the last key that it was given.
    scan: Option<(String, String)>,
}

/// What a client knows of its session.
#[derive(Debug)]
struct OwnSession {
    name: ClientName,
    /// How many names it had before.
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
    /// As many clients as the settings say.
    #[must_use]
    pub fn new(settings: &SimSettings) -> Self {
        let session = |number| (number < settings.session_clients).then(|| OwnSession::new(number, 0));
        let client = |number| Client { session: session(number), ..Client::default() };
        let clients = (0..settings.clients).map(client).collect();
        let origin = LogIndex::ORIGIN;
        Self { clients, acknowledged: origin, known: origin, only_read: false, answered: 0, failed: 0 }
    }

    /// The highest index that anybody had an answer from.
    #[must_use]
    pub fn known(&self) -> LogIndex {
        self.known
    }

    /// Whether a client may ask one more.
    #[must_use]
    pub fn may_ask(&self, client: usize, settings: &SimSettings) -> bool {
        let client = &self.clients[client];
        client.open.len() + client.kept.len() < settings.pipeline
    }

    /// How many requests have no reply yet.
    #[must_use]
    pub fn open(&self) -> usize {
        self.clients.iter().map(|client| client.open.len() + client.kept.len()).sum()
    }

    /// A client asks something new.
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

    /// A client has its reply. Returns what it had asked; `None` when it had not.
    pub fn take(&mut self, ticket: Ticket, returned: &Returned) -> Option<Operation> {
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

    /// Whether a request that had this reply is going to be sent again.
    #[must_use]
    pub fn may_ask_again(&self, operation: &Operation, returned: &Returned) -> bool {
        operation.session_write.is_some() && matches!(returned, Returned::Failed(_)) && !self.only_read
    }

    /// A client keeps a request, to send it again.
    pub fn keep(&mut self, mut operation: Operation, returned: &Returned) {
        operation.may_have_happened |=
            matches!(returned, Returned::Failed(failure) if !failure.is_definite());
        let client = usize::try_from(operation.ticket.connection).expect("few clients") - 1;
        self.clients[client].kept.push_back(operation);
    }

    /// A client sends the first request again that it kept, if there is one.
    pub fn ask_again(&mut self, client: usize) -> Option<(Ticket, Request)> {
        let client = &mut self.clients[client];
        let mut operation = client.kept.pop_front()?;
        operation.ticket.slot = client.next_slot;
        client.next_slot += 1;
        let (ticket, request) = (operation.ticket, operation.session_write.clone());
        client.open.push(operation);
        Some((ticket, request?))
    }

    /// A client will not know what became of the requests that it kept.
    pub fn give_up(&mut self, client: usize) -> VecDeque<Operation> {
        std::mem::take(&mut self.clients[client].kept)
    }
}

impl Client {
    /// A write was refused because its session has expired: a new one is due, if that was not done
    /// already.
    fn take_new_name(&mut self, ticket: Ticket, operation: &Operation) {
        let Some(Request::Write { session: Some(expired), .. }) = &operation.session_write else { return };
        if let Some(own) = self.session.as_mut().filter(|own| own.name == *expired.client()) {
            let number = usize::try_from(ticket.connection).expect("few clients") - 1;
            *own = OwnSession::new(number, own.generation + 1);
        }
    }
}

/// Which kind of request, by the weights.
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

/// The next page of the scan that a client is reading, or the first of another, which may begin
/// after any key.
fn next_page(reading: Option<(String, String)>, key: String, dice: &mut Dice) -> Scan {
    let (prefix, after) = match reading {
        Some((prefix, last)) => (prefix, Some(last)),
        None => (dice.one_of(&["", "", "k", "k1"]).to_owned(), dice.happens(300).then_some(key)),
    };
    let items_max = dice.one_of(&[SCAN_ITEMS_DEFAULT, 1, 2, 7]);
    Scan { prefix, after, items_max, bytes_max: SCAN_BYTES_MAX }
}

/// A value unlike any other of the run.
fn fresh_value(ticket: Ticket, dice: &mut Dice, settings: &SimSettings) -> Value {
    let padding = "x".repeat(dice.below(settings.value_bytes_max + 1) as usize);
    Value::from_text(&format!("{}-{}{padding}", ticket.connection, ticket.slot)).expect("a short value")
}
