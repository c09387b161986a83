//! The replication progress of one follower: `match_index`, `next_index`, and the window of calls
//! in flight.
//!
//! A follower is *probed* until the leader knows where the logs agree: with one AppendEntries at a
//! time. Then entries are *replicated* to it: `next_index` runs ahead of the acknowledgements, up
//! to a window of messages and bytes. A rejection, or the report that the follower is unreachable,
//! leads back to probing.
//!
//! Every call has a `sequence`. Once a rejection was handled, answers to all calls up to then are
//! ignored (the `fence`): they describe an outdated state, and could move `next_index` for nothing.

use std::collections::VecDeque;
use std::time::Duration;

use crate::raft::message::ReadRound;
use crate::raft::settings::Config;
use crate::raft::types::{LogIndex, LogPoint};
use crate::time::Instant;

/// The leader's view of a follower. Invariant: `match_index < next_index`.
#[derive(Clone, Debug)]
pub(in crate::raft) struct Progress {
    /// The highest index up to which the follower's log is known to be durable and equal to the
    /// leader's (Fig. 2, leader's state).
    match_index: LogIndex,
    /// The index of the next entry to send (Fig. 2, leader's state).
    next_index: LogIndex,
    pace: Pace,
    /// The progress of the latest snapshot that it was sent.
    reach: Option<Reach>,
    /// The latest commit index that was sent, as far as the follower's log matches.
    commit_told: LogIndex,
    last_sequence: u64,
    fence: u64,
    last_heard: Instant,
    /// The latest read round that the follower has answered.
    answered_round: ReadRound,
    /// When a probe, or a call without entries, was last sent.
    waiting_since: Instant,
}

#[derive(Clone, Debug)]
enum Pace {
    Probe { waiting: bool },
    Replicate { in_flight: VecDeque<InFlight>, bytes: usize },
    Snapshot(Sending),
}

/// A snapshot that is being sent to the follower.
#[derive(Clone, Debug)]
struct Sending {
    last: LogPoint,
    /// The offset of the part that is being read from disk; `None` while the leader waits for the
    /// follower.
    reading: Option<u64>,
    /// The offset of the part that was sent last.
    sent: Option<u64>,
    /// When a question or a part was last sent, or an answer came.
    since: Instant,
}

/// The most bytes that a follower ever had of a snapshot, even if it lost them later. The number is
/// bounded by the size of the snapshot, so waiting for it to grow always ends.
#[derive(Clone, Debug)]
struct Reach {
    last: LogPoint,
    bytes: u64,
    grown_at: Instant,
}

#[derive(Clone, Debug)]
struct InFlight {
    last_index: LogIndex,
    bytes: usize,
    since: Instant,
}

impl Progress {
    /// The progress of a follower of which a leader with a log up to `last_index` knows nothing
    /// yet.
    ///
    /// Fig. 2, leader's state: `next_index` starts right after the leader's last entry,
    /// `match_index` at zero.
    pub(in crate::raft) fn new(last_index: LogIndex, now: Instant) -> Self {
        Self {
            match_index: LogIndex::ORIGIN,
            next_index: last_index.next(),
            pace: Pace::Probe { waiting: false },
            reach: None,
            commit_told: LogIndex::ORIGIN,
            last_sequence: 0,
            fence: 0,
            last_heard: now,
            answered_round: ReadRound::default(),
            waiting_since: now,
        }
    }

    pub(in crate::raft) fn match_index(&self) -> LogIndex {
        self.match_index
    }

    pub(in crate::raft) fn next_index(&self) -> LogIndex {
        self.next_index
    }

    /// When an answer of any kind last arrived.
    pub(in crate::raft) fn last_heard(&self) -> Instant {
        self.last_heard
    }

    pub(in crate::raft) fn heard(&mut self, now: Instant) {
        self.last_heard = now;
    }

    /// Moves `last_heard` by the time that the leader was asleep: an answer may have come
    /// meanwhile.
    pub(in crate::raft) fn forgive(&mut self, asleep: Duration, now: Instant) {
        self.last_heard = (self.last_heard + asleep).min(now);
    }

    pub(in crate::raft) fn answered_round(&self) -> ReadRound {
        self.answered_round
    }

    /// Records the answer to a heartbeat of this round; late answers change nothing.
    pub(in crate::raft) fn answered(&mut self, round: ReadRound) {
        self.answered_round = self.answered_round.max(round);
    }

    /// Returns whether calls with entries may be sent now.
    pub(in crate::raft) fn may_send(&self, config: &Config) -> bool {
        match &self.pace {
            Pace::Probe { waiting } => !waiting,
            Pace::Replicate { in_flight, bytes } => {
                in_flight.len() < config.in_flight_messages_max && *bytes < config.in_flight_bytes_max
            }
            Pace::Snapshot(_) => false,
        }
    }

    /// The commit index to send to the follower, limited to `match_index`, if it is higher than the
    /// one sent before. It counts as sent from now on; if the message is lost, a regular heartbeat
    /// repeats it.
    pub(in crate::raft) fn commit_news(&mut self, commit_index: LogIndex) -> Option<LogIndex> {
        let tellable = commit_index.min(self.match_index);
        let is_news = tellable > self.commit_told;
        self.commit_told = self.commit_told.max(tellable);
        is_news.then_some(tellable)
    }

