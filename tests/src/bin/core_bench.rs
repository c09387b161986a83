//! Throughput benchmark of the core: measures how many entries per second three nodes commit in one
//! thread, without disk and network.
//!
//! Prints one JSON object per line, for Raft alone (`node`) and with the key-value store on top
//! (`replica`), with batches of 1, 64, 256 and 4,096 entries. A separate program,
//! `core_allocations`, counts the allocations, because counting takes time.
//!
//! `core_bench [--rounds N]`

use std::time::Instant;

use coracle_tests::throughput::{BATCHES, Nodes, PAYLOAD_BYTES, Replicas, Trio, run};

#[expect(clippy::print_stdout, reason = "a command's result goes to stdout")]
fn measure<T: Trio>(batch: u64, batches: u64) {
    let mut trio = T::elected();
    run(&mut trio, batch, batches.div_ceil(10));
    let start = Instant::now();
    let entries = run(&mut trio, batch, batches);
    let seconds = start.elapsed().as_secs_f64();
    let result = serde_json::json!({
        "what": T::NAME,
        "batch": batch,
        "payload_bytes": PAYLOAD_BYTES,
        "entries": entries,
        "per_second": (entries as f64 / seconds).round(),
        "ns_per_entry": (seconds * 1e9 / entries as f64).round(),
    });
    println!("{result}");
}

fn rounds() -> Result<u32, String> {
    const USAGE: &str = "usage: core_bench [--rounds N]";
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [] => Ok(1),
        ["--rounds", number] => number.parse().map_err(|error| format!("--rounds {number}: {error}")),
        _ => Err(USAGE.into()),
    }
}

#[expect(clippy::print_stderr, reason = "what is wrong with the flags goes to stderr")]
fn main() {
    match rounds() {
        Ok(rounds) => {
            for _ in 0..rounds {
                for (batch, batches) in BATCHES {
                    measure::<Nodes>(batch, batches);
                    measure::<Replicas>(batch, batches);
                }
            }
        }
        Err(message) => {
            eprintln!("{message}");
            std::process::exit(2);
        }
    }
}
