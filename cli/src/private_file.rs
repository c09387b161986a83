//! Files that only the user who runs the program may read, such as keys and tokens.

use std::fs::Metadata;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

/// The permissions of other users.
const OTHERS: u32 = 0o077;
/// The permission of the group to read.
const GROUP_READS: u32 = 0o040;
const ROOT: u32 = 0;

/// Returns whether users other than the one who runs the program can read or change the file.
///
/// A file of root may be readable by its group: that is how root hands a key to a service, as in a
/// secret of Kubernetes.
pub(crate) fn is_open_to_others(metadata: &Metadata) -> bool {
    let user = rustix::process::geteuid().as_raw();
    is_open(metadata.permissions().mode(), metadata.uid(), user)
}

fn is_open(mode: u32, owner: u32, user: u32) -> bool {
    let is_handed_over = owner == ROOT && user != ROOT;
    let permitted = if is_handed_over { GROUP_READS } else { 0 };
    mode & OTHERS & !permitted != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_file_of_root_may_be_readable_by_the_group_of_another_user() {
        for (mode, owner, user, is_open_to_others) in [
            (0o600, 7, 7, false),
            (0o400, 0, 0, false),
            (0o640, 7, 7, true),
            (0o440, 0, 7, false),
            (0o640, 0, 7, false),
            (0o440, 0, 0, true),
            (0o444, 0, 7, true),
            (0o460, 0, 7, true),
            (0o440, 8, 7, true),
        ] {
            assert_eq!(is_open(0o100_000 | mode, owner, user), is_open_to_others, "{mode:o} {owner} {user}");
        }
    }
}
