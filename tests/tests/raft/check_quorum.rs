//! Check-quorum: a leader that no majority answers steps down, and a node that merely lags deposes
//! no leader (thesis, §4.2.3 and §6.2).

use coracle_core::raft::{Config, Node, Restored, Role, Voters};
use coracle_tests::scenario::forge::{granted, heartbeat, request_pre_vote, request_vote};
use coracle_tests::scenario::{Cluster, Lone, cluster, replicas};

/// A leader that a majority answers stays leader permanently.
///
/// Covers: etcd TestLeaderStepdownWhenQuorumActive, TestCampaignWhileLeader
#[test]
fn a_leader_with_a_majority_stays() {
    let mut cluster = cluster(5);
    cluster.elect(1);
    cluster.isolate(4);
    cluster.isolate(5);
    cluster.elapse_ms(10_000);
    assert_eq!((cluster.leader(), cluster.term(1)), (Some(1), 1));
}

/// A leader that a majority does not answer must step down: otherwise clients would wait for it,
/// and followers would stay bound to it.
///
/// Covers: etcd TestLeaderStepdownWhenQuorumLost, checkquorum
#[test]
fn a_leader_without_a_majority_gives_up_within_an_election_timeout() {
    let mut cluster = cluster(5);
    cluster.elect(1);
    (3..=5).for_each(|node| cluster.isolate(node));
    cluster.elapse_ms(500);
    assert_eq!(cluster.role(1), Role::Leader, "patience lasts for the longest election timeout");
    // That timeout and one heartbeat interval, at which the leader checks.
    cluster.elapse_ms(200);
    assert_ne!(cluster.role(1), Role::Leader);
    assert!(
        cluster
            .trace()
            .iter()
            .any(|line| line.starts_with("1 became follower in term 1: no majority answered"))
    );
}

/// A leader whose heartbeats arrive but that receives no answers cannot commit, and is replaced:
/// the loss of one direction is enough.
///
/// Covers: openraft one-way isolation; TigerBeetle isolate-primary send-only
#[test]
fn a_leader_that_receives_no_answers_is_replaced() {
    let mut cluster = cluster(3);
    cluster.elect(1);
    cluster.cut(2, 1);
    cluster.cut(3, 1);
    cluster.elapse_ms(3000);
    let leader = cluster.leader().expect("a leader");
    assert_ne!(leader, 1);
    cluster.propose(leader, "chips");
    cluster.settle();
    assert_eq!(cluster.texts(leader), ["chips"]);
    cluster.heal();
    cluster.elapse_ms(2000);
    assert_eq!(cluster.texts(1), ["chips"]);
}

/// A voter rejects candidates within the lease of the leader that it heard. Otherwise one impatient
/// node could depose a leader that all others hear.
///
/// Covers: etcd TestLeaderSupersedingWithCheckQuorum, TestLeaderElectionWithCheckQuorum
#[test]
fn a_voter_waits_out_the_leader_that_it_heard() {
    for (waited_ms, is_granted) in [(0, false), (299, false), (300, true)] {
        // A seed whose own election timeout is longer than all the waits here.
        let mut lone = (0..)
            .map(|seed| Lone::seeded(3, Restored::default(), seed, |config| config))
            .map(|mut lone| {
                lone.hand(heartbeat(2, 1, 1, 0));
                lone
            })
            .find(|lone| lone.node(1).deadline().since(lone.clock(1)).as_millis() > 400)
            .expect("some seed draws a long timeout");
        lone.elapse_ms(waited_ms);
        let answers = lone.hand(request_pre_vote(3, 1, 1, (0, 0)));
        assert_eq!(answers.iter().find_map(granted), Some(is_granted), "{waited_ms} ms after a heartbeat");
        let answers = lone.hand(request_vote(3, 1, 2, (0, 0)));
        assert_eq!(answers.iter().any(|answer| granted(answer) == Some(true)), is_granted);
        assert_eq!(lone.term(1), if is_granted { 2 } else { 1 });
    }
}

