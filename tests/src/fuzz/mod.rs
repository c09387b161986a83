//! Fuzz targets: one function for each parser that reads bytes of others. Each accepts any bytes
//! and panics only if a property does not hold.
//!
//! `fuzz/` drives them with libFuzzer, guided by coverage. [`mutate()`] drives them without it: it
//! changes inputs of the corpus at random, which is enough for the seconds that a test may take.
//!
//! A checksum would keep a fuzzer from everything behind it. So where the bytes have one, the
//! target computes it: it models a stranger who knows the format.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::PathBuf;

use coracle_core::host::Inbound;
use coracle_core::kv::{SessionLimits, StateLines, Write};
use coracle_core::memory::MemoryBudget;
use coracle_core::peer::{HandshakeResult, Hello, PeerFrame, Welcome};
use coracle_core::protocol::Connection;
use coracle_core::proxy::RequestError;
use coracle_core::raft::{LogIndex, NodeId};
use coracle_core::{Incarnation, Settings};
use coracle_storage::tokens::TokenFile;
use coracle_storage::{LogScan, Meta, NodeFiles, SnapshotFile, SyncPolicy, recover};
use serde_json::value::RawValue;

mod mutate;
mod seal;
mod tls;

pub use mutate::mutate;
pub(crate) use seal::frame as sealed_frame;

/// A fuzz target.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name, and that of the folder of its corpus.
    pub name: &'static str,
    /// The function.
    pub run: fn(&[u8]),
}

/// All targets.
pub const TARGETS: [Target; 9] = [
    Target { name: "request_lines", run: request_lines },
    Target { name: "handshakes", run: handshakes },
    Target { name: "peer_frames", run: peer_frames },
    Target { name: "payloads", run: payloads },
    Target { name: "state_lines", run: state_lines },
    Target { name: "files", run: files },
    Target { name: "token_files", run: token_files },
    Target { name: "tls_streams", run: tls::streams },
    Target { name: "certificates", run: tls::certificates },
];

impl Target {
    /// Returns the target with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        TARGETS.into_iter().find(|target| target.name == name)
    }

    /// The inputs in the corpus.
    ///
    /// # Panics
    ///
    /// When the corpus cannot be read.
    #[must_use]
    pub fn corpus(&self) -> Vec<Vec<u8>> {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("corpus").join(self.name);
        let files = std::fs::read_dir(folder).expect("each target has a corpus");
        let mut paths: Vec<_> = files.map(|file| file.expect("the folder can be read").path()).collect();
        paths.sort();
        paths.iter().map(|path| std::fs::read(path).expect("the corpus can be read")).collect()
    }
}

/// The lines of a client, which arrive in pieces of a length that the first byte states. Each line
/// gets a reply, and each reply is a JSON object on one line.
fn request_lines(input: &[u8]) {
    let Some((piece, bytes)) = input.split_first() else { return };
    let mut connection = Connection::new(Some("127.0.0.1:3001".into()));
    let mut output = String::new();
    for piece in bytes.chunks(usize::from(*piece) + 1) {
        connection.receive(piece);
        loop {
            while let Some((slot, _)) = connection.next_request() {
                connection.reply(slot, Err(RequestError::Busy));
            }
            let before = output.len();
            connection.write_replies(&mut output, usize::MAX);
            while let Some((slot, _)) = connection.next_watch_request() {
                connection.reply(slot, Err(RequestError::Busy));
            }
            if output.len() == before {
                break;
            }
        }
    }
    assert!(connection.is_idle() || connection.request_bytes() == 0, "every request was answered");
    for line in output.lines() {
        // Raw, because numbers that are too large for other types stay as the client wrote them.
        assert!(serde_json::from_str::<BTreeMap<String, Box<RawValue>>>(line).is_ok(), "{line}");
    }
}

