//! Results of the measurements: one JSON object per line, written as soon as it is known, so that
//! an interrupted run leaves its results.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{GrowthError, Part};

/// One point of one runtime in one round.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// The quantity that was varied.
    pub part: Part,
    /// The runtime of the nodes.
    pub runtime: String,
    /// The number of the round, from 1.
    pub round: u32,
    /// The value of the varied quantity: keys, entries, nodes, bytes, connections.
    pub at: f64,
    /// The figures by name. The name ends in the unit.
    pub figures: BTreeMap<String, f64>,
}

/// The results of a run, in a file and in memory.
#[derive(Debug)]
pub(super) struct Results {
    path: PathBuf,
    file: File,
    all: Vec<Measured>,
}

impl Results {
    pub(super) fn create(path: PathBuf) -> Result<Self, GrowthError> {
        match File::create(&path) {
            Ok(file) => Ok(Self { path, file, all: Vec::new() }),
            Err(cause) => Err(GrowthError::File(path, cause)),
        }
    }

    pub(super) fn add(&mut self, measured: Measured) -> Result<(), GrowthError> {
        let line = line_of(&measured);
        self.all.push(measured);
        writeln!(self.file, "{line}").map_err(|cause| GrowthError::File(self.path.clone(), cause))
    }

    pub(super) fn into_all(self) -> Vec<Measured> {
        self.all
    }
}

pub(super) fn line_of(measured: &Measured) -> String {
    serde_json::to_string(measured).expect("names and numbers are JSON")
}

/// Reads the results of an earlier run.
pub(super) fn read(path: &Path) -> Result<Vec<Measured>, GrowthError> {
    let text = fs::read_to_string(path).map_err(|cause| GrowthError::File(path.to_owned(), cause))?;
    let lines = text.lines().filter(|line| !line.is_empty()).map(serde_json::from_str);
    lines.collect::<Result<_, _>>().map_err(|cause| GrowthError::Line(path.to_owned(), cause))
}

/// The median of a figure over the rounds: one point per value of the varied quantity, in ascending
/// order.
pub(super) fn medians(all: &[Measured], part: Part, runtime: &str, figure: &str) -> Vec<(f64, f64)> {
    let mut places: Vec<(f64, Vec<f64>)> = Vec::new();
    for measured in all.iter().filter(|measured| measured.part == part && measured.runtime == runtime) {
        let Some(&value) = measured.figures.get(figure) else { continue };
        match places.iter_mut().find(|(at, _)| *at == measured.at) {
            Some((_, values)) => values.push(value),
            None => places.push((measured.at, vec![value])),
        }
    }
    places.sort_by(|one, other| one.0.total_cmp(&other.0));
    places.into_iter().map(|(at, values)| (at, median(values))).collect()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len().is_multiple_of(2) { values[middle - 1].midpoint(values[middle]) } else { values[middle] }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(round: u32, at: f64, value: f64) -> Measured {
        let figures = [("seconds".to_owned(), value)].into();
        Measured { part: Part::Recovery, runtime: "smol".into(), round, at, figures }
    }

    #[test]
    fn results_can_be_written_and_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("results.jsonl");
        let mut results = Results::create(path.clone()).unwrap();
        results.add(measured(1, 10.0, 0.25)).unwrap();
        results.add(measured(2, 10.0, 0.5)).unwrap();
        assert_eq!(read(&path).unwrap(), results.into_all());
    }

    #[test]
    fn a_point_is_the_median_of_its_rounds() {
        let rounds = [(1, 100.0, 3.0), (1, 10.0, 9.0), (2, 10.0, 1.0), (3, 10.0, 2.0), (2, 100.0, 4.0)];
        let all = rounds.map(|(round, at, value)| measured(round, at, value));
        assert_eq!(medians(&all, Part::Recovery, "smol", "seconds"), [(10.0, 2.0), (100.0, 3.5)]);
        assert!(medians(&all, Part::Recovery, "threads", "seconds").is_empty());
        assert!(medians(&all, Part::Recovery, "smol", "resident_mib").is_empty());
    }
}
