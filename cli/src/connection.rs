//! A blocking TCP connection to a server: sends a request line and reads a reply line.
//!
//! It handles bytes, limits and timeouts. It does not interpret replies and never reconnects:
//! [`Caller`](crate::caller::Caller) decides whether a request may be retried.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use coracle_tls::{Fault, Session};
use thiserror::Error;

use crate::address::Address;
use crate::tls::{Stream, TokenDenied, Trust, check, fault_in};

/// The longest reply line, in bytes. Chosen because the longest page of a
/// [`Scan`](crate::commands::Scan), in which all values have the maximum size, is about half as
/// long.
pub(crate) const REPLY_BYTES_MAX: u64 = 512 << 20;

/// The longest timeout of one connection attempt, so that an unreachable address in a list does not
/// use up the whole timeout. Arbitrary, but well above the first retransmission of a lost SYN (1
/// s).
const CONNECT_TIMEOUT_MAX: Duration = Duration::from_secs(5);

/// Why a server did not answer.
#[derive(Debug, Error)]
pub(crate) enum ConnectionError {
    /// Nothing was sent.
    #[error("{0}")]
    Connect(#[source] io::Error),
    /// The name has no address.
    #[error("the name has no address")]
    NoAddress,
    /// Part of the request may have been sent.
    #[error("the connection was lost: {0}")]
    Lost(#[source] io::Error),
    /// The server closed the connection, perhaps in the middle of a reply.
    #[error("the server closed the connection without a reply")]
    Closed,
    /// The TLS session failed.
    #[error("{fault}{}", hint(.fault))]
    Tls { fault: Fault },
    /// The server does not accept the client's token.
    #[error(transparent)]
    Token(TokenDenied),
    #[error("no reply within {}", humantime::format_duration(*.waited))]
    Silence { waited: Duration },
    #[error("a reply longer than {REPLY_BYTES_MAX} bytes")]
    ReplyTooLong,
    #[error("a reply that is not UTF-8 text")]
    ReplyNotText,
}

impl ConnectionError {
    /// Returns whether one end does not accept the other's certificate or token, or one of them has
    /// none: the server has not read a request.
    pub(crate) fn is_denial(&self) -> bool {
        match self {
            Self::Tls { fault } => fault.is_of_certificates(),
            Self::Token(_) => true,
            _ => false,
        }
    }

    /// Returns whether the server speaks plain text. It has not read a request.
    pub(crate) fn is_plain_server(&self) -> bool {
        matches!(self, Self::Tls { fault: Fault::NotTls })
    }
}

/// The remedy for a fault, from the point of view of a client.
fn hint(fault: &Fault) -> &'static str {
    match fault {
        Fault::NotTls => ": connect without --tls and --tls-ca (CORACLE_TLS, CORACLE_TLS_CA)",
        Fault::UnknownAuthority => ": name the right one with --tls-ca FILE",
        Fault::Rejected(_) => ": give --tls-cert and --tls-key, made with `coracle cert client NAME`",
        _ => "",
    }
}

/// An open connection.
#[derive(Debug)]
pub(crate) struct Connection {
    reader: BufReader<Stream>,
    /// How long to wait for the server; zero waits forever.
    timeout: Duration,
}

impl Connection {
    /// Connects to the first address of the name that accepts a connection.
    pub(crate) fn open(address: &Address, timeout: Duration, trust: &Trust) -> Result<Self, ConnectionError> {
        let patience = if timeout.is_zero() { CONNECT_TIMEOUT_MAX } else { timeout.min(CONNECT_TIMEOUT_MAX) };
        let mut last = ConnectionError::NoAddress;
        for socket_address in address.to_socket_addrs().map_err(ConnectionError::Connect)? {
            match TcpStream::connect_timeout(&socket_address, patience) {
                Ok(socket) => {
                    let session = trust.call(address.host(), socket_address).transpose();
                    let session = session.map_err(|fault| ConnectionError::Tls { fault })?;
                    let mut opened =
                        Self::over(socket, session, timeout).map_err(|error| begun(error, timeout))?;
                    if let Some(token) = trust.token() {
                        let reply = opened.exchange(&token.line())?;
                        check(&reply).map_err(ConnectionError::Token)?;
                    }
                    return Ok(opened);
                }
                Err(error) => last = ConnectionError::Connect(error),
            }
        }
        Err(last)
    }

