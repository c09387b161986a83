use proptest::prelude::*;

use super::*;
use crate::testing::{Authority, exchange, pair};

fn sealed(session: &mut Session, plaintext: &[u8]) -> Vec<u8> {
    let mut sealed = Vec::new();
    session.seal(plaintext, &mut sealed).unwrap();
    sealed
}

fn heard(session: &mut Session, bytes: &[u8]) -> (Vec<u8>, Received) {
    let mut heard = Vec::new();
    let received = session.receive(bytes, |plaintext| heard.extend_from_slice(plaintext));
    (heard, received)
}

#[test]
fn plaintext_arrives_in_order_in_both_directions_and_ends_in_order() {
    let (mut client, mut server) = pair();
    let long: Vec<u8> = (0..=250_u8).cycle().take(100_000).collect();
    let request = sealed(&mut client, &long);
    assert_eq!(heard(&mut server, &request), (long, Received::Open));
    let reply = sealed(&mut server, b"ok\n");
    assert_eq!(heard(&mut client, &reply), (b"ok\n".to_vec(), Received::Open));
    let mut last = sealed(&mut client, b"last");
    client.close(&mut last);
    assert_eq!(heard(&mut server, &last), (b"last".to_vec(), Received::Ended));
    assert_eq!(server.stream_ended(), Received::Ended);
    // The other direction is still open.
    let reply = sealed(&mut server, b"bye");
    assert_eq!(heard(&mut client, &reply), (b"bye".to_vec(), Received::Open));
    assert_eq!(server.fault(), None);
}

#[test]
fn a_stream_that_ends_without_the_last_message_is_cut() {
    let (mut client, mut server) = pair();
    let bytes = sealed(&mut client, b"put");
    assert_eq!(heard(&mut server, &bytes[..bytes.len() - 1]), (Vec::new(), Received::Open));
    assert_eq!(server.stream_ended(), Received::Broken);
    assert_eq!(server.fault(), Some(&Fault::Cut));
    assert_eq!(heard(&mut server, &bytes[bytes.len() - 1..]), (Vec::new(), Received::Broken));
    assert_eq!(server.seal(b"x", &mut Vec::new()), Err(NotOpen));
}

/// Found by `secured`: damaged bytes behind the own end made the library panic in debug builds.
#[test]
fn a_server_that_has_ended_its_direction_ignores_what_it_receives() {
    let (mut client, mut server) = pair();
    let whole = sealed(&mut client, b"late\n");
    let mut damaged = sealed(&mut client, b"late\n");
    damaged[9] ^= 1;
    let mut last = Vec::new();
    server.close(&mut last);
    for bytes in [whole, damaged] {
        assert_eq!(heard(&mut server, &bytes), (Vec::new(), Received::Open));
    }
    assert!(!server.has_output());
    assert_eq!(heard(&mut client, &last), (Vec::new(), Received::Ended));
}

#[test]
fn a_handshake_may_be_split_at_every_byte() {
    let authority = Authority::new("tea");
    let (port, caller) = (authority.client_port(false), authority.caller(None).unwrap());
    let flight = |client: &mut Session| {
        let mut bytes = Vec::new();
        client.drain(&mut bytes);
        bytes
    };
    let len = flight(&mut caller.call("kv.example").unwrap()).len();
    for cut in 1..len {
        let (mut client, mut server) = (caller.call("kv.example").unwrap(), port.accept().unwrap());
        let hello = flight(&mut client);
        let cut = cut.min(hello.len() - 1);
        assert_eq!(heard(&mut server, &hello[..cut]).1, Received::Open);
        assert!(!server.has_output() && !server.is_established());
        assert_eq!(heard(&mut server, &hello[cut..]).1, Received::Open);
        exchange(&mut client, &mut server);
        assert!(client.is_established() && server.is_established(), "cut at {cut}");
    }
}

#[test]
fn every_byte_may_arrive_alone() {
    let authority = Authority::new("tea");
    let mut server = authority.client_port(false).accept().unwrap();
    let mut client = authority.caller(None).unwrap().call("127.0.0.1").unwrap();
    let mut wire = Vec::new();
    while !(client.is_established() && server.is_established()) {
        client.drain(&mut wire);
        std::mem::take(&mut wire).iter().for_each(|byte| _ = server.receive(&[*byte], |_| {}));
        server.drain(&mut wire);
        std::mem::take(&mut wire).iter().for_each(|byte| _ = client.receive(&[*byte], |_| {}));
    }
    let (bytes, mut all) = (sealed(&mut client, &[b'x'; 40_000]), Vec::new());
    for byte in bytes {
        assert_eq!(server.receive(&[byte], |plaintext| all.extend_from_slice(plaintext)), Received::Open);
    }
    assert_eq!(all, [b'x'; 40_000]);
    assert_eq!((server.incoming.capacity(), server.outgoing.capacity()), (0, 0), "it holds no buffer");
}

