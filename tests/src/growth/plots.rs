//! The plots, and the results that each shows.

use super::draw::{Axis, Chart, Line, Unit};
use super::results::medians;
use super::{GrowthError, Measured, Part};

/// A plot of one part, with some of its figures, each for both runtimes.
struct Plot {
    name: &'static str,
    title: &'static str,
    part: Part,
    x: Axis,
    y: Axis,
    /// The names of the figures, with their names in the legend.
    figures: &'static [(&'static str, &'static str)],
}

const REQUESTS: &[(&str, &str)] = &[("requests_per_second", "")];
const RESIDENT: &[(&str, &str)] = &[("resident_mib", "")];
const PER_SECOND: Axis =
    Axis { label: "requests a second", unit: Unit::Count, is_log: false, is_base_two: false };
const MEMORY: Axis =
    Axis { label: "resident memory, MiB", unit: Unit::Count, is_log: true, is_base_two: false };

const fn log(label: &'static str) -> Axis {
    Axis { label, unit: Unit::Count, is_log: true, is_base_two: false }
}

const fn linear(label: &'static str) -> Axis {
    Axis { label, unit: Unit::Count, is_log: false, is_base_two: false }
}

const VALUE: Axis = Axis { label: "bytes of a value", unit: Unit::Bytes, is_log: true, is_base_two: true };

const PLOTS: &[Plot] = &[
    Plot {
        name: "keys-throughput.svg",
        title: "Throughput and stored keys",
        part: Part::Keys,
        x: log("keys stored"),
        y: PER_SECOND,
        figures: REQUESTS,
    },
    Plot {
        name: "keys-memory.svg",
        title: "Memory of five nodes and stored keys",
        part: Part::Keys,
        x: log("keys stored"),
        y: MEMORY,
        figures: RESIDENT,
    },
    Plot {
        name: "log-throughput.svg",
        title: "Throughput and length of the log",
        part: Part::Log,
        x: log("entries in the log"),
        y: PER_SECOND,
        figures: REQUESTS,
    },
    Plot {
        name: "log-size.svg",
        title: "Folder and memory of five nodes, without snapshots",
        part: Part::Log,
        x: log("entries in the log"),
        y: log("MiB"),
        figures: &[("folder_mib", "folder"), ("resident_mib", "memory")],
    },
    Plot {
        name: "recovery.svg",
        title: "From the start of one node to its first answer",
        part: Part::Recovery,
        x: log("entries in the log"),
        y: log("seconds"),
        figures: &[("answered_seconds", "")],
    },
    Plot {
        name: "nodes-throughput.svg",
        title: "Throughput and nodes in one process",
        part: Part::Nodes,
        x: linear("nodes"),
        y: PER_SECOND,
        figures: REQUESTS,
    },
    Plot {
        name: "nodes-memory.svg",
        title: "Memory after a load, and nodes in one process",
        part: Part::Nodes,
        x: linear("nodes"),
        y: linear("resident memory, MiB"),
        figures: RESIDENT,
    },
    Plot {
        name: "values-throughput.svg",
        title: "Throughput and length of values",
        part: Part::Values,
        x: VALUE,
        y: log("requests a second"),
        figures: REQUESTS,
    },
    Plot {
        name: "values-memory.svg",
        title: "Memory after a load, and length of values",
        part: Part::Values,
        x: VALUE,
        y: MEMORY,
        figures: RESIDENT,
    },
    Plot {
        name: "connections-throughput.svg",
        title: "Throughput of 64 clients beside silent ones",
        part: Part::Connections,
        x: log("silent clients"),
        y: PER_SECOND,
        figures: REQUESTS,
    },
    Plot {
        name: "connections-latency.svg",
        title: "Time of a put of 64 clients beside silent ones",
        part: Part::Connections,
        x: log("silent clients"),
        y: linear("milliseconds"),
        figures: &[("put_p50_ms", "p50"), ("put_p99_ms", "p99")],
    },
    Plot {
        name: "connections-memory.svg",
        title: "Memory per silent client",
        part: Part::Connections,
        x: log("silent clients"),
        y: log("resident memory per client, KiB"),
        figures: &[("kib_per_connection", "")],
    },
];

/// Draws every plot that has results. Returns file names with contents.
pub(super) fn draw(all: &[Measured]) -> Result<Vec<(&'static str, String)>, GrowthError> {
    let mut drawn = Vec::new();
    for plot in PLOTS {
        let lines = plot.lines(all);
        // A line needs two points.
        if lines.iter().any(|line| line.points.len() > 1) {
            let chart = Chart { title: plot.title, x: plot.x, y: plot.y, lines };
            drawn.push((plot.name, chart.draw()?));
        }
    }
    Ok(drawn)
}

impl Plot {
    fn lines(&self, all: &[Measured]) -> Vec<Line> {
        let mut lines = Vec::new();
        for (figure, called) in self.figures {
            for runtime in ["smol", "threads"] {
                let mut points = medians(all, self.part, runtime, figure);
                // A logarithmic axis cannot show zero.
                points.retain(|(x, y)| (*x > 0.0 || !self.x.is_log) && (*y > 0.0 || !self.y.is_log));
                lines.push(Line { name: format!("{runtime} {called}").trim_end().to_owned(), points });
            }
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(runtime: &str, at: f64, value: f64) -> Measured {
        let figures = [("answered_seconds".to_owned(), value)].into();
        Measured { part: Part::Recovery, runtime: runtime.into(), round: 1, at, figures }
    }

    #[test]
    fn parts_without_results_are_not_drawn() {
        assert!(draw(&[]).unwrap().is_empty());
        let one = [measured("smol", 1e4, 0.1)];
        assert!(draw(&one).unwrap().is_empty(), "one point is no line");
        let two = [measured("smol", 1e4, 0.1), measured("smol", 1e5, 0.4)];
        let names: Vec<_> = draw(&two).unwrap().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["recovery.svg"]);
    }

    #[test]
    fn a_logarithmic_axis_leaves_out_zeros() {
        let all = [measured("smol", 0.0, 0.1), measured("smol", 10.0, 0.4), measured("smol", 100.0, 0.0)];
        let plot = PLOTS.iter().find(|plot| plot.part == Part::Recovery).unwrap();
        assert_eq!(plot.lines(&all)[0].points, [(10.0, 0.4)]);
    }
}
