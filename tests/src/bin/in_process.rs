//! Benchmark of an embedded cluster: measures the puts per second of three nodes in memory, called
//! through the library's API, without TCP.
//!
//! Measures both runtimes in turn, with 1, 64, 256 and 4,096 clients. Each client waits for an
//! answer before it sends its next request. On smol a client is a task on the cluster's executor;
//! on threads it is a thread. Prints one JSON object per line.
//!
//! `in_process [--seconds N] [--rounds N] [--runtime smol|threads] [--clients N]`

use std::cell::Cell;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use coracle_core::Settings;
use coracle_core::kv::{Key, Value};
use coracle_runtime_smol as on_smol;
use coracle_runtime_threads as on_threads;
use coracle_storage::Medium;
use smol::{LocalExecutor, Timer};

/// Time before the measurement begins.
const WARMUP: Duration = Duration::from_millis(500);

/// The number of keys, and below it the bytes of a value. The value size is that of `core_bench`.
const KEYS: u64 = 10_000;
const VALUE_BYTES: usize = 64;

/// Stack size of a client's thread, which does very little.
const STACK_BYTES: usize = 128 << 10;

/// The numbers of clients, unless `--clients` sets another one.
const CLIENTS: [u64; 4] = [1, 64, 256, 4096];

struct Flags {
    seconds: u64,
    rounds: u64,
    runtime: Option<String>,
    clients: Vec<u64>,
}

const USAGE: &str = "usage: in_process [--seconds N] [--rounds N] [--runtime smol|threads] [--clients N]";

fn flags() -> Result<Flags, String> {
    let mut flags = Flags { seconds: 3, rounds: 1, runtime: None, clients: CLIENTS.to_vec() };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let value = words.next().ok_or_else(|| format!("{word} needs a value"))?;
        let number = || value.parse().map_err(|error| format!("{word} {value}: {error}"));
        match word.as_str() {
            "--seconds" => flags.seconds = number()?,
            "--rounds" => flags.rounds = number()?,
            "--clients" => flags.clients = vec![number()?],
            "--runtime" if ["smol", "threads"].contains(&value.as_str()) => flags.runtime = Some(value),
            _ => return Err(USAGE.into()),
        }
    }
    Ok(flags)
}

fn settings() -> Settings {
    Settings { nodes: 3, ..Settings::default() }
}

fn value() -> Value {
    Value::from_text(&"v".repeat(VALUE_BYTES)).expect("within the limits")
}

fn key(number: u64) -> Key {
    Key::new(&format!("key:{:012}", number % KEYS)).expect("a short key")
}

/// Returns the puts per second on smol.
fn smol(clients: u64, span: Duration) -> f64 {
    let executor = Rc::new(LocalExecutor::new());
    smol::block_on(executor.run(async {
        let options = on_smol::Options {
            settings: settings(),
            medium: Medium::Memory,
            listen: None,
            admin_listen: None,
        };
        let cluster = on_smol::Cluster::start(&executor, options).await.expect("the cluster starts");
        let (done, is_over) = (Rc::new(Cell::new(0_u64)), Rc::new(Cell::new(false)));
        let tasks: Vec<_> = (0..clients)
            .map(|number| {
                let (done, is_over) = (Rc::clone(&done), Rc::clone(&is_over));
                let (client, value) = (cluster.client(), value());
                executor.spawn(async move {
                    let mut number = number;
                    while !is_over.get() {
                        client.put(key(number), value.clone()).await.expect("the put works");
                        number += clients;
                        done.set(done.get() + 1);
                    }
                })
            })
            .collect();
        Timer::after(WARMUP).await;
        let (begin, before) = (Instant::now(), done.get());
        Timer::after(span).await;
        let rate = (done.get() - before) as f64 / begin.elapsed().as_secs_f64();
        is_over.set(true);
        for task in tasks {
            task.await;
        }
        cluster.stop().await;
        rate
    }))
}

/// Returns the puts per second on threads.
fn threads(clients: u64, span: Duration) -> f64 {
    let options = on_threads::Options {
        settings: settings(),
        medium: Medium::Memory,
        listen: None,
        admin_listen: None,
    };
    let cluster = on_threads::Cluster::start(options).expect("the cluster starts");
    let (done, is_over) = (AtomicU64::new(0), AtomicBool::new(false));
    let rate = thread::scope(|scope| {
        for number in 0..clients {
            let (client, value) = (cluster.client(), value());
            let (done, is_over) = (&done, &is_over);
            let work = move || {
                let mut number = number;
                while !is_over.load(Ordering::Relaxed) {
                    client.put(key(number), value.clone()).expect("the put works");
                    number += clients;
                    done.fetch_add(1, Ordering::Relaxed);
                }
            };
            let thread = thread::Builder::new().stack_size(STACK_BYTES).spawn_scoped(scope, work);
            thread.expect("the operating system gives every client a thread");
        }
        thread::sleep(WARMUP);
        let (begin, before) = (Instant::now(), done.load(Ordering::Relaxed));
        thread::sleep(span);
        let rate = (done.load(Ordering::Relaxed) - before) as f64 / begin.elapsed().as_secs_f64();
        is_over.store(true, Ordering::Relaxed);
        rate
    });
    cluster.stop();
    rate
}

#[expect(clippy::print_stdout, reason = "a command's result goes to stdout")]
fn tell(runtime: &str, clients: u64, per_second: f64) {
    let per_second = per_second.round();
    println!("{}", serde_json::json!({ "runtime": runtime, "clients": clients, "per_second": per_second }));
}

#[expect(clippy::print_stderr, reason = "what is wrong with the flags goes to stderr")]
fn main() {
    match flags() {
        Ok(Flags { seconds, rounds, runtime, clients }) => {
            let span = Duration::from_secs(seconds);
            let is_wanted = |name| runtime.as_ref().is_none_or(|runtime| runtime == name);
            for _ in 0..rounds {
                for &clients in &clients {
                    if is_wanted("smol") {
                        tell("smol", clients, smol(clients, span));
                    }
                    if is_wanted("threads") {
                        tell("threads", clients, threads(clients, span));
                    }
                }
            }
        }
        Err(message) => {
            eprintln!("{message}");
            std::process::exit(2);
        }
    }
}