/// Both lines of a handshake between nodes. A line that can be decoded is encoded as the same.
fn handshakes(input: &[u8]) {
    if let Ok(hello) = Hello::decode(input) {
        assert_eq!(Hello::decode(&hello.encode()), Ok(hello));
    }
    if let Ok(welcome) = Welcome::decode(input) {
        let _ = welcome.cluster();
        assert_eq!(Welcome::decode(&welcome.encode()), Ok(welcome));
    }
}

/// A frame of another node with a valid checksum, as the host of its connection receives it.
fn peer_frames(input: &[u8]) {
    let _ = PeerFrame::read(input);
    let settings = Settings::default();
    let budget = MemoryBudget::new(64 << 20, settings.connections_max, 0);
    let handshake = HandshakeResult {
        node: NodeId(2),
        incarnation: Incarnation(5),
        address: None,
        client_address: None,
        configuration_index: LogIndex(1),
        boot: 7,
        addition: coracle_core::raft::Addition::default(),
        supports: coracle_core::kv::Level::MAX,
        is_of_cluster: true,
    };
    let mut inbound = Inbound::new(NodeId(1), 9, handshake, &budget);
    let _ = inbound.receive(&seal::frame(input));
    let _ = inbound.receive(input);
}

/// The payload of a log entry. An accepted payload is written as it was.
fn payloads(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    if let Ok(write) = Write::checked(text) {
        let mut written = String::new();
        write.command.write_payload(write.session.as_ref(), &mut written);
        assert_eq!(written, text);
    }
}

/// The lines of a snapshot or a backup, up to the first that is rejected.
fn state_lines(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let mut lines = StateLines::new(SessionLimits::default());
    let accepted = text.lines().take_while(|line| lines.check(line).is_ok()).count();
    // A node can restore the lines that it accepts, and writes the same ones.
    let mut state = coracle_core::kv::State::new(SessionLimits::default());
    for line in text.lines().take(accepted) {
        state.restore(line).expect("the check accepts what a node restores");
    }
    state.freeze();
    let mut written = String::new();
    while !state.read_frozen(&mut written, usize::MAX) {}
    let expected: String = text.lines().take(accepted).flat_map(|line| [line, "\n"]).collect();
    assert_eq!(written, expected);
}

/// The files of a node: log, metadata and snapshot, between lines with a `%`. Their checksums are
/// valid.
fn files(input: &[u8]) {
    let mut parts = input.split(|byte| *byte == b'%').map(|part| part.strip_prefix(b"\n").unwrap_or(part));
    let mut next = || parts.next().map(<[u8]>::to_vec).unwrap_or_default();
    let (log, meta, snapshot) = (seal::log(&next()), seal::line(&next()), seal::snapshot(&next()));
    if let Ok(mut scan) = LogScan::new(&log) {
        for _ in scan.by_ref() {}
        assert!(scan.verdict().is_some());
    }
    let _ = Meta::decode(&meta);
    if let Ok(snapshot) = SnapshotFile::decode(&snapshot)
        && snapshot.check_lines().is_ok()
    {
        let _ = snapshot.check_members();
    }
    let files = NodeFiles {
        log: Some(log),
        meta: Some(meta),
        snapshot: (!snapshot.is_empty()).then_some(snapshot),
        ..NodeFiles::default()
    };
    let _ = recover(NodeId(0), &files, SyncPolicy::Always);
}

/// A token file. An accepted file is the same when it is encoded and parsed again.
fn token_files(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    match TokenFile::parse(text) {
        Ok(file) => assert_eq!(TokenFile::parse(&file.encode()), Ok(file)),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// Writes the current input to a file in the folder for temporary files, so that it is known when
/// the target ends the process.
///
/// # Panics
///
/// When the file cannot be written.
pub fn keep_input(target: Target, input: &[u8]) -> PathBuf {
    let path = std::env::temp_dir().join(format!("coracle-fuzz-{}", target.name));
    std::fs::File::create(&path).and_then(|mut file| file.write_all(input)).expect("it can be written");
    path
}
