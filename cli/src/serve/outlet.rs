//! An outlet: a queue of lines for stderr or stdout. The server never waits for the reader of
//! either.
//!
//! A terminal stopped with Ctrl-S, a pipe whose reader hangs, a full disk behind a redirection: a
//! write to any of them can take for ever. So a thread of its own writes, and the lines wait for it
//! in a queue with a limit. What finds no room is dropped, counted, and reported once there is room
//! again: diagnostics never stop a request or a signal.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// The most bytes of lines that wait. Chosen as some thousands of lines.
const QUEUE_BYTES_MAX: usize = 1 << 20;

/// Lines on their way to a stream. Clones share one queue.
#[derive(Clone, Debug)]
pub(crate) struct Outlet {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    lines: VecDeque<String>,
    bytes: usize,
    dropped: u64,
    is_writing: bool,
    is_closed: bool,
}

impl Outlet {
    /// Starts the thread that writes to `stream`. `dropped` makes the line that reports how many
    /// were dropped.
    ///
    /// # Errors
    ///
    /// When the operating system gives no thread.
    pub(crate) fn start(
        stream: impl Write + Send + 'static,
        dropped: impl Fn(u64) -> String + Send + 'static,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let writer = Arc::clone(&shared);
        thread::Builder::new().name("diagnostics".into()).spawn(move || writer.write_all(stream, dropped))?;
        Ok(Self { shared })
    }

    /// Adds a line, with its line break, or drops it.
    pub(crate) fn push(&self, line: String) {
        let mut queue = self.shared.lock();
        if queue.bytes + line.len() > QUEUE_BYTES_MAX {
            queue.dropped += 1;
            return;
        }
        queue.bytes += line.len();
        queue.lines.push_back(line);
        self.shared.changed.notify_all();
    }

    /// Waits until everything is written, but no longer than `patience`.
    pub(crate) fn flush(&self, patience: Duration) {
        let is_busy = |queue: &mut Queue| queue.is_writing || !queue.lines.is_empty();
        let waited = self.shared.changed.wait_timeout_while(self.shared.lock(), patience, is_busy);
        // Either way the time is over or everything is written.
        drop(waited);
    }
}

impl Drop for Outlet {
    fn drop(&mut self) {
        // The thread's share is the last one.
        if Arc::strong_count(&self.shared) <= 2 {
            self.shared.lock().is_closed = true;
            self.shared.changed.notify_all();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_all(&self, mut stream: impl Write, dropped: impl Fn(u64) -> String) {
        let mut queue = self.lock();
        loop {
            if queue.lines.is_empty() && queue.dropped > 0 {
                let line = dropped(std::mem::take(&mut queue.dropped));
                queue.bytes += line.len();
                queue.lines.push_back(line);
            }
            let Some(line) = queue.lines.pop_front() else {
                if queue.is_closed {
                    return;
                }
                queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            queue.is_writing = true;
            drop(queue);
            // Whoever closed the stream does not want to be told.
            let _ = stream.write_all(line.as_bytes()).and_then(|()| stream.flush());
            queue = self.lock();
            // The line counts until it is written.
            queue.bytes -= line.len();
            queue.is_writing = false;
            self.changed.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    /// A stream that writes a line only when it is told to.
    struct Stalled {
        go_on: Receiver<()>,
        written: Sender<String>,
    }

    impl Write for Stalled {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.go_on.recv();
            let _ = self.written.send(String::from_utf8_lossy(bytes).into_owned());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_stream_that_stalls_stops_nobody_and_what_was_dropped_is_counted() {
        let ((go, go_on), (written, read)) = (channel(), channel());
        let outlet = Outlet::start(Stalled { go_on, written }, |count| format!("{count} dropped\n")).unwrap();
        let line = "x".repeat(QUEUE_BYTES_MAX / 4 - 1) + "\n";
        (0..7).for_each(|_| outlet.push(line.clone()));
        outlet.flush(Duration::from_millis(1));
        (0..5).for_each(|_| go.send(()).unwrap());
        assert!((0..4).all(|_| read.recv().unwrap() == line));
        assert_eq!(read.recv().unwrap(), "3 dropped\n");
        outlet.push("again\n".into());
        go.send(()).unwrap();
        outlet.flush(Duration::from_secs(60));
        assert_eq!(read.recv().unwrap(), "again\n");
    }

    #[test]
    fn the_thread_ends_with_the_last_outlet() {
        let ((_go, go_on), (written, read)) = (channel(), channel::<String>());
        let outlet = Outlet::start(Stalled { go_on, written }, |_| String::new()).unwrap();
        drop(outlet.clone());
        drop(outlet);
        // The thread drops its end.
        assert!(read.recv().is_err());
    }
}
