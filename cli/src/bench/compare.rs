//! Benchmark comparison of two runtimes: alternating rounds, so that other load on the machine
//! affects both alike, and medians over the rounds.
//!
//! Two different numbers alone do not make a real difference, because the rounds of one runtime
//! also differ from one another. A difference is reported as more than noise only if the ranges of
//! the two runtimes' rounds do not overlap, and if there are enough rounds that this is unlikely to
//! happen by chance.

use std::io::{self, Write};

use serde::Serialize;

use super::report::{Figures, Report, head};
use crate::output::write_columns;

/// The minimum number of rounds per runtime for a difference to be reported as more than noise.
/// Chosen because the ranges of two equally fast runtimes are disjoint by chance once in 35 times
/// with four rounds, but once in ten times with three.
const ROUNDS_MIN: usize = 4;

/// The result of a comparison.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Comparison {
    rounds: usize,
    /// The medians of each runtime's rounds, in the order of the flag.
    medians: [Report; 2],
    /// The second runtime's figures divided by the first one's.
    ratio: Ratios,
    /// All rounds of each runtime.
    all: [Vec<Report>; 2],
}

/// The ratios for puts and for gets; `None` for a kind without requests.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
struct Ratios {
    put: Option<Ratio>,
    get: Option<Ratio>,
}

/// The second runtime's median figures relative to the first one's.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
struct Ratio {
    per_second: f64,
    p50_us: f64,
    p99_us: f64,
    /// Whether the ranges of requests per second overlap, or there are fewer rounds than
    /// [`ROUNDS_MIN`].
    is_within_noise: bool,
    /// The lowest and the highest requests per second over the rounds, for each runtime.
    spread_per_second: [[f64; 2]; 2],
}

impl Comparison {
    /// Compares rounds of two runtimes: the same number for each, at least one.
    pub(super) fn new(all: [Vec<Report>; 2]) -> Self {
        let medians = [median_report(&all[0]), median_report(&all[1])];
        let ratio = Ratios {
            put: Ratio::new(&all, &medians, |report| report.put),
            get: Ratio::new(&all, &medians, |report| report.get),
        };
        Self { rounds: all[0].len(), medians, ratio, all }
    }

    /// Writes the comparison as text for people.
    pub(super) fn write_text(&self, out: &mut dyn Write) -> io::Result<()> {
        let [first, second] = &self.medians;
        let names = [first, second].map(|report| report.runtime.unwrap_or_default());
        let Report { nodes, clients, pipeline, seconds, .. } = first;
        let rounds = self.rounds;
        writeln!(
            out,
            "{nodes} nodes, {clients} clients, pipeline {pipeline}; medians of {rounds} rounds of {seconds:.1} s"
        )?;
        let rows = [
            head(""),
            first.put.row(&format!("put {}", names[0])),
            second.put.row(&format!("put {}", names[1])),
            first.get.row(&format!("get {}", names[0])),
            second.get.row(&format!("get {}", names[1])),
        ];
        write_columns(out, &rows)?;
        for (kind, ratio) in [("puts", self.ratio.put), ("gets", self.ratio.get)] {
            if let Some(ratio) = ratio {
                ratio.write_text(kind, names, out)?;
            }
        }
        Ok(())
    }
}

impl Ratio {
    fn new(
        all: &[Vec<Report>; 2],
        medians: &[Report; 2],
        figures: impl Fn(&Report) -> Figures,
    ) -> Option<Self> {
        let [first, second] = [0, 1].map(|runtime| figures(&medians[runtime]));
        if first.ops == 0 || second.ops == 0 {
            return None;
        }
        let ratio = |first: f64, second: f64| (second / first * 1_000.0).round() / 1_000.0;
        let of_micros = |first: u64, second: u64| ratio(first.max(1) as f64, second as f64);
        let spread = [0, 1].map(|runtime| {
            let rates = all[runtime].iter().map(|report| figures(report).per_second);
            rates.fold([f64::INFINITY, 0.0], |[least, most], rate| [rate.min(least), rate.max(most)])
        });
        Some(Self {
            per_second: ratio(first.per_second, second.per_second),
            p50_us: of_micros(first.p50_us, second.p50_us),
            p99_us: of_micros(first.p99_us, second.p99_us),
            is_within_noise: all[0].len() < ROUNDS_MIN || does_overlap(spread),
            spread_per_second: spread,
        })
    }