    /// The sequence number of the next call.
    pub(in crate::raft) fn next_sequence(&mut self) -> u64 {
        self.last_sequence += 1;
        self.last_sequence
    }

    /// Records a call that was sent: with entries up to `last_index`, `bytes` bytes of them, or
    /// with none.
    pub(in crate::raft) fn sent(&mut self, last_index: Option<LogIndex>, bytes: usize, now: Instant) {
        match (&mut self.pace, last_index) {
            (Pace::Probe { waiting }, _) => {
                *waiting = true;
                self.waiting_since = now;
            }
            (Pace::Replicate { .. } | Pace::Snapshot(_), None) => self.waiting_since = now,
            (Pace::Snapshot(_), Some(_)) => unreachable!("no entries go beside a snapshot"),
            (Pace::Replicate { in_flight, bytes: total }, Some(last_index)) => {
                in_flight.push_back(InFlight { last_index, bytes, since: now });
                *total += bytes;
                self.next_index = last_index.next();
            }
        }
    }

    /// Returns whether an answer is so late that the call or the answer may be lost.
    pub(in crate::raft) fn is_overdue(&self, now: Instant, patience: Duration) -> bool {
        let oldest = match &self.pace {
            Pace::Probe { .. } | Pace::Snapshot(_) => None,
            Pace::Replicate { in_flight, .. } => in_flight.front().map(|call| call.since),
        };
        now.since(oldest.map_or(self.waiting_since, |since| since.max(self.waiting_since))) >= patience
    }

    /// Records that the follower's log equals the leader's up to `index`. Returns whether that is
    /// news.
    ///
    /// Fig. 2, leader: on success, update `next_index` and `match_index`.
    pub(in crate::raft) fn accepted(&mut self, index: LogIndex) -> bool {
        let is_news = index > self.match_index;
        self.match_index = self.match_index.max(index);
        self.next_index = self.next_index.max(self.match_index.next());
        let matched = self.match_index;
        match &mut self.pace {
            Pace::Replicate { in_flight, bytes } => {
                while let Some(done) = in_flight.pop_front_if(|call| call.last_index <= matched) {
                    *bytes -= done.bytes;
                }
            }
            Pace::Probe { .. } | Pace::Snapshot(_) => {
                self.next_index = matched.next();
                self.pace = Pace::Replicate { in_flight: VecDeque::new(), bytes: 0 };
            }
        }
        is_news
    }

    /// Returns whether a rejection of the call `sequence` is about the current state.
    pub(in crate::raft) fn is_current(&self, sequence: u64) -> bool {
        sequence > self.fence && sequence <= self.last_sequence
    }

    /// Records a rejection, after which the follower's log may agree with the leader's up to
    /// `index`, but not beyond. Returns whether that is possible: it is not if the follower had
    /// acknowledged more. Such a follower is called again only when it is overdue.
    ///
    /// Fig. 2, leader: on a rejection, decrement `next_index` and retry, but never to `match_index`
    /// or below.
    pub(in crate::raft) fn rejected(&mut self, index: LogIndex, now: Instant) -> bool {
        let is_possible = index >= self.match_index;
        self.probe_after(index.max(self.match_index));
        if !is_possible {
            self.sent(None, 0, now);
        }
        is_possible
    }

    /// Returns whether the follower is being sent a snapshot.
    pub(in crate::raft) fn is_sent_snapshot(&self) -> bool {
        matches!(self.pace, Pace::Snapshot(_))
    }

    /// Records that the follower is asked how much it has of the snapshot that ends at `last`.
    pub(in crate::raft) fn begin_snapshot(&mut self, last: LogPoint, now: Instant) {
        self.fence = self.last_sequence;
        self.pace = Pace::Snapshot(Sending { last, reading: None, sent: None, since: now });
        if self.reach.as_ref().is_none_or(|reach| reach.last != last) {
            self.reach = Some(Reach { last, bytes: 0, grown_at: now });
        }
    }

    /// Records that the follower has `bytes` bytes of the snapshot. Returns whether to read the
    /// next part for it.
    pub(in crate::raft) fn snapshot_continues(&mut self, last: LogPoint, bytes: u64, now: Instant) -> bool {
        let Pace::Snapshot(sending) = &mut self.pace else { return false };
        // A repeated answer must not cause the same part to be sent twice.
        if sending.last != last || sending.reading == Some(bytes) || sending.sent == Some(bytes) {
            return false;
        }
        if let Some(reach) = self.reach.as_mut().filter(|reach| bytes > reach.bytes) {
            (reach.bytes, reach.grown_at) = (bytes, now);
        }
        sending.reading = Some(bytes);
        sending.since = now;
        true
    }

    pub(in crate::raft) fn reads_snapshot_at(&self, last: LogPoint, offset: u64) -> bool {
        matches!(&self.pace, Pace::Snapshot(sending) if sending.last == last && sending.reading == Some(offset))
    }

