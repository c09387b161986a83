//! Builds and locates the program under test.
//!
//! The program belongs to another package, so cargo does not build it for these tests
//! automatically. The first caller runs cargo to build it, in the profile and target folder of the
//! calling executable, and takes the path that cargo reports. Cargo knows whether anything has
//! changed, so an outdated program is never tested, and an up-to-date one costs a fraction of a
//! second.
//!
//! `CORACLE_PROGRAM` names another program to test, such as one with a deliberate bug.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// The path of the program `coracle`.
///
/// # Panics
///
/// When the build fails.
pub fn program() -> &'static Path {
    static PROGRAM: OnceLock<Option<PathBuf>> = OnceLock::new();
    // A failure is kept too, so that cargo reports its errors only once.
    let program =
        PROGRAM.get_or_init(|| std::env::var_os("CORACLE_PROGRAM").map(PathBuf::from).or_else(build));
    program.as_deref().expect("cargo builds the program")
}

fn build() -> Option<PathBuf> {
    let executable = std::env::current_exe().expect("a running program has a path");
    let mut profile = executable.parent().expect("an executable is in a folder");
    if profile.ends_with("deps") {
        profile = profile.parent().expect("deps is in a profile's folder");
    }
    let target = profile.parent().expect("a profile's folder is in the target folder");
    let profile = match profile.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(name) => name,
    };
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args([
            "build",
            "--package",
            "cli",
            "--bin",
            "coracle",
            "--message-format",
            "json",
            "--profile",
            profile,
        ])
        .arg("--target-dir")
        .arg(target)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stderr(Stdio::inherit())
        .output()
        .expect("cargo starts");
    if output.status.success() { executable_in(&output.stdout) } else { None }
}

/// The path of the executable that cargo reported.
fn executable_in(messages: &[u8]) -> Option<PathBuf> {
    let messages = messages.split(|byte| *byte == b'\n');
    let messages = messages.filter_map(|line| serde_json::from_slice::<serde_json::Value>(line).ok());
    messages.filter_map(|message| message["executable"].as_str().map(PathBuf::from)).next_back()
}
