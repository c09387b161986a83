//! Tests of the proxy: a dialer and an acceptor with a proxy between them.

use super::super::link_faults::Gate;
use super::super::stream::frame;
use super::*;

const LINE: &[u8] = b"{\"format\":\"x\"}\n";

struct Way {
    there: Arc<SharedFaults>,
    back: Arc<SharedFaults>,
    acceptor: TcpListener,
    address: SocketAddr,
}

fn way() -> Way {
    let acceptor = TcpListener::bind("127.0.0.1:0").unwrap();
    let (there, back) = (Arc::default(), Arc::default());
    let target = acceptor.local_addr().unwrap();
    let address = start(Arc::new(Mutex::new(target)), Arc::clone(&there), Arc::clone(&back), 7).unwrap();
    Way { there, back, acceptor, address }
}

impl Way {
    /// Sends a line and these frames, ends the stream, and returns the frames that arrive.
    fn send(&self, frames: &[Vec<u8>]) -> Vec<u8> {
        let mut dialler = TcpStream::connect(self.address).unwrap();
        let (mut accepted, _) = self.acceptor.accept().unwrap();
        dialler.write_all(&[LINE, &frames.concat()].concat()).unwrap();
        dialler.shutdown(Shutdown::Write).unwrap();
        let mut arrived = Vec::new();
        // Ignore the error: a proxy may break a connection on purpose.
        _ = accepted.read_to_end(&mut arrived);
        assert!(arrived.starts_with(LINE), "the handshake is left alone");
        arrived.split_off(LINE.len())
    }
}

fn frames() -> Vec<Vec<u8>> {
    (0..40_u8).map(|number| frame(&[number; 20])).collect()
}

fn pieces(stream: &[u8]) -> Vec<Vec<u8>> {
    stream.chunks(32).map(<[u8]>::to_vec).collect()
}

#[test]
fn in_fair_weather_everything_arrives_as_it_was_sent() {
    assert_eq!(way().send(&frames()), frames().concat());
}

#[test]
fn trickled_bytes_are_the_same_bytes() {
    let way = way();
    way.there.set(LinkFaults { trickles: true, ..LinkFaults::default() });
    assert_eq!(way.send(&frames()), frames().concat());
}

#[test]
fn reordered_frames_all_arrive_complete() {
    let way = way();
    way.there.set(LinkFaults { reorder: 500, ..LinkFaults::default() });
    let mut arrived = pieces(&way.send(&frames()));
    assert_ne!(arrived, frames());
    arrived.sort_unstable_by_key(|frame| frame[12]);
    assert_eq!(arrived, frames());
}

#[test]
fn duplicated_frames_arrive_complete() {
    let way = way();
    way.there.set(LinkFaults { duplicate: 1000, repeats_asks: true, ..LinkFaults::default() });
    let arrived = pieces(&way.send(&frames()));
    let twice: Vec<_> = frames().into_iter().flat_map(|frame| [frame.clone(), frame]).collect();
    assert_eq!(arrived, twice);
}

#[test]
fn a_request_is_duplicated_only_if_allowed() {
    let way = way();
    way.there.set(LinkFaults { duplicate: 1000, ..LinkFaults::default() });
    let (ask, message) = (frame(&[2; 20]), frame(&[1; 20]));
    let arrived = pieces(&way.send(&[ask.clone(), message.clone()]));
    assert_eq!(arrived, [ask, message.clone(), message]);
}

#[test]
fn a_new_connection_replays_frames_of_an_old_one() {
    let way = way();
    way.send(&frames());
    way.there.set(LinkFaults { replay: 1, ..LinkFaults::default() });
    let new = frame(b"new, of twenty bytes");
    let arrived = pieces(&way.send(std::slice::from_ref(&new)));
    assert_eq!((arrived.len(), &arrived[0]), (9, &new));
    assert!(arrived[1..].iter().all(|old| frames().contains(old)));
}

#[test]
fn a_flipped_bit_is_one_bit() {
    let way = way();
    way.there.set(LinkFaults { flip: 1000, ..LinkFaults::default() });
    let sent = frames().concat();
    let arrived = way.send(&frames());
    let differing: u32 = sent.iter().zip(&arrived).map(|(sent, arrived)| (sent ^ arrived).count_ones()).sum();
    assert_eq!((arrived.len(), differing), (sent.len(), 40));
}

#[test]
fn a_wrong_length_is_far_too_long_but_possible() {
    let way = way();
    way.there.set(LinkFaults { lengthen: 1000, ..LinkFaults::default() });
    for arrived in pieces(&way.send(&frames())) {
        let len = u32::from_le_bytes(*arrived.first_chunk().unwrap());
        assert!((1 << 19..1 << 24).contains(&len), "{len}");
    }
}

#[test]
fn a_cut_leaves_part_of_a_frame() {
    let way = way();
    way.there.set(LinkFaults { cut: 1000, ..LinkFaults::default() });
    let arrived = way.send(&frames());
    assert!((1..32).contains(&arrived.len()), "{}", arrived.len());
    assert!(frames()[0].starts_with(&arrived));
}

#[test]
fn one_direction_stalls_and_the_other_does_not() {
    let way = way();
    let mut dialler = TcpStream::connect(way.address).unwrap();
    let (mut accepted, _) = way.acceptor.accept().unwrap();
    dialler.write_all(LINE).unwrap();
    let mut line = [0; LINE.len()];
    accepted.read_exact(&mut line).unwrap();
    way.there.set(LinkFaults { gate: Gate::Stalled, ..LinkFaults::default() });
    dialler.write_all(&frame(b"lost for now")).unwrap();
    accepted.write_all(b"welcome\n").unwrap();
    let mut welcome = [0; 8];
    dialler.read_exact(&mut welcome).unwrap();
    accepted.set_nonblocking(true).unwrap();
    assert_eq!(accepted.read(&mut line).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    accepted.set_nonblocking(false).unwrap();
    way.there.set(LinkFaults::default());
    let mut late = vec![0; frame(b"lost for now").len()];
    accepted.read_exact(&mut late).unwrap();
    assert_eq!(late, frame(b"lost for now"));
    assert_eq!(way.back.gate(), Gate::Open);
}

#[test]
fn a_refused_link_breaks_its_connections() {
    let way = way();
    let mut dialler = TcpStream::connect(way.address).unwrap();
    let (mut accepted, _) = way.acceptor.accept().unwrap();
    way.there.set(LinkFaults { gate: Gate::Refused, ..LinkFaults::default() });
    // An end of the stream or an error: either way the connection is over.
    assert!(!matches!(accepted.read(&mut [0; 8]), Ok(1..)));
    assert!(!matches!(dialler.read(&mut [0; 8]), Ok(1..)));
    let mut next = TcpStream::connect(way.address).unwrap();
    assert!(!matches!(next.read(&mut [0; 8]), Ok(1..)));
}
