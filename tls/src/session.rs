//! A TLS session: one connection's handshake, its plaintext, and its end.
//!
//! A session holds bytes only while they are of use: the part of a record that has arrived, and
//! what waits to be sent during the handshake. So ten thousand silent sessions hold keys and no
//! buffers.
//!
//! A record is not shown before all of it has arrived, and its checksum is right. So a
//! byte that was changed, lost, or sent twice on the way never reaches the plaintext: the session
//! breaks instead. An end of the stream without the message that ends a session is not an end but
//! a cut, which anyone on the way can make.

use std::fmt;

use rustls::client::UnbufferedClientConnection;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncryptError, UnbufferedStatus, WriteTraffic};

use crate::certificate::Certificate;
use crate::fault::Fault;
use crate::names::{ClientName, PeerName};
use crate::{NotOpen, Received};

/// The most bytes of a record or a handshake message that wait for their rest. Chosen above the
/// longest handshake message that is accepted, 64 KiB with its records.
pub const UNPROCESSED_BYTES_MAX: usize = 96 << 10;
/// The most bytes that wait to be sent in a handshake. Chosen above a flight with a certificate
/// chain of some ten certificates; more comes only of a peer that asks for more.
pub const OUTGOING_BYTES_MAX: usize = 64 << 10;

/// The first byte of a TLS connection: a handshake record, or an alert.
const FIRST_BYTES: [u8; 2] = [0x16, 0x15];
/// The plaintext of a record, and what a record adds to it at most.
const RECORD_BYTES: usize = 16 << 10;
const RECORD_OVERHEAD: usize = 32;

/// The state of one end of a TLS connection. See the module.
pub struct Session {
    side: Side,
    incoming: Vec<u8>,
    outgoing: Vec<u8>,
    state: State,
    has_heard: bool,
    /// Whether this end has ended its direction.
    has_closed: bool,
}

enum Side {
    Client(Box<UnbufferedClientConnection>),
    Server(Box<UnbufferedServerConnection>),
}

#[derive(Debug)]
enum State {
    Open,
    /// The other end has ended its direction.
    Ended,
    Broken(Fault),
}

/// The result of one step of the library.
enum Step {
    Again,
    Ended,
    /// Nothing more can be done with the bytes that are there.
    Blocked,
    Failed(rustls::Error),
}

impl Session {
    pub(crate) fn client(connection: UnbufferedClientConnection) -> Self {
        Self::new(Side::Client(Box::new(connection)))
    }

    pub(crate) fn server(connection: UnbufferedServerConnection) -> Self {
        Self::new(Side::Server(Box::new(connection)))
    }

    fn new(side: Side) -> Self {
        let (incoming, outgoing) = (Vec::new(), Vec::new());
        let mut session =
            Self { side, incoming, outgoing, state: State::Open, has_heard: false, has_closed: false };
        // A client speaks first.
        let _ = session.process(&mut |_| {});
        session
    }

    /// Accepts bytes from the socket, and hands out the plaintext in them, in pieces.
    pub fn receive(&mut self, bytes: &[u8], mut plaintext: impl FnMut(&[u8])) -> Received {
        if !matches!(self.state, State::Open) || bytes.is_empty() {
            return self.received();
        }
        // A server that has ended its direction answers nothing more. The library may not be shown
        // these bytes: if they are damaged, it takes the alert about them for a second end, and
        // its debug builds panic at that.
        if self.has_closed && matches!(self.side, Side::Server(_)) {
            return self.received();
        }
        if !self.has_heard && !FIRST_BYTES.contains(&bytes[0]) {
            // The bytes are those of people or of another program: an alert would not help them.
            self.outgoing = Vec::new();
            return self.broken(Fault::NotTls);
        }
        self.has_heard = true;
        self.incoming.extend_from_slice(bytes);
        match self.process(&mut plaintext) {
            Err(error) => {
                self.queue_alert();
                self.broken(error.into())
            }
            Ok(()) if self.incoming.len() > UNPROCESSED_BYTES_MAX => self.broken(Fault::TooMuch),
            Ok(()) if self.outgoing.len() > OUTGOING_BYTES_MAX => self.broken(Fault::TooMuch),
            Ok(()) => self.received(),
        }
    }

    /// Handles the end of the socket's stream.
    pub fn stream_ended(&mut self) -> Received {
        if matches!(self.state, State::Open) { self.broken(Fault::Cut) } else { self.received() }
    }

    /// Handles a handshake that takes too long.
    pub fn timed_out(&mut self) -> Received {
        if matches!(self.state, State::Open) { self.broken(Fault::Silent) } else { self.received() }
    }

    fn received(&self) -> Received {
        match self.state {
            State::Open => Received::Open,
            State::Ended => Received::Ended,
            State::Broken(_) => Received::Broken,
        }
    }

    fn broken(&mut self, fault: Fault) -> Received {
        self.incoming = Vec::new();
        self.state = State::Broken(fault);
        Received::Broken
    }

