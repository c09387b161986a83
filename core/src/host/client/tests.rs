use super::*;
use crate::proxy::RequestError;

fn client() -> ClientHost {
    let memory = MemoryBudget::unlimited().connect(3).unwrap().0;
    ClientHost::new(3, "127.0.0.1:3001".into(), KnownCluster::default(), memory)
}

fn written(client: &mut ClientHost) -> String {
    let mut output = String::new();
    let _ = client.next_write(&mut output);
    output
}

#[test]
fn a_request_goes_to_the_router_and_its_reply_to_the_writer() {
    let mut client = client();
    client.received(b"{\"key\":\"a\"}\n");
    let (for_router, wakes_writer, step) = client.next_read();
    assert!(matches!(for_router, [None, Some(RouterInput::Asked(3, requests))] if requests.len() == 1));
    assert_eq!((wakes_writer, step), (false, ReadStep::Read));
    assert_eq!(written(&mut client), "");
    client.told(ToWriter::Reply(0, Err(RequestError::Busy)));
    assert!(written(&mut client).contains("busy"));
    assert!(!client.has_ended());
}

/// A fast sender would otherwise hold memory that does not count any more, until the router
/// tells it.
#[test]
fn an_evicted_client_that_goes_on_sending_holds_nothing() {
    let budget = MemoryBudget::new(1 << 20, 10, 0);
    let mut clients = [3, 4].map(|number| {
        let memory = budget.connect(number).unwrap().0;
        ClientHost::new(number, "127.0.0.1:3001".into(), KnownCluster::default(), memory)
    });
    let piece = vec![b'x'; 100 << 10];
    clients[0].received(&piece);
    for _ in 0..2 {
        clients[1].received(&piece);
    }
    let ([evictions, _], ..) = clients[1].next_read();
    assert!(matches!(evictions, Some(RouterInput::GiveUp(given_up)) if given_up[0].connection == 3));
    clients[0].received(&piece);
    assert_eq!(clients[0].state.unread_bytes(), 0);
    assert_eq!(clients[0].next_read().2, ReadStep::End);
    assert!(written(&mut clients[0]).contains("busy"));
    assert_eq!(clients[0].linger(), (GIVEN_UP_LINGER, false));
    assert_eq!(client().linger(), (CLIENT_LINGER, true));
}

fn clients_of(budget: &MemoryBudget) -> impl FnMut(u64) -> ClientHost {
    |number| {
        let memory = budget.connect(number).unwrap().0;
        ClientHost::new(number, "127.0.0.1:3001".into(), KnownCluster::default(), memory)
    }
}

/// More connections than there are buffers for long lines can be between their eviction and the
/// moment at which they hear of it.
#[test]
fn a_long_line_without_a_buffer_is_refused_until_there_is_one_again() {
    let budget = MemoryBudget::new(64 << 20, 1000, 0);
    let (line, mut connect) = (vec![b'x'; 1 << 20], clients_of(&budget));
    let mut clients = Vec::new();
    let mut refused = (1..1000)
        .find_map(|number| {
            let mut client = connect(number);
            // A reply that is still to come must not keep the reader.
            client.received(b"{\"key\":\"a\"}\n");
            let _ = client.next_read();
            client.received(&line);
            let is_refused = client.state.unread_bytes() == 0;
            clients.push(client);
            if is_refused { clients.pop() } else { None }
        })
        .expect("the pool has a limit");
    let held: usize = clients.iter().map(|client| client.state.unread_bytes()).sum();
    assert!((12 << 20..20 << 20).contains(&held), "{held}");
    let (_, wakes_writer, step) = refused.next_read();
    assert_eq!((wakes_writer, step), (true, ReadStep::End), "the client is told without the router");
    assert!(written(&mut refused).contains("incomplete request lines") && refused.has_ended());
    drop(clients);
    let mut later = connect(1000);
    later.received(&line);
    assert_eq!(later.next_read().2, ReadStep::Read);
}

/// Its writer may be blocked, because the client reads nothing either.
#[test]
fn an_evicted_client_frees_its_long_line_when_its_input_ends() {
    let budget = MemoryBudget::new(64 << 20, 100, 0);
    let mut connect = clients_of(&budget);
    let mut clients: Vec<_> = (1..12).map(&mut connect).collect();
    clients.iter_mut().for_each(|client| client.received(&vec![b'x'; 1 << 20]));
    assert!(clients[0].state.unread_bytes() > 0, "it does not know of its eviction yet");
    clients[0].input_ended();
    assert_eq!(clients[0].state.unread_bytes(), 0);
    assert_eq!(clients[0].next_read().2, ReadStep::End);
    assert!(written(&mut clients[0]).contains("busy"));
    clients[0].told(ToWriter::GiveUp(Holder::HalfLines));
    assert_eq!(written(&mut clients[0]), "", "it is told once");
}

