//! Tests of scans, which are slow, and of the requests that pass them.

use super::*;
use crate::kv::{Page, Scan};

fn scan() -> Request {
    let scan = Scan { prefix: String::new(), after: None, items_max: 1, bytes_max: 1, ..Scan::default() };
    Request::Read { query: Query::Scan(scan), at_least: LogIndex::ORIGIN }
}

fn all_asked(outputs: &[ProxyOutput]) -> Vec<(NodeId, RequestId)> {
    let ask = |output: &ProxyOutput| match output {
        ProxyOutput::Ask(node, id, _) => Some((*node, *id)),
        ProxyOutput::Reply(..) => None,
    };
    outputs.iter().filter_map(ask).collect()
}

/// A page takes a node a thousand times as long as a value: a client that writes must not wait
/// behind hundreds of pages.
#[test]
fn scans_run_one_at_a_time_and_other_requests_pass_them() {
    let mut story = Story::with_nodes(3).led_by(0);
    let [(node, first)] = all_asked(&story.ask(scan()))[..] else { panic!("it is asked for at once") };
    assert_eq!(all_asked(&story.ask(scan())), [], "another one is under way");
    assert_eq!(all_asked(&story.ask(put())).len(), 1, "a write passes them");
    let page = Answer::Read { index: LogIndex(1), found: Found::Page(Page::default()) };
    let outputs = story.answer(node.0, first, page);
    assert_eq!(all_asked(&outputs).len(), 1, "the next one follows");
    assert_eq!(outputs.len(), 2);
}

#[test]
fn a_scan_that_was_never_started_fails_as_busy() {
    let mut story = Story::with_nodes(3).led_by(0);
    story.ask(scan());
    story.ask(scan());
    let outputs = story.elapse(TIMEOUT);
    let failures: Vec<_> = outputs
        .iter()
        .filter_map(|output| match output {
            ProxyOutput::Reply(_, Err(failure)) => Some(*failure),
            _ => None,
        })
        .collect();
    assert_eq!(failures, [RequestError::Timeout, RequestError::Busy]);
}
