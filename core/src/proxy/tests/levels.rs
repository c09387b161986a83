//! Tests of levels: a request that not all nodes understand is sent to none of them.

use super::*;
use crate::kv::Level;

/// The proxy in front of node 0 of three processes, which are all connected. Node 1 leads.
fn process() -> Story {
    let mut story = Story::with_nodes(3);
    story.proxy.config.local = Some(NodeId(0));
    for node in 0..3 {
        story.step(Some(ProxyInput::Reachable(NodeId(node), None)));
    }
    story.led_by(1)
}

fn incr() -> Request {
    Request::write(Command::Incr { key: Key::new("n").unwrap(), by: 1 })
}

fn failed(outputs: &[ProxyOutput]) -> Option<RequestError> {
    outputs.iter().find_map(|output| match output {
        ProxyOutput::Reply(_, Err(error)) => Some(*error),
        _ => None,
    })
}

impl Story {
    /// Steps until something is put out, or this time has passed.
    fn wait(&mut self, patience: Duration) -> Vec<ProxyOutput> {
        let end = self.now + patience;
        while self.now < end {
            self.now = self.now + Duration::from_millis(5);
            let outputs = self.step(None);
            if !outputs.is_empty() {
                return outputs;
            }
        }
        Vec::new()
    }
}

#[test]
fn a_request_goes_to_another_node_once_the_level_is_known() {
    let mut story = process();
    assert_eq!(story.ask(incr()), []);
    assert_eq!(story.wait(Duration::from_secs(1)), [], "the local node has not caught up");
    story.step(Some(ProxyInput::Level(Level::REVISIONS)));
    let outputs = story.wait(READ_RETRY_AFTER * 2);
    assert!(matches!(&outputs[..], [ProxyOutput::Ask(NodeId(1), _, Request::Write { .. })]), "{outputs:?}");
}

#[test]
fn a_request_is_refused_when_the_level_is_not_reached_in_time() {
    let mut story = process();
    story.step(Some(ProxyInput::Level(Level::FIRST)));
    assert_eq!(story.ask(incr()), []);
    assert_eq!(failed(&story.wait(LEVEL_PATIENCE * 2)), Some(RequestError::NotYet));
    let plain = story.ask(put());
    assert!(matches!(&plain[..], [ProxyOutput::Ask(NodeId(1), ..)]), "older nodes understand it");
}

#[test]
fn a_node_that_never_catches_up_leaves_the_request_without_effect() {
    let mut story = process();
    assert_eq!(story.ask(incr()), []);
    assert_eq!(failed(&story.wait(TIMEOUT * 2)), Some(RequestError::NoLeader));
}

#[test]
fn a_leader_that_does_not_know_the_level_is_asked_again() {
    let mut story = Story::with_nodes(3).led_by(1);
    let outputs = story.ask(incr());
    let [ProxyOutput::Ask(NodeId(1), id, _)] = outputs[..] else { panic!("{outputs:?}") };
    assert_eq!(story.answer(1, id, Answer::Refused(RequestRefusal::NotYet)), []);
    let again = story.wait(READ_RETRY_AFTER * 2);
    assert!(matches!(&again[..], [ProxyOutput::Ask(NodeId(1), ..)]), "{again:?}");
    story.now = story.now + LEVEL_PATIENCE;
    let outputs = story.answer(1, id, Answer::Refused(RequestRefusal::NotYet));
    assert_eq!(failed(&outputs), Some(RequestError::NotYet));
}
