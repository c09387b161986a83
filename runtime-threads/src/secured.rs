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
use coracle_tls::{Fault, HANDSHAKE_READ_BYTES, Handshake, Plaintext, Secured, Session};

use crate::link::{Patience, no_answer};
use crate::threads::{is_timeout, lock};

/// Lets a client begin: with the name that it has proven, and the bytes that it has sent.
pub(crate) fn enter(secured: Secured, client: &mut ClientHost) -> Session {
    if let Some(proven) = secured.client_name() {
        client.certified(&proven.name);
    }
    let (session, early) = secured.into_parts();
    client.received(&early);
    session
}

/// Performs the handshake. The other end is told why it failed, if that can be told.
///
/// # Errors
///
/// [`Fault`]: close the connection.
pub(crate) fn shake_hands(
    mut stream: &TcpStream,
    session: Session,
    patience: &Patience,
) -> Result<Secured, Fault> {
    let (mut handshake, mut output) = (Handshake::new(session), Vec::new());
    let mut bytes = vec![0; HANDSHAKE_READ_BYTES];
    loop {
        handshake.drain(&mut output);
        let left = patience.left().map_err(|_| Fault::Silent)?;
        let can_wait = stream.set_read_timeout(Some(left)).and(stream.set_write_timeout(Some(left)));
        let is_sent = can_wait.and_then(|()| stream.write_all(&output)).is_ok();
        output.clear();
        if handshake.is_over() {
            return handshake.result();
        }
        match if is_sent { stream.read(&mut bytes) } else { Ok(0) } {
            Ok(len @ 1..) => handshake.received(&bytes[..len]),
            Err(error) if is_timeout(&error) => handshake.timed_out(),
            Ok(0) | Err(_) => handshake.ended(),
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
    plain: Plaintext,
}

impl Channel {
    pub(crate) fn new(stream: Arc<TcpStream>, secured: Option<Secured>) -> Self {
        let (session, early) = secured.map(Secured::into_parts).unzip();
        let session = session.map(|session| Arc::new(Mutex::new(session)));
        Self { stream, session, plain: Plaintext::new(early.unwrap_or_default()) }
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
        let Self { session, plain, .. } = self;
        let Some(session) = session else { return Ok(Some(bytes)) };
        let is_due = plain.open(&mut lock(session), bytes).map_err(io::Error::other)?;
        Ok(is_due.then(|| plain.hand_out()))
    }

    /// Reads some plaintext; none at the end of the stream. `buffer` is for the bytes as they
    /// arrive.
    pub(crate) fn read<'a>(&'a mut self, buffer: &'a mut [u8]) -> io::Result<&'a [u8]> {
        if self.session.is_none() {
            let len = (&*self.stream).read(buffer)?;
            return Ok(&buffer[..len]);
        }
        if self.plain.is_used_up() {
            loop {
                let len = (&*self.stream).read(buffer)?;
                if self.open(&buffer[..len])?.is_some() {
                    break;
                }
            }
        }
        Ok(self.plain.hand_out())
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
                self.plain.keep_after(taken);
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
