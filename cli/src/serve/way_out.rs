//! Recovery steps for a data folder that cannot start because some of its nodes are lost: shell
//! commands that can be copied.

use std::borrow::Cow;
use std::fmt;
use std::path::{Path, PathBuf};

/// The steps from this folder to a new one that holds everything that was acknowledged.
pub(super) struct Steps<'a>(pub(super) &'a Path);

impl fmt::Display for Steps<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (folder, backup, restored) =
            (word(self.0), beside(self.0, ".backup.txt"), beside(self.0, ".restored"));
        let (backup, restored) = (word(&backup), word(&restored));
        write!(
            f,
            "`coracle backup {backup} --data-dir {folder}`, then `coracle restore {backup} --data-dir {restored}`, then \
             `coracle --data-dir {restored}`"
        )
    }
}

/// Returns a path beside the folder, with its name plus `ending`.
fn beside(folder: &Path, ending: &str) -> PathBuf {
    let mut name = folder.file_name().unwrap_or("data".as_ref()).to_owned();
    name.push(ending);
    folder.with_file_name(name)
}

/// Quotes the path as a shell word.
fn word(path: &Path) -> Cow<'_, str> {
    let text = path.to_string_lossy();
    shlex::try_quote(&text).map(|quoted| quoted.into_owned().into()).unwrap_or_else(|_| text.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_steps_can_be_pasted_to_a_shell() {
        assert_eq!(
            Steps(Path::new("./my data")).to_string(),
            "`coracle backup './my data.backup.txt' --data-dir './my data'`, then `coracle restore './my data.backup.txt' \
             --data-dir './my data.restored'`, then `coracle --data-dir './my data.restored'`"
        );
        assert!(Steps(Path::new("/srv/data/")).to_string().contains("--data-dir /srv/data.restored"));
    }
}
