//! A bounded queue of lines for stderr or stdout with a writer thread, so that the server never
//! blocks on a slow reader of either.
//!
//! A write to a terminal stopped with Ctrl-S, to a pipe whose reader hangs, or to a redirection on
//! a full disk may block forever. So a separate thread writes, and lines wait for it in a bounded
//! queue. Lines that do not fit are dropped and counted, and their number is reported once there is
//! room again. Log messages therefore never delay a request or a signal.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// The limit for the bytes of waiting lines. Chosen as some thousands of lines.
const QUEUE_BYTES_MAX: usize = 1 << 20;

/// A handle to the queue of a stream. Clones share one queue.
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
    /// Starts the thread that writes to `stream`. `dropped` formats the line that reports the
    /// number of dropped lines.
    ///
    /// # Errors
    ///
    /// If the operating system refuses to create a thread.
    pub(crate) fn start(
        stream: impl Write + Send + 'static,
        dropped: impl Fn(u64) -> String + Send + 'static,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let writer = Arc::clone(&shared);
        thread::Builder::new().name("diagnostics".into()).spawn(move || writer.write_all(stream, dropped))?;
        Ok(Self { shared })
    }

    /// Adds a line, which includes its line break, or drops it if the queue is full.
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

    /// Waits until everything is written, but at most `patience`.
    pub(crate) fn flush(&self, patience: Duration) {
        let is_busy = |queue: &mut Queue| queue.is_writing || !queue.lines.is_empty();
        let waited = self.shared.changed.wait_timeout_while(self.shared.lock(), patience, is_busy);
        // Whether everything was written or the time ran out, there is nothing more to do.
        drop(waited);
    }
}

impl Drop for Outlet {
    fn drop(&mut self) {
        // The writer thread holds one of the references.
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
            // When the stream is closed, its lines are lost.
            let _ = stream.write_all(line.as_bytes()).and_then(|()| stream.flush());
            queue = self.lock();
            // A line counts until it is written.
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

    /// A stream that writes each line only after a signal from the test.
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
    fn a_stalled_stream_does_not_block_and_dropped_lines_are_counted() {
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
        // The thread drops its end of the channel.
        assert!(read.recv().is_err());
    }
}
