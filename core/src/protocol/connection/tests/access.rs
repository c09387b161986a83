//! Access control: every operation with every role, keys at the edges of prefixes, and the life of
//! a token.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use super::*;
use crate::access::{Gate, Grant, Proof, Role, TOKEN_BYTES_MAX};
use crate::host::{ClientHost, ReadStep, ToWriter};
use crate::kv::Revision;
use crate::memory::MemoryBudget;
use crate::replica::{Request, WatchAnswer};

/// Grants by name: a token is the name of its grant.
#[derive(Debug, Default)]
struct Names {
    grants: Mutex<Vec<Arc<Grant>>>,
    generation: AtomicU64,
    failures: AtomicU64,
}

impl Gate for Names {
    fn generation(&self) -> u64 {
        self.generation.load(Ordering::Relaxed)
    }

    fn proof_of(&self, token: &str) -> Proof {
        Proof::Certificate(token.into())
    }

    fn grant(&self, proof: &Proof) -> Option<Arc<Grant>> {
        let Proof::Certificate(name) = proof else { return None };
        self.grants.lock().unwrap().iter().find(|grant| grant.name == *name).cloned()
    }

    fn note_failure(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
    }
}

fn gate(grants: &[(&str, Role, &[&str])]) -> Arc<Names> {
    let grants = grants.iter().map(|(name, role, prefixes)| {
        let prefixes = prefixes.iter().map(|prefix| Box::from(*prefix)).collect();
        Arc::new(Grant { name: Box::from(*name), role: *role, prefixes })
    });
    Arc::new(Names { grants: Mutex::new(grants.collect()), ..Names::default() })
}

/// The code of the error with which a request is rejected at once; `None`: it is permitted.
fn rejected(connection: &mut Connection, line: &str) -> Option<String> {
    connection.receive(format!("{line}\n").as_bytes());
    if let Some((slot, _)) = connection.next_request() {
        connection.reply(slot, Err(RequestError::Busy));
    }
    let mut output = String::new();
    connection.write_replies(&mut output, usize::MAX);
    let reply: serde_json::Value = serde_json::from_str(output.lines().next()?).unwrap();
    if let Some(watch) = reply["watch"].as_u64() {
        connection.watches.close(watch);
    }
    let code = reply["error"].as_str()?;
    assert_eq!(reply["definite"], true, "{output}");
    (!["busy", "bad_request"].contains(&code)).then(|| code.to_owned())
}

fn of_gate(gate: &Arc<Names>) -> Connection {
    Connection::new(None).with_gate(Some(Arc::clone(gate) as Arc<dyn Gate>))
}

