//! The example conversations of the README and of the protocol reference, tested with a real
//! server: each `>` line is sent, and each `<` line is the expected reply.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;

use coracle_core::Settings;
use coracle_runtime_threads::{Cluster, Options};
use coracle_storage::Medium;

const README: &str = include_str!("../../README.md");
const PROTOCOL: &str = include_str!("../../docs/protocol.md");
/// The most lines that the README may have, so that a newcomer need not scroll for long. Chosen as
/// about two screens.
const README_LINES_MAX: usize = 120;

/// Returns the conversations of a document, in order.
fn conversations(document: &str) -> Vec<Vec<&str>> {
    let blocks = document.split("```jsonl\n").skip(1);
    blocks.map(|block| block.lines().take_while(|line| *line != "```").collect()).collect()
}

/// A newcomer who types the lines of the documents gets the replies that they show.
#[test]
fn every_line_is_answered_as_written() {
    let (readme, protocol) = (conversations(README), conversations(PROTOCOL));
    assert!(!readme.is_empty(), "the README shows the plain requests");
    assert!(protocol.len() >= 3, "the reference shows the plain requests, the extended ones and sessions");
    for lines in readme.into_iter().chain(protocol) {
        let medium = Medium::Memory;
        let listen = Some("127.0.0.1:0".parse().unwrap());
        let cluster =
            Cluster::start(Options { settings: Settings::default(), medium, listen, admin_listen: None })
                .unwrap();
        let stream = TcpStream::connect(cluster.address().unwrap()).unwrap();
        let mut replies = BufReader::new(stream.try_clone().unwrap()).lines();
        for line in lines {
            match line.split_at(2) {
                ("> ", request) => writeln!(&stream, "{request}").unwrap(),
                ("< ", expected) => assert_eq!(replies.next().unwrap().unwrap(), expected),
                _ => panic!("a line of a conversation starts with > or <: {line}"),
            }
        }
        drop(stream);
        cluster.stop();
    }
}

/// The README begins with the two commands that a newcomer needs.
#[test]
fn the_readme_opens_with_the_commands_that_run_and_test() {
    let mut commands = README.lines().filter_map(|line| line.strip_prefix("$ "));
    assert_eq!(commands.next(), Some("cargo run -p cli -- --runtime smol"));
    assert_eq!(commands.next(), Some("cargo test --workspace"));
}

#[test]
fn the_readme_is_short() {
    assert!(README.lines().count() <= README_LINES_MAX, "{} lines", README.lines().count());
}