    fn over(socket: TcpStream, session: Option<Session>, timeout: Duration) -> io::Result<Self> {
        let limit = (!timeout.is_zero()).then_some(timeout);
        socket.set_read_timeout(limit)?;
        socket.set_write_timeout(limit)?;
        // A request is one small packet, and the client waits for its reply.
        socket.set_nodelay(true)?;
        Ok(Self { reader: BufReader::new(Stream::begin(socket, session)?), timeout })
    }

    /// Returns the connection's socket, so that another thread can close it.
    pub(crate) fn socket(&self) -> &TcpStream {
        self.reader.get_ref().socket()
    }

    /// Returns whether the connection is still open and no bytes have arrived since the last reply.
    /// Bytes that arrive without a request are a closing message. When a lost connection is found
    /// before a write is sent, the outcome of the write is not in doubt.
    pub(crate) fn is_quiet(&self) -> bool {
        let stream = self.socket();
        let has_bytes = !self.reader.buffer().is_empty() || self.reader.get_ref().has_plaintext();
        if has_bytes || stream.set_nonblocking(true).is_err() {
            return false;
        }
        let peeked = stream.peek(&mut [0]);
        let would_block = matches!(peeked, Err(error) if error.kind() == io::ErrorKind::WouldBlock);
        stream.set_nonblocking(false).is_ok() && would_block
    }

    /// Sends one request, which contains no line break, and returns one reply without its line
    /// break.
    pub(crate) fn exchange(&mut self, request: &str) -> Result<String, ConnectionError> {
        debug_assert!(!request.contains('\n'), "a request is one line");
        let mut line = Vec::with_capacity(request.len() + 1);
        line.extend_from_slice(request.as_bytes());
        line.push(b'\n');
        match self.reader.get_mut().write_all(&line) {
            Ok(()) => self.receive(),
            // A server that rejects a client or an oversized line sends the reason and closes the
            // connection. The reason may already have arrived here although the rest of the request
            // cannot be sent.
            Err(error) => self.receive().map_err(|_| self.fault(error)),
        }
    }

    /// Receives one line without its line break.
    pub(crate) fn receive(&mut self) -> Result<String, ConnectionError> {
        let mut line = Vec::new();
        let read = (&mut self.reader).take(REPLY_BYTES_MAX).read_until(b'\n', &mut line);
        read.map_err(|error| self.fault(error))?;
        if line.pop_if(|last| *last == b'\n').is_none() {
            let is_too_long = line.len() as u64 == REPLY_BYTES_MAX;
            return Err(if is_too_long { ConnectionError::ReplyTooLong } else { ConnectionError::Closed });
        }
        line.pop_if(|last| *last == b'\r');
        String::from_utf8(line).map_err(|_| ConnectionError::ReplyNotText)
    }

    fn fault(&self, error: io::Error) -> ConnectionError {
        if let Some(fault) = fault_in(&error) {
            return ConnectionError::Tls { fault: fault.clone() };
        }
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                ConnectionError::Silence { waited: self.timeout }
            }
            _ => ConnectionError::Lost(error),
        }
    }
}

/// The error of a connection that did not begin.
fn begun(error: io::Error, timeout: Duration) -> ConnectionError {
    if let Some(fault) = fault_in(&error) {
        return ConnectionError::Tls { fault: fault.clone() };
    }
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => ConnectionError::Silence { waited: timeout },
        _ => ConnectionError::Connect(error),
    }
}
