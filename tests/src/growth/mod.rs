//! Scaling measurements: how a server's throughput and memory grow with keys, log, nodes, values
//! and connections.
//!
//! ```text
//!   options ──► parts ──► subject    the real program, its memory and its processor time
//!                 │  └──► load       `coracle bench --connect`, a filler, silent clients
//!                 ▼
//!              results ──► plots ──► draw
//!             JSON lines            SVG
//! ```
//!
//! Each part varies one quantity and leaves the rest at its default. Every point has a new server
//! in a new folder, so no point depends on the one before. Both runtimes take turns at each point,
//! in alternating order from round to round.
//!
//! The load comes from the program's own bench. Added here is only what a bench does not need: a
//! filled store and silent clients.

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

/// The reason why there are no plots.
#[derive(Debug)]
pub enum GrowthError {
    /// A file cannot be read or written.
    File(PathBuf, io::Error),
    /// A line of the results is invalid.
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

/// Measures the requested parts, unless results exist already, and draws all plots that have
/// results. Calls `tell` with a line after each point.
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
