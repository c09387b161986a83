//! Client-side retry and failover: sends one request to the first server of a list that answers.
//!
//! A read may be retried at the same server or at the next. A write may be retried only while it is
//! certain that no server has processed it. Once its bytes may have arrived and the reply is
//! missing, its outcome is unknown, and the error says so.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;

use crate::address::Address;
use crate::connection::{Connection, ConnectionError};
use crate::exit::Exit;
use crate::interrupt;
use crate::reply::{NotAReply, Reply};
use crate::request::{Effect, OUTCOME_UNKNOWN, Request};
use crate::tls::{Trust, TrustError};

/// A client with a list of servers, and the connection to the one that answered last.
#[derive(Debug)]
pub(crate) struct Caller {
    /// At least one.
    addresses: Vec<Address>,
    timeout: Duration,
    trust: Trust,
    /// The index of the first address to try: that of the server that answered last.
    preferred: usize,
    open: Option<Connection>,
}

/// Why a request has no reply.
#[derive(Debug, Error)]
pub(crate) enum CallError {
    /// The files that the flags name cannot be used.
    #[error(transparent)]
    Trust(Arc<TrustError>),
    /// No server answered, and no write may have taken effect.
    #[error("no server answered{0}")]
    Unanswered(Attempts),
    /// A write was sent and its reply never arrived.
    #[error("{address}: {cause}\n{OUTCOME_UNKNOWN}")]
    OutcomeUnknown { address: Address, cause: ConnectionError },
    /// An interrupt ended the wait.
    #[error("interrupted{}", if *.is_outcome_unknown { format!("\n{OUTCOME_UNKNOWN}") } else { String::new() })]
    GivenUp { is_outcome_unknown: bool },
    #[error("{address}: {cause}")]
    NotAReply { address: Address, cause: NotAReply },
}

impl CallError {
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Trust(_) => Exit::Usage,
            Self::Unanswered(attempts) if attempts.ended_in_denial() => Exit::Denied,
            Self::Unanswered(attempts) if attempts.ended_in_silence() => Exit::NoOutcome,
            Self::Unanswered(_) => Exit::Unreachable,
            Self::OutcomeUnknown { .. } => Exit::NoOutcome,
            Self::GivenUp { .. } => Exit::Interrupted,
            Self::NotAReply { .. } => Exit::Failure,
        }
    }
}

/// The failed attempts, in order.
#[derive(Debug, Default)]
pub(crate) struct Attempts(Vec<(Address, ConnectionError)>);

impl Attempts {
    /// Adds a failed attempt of a request without an effect.
    pub(crate) fn note(&mut self, address: Address, cause: ConnectionError) {
        self.0.push((address, cause));
    }

    /// Records a failed attempt; returns an error if the request must not be retried after it.
    fn record(&mut self, address: &Address, failed: Failed, effect: Effect) -> Result<(), CallError> {
        let address = address.clone();
        match (failed, effect) {
            (Failed::GivenUp { is_sent }, effect) => {
                Err(CallError::GivenUp { is_outcome_unknown: is_sent && effect == Effect::Writes })
            }
            (Failed::NotAReply(cause), _) => Err(CallError::NotAReply { address, cause }),
            (Failed::Perhaps(cause), Effect::Writes) => Err(CallError::OutcomeUnknown { address, cause }),
            (Failed::Unseen(cause), _) | (Failed::Perhaps(cause), Effect::Reads) => {
                self.0.push((address, cause));
                Ok(())
            }
        }
    }

    /// Returns whether a server was reached, and one end did not accept the other's certificate.
    fn ended_in_denial(&self) -> bool {
        self.0.iter().any(|(_, cause)| cause.is_denial())
    }

    /// Returns whether a server accepted a connection but did not reply in time. Then the error
    /// must not be "cannot connect", which would send users looking in the wrong place.
    fn ended_in_silence(&self) -> bool {
        self.0.iter().any(|(_, cause)| matches!(cause, ConnectionError::Silence { .. }))
    }
}

impl fmt::Display for Attempts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|(address, cause)| write!(f, "\n  {address}: {cause}"))?;
        let is_nobody_there = self.0.iter().all(|(_, cause)| matches!(cause, ConnectionError::Connect(_)));
        if is_nobody_there {
            f.write_str("\nIs one running? `coracle` starts one; --connect says where another is.")?;
        }
        Ok(())
    }
}

