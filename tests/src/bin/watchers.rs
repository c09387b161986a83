//! Ten thousand watchers, one of which reads nothing: what they cost the writers, and how much
//! memory the server needs.
//!
//! ```text
//! cargo run --release -p coracle-tests --bin watchers -- [--watches N] [--seconds S] [--rounds N] \
//!     [--runtime smol|threads]
//! ```
//!
//! Each watch is about one key, and each write sets one of these keys. The stalled connection
//! watches all keys. Rounds with and without watchers take turns, each with a server in memory.
//! Prints one JSON object with the medians.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use coracle_tests::live::{Runtime, Setup, Talk};

const USAGE: &str = "usage: watchers [--watches N] [--seconds S] [--rounds N] [--runtime smol|threads]";

/// The watches of one connection.
const WATCHES_EACH: u64 = 250;
/// The connections that write, and the writes that each sends at once.
const WRITERS: u64 = 16;
const BATCH: u64 = 16;

#[derive(Clone, Copy, Debug)]
struct Options {
    watches: u64,
    /// The number of keys, with and without watchers.
    keys: u64,
    seconds: u64,
    rounds: usize,
    runtime: Runtime,
}

/// The result of a round.
#[derive(Clone, Copy, Debug, Default)]
struct Round {
    puts_per_second: u64,
    events: u64,
    memory_bytes: u64,
}

fn main() -> ExitCode {
    let Some(options) = options(std::env::args().skip(1)) else {
        // Ignore the error: when stderr is closed, the line cannot be delivered.
        _ = writeln!(io::stderr(), "{USAGE}");
        return ExitCode::from(2);
    };
    let options = Options { keys: options.watches.max(1), ..options };
    let (mut without, mut with) = (Vec::new(), Vec::new());
    for _ in 0..options.rounds {
        without.push(round(Options { watches: 0, ..options }));
        with.push(round(options));
    }
    let (without, with) = (median(without), median(with));
    let ratio = with.puts_per_second as f64 / without.puts_per_second.max(1) as f64;
    let line = serde_json::json!({
        "watches": options.watches,
        "puts_per_second": with.puts_per_second, "puts_per_second_without": without.puts_per_second,
        "ratio": ratio, "events": with.events,
        "memory_bytes": with.memory_bytes, "memory_bytes_without": without.memory_bytes,
    });
    _ = writeln!(io::stdout(), "{line}");
    ExitCode::SUCCESS
}

/// The round with the median throughput.
fn median(mut rounds: Vec<Round>) -> Round {
    rounds.sort_by_key(|round| round.puts_per_second);
    rounds.get(rounds.len() / 2).copied().unwrap_or_default()
}

fn round(options: Options) -> Round {
    let server = Setup::in_memory(options.runtime).start();
    let address = server.address();
    let connections = options.watches.div_ceil(WATCHES_EACH);
    let watching: Vec<_> = (0..connections).map(|number| watch_keys(address, number)).collect();
    // It is held open, and never read from.
    let stalled = (options.watches > 0).then(|| {
        let mut talk = Talk::open(address);
        _ = talk.ask(r#"{"op":"watch","prefix":""}"#);
        talk
    });
    let (is_over, puts, events) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let (mut taken, mut memory_bytes) = (Duration::ZERO, 0);
    thread::scope(|scope| {
        for stream in watching {
            scope.spawn(|| read_events(stream, &is_over, &events));
        }
        let started = Instant::now();
        for number in 0..WRITERS {
            let (is_over, puts) = (&is_over, &puts);
            scope.spawn(move || write_keys(address, number, options.keys, is_over, puts));
        }
        thread::sleep(Duration::from_secs(options.seconds));
        is_over.store(true, Ordering::Relaxed);
        taken = started.elapsed();
        memory_bytes = server.memory_bytes();
    });
    drop(stalled);
    let puts = puts.load(Ordering::Relaxed) as u128 * 1000 / taken.as_millis().max(1);
    Round {
        puts_per_second: u64::try_from(puts).unwrap_or(u64::MAX),
        events: events.load(Ordering::Relaxed),
        memory_bytes,
    }
}

/// Begins the watches of one connection.
fn watch_keys(address: SocketAddr, number: u64) -> TcpStream {
    let first = number * WATCHES_EACH;
    let lines =
        (first..first + WATCHES_EACH).map(|key| format!("{{\"op\":\"watch\",\"key\":\"w/{key}\"}}\n"));
    let mut stream = TcpStream::connect(address).expect("the server runs");
    stream.write_all(lines.collect::<String>().as_bytes()).expect("the server reads");
    stream
}

/// Reads and counts event lines.
fn read_events(mut stream: TcpStream, is_over: &AtomicBool, events: &AtomicU64) {
    let mut buffer = vec![0; 64 << 10];
    stream.set_read_timeout(Some(Duration::from_millis(100))).expect("a timeout can be set");
    while !is_over.load(Ordering::Relaxed) {
        // Nothing arrives before the timeout when nothing changes.
        let Ok(len) = stream.read(&mut buffer) else { continue };
        let lines = buffer[..len].iter().filter(|byte| **byte == b'\n').count();
        events.fetch_add(lines as u64, Ordering::Relaxed);
    }
}

fn write_keys(address: SocketAddr, number: u64, keys: u64, is_over: &AtomicBool, puts: &AtomicU64) {
    let mut talk = Talk::open(address);
    let mut rng = fastrand::Rng::with_seed(number);
    while !is_over.load(Ordering::Relaxed) {
        let lines =
            (0..BATCH).map(|_| format!("{{\"key\":\"w/{}\",\"value\":\"chips\"}}\n", rng.u64(..keys)));
        talk.send(lines.collect::<String>());
        (0..BATCH).for_each(|_| drop(talk.hear()));
        puts.fetch_add(BATCH, Ordering::Relaxed);
    }
}

fn options(mut arguments: impl Iterator<Item = String>) -> Option<Options> {
    let mut options = Options { watches: 10_000, keys: 0, seconds: 5, rounds: 3, runtime: Runtime::Smol };
    while let Some(flag) = arguments.next() {
        let value = arguments.next()?;
        match (flag.as_str(), value.as_str()) {
            ("--watches", _) => options.watches = value.parse().ok()?,
            ("--seconds", _) => options.seconds = value.parse().ok()?,
            ("--rounds", _) => options.rounds = value.parse().ok()?,
            ("--runtime", "smol") => options.runtime = Runtime::Smol,
            ("--runtime", "threads") => options.runtime = Runtime::Threads,
            _ => return None,
        }
    }
    Some(options)
}
