//! The flags of `coracle bench`, checked for consistency and converted to options.

use std::time::Duration;

use clap::Args;
use thiserror::Error;

use crate::address::Address;
use crate::durations;
use crate::list::{List, all_of};
use crate::numbers;
use crate::output::Format;
use crate::serve::Runtime;
use crate::tls::TrustFlags;

/// The longest value, in bytes: with its two quotes it reaches the limit of the protocol.
const VALUE_BYTES_MAX: u32 = (512 << 10) - 2;

// The flags as given. No doc comment: clap would use it as the help of the command, which is
// defined with the command.
#[derive(Args, Clone, Debug)]
pub(crate) struct BenchFlags {
    /// Load these running servers, clients in turn, instead of a temporary cluster
    ///
    /// CORACLE_CONNECT is ignored, so that no server is loaded by accident.
    #[arg(long, value_name = "ADDR[,ADDR...]",
          conflicts_with_all = ["runtime", "nodes", "ephemeral", "compare"])]
    connect: Vec<List<Address>>,

    #[command(flatten)]
    trust: TrustFlags,

    /// Runtime of the temporary cluster
    #[arg(long, value_name = "RUNTIME", value_enum, default_value = "smol", conflicts_with = "compare")]
    runtime: Runtime,

    /// Number of nodes of the temporary cluster, 1 to 9
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = numbers::nodes)]
    nodes: u8,

    /// Keep the temporary cluster in memory, without files
    #[arg(long)]
    ephemeral: bool,

    /// Run both in turn, in several interleaved rounds, and print medians and their ratio
    #[arg(long, value_name = "RUNTIME,RUNTIME", value_enum, value_delimiter = ',')]
    compare: Vec<Runtime>,

    /// Number of rounds of a comparison
    #[arg(long, value_name = "N", default_value_t = 5, requires = "compare",
          value_parser = |text: &str| numbers::within::<u32>(text, 1..=1000))]
    rounds: u32,

    /// Number of clients, each with a connection
    #[arg(long, value_name = "C", default_value_t = 64,
          value_parser = |text: &str| numbers::within::<u32>(text, 1..=10_000))]
    clients: u32,

    /// Maximum number of requests in flight per client
    #[arg(long, value_name = "D", default_value_t = 1, value_parser = |text: &str| numbers::within::<u32>(text, 1..=1024))]
    pipeline: u32,

    /// Size of a value in bytes
    #[arg(long, value_name = "B", default_value_t = 64,
          value_parser = |text: &str| numbers::within::<u32>(text, 0..=VALUE_BYTES_MAX))]
    value_size: u32,

    /// Percentage of requests that are puts; the others are gets
    #[arg(long, value_name = "PERCENT", default_value_t = 50,
          value_parser = |text: &str| numbers::within::<u8>(text, 0..=100))]
    puts: u8,

    /// Make gets linearizable instead of eventual
    #[arg(long)]
    linearizable: bool,

    /// Requests per second of all clients together, each sent when it is due
    ///
    /// Latency counts from when a request was due, so a stalled server is charged for every delayed
    /// request (open loop). Without --rate, a client sends its next request when one is answered
    /// (closed loop).
    #[arg(long, value_name = "PER_SECOND", value_parser = rate)]
    rate: Option<f64>,

    /// Duration of the load before the measurement
    #[arg(long, value_name = "DUR", default_value = "1s", value_parser = durations::zero_for_off)]
    warmup: Duration,

    /// Duration of the measurement
    #[arg(long, value_name = "DUR", default_value = "5s", value_parser = durations::positive)]
    duration: Duration,

    /// A table for people, or one JSON object
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t)]
    output: Format,
}

/// The options of a benchmark.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct BenchOptions {
    pub(super) subject: Subject,
    pub(super) load: LoadOptions,
    pub(super) output: Format,
    /// Which running servers are trusted.
    pub(super) trust: TrustFlags,
}

/// The servers to be measured.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Subject {
    /// Running servers of the user: at least one.
    Running(Vec<Address>),
    /// A temporary cluster.
    Own(TemporaryOptions),
    /// Temporary clusters of two runtimes, in alternating rounds.
    Compared { runtimes: [Runtime; 2], nodes: u8, ephemeral: bool, rounds: u32 },
}

/// The options of a temporary cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TemporaryOptions {
    pub(super) runtime: Runtime,
    pub(super) nodes: u8,
    pub(super) ephemeral: bool,
}

/// The options of the load.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct LoadOptions {
    /// At least 1.
    pub(super) clients: usize,
    /// At least 1.
    pub(super) pipeline: usize,
    pub(super) value_bytes: usize,
    /// 0 to 100.
    pub(super) puts_percent: u8,
    pub(super) linearizable: bool,
    /// Above 0; `None` for a closed loop.
    pub(super) rate_per_second: Option<f64>,
    pub(super) warmup: Duration,
    pub(super) duration: Duration,
}

/// Flags that are valid alone but not together.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub(crate) enum BenchFlagsError {
    #[error("--compare takes two runtimes, as in --compare smol,threads")]
    NotTwo,
}

