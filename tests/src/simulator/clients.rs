//! Simulated clients: what they ask, what came of it, and what they had seen when they asked.

use coracle_core::kv::{Command, Found, Key, Outcome, Query, Scan, Value};
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
    /// When, in microseconds.
    pub asked_at: u64,
    /// The key it is about; a scan's is empty.
    pub key: String,
    /// A write's payload in the log.
    pub payload: Option<Box<str>>,
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
        items: Vec<(Key, Value)>,
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
                Self::Page { index, items: page.items }
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
    open: Vec<Operation>,
    seen: LogIndex,
    /// The last value that it knows a key to have had: what its swaps expect.
    last_value: Option<Value>,
}

impl Clients {
    /// So many clients.
    #[must_use]
    pub fn new(count: usize) -> Self {
        let clients = (0..count).map(|_| Client::default()).collect();
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
        self.clients[client].open.len() < settings.pipeline
    }

    /// How many requests have no reply yet.
    #[must_use]
    pub fn open(&self) -> usize {
        self.clients.iter().map(|client| client.open.len()).sum()
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
                let scan =
                    Scan { prefix: String::new(), after: None, items_max: usize::MAX, bytes_max: usize::MAX };
                Request::Read { query: Query::Scan(scan), at_least: client.seen }
            }
            _ => Request::Read { query: Query::Value(key), at_least: client.seen },
        };
        let request = match request {
            Request::Read { query, .. } if dice.happens(settings.linearizable) => {
                Request::LinearizableRead(query)
            }
            other => other,
        };
        let payload = match &request {
            Request::Write { command, session } => {
                let mut payload = String::new();
                command.write_payload(session.as_ref(), &mut payload);
                Some(payload.into_boxed_str())
            }
            _ => None,
        };
        client.open.push(Operation {
            ticket,
            asked_at: now,
            key: text,
            payload,
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
                if let Outcome::Mismatch { actual } = outcome {
                    client.last_value.clone_from(actual);
                }
            }
            Returned::Value { value, .. } => client.last_value.clone_from(value),
            Returned::Page { .. } | Returned::Failed(_) => {}
        }
        Some(operation)
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

/// A value unlike any other of the run.
fn fresh_value(ticket: Ticket, dice: &mut Dice, settings: &SimSettings) -> Value {
    let padding = "x".repeat(dice.below(settings.value_bytes_max + 1) as usize);
    Value::from_text(&format!("{}-{}{padding}", ticket.connection, ticket.slot)).expect("a short value")
}
