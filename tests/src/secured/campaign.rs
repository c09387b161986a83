//! Random faults under frames of nodes, by seeds: what arrives at a frame parser is what was sent,
//! so the parser never finds a damaged frame.

use std::iter::repeat_with;

use coracle_core::Incarnation;
use coracle_core::Settings;
use coracle_core::host::Inbound;
use coracle_core::memory::MemoryBudget;
use coracle_core::peer::HandshakeResult;
use coracle_core::raft::{LogIndex, NodeId};

use super::{Conversation, Damage, End, Kind};
use crate::fuzz::sealed_frame;

/// Frames without their checksums: a ping, and a read with its number in the bytes 1 to 8.
const PING: &[u8] = include_bytes!("../../corpus/peer_frames/ping");
const QUESTION: &[u8] = include_bytes!("../../corpus/peer_frames/ask-read");

/// The most steps of a run.
const STEPS_MAX: usize = 60;

/// The events of runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Runs.
    pub runs: u64,
    /// Handshakes that were completed.
    pub handshakes: u64,
    /// Runs in which bytes were changed.
    pub damaged: u64,
    /// Sessions that broke.
    pub broken: u64,
    /// Frames that a parser has accepted.
    pub frames: u64,
}

impl Counts {
    /// Adds another run.
    pub fn add(&mut self, other: Self) {
        self.runs += other.runs;
        self.handshakes += other.handshakes;
        self.damaged += other.damaged;
        self.broken += other.broken;
        self.frames += other.frames;
    }
}

/// Runs one seed.
///
/// # Panics
///
/// When the property does not hold.
pub fn run_seed(seed: u64) -> Counts {
    let mut rng = fastrand::Rng::with_seed(seed);
    let kind = Kind::ALL[rng.usize(..Kind::ALL.len())];
    let mut conversation = Conversation::begin(kind);
    let mut parsers = [parser(), parser()];
    let mut frames = 0;
    // Half of the runs damage the handshake itself.
    if rng.bool() {
        conversation.shake_hands();
        assert!(conversation.is_established(End::Acceptor), "nothing has happened yet");
    }
    let damage_chance = [0, 8, 40][rng.usize(..3)];
    for _ in 0..rng.usize(1..=STEPS_MAX) {
        let from = if rng.bool() { End::Dialler } else { End::Acceptor };
        conversation.collect(from);
        match rng.u32(..10) {
            0..4 => repeat_with(|| sealed_frame(&content(&mut rng)))
                .take(2)
                .for_each(|frame| conversation.say(from, &frame)),
            4 if rng.u32(..10) == 0 => conversation.close(from),
            5 if rng.u32(..20) == 0 => conversation.cut(from),
            _ => {
                let whole = if rng.bool() { usize::MAX } else { rng.usize(1..200) };
                let parser = &mut parsers[usize::from(from == End::Acceptor)];
                conversation.deliver(from, whole, |plaintext| {
                    parser.receive(plaintext).expect("a frame parser has met damaged bytes");
                    frames += 1;
                });
            }
        }
        if rng.u32(..100) < damage_chance {
            let at = rng.usize(..=conversation.under_way(from));
            conversation.damage(from, at, damage(&mut rng));
        }
    }
    let handshakes = u64::from(conversation.is_established(End::Acceptor));
    let damaged = [End::Dialler, End::Acceptor].iter().any(|end| conversation.is_damaged(*end));
    let broken = conversation.finish() as u64;
    Counts { runs: 1, handshakes, damaged: u64::from(damaged), broken, frames }
}

fn damage(rng: &mut fastrand::Rng) -> Damage {
    let len = rng.usize(1..60);
    match rng.u32(..5) {
        0 => Damage::Flip(rng.u32(..8)),
        1 => Damage::Drop(len),
        2 => Damage::Double(len),
        3 => Damage::Replay(rng.usize(1..3000)),
        _ => Damage::Insert(rng.u8(..)),
    }
}

/// The content of a ping, or of a question with any number.
fn content(rng: &mut fastrand::Rng) -> Vec<u8> {
    if rng.bool() {
        return PING.to_vec();
    }
    let mut question = QUESTION.to_vec();
    question[1..9].copy_from_slice(&rng.u64(..).to_le_bytes());
    question
}

fn parser() -> Inbound {
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
    Inbound::new(NodeId(1), 9, handshake, &budget)
}
