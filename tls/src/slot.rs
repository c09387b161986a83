//! A value that is replaced while others read it: the credentials of a port.

use std::sync::{Arc, PoisonError, RwLock};

/// The current value. Clones are handles to the same slot.
#[derive(Debug)]
pub(crate) struct Slot<T>(Arc<RwLock<Arc<T>>>);

impl<T> Slot<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(value))))
    }

    pub(crate) fn current(&self) -> Arc<T> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Replaces the value by that of another slot; readers keep what they have.
    pub(crate) fn replace_by(&self, other: &Self) {
        let new = other.current();
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = new;
    }
}

impl<T> Clone for Slot<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}
