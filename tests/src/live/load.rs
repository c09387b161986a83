//! Counting client: writes ever greater numbers to one key, and knows the last acknowledged one.
//!
//! Each number replaces the one before by a compare-and-swap of a session, which is retried through
//! whichever node answers until it is done. A lost or twice-applied write makes a later swap fail,
//! and a single read at the end shows whether everything acknowledged is still there.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use super::{Talk, until};

/// The pause of a client after a failed connection, so that it leaves the processor to the nodes.
const REST: Duration = Duration::from_millis(1);

/// A counting client on a separate thread.
#[derive(Debug)]
pub struct Load {
    shared: Arc<Shared>,
    thread: thread::JoinHandle<Vec<Value>>,
}

#[derive(Debug)]
struct Shared {
    /// The key, which is also the name of the session.
    name: &'static str,
    addresses: Mutex<Vec<SocketAddr>>,
    is_over: AtomicBool,
    done: AtomicU64,
}

impl Load {
    /// Starts to write to the key `name` through the nodes at these addresses.
    #[must_use]
    pub fn start(name: &'static str, addresses: Vec<SocketAddr>) -> Self {
        let (is_over, done) = (AtomicBool::new(false), AtomicU64::new(0));
        let shared = Arc::new(Shared { name, addresses: Mutex::new(addresses), is_over, done });
        let client = Arc::clone(&shared);
        Self { shared, thread: thread::spawn(move || client.run()) }
    }

    /// Sends requests to these nodes from now on.
    pub fn send_to(&self, addresses: Vec<SocketAddr>) {
        *self.shared.addresses.lock().unwrap_or_else(PoisonError::into_inner) = addresses;
    }

    /// The last acknowledged number.
    #[must_use]
    pub fn done(&self) -> u64 {
        self.shared.done.load(Ordering::Acquire)
    }

    /// Waits until more writes are acknowledged.
    ///
    /// # Panics
    ///
    /// When none are.
    pub fn goes_on(&self) {
        let before = self.done();
        until("writes go on", || self.done() > before + 20);
    }

    /// Ends the client once its last number is acknowledged, and returns that number.
    ///
    /// # Panics
    ///
    /// When a reply had an error other than these. `shutting_down` is always tolerated, because
    /// another node takes over.
    #[must_use]
    pub fn end(self, tolerated: &[&str]) -> u64 {
        self.shared.is_over.store(true, Ordering::Release);
        let mut errors = self.thread.join().expect("the client does not panic");
        errors.retain(|reply| !tolerated.iter().any(|code| reply["error"] == *code));
        assert!(errors.is_empty(), "{errors:?}");
        self.shared.done.load(Ordering::Acquire)
    }
}

impl Shared {
    /// Counts until the end. Returns the error replies.
    fn run(&self) -> Vec<Value> {
        let (mut errors, mut talk, mut number) = (Vec::new(), None, 1);
        while !self.is_over.load(Ordering::Acquire) {
            self.write(number, &mut talk, &mut errors);
            self.done.store(number, Ordering::Release);
            number += 1;
        }
        errors
    }

    fn write(&self, number: u64, talk: &mut Option<Talk>, errors: &mut Vec<Value>) {
        let name = self.name;
        let expect = if number == 1 { "null".to_owned() } else { (number - 1).to_string() };
        let line = format!(
            r#"{{"op":"cas","key":"{name}","expect":{expect},"value":{number},"session":{{"client":"{name}","seq":{number}}}}}"#
        );
        for turn in usize::try_from(number).expect("it is small").. {
            let addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let address = addresses[turn % addresses.len()];
            let Ok(mut open) = talk.take().map_or_else(|| Talk::try_open(address), Ok) else {
                thread::sleep(REST);
                continue;
            };
            let reply = open.try_send(format!("{line}\n").as_bytes()).and_then(|()| open.try_hear());
            let Ok(reply) = reply else {
                thread::sleep(REST);
                continue;
            };
            let reply: Value = serde_json::from_str(&reply).expect("a reply is JSON");
            if reply["status"] == "ok" {
                *talk = Some(open);
                return;
            }
            if reply["error"] != "shutting_down" {
                errors.push(reply);
            }
        }
    }
}
