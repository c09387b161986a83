//! Chaos campaign: runs a cluster of real processes while it injects faults into network, processes
//! and disks.
//!
//! ```text
//! cargo run --release -p coracle-tests --bin chaos -- --seed 7 --seconds 60 --runtime mixed
//! cargo run --release -p coracle-tests --bin chaos -- --cycles 300 --only kill
//! ```
//!
//! `--only` accepts kinds of faults (`isolate-leader`), properties that kinds share (`kill`,
//! `power`) and groups (`net`, `process`, `disk`, and `member`: an operator who changes the
//! members), separated by commas. Without it the seed chooses. `--faults N`, or `--cycles N`, ends
//! the faults after that number instead of after a time. The exit code is 1 when an invariant is
//! violated or a chosen fault never happened, and 2 for wrong usage.
//!
//! Where the machine allows it, the run takes place in separate Linux namespaces, so that no
//! process and no mount outlives it.

use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};

use coracle_tests::chaos::{Campaign, Kind, Mix};
use coracle_tests::live::{Runtime, program};

const USAGE: &str = "usage: chaos [--seed N] [--seconds S | --faults N] [--runtime smol|threads|mixed] [--nodes N] \
                     [--only KIND,…] [--flags 'FLAGS OF A NODE'] [--json] [--trace]";
/// The environment variable that is set inside the namespaces.
const IS_INSIDE: &str = "CORACLE_CHAOS_INSIDE";

fn main() -> ExitCode {
    let Some((campaign, is_json)) = campaign(std::env::args().skip(1)) else {
        tell(USAGE);
        return ExitCode::from(2);
    };
    go_inside(campaign.seed);
    // Build the program now. Otherwise the first start of a node would include the build time.
    let _ = program();
    let folder = tempfile::tempdir().expect("there is room for a temporary folder");
    let report = campaign.run(folder.path());
    let text = if is_json { report.to_json().to_string() + "\n" } else { report.to_string() };
    _ = io::stdout().write_all(text.as_bytes());
    if report.is_good() {
        return ExitCode::SUCCESS;
    }
    if is_json {
        tell(&report.to_string());
    }
    tell(&format!("the files are kept in {}", folder.keep().display()));
    tell(&format!("to run it again: {}", command_line(&campaign)));
    ExitCode::FAILURE
}

fn tell(text: &str) {
    // Ignore the error: when stderr is closed, the line cannot be delivered.
    _ = writeln!(io::stderr(), "{text}");
}

/// Executes this program again inside new namespaces, if that is possible. Passes the seed along,
/// so that it is not drawn again there.
fn go_inside(seed: u64) {
    const WORDS: [&str; 5] = ["--mount", "--pid", "--fork", "--kill-child", "--mount-proc"];
    let probe = Command::new("unshare").args(WORDS).arg("true").stderr(Stdio::null()).status();
    let is_possible = probe.is_ok_and(|status| status.success());
    if let (true, None, Ok(executable)) = (is_possible, std::env::var_os(IS_INSIDE), std::env::current_exe())
    {
        let mut arguments: Vec<String> = std::env::args().skip(1).collect();
        if !arguments.iter().any(|argument| argument == "--seed") {
            arguments.extend(["--seed".to_owned(), seed.to_string()]);
        }
        // `exec` returns only when it fails. Then the run continues here, without namespaces.
        let _ =
            Command::new("unshare").args(WORDS).arg(executable).args(arguments).env(IS_INSIDE, "1").exec();
    }
}

fn campaign(mut arguments: impl Iterator<Item = String>) -> Option<(Campaign, bool)> {
    let mut campaign = Campaign {
        seed: fastrand::u64(..1 << 32),
        seconds: 30,
        faults: None,
        mix: Mix::Mixed,
        nodes: 3,
        kinds: Vec::new(),
        flags: String::new(),
        is_told: false,
    };
    let mut is_json = false;
    while let Some(flag) = arguments.next() {
        match flag.as_str() {
            "--json" => is_json = true,
            "--trace" => campaign.is_told = true,
            _ => set(&mut campaign, &flag, &arguments.next()?)?,
        }
    }
    Some((campaign, is_json))
}

fn set(campaign: &mut Campaign, flag: &str, value: &str) -> Option<()> {
    match flag {
        "--seed" => campaign.seed = value.parse().ok()?,
        "--seconds" => campaign.seconds = value.parse().ok()?,
        "--faults" | "--cycles" => campaign.faults = Some(value.parse().ok()?),
        "--nodes" => campaign.nodes = value.parse().ok().filter(|nodes| (1..=9).contains(nodes))?,
        "--flags" => value.clone_into(&mut campaign.flags),
        "--only" | "--kind" => {
            for word in value.split(',') {
                let named = Kind::named(word);
                if named.is_empty() {
                    let all: Vec<&str> = Kind::all().into_iter().map(Kind::name).collect();
                    tell(&format!("no kind is called {word}; there are {}", all.join(", ")));
                    return None;
                }
                campaign.kinds.extend(named);
            }
        }
        "--runtime" => {
            campaign.mix = match value {
                "smol" => Mix::All(Runtime::Smol),
                "threads" => Mix::All(Runtime::Threads),
                "mixed" => Mix::Mixed,
                _ => return None,
            }
        }
        _ => return None,
    }
    Some(())
}

/// The command line that repeats this campaign.
fn command_line(campaign: &Campaign) -> String {
    let mut line = format!(
        "cargo run --release -p coracle-tests --bin chaos -- --seed {} --nodes {}",
        campaign.seed, campaign.nodes
    );
    line += match campaign.mix {
        Mix::All(Runtime::Smol) => " --runtime smol",
        Mix::All(Runtime::Threads) => " --runtime threads",
        Mix::Mixed => " --runtime mixed",
    };
    match campaign.faults {
        Some(faults) => line += &format!(" --faults {faults}"),
        None => line += &format!(" --seconds {}", campaign.seconds),
    }
    if !campaign.kinds.is_empty() {
        let kinds: Vec<&str> = campaign.kinds.iter().map(|kind| kind.name()).collect();
        line += &format!(" --only {}", kinds.join(","));
    }
    if !campaign.flags.is_empty() {
        line += &format!(" --flags '{}'", campaign.flags);
    }
    line
}
