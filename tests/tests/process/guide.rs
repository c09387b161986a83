//! The guide for three machines, run from its own text: each procedure under load, and the state
//! that it promises afterwards.
//!
//! The rules that map its machines onto this one are in `live::Site`. A step that changes in the
//! guide changes here.

use coracle_tests::both_runtimes;
use coracle_tests::live::{Guide, Load, Runtime, Site, Step, until};

/// Errors that clients may get while members change. `no_leader` means that the write had no effect
/// and another server should be tried. `timeout`, after a leader has died, leaves the outcome
/// unknown; a retry of the same write in its session finds it out.
const ON_THE_WAY: [&str; 2] = ["no_leader", "timeout"];

/// Bootstraps the cluster as the guide does, and hands it over to its service units.
fn founded(guide: &Guide, runtime: Runtime) -> Site {
    let site = Site::new(guide, runtime);
    guide.procedures("Certificates").iter().for_each(|steps| site.run(steps));
    site.run(&guide.procedure("The first start"));
    until("the cluster is founded", || {
        site.connect(1).ask(r#"{"key":"founded","value":1}"#)["status"] == "ok"
    });
    site.hand_over_to_units(&[1, 2, 3]);
    site
}

/// Runs these steps under load on the machines `load_on`. Afterwards the `(id, machine)` pairs in
/// `members` are the members, all of them voters, and each of them holds every acknowledged write.
fn run_under_load(site: &Site, steps: &[Step], load_on: &[u64], members: &[(u64, u64)]) {
    let load = Load::start("w", site.addresses(load_on));
    load.goes_on();
    site.run(steps);
    load.goes_on();
    let done = load.end(&ON_THE_WAY);
    holds(site, "w", done, members);
}

fn holds(site: &Site, key: &str, done: u64, members: &[(u64, u64)]) {
    let voters: Vec<_> =
        members.iter().map(|(id, machine)| (*id, "voter".to_owned(), site.peer_address(*machine))).collect();
    assert_eq!(site.members(members[0].1), voters);
    for (_, machine) in members {
        let line = format!(r#"{{"op":"get","key":"{key}","consistency":"linearizable"}}"#);
        until("every member has all that was acknowledged", || {
            site.connect(*machine).ask(&line)["value"] == done
        });
        let own = format!(r#"{{"key":"{key}"}}"#);
        until("its own map has it", || site.connect(*machine).ask(&own)["value"] == done);
    }
}

fn restarting_one_after_the_other(runtime: Runtime) {
    let guide = Guide::read();
    let site = founded(&guide, runtime);
    let steps = guide.procedure("Restarting one after the other");
    run_under_load(&site, &steps, &[1, 2, 3], &[(1, 1), (2, 2), (3, 3)]);
}

fn adding_a_node(runtime: Runtime) {
    let guide = Guide::read();
    let site = founded(&guide, runtime);
    let members = [(1, 1), (2, 2), (3, 3), (4, 4)];
    run_under_load(&site, &guide.procedure("Adding a node"), &[1, 2, 3], &members);
    site.hand_over_to_units(&[4]);
    run_again_without(&site, 1, 4);
}

/// Removes the leader, which is the harder case.
fn removing_a_node(runtime: Runtime) {
    let guide = Guide::read();
    let site = founded(&guide, runtime);
    until("node 2 leads", || site.connect(1).ask(r#"{"op":"transfer","node":2}"#)["status"] == "ok");
    run_under_load(&site, &guide.procedure("Removing a node"), &[1, 2, 3], &[(1, 1), (3, 3)]);
    let ended = site.fail_unit(2);
    assert_eq!(ended.code, Some(6), "{}", ended.stderr);
    assert!(ended.stderr.contains("was removed from the cluster"), "{}", ended.stderr);
}

fn replacing_a_lost_disk(runtime: Runtime) {
    let guide = Guide::read();
    for steps in guide.procedures("A node has lost its disk") {
        let site = founded(&guide, runtime);
        site.lose_disk(2);
        let refused = site.fail_unit(2);
        assert_eq!(refused.code, Some(6), "{}", refused.stderr);
        assert!(refused.stderr.contains("holds no cluster"), "{}", refused.stderr);
        let started = steps.iter().find(|step| step.machine == Some(2)).expect("a node starts on machine 2");
        let id = if started.command.contains("--id 2 ") { 2 } else { 5 };
        let mut members = [(1, 1), (id, 2), (3, 3)];
        members.sort_unstable();
        run_under_load(&site, &steps, &[1, 2, 3], &members);
        site.hand_over_to_units(&[2]);
        run_again_without(&site, 1, 2);
    }
}

fn moving_a_machine(runtime: Runtime) {
    let guide = Guide::read();
    let site = founded(&guide, runtime);
    let steps = guide.procedure("Moving a machine to another address");
    run_under_load(&site, &steps, &[1, 2, 3], &[(1, 1), (2, 12), (3, 3)]);
    site.hand_over_to_units(&[12]);
    run_again_without(&site, 1, 12);
}

/// Kills the machine `dead`, so that a majority needs `needed`: the vote of a node that was added
/// or moved counts.
fn run_again_without(site: &Site, dead: u64, needed: u64) {
    site.kill(dead);
    let load = Load::start("v", site.addresses(&[needed]));
    load.goes_on();
    _ = load.end(&ON_THE_WAY);
}

fn restoring_a_backup(runtime: Runtime) {
    let guide = Guide::read();
    let site = founded(&guide, runtime);
    let load = Load::start("w", site.addresses(&[1, 2, 3]));
    load.goes_on();
    let before = load.done();
    site.run(&guide.procedure("Backup"));
    let after = load.end(&ON_THE_WAY);
    site.stop_all();

    let steps = guide.procedure("Restore");
    let alone = steps.iter().take_while(|step| step.machine == Some(1)).count();
    site.run(&steps[..alone]);
    let line = r#"{"op":"get","key":"w","consistency":"linearizable"}"#;
    until("the first node serves", || site.connect(1).ask(line)["status"] == "ok");
    let found = site.connect(1).ask(line)["value"].as_u64().expect("it is a number");
    assert!((before..=after).contains(&found), "{before} were acknowledged before, {found} restored");
    let load = Load::start("v", site.addresses(&[1]));
    load.goes_on();
    site.run(&steps[alone..]);
    load.goes_on();
    let done = load.end(&ON_THE_WAY);
    holds(&site, "v", done, &[(1, 1), (2, 2), (3, 3)]);
    holds(&site, "w", found, &[(1, 1), (2, 2), (3, 3)]);
}

both_runtimes!(
    restarting_one_after_the_other,
    adding_a_node,
    removing_a_node,
    replacing_a_lost_disk,
    moving_a_machine,
    restoring_a_backup,
);
