//! A client's stream to a server, encrypted or not, for blocking reads and writes.

use std::io::{self, Read, Write};
use std::net::TcpStream;

use coracle_tls::{Fault, Received, Session};

/// The most bytes read at once of an encrypted stream: one record and its frame.
const READ_BYTES: usize = 17 << 10;
/// The most plaintext that is encrypted at once.
const WRITE_BYTES: usize = 64 << 10;

/// A stream. See the module.
#[derive(Debug)]
pub(crate) struct Stream {
    socket: TcpStream,
    secured: Option<Box<Secured>>,
}

#[derive(Debug)]
struct Secured {
    session: Session,
    /// Plaintext that was not read yet, and how much of it was.
    plain: Vec<u8>,
    read: usize,
}

impl Stream {
    /// Begins a stream. With a session, performs its handshake.
    ///
    /// # Errors
    ///
    /// The error of the socket; one that holds a [`Fault`] if the session failed.
    pub(crate) fn begin(socket: TcpStream, session: Option<Session>) -> io::Result<Self> {
        let secured = match session {
            None => None,
            Some(mut session) => {
                shake_hands(&socket, &mut session)?;
                Some(Box::new(Secured { session, plain: Vec::new(), read: 0 }))
            }
        };
        Ok(Self { socket, secured })
    }

    /// The socket below the stream.
    pub(crate) fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// Returns whether plaintext has arrived that was not read yet.
    pub(crate) fn has_plaintext(&self) -> bool {
        self.secured.as_ref().is_some_and(|secured| secured.read < secured.plain.len())
    }
}

/// Performs the handshake of a client. Servers say nothing before they are asked.
///
/// # Errors
///
/// As [`Stream::begin`].
pub(crate) fn shake_hands(mut socket: &TcpStream, session: &mut Session) -> io::Result<()> {
    let (mut output, mut bytes) = (Vec::new(), [0; READ_BYTES]);
    loop {
        session.drain(&mut output);
        socket.write_all(&output)?;
        output.clear();
        if let Some(fault) = session.fault() {
            return Err(io::Error::other(fault.clone()));
        }
        if session.is_established() {
            return Ok(());
        }
        match socket.read(&mut bytes)? {
            0 => session.stream_ended(),
            len => session.receive(&bytes[..len], |_| {}),
        };
    }
}

impl Secured {
    /// Reads some bytes of the socket and decrypts them.
    fn fill(&mut self, mut socket: &TcpStream) -> io::Result<Received> {
        self.plain.clear();
        self.read = 0;
        let mut bytes = [0; READ_BYTES];
        let len = match socket.read(&mut bytes) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => 0,
            read => read?,
        };
        let Self { session, plain, .. } = self;
        Ok(match len {
            0 => session.stream_ended(),
            _ => session.receive(&bytes[..len], |plaintext| plain.extend_from_slice(plaintext)),
        })
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Self { socket, secured } = self;
        let Some(secured) = secured else { return socket.read(buffer) };
        while secured.read == secured.plain.len() {
            match secured.fill(socket)? {
                _ if !secured.plain.is_empty() => break,
                Received::Open => {}
                Received::Ended => return Ok(0),
                Received::Broken => {
                    let fault = secured.session.fault().cloned().unwrap_or(Fault::Cut);
                    return Err(io::Error::other(fault));
                }
            }
        }
        let rest = &secured.plain[secured.read..];
        let len = rest.len().min(buffer.len());
        buffer[..len].copy_from_slice(&rest[..len]);
        secured.read += len;
        Ok(len)
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Self { socket, secured } = self;
        let Some(secured) = secured else { return socket.write(bytes) };
        let bytes = &bytes[..bytes.len().min(WRITE_BYTES)];
        let mut sealed = Vec::new();
        secured.session.seal(bytes, &mut sealed).map_err(io::Error::other)?;
        socket.write_all(&sealed)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.socket.flush()
    }
}

impl Drop for Stream {
    /// Ends the session in order, as far as the socket takes it at once.
    fn drop(&mut self) {
        let Self { socket, secured } = self;
        let Some(secured) = secured else { return };
        let mut last = Vec::new();
        secured.session.close(&mut last);
        if socket.set_nonblocking(true).is_ok() {
            let _ = socket.write(&last);
        }
    }
}

/// Returns the fault of a session in an error of a [`Stream`].
pub(crate) fn fault_in(error: &io::Error) -> Option<&Fault> {
    error.get_ref()?.downcast_ref()
}
