//! x
mod alarm;
mod client;
mod clock;
mod cluster;
mod connection;
mod disk;
mod events;
mod inbox;
mod listener;
mod node;
mod peers;
mod proxy;

pub use client::Client;
pub use cluster::{Cluster, Options, StartError};