    /// Why the session cannot go on, if it cannot.
    #[must_use]
    pub fn fault(&self) -> Option<&Fault> {
        match &self.state {
            State::Broken(fault) => Some(fault),
            State::Open | State::Ended => None,
        }
    }

    /// Returns whether the handshake is complete: the other end has proven what it had to prove.
    #[must_use]
    pub fn is_established(&self) -> bool {
        let is_handshaking = match &self.side {
            Side::Client(connection) => connection.is_handshaking(),
            Side::Server(connection) => connection.is_handshaking(),
        };
        !is_handshaking && self.fault().is_none()
    }

    /// The certificate of the other end, if it has sent one that was accepted.
    fn certificate(&self) -> Option<Certificate> {
        if !self.is_established() {
            return None;
        }
        let chain = match &self.side {
            Side::Client(connection) => connection.peer_certificates(),
            Side::Server(connection) => connection.peer_certificates(),
        };
        Certificate::parse(chain?.first()?).ok()
    }

    /// The node that the other end has proven to be.
    #[must_use]
    pub fn peer(&self) -> Option<PeerName> {
        self.certificate()?.peer()
    }

    /// The client that the other end has proven to be.
    #[must_use]
    pub fn client_name(&self) -> Option<ClientName> {
        self.certificate()?.client()
    }

    /// Returns whether there are bytes to send: of the handshake, or the reason of its failure.
    #[must_use]
    pub fn has_output(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Moves the bytes to send to the end of `bytes`. Call it before [`Session::seal`], and send
    /// them first.
    pub fn drain(&mut self, bytes: &mut Vec<u8>) {
        bytes.append(&mut self.outgoing);
        self.outgoing = Vec::new();
    }

    /// Appends the encryption of `plaintext` to `sealed`. Bytes of the handshake come first, if
    /// there are any.
    ///
    /// # Errors
    ///
    /// [`NotOpen`].
    pub fn seal(&mut self, plaintext: &[u8], sealed: &mut Vec<u8>) -> Result<(), NotOpen> {
        self.write(sealed, |traffic, sealed| {
            let records = plaintext.len() / RECORD_BYTES + 2;
            append(sealed, plaintext.len() + records * RECORD_OVERHEAD, |to| traffic.encrypt(plaintext, to))
        })
    }

    /// Appends the message that ends this end's direction in order. A client may go on to receive;
    /// a server ignores what it receives from then on.
    pub fn close(&mut self, sealed: &mut Vec<u8>) {
        self.has_closed = true;
        // A session that is not open has nothing to end.
        let _ = self.write(sealed, |traffic, sealed| {
            append(sealed, 2 * RECORD_OVERHEAD, |to| traffic.queue_close_notify(to))
        });
    }

    fn write<F>(&mut self, sealed: &mut Vec<u8>, mut write: F) -> Result<(), NotOpen>
    where
        F: FnMut(&mut dyn Traffic, &mut Vec<u8>) -> Result<(), NotOpen>,
    {
        if self.fault().is_some() {
            return Err(NotOpen);
        }
        self.drain(sealed);
        loop {
            // Bytes that wait for their rest have to be shown to the library each time.
            let (incoming, mut failure) = (&mut self.incoming[..], None);
            let written = match &mut self.side {
                Side::Client(connection) => {
                    write_in(connection.process_tls_records(incoming), sealed, &mut failure, &mut write)
                }
                Side::Server(connection) => {
                    write_in(connection.process_tls_records(incoming), sealed, &mut failure, &mut write)
                }
            };
            if let Some(error) = failure {
                let _ = self.broken(Fault::from(error));
            }
            if let Some(written) = written {
                return written;
            }
        }
    }

    fn process(&mut self, plaintext: &mut dyn FnMut(&[u8])) -> Result<(), rustls::Error> {
        let mut processed = 0;
        let ended = loop {
            let (incoming, outgoing) = (&mut self.incoming[processed..], &mut self.outgoing);
            let (discard, step) = match &mut self.side {
                Side::Client(connection) => {
                    advance(connection.process_tls_records(incoming), outgoing, plaintext)
                }
                Side::Server(connection) => {
                    advance(connection.process_tls_records(incoming), outgoing, plaintext)
                }
            };
            processed += discard;
            match step {
                Step::Again if outgoing.len() > OUTGOING_BYTES_MAX => break Ok(()),
                Step::Again => {}
                Step::Blocked => break Ok(()),
                Step::Ended => {
                    self.state = State::Ended;
                    break Ok(());
                }
                Step::Failed(error) => break Err(error),
            }
        };
        self.incoming.drain(..processed);
        if self.incoming.is_empty() || matches!(self.state, State::Ended) {
            self.incoming = Vec::new();
        }
        ended
    }

    /// After a failure, queues the alert that says why, if there is one. The library is asked only
    /// while it has one: it must not see the bytes that have failed again.
    fn queue_alert(&mut self) {
        let mut nothing = |_: &[u8]| {};
        while self.outgoing.len() <= OUTGOING_BYTES_MAX {
            let (_, step) = match &mut self.side {
                Side::Client(connection) if connection.wants_write() => {
                    advance(connection.process_tls_records(&mut []), &mut self.outgoing, &mut nothing)
                }
                Side::Server(connection) if connection.wants_write() => {
                    advance(connection.process_tls_records(&mut []), &mut self.outgoing, &mut nothing)
                }
                _ => return,
            };
            if !matches!(step, Step::Again) {
                return;
            }
        }
    }
}

/// Carries out what the library says comes next. Returns how many bytes it has used.
fn advance<Data>(
    status: UnbufferedStatus<'_, '_, Data>,
    outgoing: &mut Vec<u8>,
    plaintext: &mut dyn FnMut(&[u8]),
) -> (usize, Step) {
    let mut discard = status.discard;
    let step = match status.state {
        Err(error) => Step::Failed(error),
        Ok(ConnectionState::ReadTraffic(mut traffic)) => loop {
            match traffic.next_record() {
                Some(Ok(record)) => {
                    discard += record.discard;
                    plaintext(record.payload);
                }
                Some(Err(error)) => break Step::Failed(error),
                None => break Step::Again,
            }
        },
        Ok(ConnectionState::EncodeTlsData(mut data)) => {
            match append(outgoing, RECORD_BYTES + RECORD_OVERHEAD, |to| data.encode(to)) {
                Ok(()) => Step::Again,
                Err(NotOpen) => Step::Failed(rustls::Error::EncryptError),
            }
        }
        Ok(ConnectionState::TransmitTlsData(data)) => {
            data.done();
            Step::Again
        }
        Ok(ConnectionState::PeerClosed | ConnectionState::Closed) => Step::Ended,
        Ok(_) => Step::Blocked,
    };
    (discard, step)
}

/// The two things that are sent over an open session, on either side.
trait Traffic {
    fn encrypt(&mut self, plaintext: &[u8], to: &mut [u8]) -> Result<usize, EncryptError>;
    fn queue_close_notify(&mut self, to: &mut [u8]) -> Result<usize, EncryptError>;
}

impl<Data> Traffic for WriteTraffic<'_, Data> {
    fn encrypt(&mut self, plaintext: &[u8], to: &mut [u8]) -> Result<usize, EncryptError> {
        WriteTraffic::encrypt(self, plaintext, to)
    }

