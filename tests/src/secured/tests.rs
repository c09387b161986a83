use super::*;

/// Some seconds. The program `tls_streams` runs more.
const SEEDS: u64 = 1_500;

#[test]
fn whatever_happens_to_a_stream_no_changed_byte_reaches_a_frame_parser() {
    let mut counts = Counts::default();
    (0..SEEDS).for_each(|seed| counts.add(run_seed(seed)));
    // The faults happen, before and behind handshakes, and frames arrive in spite of them.
    assert!(counts.handshakes > SEEDS / 4 && counts.damaged > SEEDS / 4, "{counts:?}");
    assert!(counts.broken > SEEDS / 4 && counts.frames > SEEDS, "{counts:?}");
}

/// The decisions depend on the seed, and not on the keys of the sessions.
#[test]
fn a_seed_happens_in_the_same_way_again() {
    for seed in 0..30 {
        let again = [0, 1].map(|_| run_seed(seed));
        assert_eq!(
            (again[0].handshakes, again[0].damaged),
            (again[1].handshakes, again[1].damaged),
            "{seed}"
        );
    }
}

#[test]
fn a_conversation_without_faults_delivers_everything_and_ends_in_order() {
    for kind in Kind::ALL {
        let mut conversation = Conversation::begin(kind);
        conversation.shake_hands();
        for from in [End::Dialler, End::Acceptor] {
            assert!(conversation.is_established(from), "{kind:?}");
            conversation.say(from, b"one\n");
            conversation.say(from, &[b'x'; 50_000]);
            conversation.deliver(from, usize::MAX, |_| {});
            assert_eq!(conversation.heard(from), 50_004);
        }
        [End::Dialler, End::Acceptor].into_iter().for_each(|end| conversation.close(end));
        // The TLS server closes last, or ignores the end of the other direction.
        assert!(conversation.finish() <= 1, "{kind:?}");
    }
}

/// The check can fail: bytes that were not sent are noticed.
#[test]
#[should_panic(expected = "bytes are missing")]
fn an_end_in_order_before_all_has_arrived_is_noticed() {
    let mut conversation = Conversation::begin(Kind::Client);
    conversation.shake_hands();
    conversation.pretend_to_have_sent(End::Dialler, b"lost");
    conversation.close(End::Dialler);
    conversation.finish();
}