/// A node whose term ran ahead can neither follow nor lead; the leader has to learn that term, and
/// a new election follows.
///
/// Covers: etcd TestFreeStuckCandidateWithCheckQuorum,
/// TestPreVoteMigrationWithFreeStuckPreCandidate; etcd#8501
#[test]
fn a_node_stuck_in_a_higher_term_is_freed_by_a_new_election() {
    let mut cluster = cluster(3);
    cluster.elect(1);
    cluster.isolate(3);
    // A vote request that was in flight raises its term while it is isolated and hears no leader.
    cluster.elapse_ms(700);
    cluster.deliver(request_vote(2, 3, 8, (9, 9)));
    cluster.settle();
    assert_eq!((cluster.term(3), cluster.leader()), (8, Some(1)));
    cluster.heal();
    cluster.elapse_ms(2000);
    let leader = cluster.leader().expect("a leader");
    assert!(cluster.term(leader) > 8);
    assert!((1..=3).all(|node| cluster.term(node) == cluster.term(leader)));
}

/// Pre-vote: a node that was isolated returns without forcing an election.
///
/// Covers: etcd TestDisruptiveFollowerPreVote
#[test]
fn a_node_that_returns_from_isolation_forces_no_election() {
    let mut cluster = cluster(3);
    cluster.elect(1);
    cluster.isolate(3);
    cluster.elapse_ms(5000);
    assert_eq!((cluster.role(3), cluster.term(3)), (Role::PreCandidate, 1));
    cluster.propose(1, "chips");
    cluster.heal();
    cluster.elapse_ms(1000);
    assert_eq!((cluster.leader(), cluster.term(1), cluster.term(3)), (Some(1), 1, 1));
    assert_eq!(cluster.texts(3), ["chips"]);
}

/// A node that is no voter must not campaign, because no other node would count its vote.
///
/// Covers: etcd TestNonPromotableVoterWithCheckQuorum, TestPromotable
#[test]
fn a_node_that_is_no_voter_never_campaigns() {
    let without = |config: Config| {
        let voters = config.voters.nodes().iter().copied().filter(|id| id.0 != 3);
        Config { voters: Voters::new(voters).expect("two are left"), ..config }
    };
    let mut cluster: Cluster<Node> = Cluster::start(vec![Restored::default(); 3], 0, without);
    cluster.isolate(1);
    cluster.isolate(2);
    cluster.elapse_ms(5000);
    assert_eq!(cluster.role(3), Role::Follower);
    cluster.heal();
    cluster.elapse_ms(2000);
    assert!(matches!(cluster.leader(), Some(1 | 2)));
    assert_eq!((cluster.role(3), cluster.term(3)), (Role::Follower, 0));
}

/// A leader whose disk hangs still sends heartbeats, so no follower would ever replace it: it has
/// to step down by itself.
///
/// Covers: hashicorp/raft#503, #612, #666; etcd#13538; tarantool#9399
#[test]
fn a_leader_whose_disk_hangs_gives_up_although_all_answer_its_heartbeats() {
    let mut cluster = replicas(3);
    cluster.elect(1);
    cluster.hold_disk(1);
    cluster.propose(1, "chips");
    cluster.elapse_ms(500);
    assert_eq!((cluster.role(1), cluster.commit(1)), (Role::Leader, 2), "two fast disks commit meanwhile");
    cluster.elapse_ms(3000);
    let leader = cluster.leader().expect("a leader");
    assert_ne!(leader, 1, "and with its disk it does not campaign either");
    let reason = "1 became follower in term 1: its disk did not finish a write";
    assert!(cluster.trace().iter().any(|line| line.starts_with(reason)));
    cluster.propose(leader, "nuts");
    cluster.release_disk(1);
    cluster.elapse_ms(200);
    assert_eq!(cluster.texts(1), ["chips", "nuts"]);
}

/// A node whose disk hangs does not campaign: it could win, but would make nothing durable, and its
/// campaign would only disturb the others.
#[test]
fn a_node_whose_disk_hangs_does_not_campaign() {
    let mut lone = Lone::new(3, Restored::default());
    lone.hold_disk(1);
    lone.hand(heartbeat(2, 1, 1, 0));
    lone.elapse_ms(3000);
    assert!(lone.trace().iter().filter(|line| line.contains("started a pre-vote")).count() <= 1);
    lone.release_disk(1);
    lone.elapse_ms(700);
    assert_eq!(lone.role(1), Role::PreCandidate);
}
