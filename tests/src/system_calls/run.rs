//! One run of a server in which a call fails, and what became of it.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use super::calls::Must;
use super::client::{Client, Silence};
use super::tracer;
use crate::live::{Nodes, Runtime, Server, Setup, signal};

/// How long a server under a tracer may take to start, to answer and to stop before it hangs. Far
/// above what it needs, and below what would make a whole table unbearable.
const START_PATIENCE: Duration = Duration::from_secs(30);
const STOP_PATIENCE: Duration = Duration::from_secs(25);
/// How long there is load, at the most.
const LOAD_MAX: Duration = Duration::from_secs(6);
/// How many writes a run has.
const WRITES: u64 = 90;
/// For how long a server without requests is watched, and which part of that it may compute.
const REST: Duration = Duration::from_millis(300);
const REST_SHARE_MAX: f64 = 0.6;
/// So few that a run has snapshots.
const FLAGS: &str = "--snapshot-entries 25 --request-timeout 2s --nodes 3";
const MEMBER_FLAGS: &str = "--snapshot-entries 25 --request-timeout 2s";

/// What the operating system's loader says. Until it is done there is no program.
const LOADER: [&str; 2] = ["error while loading shared libraries", "cannot set up thread-local storage"];

/// What is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// Three nodes in one process, in an empty folder.
    Founding,
    /// The same in a folder with logs and snapshots.
    Restart,
    /// One of three processes.
    Member,
}

/// When a call fails, counted for each thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// The one with this number.
    At(usize),
    /// From that one on.
    From(usize),
}

/// A run to be made.
#[derive(Clone, Debug)]
pub struct Case {
    /// What is run.
    pub subject: Subject,
    /// Which runtime drives it.
    pub runtime: Runtime,
    /// The call that fails.
    pub call: String,
    /// How.
    pub error: &'static str,
    /// When.
    pub moment: Moment,
    /// What may come of it.
    pub must: Must,
}

/// What became of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The call was not made so often.
    NotReached,
    /// It served on.
    Served,
    /// It answered no request, and stopped in order.
    Silent,
    /// It did not start, and said why.
    Refused,
    /// A node of it stopped, or it ended, and said why.
    Stopped,
    /// It ended by a signal.
    Died,
}

/// What must not be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Violation {
    /// This does not end.
    Hangs(&'static str),
    /// It computes without anything to do.
    Spins,
    /// It panicked or ended by a signal: its last words.
    Panics(String),
    /// It ended with this code and no word of an error.
    EndsWithoutWord(Option<i32>),
    /// A reply that is not so.
    Wrong(String),
    /// What was acknowledged is not there after a start without faults.
    Lost(String),
    /// The files cannot be used any more.
    Unusable(String),
    /// The table does not allow this outcome: what was said.
    NotAllowed(Outcome, String),
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { subject, runtime, call, error, moment, .. } = self;
        write!(f, "{subject:?} {} {call} {error} {moment:?}", runtime.name())
    }
}

/// The servers of a run: the one under the tracer comes first.
struct Servers {
    traced: Server,
    others: Vec<Server>,
}

impl Case {
    /// Makes the run, in this empty folder; `prepared` is one with the files of a server that has
    /// stopped.
    ///
    /// # Errors
    ///
    /// [`Violation`].
    ///
    /// # Panics
    ///
    /// When the machine does not do what it must without faults.
    pub fn run(&self, folder: &Path, prepared: &Path) -> Result<Outcome, Violation> {
        let data = folder.join("data");
        if self.subject == Subject::Restart {
            copy(prepared, &data);
        }
        let trace = folder.join("trace");
        let words = tracer::failing(&trace, &self.call, self.error, self.moment);
        let nodes = Nodes::new(&[self.runtime; 3]);
        let mut client = Client::default();
        let under_fault = self.under_fault(&data, &nodes, words, &mut client);
        if matches!(under_fault, Err(Violation::Hangs(_))) && tracer::has_struck_a_counter(&trace) {
            return Ok(Outcome::NotReached);
        }
        let outcome = under_fault?;
        self.start_again(&data, &nodes, &mut client)?;
        if !tracer::has_struck(&trace) {
            return Ok(Outcome::NotReached);
        }
        Ok(outcome)
    }

