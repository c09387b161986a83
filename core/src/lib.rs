//! x
pub mod kv;
pub mod protocol;
pub mod proxy;
pub mod raft;
mod replica;
mod settings;
mod time;
pub use replica::*;
pub use settings::{Settings, SettingsError};
pub use time::Instant;