    fn queue_close_notify(&mut self, to: &mut [u8]) -> Result<usize, EncryptError> {
        WriteTraffic::queue_close_notify(self, to)
    }
}

/// Writes if the library allows it now; `None`: it has something to send before.
fn write_in<Data, F>(
    status: UnbufferedStatus<'_, '_, Data>,
    sealed: &mut Vec<u8>,
    failure: &mut Option<rustls::Error>,
    write: &mut F,
) -> Option<Result<(), NotOpen>>
where
    F: FnMut(&mut dyn Traffic, &mut Vec<u8>) -> Result<(), NotOpen>,
{
    match status.state {
        Ok(ConnectionState::WriteTraffic(mut traffic)) => Some(write(&mut traffic, sealed)),
        Ok(ConnectionState::EncodeTlsData(mut data)) => {
            append(sealed, RECORD_BYTES + RECORD_OVERHEAD, |to| data.encode(to)).err().map(Err)
        }
        Ok(ConnectionState::TransmitTlsData(data)) => {
            data.done();
            None
        }
        Ok(ConnectionState::PeerClosed) => None,
        Ok(_) => Some(Err(NotOpen)),
        Err(error) => {
            *failure = Some(error);
            Some(Err(NotOpen))
        }
    }
}

/// Appends what `encode` writes into the room that it gets: first about `len` bytes, then as many
/// as it asks for.
fn append<E: Into<Shortage>>(
    to: &mut Vec<u8>,
    len: usize,
    mut encode: impl FnMut(&mut [u8]) -> Result<usize, E>,
) -> Result<(), NotOpen> {
    let start = to.len();
    let mut room = len;
    loop {
        to.resize(start + room, 0);
        match encode(&mut to[start..]).map_err(Into::into) {
            Ok(written) => {
                to.truncate(start + written);
                return Ok(());
            }
            Err(Shortage(Some(needed))) if needed > room => room = needed,
            Err(Shortage(_)) => {
                to.truncate(start);
                return Err(NotOpen);
            }
        }
    }
}

/// How many bytes were needed, if that was the reason of an error.
struct Shortage(Option<usize>);

impl From<EncryptError> for Shortage {
    fn from(error: EncryptError) -> Self {
        match error {
            EncryptError::InsufficientSize(size) => Self(Some(size.required_size)),
            EncryptError::EncryptExhausted => Self(None),
        }
    }
}

impl From<rustls::unbuffered::EncodeError> for Shortage {
    fn from(error: rustls::unbuffered::EncodeError) -> Self {
        match error {
            rustls::unbuffered::EncodeError::InsufficientSize(size) => Self(Some(size.required_size)),
            rustls::unbuffered::EncodeError::AlreadyEncoded => Self(None),
        }
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("state", &self.state).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
