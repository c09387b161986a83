//! Trials: the program under what happens to it where it is operated. Slow and forgetful networks,
//! disks that are full, late or gone, crowds at its ports, and little memory.
//!
//! Most need what a test usually may not do: network namespaces, mounts, control groups. Where the
//! machine does not allow it a trial is skipped, and a line `skipped NAME: why` on stderr says so.
//! Nothing outside of the namespaces and mounts that a trial makes is touched.
//!
//! `cargo test -p coracle-tests --test trials` runs them all.

#[cfg(test)]
mod crowds;
mod disks;
#[cfg(test)]
mod full_disks;
mod machines;
#[cfg(test)]
mod memory;
#[cfg(test)]
mod networks;
#[cfg(test)]
mod volumes;

use std::io::{self, Write};
use std::process::Command;

/// Runs a command; whether it worked.
fn run(words: &[&str]) -> bool {
    let output = Command::new(words[0]).args(&words[1..]).output();
    output.is_ok_and(|output| output.status.success())
}

/// Says that a trial was not made, past the capture of a test's output: a proof that was not made
/// must not look like one.
fn skipped(name: &str, why: &str) {
    writeln!(io::stderr(), "\nskipped {name}: {why}").expect("stderr takes text");
}
