//! The client protocol as scripts over TCP, the same for both runtimes.
//!
//! Every script talks to the real program, built by cargo if need be (see `live::program`): a
//! server of its own, in memory unless the script looks at its files. In-process clusters would be
//! no faster, since the first election takes most of the time, and would hide what the program
//! adds.

#[cfg(test)]
mod bad_lines;
#[cfg(test)]
mod closing;
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
mod sessions;
