//! The TLS handshake of a connection, before anything else is read from it, and the connection with
//! another node that may follow.
//!
//! The [`Session`] decides; this file moves its bytes.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Mutex};

use coracle_core::host::ClientHost;
use coracle_core::peer::{GREETING_LOOK_BYTES, GreetingLine};
use coracle_core::raft::NodeId;
use coracle_tls::{Fault, Received, Session};

use crate::link::{Patience, no_answer};
use crate::threads::{is_timeout, lock};

/// The most bytes read at once in a handshake, and so the most plaintext that can arrive with its
/// end.
const HANDSHAKE_READ_BYTES: usize = 4 << 10;

/// A session whose handshake is complete.
#[derive(Debug)]
pub(crate) struct Secured {
    pub(crate) session: Session,
    /// The plaintext that arrived together with the end of the handshake.
    pub(crate) early: Vec<u8>,
}

impl Secured {
    /// Lets a client begin: with the name that it has proven, and the bytes that it has sent.
    pub(crate) fn enter(self, client: &mut ClientHost) -> Session {
        if let Some(proven) = self.session.client_name() {
            client.certified(&proven.name);
        }
        client.received(&self.early);
        self.session
    }

    /// Returns the bytes of a line that is the last one of a connection.
    pub(crate) fn last_words(secured: Option<Self>, line: &str) -> Vec<u8> {
        let Some(mut secured) = secured else { return line.as_bytes().to_vec() };
        let mut sealed = Vec::new();
        // A session that cannot send says nothing.
        let _ = secured.session.seal(line.as_bytes(), &mut sealed);
        secured.session.close(&mut sealed);
        sealed
    }
}

/// Performs the handshake. The other end is told why it failed, if that can be told.
///
/// # Errors
///
/// [`Fault`]: close the connection.
pub(crate) fn shake_hands(
    mut stream: &TcpStream,
    mut session: Session,
    patience: &Patience,
) -> Result<Secured, Fault> {
    let (mut early, mut output) = (Vec::new(), Vec::new());
    let mut bytes = vec![0; HANDSHAKE_READ_BYTES];
    loop {
        session.drain(&mut output);
        let left = patience.left().map_err(|_| Fault::Silent)?;
        let can_wait = stream.set_read_timeout(Some(left)).and(stream.set_write_timeout(Some(left)));
        let is_sent = can_wait.and_then(|()| stream.write_all(&output)).is_ok();
        output.clear();
        if let Some(fault) = session.fault() {
            return Err(fault.clone());
        }
        if session.is_established() {
            return Ok(Secured { session, early });
        }
        let read = if is_sent { stream.read(&mut bytes) } else { Ok(0) };
        let received = match read {
            Ok(len @ 1..) => session.receive(&bytes[..len], |plaintext| early.extend_from_slice(plaintext)),
            Err(error) if is_timeout(&error) => session.timed_out(),
            Ok(0) | Err(_) => session.stream_ended(),
        };
        if received == Received::Ended && !session.is_established() {
            return Err(Fault::Cut);
        }
    }
}

/// Closes a rejected connection once the other end has stopped sending: closing it at once would
/// reset it, and the reason would be lost.
pub(crate) fn leave(mut stream: &TcpStream, patience: &Patience) {
    let mut rest = [0; 1024];
    let _ = stream.shutdown(Shutdown::Write);
    while let Ok(left) = patience.left()
        && stream.set_read_timeout(Some(left)).is_ok()
        && matches!(stream.read(&mut rest), Ok(1..))
    {}
}

/// A connection with another node, with its session if nodes speak TLS. Clones share the session;
/// only one of them reads.
#[derive(Clone, Debug)]
pub(crate) struct Channel {
    pub(crate) stream: Arc<TcpStream>,
    session: Option<Arc<Mutex<Session>>>,
    /// Plaintext that has arrived, and whether it was handed out already.
    plain: Vec<u8>,
    is_given: bool,
}

