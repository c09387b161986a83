//! The gate of a server with a token file, which can be replaced while the server runs.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use coracle_core::access::{Gate, Grant, Proof};

use super::{TokenFile, TokenTable, digest_of};

/// Decides by a token file which proofs of identity are valid. See [`Gate`].
#[derive(Debug)]
pub struct TokenGate {
    content: RwLock<(TokenFile, TokenTable)>,
    generation: AtomicU64,
    failures: AtomicU64,
}

impl TokenGate {
    /// Creates the gate at the time `now`, in seconds since 1970.
    #[must_use]
    pub fn new(file: TokenFile, now: u64) -> Self {
        let table = TokenTable::new(&file, now);
        Self {
            content: RwLock::new((file, table)),
            generation: AtomicU64::new(0),
            failures: AtomicU64::new(0),
        }
    }

    /// Replaces the file. Connections whose proof is not valid any more have no rights from their
    /// next request on.
    pub fn replace(&self, file: TokenFile, now: u64) {
        let table = TokenTable::new(&file, now);
        *self.content.write().unwrap_or_else(PoisonError::into_inner) = (file, table);
        // After the content, so that no connection looks an old grant up for the new generation.
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// Ends the rights that have expired at `now`, in seconds since 1970. To be called every few
    /// seconds.
    pub fn expire(&self, now: u64) {
        let file = {
            let (file, table) = &*self.content.read().unwrap_or_else(PoisonError::into_inner);
            let valid = file.entries().iter().filter(|entry| !entry.is_expired(now)).count();
            if valid == table.by_name.len() {
                return;
            }
            file.clone()
        };
        self.replace(file, now);
    }

    /// Returns how many clients have failed to prove their identity since the last call.
    pub fn take_failures(&self) -> u64 {
        self.failures.swap(0, Ordering::Relaxed)
    }
}

impl Gate for TokenGate {
    fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    fn proof_of(&self, token: &str) -> Proof {
        Proof::Token(digest_of(token))
    }

    fn grant(&self, proof: &Proof) -> Option<Arc<Grant>> {
        self.content.read().unwrap_or_else(PoisonError::into_inner).1.grant(proof)
    }

    fn note_failure(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
    }
}
