//! The kinds of faults, with their groups and their names on the command line.

use super::probe::Abilities;

/// A kind with its group and its name.
struct About(Kind, &'static str, &'static str);

macro_rules! kinds {
    ($($(#[doc = $doc:literal])+ $kind:ident = $group:literal $name:literal,)+) => {
        /// A kind of fault.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Kind { $($(#[doc = $doc])+ $kind,)+ }
        const ALL: &[About] = &[$(About(Kind::$kind, $group, $name),)+];
    };
}

kinds! {
    /// Frames are delayed, each by a different time.
    Delay = "net" "delay",
    /// Connections end in the middle of a frame.
    Cut = "net" "cut",
    /// Bytes arrive one by one.
    Trickle = "net" "trickle",
    /// Frames overtake one another.
    Reorder = "net" "reorder",
    /// Frames arrive twice.
    Duplicate = "net" "duplicate",
    /// Old frames arrive again, also on new connections.
    Replay = "net" "replay",
    /// Bits of frames change.
    Flip = "net" "flip",
    /// Frames claim a far greater length than they have.
    Lengthen = "net" "lengthen",
    /// One node receives another's messages, but does not reach it.
    BlackHole = "net" "blackhole",
    /// No message gets from or to one node.
    Isolate = "net" "isolate",
    /// No message gets from or to the leader.
    IsolateLeader = "net" "isolate-leader",
    /// The nodes are partitioned into two groups.
    Halves = "net" "halves",
    /// Every node reaches only two neighbors; of three nodes, one is a bridge.
    Ring = "net" "ring",
    /// A node is cut off and reconnected several times a second.
    Flapping = "net" "flapping",
    /// SIGKILL to a node.
    Kill = "process" "kill",
    /// SIGKILL to the leader.
    KillLeader = "process" "kill-leader",
    /// SIGKILL to all nodes at once.
    KillAll = "process" "kill-all",
    /// SIGSTOP to a node, later SIGCONT.
    Pause = "process" "pause",
    /// SIGSTOP to the leader, later SIGCONT.
    PauseLeader = "process" "pause-leader",
    /// SIGTERM to a node.
    Term = "process" "term",
    /// SIGTERM to one node after another.
    Rolling = "process" "rolling",
    /// A sync fails.
    SyncError = "disk" "sync-error",
    /// A write fails because the disk is full.
    WriteError = "disk" "write-error",
    /// SIGKILL at the n-th sync.
    CrashAtSync = "disk" "crash-at-sync",
    /// The file system is really full.
    Full = "disk" "full",
    /// A node loses power, and with it its unsynced data.
    Power = "disk" "power",
    /// All nodes lose power at once.
    PowerAll = "disk" "power-all",
    /// Leadership is transferred to a random node.
    Transfer = "member" "transfer",
    /// A node is added and promoted.
    Add = "member" "add",
    /// A member is removed and ends.
    Remove = "member" "remove",
    /// The leader is removed and ends.
    RemoveLeader = "member" "remove-leader",
    /// A node loses its disk, and is replaced under its id or another one.
    Replace = "member" "replace",
    /// A removed node is started again with its old folder.
    Return = "member" "return",
    /// A member gets another address.
    Move = "member" "move",
}

impl Kind {
    /// All kinds.
    #[must_use]
    pub fn all() -> Vec<Self> {
        ALL.iter().map(|about| about.0).collect()
    }

    fn about(self) -> &'static About {
        ALL.iter().find(|about| about.0 == self).expect("the table has every kind")
    }

    /// The name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.about().2
    }

    /// The kinds that a word of the command line stands for: a name, the beginning of names up to a
    /// `-`, or a group (`net`, `process`, `disk`, `member`). Empty for an unknown word.
    #[must_use]
    pub fn named(word: &str) -> Vec<Self> {
        let is_meant = |about: &&About| {
            let rest = about.2.strip_prefix(word);
            about.1 == word || rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
        };
        ALL.iter().filter(is_meant).map(|about| about.0).collect()
    }

    /// Returns whether the fault affects the network, so that a node can have another fault at the
    /// same time.
    pub(super) fn is_of_network(self) -> bool {
        self.about().1 == "net"
    }

    /// Returns whether the fault is an operator's membership change.
    pub(super) fn is_of_operator(self) -> bool {
        self.about().1 == "member" && self != Self::Transfer
    }

    /// The reason why this machine cannot inject the fault, if there is one.
    pub(super) fn obstacle(self, abilities: &Abilities) -> Option<&'static str> {
        match self {
            Self::SyncError | Self::WriteError | Self::CrashAtSync if !abilities.injects => {
                Some("no strace that can inject faults")
            }
            Self::Full if !abilities.mounts => Some("no file system of a node's own can be mounted"),
            Self::Power | Self::PowerAll if !abilities.mounts => {
                Some("no file system of a node's own can be mounted")
            }
            Self::Power | Self::PowerAll if !abilities.cuts_power => {
                Some("no file system can be told to forget what was not synced")
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_names_a_kind_or_several() {
        assert_eq!(Kind::named("kill"), [Kind::Kill, Kind::KillLeader, Kind::KillAll]);
        assert_eq!(Kind::named("kill-leader"), [Kind::KillLeader]);
        assert_eq!(Kind::named("power").len(), 2);
        assert_eq!(Kind::named("net").len(), 14);
        assert!(Kind::named("pow").is_empty());
    }
}
