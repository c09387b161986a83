//! Conformance tests of the client protocol: scripts over TCP, run against both runtimes.
//!
//! Every script talks to the real program, which cargo builds if necessary (see `live::program`).
//! Each script has a separate server, in memory unless the script reads its files. In-process
//! clusters would not be faster, because the first election takes most of the time, and would hide
//! the code that the program adds.

#[cfg(test)]
mod bad_lines;
#[cfg(test)]
mod closing;
#[cfg(test)]
mod expiry;
#[cfg(test)]
mod heavy_use;
#[cfg(test)]
mod held_back;
#[cfg(test)]
mod linearizable;
#[cfg(test)]
mod operations;
#[cfg(test)]
mod pipelining;
#[cfg(test)]
mod plain;
#[cfg(test)]
mod revisions;
#[cfg(test)]
mod sessions;
#[cfg(test)]
mod watch;
