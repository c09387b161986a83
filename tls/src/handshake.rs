//! The steps of a handshake and of the connection behind it that do no I/O, for callers that move
//! the bytes: what to write, when it is over, and which plaintext was handed out.
//!
//! ```text
//!   loop: drain ─► write ─► is_over? ─► read ─► received, ended or timed_out
//! ```

use crate::{ClientName, Fault, Received, Session};

/// The most bytes to read at once in a handshake, and so the most plaintext that can arrive with
/// its end.
pub const HANDSHAKE_READ_BYTES: usize = 4 << 10;

/// A handshake under way. See the module.
#[derive(Debug)]
pub struct Handshake {
    session: Session,
    early: Vec<u8>,
    is_cut: bool,
}

/// A session whose handshake is complete.
#[derive(Debug)]
pub struct Secured {
    session: Session,
    /// The plaintext that arrived together with the end of the handshake.
    early: Vec<u8>,
}

impl Handshake {
    /// Begins the handshake of a session.
    #[must_use]
    pub fn new(session: Session) -> Self {
        Self { session, early: Vec::new(), is_cut: false }
    }

    /// Moves the bytes to write to the end of `output`: also those that tell the other end why the
    /// handshake has failed.
    pub fn drain(&mut self, output: &mut Vec<u8>) {
        self.session.drain(output);
    }

    /// Returns whether the handshake is complete or has failed. The last bytes are to be written
    /// before.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.is_cut || self.session.fault().is_some() || self.session.is_established()
    }

    /// Accepts bytes that were read.
    pub fn received(&mut self, bytes: &[u8]) {
        let early = &mut self.early;
        let received = self.session.receive(bytes, |plaintext| early.extend_from_slice(plaintext));
        self.is_cut |= received == Received::Ended && !self.session.is_established();
    }

    /// Notes that the stream has ended, or failed.
    pub fn ended(&mut self) {
        self.is_cut |= self.session.stream_ended() == Received::Ended;
    }

    /// Notes that the other end takes too long.
    pub fn timed_out(&mut self) {
        let _ = self.session.timed_out();
    }

    /// The result, once the handshake is over.
    ///
    /// # Errors
    ///
    /// [`Fault`]: close the connection.
    pub fn result(self) -> Result<Secured, Fault> {
        let Self { session, early, .. } = self;
        match session.fault() {
            Some(fault) => Err(fault.clone()),
            None if session.is_established() => Ok(Secured { session, early }),
            None => Err(Fault::Cut),
        }
    }
}

impl Secured {
    /// The client that the other end has proven to be.
    #[must_use]
    pub fn client_name(&self) -> Option<ClientName> {
        self.session.client_name()
    }

    /// Returns the session, and the plaintext that arrived together with the end of the handshake.
    #[must_use]
    pub fn into_parts(self) -> (Session, Vec<u8>) {
        (self.session, self.early)
    }

    /// Returns the bytes of a line that is the last one of a connection, encrypted or not.
    #[must_use]
    pub fn last_words(secured: Option<Self>, line: &str) -> Vec<u8> {
        let Some(Self { mut session, .. }) = secured else { return line.as_bytes().to_vec() };
        let mut sealed = Vec::new();
        // A session that cannot send says nothing.
        let _ = session.seal(line.as_bytes(), &mut sealed);
        session.close(&mut sealed);
        sealed
    }
}

/// Plaintext that has arrived, and whether it was handed out.
#[derive(Clone, Debug, Default)]
pub struct Plaintext {
    bytes: Vec<u8>,
    is_given: bool,
}

impl Plaintext {
    /// Begins with the plaintext that arrived together with the end of the handshake.
    #[must_use]
    pub fn new(early: Vec<u8>) -> Self {
        Self { bytes: early, is_given: false }
    }

    /// Decrypts bytes that were read; none mean the end of the stream. Returns whether there is
    /// something to hand out: plaintext, or none at an end in order.
    ///
    /// # Errors
    ///
    /// [`Fault`], once all plaintext before it was handed out.
    pub fn open(&mut self, session: &mut Session, bytes: &[u8]) -> Result<bool, Fault> {
        if std::mem::take(&mut self.is_given) {
            self.bytes.clear();
        }
        let plain = &mut self.bytes;
        let received = match bytes {
            [] => session.stream_ended(),
            _ => session.receive(bytes, |plaintext| plain.extend_from_slice(plaintext)),
        };
        if !self.bytes.is_empty() {
            return Ok(true);
        }
        match session.fault() {
            Some(fault) => Err(fault.clone()),
            None => Ok(received != Received::Open),
        }
    }

