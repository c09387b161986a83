//! Malformed requests: each bad line gets exactly one error reply, other clients are not affected,
//! and nothing of the line reaches a log.

use coracle_tests::both_runtimes_and_tls;
use coracle_tests::live::{LogFile, Runtime, Setup, Talk, until};
use serde_json::{Value, json};

/// Lines that are not JSON, not an object, or not a valid plain request.
const PLAIN: &[&[u8]] = &[
    b"",
    b" ",
    b"\r",
    b"\t \t",
    b"x",
    b"PUT a 1",
    b"GET / HTTP/1.1",
    b"null",
    b"true",
    b"7",
    b"NaN",
    b"\"text\"",
    b"[]",
    b"[{\"key\":\"a\"}]",
    b"{",
    b"}",
    b"{]",
    b"{}",
    b"{\"key\"}",
    b"{\"key\":}",
    b"{\"key\":\"a\"",
    b"{\"key\":\"a\",}",
    b"{\"key\":\"a\"} x",
    b"{\"key\":\"a\"}{\"key\":\"a\"}",
    b"{'key':'a'}",
    b"{key:\"a\"}",
    b"\xef\xbb\xbf{\"key\":\"a\"}",
    b"\xff\xfe{\0",
    b"\0",
    b"{\"key\":\"a\0b\"}",
    b"{\"key\":\"\xff\"}",
    b"{\"key\":\"\xc0\xaf\"}",
    b"{\"key\":\"bad\",\"value\":\"\xed\xa0\x80\"}",
    b"{\"key\":\"\\ud800\",\"value\":1}",
    b"{\"key\":\"bad\",\"value\":\"\\udc00\"}",
    b"{\"key\":\"bad\",\"value\":{\"\\ud800\":1}}",
    b"{\"key\":\"bad\",\"value\":[\"x\\ud800y\"]}",
    b"{\"key\":\"a\",\"key\":\"b\"}",
    b"{\"key\":\"bad\",\"value\":1,\"value\":2}",
    b"{\"op\":\"ping\",\"op\":\"ping\"}",
    b"{\"key\":\"\"}",
    b"{\"key\":null}",
    b"{\"key\":5}",
    b"{\"key\":[\"a\"]}",
    b"{\"value\":1}",
    b"{\"key\":\"bad\",\"value\":null}",
    b"{\"key\":\"bad\",\"value\":01}",
    b"{\"key\":\"bad\",\"value\":.5}",
    b"{\"key\":\"bad\",\"value\":+1}",
    b"{\"key\":\"bad\",\"value\":Infinity}",
    b"{\"key\":\"bad\",\"value\":\"\\x\"}",
    b"{\"key\":\"bad\",\"valeu\":1}",
    b"{\"op\":\"fly\"}",
    b"{\"op\":5}",
    b"{\"op\":\"PUT\",\"key\":\"bad\",\"value\":1}",
];

/// Extended requests, with an `op` or a session, in which a field is missing or invalid.
const EXTENDED: &[&[u8]] = &[
    b"{\"op\":\"put\",\"key\":\"bad\"}",
    b"{\"op\":\"put\",\"key\":\"bad\",\"value\":null}",
    b"{\"op\":\"put\",\"value\":1}",
    b"{\"op\":\"get\"}",
    b"{\"op\":\"get\",\"key\":\"a\",\"consistency\":\"strong\"}",
    b"{\"op\":\"get\",\"key\":\"a\",\"consistency\":1}",
    b"{\"op\":\"get\",\"key\":\"a\",\"value\":1}",
    b"{\"op\":\"delete\"}",
    b"{\"op\":\"cas\",\"key\":\"bad\",\"value\":1}",
    b"{\"op\":\"cas\",\"key\":\"bad\",\"expect\":1}",
    b"{\"op\":\"cas\",\"key\":\"bad\",\"expect\":null,\"value\":null}",
    b"{\"op\":\"scan\",\"limit\":0}",
    b"{\"op\":\"scan\",\"limit\":-1}",
    b"{\"op\":\"scan\",\"limit\":1.5}",
    b"{\"op\":\"scan\",\"limit\":99999999999999999999}",
    b"{\"op\":\"scan\",\"prefix\":7}",
    b"{\"key\":\"bad\",\"value\":1,\"session\":null}",
    b"{\"key\":\"bad\",\"value\":1,\"session\":\"c\"}",
    b"{\"key\":\"bad\",\"value\":1,\"session\":{}}",
    b"{\"key\":\"bad\",\"value\":1,\"session\":{\"client\":\"c\"}}",
    b"{\"key\":\"bad\",\"value\":1,\"session\":{\"seq\":1}}",
    b"{\"key\":\"bad\",\"value\":1,\"session\":{\"client\":\"\",\"seq\":1}}",
    b"{\"key\":\"bad\",\"value\":1,\"session\":{\"client\":\"\\ud800\",\"seq\":1}}",
    b"{\"key\":\"bad\",\"value\":1,\"session\":{\"client\":\"c\",\"seq\":-1}}",
    b"{\"key\":\"bad\",\"value\":1,\"session\":{\"client\":\"c\",\"seq\":1.5}}",
    b"{\"key\":\"bad\",\"value\":1,\"session\":{\"client\":\"c\",\"seq\":9007199254740993}}",
    b"{\"key\":\"bad\",\"value\":1,\"session\":{\"client\":\"c\",\"seq\":1,\"x\":1}}",
    b"{\"op\":\"ping\",\"session\":7}",
];

