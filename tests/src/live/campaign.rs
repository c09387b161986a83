//! Crash campaign: kills a server repeatedly under load, and checks that it keeps what it
//! acknowledged.
//!
//! Every writer owns a key and writes ever greater numbers to it, so one read detects every
//! violation: a number below the last acknowledged one means a lost write, and one above the last
//! number sent was never written. Half of the writers put, several values at a time; the others
//! swap each number for the next. Numbers that were sent and not acknowledged are in doubt, and may
//! be there or not.
//!
//! A cycle is: load, SIGKILL after a random number of acknowledgements, perhaps a SIGKILL during
//! the next start or right after it, then a start that has to recover everything.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use super::{Broken, LogFile, Runtime, Server, Setup, Talk, until};

/// The settings of a crash campaign.
#[derive(Clone, Debug)]
pub struct Campaign {
    /// The runtime of the nodes.
    pub runtime: Runtime,
    /// How often the server is killed under load.
    pub cycles: u32,
    /// The seed, which decides when the server is killed.
    pub seed: u64,
    /// Additional flags of the server, separated by spaces.
    pub flags: String,
}

/// The result of a crash campaign.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// How often the server was killed under load.
    pub cycles: u32,
    /// How often it was killed during a start or right after one.
    pub extra_kills: u32,
    /// The number of acknowledged writes.
    pub acknowledged: u64,
    /// The number of writes that were sent and not acknowledged.
    pub in_doubt: u64,
    /// The number of torn log ends that a start has cut off.
    pub torn_tails_repaired: u64,
    /// The number of keys with a value below the acknowledged one, or above the last one sent.
    pub lost: u64,
}

impl Summary {
    /// The summary as one line of JSON.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::json!({
            "cycles": self.cycles,
            "extra_kills": self.extra_kills,
            "acknowledged": self.acknowledged,
            "in_doubt": self.in_doubt,
            "torn_tails_repaired": self.torn_tails_repaired,
            "lost": self.lost,
        })
        .to_string()
    }
}

impl Campaign {
    /// Runs all cycles in `folder`, which has to be empty. At the end the server is stopped by
    /// SIGTERM and its logs are verified line by line.
    #[must_use]
    pub fn run(&self, folder: &Path) -> Summary {
        let mut rng = fastrand::Rng::with_seed(self.seed);
        let setup = Setup::in_folder(self.runtime, folder).with(&self.flags);
        let mut writers = Writers::new();
        let mut summary = Summary::default();
        let mut server = setup.start();
        for _ in 0..self.cycles {
            // Arbitrary: from a kill during the first election to one after some thousand entries.
            writers.load_until(&server, rng.u64(..2_000));
            summary.in_doubt += writers.in_doubt();
            summary.note_end(&server.kill().stderr);
            summary.cycles += 1;
            for _ in 0..rng.u32(..3) {
                let mut victim = setup.launch();
                if rng.bool() {
                    victim.wait_until_ready();
                } else {
                    // The moment of the kill: anywhere between the first instruction and some time
                    // after the server is ready.
                    thread::sleep(Duration::from_micros(rng.u64(..40_000)));
                }
                summary.note_end(&victim.kill().stderr);
                summary.extra_kills += 1;
            }
            server = setup.start();
            summary.lost += writers.look_for_losses(&server);
        }
        let _ = server.settle();
        summary.note_end(&server.stop().stderr);
        let _ = LogFile::read_all(folder, 5);
        summary.acknowledged = writers.acknowledged();
        summary
    }
}

impl Summary {
    fn note_end(&mut self, stderr: &str) {
        self.torn_tails_repaired += stderr.matches("the last write was torn").count() as u64;
    }
}

/// Clients that write concurrently.
#[derive(Debug)]
pub struct Writers(Vec<Writer>);

/// One client, and its knowledge of its key.
#[derive(Debug)]
pub struct Writer {
    key: String,
    /// Whether it swaps; otherwise it puts.
    swaps: bool,
    /// The latest value that the key was known to have; 0 when absent.
    acknowledged: u64,
    /// The greatest value that was sent.
    sent: u64,
    acknowledgements: u64,
}

impl Default for Writers {
    fn default() -> Self {
        Self::new()
    }
}

