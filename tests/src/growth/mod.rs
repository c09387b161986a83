//! How a server's throughput and memory grow with what it is given: keys, log, nodes, values,
//! connections.
//!
//! ```text
//!   options ──► parts ──► subject    the real program, its memory, its time on a processor
//!                 │  └──► load       `coracle bench --connect`, a filler, clients that are silent
//!                 ▼
//!              results ──► plots ──► draw
//!             JSON lines            SVG
//! ```
//!
//! Each part varies one thing and leaves the rest as a user finds it. Every point has a server of
//! its own in a folder of its own, so no point carries what the one before has left. Both runtimes
//! take turns at each point, the other one first in every other round.
//!
//! The load comes from the program's own bench. What is added here is what a bench has no use for:
//! a store that is full before, and clients that say nothing.

use std::fs;
use std::io;
use std::path::PathBuf;

mod draw;
mod load;
mod options;
mod parts;
mod plots;
mod results;
mod subject;

pub use options::{Options, Part, USAGE};
pub use results::Measured;

use results::Results;

/// Why there are no plots.
#[derive(Debug)]
pub enum GrowthError {
    /// A file cannot be read or written.
    File(PathBuf, io::Error),
    /// A line of the results is none.
    Line(PathBuf, serde_json::Error),
    /// A plot cannot be drawn.
    Plot(String),
}

impl std::fmt::Display for GrowthError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path, cause) => write!(f, "{}: {cause}", path.display()),
            Self::Line(path, cause) => write!(f, "{}: not a result: {cause}", path.display()),
            Self::Plot(cause) => write!(f, "a plot cannot be drawn: {cause}"),
        }
    }
}

impl std::error::Error for GrowthError {}

/// Measures what was asked for, unless results are there already, and draws all plots that there
/// are results for. `tell` is given a line after each point.
///
/// # Errors
///
/// [`GrowthError`].
///
/// # Panics
///
/// When a server does not start, does not answer, or does not end.
pub fn run(options: &Options, tell: &mut dyn FnMut(&str)) -> Result<(), GrowthError> {
    let failed = |path: &PathBuf| {
        let path = path.clone();
        move |cause| GrowthError::File(path, cause)
    };
    fs::create_dir_all(&options.folder).map_err(failed(&options.folder))?;
    let all = match &options.draw_only {
        Some(path) => results::read(path)?,
        None => {
            let path = options.folder.join("results.jsonl");
            let mut results = Results::create(path)?;
            parts::measure(options, &mut results, tell)?;
            results.into_all()
        }
    };
    for (name, svg) in plots::draw(&all)? {
        let path = options.folder.join(name);
        fs::write(&path, svg).map_err(failed(&path))?;
        tell(&format!("drew {}", path.display()));
    }
    Ok(())
}
