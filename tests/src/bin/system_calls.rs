//! Fault injection into system calls: makes every call of a server fail in every way that it may,
//! each in a separate run. See `coracle_tests::system_calls`.
//!
//! ```text
//! cargo run --release -p coracle-tests --bin system_calls -- [--runtime smol|threads] [--subject founding|restart|member] \
//!     [--calls openat,write] [--jobs 2]
//! ```
//!
//! Prints one line per call and error, and one per violation. The exit code is 1 for a violation,
//! and for a call that the table does not list; it is 2 for wrong usage.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Mutex;
use std::thread;

use coracle_tests::live::Runtime;
use coracle_tests::system_calls::{Case, Moment, Outcome, Subject, calls_of, prepare, row_of};

const USAGE: &str = "usage: system_calls [--runtime smol|threads] [--subject founding|restart|member] [--calls NAME,…] [--jobs N]";

/// The moments at which a call fails: early, later, and permanently from one call on.
const MOMENTS: [Moment; 5] = [Moment::At(1), Moment::At(2), Moment::At(7), Moment::From(1), Moment::From(12)];

/// Prints a line on stdout and ignores the error when its reader has closed it.
macro_rules! say {
    ($($text:tt)*) => { _ = writeln!(io::stdout(), $($text)*) };
}

struct Options {
    runtimes: Vec<Runtime>,
    subjects: Vec<Subject>,
    calls: Option<BTreeSet<String>>,
    jobs: usize,
}

fn options(mut arguments: impl Iterator<Item = String>) -> Option<Options> {
    let mut options = Options {
        runtimes: vec![Runtime::Smol, Runtime::Threads],
        subjects: vec![Subject::Founding, Subject::Restart, Subject::Member],
        calls: None,
        jobs: 2,
    };
    while let Some(flag) = arguments.next() {
        let value = arguments.next()?;
        match (flag.as_str(), value.as_str()) {
            ("--runtime", "smol") => options.runtimes = vec![Runtime::Smol],
            ("--runtime", "threads") => options.runtimes = vec![Runtime::Threads],
            ("--subject", "founding") => options.subjects = vec![Subject::Founding],
            ("--subject", "restart") => options.subjects = vec![Subject::Restart],
            ("--subject", "member") => options.subjects = vec![Subject::Member],
            ("--calls", _) => options.calls = Some(value.split(',').map(str::to_owned).collect()),
            ("--jobs", _) => options.jobs = value.parse().ok().filter(|jobs| *jobs > 0)?,
            _ => return None,
        }
    }
    Some(options)
}

fn main() -> ExitCode {
    let Some(options) = options(std::env::args().skip(1)) else {
        _ = writeln!(io::stderr(), "{USAGE}");
        return ExitCode::from(2);
    };
    let folder = tempfile::tempdir().expect("there is room for a folder");
    let mut is_good = true;
    for subject in &options.subjects {
        for runtime in &options.runtimes {
            let of_these = folder.path().join(format!("{subject:?}-{}", runtime.name()));
            is_good &= run_all(&options, *subject, *runtime, &of_these);
        }
    }
    if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Returns whether a case is skipped. A start creates threads and an epoll instance in advance, and
/// refuses to start when that fails. A failure between that check and the actual use, a millisecond
/// later, ends the process inside a library.
fn is_left_out(call: &str, moment: Moment) -> bool {
    matches!((call, moment), ("clone3", Moment::From(12)) | ("epoll_create1", Moment::At(2)))
}

/// Runs all cases of a subject. Returns whether none violated an expectation.
fn run_all(options: &Options, subject: Subject, runtime: Runtime, folder: &Path) -> bool {
    let prepared = folder.join("prepared");
    prepare(runtime, &prepared);
    let made = calls_of(subject, runtime, &folder.join("traced"), &prepared);
    let (mut cases, mut is_good) = (Vec::new(), true);
    for call in made.keys().filter(|call| options.calls.as_ref().is_none_or(|only| only.contains(*call))) {
        let Some(row) = row_of(call) else {
            say!("open row: {call}, made {} times", made[call]);
            is_good = false;
            continue;
        };
        // A temporary error occurs only at single calls, not permanently.
        let passing = MOMENTS.into_iter().filter(|moment| matches!(moment, Moment::At(_))).collect();
        for ((errors, must), moments) in [(row.passing, passing), (row.lasting, MOMENTS.to_vec())] {
            let every = |error: &&'static str| {
                let error = *error;
                moments.iter().map(move |moment| (error, *moment))
            };
            for (error, moment) in
                errors.iter().flat_map(every).filter(|(_, moment)| !is_left_out(call, *moment))
            {
                cases.push(Case { subject, runtime, call: call.clone(), error, moment, must });
            }
        }
    }
    say!("{subject:?} on {}: {} calls, {} runs", runtime.name(), made.len(), cases.len());
    let (next, all) = (Mutex::new(cases.iter().enumerate()), Mutex::new(BTreeMap::new()));
    let is_clean = thread::scope(|scope| {
        let worker = || {
            let mut is_clean = true;
            loop {
                let Some((number, case)) = next.lock().expect("no worker panics").next() else {
                    return is_clean;
                };
                is_clean &= run_one(case, &folder.join(number.to_string()), &prepared, &all);
            }
        };
        let workers: Vec<_> = (0..options.jobs).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().all(|worker| worker.join().expect("no worker panics"))
    });
    for ((call, error), outcomes) in all.into_inner().expect("no worker panics") {
        let outcomes: Vec<_> = outcomes.iter().map(|(outcome, times)| format!("{outcome} {times}")).collect();
        say!("| {call} | {error} | {} |", outcomes.join(", "));
    }
    is_good && is_clean
}

type Outcomes = BTreeMap<(String, &'static str), BTreeMap<String, usize>>;

fn run_one(case: &Case, folder: &Path, prepared: &Path, all: &Mutex<Outcomes>) -> bool {
    std::fs::create_dir_all(folder).expect("a folder can be made");
    let result = case.run(folder, prepared);
    std::fs::remove_dir_all(folder).expect("a folder can be removed");
    let word = match &result {
        Ok(Outcome::NotReached) => "not reached".to_owned(),
        Ok(outcome) => format!("{outcome:?}").to_lowercase(),
        Err(violation) => {
            say!("VIOLATION {case}: {violation:?}");
            "violation".to_owned()
        }
    };
    let mut all = all.lock().expect("no worker panics");
    *all.entry((case.call.clone(), case.error)).or_default().entry(word).or_default() += 1;
    result.is_ok()
}