    fn setups(&self, data: &Path, nodes: &Nodes) -> Vec<Setup> {
        match self.subject {
            Subject::Founding | Subject::Restart => {
                vec![Setup::in_folder(self.runtime, data).with(FLAGS)]
            }
            Subject::Member => (1..=3).map(|id| nodes.setup(id).with(MEMBER_FLAGS)).collect(),
        }
    }

    fn under_fault(
        &self,
        data: &Path,
        nodes: &Nodes,
        words: Vec<std::ffi::OsString>,
        client: &mut Client,
    ) -> Result<Outcome, Violation> {
        let mut setups = self.setups(data, nodes);
        let traced = setups.remove(0).under(words).launch();
        let mut servers = Servers { traced, others: setups.iter().map(Setup::launch).collect() };
        servers.others.iter_mut().for_each(Server::wait_until_ready);
        let is_ready = match starts(&mut servers.traced) {
            // It may wait for what it needs, and stop when it is told to.
            Err(Violation::Hangs(_)) if self.must >= Must::ServeOrStop => false,
            started => started?,
        };
        let mut silence = None;
        if is_ready {
            silence = self.load(&mut servers, client)?;
            rests(&mut servers.traced)?;
        }
        if !servers.traced.has_ended() {
            signal(servers.traced.pid(), "TERM");
        }
        ends(&mut servers.traced)?;
        let ended = servers.traced.wait();
        servers.others.into_iter().for_each(|server| _ = server.kill());
        let last_words = ended.stderr.lines().last().unwrap_or_default().to_owned();
        let has_panicked = ended.stderr.contains("panicked at") || ended.code == Some(101);
        let outcome = match ended.code {
            None => Outcome::Died,
            _ if LOADER.iter().any(|word| ended.stderr.contains(word)) => Outcome::NotReached,
            _ if has_panicked => Outcome::Died,
            Some(0) if ended.stderr.lines().any(tells_of_stopped_node) => Outcome::Stopped,
            Some(0) if silence.is_some() || client.acknowledged() == 0 => Outcome::Silent,
            Some(0) => Outcome::Served,
            Some(_) if !ended.stderr.contains("error") && !self.may_lose_words() => {
                return Err(Violation::EndsWithoutWord(ended.code));
            }
            Some(_) if is_ready => Outcome::Stopped,
            Some(_) => Outcome::Refused,
        };
        let is_allowed = match outcome {
            Outcome::NotReached | Outcome::Served => true,
            Outcome::Silent => self.may_be_silent() || self.must >= Must::ServeOrStop,
            Outcome::Refused => self.must >= Must::ServeOrRefuse,
            Outcome::Stopped => self.must >= Must::ServeOrStop,
            Outcome::Died => self.must == Must::MayDie,
        };
        match outcome {
            _ if is_allowed => Ok(outcome),
            Outcome::Died => Err(Violation::Panics(ended.stderr)),
            _ => Err(Violation::NotAllowed(outcome, last_words)),
        }
    }

    /// A server none of whose clients can be accepted, heard or answered from some moment on is not
    /// to blame for its silence, nor is one that reaches no other node.
    fn may_be_silent(&self) -> bool {
        let is_of_clients = ["accept", "accept4", "recvfrom", "sendto", "sendmsg", "epoll_ctl", "setsockopt"];
        let is_of_links = ["connect", "getsockopt", "socket"];
        let is_the_call = is_of_clients.contains(&self.call.as_str())
            || (self.subject == Subject::Member && is_of_links.contains(&self.call.as_str()));
        // A tracer counts the calls of each thread, and on threads each connection has its own: the
        // call fails on all of them.
        is_the_call && (matches!(self.moment, Moment::From(_)) || self.runtime == Runtime::Threads)
    }

    /// A thread's first line on stderr is a write, too.
    fn may_lose_words(&self) -> bool {
        self.call == "write" && matches!(self.moment, Moment::At(1) | Moment::From(1))
    }