impl Writers {
    /// Creates eight writers whose keys do not exist yet.
    #[must_use]
    pub fn new() -> Self {
        let writer = |number| Writer {
            key: format!("writer-{number}"),
            swaps: number % 2 == 1,
            acknowledged: 0,
            sent: 0,
            acknowledgements: 0,
        };
        Self((0..8).map(writer).collect())
    }

    /// Lets all writers write until the server breaks off; it is killed after this many
    /// acknowledgements.
    ///
    /// # Panics
    ///
    /// When the server sends a wrong reply.
    pub fn load_until(&mut self, server: &Server, acknowledgements: u64) {
        let (address, pid) = (server.address(), server.pid());
        let count = AtomicU64::new(0);
        thread::scope(|scope| {
            for writer in &mut self.0 {
                let count = &count;
                scope.spawn(move || {
                    // The writer ends when the server does.
                    let Ok(mut talk) = Talk::try_open(address) else { return };
                    while writer.write(&mut talk, count).is_ok() {}
                });
            }
            until("there are acknowledgements", || count.load(Ordering::Relaxed) >= acknowledgements);
            super::signal(pid, "KILL");
        });
    }

    /// Lets all writers write until each has this many more acknowledgements, or the server breaks
    /// off.
    pub fn load(&mut self, server: &Server, acknowledgements: u64) {
        let (address, count) = (server.address(), AtomicU64::new(0));
        thread::scope(|scope| {
            for writer in &mut self.0 {
                let count = &count;
                let goal = writer.acknowledgements + acknowledgements;
                scope.spawn(move || {
                    let Ok(mut talk) = Talk::try_open(address) else { return };
                    while writer.acknowledgements < goal && writer.write(&mut talk, count).is_ok() {}
                });
            }
        });
    }

    /// Reads and checks every key. Returns how many have lost a write, and continues from the
    /// values found.
    ///
    /// # Panics
    ///
    /// When the server does not serve.
    pub fn look_for_losses(&mut self, server: &Server) -> u64 {
        let mut talk = server.connect();
        // A new write is ordered after everything that was there, and later reads of its connection
        // are ordered after it.
        until("a write goes through", || talk.ask(r#"{"key":"barrier","value":1}"#)["status"] == "ok");
        self.0.iter_mut().map(|writer| u64::from(writer.has_lost(&mut talk))).sum()
    }

    /// The number of writes without an outcome.
    #[must_use]
    pub fn in_doubt(&self) -> u64 {
        self.0.iter().map(|writer| writer.sent - writer.acknowledged).sum()
    }

    /// The number of acknowledged writes.
    #[must_use]
    pub fn acknowledged(&self) -> u64 {
        self.0.iter().map(|writer| writer.acknowledgements).sum()
    }
}

impl Writer {
    /// Writes one value by a swap, or several by puts that are pipelined.
    fn write(&mut self, talk: &mut Talk, count: &AtomicU64) -> Result<(), Broken> {
        let at_once = if self.swaps { 1 } else { 8 };
        let first = self.sent + 1;
        let lines: String = (first..first + at_once).map(|value| self.request(value) + "\n").collect();
        self.sent += at_once;
        talk.try_send(lines.as_bytes())?;
        for value in first..first + at_once {
            let reply = talk.try_hear()?;
            let reply: Value = serde_json::from_str(&reply).expect("replies are JSON");
            if reply["status"] != "ok" {
                // The outcome may be unknown, so a later swap could not know what to expect.
                return Err(Broken);
            }
            assert_eq!((&reply["key"], &reply["value"]), (&self.key.as_str().into(), &value.into()));
            self.acknowledged = value;
            self.acknowledgements += 1;
            count.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    fn request(&self, value: u64) -> String {
        let key = &self.key;
        match (self.swaps, self.acknowledged) {
            (false, _) => format!(r#"{{"key":"{key}","value":{value}}}"#),
            (true, 0) => format!(r#"{{"op":"cas","key":"{key}","expect":null,"value":{value}}}"#),
            (true, known) => format!(r#"{{"op":"cas","key":"{key}","expect":{known},"value":{value}}}"#),
        }
    }

    fn has_lost(&mut self, talk: &mut Talk) -> bool {
        let found = talk.ask(&format!(r#"{{"key":"{}"}}"#, self.key));
        let found =
            if found["value"].is_null() { 0 } else { found["value"].as_u64().expect("a number was put") };
        let is_kept = (self.acknowledged..=self.sent).contains(&found);
        self.acknowledged = found;
        !is_kept
    }
}
