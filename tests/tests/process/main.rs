//! Tests of the real program: a process with flags, signals, files and an exit code, and its client
//! commands.
//!
//! `live::program` finds and builds the program. The tests about the disk run it under `strace`,
//! which sees every system call and can make one fail. Where that is not possible, they say so on
//! stderr and prove nothing.

#[cfg(test)]
mod admin_port;
#[cfg(test)]
mod backup;
mod bench;
#[cfg(test)]
mod client_answers;
#[cfg(test)]
mod client_commands;
#[cfg(test)]
mod client_programs;
#[cfg(test)]
mod client_session;
#[cfg(test)]
mod config;
#[cfg(test)]
mod descriptors;
#[cfg(test)]
mod disk_failure;
#[cfg(test)]
mod doctor;
#[cfg(test)]
mod documents;
#[cfg(test)]
mod durability;
#[cfg(test)]
mod few_threads;
mod floods;
#[cfg(test)]
mod guide;
mod hanging_disk;
#[cfg(test)]
mod health;
#[cfg(test)]
mod kill;
#[cfg(test)]
mod lagging;
#[cfg(test)]
mod late_arrivals;
#[cfg(test)]
mod links;
#[cfg(test)]
mod lock;
#[cfg(test)]
mod logs;
#[cfg(test)]
mod long_log;
#[cfg(test)]
mod nodes;
#[cfg(test)]
mod packaging;
#[cfg(test)]
mod refusal;
#[cfg(test)]
mod restart;
#[cfg(test)]
mod shell;
#[cfg(test)]
mod shipped;
#[cfg(test)]
mod signals;
#[cfg(test)]
mod snapshots;
#[cfg(test)]
mod strangers;
#[cfg(test)]
mod supervised;
#[cfg(test)]
mod terminal;
#[cfg(test)]
mod tls;
#[cfg(test)]
mod tokens;
#[cfg(test)]
mod tracing;
#[cfg(test)]
mod vanished;
#[cfg(test)]
mod watch;