    /// Returns whether everything that has arrived was handed out, so that more is to be read.
    #[must_use]
    pub fn is_used_up(&self) -> bool {
        self.is_given || self.bytes.is_empty()
    }

    /// Hands out what has arrived.
    pub fn hand_out(&mut self) -> &[u8] {
        self.is_given = true;
        &self.bytes
    }

    /// Keeps what was handed out last, except for the first `len` bytes of it.
    pub fn keep_after(&mut self, len: usize) {
        self.bytes.drain(..len);
        self.is_given = self.bytes.is_empty();
    }

    /// Removes what was not handed out.
    #[must_use]
    pub fn take_rest(&mut self) -> Vec<u8> {
        if std::mem::replace(&mut self.is_given, true) { Vec::new() } else { std::mem::take(&mut self.bytes) }
    }
}

#[cfg(all(test, feature = "rustls"))]
mod tests {
    use super::*;
    use crate::testing::{Authority, pair};

    /// Moves bytes until both handshakes are over.
    fn shake(one: &mut Handshake, other: &mut Handshake) {
        let mut wire = Vec::new();
        while !(one.is_over() && other.is_over()) {
            one.drain(&mut wire);
            other.received(&std::mem::take(&mut wire));
            other.drain(&mut wire);
            one.received(&std::mem::take(&mut wire));
        }
    }

    #[test]
    fn a_handshake_ends_with_a_session_and_what_came_with_its_end() {
        let authority = Authority::new("tea");
        let mut client = Handshake::new(authority.caller(None).unwrap().call("kv.example").unwrap());
        let mut server = Handshake::new(authority.client_port(false).accept().unwrap());
        let mut wire = Vec::new();
        client.drain(&mut wire);
        server.received(&std::mem::take(&mut wire));
        server.drain(&mut wire);
        client.received(&std::mem::take(&mut wire));
        client.drain(&mut wire);
        let (mut session, _) = client.result().unwrap().into_parts();
        session.seal(b"early\n", &mut wire).unwrap();
        server.received(&wire);
        let (_, early) = server.result().unwrap().into_parts();
        assert_eq!(early, b"early\n");
    }

    #[test]
    fn a_handshake_that_fails_is_over_with_its_fault() {
        let (authority, foreign) = (Authority::new("tea"), Authority::new("sea"));
        let begin = || Handshake::new(authority.client_port(false).accept().unwrap());
        let (mut client, mut server) =
            (Handshake::new(foreign.caller(None).unwrap().call("kv.example").unwrap()), begin());
        shake(&mut client, &mut server);
        assert_eq!(client.result().unwrap_err(), Fault::UnknownAuthority);
        for (happens, fault) in [
            (Handshake::ended as fn(&mut Handshake), Fault::Cut),
            (Handshake::timed_out, Fault::Silent),
            (|handshake: &mut Handshake| handshake.received(b"GET /"), Fault::NotTls),
        ] {
            let mut server = begin();
            assert!(!server.is_over());
            happens(&mut server);
            assert!(server.is_over());
            assert_eq!(server.result().unwrap_err(), fault);
        }
    }

    #[test]
    fn plaintext_is_handed_out_once_and_a_fault_after_it() {
        let (mut client, mut server) = pair();
        let mut plain = Plaintext::new(b"early".to_vec());
        assert!(!plain.is_used_up());
        assert_eq!(plain.hand_out(), b"early");
        plain.keep_after(2);
        assert_eq!((plain.is_used_up(), plain.take_rest()), (false, b"rly".to_vec()));
        assert!(plain.is_used_up() && plain.take_rest().is_empty());
        let mut wire = Vec::new();
        client.seal(b"one", &mut wire).unwrap();
        let (half, rest) = wire.split_at(10);
        assert_eq!(plain.open(&mut server, half), Ok(false), "there is none yet");
        assert_eq!(plain.open(&mut server, rest), Ok(true));
        assert_eq!(plain.hand_out(), b"one");
        wire.clear();
        client.seal(b"two", &mut wire).unwrap();
        wire.extend(b"damage");
        wire.resize(200, 0);
        assert_eq!(plain.open(&mut server, &wire), Ok(true));
        assert_eq!(plain.hand_out(), b"two");
        assert!(plain.open(&mut server, b"").is_err());
    }

    #[test]
    fn an_end_in_order_hands_out_nothing() {
        let (mut client, mut server) = pair();
        let (mut plain, mut wire) = (Plaintext::default(), Vec::new());
        client.close(&mut wire);
        assert_eq!(plain.open(&mut server, &wire), Ok(true));
        assert_eq!(plain.hand_out(), b"");
    }
}
