//! The operator of a chaos campaign: changes the members while clients write.
//!
//! An order is repeated until the members are as required, as a careful person would do, and each
//! answer of `ok` must be true when it is given. The operator is careful in two respects: there are
//! at least three members before a disk is lost, so that a majority has what was acknowledged; and
//! one change is finished before the next.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::Violation;
use super::caller::ask_once;
use super::cluster::{Removed, free_address};
use super::faults::STOP_TIMEOUT;
use super::kinds::Kind;
use super::nemesis::Nemesis;
use super::node::End;

/// The time in which an order is carried out while all nodes run and reach one another. Generous,
/// because the machine may be busy.
const ORDER_TIMEOUT: Duration = Duration::from_secs(30);
/// The time that a node has for a read that it must not answer.
const READ_TIMEOUT: Duration = Duration::from_millis(400);
/// The most members beyond the number of founders.
const GROWTH_MAX: usize = 2;
/// The fewest members before one of them is lost.
const MEMBERS_MIN: usize = 3;
/// The way in which a removed node ends.
const REMOVED: End = End::Code(6);

/// The condition that the members must satisfy after an order.
type Goal<'a> = &'a dyn Fn(&[Value]) -> bool;

impl Nemesis<'_, '_> {
    /// Changes the members, in the way of this kind.
    pub(super) fn change_members(&mut self, kind: Kind) -> Result<bool, Violation> {
        match kind {
            Kind::Add => {
                while self.cluster.nodes.len() >= self.cluster.founders().max(MEMBERS_MIN) + GROWTH_MAX {
                    let node = self.any_node();
                    self.remove(node)?;
                }
                self.add()
            }
            Kind::Remove | Kind::RemoveLeader => {
                self.grow_beyond(MEMBERS_MIN)?;
                let leader = if kind == Kind::RemoveLeader { self.find_leader() } else { None };
                let Some(node) = leader.or_else(|| (kind == Kind::Remove).then(|| self.any_node())) else {
                    return Ok(false);
                };
                self.remove(node)
            }
            Kind::Replace => {
                self.grow_beyond(MEMBERS_MIN - 1)?;
                self.replace()
            }
            Kind::Return => self.bring_back(),
            _ => self.move_to_another_address(),
        }
    }

    fn grow_beyond(&mut self, members: usize) -> Result<(), Violation> {
        while self.cluster.nodes.len() <= members {
            self.add()?;
        }
        Ok(())
    }

    fn add(&mut self) -> Result<bool, Violation> {
        let free = self.cluster.free_ids();
        let id = free[self.rng.usize(..free.len())];
        self.journal.note(format_args!("add: node {id}"));
        self.let_in(id)
    }

    /// Adds a node under an id that no member has, starts it with an empty folder and promotes it.
    fn let_in(&mut self, id: u64) -> Result<bool, Violation> {
        let address = self.cluster.network.target(id).to_string();
        let is_member = |row: &Value| row["id"] == id && row["address"] == address.as_str();
        self.achieve(&["member", "add", &format!("{id}={address}")], &|rows| rows.iter().any(is_member))?;
        let through = self.any_node();
        let join = self.cluster.network.way(id, through).to_string();
        let failed = |error: std::io::Error| Violation { rule: "the harness works", what: error.to_string() };
        let node = self.cluster.new_node(id, ["--join".to_owned(), join]).map_err(failed)?;
        self.cluster.nodes.push(node);
        self.cluster.start(id, &[])?;
        let is_voter = |row: &Value| is_member(row) && row["role"] == "voter";
        self.achieve(&["member", "promote", &id.to_string()], &|rows| rows.iter().any(is_voter))?;
        self.journal.note(format_args!("node {id} votes"));
        Ok(true)
    }

    /// Removes a node, which learns of it and ends.
    fn remove(&mut self, id: u64) -> Result<bool, Violation> {
        self.journal.note(format_args!("remove: node {id}"));
        self.order_removal(id)?;
        self.expect_end(id, STOP_TIMEOUT, REMOVED, "a removed node ends with 6")?;
        let at = self.cluster.nodes.iter().position(|node| node.id() == id).expect("it is one of them");
        let node = self.cluster.nodes.remove(at);
        self.cluster.tell_addresses();
        self.cluster.removed.push(Removed { node, knew: self.cluster.ids() });
        Ok(true)
    }

    fn order_removal(&mut self, id: u64) -> Result<(), Violation> {
        let order = ["member", "remove", &id.to_string()];
        self.achieve(&order, &|rows| rows.iter().all(|row| row["id"] != id))
    }

    /// Kills a node and deletes its folder. Another node replaces it, under its id or a free one.
    fn replace(&mut self) -> Result<bool, Violation> {
        let (old, free) = (self.any_node(), self.cluster.free_ids());
        let new = if self.rng.bool() { old } else { free[self.rng.usize(..free.len())] };
        self.journal.note(format_args!("replace: node {old} by {new}"));
        let at = self.cluster.nodes.iter().position(|node| node.id() == old).expect("it is one of them");
        let mut node = self.cluster.nodes.remove(at);
        node.kill();
        // This also removes its file system, if it has one.
        drop(node);
        self.cluster.tell_addresses();
        self.hold(0..1500);
        self.order_removal(old)?;
        self.let_in(new)
    }

