//! Probe of the machine: which faults can be injected here.

use std::path::Path;
use std::process::{Command, Stdio};

use super::home::Home;

/// The kinds of fault injection that work here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Abilities {
    /// Whether `strace` can make system calls fail.
    pub injects: bool,
    /// Whether a node can have a separate file system, from an image in a file.
    pub mounts: bool,
    /// Whether such a file system can be ordered to stop at once and lose its unsynced data.
    pub cuts_power: bool,
}

impl Abilities {
    /// Tries everything in `folder`.
    #[must_use]
    pub fn probe(folder: &Path) -> Self {
        let injection = ["-D", "-f", "-qq", "-e", "trace=fsync", "-e", "inject=fsync:error=EIO", "true"];
        let injects = runs("strace", &injection);
        let Ok(mut home) = Home::mounted(&folder.join("probe")) else {
            return Self { injects, ..Self::default() };
        };
        let cuts_power = loses_only_what_was_not_synced(&mut home).unwrap_or(false);
        Self { injects, mounts: true, cuts_power }
    }
}

/// Returns whether a power cut loses unsynced data and keeps synced data. Otherwise it would be
/// useless.
fn loses_only_what_was_not_synced(home: &mut Home) -> std::io::Result<bool> {
    let (kept, lost) = (home.data().join("kept"), home.data().join("lost"));
    std::fs::write(&kept, "kept")?;
    std::fs::File::open(&kept)?.sync_all()?;
    std::fs::File::open(home.data())?.sync_all()?;
    std::fs::write(&lost, "lost")?;
    home.cut_power()?;
    home.restore_power()?;
    Ok(kept.exists() && !lost.exists())
}

/// Returns whether a command runs and succeeds.
pub(super) fn runs(program: &str, arguments: &[&str]) -> bool {
    let mut run = Command::new(program);
    run.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    run.status().is_ok_and(|status| status.success())
}
