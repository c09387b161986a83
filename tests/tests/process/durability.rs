//! Durability of acknowledged writes: the trace of system calls shows that a majority of the logs
//! is synced before a put is acknowledged.

use coracle_tests::both_runtimes;
use coracle_tests::live::{Runtime, Setup};

use crate::tracing::{Call, Tracer};

const CALLS: &str = "fdatasync,fsync,sendto,sendmsg,write,writev,pwrite64";
const PUTS: usize = 40;

/// Returns the system calls of a server that executes `PUTS` puts of distinct values: the first
/// half one by one, the others all at once.
fn calls_of_puts(runtime: Runtime, flags: &str) -> Vec<Call> {
    let folder = tempfile::tempdir().expect("there is room for a folder");
    let tracer = Tracer::new(folder.path().join("trace")).watching(CALLS);
    // Tracing slows the server down, so elections use the default timeout.
    let setup =
        Setup::in_folder(runtime, &folder.path().join("data")).with("--election-timeout 300ms..600ms");
    let server = setup.with(flags).under(tracer.words()).start();
    let mut talk = server.connect();
    let put = |number| format!("{{\"key\":\"k{number}\",\"value\":\"proof-{number}.\"}}\n");
    for number in 0..PUTS / 2 {
        talk.send(put(number));
        assert_eq!(talk.hear_json()["status"], "ok");
    }
    talk.send((PUTS / 2..PUTS).map(put).collect::<String>());
    for _ in PUTS / 2..PUTS {
        assert_eq!(talk.hear_json()["status"], "ok");
    }
    server.stop();
    tracer.calls()
}

/// Returns how many logs had this text written to them and then synced before line `moment` of the
/// trace.
fn durable_logs(calls: &[Call], text: &str, moment: usize) -> usize {
    let is_durable = |node: &usize| {
        let log = format!("/log{node:02}.txt>");
        let written = calls
            .iter()
            .filter(|call| call.worked && call.is_write_to(&log) && call.arguments.contains(text));
        let earliest = written.map(|call| call.ended).min();
        let is_proof = |call: &&Call| call.worked && call.is_sync_of(&log) && call.ended < moment;
        earliest.is_some_and(|write| calls.iter().filter(is_proof).any(|sync| sync.begun > write))
    };
    (0..5).filter(is_durable).count()
}

/// Before the first byte of the reply to a put leaves the process, `fdatasync` has returned for
/// three of five logs after the entry was written to them. So a power loss at any later moment
/// keeps the acknowledged write.
fn a_put_is_acknowledged_after_a_majority_was_synced(runtime: Runtime) {
    if !Tracer::can_inject() {
        return;
    }
    let calls = calls_of_puts(runtime, "--sync always");
    for number in 0..PUTS {
        let value = format!("proof-{number}.");
        let is_reply = |call: &&Call| call.is_write_to("<TCP:") && call.arguments.contains(&value);
        let reply =
            calls.iter().filter(is_reply).map(|call| call.begun).min().expect("the reply is in the trace");
        let durable = durable_logs(&calls, &value, reply);
        assert!(durable >= 3, "{value} was acknowledged with {durable} of 5 logs on disk");
    }
}

/// With `--sync never`, no put waits for a sync, as the operator expects; its entry is written
/// nevertheless.
fn without_sync_no_put_waits_for_a_disk(runtime: Runtime) {
    if !Tracer::can_inject() {
        return;
    }
    let calls = calls_of_puts(runtime, "--sync never");
    let is_log_write = |call: &&Call| call.is_write_to("/log0") && call.arguments.contains("proof-0.");
    let first = calls.iter().filter(is_log_write).map(|call| call.begun).min().expect("it is written");
    let syncs = calls.iter().filter(|call| call.begun > first && call.is_sync_of("/log0"));
    assert_eq!(syncs.count(), 0);
}

both_runtimes!(a_put_is_acknowledged_after_a_majority_was_synced, without_sync_no_put_waits_for_a_disk);
