//! The README's conversations, held with a real server: each `>` line is sent, each `<` line is the reply.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;

use coracle_core::Settings;
use coracle_runtime_threads::{Cluster, Options};
use coracle_storage::Medium;

const README: &str = include_str!("../../README.md");

/// The conversations, in the order of the document.
fn conversations() -> Vec<Vec<&'static str>> {
    let blocks = README.split("```jsonl\n").skip(1);
    blocks.map(|block| block.lines().take_while(|line| *line != "```").collect()).collect()
}

/// A newcomer types what the README shows and gets what the README shows.
#[test]
fn every_line_is_answered_as_written() {
    let conversations = conversations();
    assert!(conversations.len() >= 2, "the README shows the plain requests and the extended ones");
    for lines in conversations {
        let medium = Medium::Memory;
        let listen = Some("127.0.0.1:0".parse().unwrap());
        let cluster = Cluster::start(Options { settings: Settings::default(), medium, listen }).unwrap();
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

/// The two commands that a newcomer needs come first.
#[test]
fn it_opens_with_the_command_that_runs_and_the_one_that_tests() {
    let mut commands = README.lines().filter_map(|line| line.strip_prefix("$ "));
    assert_eq!(commands.next(), Some("cargo run -p cli -- --runtime smol"));
    assert_eq!(commands.next(), Some("cargo test --workspace"));
}
