//! x
pub mod kv;
pub mod protocol;
pub mod proxy;
pub mod raft;
mod replica;
mod time;
pub use replica::*;
pub use time::Instant;
