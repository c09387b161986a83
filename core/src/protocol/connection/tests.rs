//! Tests of the protocol as a client sees it: lines in, lines out.
mod access;
mod pages;
mod watches;

use super::*;
use crate::kv::{ClientName, Command, Found, Item, Key, KeyMeta, Outcome, Page, Session, Value};
use crate::proxy::{Answered, RequestError};
use crate::replica::Answer;

/// Sends `line`, answers its request with `answer`, and returns the reply line.
fn ask(line: &str, answer: impl FnOnce(Request) -> Reply) -> String {
    let mut connection = Connection::new(None);
    connection.receive(line.as_bytes());
    connection.receive(b"\n");
    if let Some((slot, request)) = connection.next_request() {
        connection.reply(slot, answer(request));
    }
    written(&mut connection)
}

fn written(connection: &mut Connection) -> String {
    let mut output = String::new();
    connection.write_replies(&mut output, usize::MAX);
    output
}

fn applied(outcome: Outcome) -> Reply {
    Ok(Answered::ByNode(Answer::Applied { index: LogIndex(5), outcome, meta: KeyMeta::default() }))
}

fn read(found: Found) -> Reply {
    Ok(Answered::ByNode(Answer::Read { index: LogIndex(5), found }))
}

fn done(_: Request) -> Reply {
    applied(Outcome::Done)
}

fn unasked(request: Request) -> Reply {
    panic!("this line is no request, but became {request:?}")
}

fn found(json: &str) -> impl FnOnce(Request) -> Reply {
    let value = Value::from_json(json).unwrap();
    move |_| read(Found::Value(Some(value)))
}

fn missing(_: Request) -> Reply {
    read(Found::Value(None))
}

#[test]
fn plain_requests_are_answered_byte_for_byte() {
    let put = ask(r#"{"key":"snack","value":"chips"}"#, |request| {
        assert!(matches!(&request, Request::Write { command: Command::Put { .. }, session: None, .. }));
        done(request)
    });
    assert_eq!(put, "{\"key\":\"snack\",\"value\":\"chips\",\"status\":\"ok\"}\n");
    let get = ask(r#"{"key":"snack"}"#, found("\"chips\""));
    assert_eq!(get, "{\"key\":\"snack\",\"value\":\"chips\",\"status\":\"ok\"}\n");
    let nope = ask("{\"key\":\"nope\"}\r", missing);
    assert_eq!(nope, "{\"key\":\"nope\",\"value\":null,\"status\":\"error\"}\n");
}

