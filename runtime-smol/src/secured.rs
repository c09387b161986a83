//! The TLS handshake of a connection, before anything else is read from it, and the connection with
//! another node that may follow.
//!
//! The [`Session`] decides; this file moves its bytes.

use std::cell::RefCell;
use std::io;
use std::net::Shutdown;
use std::rc::Rc;

use coracle_core::host::{ClientHost, REFUSAL_TIMEOUT};
use coracle_core::peer::{GREETING_LOOK_BYTES, GreetingLine};
use coracle_core::raft::NodeId;
use coracle_tls::{Fault, HANDSHAKE_READ_BYTES, Handshake, Plaintext, Secured, Session};
use futures_lite::{AsyncReadExt, AsyncWriteExt};
use smol::net::TcpStream;

use crate::alarm::within;

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
pub(crate) async fn shake_hands(stream: &mut TcpStream, session: Session) -> Result<Secured, Fault> {
    let (mut handshake, mut output) = (Handshake::new(session), Vec::new());
    let mut bytes = vec![0; HANDSHAKE_READ_BYTES];
    loop {
        handshake.drain(&mut output);
        let is_sent = stream.write_all(&output).await.is_ok();
        output.clear();
        if handshake.is_over() {
            return handshake.result();
        }
        match if is_sent { stream.read(&mut bytes).await.unwrap_or(0) } else { 0 } {
            0 => handshake.ended(),
            len => handshake.received(&bytes[..len]),
        }
    }
}

/// Closes a rejected connection once the other end has stopped sending: closing it at once would
/// reset it, and the reason would be lost.
pub(crate) async fn leave(stream: &mut TcpStream) {
    let _ = stream.shutdown(Shutdown::Write);
    let mut rest = [0; 1024];
    let drain = async { while matches!(stream.read(&mut rest).await, Ok(1..)) {} };
    within(REFUSAL_TIMEOUT, drain).await;
}

/// A connection with another node, with its session if nodes speak TLS. Clones share the session;
/// only one of them reads.
#[derive(Clone, Debug)]
pub(crate) struct Channel {
    pub(crate) stream: TcpStream,
    session: Option<Rc<RefCell<Session>>>,
    plain: Plaintext,
}

impl Channel {
    pub(crate) fn new(stream: TcpStream, secured: Option<Secured>) -> Self {
        let (session, early) = secured.map(Secured::into_parts).unzip();
        let session = session.map(|session| Rc::new(RefCell::new(session)));
        Self { stream, session, plain: Plaintext::new(early.unwrap_or_default()) }
    }

    /// The node that the other end has proven to be.
    pub(crate) fn proven(&self) -> Option<NodeId> {
        self.session.as_ref()?.borrow().peer().map(|peer| NodeId(peer.node))
    }

    /// Returns the bytes to write for these bytes.
    pub(crate) fn seal<'a>(&self, bytes: &'a [u8], sealed: &'a mut Vec<u8>) -> io::Result<&'a [u8]> {
        let Some(session) = &self.session else { return Ok(bytes) };
        sealed.clear();
        session.borrow_mut().seal(bytes, sealed).map_err(io::Error::other)?;
        Ok(sealed)
    }

    /// Decrypts bytes that were read; `None`: there is no plaintext in them yet. No bytes, or no
    /// plaintext, mean the end.
    pub(crate) fn open<'a>(&'a mut self, bytes: &'a [u8]) -> io::Result<Option<&'a [u8]>> {
        let Self { session, plain, .. } = self;
        let Some(session) = session else { return Ok(Some(bytes)) };
        let is_due = plain.open(&mut session.borrow_mut(), bytes).map_err(io::Error::other)?;
        Ok(is_due.then(|| plain.hand_out()))
    }

    /// The plaintext that arrived with the handshake and was not handed out, if there is any.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        self.plain.take_rest()
    }

    /// Reads some plaintext; none at the end of the stream. `buffer` is for the bytes as they
    /// arrive.
    pub(crate) async fn read<'a>(&'a mut self, buffer: &'a mut [u8]) -> io::Result<&'a [u8]> {
        if self.session.is_none() {
            let len = self.stream.read(buffer).await?;
            return Ok(&buffer[..len]);
        }
        if self.plain.is_used_up() {
            loop {
                let len = self.stream.read(buffer).await?;
                if self.open(&buffer[..len])?.is_some() {
                    break;
                }
            }
        }
        Ok(self.plain.hand_out())
    }

    pub(crate) async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut sealed = Vec::new();
        let sealed = self.seal(bytes, &mut sealed)?;
        self.stream.write_all(sealed).await
    }

    /// Reads the line of a handshake without its line break, and no byte that follows it.
    pub(crate) async fn read_line(&mut self) -> io::Result<Vec<u8>> {
        let mut line = GreetingLine::default();
        if self.session.is_some() {
            let mut buffer = vec![0; HANDSHAKE_READ_BYTES];
            while !line.is_whole() {
                let taken = line.look(self.read(&mut buffer).await?)?;
                self.plain.keep_after(taken);
            }
            return Ok(line.into_bytes());
        }
        let mut bytes = [0; GREETING_LOOK_BYTES];
        while !line.is_whole() {
            let len = self.stream.peek(&mut bytes).await?;
            let taken = line.look(&bytes[..len])?;
            self.stream.read_exact(&mut bytes[..taken]).await?;
        }
        Ok(line.into_bytes())
    }
}