/// All bad lines, each with the error code of its reply.
fn corpus() -> Vec<(Vec<u8>, &'static str)> {
    let nested = |depth| format!(r#"{{"key":"bad","value":{}{}}}"#, "[".repeat(depth), "]".repeat(depth));
    let objects =
        |depth| format!(r#"{{"key":"bad","value":{}1{}}}"#, r#"{"a":"#.repeat(depth), "}".repeat(depth));
    let made = [
        (nested(65), "bad_request"),
        (nested(100_000), "bad_request"),
        (objects(65), "bad_request"),
        (objects(100_000), "bad_request"),
        (format!(r#"{{"key":"bad","value":{}"#, "[".repeat(100_000)), "bad_request"),
        (format!(r#"{{"id":{}{},"op":"ping"}}"#, "[".repeat(100_000), "]".repeat(100_000)), "bad_request"),
        (format!(r#"{{"stray":{}{}}}"#, "[".repeat(100_000), "]".repeat(100_000)), "bad_request"),
        ("[".repeat(1 << 20), "bad_request"),
        (format!(r#"{{"key":"{}","value":1}}"#, "k".repeat(1025)), "bad_request"),
        (format!(r#"{{"key":"{}","value":1}}"#, "é".repeat(513)), "bad_request"),
        (format!(r#"{{"key":"bad","value":"{}"}}"#, "v".repeat((512 << 10) - 1)), "too_large"),
        (
            format!(r#"{{"op":"cas","key":"bad","expect":null,"value":"{}"}}"#, "v".repeat(512 << 10)),
            "too_large",
        ),
    ];
    let lines = PLAIN.iter().chain(EXTENDED).map(|line| (line.to_vec(), "bad_request"));
    lines.chain(made.into_iter().map(|(line, code)| (line.into_bytes(), code))).collect()
}

fn check_refusal(reply: &Value, code: &str, what: &str) {
    assert_eq!((&reply["status"], &reply["error"]), (&json!("error"), &json!(code)), "{what} gave {reply}");
    assert_eq!(reply["definite"], true, "{what} gave {reply}");
    assert!(reply["message"].as_str().is_some_and(|message| !message.is_empty()), "{what} gave {reply}");
}

fn told(line: &[u8]) -> String {
    String::from_utf8_lossy(&line[..line.len().min(80)]).into_owned()
}

/// Every bad line gets one error reply, in order between the replies to good lines, and leaves no
/// trace in any log.
fn each_bad_line_gets_one_error_and_reaches_no_log(runtime: Runtime) {
    let folder = tempfile::tempdir().expect("there is room for a folder");
    let server = Setup::in_folder(runtime, folder.path()).start();
    let (mut talk, mut bystander) = (server.connect(), server.connect());
    for (number, (line, code)) in corpus().into_iter().enumerate() {
        talk.send(&line);
        talk.send(format!("\n{{\"op\":\"ping\",\"id\":{number}}}\n"));
        check_refusal(&talk.hear_json(), code, &told(&line));
        talk.expect(&format!(r#"{{"status":"ok","id":{number}}}"#));
        let good = format!(r#"{{"key":"good","value":{number},"status":"ok"}}"#);
        bystander.exchange(&format!(r#"{{"key":"good","value":{number}}}"#), &good);
    }
    let _ = server.settle();
    server.stop();
    for log in LogFile::read_all(folder.path(), 5) {
        let commands = log.entries.iter().filter(|entry| entry["op"] != "NOOP" && entry["op"] != "LEVEL");
        assert!(commands.clone().all(|entry| entry["key"] == "good"), "a bad line is in a log");
        assert_eq!(commands.count(), corpus().len());
    }
}

/// An error reply contains the key if it is known, so that a client can find out which of its
/// requests was wrong.
fn an_error_names_the_key(runtime: Runtime) {
    let server = Setup::in_memory(runtime).start();
    let mut talk = server.connect();
    for line in [
        r#"{"key":"k","value":null}"#,
        r#"{"op":"fly","key":"k"}"#,
        r#"{"op":"cas","key":"k","value":1}"#,
        r#"{"op":"get","key":"k","consistency":"strong"}"#,
    ] {
        let reply = talk.ask(line);
        check_refusal(&reply, "bad_request", line);
        assert_eq!(reply["key"], "k", "{line}");
    }
}

fn expect_too_large_and_end(talk: &mut Talk) {
    check_refusal(&talk.hear_json(), "too_large", "an oversized line");
    talk.expect_end();
}

/// A line over the size limit is rejected and its connection closed, whether or not the line ever
/// ends. Other connections stay open.
fn an_oversized_line_closes_its_connection_and_no_other(runtime: Runtime) {
    let server = Setup::in_memory(runtime).start();
    let mut bystander = server.connect();
    bystander.exchange(r#"{"op":"ping"}"#, r#"{"status":"ok"}"#);
    let mut talk = server.connect();
    talk.send("{\"op\":\"ping\",\"id\":1}\n");
    talk.send(format!("{{\"key\":\"a\",\"value\":\"{}\"}}\n", "v".repeat(1 << 20)));
    talk.expect(r#"{"status":"ok","id":1}"#);
    expect_too_large_and_end(&mut talk);

    let mut talk = server.connect();
    // The server may close the connection before all bytes are sent.
    let _ = talk.try_send(&vec![b'x'; 3 << 20]);
    expect_too_large_and_end(&mut talk);
    bystander.exchange(r#"{"op":"ping"}"#, r#"{"status":"ok"}"#);
}

/// An incomplete last line is not executed, because the missing part could change its meaning.
fn half_a_line_has_no_effect(runtime: Runtime) {
    let server = Setup::in_memory(runtime).start();
    let mut talk = server.connect();
    talk.send("{\"key\":\"whole\",\"value\":1}\n{\"key\":\"half\",\"value\":1}");
    talk.hang_up();
    assert_eq!(talk.hear_all(), "{\"key\":\"whole\",\"value\":1,\"status\":\"ok\"}\n");
    let mut other = server.connect();
    until("the whole line is seen", || other.ask(r#"{"key":"whole"}"#)["value"] == 1);
    other.exchange(
        r#"{"op":"cas","key":"half","expect":null,"value":2}"#,
        r#"{"key":"half","value":2,"status":"ok"}"#,
    );
}

/// Connections that close without a request, or in the middle of one, leak no connection slots.
fn clients_that_vanish_leave_nothing_behind(runtime: Runtime) {
    let server = Setup::in_memory(runtime).with("--max-connections 20").start();
    for round in 0..100 {
        // Above the limit, a client may be rejected for a moment, but not permanently.
        let mut talk = server.connect();
        let _ = talk.try_send(&b"{\"key\":\"a\",\"value\":1}\n{\"key\":\"b\""[..round % 30]);
    }
    until("all places are free again", || {
        let mut talks: Vec<_> = (0..20).map(|_| server.connect()).collect();
        talks.iter_mut().all(|talk| talk.try_send(b"{\"op\":\"ping\"}\n").is_ok())
            && talks.iter_mut().all(|talk| talk.try_hear().is_ok_and(|line| line == r#"{"status":"ok"}"#))
    });
}

/// A client that speaks another protocol gets one error reply and is disconnected, and nothing that
/// it sent is executed. Otherwise a web page could write, because a browser sends any body to any
/// port of its machine. The reply arrives although more data is in flight.
fn another_protocol_ends_its_connection_and_nothing_of_it_is_carried_out(runtime: Runtime) {
    let server = Setup::in_memory(runtime).start();
    let mut client = server.connect();
    client.exchange(r#"{"key":"kept","value":1}"#, r#"{"key":"kept","value":1,"status":"ok"}"#);
    let body = "{\"op\":\"delete\",\"key\":\"kept\"}\n".repeat(1000);
    for head in ["POST / HTTP/1.1\r\nHost: a\r\n\r\n", "\x16\x03\x01", "*1\r\n$4\r\nPING\r\n", "\0\0\0\x08"] {
        let mut talk = server.connect();
        talk.send(format!("{head}{body}"));
        let refusal = talk.hear_json();
        assert_eq!((&refusal["error"], &refusal["definite"]), (&json!("bad_request"), &json!(true)));
        assert!(refusal["message"].as_str().is_some_and(|why| why.contains("is for clients")), "{refusal}");
        talk.expect_end();
    }
    client.exchange(r#"{"key":"kept"}"#, r#"{"key":"kept","value":1,"status":"ok"}"#);
}

both_runtimes_and_tls!(
    each_bad_line_gets_one_error_and_reaches_no_log,
    an_error_names_the_key,
    an_oversized_line_closes_its_connection_and_no_other,
    half_a_line_has_no_effect,
    clients_that_vanish_leave_nothing_behind;
    only plain: another_protocol_ends_its_connection_and_nothing_of_it_is_carried_out,
);