#[test]
fn extended_requests_are_answered_in_their_shapes() {
    assert_eq!(
        ask(r#"{"op":"put","key":"k","value":[1, 2],"id":7}"#, done),
        "{\"key\":\"k\",\"value\":[1,2],\"status\":\"ok\",\"id\":7}\n"
    );
    assert_eq!(
        ask(r#"{"op":"delete","key":"k","id":null}"#, done),
        "{\"key\":\"k\",\"status\":\"ok\",\"id\":null}\n"
    );
    assert_eq!(
        ask(r#"{"op":"cas","key":"k","expect":null,"value":1}"#, done),
        "{\"key\":\"k\",\"value\":1,\"status\":\"ok\"}\n"
    );
    assert_eq!(ask(r#"{"op":"ping","id":"a"}"#, unasked), "{\"status\":\"ok\",\"id\":\"a\"}\n");
    let missing = ask(r#"{"op":"get","key":"k","consistency":"eventual"}"#, missing);
    assert!(
        missing.starts_with(r#"{"key":"k","value":null,"status":"error","error":"not_found","#),
        "{missing}"
    );
    let page = |_| read(Found::Page(Page { items: Vec::new(), more: false }));
    assert_eq!(ask(r#"{"op":"scan"}"#, page), "{\"items\":[],\"more\":false,\"status\":\"ok\"}\n");
}

#[test]
fn a_failed_read_does_not_mention_a_write() {
    for failure in [RequestError::Timeout, RequestError::Storage] {
        let put = ask(r#"{"key":"k","value":1}"#, |_| Err(failure));
        assert!(put.contains("; a write may still take effect\""), "{put}");
        for read in [r#"{"key":"k"}"#, r#"{"op":"scan"}"#, r#"{"op":"status"}"#] {
            let reply = ask(read, |_| Err(failure));
            assert!(!reply.contains("write"), "{reply}");
        }
    }
}

#[test]
fn failures_say_what_they_are_and_whether_they_are_definite() {
    let mismatch = Outcome::Mismatch { actual: Value::from_json("2").ok() };
    let line = ask(r#"{"op":"cas","key":"k","expect":1,"value":3}"#, |_| applied(mismatch));
    assert!(line.starts_with("{\"status\":\"error\",\"error\":\"cas_mismatch\""), "{line}");
    assert!(line.ends_with(",\"definite\":true,\"key\":\"k\",\"actual\":2}\n"), "{line}");
    for (failure, code, definite) in [
        (RequestError::NoLeader, "no_leader", true),
        (RequestError::Timeout, "timeout", false),
        (RequestError::Busy, "busy", true),
        (RequestError::ShuttingDown, "shutting_down", true),
        (RequestError::Storage, "storage", false),
    ] {
        let line = ask(r#"{"key":"k","value":1,"id":[3]}"#, |_| Err(failure));
        assert!(line.starts_with(&format!("{{\"status\":\"error\",\"error\":\"{code}\",")), "{line}");
        assert!(line.ends_with(&format!(",\"definite\":{definite},\"key\":\"k\",\"id\":[3]}}\n")), "{line}");
    }
}

#[test]
fn bad_lines_get_one_error_line_each_and_make_no_request() {
    let deep = format!("{{\"key\":\"k\",\"value\":{}1{}}}", "[".repeat(65), "]".repeat(65));
    let very_deep = format!("{{\"key\":\"k\",\"value\":{}", "[".repeat(500_000));
    let long_key = format!("{{\"key\":\"{}\",\"value\":1}}", "k".repeat(1025));
    let long_client =
        format!("{{\"key\":\"k\",\"session\":{{\"client\":\"{}\",\"seq\":1}}}}", "c".repeat(129));
    let corpus = [
        "",
        " ",
        "null",
        "7",
        "\"put\"",
        "[]",
        "[\"put\",\"k\",1]",
        "{",
        "{}",
        "{\"key\"}",
        "not json",
        "{\"key\":\"k\",\"value\":null}",
        "{\"op\":\"put\",\"key\":\"k\",\"value\":null}",
        "{\"key\":\"\"}",
        "{\"key\":5}",
        "{\"key\":null}",
        "{\"value\":1}",
        "{\"op\":\"get\"}",
        "{\"op\":\"nope\",\"key\":\"k\"}",
        "{\"op\":5,\"key\":\"k\"}",
        "{\"op\":null}",
        "{\"key\":\"k\",\"kye\":1}",
        "{\"key\":\"a\",\"key\":\"b\"}",
        "{\"key\":\"k\",\"value\":1} {}",
        "{\"key\":\"k\",\"value\":1",
        "{\"op\":\"get\",\"key\":\"k\",\"consistency\":\"strong\"}",
        "{\"op\":\"get\",\"key\":\"k\",\"value\":1}",
        "{\"op\":\"cas\",\"key\":\"k\",\"value\":1}",
        "{\"op\":\"scan\",\"limit\":0}",
        "{\"op\":\"scan\",\"limit\":-1}",
        "{\"op\":\"scan\",\"limit\":10001}",
        "{\"op\":\"scan\",\"limit\":1e999}",
        "{\"op\":\"scan\",\"key\":\"k\"}",
        "{\"key\":\"\\ud800\"}",
        "{\"key\":\"k\",\"value\":\"\\ud800\"}",
        "{\"key\":\"k\",\"value\":01}",
        "{\"key\":\"k\",\"value\":\"\t\"}",
        "{\"key\":\"k\0\",\"value\":1}",
        "\u{feff}{\"key\":\"k\"}",
        "{\"key\":\"k\",\"value\":NaN}",
        "{'key':'k'}",
        &deep,
        &very_deep,
        &long_client,
        &long_key,
    ];
    for line in corpus {
        let reply = ask(line, unasked);
        assert!(
            reply.starts_with("{\"status\":\"error\",\"error\":\"bad_request\","),
            "{line:.80} got {reply}"
        );
        assert!(reply.contains("\"definite\":true"), "{reply}");
        assert_eq!(reply.matches('\n').count(), 1);
        assert!(serde_json::from_str::<serde_json::Value>(&reply).is_ok(), "{reply}");
    }
}

#[test]
fn a_session_is_part_of_the_write_and_not_of_the_reply() {
    let session = Session::new(ClientName::new("c").unwrap(), 7).unwrap();
    for (line, reply) in [
        (
            r#"{"key":"k","value":1,"session":{"client":"c","seq":7}}"#,
            r#"{"key":"k","value":1,"status":"ok"}"#,
        ),
        (
            r#"{"session":{"seq":7,"client":"\u0063"},"op":"delete","key":"k"}"#,
            r#"{"key":"k","status":"ok"}"#,
        ),
        (
            r#"{"op":"cas","key":"k","expect":1,"value":2,"session":{ "client":"c" , "seq":7 }}"#,
            r#"{"key":"k","value":2,"status":"ok"}"#,
        ),
    ] {
        let answered = ask(line, |request| {
            assert!(
                matches!(&request, Request::Write { session: Some(it), .. } if *it == session),
                "{request:?}"
            );
            done(request)
        });
        assert_eq!(answered, format!("{reply}\n"));
    }
    let get = ask(r#"{"key":"k","session":{"client":"c","seq":7}}"#, found("1"));
    assert_eq!(get, "{\"key\":\"k\",\"value\":1,\"status\":\"ok\"}\n");
    let ping = ask(r#"{"op":"ping","session":{"client":"c","seq":7}}"#, unasked);
    assert_eq!(ping, "{\"status\":\"ok\"}\n");
    let expired = ask(r#"{"key":"k","value":1,"id":5,"session":{"client":"c","seq":7}}"#, |_| {
        applied(Outcome::SessionExpired)
    });
    assert!(
        expired.starts_with("{\"status\":\"error\",\"error\":\"session_expired\",\"message\":\"this session")
    );
    assert!(expired.ends_with(",\"definite\":true,\"key\":\"k\",\"id\":5}\n"), "{expired}");
}

#[test]
fn an_invalid_session_is_rejected_with_the_name_of_its_member() {
    for (session, named) in [
        ("null", "session"),
        ("7", "session"),
        (r#"["c",7]"#, "session"),
        ("{}", "client"),
        (r#"{"client":"c"}"#, "seq"),
        (r#"{"client":"","seq":1}"#, "client"),
        (r#"{"client":5,"seq":1}"#, "client"),
        (r#"{"client":null,"seq":1}"#, "client"),
        (r#"{"client":"\ud800","seq":1}"#, "client"),
        (r#"{"client":"c","seq":-1}"#, "seq"),
        (r#"{"client":"c","seq":1.5}"#, "seq"),
        (r#"{"client":"c","seq":1e2}"#, "seq"),
        (r#"{"client":"c","seq":"1"}"#, "seq"),
        (r#"{"client":"c","seq":9007199254740993}"#, "seq"),
        (r#"{"client":"c","seq":1,"key":"k"}"#, "key"),
        (r#"{"client":"c","client":"d","seq":1}"#, "client"),
    ] {
        for rest in [r#""key":"k","value":1"#, r#""key":"k""#, r#""op":"delete","key":"k""#] {
            let reply = ask(&format!("{{{rest},\"session\":{session}}}"), unasked);
            assert!(
                reply.contains("\"bad_request\"") && reply.contains(&format!("\\\"{named}\\\""))
                    || reply.contains(&format!("`{named}`")),
                "{session} got {reply}"
            );
            assert!(reply.ends_with(",\"definite\":true,\"key\":\"k\"}\n"), "{reply}");
        }
    }
}

#[test]
fn invalid_utf8_is_rejected() {
    for line in
        [&b"{\"key\":\"\xff\"}\n"[..], b"{\"key\":\"k\",\"value\":\"\xc3\"}\n", b"\xff\xfe\n", b"\0\n"]
    {
        let mut connection = Connection::new(None);
        connection.receive(b"{\"op\":\"ping\"}\n");
        connection.receive(line);
        assert!(connection.next_request().is_none());
        assert!(written(&mut connection).contains("bad_request"));
        assert!(
            connection.wants_input(),
            "only a line over the limit, and another protocol at the start, close"
        );
    }
}

#[test]
fn errors_repeat_the_key_and_the_id_where_they_are_known() {
    let reply = ask(r#"{"key":"k","value":null,"id":{"a":1}}"#, unasked);
    assert!(reply.ends_with(",\"key\":\"k\",\"id\":{\"a\":1}}\n"), "{reply}");
    let reply = ask(r#"{"key":5,"id":"x"}"#, unasked);
    assert!(reply.ends_with(",\"definite\":true,\"id\":\"x\"}\n"), "{reply}");
}

#[test]
fn a_value_over_its_limit_is_too_large_and_does_no_harm() {
    let line = format!("{{\"key\":\"k\",\"value\":\"{}\"}}", "v".repeat(600_000));
    let mut connection = Connection::new(None);
    connection.receive(line.as_bytes());
    connection.receive(b"\n{\"op\":\"ping\"}\n");
    assert!(connection.next_request().is_none());
    let replies = written(&mut connection);
    assert!(replies.starts_with("{\"status\":\"error\",\"error\":\"too_large\""), "{replies}");
    assert!(replies.ends_with("{\"status\":\"ok\"}\n"), "{replies}");
}

#[test]
fn a_line_over_its_limit_gets_an_error_after_the_replies_before_it_and_closes() {
    let mut connection = Connection::new(None);
    connection.receive(b"{\"key\":\"k\"}\n");
    connection.receive(&vec![b'x'; LINE_BYTES_MAX + 2]);
    let (slot, request) = connection.next_request().unwrap();
    assert!(connection.next_request().is_none());
    assert!(!connection.is_finished() && !connection.wants_input());
    assert_eq!(written(&mut connection), "");
    connection.reply(slot, missing(request));
    let replies = written(&mut connection);
    assert_eq!(replies.lines().count(), 2);
    assert!(replies.lines().last().unwrap().contains("too_large"));
    assert!(connection.is_finished());
}

#[test]
fn replies_come_in_the_order_of_the_requests() {
    let mut connection = Connection::new(None);
    connection.receive(b"{\"key\":\"a\"}\n{\"key\":\"b\"}\n{\"op\":\"ping\"}\n{\"key\":\"c\"}\n");
    let mut slots = Vec::new();
    while let Some((slot, _)) = connection.next_request() {
        slots.push(slot);
    }
    let value = |json: &str| read(Found::Value(Value::from_json(json).ok()));
    connection.reply(slots[2], value("3"));
    connection.reply(slots[1], value("2"));
    assert_eq!(written(&mut connection), "", "the first is still open");
    connection.reply(slots[0], value("1"));
    connection.reply(slots[0], value("9"));
    let replies = written(&mut connection);
    let keys: Vec<_> = replies.lines().map(|line| line.get(..18).unwrap_or(line)).collect();
    let expected = [
        "{\"key\":\"a\",\"value\"",
        "{\"key\":\"b\",\"value\"",
        "{\"status\":\"ok\"}",
        "{\"key\":\"c\",\"value\"",
    ];
    assert_eq!(keys, expected);
}

#[test]
fn a_line_that_grows_byte_by_byte_is_read_until_it_is_too_long() {
    let mut connection = Connection::new(None);
    connection.receive(&vec![b'x'; LINE_BYTES_MAX]);
    while connection.wants_input() {
        assert!(connection.next_request().is_none());
        connection.receive(b"x");
    }
    assert!(connection.next_request().is_none());
    assert!(written(&mut connection).contains("too_large"));
}

#[test]
fn a_client_that_sends_without_end_is_held_back() {
    let mut connection = Connection::new(None);
    for _ in 0..=PIPELINE_MAX {
        connection.receive(b"{\"key\":\"k\"}\n");
    }
    let mut taken = Vec::new();
    while let Some((slot, _)) = connection.next_request() {
        taken.push(slot);
    }
    assert_eq!(taken.len(), PIPELINE_MAX);
    assert!(!connection.wants_input());
    connection.reply(taken[0], read(Found::Value(None)));
    assert!(written(&mut connection).ends_with('\n'));
    assert!(connection.wants_input());
    assert!(connection.next_request().is_some(), "the line that waited");
}

#[test]
fn a_client_that_reads_no_replies_is_held_back_by_bytes() {
    let mut connection = Connection::new(None);
    let id = "i".repeat(100_000);
    let mut taken = 0;
    while connection.wants_input() {
        connection.receive(format!("{{\"op\":\"ping\",\"id\":\"{id}\"}}\n").as_bytes());
        assert!(connection.next_request().is_none());
        taken += 1;
    }
    assert!((40..=43).contains(&taken), "{taken} lines of 100 kB fill {CONNECTION_BYTES_MAX} bytes");
    assert!(written(&mut connection).len() > 4_000_000);
    assert!(connection.wants_input());
}

#[test]
fn the_memory_of_a_reply_counts_until_it_is_written() {
    let mut connection = Connection::new(None);
    let large = Value::from_text(&"v".repeat(500_000)).unwrap();
    for _ in 0..20 {
        connection.receive(b"{\"key\":\"k\"}\n");
    }
    let mut answered = 0;
    while let Some((slot, _)) = connection.next_request() {
        connection.reply(slot, read(Found::Value(Some(large.clone()))));
        answered += 1;
    }
    assert_eq!(answered, 9, "nine replies of half a megabyte");
    written(&mut connection);
    assert!(connection.next_request().is_some());
}

#[test]
fn replies_are_written_only_up_to_the_limit() {
    let mut connection = Connection::new(None);
    for _ in 0..10 {
        connection.receive(b"{\"key\":\"k\"}\n");
        let (slot, request) = connection.next_request().unwrap();
        connection.reply(slot, missing(request));
    }
    let mut output = String::new();
    connection.write_replies(&mut output, 50);
    assert_eq!(output.lines().count(), 2);
    connection.write_replies(&mut output, 50);
    assert_eq!(output.lines().count(), 2, "what was written is still there");
    assert!(!connection.is_idle());
}

#[test]
fn an_incomplete_last_line_is_dropped() {
    let mut connection = Connection::new(None);
    connection.receive(b"{\"key\":\"a\"}\n{\"key\":\"b\",\"value\":1}");
    let (slot, request) = connection.next_request().unwrap();
    connection.end_input();
    assert!(connection.next_request().is_none());
    connection.reply(slot, missing(request));
    assert_eq!(written(&mut connection).lines().count(), 1);
    assert!(connection.is_finished());
}

#[test]
fn complete_lines_are_answered_after_the_end_of_input() {
    let mut connection = Connection::new(None);
    for _ in 0..=PIPELINE_MAX {
        connection.receive(b"{\"key\":\"k\"}\n");
    }
    connection.end_input();
    let mut replies = 0;
    while !connection.is_finished() {
        while let Some((slot, request)) = connection.next_request() {
            connection.reply(slot, missing(request));
        }
        replies += written(&mut connection).lines().count();
    }
    assert_eq!(replies, PIPELINE_MAX + 1);
}

#[test]
fn requests_for_one_key_run_in_order_and_others_concurrently() {
    let mut connection = Connection::new(None);
    connection.receive(b"{\"key\":\"a\",\"value\":1}\n{\"key\":\"b\"}\n{\"key\":\"a\"}\n{\"key\":\"c\"}\n");
    let (put, _) = connection.next_request().unwrap();
    let (other, _) = connection.next_request().unwrap();
    assert!(
        connection.next_request().is_none(),
        "the read of the written key waits, and so do those behind it"
    );
    assert!(connection.may_have_requests());
    connection.reply(other, read(Found::Value(None)));
    assert!(connection.next_request().is_none());
    connection.reply(put, applied(Outcome::Done));
    let (_, request) = connection.next_request().unwrap();
    assert!(
        matches!(request, Request::Read { at_least: LogIndex(5), .. }),
        "at least the write: {request:?}"
    );
    assert!(connection.next_request().is_some());
    assert!(!connection.may_have_requests());
}

/// Covers requests that a web page can make a browser send to any port of its machine. None of them
/// may be executed.
#[test]
fn another_protocol_ends_the_connection_and_nothing_is_executed() {
    let delete = "{\"op\":\"delete\",\"key\":\"snack\"}\n";
    let http = format!("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\n\r\n{delete}");
    for bytes in [
        http.as_bytes(),
        format!("\r\n{http}").as_bytes(),
        b"\x16\x03\x01\x02",
        b"*1\r\n$4\r\nPING\r\n",
        b"\0\0\0\x08",
    ] {
        let mut connection = Connection::new(None);
        connection.receive(bytes);
        assert!(connection.next_request().is_none());
        connection.receive(delete.as_bytes());
        assert!(connection.next_request().is_none());
        let mut output = String::new();
        connection.write_replies(&mut output, usize::MAX);
        assert!(output.ends_with("}\n") && output.contains("Nothing was executed"), "{output}");
        assert!(connection.is_finished());
    }
}

#[test]
fn another_protocol_is_detected_only_in_the_first_line() {
    let mut connection = Connection::new(None);
    connection.receive(b"x\nGET / HTTP/1.1\n{\"op\":\"ping\"}\n");
    assert!(connection.next_request().is_none());
    let mut output = String::new();
    connection.write_replies(&mut output, usize::MAX);
    assert_eq!(output.lines().count(), 3, "{output}");
    assert!(!connection.is_finished());
}