/// A failed attempt, by whether it may have had an effect.
enum Failed {
    /// The server has not processed the request.
    Unseen(ConnectionError),
    /// The server may have processed the request.
    Perhaps(ConnectionError),
    /// An interrupt ended the attempt.
    GivenUp {
        is_sent: bool,
    },
    NotAReply(NotAReply),
}

impl Caller {
    /// Creates a caller that is not connected yet. `timeout` limits every wait for a reply; zero
    /// waits forever.
    pub(crate) fn new(addresses: Vec<Address>, timeout: Duration, trust: Trust) -> Self {
        assert!(!addresses.is_empty(), "a caller needs an address");
        Self { addresses, timeout, trust, preferred: 0, open: None }
    }

    /// Returns the addresses of the servers.
    pub(crate) fn addresses(&self) -> &[Address] {
        &self.addresses
    }

    /// Opens another connection to a server.
    pub(crate) fn connect(
        &self,
        address: &Address,
        timeout: Duration,
    ) -> Result<Connection, ConnectionError> {
        Connection::open(address, timeout, &self.trust)
    }

    /// Returns the address of the server that answered last, or the first one.
    pub(crate) fn address(&self) -> &Address {
        &self.addresses[self.preferred]
    }

    /// Sends a request and waits for its reply, which may be an error reply.
    pub(crate) fn call(&mut self, request: Request<'_>) -> Result<Reply, CallError> {
        self.call_line(&request.to_line(), request.effect())
    }

    /// Sends a request line that has the given effect.
    pub(crate) fn call_line(&mut self, line: &str, effect: Effect) -> Result<Reply, CallError> {
        if interrupt::has_come() {
            return Err(CallError::GivenUp { is_outcome_unknown: false });
        }
        if let Some(error) = self.trust.error() {
            return Err(CallError::Trust(error));
        }
        let mut attempts = Attempts::default();
        let mut refused = None;
        // The open connection comes first, unless the server has closed it meanwhile.
        if let Some(connection) = self.open.take().filter(Connection::is_quiet) {
            match Self::ask(connection, line, effect) {
                Ok((reply, connection)) => {
                    self.open = Some(connection);
                    if !reply.is_worth_another_server() {
                        return Ok(reply);
                    }
                    refused = Some(reply);
                }
                Err(failed) => attempts.record(self.address(), failed, effect)?,
            }
        }
        // A broken connection does not mean that its server is down, so that server is tried again
        // on a new connection. A server that rejected the request or timed out is not tried again.
        let had_its_turn = refused.is_some() || attempts.ended_in_silence();
        for offset in usize::from(had_its_turn)..self.addresses.len() {
            let position = (self.preferred + offset) % self.addresses.len();
            let address = &self.addresses[position];
            let asked = self.open(address).and_then(|connection| Self::ask(connection, line, effect));
            match asked {
                Ok((reply, connection)) if !reply.is_worth_another_server() => {
                    self.preferred = position;
                    self.open = Some(connection);
                    return Ok(reply);
                }
                Ok((reply, _)) => refused = Some(reply),
                Err(failed) => attempts.record(address, failed, effect)?,
            }
        }
        // A server's reason for a rejection helps more than the failures of other servers to
        // answer.
        refused.ok_or(CallError::Unanswered(attempts))
    }

    fn open(&self, address: &Address) -> Result<Connection, Failed> {
        let (address, timeout, trust) = (address.clone(), self.timeout, self.trust.clone());
        let opened = interrupt::unless_given_up(move || Connection::open(&address, timeout, &trust));
        opened.ok_or(Failed::GivenUp { is_sent: false })?.map_err(Failed::Unseen)
    }

    fn ask(mut connection: Connection, line: &str, effect: Effect) -> Result<(Reply, Connection), Failed> {
        let guard = interrupt::exchange(effect, connection.socket());
        let text = connection.exchange(line);
        drop(guard);
        let text = text.map_err(|cause| match interrupt::has_come() {
            true => Failed::GivenUp { is_sent: true },
            // A server that refuses a certificate does so before it reads a request.
            false if cause.is_denial() || cause.is_plain_server() => Failed::Unseen(cause),
            false => Failed::Perhaps(cause),
        })?;
        let reply = Reply::parse(text).map_err(Failed::NotAReply)?;
        if reply.is_farewell() {
            return Err(Failed::Unseen(ConnectionError::Closed));
        }
        Ok((reply, connection))
    }
}
