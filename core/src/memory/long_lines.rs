//! Buffers for long lines: a pool that all connections of a server share, with a fixed limit.
//!
//! Most lines are short, and a connection's own buffer grows with them. A long line is different:
//! any client may send most of one and stop. The budget counts such lines and evicts the oldest.
//! That alone does not limit the memory: an evicted connection frees its buffer only once its
//! thread runs, and an allocator keeps much of what the threads of many connections allocate and
//! free in turn. So the buffers of long lines come from here and return here. No more than the
//! limit exist, whatever clients do, and a buffer that was returned is the next one that is lent.
//!
//! A connection that finds no buffer is rejected. The limit has room for more lines than the budget
//! allows at a time, because evicted connections return their buffers a little later.

use std::mem;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};

/// The capacity of each buffer, in bytes: the longest line, and some input behind it.
pub(crate) const LONG_LINE_BYTES: usize = (1 << 20) + (128 << 10);

/// The most buffers that are kept while no connection uses them: enough for the change from one
/// connection to the next, and little for a server without long lines.
const KEPT_MAX: usize = 4;

/// A pool of buffers. Cloning returns another handle to the same pool.
#[derive(Clone, Debug)]
pub(crate) struct LongLines(Arc<Mutex<Pool>>);

#[derive(Debug)]
struct Pool {
    kept: Vec<Vec<u8>>,
    /// The number of buffers that may still be lent.
    left: usize,
}

/// A buffer that belongs to a pool, and returns to it when it is dropped.
#[derive(Debug)]
pub(crate) struct LongLine {
    bytes: Vec<u8>,
    pool: LongLines,
}

impl LongLines {
    /// A pool of at most `max` buffers.
    pub(crate) fn new(max: usize) -> Self {
        Self(Arc::new(Mutex::new(Pool { kept: Vec::new(), left: max })))
    }

    /// Lends an empty buffer; `None` when all are in use.
    pub(crate) fn lend(&self) -> Option<LongLine> {
        let kept = self.with(|pool| {
            pool.left = pool.left.checked_sub(1)?;
            Some(pool.kept.pop())
        })?;
        let bytes = kept.unwrap_or_else(|| Vec::with_capacity(LONG_LINE_BYTES));
        Some(LongLine { bytes, pool: self.clone() })
    }

    fn keep(&self, mut bytes: Vec<u8>) {
        bytes.clear();
        let too_many = self.with(|pool| {
            pool.left += 1;
            // A buffer that has grown would make the pool larger than its limit.
            let has_grown = bytes.capacity() >= 2 * LONG_LINE_BYTES;
            let is_kept = pool.kept.len() < KEPT_MAX && !has_grown;
            if is_kept {
                pool.kept.push(mem::take(&mut bytes));
            }
            bytes
        });
        // Freed without the lock.
        drop(too_many);
    }

    fn with<T>(&self, act: impl FnOnce(&mut Pool) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A pool for a connection without a server: any number of buffers.
impl Default for LongLines {
    fn default() -> Self {
        Self::new(usize::MAX)
    }
}

impl Drop for LongLine {
    fn drop(&mut self) {
        self.pool.keep(mem::take(&mut self.bytes));
    }
}

impl Deref for LongLine {
    type Target = Vec<u8>;

    fn deref(&self) -> &Vec<u8> {
        &self.bytes
    }
}

impl DerefMut for LongLine {
    fn deref_mut(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_buffers_are_lent_than_the_limit_allows() {
        let pool = LongLines::new(2);
        let (first, second) = (pool.lend().unwrap(), pool.lend().unwrap());
        assert!(pool.lend().is_none());
        drop(first);
        assert!(pool.lend().is_some());
        drop(second);
        assert!(pool.lend().is_some());
    }

    #[test]
    fn a_buffer_is_used_again_without_its_content() {
        let pool = LongLines::default();
        let mut line = pool.lend().unwrap();
        line.extend_from_slice(b"half a line");
        let place = line.as_ptr();
        drop(line);
        let line = pool.lend().unwrap();
        assert_eq!((line.as_ptr(), line.len()), (place, 0));
        assert!(line.capacity() >= LONG_LINE_BYTES);
    }

    #[test]
    fn few_buffers_are_kept_and_none_that_has_grown() {
        let pool = LongLines::default();
        let mut lines: Vec<_> = (0..20).map(|_| pool.lend().unwrap()).collect();
        lines[0].reserve(2 * LONG_LINE_BYTES);
        drop(lines);
        pool.with(|pool| {
            assert_eq!(pool.kept.len(), KEPT_MAX);
            assert!(pool.kept.iter().all(|bytes| bytes.capacity() < 2 * LONG_LINE_BYTES));
        });
    }
}
