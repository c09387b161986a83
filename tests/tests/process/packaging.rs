//! Files for packagers, read by the programs that they are for.

use std::ffi::OsStr;
use std::fs;
use std::process::{Command, Output};

use coracle_tests::live::program;

fn coracle(words: &[&OsStr]) -> Output {
    Command::new(program()).args(words).output().expect("the program starts")
}

/// Runs a program of the machine; `None`: the machine does not have it.
fn other(name: &str, words: &[&OsStr]) -> Option<Output> {
    let ran = Command::new(name).args(words).output();
    if ran.is_err() {
        eprintln!("skipped: this machine has no {name}");
    }
    ran.ok()
}

#[test]
fn shells_accept_their_completions() {
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("script");
    for (shell, flags) in [("bash", &["-n"][..]), ("zsh", &["-n"]), ("fish", &["--no-execute"])] {
        let printed = coracle(&["completions", shell].map(OsStr::new));
        assert!(printed.status.success() && !printed.stdout.is_empty(), "{printed:?}");
        fs::write(&script, &printed.stdout).unwrap();
        let words = flags.iter().map(OsStr::new).chain([script.as_os_str()]).collect::<Vec<_>>();
        if let Some(checked) = other(shell, &words) {
            assert!(checked.status.success() && checked.stderr.is_empty(), "{checked:?}");
        }
    }
    let wrong = coracle(&["completions", "csh"].map(OsStr::new));
    assert_eq!(wrong.status.code(), Some(2));
}

#[test]
fn manual_pages_have_no_errors() {
    let folder = tempfile::tempdir().unwrap();
    let pages = folder.path().join("man1");
    assert!(coracle(&[OsStr::new("man"), pages.as_os_str()]).status.success());
    let files: Vec<_> = fs::read_dir(&pages).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(files.len() > 30, "{files:?}");
    // Notes on style are the generator's business; errors and warnings would be seen by readers.
    let lint = ["-T", "lint", "-W", "error"].map(OsStr::new);
    let words: Vec<_> = lint.into_iter().chain(files.iter().map(|path| path.as_os_str())).collect();
    if let Some(checked) = other("mandoc", &words) {
        let told = String::from_utf8_lossy(&checked.stdout);
        assert!(checked.status.success() && told.is_empty(), "{told}");
    }
    // A name that is a folder is left as it is.
    fs::remove_file(pages.join("coracle.1")).unwrap();
    fs::create_dir(pages.join("coracle.1")).unwrap();
    let refused = coracle(&[OsStr::new("man"), pages.as_os_str()]);
    assert_eq!(refused.status.code(), Some(6));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("coracle.1"));
}
