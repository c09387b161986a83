//! Helpers for threads that tasks do not need: a panic has to end the process, a mutex may be
//! poisoned, and a blocking accept has to be interrupted.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// How long the connection may take that interrupts a listener's accept.
const WAKE_TIMEOUT: Duration = Duration::from_secs(1);

/// Starts a thread that the cluster cannot run without: if it panics or cannot be started, the
/// process ends.
pub(crate) fn spawn(name: String, run: impl FnOnce() + Send + 'static) -> JoinHandle<()> {
    try_spawn(name, run).expect("the operating system gives the cluster its threads")
}

/// Starts a thread that may also be started later: only if it panics, the process ends.
pub(crate) fn try_spawn(name: String, run: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    let run = move || {
        let _guard = EndProcessOnPanic;
        run();
    };
    thread::Builder::new().name(name).spawn(run)
}

/// Aborts the process on a panic: a process without one of its threads would run half a cluster.
struct EndProcessOnPanic;

impl Drop for EndProcessOnPanic {
    fn drop(&mut self) {
        if thread::panicking() {
            std::process::abort();
        }
    }
}

/// A counting semaphore.
#[derive(Debug)]
pub(crate) struct Semaphore {
    left: Mutex<usize>,
    returned: Condvar,
}

impl Semaphore {
    /// A semaphore with this number of permits.
    pub(crate) fn new(permits: usize) -> Arc<Self> {
        Arc::new(Self { left: Mutex::new(permits), returned: Condvar::new() })
    }

    /// Waits for a permit.
    pub(crate) fn acquire(self: &Arc<Self>) -> Permit {
        let is_empty = |left: &mut usize| *left == 0;
        let left = self.returned.wait_while(lock(&self.left), is_empty);
        *left.unwrap_or_else(PoisonError::into_inner) -= 1;
        Permit(Arc::clone(self))
    }
}

/// A permit of a semaphore, which is returned when it is dropped.
#[derive(Debug)]
pub(crate) struct Permit(Arc<Semaphore>);

impl Drop for Permit {
    fn drop(&mut self) {
        *lock(&self.0.left) += 1;
        self.0.returned.notify_one();
    }
}

/// Locks a mutex even if it is poisoned: the thread that panicked has reported that, and this
/// thread only has to end.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether a socket operation timed out. Operating systems differ in which of the two kinds it is.
pub(crate) fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

/// A thread that accepts at `address` until `is_stopping` is set; any connection makes it check.
#[derive(Debug)]
pub(crate) struct ListenerThread {
    pub(crate) thread: JoinHandle<()>,
    pub(crate) is_stopping: Arc<AtomicBool>,
    pub(crate) address: SocketAddr,
}

impl ListenerThread {
    /// Stops the thread. A blocking accept returns only for a connection, so this makes one.
    pub(crate) fn stop(self) {
        self.is_stopping.store(true, Ordering::Release);
        let mut address = self.address;
        match address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
            IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
            _ => {}
        }
        if TcpStream::connect_timeout(&address, WAKE_TIMEOUT).is_ok() {
            let _ = self.thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[test]
    fn a_semaphore_admits_no_more_threads_than_it_has_permits() {
        const PERMITS: usize = 3;
        let semaphore = Semaphore::new(PERMITS);
        let (inside, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        thread::scope(|scope| {
            for _ in 0..12 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        let _permit = semaphore.acquire();
                        most.fetch_max(inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        thread::yield_now();
                        inside.fetch_sub(1, Ordering::SeqCst);
                    }
                });
            }
        });
        assert!((1..=PERMITS).contains(&most.into_inner()));
        assert_eq!(*lock(&semaphore.left), PERMITS);
    }
}