/// Every operation, and the role that it needs.
const OPERATIONS: [(&str, Role); 26] = [
    (r#"{"op":"ping"}"#, Role::Read),
    (r#"{"op":"status"}"#, Role::Read),
    (r#"{"op":"members"}"#, Role::Read),
    (r#"{"op":"unwatch","watch":7}"#, Role::Read),
    (r#"{"key":"K"}"#, Role::Read),
    (r#"{"op":"get","key":"K"}"#, Role::Read),
    (r#"{"op":"get","key":"K","meta":true,"consistency":"linearizable"}"#, Role::Read),
    (r#"{"op":"scan","prefix":"K"}"#, Role::Read),
    (r#"{"op":"scan","prefix":"K","count":true}"#, Role::Read),
    (r#"{"op":"scan","prefix":"K","consistency":"linearizable"}"#, Role::Read),
    (r#"{"op":"watch","key":"K"}"#, Role::Read),
    (r#"{"op":"watch","prefix":"K","initial":true}"#, Role::Read),
    (r#"{"key":"K","value":1}"#, Role::Write),
    (r#"{"op":"put","key":"K","value":1,"ttl_ms":5}"#, Role::Write),
    (r#"{"op":"delete","key":"K"}"#, Role::Write),
    (r#"{"op":"delete","key":"K","rev":3}"#, Role::Write),
    (r#"{"op":"cas","key":"K","expect":1,"value":2}"#, Role::Write),
    (r#"{"op":"cas","key":"K","rev":1,"value":2}"#, Role::Write),
    (r#"{"op":"touch","key":"K","ttl_ms":5}"#, Role::Write),
    (r#"{"op":"persist","key":"K"}"#, Role::Write),
    (r#"{"op":"incr","key":"K"}"#, Role::Write),
    (r#"{"op":"delete_prefix","prefix":"K"}"#, Role::Write),
    (r#"{"op":"txn","if":[{"key":"K","absent":true}],"then":[{"op":"get","key":"K"}]}"#, Role::Write),
    (r#"{"op":"transfer","node":1}"#, Role::Admin),
    (r#"{"op":"backup"}"#, Role::Admin),
    (r#"{"op":"member_add","node":4,"address":"h:1"}"#, Role::Admin),
];

const MORE_OF_ADMINS: [&str; 2] =
    [r#"{"op":"member_promote","node":4}"#, r#"{"op":"member_remove","node":4,"force":true}"#];

#[test]
fn each_role_permits_its_operations_and_no_others() {
    let gate = gate(&[("read", Role::Read, &[]), ("write", Role::Write, &[]), ("admin", Role::Admin, &[])]);
    let operations = OPERATIONS.into_iter().chain(MORE_OF_ADMINS.map(|line| (line, Role::Admin)));
    for (line, needed) in operations {
        let line = line.replace('K', "a/b");
        assert_eq!(rejected(&mut of_gate(&gate), &line).as_deref(), Some("unauthenticated"), "{line}");
        assert_eq!(rejected(&mut Connection::new(None), &line), None, "{line}");
        for role in Role::ALL {
            let mut connection = of_gate(&gate);
            connection.certified(role.name());
            let forbidden = (role < needed).then_some("forbidden");
            assert_eq!(rejected(&mut connection, &line).as_deref(), forbidden, "{role} {line}");
        }
    }
}

/// A server may answer the requests of administrators at another address only. The role is needed
/// there as well.
#[test]
fn a_port_may_leave_the_requests_of_administrators_to_another_one() {
    let gate = gate(&[("write", Role::Write, &[]), ("admin", Role::Admin, &[])]);
    let operations = OPERATIONS.into_iter().chain(MORE_OF_ADMINS.map(|line| (line, Role::Admin)));
    for (line, needed) in operations {
        let elsewhere = |connection: Connection| connection.with_admin_elsewhere(Some("h:9".into()));
        let mut open = elsewhere(Connection::new(None));
        let forbidden = (needed == Role::Admin).then_some("forbidden");
        assert_eq!(rejected(&mut open, line).as_deref(), forbidden, "{line}");
        for role in [Role::Write, Role::Admin] {
            let mut connection = elsewhere(of_gate(&gate));
            connection.certified(role.name());
            assert_eq!(rejected(&mut connection, line).as_deref(), forbidden, "{role} {line}");
        }
        assert_eq!(rejected(&mut elsewhere(of_gate(&gate)), line).as_deref(), Some("unauthenticated"));
    }
    let mut connection = Connection::new(None).with_admin_elsewhere(Some("h:9".into()));
    connection.receive(b"{\"op\":\"transfer\",\"node\":1}\n");
    assert!(connection.next_request().is_none());
    let mut output = String::new();
    connection.write_replies(&mut output, usize::MAX);
    assert!(output.contains("at its address h:9 only"), "{output}");
}

#[test]
fn a_client_that_is_limited_to_prefixes_reaches_no_other_key() {
    let gate = gate(&[("till", Role::Write, &["a/", "c"])]);
    let concerns_keys = OPERATIONS.iter().filter(|(line, _)| line.contains('K'));
    for (line, _) in concerns_keys {
        for (key, is_covered) in [
            ("a/", true),
            ("a/b", true),
            ("c", true),
            ("cd", true),
            ("a", false),
            ("ab", false),
            ("b", false),
            ("b/a/", false),
            ("A/", false),
        ] {
            let line = line.replace('K', key);
            let mut connection = of_gate(&gate);
            connection.certified("till");
            let forbidden = (!is_covered).then_some("forbidden");
            assert_eq!(rejected(&mut connection, &line).as_deref(), forbidden, "{line}");
        }
    }
    for line in [
        r#"{"op":"scan"}"#,
        r#"{"op":"scan","after":"a/","end":"a/z"}"#,
        r#"{"op":"watch","prefix":""}"#,
        r#"{"op":"delete_prefix","prefix":""}"#,
        r#"{"op":"txn","if":[{"key":"b","absent":true}],"then":[{"op":"put","key":"a/1","value":1}]}"#,
        r#"{"op":"txn","then":[{"op":"put","key":"a/1","value":1},{"op":"get","key":"b"}]}"#,
        r#"{"op":"txn","then":[{"op":"put","key":"a/1","value":1}],"else":[{"op":"delete","key":"b"}]}"#,
    ] {
        let mut connection = of_gate(&gate);
        connection.certified("till");
        assert_eq!(rejected(&mut connection, line).as_deref(), Some("forbidden"), "{line}");
    }
}

#[test]
fn a_token_is_answered_with_the_name_and_holds_from_the_next_line_on() {
    let gate = gate(&[("till", Role::Read, &[])]);
    let mut connection = of_gate(&gate);
    connection.receive(b"{\"key\":\"a\"}\n{\"op\":\"auth\",\"token\":\"till\",\"id\":7}\n{\"key\":\"a\"}\n");
    let (slot, _) = connection.next_request().unwrap();
    assert_eq!(slot, 2);
    let mut output = String::new();
    connection.write_replies(&mut output, usize::MAX);
    let lines: Vec<_> = output.lines().collect();
    assert!(lines[0].starts_with("{\"status\":\"error\",\"error\":\"unauthenticated\",\"message\":\""));
    assert!(lines[0].ends_with(",\"definite\":true,\"key\":\"a\"}"), "{output}");
    assert_eq!(lines[1], "{\"name\":\"till\",\"status\":\"ok\",\"id\":7}");
}

#[test]
fn a_token_that_is_taken_away_ends_the_rights_at_the_next_request() {
    let gate = gate(&[("till", Role::Read, &[])]);
    let mut connection = of_gate(&gate);
    assert_eq!(rejected(&mut connection, r#"{"op":"auth","token":"till"}"#), None);
    assert_eq!(rejected(&mut connection, r#"{"op":"ping"}"#), None);
    let granted = std::mem::take(&mut *gate.grants.lock().unwrap());
    gate.generation.fetch_add(1, Ordering::Relaxed);
    assert_eq!(rejected(&mut connection, r#"{"op":"ping"}"#).as_deref(), Some("unauthenticated"));
    *gate.grants.lock().unwrap() = granted;
    gate.generation.fetch_add(1, Ordering::Relaxed);
    assert_eq!(rejected(&mut connection, r#"{"op":"ping"}"#), None, "the proof is remembered");
}

#[test]
fn an_invalid_token_takes_all_rights_and_makes_the_connection_rest() {
    let gate = gate(&[("till", Role::Read, &[])]);
    for token in ["other", "", &"t".repeat(TOKEN_BYTES_MAX + 1)] {
        let memory = MemoryBudget::unlimited().connect(3).unwrap().0;
        let client = ClientHost::new(3, "127.0.0.1:3001".into(), KnownCluster::default(), memory);
        let mut client = client.guarded_by(Some(Arc::clone(&gate) as Arc<dyn Gate>));
        client.certified("till");
        client
            .received(format!("{{\"op\":\"auth\",\"token\":\"{token}\"}}\n{{\"op\":\"ping\"}}\n").as_bytes());
        let (_, wakes_writer, step) = client.next_read();
        assert!(wakes_writer && matches!(step, ReadStep::Rest(_)), "{step:?}");
        let mut output = String::new();
        client.told(ToWriter::Look);
        let _ = client.next_write(&mut output);
        assert!(output.lines().count() == 1 && output.contains("\"unauthenticated\""), "{output}");
        assert!(matches!(client.next_read().2, ReadStep::Rest(_)));
        client.end_rest();
        assert_eq!(client.next_read().2, ReadStep::Read);
        let _ = client.next_write(&mut output);
        assert!(output.contains("\"unauthenticated\""), "the rights of before are gone: {output}");
    }
    assert_eq!(gate.failures.load(Ordering::Relaxed), 3);
}

#[test]
fn a_server_without_tokens_says_so() {
    let mut connection = Connection::new(None);
    connection.receive(b"{\"op\":\"auth\",\"token\":\"secret\"}\n");
    assert!(connection.next_request().is_none());
    let mut output = String::new();
    connection.write_replies(&mut output, usize::MAX);
    assert!(output.contains("\"bad_request\"") && output.contains("no tokens"), "{output}");
    assert!(!output.contains("secret"));
}

/// The first outcome of a write may hold a value that another client may not read.
#[test]
fn sessions_of_limited_clients_are_apart_from_all_others() {
    let gate = gate(&[("till", Role::Write, &["a/"]), ("all", Role::Write, &[])]);
    let put = r#"{"key":"a/b","value":1,"session":{"client":"c","seq":1}}"#;
    let client_of = |name: &str, line: &str| {
        let mut connection = of_gate(&gate);
        connection.certified(name);
        connection.receive(format!("{line}\n").as_bytes());
        match connection.next_request() {
            Some((_, Request::Write { session: Some(session), .. })) => {
                Some(session.client().as_str().to_owned())
            }
            _ => None,
        }
    };
    assert_eq!(client_of("till", put).as_deref(), Some("till:c"));
    assert_eq!(client_of("all", put).as_deref(), Some("c"));
    let long = put.replace("\"c\"", &format!("\"{}\"", "c".repeat(crate::kv::CLIENT_BYTES_MAX)));
    assert_eq!(client_of("till", &long), None);
    assert!(client_of("all", &long).is_some());
}

/// The lines of a watch go on without requests, so they are checked for themselves.
#[test]
fn a_watch_ends_when_its_client_may_not_read_its_keys_any_more() {
    let gate = gate(&[("till", Role::Read, &["a/", "b/"])]);
    let mut connection = of_gate(&gate);
    connection.certified("till");
    for prefix in ["a/", "b/"] {
        connection.receive(format!("{{\"op\":\"watch\",\"prefix\":\"{prefix}\"}}\n").as_bytes());
        let (slot, _) = connection.next_request().unwrap();
        let started = WatchAnswer::Started { after: Revision(7), content: None };
        connection.reply(slot, Ok(Answered::ByNode(Answer::Watch(Box::new(started)))));
    }
    let mut output = String::new();
    connection.write_replies(&mut output, usize::MAX);
    let (first, _) = connection.next_watch_request().unwrap();
    let (second, _) = connection.next_watch_request().unwrap();
    *gate.grants.lock().unwrap() =
        vec![Arc::new(Grant { name: "till".into(), role: Role::Read, prefixes: vec!["b/".into()] })];
    gate.generation.fetch_add(1, Ordering::Relaxed);
    for slot in [first, second] {
        let progress = WatchAnswer::Changes { entries: Vec::new(), up_to: Revision(9) };
        connection.reply(slot, Ok(Answered::ByNode(Answer::Watch(Box::new(progress)))));
    }
    output.clear();
    connection.write_replies(&mut output, usize::MAX);
    assert!(output.starts_with("{\"watch\":1,\"error\":\"forbidden\",\"status\":\"error\""), "{output}");
    assert!(output.ends_with(",\"definite\":true}\n{\"watch\":2,\"rev\":9}\n"), "{output}");
}