/// The error for a text that is no request rate.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("expected a number above 0, such as 20000")]
struct RateError;

fn rate(text: &str) -> Result<f64, RateError> {
    let rate: f64 = text.trim().parse().map_err(|_| RateError)?;
    if rate.is_finite() && rate > 0.0 { Ok(rate) } else { Err(RateError) }
}

impl BenchFlags {
    /// Checks the flags for consistency.
    pub(crate) fn options(self) -> Result<BenchOptions, BenchFlagsError> {
        let (nodes, ephemeral, rounds) = (self.nodes, self.ephemeral, self.rounds);
        let running = all_of(&self.connect);
        let subject = match (running.is_empty(), self.compare.as_slice()) {
            (false, _) => Subject::Running(running),
            (true, []) => Subject::Own(TemporaryOptions { runtime: self.runtime, nodes, ephemeral }),
            (true, &[first, second]) => {
                Subject::Compared { runtimes: [first, second], nodes, ephemeral, rounds }
            }
            (true, _) => return Err(BenchFlagsError::NotTwo),
        };
        let load = LoadOptions {
            clients: self.clients as usize,
            pipeline: self.pipeline as usize,
            value_bytes: self.value_size as usize,
            puts_percent: self.puts,
            linearizable: self.linearizable,
            rate_per_second: self.rate,
            warmup: self.warmup,
            duration: self.duration,
        };
        Ok(BenchOptions { subject, load, output: self.output, trust: self.trust })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        flags: BenchFlags,
    }

    fn parse(flags: &str) -> Result<BenchFlags, clap::Error> {
        let words = std::iter::once("x").chain(flags.split_whitespace());
        Line::try_parse_from(words).map(|line| line.flags)
    }

    fn options(flags: &str) -> BenchOptions {
        parse(flags).unwrap().options().unwrap()
    }

    #[test]
    fn the_defaults_are_the_documented_ones() {
        let options = options("");
        let own = TemporaryOptions { runtime: Runtime::Smol, nodes: 5, ephemeral: false };
        assert_eq!(options.subject, Subject::Own(own));
        assert_eq!(options.output, Format::Text);
        let load = options.load;
        assert_eq!((load.clients, load.pipeline, load.value_bytes, load.puts_percent), (64, 1, 64, 50));
        assert_eq!((load.linearizable, load.rate_per_second), (false, None));
        assert_eq!((load.warmup, load.duration), (Duration::from_secs(1), Duration::from_secs(5)));
    }

    #[test]
    fn every_flag_arrives() {
        let options = options(
            "--runtime threads --nodes 3 --ephemeral --clients 7 --pipeline 16 --value-size 100 --puts 30 \
             --linearizable --rate 1.5 --warmup 0 --duration 250ms -o json",
        );
        let own = TemporaryOptions { runtime: Runtime::Threads, nodes: 3, ephemeral: true };
        assert_eq!(options.subject, Subject::Own(own));
        assert_eq!(options.output, Format::Json);
        let expected = LoadOptions {
            clients: 7,
            pipeline: 16,
            value_bytes: 100,
            puts_percent: 30,
            linearizable: true,
            rate_per_second: Some(1.5),
            warmup: Duration::ZERO,
            duration: Duration::from_millis(250),
        };
        assert_eq!(options.load, expected);
    }

    #[test]
    fn a_running_server_is_not_also_started() {
        let addresses = ["a:1", "b:2"].map(|text| text.parse().unwrap()).to_vec();
        assert_eq!(options("--connect a:1,b:2").subject, Subject::Running(addresses));
        for flag in ["--runtime smol", "--nodes 3", "--ephemeral", "--compare smol,threads"] {
            assert!(parse(&format!("--connect a:1 {flag}")).is_err(), "{flag}");
        }
    }

    #[test]
    fn a_comparison_is_between_two() {
        let runtimes = [Runtime::Smol, Runtime::Threads];
        let expected = Subject::Compared { runtimes, nodes: 3, ephemeral: true, rounds: 2 };
        let given = options("--compare smol,threads --nodes 3 --ephemeral --rounds 2");
        assert_eq!(given.subject, expected);
        for flags in ["--compare smol", "--compare smol,threads,smol"] {
            assert_eq!(parse(flags).unwrap().options(), Err(BenchFlagsError::NotTwo), "{flags}");
        }
        assert!(parse("--compare smol,threads --runtime smol").is_err());
        assert!(parse("--rounds 3").is_err());
    }

    #[test]
    fn the_error_for_an_invalid_value_names_a_valid_one() {
        let complaint = |flags: &str| parse(flags).unwrap_err().to_string();
        assert!(complaint("--clients 0").contains("from 1 to 10000"));
        assert!(complaint("--pipeline 1025").contains("from 1 to 1024"));
        assert!(complaint("--puts 101").contains("from 0 to 100"));
        assert!(complaint("--value-size 524287").contains("from 0 to 524286"));
        assert!(complaint("--duration 0").contains("must be more than 0"));
        for rate in ["0", "-1", "nan", "inf", "fast"] {
            assert!(complaint(&format!("--rate={rate}")).contains("such as 20000"), "{rate}");
        }
    }
}
