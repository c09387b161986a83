//! The measurements, part by part.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use super::load::{bench, fill, silent_clients};
use super::results::{Results, line_of};
use super::subject::{Subject, folder, setup, without_snapshots};
use super::{GrowthError, Measured, Options, Part};
use crate::live::Runtime;

/// The sizes of the parts, and the durations of measurements.
struct Scale {
    keys: &'static [u64],
    entries: &'static [u64],
    nodes: &'static [u64],
    value_bytes: &'static [u64],
    connections: &'static [u64],
    bench: &'static str,
    idle: Duration,
}

const FULL: Scale = Scale {
    keys: &[1_000, 10_000, 100_000, 1_000_000],
    entries: &[10_000, 100_000, 1_000_000],
    nodes: &[1, 3, 5, 7, 9],
    value_bytes: &[16, 64, 1 << 10, 16 << 10, 64 << 10, 256 << 10],
    connections: &[0, 10, 100, 1_000, 10_000],
    bench: "--clients 64 --warmup 500ms --duration 2s",
    idle: Duration::from_secs(20),
};

const QUICK: Scale = Scale {
    keys: &[1_000, 10_000],
    entries: &[1_000, 10_000],
    nodes: &[1, 3, 5],
    value_bytes: &[16, 1 << 10, 16 << 10],
    connections: &[0, 10, 100],
    bench: "--clients 64 --warmup 100ms --duration 300ms",
    idle: Duration::from_secs(2),
};

/// The time that a server needs before a measurement: for elections, and for the threads and
/// buffers of the start.
const SETTLING: Duration = Duration::from_secs(2);

type Figures = BTreeMap<String, f64>;

/// Measures all requested parts, round by round.
pub(super) fn measure(
    options: &Options,
    results: &mut Results,
    tell: &mut dyn FnMut(&str),
) -> Result<(), GrowthError> {
    let scale = if options.is_quick { &QUICK } else { &FULL };
    for round in 1..=options.rounds {
        let mut runtimes = [Runtime::Smol, Runtime::Threads];
        if round.is_multiple_of(2) {
            runtimes.reverse();
        }
        for &part in &options.parts {
            for &at in scale.points(part) {
                for runtime in runtimes {
                    let (at, figures) = scale.point(part, runtime, at);
                    let runtime = runtime.name().to_owned();
                    let measured = Measured { part, runtime, round, at: at as f64, figures };
                    tell(&line_of(&measured));
                    results.add(measured)?;
                }
            }
        }
    }
    Ok(())
}

impl Scale {
    fn points(&self, part: Part) -> &'static [u64] {
        match part {
            Part::Keys => self.keys,
            Part::Log | Part::Recovery => self.entries,
            Part::Nodes => self.nodes,
            Part::Values => self.value_bytes,
            Part::Connections => self.connections,
            Part::Idle => &[5],
        }
    }

    /// Measures one point. Returns the actual size as well, because not all clients may be
    /// accepted.
    fn point(&self, part: Part, runtime: Runtime, at: u64) -> (u64, Figures) {
        match part {
            Part::Keys => (at, self.filled(runtime, at, "")),
            Part::Log => (at, self.filled(runtime, at, &without_snapshots(""))),
            Part::Nodes => (at, self.loaded(runtime, &format!("--nodes {at}"), "")),
            Part::Values => (at, self.loaded(runtime, "", &format!("--value-size {at}"))),
            Part::Connections => self.connections(runtime, at),
            Part::Recovery => (at, recovery(runtime, at)),
            Part::Idle => (at, self.idle(runtime)),
        }
    }

    /// Measures a server with a full store or log.
    fn filled(&self, runtime: Runtime, keys: u64, flags: &str) -> Figures {
        let subject = Subject::start(runtime, flags);
        fill(subject.server.address(), keys);
        let _ = subject.server.settle();
        let memory = [
            ("resident_mib".to_owned(), subject.resident_mib()),
            ("folder_mib".to_owned(), subject.folder_mib()),
        ];
        let mut figures = bench(subject.server.address(), self.bench);
        figures.extend(memory);
        figures
    }

    /// Measures an initially empty server, and its memory after the load.
    fn loaded(&self, runtime: Runtime, server_flags: &str, bench_flags: &str) -> Figures {
        let subject = Subject::start(runtime, server_flags);
        let mut figures = bench(subject.server.address(), &format!("{} {bench_flags}", self.bench));
        figures.insert("resident_mib".into(), subject.resident_mib());
        figures
    }

    /// Measures a server with silent clients besides those of the load.
    fn connections(&self, runtime: Runtime, wanted: u64) -> (u64, Figures) {
        // Leaves room for the clients of the load.
        let subject = Subject::start(runtime, "--max-connections 11000");
        thread::sleep(SETTLING);
        let before = subject.resident_mib();
        let clients = silent_clients(subject.server.address(), wanted);
        let silent = clients.len() as u64;
        thread::sleep(SETTLING);
        let resident = subject.resident_mib();
        let mut own = vec![("resident_mib", resident), ("refused", (wanted - silent) as f64)];
        if silent > 0 {
            own.push(("kib_per_connection", (resident - before) * 1024.0 / silent as f64));
        }
        if silent < wanted {
            // There is no room for the load either.
            return (silent, figures(own));
        }
        let mut all = bench(subject.server.address(), self.bench);
        all.extend(figures(own));
        drop(clients);
        (silent, all)
    }

    /// Measures a server without requests.
    fn idle(&self, runtime: Runtime) -> Figures {
        let subject = Subject::start(runtime, "");
        thread::sleep(SETTLING);
        let core_percent = subject.core_percent(self.idle);
        figures([("core_percent", core_percent), ("resident_mib", subject.resident_mib())])
    }
}

/// Measures the restart of a single node: the time from the start of its process until it has
/// answered a get.
fn recovery(runtime: Runtime, entries: u64) -> Figures {
    let folder = folder();
    let setup = setup(runtime, folder.path(), &without_snapshots("--nodes 1"));
    let first = setup.start();
    fill(first.address(), entries);
    first.stop();
    let begin = Instant::now();
    let server = setup.start();
    let ready = begin.elapsed();
    let reply = server.connect().ask(r#"{"key":"key:000000000000"}"#);
    let answered = begin.elapsed();
    assert_eq!(reply["status"], "ok", "{reply}");
    let bytes = server.memory_bytes() as f64 / f64::from(1 << 20);
    server.stop();
    figures([
        ("ready_seconds", ready.as_secs_f64()),
        ("answered_seconds", answered.as_secs_f64()),
        ("resident_mib", bytes),
    ])
}

fn figures(all: impl IntoIterator<Item = (&'static str, f64)>) -> Figures {
    all.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}
