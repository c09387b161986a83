//! Two sessions, the streams between them, and the property that holds whatever happens to the
//! streams.

use coracle_tls::{Received, Session};

use super::credentials::{HOST, credentials};

/// Which two sessions talk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A client and a port that asks for no certificate.
    Client,
    /// A client with a certificate, and a port that needs one.
    MutualClient,
    /// Node 1, which dials, and node 2.
    Nodes,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 3] = [Self::Client, Self::MutualClient, Self::Nodes];
}

/// One of the two sessions: the one that has dialled, or the one that has accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The session that has dialled.
    Dialler,
    /// The session that has accepted.
    Acceptor,
}

impl End {
    fn index(self) -> usize {
        usize::from(self == Self::Acceptor)
    }

    /// The other one.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::Dialler => Self::Acceptor,
            Self::Acceptor => Self::Dialler,
        }
    }
}

/// A fault of the stream.
#[derive(Clone, Copy, Debug)]
pub enum Damage {
    /// A bit is flipped.
    Flip(u32),
    /// Some bytes are lost.
    Drop(usize),
    /// Some bytes arrive twice.
    Double(usize),
    /// Bytes from the beginning of the stream arrive once more.
    Replay(usize),
    /// A byte is inserted.
    Insert(u8),
}

/// The stream from one session to the other.
#[derive(Debug, Default)]
struct Way {
    /// Encrypted bytes that have not arrived yet.
    wire: Vec<u8>,
    /// The first bytes that were ever sent.
    recorded: Vec<u8>,
    /// The plaintext that was sent, and how much of it has arrived.
    sent: Vec<u8>,
    heard: usize,
    is_closed: bool,
    is_cut: bool,
    is_damaged: bool,
}

/// The most bytes of a stream that are recorded. Chosen above a handshake and some records.
const RECORDED_MAX: usize = 8 << 10;

/// Two sessions. See the module.
#[derive(Debug)]
pub struct Conversation {
    kind: Kind,
    sessions: [Session; 2],
    ways: [Way; 2],
}

impl Conversation {
    /// Begins a conversation, before its handshake.
    ///
    /// # Panics
    ///
    /// When a session cannot begin.
    #[must_use]
    pub fn begin(kind: Kind) -> Self {
        let made = credentials();
        let sessions = match kind {
            Kind::Client => [made.caller.call(HOST), made.open_port.accept()],
            Kind::MutualClient => [made.caller.call(HOST), made.mutual_port.accept()],
            Kind::Nodes => [made.nodes[0].dial(), made.nodes[1].accept()],
        };
        let sessions = sessions.map(|session| session.expect("a session can begin"));
        Self { kind, sessions, ways: [Way::default(), Way::default()] }
    }

    /// Moves the bytes of the handshakes in both directions until neither has more.
    pub fn shake_hands(&mut self) {
        while self.collect(End::Dialler) | self.collect(End::Acceptor) {
            self.deliver(End::Dialler, usize::MAX, |_| {});
            self.deliver(End::Acceptor, usize::MAX, |_| {});
        }
    }

    /// Returns whether a session has completed its handshake.
    #[must_use]
    pub fn is_established(&self, end: End) -> bool {
        self.sessions[end.index()].is_established()
    }

    /// Moves what a session has to send into its stream. Returns whether there was anything.
    pub fn collect(&mut self, from: End) -> bool {
        let (session, way) = (&mut self.sessions[from.index()], &mut self.ways[from.index()]);
        let before = way.wire.len();
        session.drain(&mut way.wire);
        way.note(before)
    }

    /// Sends plaintext, if the session can send.
    pub fn say(&mut self, from: End, text: &[u8]) {
        let (session, way) = (&mut self.sessions[from.index()], &mut self.ways[from.index()]);
        let before = way.wire.len();
        if !way.is_closed && session.is_established() && session.seal(text, &mut way.wire).is_ok() {
            way.sent.extend_from_slice(text);
        }
        way.note(before);
    }

    /// Ends one direction in order, if the session can send.
    pub fn close(&mut self, from: End) {
        let (session, way) = (&mut self.sessions[from.index()], &mut self.ways[from.index()]);
        let before = way.wire.len();
        if session.is_established() {
            session.close(&mut way.wire);
            way.is_closed = true;
        }
        way.note(before);
    }

    /// The number of bytes that are on their way from this end.
    #[must_use]
    pub fn under_way(&self, from: End) -> usize {
        self.ways[from.index()].wire.len()
    }

