//! Resource usage of a process over time, and detection of its growth.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

/// The divisor of the growth that is tolerated from the second to the last quarter of the time: a
/// tenth, or the noise of a small number.
const GROWTH_DIVISOR: u64 = 10;

/// The resource usage of one node at one moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    node: usize,
    at: Duration,
    held: [u64; 4],
}

/// The sampled resources, each with its noise.
const HELD: [(&str, u64); 4] =
    [("resident_kib", 8 << 10), ("descriptors", 8), ("threads", 4), ("folder_kib", 16 << 10)];

impl Sample {
    pub(super) fn of(node: usize, at: Duration, pid: u32, folder: &Path) -> Self {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or_default()
        };
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count) as u64;
        Self { node, at, held: [field("VmRSS:"), descriptors, field("Threads:"), kib_in(folder)] }
    }

    pub(super) fn to_json(self) -> Value {
        let mut line = json!({ "node": self.node, "seconds": self.at.as_secs() });
        HELD.iter().zip(self.held).for_each(|((name, _), held)| line[*name] = held.into());
        line
    }
}

fn kib_in(folder: &Path) -> u64 {
    let files = fs::read_dir(folder).into_iter().flatten().flatten();
    files.filter_map(|file| Some(file.metadata().ok()?.len())).sum::<u64>() >> 10
}

fn nodes(samples: &[Sample]) -> Vec<usize> {
    let mut nodes: Vec<_> = samples.iter().map(|sample| sample.node).collect();
    nodes.sort_unstable();
    nodes.dedup();
    nodes
}

/// The mean of one resource of a node in this quarter of the time; `None` without samples.
fn mean(samples: &[Sample], node: usize, held: usize, quarter: usize) -> Option<u64> {
    let own: Vec<_> = samples.iter().filter(|sample| sample.node == node).collect();
    let part = &own[own.len() * quarter / 4..own.len() * (quarter + 1) / 4];
    let sum: u64 = part.iter().map(|sample| sample.held[held]).sum();
    sum.checked_div(part.len() as u64)
}

/// The mean of each quarter, for each resource of each node.
pub(super) fn quarters(samples: &[Sample]) -> Value {
    let of_node = |node: usize| {
        let mut row = json!({ "node": node });
        for (held, (name, _)) in HELD.iter().enumerate() {
            row[*name] = (0..4).map(|quarter| mean(samples, node, held, quarter)).collect();
        }
        row
    };
    nodes(samples).into_iter().map(of_node).collect()
}

/// The resources that were higher in the last quarter than in the second. The first quarter is a
/// warm-up.
pub(super) fn growth(samples: &[Sample]) -> Vec<String> {
    let mut grown = Vec::new();
    for node in nodes(samples) {
        for (held, (name, noise)) in HELD.iter().enumerate() {
            let Some((early, late)) = mean(samples, node, held, 1).zip(mean(samples, node, held, 3)) else {
                continue;
            };
            if late > early + (early / GROWTH_DIVISOR).max(*noise) {
                grown.push(format!("{name} of node {node} grew from {early} to {late}"));
            }
        }
    }
    grown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(held: impl Fn(u64) -> u64) -> Vec<Sample> {
        let sample = |second: u64| Sample {
            node: 1,
            at: Duration::from_secs(second),
            held: [100_000, held(second), 5, 30_000],
        };
        (0..40).map(sample).collect()
    }

    #[test]
    fn flat_usage_does_not_count_as_growth() {
        assert!(growth(&samples(|second| 40 + second % 7)).is_empty());
        assert!(growth(&samples(|second| if second < 10 { 1 } else { 50 })).is_empty(), "it gets warm first");
    }

    #[test]
    fn a_leak_is_reported() {
        assert_eq!(growth(&samples(|second| 40 + second)), ["descriptors of node 1 grew from 54 to 74"]);
    }

    #[test]
    fn without_samples_no_growth_is_reported() {
        assert!(growth(&[]).is_empty());
    }
}