    /// Asks for something for a while.
    fn load(&self, servers: &mut Servers, client: &mut Client) -> Result<Option<Silence>, Violation> {
        let end = Instant::now() + LOAD_MAX;
        for number in 1..=WRITES {
            if servers.traced.has_ended() || Instant::now() > end {
                break;
            }
            match client.work(servers.traced.address(), number).map_err(Violation::Wrong)? {
                None => {}
                Some(silence) if self.may_be_silent() => return Ok(Some(silence)),
                Some(_) => return Err(Violation::Hangs("a request")),
            }
        }
        Ok(None)
    }

    /// Without faults everything goes on, and what was acknowledged is there.
    fn start_again(&self, data: &Path, nodes: &Nodes, client: &mut Client) -> Result<(), Violation> {
        let mut servers: Vec<_> = self.setups(data, nodes).iter().map(Setup::launch).collect();
        for server in &mut servers {
            if !starts(server)? {
                return Err(Violation::Unusable(server.stderr()));
            }
        }
        let address = servers[0].address();
        client.look_for_losses(address).map_err(Violation::Lost)
    }
}

/// Fills this folder with the files of a server that has served and stopped.
///
/// # Panics
///
/// When it does not serve.
pub fn prepare(runtime: Runtime, folder: &Path) {
    let server = Setup::in_folder(runtime, folder).with(FLAGS).start();
    let mut client = Client::default();
    (1..=WRITES).for_each(|number| _ = client.work(server.address(), number));
    // Later runs count from one again.
    for key in 0..4 {
        server.connect().ask(&format!(r#"{{"op":"delete","key":"k{key}"}}"#));
    }
    server.stop();
}

/// Which calls the traced server of a subject makes in a run without faults, and how often.
///
/// # Panics
///
/// When the run is not as it should be.
#[must_use]
pub fn calls_of(
    subject: Subject,
    runtime: Runtime,
    folder: &Path,
    prepared: &Path,
) -> BTreeMap<String, usize> {
    let case =
        Case { subject, runtime, call: String::new(), error: "", moment: Moment::At(1), must: Must::Serve };
    let data = folder.join("data");
    if subject == Subject::Restart {
        copy(prepared, &data);
    }
    fs::create_dir_all(folder).expect("a folder can be made");
    let (trace, nodes) = (folder.join("trace"), Nodes::new(&[runtime; 3]));
    let outcome = case.under_fault(&data, &nodes, tracer::watching(&trace), &mut Client::default());
    assert_eq!(outcome, Ok(Outcome::Served), "without faults");
    tracer::calls_made(&trace)
}

fn tells_of_stopped_node(line: &str) -> bool {
    line.contains(" error ") && line.contains("has stopped")
}

/// Whether it serves; otherwise it has ended.
fn starts(server: &mut Server) -> Result<bool, Violation> {
    let give_up_at = Instant::now() + START_PATIENCE;
    while !server.has_said_anything() && !server.has_ended() {
        if Instant::now() > give_up_at {
            return Err(Violation::Hangs("the start"));
        }
        thread::sleep(Duration::from_millis(2));
    }
    Ok(server.has_said_anything() && server.becomes_ready())
}

fn ends(server: &mut Server) -> Result<(), Violation> {
    let give_up_at = Instant::now() + STOP_PATIENCE;
    while !server.has_ended() {
        if Instant::now() > give_up_at {
            return Err(Violation::Hangs("the stop"));
        }
        thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

/// Watches a server that nobody asks for anything.
fn rests(server: &mut Server) -> Result<(), Violation> {
    let ticks = |server: &Server| -> Option<u64> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", server.pid())).ok()?;
        let fields: Vec<_> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        Some(fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?)
    };
    let before = ticks(server);
    let begin = Instant::now();
    thread::sleep(REST);
    let (Some(before), Some(after)) = (before, ticks(server)) else { return Ok(()) };
    // A tick is a hundredth of a second wherever Linux runs.
    let computed = Duration::from_millis((after - before) * 10);
    let is_calm = computed.as_secs_f64() <= begin.elapsed().as_secs_f64() * REST_SHARE_MAX;
    if is_calm || server.has_ended() { Ok(()) } else { Err(Violation::Spins) }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder can be made");
    for entry in fs::read_dir(from).expect("the prepared folder is there") {
        let entry = entry.expect("it can be listed");
        fs::copy(entry.path(), to.join(entry.file_name())).expect("files can be copied");
    }
}
