//! Fuzz targets of TLS: the bytes of strangers at each kind of session, faults in the streams of
//! honest ones, and certificates.

use coracle_tls::{
    Caller, CallerFiles, Certificate, ClientName, ClientPort, ClientPortFiles, OUTGOING_BYTES_MAX, PeerFiles,
    PeerName, PeerPort, PemFile, Received, Session, is_name,
};

use crate::secured::{Conversation, Damage, End, Kind, credentials};

/// The most steps of a conversation, so that an input takes milliseconds at most.
const STEPS_MAX: usize = 64;

/// The first byte chooses: a stranger whose bytes follow, or a conversation in which the following
/// bytes are steps.
pub(super) fn streams(input: &[u8]) {
    let Some((&choice, rest)) = input.split_first() else { return };
    match choice % 8 {
        0 => conversation(Kind::Client, rest),
        1 => conversation(Kind::MutualClient, rest),
        2 => conversation(Kind::Nodes, rest),
        3 => stranger(credentials().open_port.accept(), rest),
        4 => stranger(credentials().mutual_port.accept(), rest),
        5 => stranger(credentials().nodes[1].accept(), rest),
        6 => stranger(credentials().nodes[0].dial(), rest),
        _ => stranger(credentials().caller.call("kv.example"), rest),
    }
}

/// A stranger has no key that fits, so nothing it sends becomes plaintext, or a proof. Its bytes
/// arrive in pieces of a length that the first one states.
fn stranger(session: Result<Session, coracle_tls::Fault>, input: &[u8]) {
    let mut session = session.expect("a session can begin");
    let Some((piece, bytes)) = input.split_first() else { return };
    let mut output = Vec::new();
    for piece in bytes.chunks(usize::from(*piece) + 1) {
        let received = session.receive(piece, |_| panic!("plaintext of a stranger"));
        assert!(!session.is_established() && session.peer().is_none() && session.client_name().is_none());
        output.clear();
        session.drain(&mut output);
        assert!(output.len() <= OUTGOING_BYTES_MAX + (32 << 10));
        if received != Received::Open {
            break;
        }
    }
    let _ = session.stream_ended();
    assert!(session.fault().is_some(), "a stranger never ends a session in order");
}

/// Each step has three bytes: what to do, in which direction and how much, and where.
fn conversation(kind: Kind, steps: &[u8]) {
    let mut conversation = Conversation::begin(kind);
    for step in steps.chunks_exact(3).take(STEPS_MAX) {
        let from = if step[1] & 1 == 0 { End::Dialler } else { End::Acceptor };
        let (amount, at) = (usize::from(step[1] >> 1), usize::from(step[2]));
        conversation.collect(from);
        let mut damage = |damage| conversation.damage(from, at, damage);
        match step[0] % 12 {
            0 => conversation.shake_hands(),
            1 => conversation.say(from, &step[2..].repeat(amount * amount + 1)),
            2 => conversation.close(from),
            3 => conversation.cut(from),
            4 => _ = conversation.deliver(from, amount + 1, |_| {}),
            5 => damage(Damage::Flip(u32::from(step[1] >> 1))),
            6 => damage(Damage::Drop(amount + 1)),
            7 => damage(Damage::Double(amount + 1)),
            8 => damage(Damage::Replay(amount * 16 + 1)),
            9 => damage(Damage::Insert(step[1])),
            _ => _ = conversation.deliver(from, usize::MAX, |_| {}),
        }
    }
    conversation.finish();
}

/// Any bytes as a certificate, as the files of each port, and as a name. An accepted name has one
/// spelling.
pub(super) fn certificates(input: &[u8]) {
    if let Ok(certificate) = Certificate::parse(input) {
        names_of(&certificate);
    }
    if let Ok(text) = std::str::from_utf8(input) {
        check_name(text);
    }
    let file = PemFile::new("all.pem", input);
    if let Ok(certificate) = file.certificate() {
        names_of(&certificate);
    }
    let (certificate, key, authorities) = (file.clone(), file.clone(), file.clone());
    let identity = Some((file.clone(), file.clone()));
    let caller = Caller::load(&CallerFiles { authorities: Some(file.clone()), identity }).map(|_| ());
    let files = ClientPortFiles { certificate: file.clone(), key: file.clone(), authorities: Some(file) };
    let port = ClientPort::load(&files, Some("tea"), false).map(|_| ());
    let node = PeerPort::load(&PeerFiles { certificate, key, authorities }, 1).map(|_| ());
    for error in [caller.err(), port.err(), node.err()].into_iter().flatten() {
        assert!(!error.to_string().is_empty());
    }
}

fn names_of(certificate: &Certificate) {
    certificate.uris.iter().for_each(|uri| check_name(uri));
    if let (Some(node), Some(client)) = (certificate.peer(), certificate.client()) {
        // One certificate may name a node and a client, each of which is checked at its own port.
        assert!(is_name(&node.cluster) && is_name(&client.cluster) && is_name(&client.name));
    }
}

fn check_name(text: &str) {
    if let Some(node) = PeerName::parse(text) {
        assert_eq!(node.to_string(), text);
    }
    if let Some(client) = ClientName::parse(text) {
        assert_eq!(client.to_string(), text);
    }
}
