//! Linearizable reads, and leadership transfer under load.

use std::thread;

use coracle_tests::both_runtimes_and_tls;
use coracle_tests::live::{Runtime, Server, Setup};
use serde_json::{Value, json};

/// A linearizable read sees every write that was acknowledged on another connection before, at once
/// and on any node.
fn a_linearizable_read_sees_every_write_that_was_answered(runtime: Runtime) {
    let server = Setup::in_memory(runtime).start();
    let (mut writer, mut reader) = (server.connect(), server.connect());
    for round in 0..200 {
        let stored = format!(r#"{{"key":"k","value":{round},"status":"ok"}}"#);
        writer.exchange(&format!(r#"{{"key":"k","value":{round}}}"#), &stored);
        reader.exchange(r#"{"op":"get","key":"k","consistency":"linearizable"}"#, &stored);
        let page = reader.ask(r#"{"op":"scan","consistency":"linearizable"}"#);
        assert_eq!(page["items"], json!([{ "key": "k", "value": round }]));
    }
    let missing = reader.ask(r#"{"op":"get","key":"no","consistency":"linearizable"}"#);
    assert_eq!((&missing["error"], &missing["definite"]), (&json!("not_found"), &json!(true)));
}

fn leader(server: &Server) -> Option<u64> {
    let status = server.connect().ask(r#"{"op":"status"}"#);
    let nodes = status["nodes"].as_array().expect("a status has nodes");
    nodes.iter().find(|node| node["role"] == "leader").and_then(|node| node["id"].as_u64())
}

/// Repeated leadership transfers each reach the requested node, and clients see no error.
fn leadership_is_handed_over_under_load(runtime: Runtime) {
    let server = Setup::in_memory(runtime).start();
    server.connect().exchange(r#"{"key":"k0","value":0}"#, r#"{"key":"k0","value":0,"status":"ok"}"#);
    thread::scope(|scope| {
        let clients: Vec<_> = (0..4)
            .map(|client| {
                let mut talk = server.connect();
                scope.spawn(move || {
                    for round in 0..100 {
                        let stored = format!(r#"{{"key":"k{client}","value":{round},"status":"ok"}}"#);
                        talk.exchange(&format!(r#"{{"key":"k{client}","value":{round}}}"#), &stored);
                        let get = format!(r#"{{"op":"get","key":"k{client}","consistency":"linearizable"}}"#);
                        talk.exchange(&get, &stored);
                    }
                })
            })
            .collect();
        let mut admin = server.connect();
        for round in 0..20 {
            let next = (leader(&server).unwrap_or(0) + 1 + round % 3) % 5;
            let reply: Value = admin.ask(&format!(r#"{{"op":"transfer","node":{next}}}"#));
            assert_eq!(reply, json!({ "leader": next, "status": "ok" }));
        }
        clients.into_iter().for_each(|client| client.join().expect("its requests were answered"));
    });
}

fn an_order_to_a_stranger_is_refused(runtime: Runtime) {
    let server = Setup::in_memory(runtime).start();
    let mut talk = server.connect();
    for line in [r#"{"op":"transfer","node":77}"#, r#"{"op":"transfer"}"#, r#"{"op":"transfer","node":"1"}"#]
    {
        let reply = talk.ask(line);
        assert_eq!((&reply["error"], &reply["definite"]), (&json!("bad_request"), &json!(true)), "{reply}");
    }
}

both_runtimes_and_tls!(
    a_linearizable_read_sees_every_write_that_was_answered,
    leadership_is_handed_over_under_load,
    an_order_to_a_stranger_is_refused,
);