    /// Starts a removed node with its old folder: it must end, and answer no read before that.
    fn bring_back(&mut self) -> Result<bool, Violation> {
        if self.cluster.removed.is_empty() {
            self.grow_beyond(MEMBERS_MIN)?;
            let node = self.any_node();
            self.remove(node)?;
        }
        let at = self.rng.usize(..self.cluster.removed.len());
        let Removed { mut node, knew } = self.cluster.removed.swap_remove(at);
        let members = self.cluster.ids();
        // A node that knows no present member cannot learn of its removal.
        if !knew.iter().any(|id| members.contains(id)) {
            return Ok(false);
        }
        let id = node.id();
        self.journal.note(format_args!("return: node {id}, which was removed"));
        let failed = |error: std::io::Error| Violation { rule: "the harness works", what: error.to_string() };
        // Its old address may belong to another node by now. With an explicit address to listen at,
        // it does not end because of a conflict.
        if members.contains(&id) || self.rng.bool() {
            let host = self.cluster.network.target(id).ip();
            node.start.peer_listen = Some(free_address(host).map_err(failed)?);
        }
        node.launch(&[]).map_err(failed)?;
        let give_up_at = Instant::now() + STOP_TIMEOUT;
        loop {
            match node.ends_within(Duration::from_millis(20)) {
                Some(REMOVED) => return Ok(true),
                None if Instant::now() < give_up_at => {}
                end => {
                    let what = format!("node {id}: {end:?}: {}", node.last_words());
                    return Err(Violation { rule: "a removed node that is back ends with 6", what });
                }
            }
            let get = json!({"op":"get","key":"first"});
            let reply = node.address().and_then(|address| ask_once(address, READ_TIMEOUT, get));
            if let Some(reply) = reply.filter(|reply| reply["status"] == "ok") {
                let what = format!("node {id} answers {reply}");
                return Err(Violation { rule: "a removed node answers no read", what });
            }
        }
    }

    /// Stops a member, starts it at another address, and orders the move.
    fn move_to_another_address(&mut self) -> Result<bool, Violation> {
        let id = self.any_node();
        let failed = |error: std::io::Error| Violation { rule: "the harness works", what: error.to_string() };
        let address = free_address(self.cluster.network.target(id).ip()).map_err(failed)?;
        self.journal.note(format_args!("move: node {id} to {address}"));
        self.cluster.node(id).signal("TERM");
        self.expect_end(id, STOP_TIMEOUT, End::Code(0), "SIGTERM ends a node in order")?;
        self.cluster.node(id).start.peer_listen = Some(address);
        self.cluster.start(id, &[])?;
        let text = address.to_string();
        let is_moved = |row: &Value| row["id"] == id && row["address"] == text.as_str();
        self.cluster.unreached = Some(id);
        self.achieve(&["member", "add", &format!("{id}={text}")], &|rows| rows.iter().any(is_moved))?;
        self.cluster.unreached = None;
        self.cluster.network.retarget(id, address);
        Ok(true)
    }

    /// Repeats an order until the members satisfy the goal. When it succeeds, they must do so at
    /// that moment.
    fn achieve(&mut self, order: &[&str], goal: Goal<'_>) -> Result<(), Violation> {
        let give_up_at = Instant::now() + ORDER_TIMEOUT;
        let mut said = String::new();
        loop {
            if self.members().is_some_and(|rows| goal(&rows)) {
                return Ok(());
            }
            if Instant::now() > give_up_at {
                let what = format!("{order:?}: {said}; the members are {:?}", self.members());
                return Err(Violation { rule: "an order is carried out when all is well", what });
            }
            let Ok(output) = self.cluster.order(order) else { continue };
            if output.status.success() {
                return self.hold_to_order(order, goal);
            }
            said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            self.journal.note(format_args!("{order:?}: {said}"));
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// Checks that the members satisfy the goal of an order that was answered with `ok`.
    fn hold_to_order(&self, order: &[&str], goal: Goal<'_>) -> Result<(), Violation> {
        let give_up_at = Instant::now() + ORDER_TIMEOUT;
        while Instant::now() < give_up_at {
            match self.members() {
                Some(rows) if goal(&rows) => return Ok(()),
                Some(rows) => {
                    let what = format!("{order:?} was ok, and the members are {rows:?}");
                    return Err(Violation { rule: "what an operator is told is true", what });
                }
                None => thread::sleep(Duration::from_millis(50)),
            }
        }
        let what = format!("{order:?} was ok, and no node lists the members");
        Err(Violation { rule: "an order is carried out when all is well", what })
    }

    /// The members, as the leader knows them; `None` when there is no answer.
    fn members(&self) -> Option<Vec<Value>> {
        let output = self.cluster.order(&["member", "list", "-o", "json"]).ok()?;
        let reply: Value = serde_json::from_slice(&output.stdout).ok()?;
        reply["members"].as_array().cloned()
    }
}