/// Bytes behind the first damage never come out, and those before it come out unchanged.
#[test]
fn bytes_that_are_flipped_cut_out_or_doubled_never_reach_the_plaintext() {
    let first = b"first\n".to_vec();
    let damages: [fn(&mut Vec<u8>, usize); 3] = [
        |bytes, at| bytes[at] ^= 1,
        |bytes, at| _ = bytes.remove(at),
        |bytes, at| bytes.insert(at, bytes[at]),
    ];
    for damage in damages {
        for at in (0..30).step_by(3) {
            let (mut client, mut server) = pair();
            let before = sealed(&mut client, &first);
            let mut bytes = sealed(&mut client, b"second\n");
            bytes.extend(sealed(&mut client, &[b'z'; 20_000]));
            let whole = bytes.clone();
            damage(&mut bytes, at.min(whole.len() - 1));
            if bytes == whole {
                continue;
            }
            let (plain, _) = heard(&mut server, &[before, bytes].concat());
            // A length that was changed waits for more bytes, and the end of the stream shows it.
            assert_eq!(server.stream_ended(), Received::Broken);
            let sent = [&first[..], b"second\n", &[b'z'; 20_000]].concat();
            assert!(plain.starts_with(&first) && sent.starts_with(&plain), "at {at}");
            // Only the type and the version before a record mean nothing, and may be flipped.
            assert!(plain == first || (plain == sent && at < 3), "at {at}");
        }
    }
}

/// A record that was recorded on the way and sent again is not accepted, in the same session or in
/// another one.
#[test]
fn recorded_bytes_are_not_accepted_again() {
    let (mut client, mut server) = pair();
    let bytes = sealed(&mut client, b"incr\n");
    assert_eq!(heard(&mut server, &bytes), (b"incr\n".to_vec(), Received::Open));
    assert_eq!(heard(&mut server, &bytes), (Vec::new(), Received::Broken));
    let (_, mut other) = pair();
    assert_eq!(heard(&mut other, &bytes), (Vec::new(), Received::Broken));
}

#[test]
fn a_line_of_text_is_not_tls_and_gets_no_alert() {
    let authority = Authority::new("tea");
    let mut server = authority.client_port(false).accept().unwrap();
    assert_eq!(heard(&mut server, b"{\"key\":\"a\"}\n").1, Received::Broken);
    assert_eq!((server.fault(), server.has_output()), (Some(&Fault::NotTls), false));
    let mut node = authority.peer_port(1).accept().unwrap();
    assert_eq!(heard(&mut node, b"{\"format\":1}\n").1, Received::Broken);
    assert_eq!((node.fault(), node.has_output()), (Some(&Fault::NotTls), false));
}

#[test]
fn a_broken_handshake_says_why_once() {
    let mut server = Authority::new("tea").client_port(false).accept().unwrap();
    let mut bytes = vec![0x16, 3, 1, 0, 6];
    bytes.extend([99, 0, 0, 2, 0, 0]);
    assert_eq!(heard(&mut server, &bytes).1, Received::Broken);
    let mut alert = Vec::new();
    server.drain(&mut alert);
    assert_eq!((alert.first(), server.has_output()), (Some(&0x15), false));
}

/// The limit of what waits for its rest: a handshake message that says it is longer than allowed
/// is refused, and not waited for.
#[test]
fn an_endless_handshake_message_is_refused_before_it_fills_the_memory() {
    let mut server = Authority::new("tea").client_port(false).accept().unwrap();
    let (mut sent, piece) = (0, vec![1_u8; 10_000]);
    let mut record = vec![0x16, 3, 1];
    record.extend(u16::try_from(piece.len()).unwrap().to_be_bytes());
    record.extend(&piece);
    // A client hello of 65,535 bytes.
    record[5..9].copy_from_slice(&[1, 0, 0xff, 0xff]);
    while heard(&mut server, &record).1 == Received::Open {
        record[5..9].copy_from_slice(&[1; 4]);
        sent += record.len();
        assert!(server.incoming.len() <= UNPROCESSED_BYTES_MAX && sent <= UNPROCESSED_BYTES_MAX);
    }
    assert!(server.outgoing.len() <= OUTGOING_BYTES_MAX);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_splits_give_the_same_plaintext(
        texts in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..3000), 1..5),
        cuts in proptest::collection::vec(1_usize..2000, 1..40),
    ) {
        let (mut client, mut server) = pair();
        let mut wire = Vec::new();
        for text in &texts {
            client.seal(text, &mut wire).unwrap();
        }
        let (mut all, mut rest, mut cuts) = (Vec::new(), &wire[..], cuts.iter().cycle());
        while !rest.is_empty() {
            let (piece, after) = rest.split_at((*cuts.next().unwrap()).min(rest.len()));
            prop_assert_eq!(server.receive(piece, |plaintext| all.extend_from_slice(plaintext)), Received::Open);
            rest = after;
        }
        prop_assert_eq!(all, texts.concat());
    }

    #[test]
    fn random_bytes_never_become_plaintext(bytes in proptest::collection::vec(any::<u8>(), 1..600)) {
        let authority = Authority::new("tea");
        let mut session = authority.client_port(false).accept().unwrap();
        let tls = [&[0x16, 3, 3][..], &bytes].concat();
        for bytes in [&bytes[..], &tls] {
            let _ = session.receive(bytes, |_| panic!("plaintext"));
        }
        prop_assert!(!session.is_established());
        let (_, mut open) = pair();
        let _ = open.receive(&[&[0x17, 3, 3][..], &bytes].concat(), |_| panic!("plaintext"));
    }
}