    fn write_text(&self, kind: &str, names: [&str; 2], out: &mut dyn Write) -> io::Result<()> {
        let [first, second] = names;
        let Self { per_second, p50_us, p99_us, .. } = self;
        writeln!(
            out,
            "{kind}: {second} has {per_second:.2} times the throughput of {first}; p50 {p50_us:.2}, p99 \
             {p99_us:.2} times"
        )?;
        let [[first_least, first_most], [second_least, second_most]] = self.spread_per_second;
        let verdict = match (self.is_within_noise, does_overlap(self.spread_per_second)) {
            (false, _) => "more than noise",
            (true, true) => "within the noise",
            (true, false) => "too few rounds to tell it from noise",
        };
        writeln!(
            out,
            "  {verdict}: the rounds are {first_least:.0} to {first_most:.0} for {first}, \
             {second_least:.0} to {second_most:.0} for {second}"
        )
    }
}

fn does_overlap([first, second]: [[f64; 2]; 2]) -> bool {
    first[0] <= second[1] && second[0] <= first[1]
}

/// Takes the median of each figure separately, so the figures of one row may come from different
/// rounds.
fn median_report(rounds: &[Report]) -> Report {
    let figures = |of: fn(&Report) -> Figures| {
        let count =
            |figure: fn(&Figures) -> u64| median(rounds.iter().map(|report| figure(&of(report))).collect());
        Figures {
            ops: count(|figures| figures.ops),
            per_second: median_number(rounds.iter().map(|report| of(report).per_second).collect()),
            p50_us: count(|figures| figures.p50_us),
            p99_us: count(|figures| figures.p99_us),
            p999_us: count(|figures| figures.p999_us),
            max_us: count(|figures| figures.max_us),
            errors: count(|figures| figures.errors),
        }
    };
    Report {
        seconds: median_number(rounds.iter().map(|report| report.seconds).collect()),
        put: figures(|report| report.put),
        get: figures(|report| report.get),
        ..rounds[0].clone()
    }
}

fn median_number(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    let middle = numbers.len() / 2;
    if numbers.len().is_multiple_of(2) {
        numbers[middle - 1].midpoint(numbers[middle])
    } else {
        numbers[middle]
    }
}

fn median(mut numbers: Vec<u64>) -> u64 {
    numbers.sort_unstable();
    let middle = numbers.len() / 2;
    if numbers.len().is_multiple_of(2) {
        numbers[middle - 1].midpoint(numbers[middle])
    } else {
        numbers[middle]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rounds(runtime: &'static str, rates: &[f64]) -> Vec<Report> {
        let report = |per_second| Report {
            runtime: Some(runtime),
            nodes: 3,
            clients: 4,
            pipeline: 1,
            seconds: 5.0,
            put: Figures { ops: 10, per_second, p50_us: 100, p99_us: 200, ..Figures::default() },
            get: Figures::default(),
        };
        rates.iter().copied().map(report).collect()
    }

    fn ratio(first: &[f64], second: &[f64]) -> Ratio {
        Comparison::new([rounds("smol", first), rounds("threads", second)]).ratio.put.unwrap()
    }

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median_number(vec![3.0, 1.0, 100.0]), 3.0);
        assert_eq!(median_number(vec![4.0, 1.0, 2.0, 100.0]), 3.0);
        assert_eq!(median(vec![9]), 9);
    }

    #[test]
    fn a_difference_is_noise_until_the_rounds_are_apart() {
        let apart = ratio(&[100.0, 110.0, 105.0, 105.0], &[200.0, 210.0, 220.0, 210.0]);
        assert_eq!((apart.per_second, apart.is_within_noise), (2.0, false));
        let overlapping = ratio(&[100.0, 201.0, 105.0, 105.0], &[200.0, 210.0, 220.0, 210.0]);
        assert!(overlapping.is_within_noise);
        let inside = ratio(&[100.0, 300.0, 100.0, 100.0], &[200.0; 4]);
        assert!(inside.is_within_noise);
        let few = ratio(&[100.0, 110.0, 105.0], &[200.0, 210.0, 220.0]);
        assert!(few.is_within_noise, "three rounds are apart by chance too often");
        assert!(ratio(&[5.0], &[4.0]).per_second < 1.0);
    }

    #[test]
    fn a_kind_without_requests_is_not_compared() {
        let comparison = Comparison::new([rounds("smol", &[100.0]), rounds("threads", &[150.0])]);
        assert_eq!(comparison.ratio.get, None);
        let mut out = Vec::new();
        comparison.write_text(&mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains("puts: threads has 1.50 times the throughput of smol"), "{text}");
        assert!(text.contains("too few rounds") && !text.contains("gets:"), "{text}");
    }
}