    /// Changes bytes that are on their way from this end, about the byte `at`.
    pub fn damage(&mut self, from: End, at: usize, damage: Damage) {
        let way = &mut self.ways[from.index()];
        let (at, before) = (at.min(way.wire.len()), way.wire.clone());
        let range = |len: usize| at..at.saturating_add(len).min(before.len());
        match damage {
            Damage::Flip(bit) => {
                if let Some(byte) = way.wire.get_mut(at) {
                    *byte ^= 1 << (bit % 8);
                }
            }
            Damage::Drop(len) => _ = way.wire.drain(range(len)),
            Damage::Double(len) => {
                let doubled = before[range(len)].to_vec();
                way.wire.splice(at..at, doubled);
            }
            Damage::Replay(len) => {
                let replayed = way.recorded[..len.min(way.recorded.len())].to_vec();
                way.wire.splice(at..at, replayed);
            }
            Damage::Insert(byte) => way.wire.insert(at, byte),
        }
        way.is_damaged |= way.wire != before;
    }

    /// Lets bytes arrive from this end, and checks the property. `plaintext` gets what comes out.
    ///
    /// # Panics
    ///
    /// When the property does not hold.
    pub fn deliver(&mut self, from: End, len: usize, mut plaintext: impl FnMut(&[u8])) -> Received {
        let (session, way) = (&mut self.sessions[from.other().index()], &mut self.ways[from.index()]);
        let len = len.min(way.wire.len());
        let bytes: Vec<u8> = way.wire.drain(..len).collect();
        if bytes.is_empty() || way.is_cut {
            return if session.fault().is_some() { Received::Broken } else { Received::Open };
        }
        let (sent, heard) = (&way.sent, &mut way.heard);
        let received = session.receive(&bytes, |piece| {
            assert!(sent[*heard..].starts_with(piece), "plaintext that was not sent");
            *heard += piece.len();
            plaintext(piece);
        });
        if received == Received::Ended {
            assert!(way.is_closed && way.heard == way.sent.len(), "an end in order, and bytes are missing");
        }
        self.check_identities();
        received
    }

    /// Ends the stream from this end at once: what is on its way is lost.
    pub fn cut(&mut self, from: End) {
        let (session, way) = (&mut self.sessions[from.other().index()], &mut self.ways[from.index()]);
        way.wire.clear();
        way.is_cut = true;
        if session.stream_ended() == Received::Ended {
            assert!(way.is_closed && way.heard == way.sent.len(), "an end in order, and bytes are missing");
        }
    }

    /// Lets the rest arrive, and ends both streams. Returns how many sessions broke.
    pub fn finish(&mut self) -> usize {
        for from in [End::Dialler, End::Acceptor] {
            self.collect(from);
            self.deliver(from, usize::MAX, |_| {});
            self.cut(from);
        }
        self.sessions.iter().filter(|session| session.fault().is_some()).count()
    }

    /// Counts plaintext as sent that never was: a deliberate bug, for a test of the property.
    #[cfg(test)]
    pub(super) fn pretend_to_have_sent(&mut self, from: End, text: &[u8]) {
        self.ways[from.index()].sent.extend_from_slice(text);
    }

    /// Returns whether bytes from this end were changed on their way.
    #[must_use]
    pub fn is_damaged(&self, from: End) -> bool {
        self.ways[from.index()].is_damaged
    }

    /// How many bytes of plaintext have arrived from this end.
    #[must_use]
    pub fn heard(&self, from: End) -> usize {
        self.ways[from.index()].heard
    }

    /// No fault makes a session believe in another end than the one that it talks to.
    fn check_identities(&self) {
        let [dialler, acceptor] = &self.sessions;
        let nodes = [dialler, acceptor].map(|session| session.peer().map(|peer| peer.node));
        let client = acceptor.client_name().map(|client| client.name);
        let (known_nodes, known_client) = match self.kind {
            Kind::Client => ([None; 2], None),
            Kind::MutualClient => ([None; 2], Some("billing")),
            Kind::Nodes => ([Some(2), Some(1)], None),
        };
        for (found, known) in nodes.into_iter().zip(known_nodes) {
            assert!(found.is_none() || found == known, "node {found:?}");
        }
        assert!(client.is_none() || client.as_deref() == known_client, "client {client:?}");
        if self.kind != Kind::Client && acceptor.is_established() {
            assert!(client.is_some() || nodes[1].is_some(), "established without a proof");
        }
    }
}

impl Way {
    /// Records what was added to the wire. Returns whether there was anything.
    fn note(&mut self, before: usize) -> bool {
        let added = &self.wire[before..];
        let room = RECORDED_MAX.saturating_sub(self.recorded.len());
        self.recorded.extend_from_slice(&added[..added.len().min(room)]);
        !added.is_empty()
    }
}
