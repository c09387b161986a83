//! Checks of a data folder: who may read it, what its files say, and its disk.

use std::fs::{self, File, Metadata, TryLockError};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use super::{Check, disk, limits};
use crate::log::folder::{Node, nodes_of};
use crate::log::verify::VerdictName;

/// Runs all checks of a folder.
pub(super) fn checks(folder: &Path) -> Vec<Check> {
    let metadata = match fs::metadata(folder) {
        Ok(metadata) if metadata.is_dir() => metadata,
        Ok(_) => return vec![Check::fail("folder", format!("{} is not a folder", folder.display()))],
        Err(error) => {
            let why = format!("{}: {error}: is its volume mounted?", folder.display());
            return vec![Check::fail("folder", why)];
        }
    };
    let is_used = match lock(folder) {
        Ok(is_used) => is_used,
        Err(error) => return vec![Check::fail("folder", format!("{}: {error}", folder.display()))],
    };
    let mut checks = vec![permissions(folder, &metadata), in_use(is_used)];
    checks.extend(files(folder, is_used));
    checks.push(leftovers(&names(folder), is_used));
    checks.extend(disk::checks(folder));
    checks.extend(limits::checks());
    checks
}

fn permissions(folder: &Path, metadata: &Metadata) -> Check {
    let (mode, owner) = (metadata.permissions().mode() & 0o777, metadata.uid());
    let me = rustix::process::geteuid().as_raw();
    judge_permissions(&folder.display().to_string(), mode, owner == me || me == 0)
}

fn judge_permissions(folder: &str, mode: u32, is_mine: bool) -> Check {
    const CHECK: &str = "permissions";
    if !is_mine {
        return Check::fail(
            CHECK,
            format!("{folder} belongs to another user: run this as the server's user"),
        );
    }
    match mode & 0o077 {
        0 => Check::ok(CHECK, "only its owner can read the folder"),
        _ => Check::warn(
            CHECK,
            format!("other users can enter it (mode {mode:03o}): run `chmod 700 {folder}`"),
        ),
    }
}

/// Returns whether a server has locked the folder. Holds the lock for a moment only.
fn lock(folder: &Path) -> std::io::Result<bool> {
    match File::open(folder)?.try_lock_shared() {
        Ok(()) => Ok(false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

fn in_use(is_used: bool) -> Check {
    let message = if is_used { "a server uses the folder" } else { "no server uses the folder" };
    Check::ok("lock", message)
}

/// Verifies the files of each node, as `log verify` does.
fn files(folder: &Path, is_used: bool) -> Vec<Check> {
    const CHECK: &str = "files";
    match nodes_of(folder) {
        Ok(nodes) if nodes.is_empty() => {
            vec![Check::warn(CHECK, "the folder holds no node: a server would create a new cluster in it")]
        }
        Ok(nodes) => nodes.into_iter().map(|node| judge_node(&node, is_used)).collect(),
        Err(error) => vec![Check::fail(CHECK, error.to_string())],
    }
}

fn judge_node(node: &Node, is_used: bool) -> Check {
    const CHECK: &str = "files";
    let Node { id, verdict, messages } = node;
    let why = messages.join("; ");
    match verdict {
        VerdictName::Clean => Check::ok(CHECK, format!("node {id} is clean")),
        VerdictName::TornTail if is_used => Check::ok(CHECK, format!("node {id} is written at the moment")),
        VerdictName::TornTail => Check::warn(
            CHECK,
            format!("node {id}: its last write is torn, and the next start cuts it off: {why}"),
        ),
        VerdictName::Damaged => Check::fail(
            CHECK,
            format!("node {id} cannot start: {why}. Restore it from the other nodes or a backup"),
        ),
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

fn leftovers(names: &[String], is_used: bool) -> Check {
    const CHECK: &str = "leftovers";
    let left = |ending: &str| {
        let left = names.iter().filter(|name| name.ends_with(ending));
        left.cloned().collect::<Vec<_>>().join(", ")
    };
    let (temporary, cut) = (left(".tmp"), left(".cut"));
    if !temporary.is_empty() && !is_used {
        return Check::warn(CHECK, format!("{temporary}: unfinished files, which the next start removes"));
    }
    match cut.is_empty() {
        true => Check::ok(CHECK, "there are no temporary files"),
        false => {
            Check::warn(CHECK, format!("{cut}: the end of a log that was torn: look at it, and remove it"))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::super::Verdict;
    use super::*;

    #[test]
    fn a_folder_that_is_missing_or_a_file_fails() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for path in [PathBuf::from("/nowhere/at/all"), file.path().to_owned()] {
            let found = checks(&path);
            assert!(found.len() == 1 && found[0].verdict == Verdict::Fail, "{found:?}");
        }
    }

    #[test]
    fn a_folder_that_others_can_enter_is_warned_about_and_one_of_others_fails() {
        assert_eq!(judge_permissions("d", 0o700, true).verdict, Verdict::Ok);
        let open = judge_permissions("d", 0o750, true);
        assert!(open.verdict == Verdict::Warn && open.message.contains("chmod 700 d"), "{open:?}");
        assert_eq!(judge_permissions("d", 0o700, false).verdict, Verdict::Fail);
    }

    #[test]
    fn a_lock_is_found() {
        let folder = tempfile::tempdir().unwrap();
        assert!(!lock(folder.path()).unwrap());
        let _server = coracle_storage::FolderLock::acquire(folder.path()).unwrap();
        assert!(lock(folder.path()).unwrap());
        assert_ne!(in_use(true), in_use(false));
    }

    #[test]
    fn damage_fails_and_a_torn_end_is_repaired_by_the_next_start() {
        let node = |verdict| Node { id: 1, verdict, messages: vec!["line 3".to_owned()] };
        let verdict = |of, is_used| judge_node(&node(of), is_used).verdict;
        assert_eq!(verdict(VerdictName::Clean, false), Verdict::Ok);
        assert_eq!(verdict(VerdictName::TornTail, true), Verdict::Ok);
        assert_eq!(verdict(VerdictName::TornTail, false), Verdict::Warn);
        assert_eq!(verdict(VerdictName::Damaged, true), Verdict::Fail);
        let empty = tempfile::tempdir().unwrap();
        assert_eq!(files(empty.path(), false)[0].verdict, Verdict::Warn);
    }

    #[test]
    fn leftovers_are_named() {
        let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        assert_eq!(leftovers(&names(&["log00.txt"]), false).verdict, Verdict::Ok);
        for (name, is_used, verdict) in [
            ("snap0.txt.tmp", false, Verdict::Warn),
            ("snap0.txt.tmp", true, Verdict::Ok),
            ("log00.txt.cut", true, Verdict::Warn),
        ] {
            let check = leftovers(&names(&[name]), is_used);
            assert_eq!(check.verdict, verdict, "{check:?}");
            assert!(verdict == Verdict::Ok || check.message.contains(name), "{check:?}");
        }
    }
}
