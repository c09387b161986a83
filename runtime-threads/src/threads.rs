//! What threads need and tasks do not: a panic has to end the process, a lock may be left by a
//! panic, and a blocking accept has to be ended.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// How long a listener may take to notice that it should stop.
const WAKE_PATIENCE: Duration = Duration::from_secs(1);

/// Starts a thread without which the cluster is not whole: if it panics, or cannot be started, the
/// process ends.
pub(crate) fn spawn(name: String, run: impl FnOnce() + Send + 'static) -> JoinHandle<()> {
    try_spawn(name, run).expect("the operating system gives the cluster its threads")
}

/// Starts a thread that may be started later as well: if it panics, the process ends.
pub(crate) fn try_spawn(name: String, run: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    let run = move || {
        let _guard = EndProcessOnPanic;
        run();
    };
    thread::Builder::new().name(name).spawn(run)
}

/// One process is one failure unit: better no cluster than half of one.
struct EndProcessOnPanic;

impl Drop for EndProcessOnPanic {
    fn drop(&mut self) {
        if thread::panicking() {
            std::process::abort();
        }
    }
}

/// Locks, also when a thread has panicked meanwhile: that was told there, and this one only has to
/// end.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether a socket's time was up. Which of the two it is differs between operating systems.
pub(crate) fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

/// A thread that accepts at `address` until `is_stopping` is set; a connection of any kind makes it
/// look.
#[derive(Debug)]
pub(crate) struct ListenerThread {
    pub(crate) thread: JoinHandle<()>,
    pub(crate) is_stopping: Arc<AtomicBool>,
    pub(crate) address: SocketAddr,
}

impl ListenerThread {
    /// A blocking accept ends only with a connection: this is it.
    pub(crate) fn stop(self) {
        self.is_stopping.store(true, Ordering::Release);
        let mut address = self.address;
        match address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
            IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
            _ => {}
        }
        if TcpStream::connect_timeout(&address, WAKE_PATIENCE).is_ok() {
            let _ = self.thread.join();
        }
    }
}
