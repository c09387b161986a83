//! Trials: the program under the conditions of real operation. Slow and forgetful networks, disks
//! that are full, slow or missing, crowds of connections, and little memory.
//!
//! Most trials need rights that a test usually lacks: network namespaces, mounts, control groups.
//! Where the machine does not grant them, a trial is skipped, and a line `skipped NAME: why` on
//! stderr says so. A trial changes nothing outside of the namespaces and mounts that it makes.
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

/// Runs a command. Returns whether it worked.
fn run(words: &[&str]) -> bool {
    let output = Command::new(words[0]).args(&words[1..]).output();
    output.is_ok_and(|output| output.status.success())
}

/// Reports a skipped trial, past the capture of a test's output, because a skipped proof must not
/// look like a passed one.
fn skipped(name: &str, why: &str) {
    writeln!(io::stderr(), "\nskipped {name}: {why}").expect("stderr takes text");
}
