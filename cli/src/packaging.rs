//! `completions` and `man`: files for packagers, made from the definition of the command line, so
//! that they never lag behind it.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use clap::{Args, Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;
use thiserror::Error;

use crate::arguments::CommandLine;
use crate::exit::Exit;

/// The modes of pages and of a new folder: documentation is for all users.
const PAGE_MODE: u32 = 0o644;
const FOLDER_MODE: u32 = 0o755;

/// Print completions for a shell
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  coracle completions bash > /usr/share/bash-completion/completions/coracle
  coracle completions zsh > /usr/share/zsh/site-functions/_coracle
  source <(coracle completions bash)")]
pub(crate) struct Completions {
    /// The shell
    #[arg(value_name = "SHELL", value_enum)]
    shell: Shell,
}

/// Write a manual page for each command to a folder
///
/// The folder is created if it is missing. Pages that it already has are replaced, and its other
/// files stay as they are.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  coracle man /usr/local/share/man/man1")]
pub(crate) struct Manual {
    /// The folder for the pages
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

/// Why a file for packagers was not written.
#[derive(Debug, Error)]
pub(crate) enum PackagingError {
    #[error("{}: {cause}", .path.display())]
    File { path: PathBuf, cause: io::Error },
    #[error("cannot write the completions: {0}")]
    Output(#[from] io::Error),
}

impl PackagingError {
    pub(crate) fn exit(&self) -> Exit {
        Exit::Failure
    }

    /// Returns whether stdout was closed by its reader, which is no failure worth reporting.
    pub(crate) fn is_broken_pipe(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }
}

impl Completions {
    pub(crate) fn run(&self) -> Result<(), PackagingError> {
        let mut script = Vec::new();
        let mut command = CommandLine::command();
        clap_complete::generate(self.shell, &mut command, "coracle", &mut script);
        let mut stdout = io::stdout().lock();
        stdout.write_all(&script)?;
        Ok(stdout.flush()?)
    }
}

impl Manual {
    pub(crate) fn run(&self) -> Result<(), PackagingError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |cause| PackagingError::File { path, cause }
        };
        let made = DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(&self.folder);
        made.map_err(failed(&self.folder))?;
        for (name, page) in pages().map_err(failed(&self.folder))? {
            let path = self.folder.join(name);
            replace(&path, &page).map_err(failed(&path))?;
        }
        Ok(())
    }
}

/// All pages: name of the file, and content.
fn pages() -> io::Result<Vec<(String, Vec<u8>)>> {
    let mut command = CommandLine::command().disable_help_subcommand(true);
    command.build();
    let mut pages = Vec::new();
    add_pages(&command, &mut pages)?;
    Ok(pages)
}

fn add_pages(command: &Command, pages: &mut Vec<(String, Vec<u8>)>) -> io::Result<()> {
    let man = Man::new(command.clone());
    let mut page = Vec::new();
    man.render(&mut page)?;
    pages.push((man.get_filename(), page));
    let shown = command.get_subcommands().filter(|command| !command.is_hide_set());
    shown.into_iter().try_for_each(|command| add_pages(command, pages))
}

/// Replaces the file of this name, which may be a link: what it points to is not written.
fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new().suffix(".tmp").tempfile_in(folder)?;
    file.write_all(content)?;
    File::set_permissions(file.as_file(), Permissions::from_mode(PAGE_MODE))?;
    file.persist(path)?;
    fs::metadata(path).map(drop)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// Calls `visit` with each command, the words that lead to it, and its long flags.
    fn walk(command: &Command, words: &[&str], visit: &mut impl FnMut(&[&str], &[&str])) {
        let long: Vec<_> = command.get_arguments().filter_map(clap::Arg::get_long).collect();
        visit(words, &long);
        for sub in command.get_subcommands() {
            walk(sub, &[words, &[sub.get_name()]].concat(), visit);
        }
    }

    fn every_command(visit: &mut impl FnMut(&[&str], &[&str])) {
        walk(&CommandLine::command(), &["coracle"], visit);
    }

    #[test]
    fn every_command_has_a_page_with_its_flags() {
        let pages = pages().unwrap();
        let mut commands = 0;
        every_command(&mut |words, flags| {
            commands += 1;
            let name = format!("{}.1", words.join("-"));
            let page = pages.iter().find(|(of, _)| *of == name).unwrap_or_else(|| panic!("no page {name}"));
            let text = String::from_utf8(page.1.clone()).unwrap().replace("\\-", "-");
            for flag in flags {
                assert!(text.contains(&format!("--{flag}")), "{name} does not mention --{flag}");
            }
        });
        assert!(commands > 30 && commands == pages.len(), "{commands} commands, {} pages", pages.len());
    }

    #[test]
    fn every_command_and_flag_is_completed() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut CommandLine::command(), "coracle", &mut script);
            let script = String::from_utf8(script).unwrap();
            every_command(&mut |words, flags| {
                let word = words.last().unwrap();
                assert!(script.contains(word), "{shell} does not complete {word}");
                for flag in flags {
                    let spelled =
                        if shell == Shell::Fish { format!("-l {flag}") } else { format!("--{flag}") };
                    assert!(script.contains(&spelled), "{shell} does not complete {spelled} of {words:?}");
                }
            });
        }
    }

    #[test]
    fn pages_replace_their_own_names_alone_and_no_target_of_a_link() {
        let place = tempfile::tempdir().unwrap();
        let (folder, other) = (place.path().join("a/man1"), place.path().join("other"));
        let manual = Manual { folder: folder.clone() };
        manual.run().unwrap();
        fs::write(&other, "keep").unwrap();
        fs::write(folder.join("cp.1"), "keep").unwrap();
        fs::remove_file(folder.join("coracle.1")).unwrap();
        symlink(&other, folder.join("coracle.1")).unwrap();
        manual.run().unwrap();
        assert_eq!(fs::read(&other).unwrap(), b"keep");
        assert_eq!(fs::read(folder.join("cp.1")).unwrap(), b"keep");
        assert!(fs::read_to_string(folder.join("coracle.1")).unwrap().contains("coracle"));
        let mode = fs::metadata(folder.join("coracle-put.1")).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, PAGE_MODE);
    }
}
