//! Options of the command `growth`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The usage message.
pub const USAGE: &str = "usage: growth [--only PART[,PART...]] [--rounds N] [--quick] [--folder DIR] [--draw-only FILE]\n\
     parts: keys, log, nodes, values, connections, recovery, idle";

/// A quantity that is varied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// The number of keys in the store.
    Keys,
    /// The number of entries in the log, without snapshots.
    Log,
    /// The number of nodes of the cluster.
    Nodes,
    /// The length of a value.
    Values,
    /// The number of connected, silent clients.
    Connections,
    /// The number of entries that a node reads at a start.
    Recovery,
    /// None: a cluster without requests.
    Idle,
}

impl Part {
    /// All parts, in the order in which they are measured.
    pub const ALL: [Self; 7] =
        [Self::Idle, Self::Connections, Self::Recovery, Self::Keys, Self::Log, Self::Nodes, Self::Values];

    /// The name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Keys => "keys",
            Self::Log => "log",
            Self::Nodes => "nodes",
            Self::Values => "values",
            Self::Connections => "connections",
            Self::Recovery => "recovery",
            Self::Idle => "idle",
        }
    }

    fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|part| part.name() == name)
    }
}

/// The options of the command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The parts to measure, in the order of [`Part::ALL`].
    pub parts: Vec<Part>,
    /// How often each point is measured.
    pub rounds: u32,
    /// Whether to measure fewer and smaller points, each only briefly, to see that everything
    /// works.
    pub is_quick: bool,
    /// The folder of results and plots.
    pub folder: PathBuf,
    /// A file with results to draw instead of measuring.
    pub draw_only: Option<PathBuf>,
}

impl Options {
    /// Parses the arguments of the command; `None` when they are invalid.
    pub fn parse(mut arguments: impl Iterator<Item = String>) -> Option<Self> {
        let mut options = Self {
            parts: Part::ALL.to_vec(),
            rounds: 3,
            is_quick: false,
            folder: PathBuf::from("docs/plots"),
            draw_only: None,
        };
        while let Some(flag) = arguments.next() {
            match flag.as_str() {
                "--quick" => (options.is_quick, options.rounds) = (true, 1),
                "--only" => {
                    let wanted: Option<Vec<_>> = arguments.next()?.split(',').map(Part::named).collect();
                    let wanted = wanted?;
                    options.parts.retain(|part| wanted.contains(part));
                }
                "--rounds" => options.rounds = arguments.next()?.parse().ok().filter(|rounds| *rounds > 0)?,
                "--folder" => options.folder = arguments.next()?.into(),
                "--draw-only" => options.draw_only = Some(arguments.next()?.into()),
                _ => return None,
            }
        }
        Some(options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(flags: &str) -> Option<Options> {
        Options::parse(flags.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn all_parts_are_measured_by_default() {
        assert_eq!(parse("").unwrap().parts, Part::ALL);
        assert_eq!(parse("--only nodes,keys").unwrap().parts, [Part::Keys, Part::Nodes]);
        assert_eq!(parse("--quick --rounds 2").unwrap().rounds, 2);
        assert_eq!(parse("--draw-only x.jsonl").unwrap().draw_only, Some(PathBuf::from("x.jsonl")));
    }

    #[test]
    fn invalid_options_are_rejected() {
        for wrong in ["--only", "--only key", "--only keys,", "--rounds 0", "--rounds x", "keys", "--fast"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