    pub(in crate::raft) fn snapshot_part_sent(&mut self, offset: u64, now: Instant) {
        if let Pace::Snapshot(sending) = &mut self.pace {
            (sending.reading, sending.sent) = (None, Some(offset));
            sending.since = now;
        }
    }

    /// Returns whether the snapshot transfer has been silent for `patience`.
    pub(in crate::raft) fn snapshot_is_overdue(&self, now: Instant, patience: Duration) -> bool {
        matches!(&self.pace, Pace::Snapshot(sending) if now.since(sending.since) >= patience)
    }

    /// Returns whether a snapshot is being sent to the follower, and it received more of it within
    /// `patience`.
    pub(in crate::raft) fn takes_snapshot(&self, now: Instant, patience: Duration) -> bool {
        let has_grown = |reach: &Reach| now.since(reach.grown_at) < patience;
        self.is_sent_snapshot() && self.reach.as_ref().is_some_and(has_grown)
    }

    /// Returns whether the follower has answered within `patience`.
    pub(in crate::raft) fn is_there(&self, now: Instant, patience: Duration) -> bool {
        now.since(self.last_heard) < patience
    }

    /// Assumes that all calls in flight to the follower are lost.
    pub(in crate::raft) fn unreachable(&mut self) {
        self.probe_after(self.match_index);
    }

    fn probe_after(&mut self, index: LogIndex) {
        self.next_index = index.next();
        self.fence = self.last_sequence;
        self.pace = Pace::Probe { waiting: false };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::quorum::Voters;
    use crate::raft::types::NodeId;

    fn window_of(messages: usize, bytes: usize) -> Config {
        let voters = Voters::new([NodeId(0), NodeId(1)]).unwrap();
        let config = Config::new(NodeId(0), voters);
        Config { in_flight_messages_max: messages, in_flight_bytes_max: bytes, ..config }
    }

    fn replicating() -> Progress {
        let mut progress = Progress::new(LogIndex(10), Instant::default());
        assert!(progress.accepted(LogIndex(10)));
        progress
    }

    #[test]
    fn a_probe_is_sent_once_until_it_is_answered() {
        let config = window_of(4, 1000);
        let mut progress = Progress::new(LogIndex(10), Instant::default());
        assert!(progress.may_send(&config));
        progress.sent(Some(LogIndex(12)), 100, Instant::default());
        assert_eq!((progress.may_send(&config), progress.next_index()), (false, LogIndex(11)));
        progress.accepted(LogIndex(10));
        assert_eq!((progress.may_send(&config), progress.next_index()), (true, LogIndex(11)));
    }

    #[test]
    fn the_window_limits_messages_and_bytes_and_only_newer_acknowledgements_free_it() {
        let config = window_of(2, 1000);
        let mut progress = replicating();
        progress.sent(Some(LogIndex(11)), 10, Instant::default());
        assert!(progress.may_send(&config));
        progress.sent(Some(LogIndex(12)), 10, Instant::default());
        assert!(!progress.may_send(&config));
        assert!(!progress.accepted(LogIndex(10)));
        assert!(!progress.may_send(&config));
        assert!(progress.accepted(LogIndex(11)));
        assert!(progress.may_send(&config));
        progress.sent(Some(LogIndex(13)), 1000, Instant::default());
        assert!(progress.accepted(LogIndex(12)));
        assert!(!progress.may_send(&config), "a thousand bytes are still on their way");
    }

    #[test]
    fn a_rejection_never_moves_next_index_below_the_match_and_fences_older_answers() {
        let mut progress = replicating();
        let first = progress.next_sequence();
        let second = progress.next_sequence();
        progress.sent(Some(LogIndex(14)), 10, Instant::default());
        assert!(progress.is_current(first));
        assert!(!progress.rejected(LogIndex(3), Instant::default()), "it had acknowledged ten");
        assert_eq!(progress.next_index(), LogIndex(11));
        assert!(!progress.is_current(second));
        let third = progress.next_sequence();
        assert!(progress.is_current(third) && !progress.is_current(third + 1));
    }

    #[test]
    fn an_unreachable_follower_is_probed_after_its_match_index() {
        let mut progress = replicating();
        progress.sent(Some(LogIndex(20)), 10, Instant::default());
        assert_eq!(progress.next_index(), LogIndex(21));
        progress.unreachable();
        assert_eq!(progress.next_index(), LogIndex(11));
        progress.sent(Some(LogIndex(12)), 10, Instant::default());
        assert!(!progress.may_send(&window_of(4, 1000)), "a probe is answered before the next one");
    }

    #[test]
    fn each_commit_index_is_sent_once_and_never_above_the_match_index() {
        let mut progress = replicating();
        assert_eq!(progress.commit_news(LogIndex(4)), Some(LogIndex(4)));
        assert_eq!(progress.commit_news(LogIndex(4)), None);
        assert_eq!(progress.commit_news(LogIndex(12)), Some(LogIndex(10)));
        assert_eq!(progress.commit_news(LogIndex(12)), None);
        progress.accepted(LogIndex(11));
        assert_eq!(progress.commit_news(LogIndex(12)), Some(LogIndex(11)));
    }
}
