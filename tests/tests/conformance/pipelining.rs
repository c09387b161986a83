//! Pipelining: replies come in the order of the requests, and requests for the same key take effect
//! in that order.

use std::fmt::Write;
use std::thread;

use coracle_tests::both_runtimes_and_tls;
use coracle_tests::live::{Runtime, Setup};

/// A script of requests and of the replies that they must get, byte for byte.
#[derive(Default)]
struct Script {
    requests: String,
    replies: String,
}

impl Script {
    fn put(&mut self, key: &str, value: usize, id: usize) {
        writeln!(self.requests, r#"{{"key":"{key}","value":{value},"id":{id}}}"#)
            .expect("a String takes any text");
        self.stored(key, value, id);
    }

    fn get(&mut self, key: &str, value: usize, id: usize) {
        writeln!(self.requests, r#"{{"key":"{key}","id":{id}}}"#).expect("a String takes any text");
        self.stored(key, value, id);
    }

    fn ping(&mut self, id: usize) {
        writeln!(self.requests, r#"{{"op":"ping","id":{id}}}"#).expect("a String takes any text");
        writeln!(self.replies, r#"{{"status":"ok","id":{id}}}"#).expect("a String takes any text");
    }

    fn stored(&mut self, key: &str, value: usize, id: usize) {
        let reply = format!(r#"{{"key":"{key}","value":{value},"status":"ok","id":{id}}}"#);
        writeln!(self.replies, "{reply}").expect("a String takes any text");
    }

    /// Puts and gets of ten keys that no other client uses. A get follows the last put of its key
    /// directly, or some time later.
    fn of_own_keys(client: usize, requests: usize) -> Self {
        let mut script = Self::default();
        let mut last = [None; 10];
        for id in 0..requests {
            let slot = (id / 2 * 7) % last.len();
            let read = if id % 4 == 1 { slot } else { (slot + 3) % last.len() };
            match last[read] {
                Some(value) if id % 2 == 1 => script.get(&format!("{client}-{read}"), value, id),
                _ => {
                    script.put(&format!("{client}-{slot}"), id, id);
                    last[slot] = Some(id);
                }
            }
        }
        script
    }
}

#[track_caller]
fn check_replies(found: &str, expected: &str, who: usize) {
    for (number, (found, expected)) in found.lines().zip(expected.lines()).enumerate() {
        assert_eq!(found, expected, "reply {number} of client {who}");
    }
    assert_eq!(found.len(), expected.len(), "client {who} got replies of another length");
}

/// Two hundred clients that pipeline a thousand requests each get every reply in order, and read
/// their own writes.
fn two_hundred_clients_pipeline_a_thousand_requests_each(runtime: Runtime) {
    let server = Setup::in_memory(runtime).start();
    thread::scope(|scope| {
        for client in 0..200 {
            let server = &server;
            scope.spawn(move || {
                let script = Script::of_own_keys(client, 1000);
                let mut talk = server.connect();
                talk.send(&script.requests);
                talk.hang_up();
                check_replies(&talk.hear_all(), &script.replies, client);
            });
        }
    });
}

/// A client that sends far more requests than a connection may have in flight, before it reads any
/// reply, loses no line at the limit.
fn nothing_is_lost_past_the_limit_of_a_pipeline(runtime: Runtime) {
    let server = Setup::in_memory(runtime).start();
    let mut script = Script::default();
    // All puts have different keys, so none waits for another and as many as allowed are in flight.
    for id in (0..6000).step_by(2) {
        script.put(&format!("k{id}"), id, id);
        script.ping(id + 1);
    }
    for id in (0..6000).step_by(2) {
        script.get(&format!("k{id}"), id, 6000 + id);
    }
    let mut talk = server.connect();
    talk.send(&script.requests);
    talk.hang_up();
    check_replies(&talk.hear_all(), &script.replies, 0);
}

/// Requests for one key take effect one after another although all are sent at once: in a chain of
/// swaps, each expects the value of the one before, and all succeed.
fn a_pipelined_chain_of_swaps_holds(runtime: Runtime) {
    let server = Setup::in_memory(runtime).start();
    let mut talk = server.connect();
    talk.say(r#"{"key":"chain","value":0}"#);
    for value in 1..=300 {
        let expect = value - 1;
        talk.say(&format!(r#"{{"op":"cas","key":"chain","expect":{expect},"value":{value}}}"#));
        talk.say(r#"{"key":"chain"}"#);
        talk.say(r#"{"op":"scan","prefix":"chain"}"#);
    }
    talk.say(r#"{"op":"delete","key":"chain"}"#);
    talk.say(r#"{"key":"chain"}"#);
    talk.expect(r#"{"key":"chain","value":0,"status":"ok"}"#);
    for value in 1..=300 {
        let stored = format!(r#"{{"key":"chain","value":{value},"status":"ok"}}"#);
        talk.expect(&stored);
        talk.expect(&stored);
        let items = format!(r#"[{{"key":"chain","value":{value}}}]"#);
        talk.expect(&format!(r#"{{"items":{items},"more":false,"status":"ok"}}"#));
    }
    talk.expect(r#"{"key":"chain","status":"ok"}"#);
    talk.expect(r#"{"key":"chain","value":null,"status":"error"}"#);
}

/// A client that shuts down its sending side still gets the replies to all its requests.
fn a_client_that_hangs_up_still_gets_its_replies(runtime: Runtime) {
    let server = Setup::in_memory(runtime).start();
    for requests in [0, 1, 2, 50, 1023, 1024, 1025, 3000] {
        let script = Script::of_own_keys(requests, requests);
        let mut talk = server.connect();
        talk.send(&script.requests);
        talk.hang_up();
        check_replies(&talk.hear_all(), &script.replies, requests);
    }
}

/// Requests may arrive in fragments of any size, even byte by byte.
fn requests_may_arrive_byte_by_byte(runtime: Runtime) {
    let server = Setup::in_memory(runtime).start();
    let mut talk = server.connect();
    let mut script = Script::of_own_keys(0, 6);
    script.requests = script.requests.replace('\n', "\r\n").replace("value", "v\\u0061lue");
    for byte in script.requests.bytes() {
        talk.send([byte]);
    }
    for reply in script.replies.lines() {
        talk.expect(reply);
    }
}

/// Errors for bad lines come in order between the replies to good lines.
fn errors_keep_their_place(runtime: Runtime) {
    let server = Setup::in_memory(runtime).start();
    let mut talk = server.connect();
    for number in 0..500 {
        talk.send(format!(
            "{{\"key\":\"a\",\"value\":{number}}}\nnonsense\n{{\"op\":\"fly\",\"id\":{number}}}\n"
        ));
    }
    for number in 0..500 {
        talk.expect(&format!(r#"{{"key":"a","value":{number},"status":"ok"}}"#));
        assert_eq!(talk.hear_json().get("id"), None);
        assert_eq!(talk.hear_json()["id"], number);
    }
}

both_runtimes_and_tls!(
    two_hundred_clients_pipeline_a_thousand_requests_each,
    nothing_is_lost_past_the_limit_of_a_pipeline,
    a_pipelined_chain_of_swaps_holds,
    a_client_that_hangs_up_still_gets_its_replies,
    requests_may_arrive_byte_by_byte,
    errors_keep_their_place,
);
