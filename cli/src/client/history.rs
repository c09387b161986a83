//! The command history of the interactive client: a file in the user's state folder, according to
//! the XDG Base Directory Specification.

use std::ffi::OsString;
use std::path::PathBuf;
use std::{env, fs};

/// Returns the path of the history file and creates its folder. `None` when no folder is available;
/// then the history lasts only as long as the client runs.
pub(super) fn path() -> Option<PathBuf> {
    let folder = folder(env::var_os("XDG_STATE_HOME"), env::var_os("HOME"))?;
    fs::create_dir_all(&folder).ok()?;
    Some(folder.join("history"))
}

fn folder(state_home: Option<OsString>, home: Option<OsString>) -> Option<PathBuf> {
    // The specification requires that a relative path is ignored.
    let absolute = |path: OsString| Some(PathBuf::from(path)).filter(|path| path.is_absolute());
    let state =
        state_home.and_then(absolute).or_else(|| Some(home.and_then(absolute)?.join(".local/state")))?;
    Some(state.join("coracle"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_history_is_in_the_users_state_folder() {
        let folder = |state: Option<&str>, home: Option<&str>| {
            folder(state.map(OsString::from), home.map(OsString::from))
        };
        assert_eq!(folder(Some("/s"), Some("/h")), Some(PathBuf::from("/s/coracle")));
        assert_eq!(folder(None, Some("/h")), Some(PathBuf::from("/h/.local/state/coracle")));
        assert_eq!(folder(Some("s"), Some("/h")), Some(PathBuf::from("/h/.local/state/coracle")));
        assert_eq!(folder(Some(""), None), None);
    }
}
