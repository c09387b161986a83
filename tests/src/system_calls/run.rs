//! One run of a server in which a system call fails, and the classification of its outcome.

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

/// The time that a traced server has to start, and below it to stop, before it counts as hanging.
/// Far above what it needs, and short enough for a whole table.
const START_TIMEOUT: Duration = Duration::from_secs(30);
const STOP_TIMEOUT: Duration = Duration::from_secs(25);
/// The longest duration of the load.
const LOAD_MAX: Duration = Duration::from_secs(6);
/// The number of writes of a run.
const WRITES: u64 = 90;
/// The time for which a server without requests is watched, and below it the share of that time for
/// which it may use the processor.
const REST: Duration = Duration::from_millis(300);
const REST_SHARE_MAX: f64 = 0.6;
/// The flags of a server, with a threshold so low that a run has snapshots.
const FLAGS: &str = "--snapshot-entries 25 --request-timeout 2s --nodes 3";
const MEMBER_FLAGS: &str = "--snapshot-entries 25 --request-timeout 2s";

/// Error messages of the dynamic loader. Before it is done, the program does not run.
const LOADER: [&str; 2] = ["error while loading shared libraries", "cannot set up thread-local storage"];

/// The kind of server that is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// Three nodes in one process, in an empty folder.
    Founding,
    /// Three nodes in one process, in a folder with logs and snapshots.
    Restart,
    /// One of three processes of a cluster.
    Member,
}

/// The number of the call that fails, counted for each thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// Only this call.
    At(usize),
    /// This call and all later ones.
    From(usize),
}

/// A case to run.
#[derive(Clone, Debug)]
pub struct Case {
    /// The kind of server.
    pub subject: Subject,
    /// The runtime of the nodes.
    pub runtime: Runtime,
    /// The call that fails.
    pub call: String,
    /// The error.
    pub error: &'static str,
    /// The moment.
    pub moment: Moment,
    /// The outcomes that are allowed.
    pub must: Must,
}

/// The outcome of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The call with this number was not made.
    NotReached,
    /// The server continued to serve.
    Served,
    /// The server answered no request, and stopped normally.
    Silent,
    /// The server did not start, and reported why.
    Refused,
    /// A node of the server stopped, or the server ended, and reported why.
    Stopped,
    /// The server panicked or ended by a signal.
    Died,
}

/// A violation that no run may show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Violation {
    /// This operation does not end.
    Hangs(&'static str),
    /// The server uses the processor without any work.
    Spins,
    /// The server panicked or ended by a signal, with this stderr.
    Panics(String),
    /// The server ended with this exit code and no error message.
    EndsWithoutWord(Option<i32>),
    /// A reply is wrong.
    Wrong(String),
    /// An acknowledged write is missing after a start without faults.
    Lost(String),
    /// The files are not usable any more.
    Unusable(String),
    /// The table does not allow this outcome; with the last line of stderr.
    NotAllowed(Outcome, String),
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { subject, runtime, call, error, moment, .. } = self;
        write!(f, "{subject:?} {} {call} {error} {moment:?}", runtime.name())
    }
}

/// The servers of a run, with the traced one separate.
struct Servers {
    traced: Server,
    others: Vec<Server>,
}

impl Case {
    /// Runs the case in this empty folder. `prepared` is a folder with the files of a server that
    /// has stopped.
    ///
    /// # Errors
    ///
    /// [`Violation`].
    ///
    /// # Panics
    ///
    /// When the machine fails without an injected fault.
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
            // It may wait for a resource that it needs, and stop when it is ordered to.
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

    /// Returns whether the fault excuses a server without answers: its clients cannot be accepted,
    /// heard or answered from some moment on, or it cannot reach any other node.
    fn may_be_silent(&self) -> bool {
        let is_of_clients = ["accept", "accept4", "recvfrom", "sendto", "sendmsg", "epoll_ctl", "setsockopt"];
        let is_of_links = ["connect", "getsockopt", "socket"];
        let is_the_call = is_of_clients.contains(&self.call.as_str())
            || (self.subject == Subject::Member && is_of_links.contains(&self.call.as_str()));
        // A tracer counts the calls of each thread. On the threads runtime each connection has
        // separate threads, so the call fails on all of them.
        is_the_call && (matches!(self.moment, Moment::From(_)) || self.runtime == Runtime::Threads)
    }

    /// Returns whether the fault may suppress error messages: a thread's first line on stderr is
    /// also a write.
    fn may_lose_words(&self) -> bool {
        self.call == "write" && matches!(self.moment, Moment::At(1) | Moment::From(1))
    }

    /// Sends requests for a while.
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

    /// Checks that, without faults, the server starts and has all acknowledged data.
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
/// When the server does not serve.
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

/// The calls that the traced server of a subject makes in a run without faults, with their numbers.
///
/// # Panics
///
/// When the run is not as expected.
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
    line.contains(" error ") && line.contains("stopped after a disk failure")
}

/// Returns whether the server serves; otherwise it has ended.
fn starts(server: &mut Server) -> Result<bool, Violation> {
    let give_up_at = Instant::now() + START_TIMEOUT;
    while !server.has_said_anything() && !server.has_ended() {
        if Instant::now() > give_up_at {
            return Err(Violation::Hangs("the start"));
        }
        thread::sleep(Duration::from_millis(2));
    }
    Ok(server.has_said_anything() && server.becomes_ready())
}

fn ends(server: &mut Server) -> Result<(), Violation> {
    let give_up_at = Instant::now() + STOP_TIMEOUT;
    while !server.has_ended() {
        if Instant::now() > give_up_at {
            return Err(Violation::Hangs("the stop"));
        }
        thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

/// Checks that a server without requests uses little processor time.
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
    // A tick is a hundredth of a second on every Linux.
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