/// Its reader waits for room and its writer for the client: only the end of its socket frees
/// it.
#[test]
fn a_client_with_a_long_line_behind_unread_replies_is_cut_off() {
    let budget = MemoryBudget::new(64 << 20, 100, 0);
    let mut connect = clients_of(&budget);
    let mut blocked = connect(1);
    blocked.received(b"{\"key\":\"a\"}\n");
    let put = format!("{{\"key\":\"a\",\"value\":\"{}\"}}\n", "x".repeat(200 << 10));
    blocked.received(put.as_bytes());
    blocked.received(&b"{\"key\":\"a\"}\n".repeat(20_000));
    assert_eq!(blocked.next_read().2, ReadStep::WaitForRoom);
    let mut clients: Vec<_> = (2..20).map(&mut connect).collect();
    let evictions: Vec<_> = clients
        .iter_mut()
        .flat_map(|client| {
            client.received(&vec![b'x'; 1 << 20]);
            client.next_read().0.into_iter().flatten().collect::<Vec<_>>()
        })
        .collect();
    let first = Eviction { connection: 1, holder: Holder::Replies };
    assert!(matches!(&evictions[0], RouterInput::GiveUp(evicted) if evicted[0] == first), "{evictions:?}");
    assert!(matches!(&evictions[1], RouterInput::GiveUp(evicted) if evicted[0].holder == Holder::HalfLines));
}

/// The lines behind a request that waits for another one stay in the socket: they would need a
/// buffer for long lines.
#[test]
fn short_lines_behind_a_held_request_are_not_read_without_limit() {
    let mut client = client();
    client.received(b"{\"key\":\"a\",\"value\":1}\n{\"key\":\"a\"}\n");
    let mut bytes = 0;
    while client.next_read().2 == ReadStep::Read {
        client.received(&b"{\"key\":\"a\"}\n".repeat(1000));
        bytes += 12 * 1000;
    }
    assert!(bytes < 2 * CLIENT_READ_BYTES, "{bytes}");
    client.told(ToWriter::Reply(0, Err(RequestError::Busy)));
    let [_, requests] = client.next_write(&mut String::new());
    assert!(matches!(requests, Some(RouterInput::Asked(3, gets)) if gets.len() > 1000));
}

#[test]
fn a_request_answered_without_the_router_wakes_the_writer_once() {
    let mut client = client();
    client.received(b"{\"op\":\"ping\"}\n");
    let (for_router, wakes_writer, _) = client.next_read();
    assert!(matches!(for_router, [None, None]) && wakes_writer);
    assert!(!client.next_read().1, "it was told before");
    assert!(!written(&mut client).is_empty());
}

#[test]
fn a_client_that_closes_its_side_still_gets_its_replies() {
    let mut client = client();
    client.received(b"{\"key\":\"a\"}\n");
    client.input_ended();
    assert_ne!(client.next_read().2, ReadStep::End, "a reply is owed");
    client.told(ToWriter::Reply(0, Err(RequestError::Busy)));
    assert!(!written(&mut client).is_empty() && client.has_ended());
    assert_eq!(client.next_read().2, ReadStep::End);
}

#[test]
fn an_idle_client_is_disconnected_unless_it_waits_for_a_reply() {
    let mut client = client();
    client.received(b"{\"key\":\"a\"}\n");
    let _ = client.next_read();
    assert!(!client.was_silent(), "it waits for a reply");
    client.told(ToWriter::Reply(0, Err(RequestError::Busy)));
    assert!(!written(&mut client).is_empty());
    assert!(client.was_silent());
    client.told(ToWriter::Idle);
    assert_eq!(written(&mut client), IDLE_LINE);
    assert_eq!(written(&mut client), "");
    assert!(client.has_ended());
}

#[test]
fn a_stop_ends_the_writer_when_everything_is_written() {
    let mut client = client();
    client.received(b"{\"key\":\"a\"}\n");
    let _ = client.next_read();
    client.told(ToWriter::Reply(0, Err(RequestError::ShuttingDown)));
    client.told(ToWriter::Stop);
    assert!(client.has_ended() && !written(&mut client).is_empty());
}
#[test]
fn accepting_a_client_reports_the_connection_that_is_closed_for_it() {
    let budget = MemoryBudget::new(1 << 20, 10, 200 << 10);
    let accept =
        |number| ClientHost::accept(number, "127.0.0.1:3001".into(), &KnownCluster::default(), &budget);
    let mut held = Vec::new();
    let given_up = (1..10).find_map(|number| {
        let (client, given_up) = accept(number)?;
        held.push(client);
        given_up
    });
    let Some(RouterInput::GiveUp(evictions)) = given_up else { panic!("{given_up:?}") };
    assert_eq!(evictions, [Eviction { connection: 1, holder: Holder::Connections }]);
}

#[test]
fn a_client_that_is_cut_off_gets_the_replies_that_are_owed_and_nothing_more_is_executed() {
    let mut client = client();
    client.certified("billing");
    assert_eq!(client.certified_name(), Some("billing"));
    client.received(b"{\"key\":\"a\"}\n{\"key\":");
    let _ = client.next_read();
    client.cut_off();
    client.received(b"\"b\"}\n");
    assert!(matches!(client.next_read().0, [None, None]));
    client.told(ToWriter::Reply(0, Err(RequestError::Busy)));
    assert!(written(&mut client).contains("busy") && client.has_ended());
}
