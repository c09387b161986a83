//! Flood of the port for nodes by strangers: unfinished handshakes, wrong handshakes, correct
//! handshakes of another cluster, and unfinished frames after a handshake.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;

use super::kinds::connect;
use crate::live::crc32;

/// The number of connections that a flooder holds.
const HELD: usize = 300;
/// The length that an unfinished frame claims, which any node accepts.
const FRAME_BYTES: u32 = 2 << 20;
/// The bytes of it that are sent.
const SENT_BYTES: usize = 1 << 20;

/// Dials these nodes in turn until the end. Returns the number of dials.
pub(super) fn flood(peers: &[SocketAddr], is_over: &AtomicBool) -> u64 {
    let (mut held, mut done) = (VecDeque::new(), 0_u64);
    let mut ways = [half_greeting, wrong_greeting, other_cluster, frame_without_an_end].into_iter().cycle();
    for peer in peers.iter().cycle() {
        if is_over.load(Ordering::Relaxed) {
            break;
        }
        let way = ways.next().expect("it goes on for ever");
        held.extend(connect(*peer).and_then(|stream| way(stream, done)));
        if held.len() > HELD {
            held.pop_front();
        }
        done += 1;
    }
    done
}

/// The handshake line of a node. The members that identify it as a handshake come first.
fn greeting(node: u64, cluster: &str) -> Vec<u8> {
    let begin = format!(r#"{{"format":"coracle-peer","version":3,"node":{node},"incarnation":"{node:016x}""#);
    let place = r#""to":null,"address":"203.0.113.7:4001","client_address":null"#;
    format!(
        "{begin},{place},\"cluster\":\"{cluster}\",\"configuration_index\":0,\"boot\":{node},\"level\":1}}\n"
    )
    .into_bytes()
}

/// Sends the beginning of a handshake.
fn half_greeting(mut stream: TcpStream, _: u64) -> Option<TcpStream> {
    stream.write_all(br#"{"format":"coracle-peer","version":3,"#).ok()?;
    Some(stream)
}

/// Sends a line that is no handshake.
fn wrong_greeting(mut stream: TcpStream, _: u64) -> Option<TcpStream> {
    stream.write_all(b"{\"op\":\"status\"}\n").ok()?;
    Some(stream)
}

/// Sends a handshake of another cluster.
fn other_cluster(mut stream: TcpStream, number: u64) -> Option<TcpStream> {
    stream.write_all(&greeting(1000 + number % 100_000, "0123456789abcdef")).ok()?;
    Some(stream)
}

/// Sends a handshake of another cluster, learns the right cluster from the rejection, sends a
/// handshake of that cluster, and begins a frame.
fn frame_without_an_end(stream: TcpStream, number: u64) -> Option<TcpStream> {
    let node = 1000 + number % 100_000;
    let peer = stream.peer_addr().ok()?;
    let refusal = ask(&stream, &greeting(node, "0123456789abcdef"))?;
    let cluster = refusal["refused"]["other_cluster"]["ours"].as_str()?.to_owned();
    let mut stream = connect(peer)?;
    let welcome = ask(&stream, &greeting(node, &cluster))?;
    welcome["cluster"].as_str()?;
    stream.write_all(&beginning_of_a_frame()).ok()?;
    Some(stream)
}

/// A valid frame head, and half of the length that it claims.
fn beginning_of_a_frame() -> Vec<u8> {
    let mut frame = FRAME_BYTES.to_le_bytes().to_vec();
    frame.extend(0_u32.to_le_bytes());
    frame.extend(crc32(&[&frame]).to_le_bytes());
    frame.extend(vec![0; SENT_BYTES]);
    frame
}

/// Opens `count` connections of strangers, each with an unfinished frame, and returns those that
/// the node at `peer` has accepted.
#[must_use]
pub fn with_frames_without_an_end(peer: SocketAddr, count: u64) -> Vec<TcpStream> {
    (0..count).filter_map(|number| frame_without_an_end(connect(peer)?, number)).collect()
}

fn ask(mut stream: &TcpStream, hello: &[u8]) -> Option<Value> {
    stream.write_all(hello).ok()?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).ok()?;
    serde_json::from_str(&line).ok()
}