impl Channel {
    pub(crate) fn new(stream: Arc<TcpStream>, secured: Option<Secured>) -> Self {
        let (session, plain) = match secured {
            Some(Secured { session, early }) => (Some(Arc::new(Mutex::new(session))), early),
            None => (None, Vec::new()),
        };
        Self { stream, session, plain, is_given: false }
    }

    /// The node that the other end has proven to be.
    pub(crate) fn proven(&self) -> Option<NodeId> {
        lock(self.session.as_ref()?).peer().map(|peer| NodeId(peer.node))
    }

    /// Returns the bytes to write for these bytes.
    pub(crate) fn seal<'a>(&self, bytes: &'a [u8], sealed: &'a mut Vec<u8>) -> io::Result<&'a [u8]> {
        let Some(session) = &self.session else { return Ok(bytes) };
        sealed.clear();
        lock(session).seal(bytes, sealed).map_err(io::Error::other)?;
        Ok(sealed)
    }

    /// Decrypts bytes that were read; `None`: there is no plaintext in them yet. No bytes, or no
    /// plaintext, mean the end.
    pub(crate) fn open<'a>(&'a mut self, bytes: &'a [u8]) -> io::Result<Option<&'a [u8]>> {
        let Self { session, plain, is_given, .. } = self;
        let Some(session) = session else { return Ok(Some(bytes)) };
        if std::mem::take(is_given) {
            plain.clear();
        }
        let mut session = lock(session);
        let received = match bytes {
            [] => session.stream_ended(),
            _ => session.receive(bytes, |plaintext| plain.extend_from_slice(plaintext)),
        };
        if received == Received::Open && plain.is_empty() {
            return Ok(None);
        }
        if let Some(fault) = session.fault().filter(|_| plain.is_empty()) {
            return Err(io::Error::other(fault.clone()));
        }
        *is_given = true;
        Ok(Some(plain))
    }

    /// Reads some plaintext; none at the end of the stream. `buffer` is for the bytes as they
    /// arrive.
    pub(crate) fn read<'a>(&'a mut self, buffer: &'a mut [u8]) -> io::Result<&'a [u8]> {
        if self.session.is_none() {
            let len = (&*self.stream).read(buffer)?;
            return Ok(&buffer[..len]);
        }
        if self.is_given || self.plain.is_empty() {
            loop {
                let len = (&*self.stream).read(buffer)?;
                if self.open(&buffer[..len])?.is_some() {
                    break;
                }
            }
        }
        self.is_given = true;
        Ok(&self.plain)
    }

    pub(crate) fn write_all(&self, bytes: &[u8]) -> io::Result<()> {
        let mut sealed = Vec::new();
        (&*self.stream).write_all(self.seal(bytes, &mut sealed)?)
    }

    /// Reads the line of a handshake without its line break, and no byte that follows it.
    pub(crate) fn read_line(&mut self, patience: &Patience) -> io::Result<Vec<u8>> {
        let mut line = GreetingLine::default();
        if self.session.is_some() {
            let mut buffer = vec![0; HANDSHAKE_READ_BYTES];
            while !line.is_whole() {
                self.stream.set_read_timeout(Some(patience.left()?))?;
                let taken = line.look(self.read(&mut buffer).map_err(no_answer)?)?;
                self.plain.drain(..taken);
                self.is_given = self.plain.is_empty();
            }
            return Ok(line.into_bytes());
        }
        let mut bytes = [0; GREETING_LOOK_BYTES];
        while !line.is_whole() {
            self.stream.set_read_timeout(Some(patience.left()?))?;
            let len = self.stream.peek(&mut bytes).map_err(no_answer)?;
            let taken = line.look(&bytes[..len])?;
            (&*self.stream).read_exact(&mut bytes[..taken]).map_err(no_answer)?;
        }
        Ok(line.into_bytes())
    }

    /// Writes the line of a handshake.
    pub(crate) fn write_line(&self, line: &[u8], patience: &Patience) -> io::Result<()> {
        self.stream.set_write_timeout(Some(patience.left()?))?;
        self.write_all(line).map_err(no_answer)
    }
}
