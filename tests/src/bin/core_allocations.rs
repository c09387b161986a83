//! Allocation benchmark of the core: counts the allocations and bytes per entry that three nodes
//! commit.
//!
//! The work is that of `core_bench`. This is a separate program because its allocator counts, which
//! takes time. Prints one JSON object per line.

use std::alloc::System;

use coracle_tests::throughput::{BATCHES, Nodes, Replicas, Trio, run};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

#[expect(clippy::print_stdout, reason = "a command's result goes to stdout")]
fn count<T: Trio>(batch: u64, batches: u64) {
    let mut trio = T::elected();
    run(&mut trio, batch, batches.div_ceil(10));
    let region = Region::new(ALLOCATOR);
    let entries = run(&mut trio, batch, batches) as f64;
    let change = region.change();
    let hundredths = |number: f64| (number * 100.0).round() / 100.0;
    let result = serde_json::json!({
        "what": T::NAME,
        "batch": batch,
        "entries": entries,
        "allocations_per_entry": hundredths(change.allocations as f64 / entries),
        "reallocations_per_entry": hundredths(change.reallocations as f64 / entries),
        "bytes_per_entry": hundredths(change.bytes_allocated as f64 / entries),
    });
    println!("{result}");
}

fn main() {
    for (batch, batches) in BATCHES {
        count::<Nodes>(batch, batches);
        count::<Replicas>(batch, batches);
    }
}
