//! The router: hands clients' requests to the proxy, and each reply to the connection or the caller
//! that it belongs to.
//!
//! Requests come from connections, which number their slots, and from callers in this process,
//! which a runtime numbers as one more connection. The proxy knows neither: only a [`Ticket`] that
//! it repeats.
//!
//! The router also counts the nodes that have stopped: once no majority is left nothing can be
//! written any more. And it says when an orderly stop is done: nothing new is accepted, and what is
//! under way is answered.
//!
//! Deliberately not here: channels and sockets. A runtime keeps a map from connections and callers
//! to the places where their replies go, and carries out what [`Router::step`] hands out.

use std::collections::{BTreeMap, BTreeSet};

use super::{Settings, ToWriter};
use crate::memory::{Eviction, Holder, MemoryBudget};
use crate::proxy::{Answered, Failure, Proxy, ProxyInput, ProxyOutput, Reply, Ticket};
use crate::raft::NodeId;
use crate::replica::{Input, Request};
use crate::time::Instant;

/// The connection number of callers in this process. Those of clients begin with 1.
const CALLERS: u64 = 0;

/// What may arrive at the router.
#[derive(Debug)]
pub enum RouterInput {
    /// A client asks over this connection, which is not 0; each request with its slot.
    Asked(u64, Vec<(u64, Request)>),
    /// A caller in this process asks; the number names the call until it is answered.
    Called(u64, Request),
    /// These connections are to be given up.
    GiveUp(Vec<Eviction>),
    /// A node, or the network, has something to say.
    FromNode(Vec<ProxyInput>),
    /// A node has stopped, and answers nothing any more.
    NodeStopped(NodeId),
    /// Accept nothing new, and answer what is under way.
    Stop,
}

/// What the router wants done.
#[derive(Clone, Debug)]
pub enum RouterAction {
    /// Hand these requests to a node.
    Ask(NodeId, Vec<Input>),
    /// Tell the writing half of a connection this. The client may be gone.
    Tell(u64, ToWriter),
    /// Cut a connection off: its client reads nothing, and cannot be told.
    Cut(u64),
    /// Give a caller its reply.
    ReplyToCaller(u64, Reply),
}

/// Routes requests and replies. See the module.
#[derive(Debug)]
pub struct Router {
    proxy: Proxy,
    nodes: usize,
    stopped: BTreeSet<NodeId>,
    is_stopping: bool,
    memory: MemoryBudget,
    /// What was refused before the proxy saw it, and who is given up.
    at_once: Vec<RouterAction>,
    inputs: Vec<ProxyInput>,
    outputs: Vec<ProxyOutput>,
}

impl Router {
    /// A router before `nodes` nodes of this process, which refuses what `memory` has no room for.
    #[must_use]
    pub fn new(proxy: Proxy, nodes: usize, memory: MemoryBudget) -> Self {
        Self {
            proxy,
            nodes,
            stopped: BTreeSet::new(),
            is_stopping: false,
            memory,
            at_once: Vec::new(),
            inputs: Vec::new(),
            outputs: Vec::new(),
        }
    }

    /// The router before all nodes of a cluster in this process.
    #[must_use]
    pub fn of_cluster(settings: &Settings, seed: u64, memory: MemoryBudget) -> Self {
        Self::new(Proxy::new(settings.proxy_config(), seed), settings.nodes, memory)
    }

    /// The router before one node of a cluster of processes.
    #[must_use]
    pub fn of_member(settings: &Settings, id: NodeId, seed: u64, memory: MemoryBudget) -> Self {
        Self::new(Proxy::new(settings.member_proxy_config(id), seed), 1, memory)
    }

    /// Adds something to the next step.
    pub fn accept(&mut self, input: RouterInput) {
        match input {
            RouterInput::Asked(connection, requests) => {
                for (slot, request) in requests {
                    self.ask(Ticket { connection, slot }, request);
                }
            }
            RouterInput::Called(call, request) => {
                self.ask(Ticket { connection: CALLERS, slot: call }, request);
            }
            RouterInput::GiveUp(evictions) => {
                let give_up = |Eviction { connection, holder }| match holder {
                    Holder::Replies => RouterAction::Cut(connection),
                    _ => RouterAction::Tell(connection, ToWriter::GiveUp(holder)),
                };
                self.at_once.extend(evictions.into_iter().map(give_up));
            }
            RouterInput::FromNode(news) => self.inputs.extend(news),
            RouterInput::NodeStopped(node) => {
                self.stopped.insert(node);
                self.inputs.push(ProxyInput::NodeStopped(node));
            }
            RouterInput::Stop => {
                self.is_stopping = true;
                self.inputs.push(ProxyInput::Stop);
            }
        }
    }

    fn ask(&mut self, ticket: Ticket, request: Request) {
        let mut refused = self.memory.refuses(&request);
        if refused.is_some() {
            // Who keeps the server waiting gives way before others are refused.
            self.accept(RouterInput::GiveUp(self.memory.relieve()));
            refused = self.memory.refuses(&request);
        }
        match refused {
            None => self.inputs.push(ProxyInput::Ask(ticket, request)),
            Some(holder) => self.at_once.push(reply(ticket, Err(Failure::NoMemory(holder)))),
        }
    }

    /// Takes what was accepted, and appends what has to be done to `actions`.
    pub fn step(&mut self, now: Instant, actions: &mut Vec<RouterAction>) {
        actions.append(&mut self.at_once);
        self.proxy.step(now, &mut self.inputs, &mut self.outputs);
        let mut requests: BTreeMap<NodeId, Vec<Input>> = BTreeMap::new();
        for output in self.outputs.drain(..) {
            match output {
                ProxyOutput::Ask(node, id, request) => {
                    requests.entry(node).or_default().push(Input::Request(id, request));
                }
                ProxyOutput::Reply(ticket, mut given) => {
                    if let Ok(Answered::Status(report)) = &mut given {
                        report.memory = Some(Box::new(self.memory.report()));
                    }
                    actions.push(reply(ticket, given));
                }
            }
        }
        actions.extend(requests.into_iter().map(|(node, requests)| RouterAction::Ask(node, requests)));
    }

    /// When the next step is due if nothing arrives, if any is.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.proxy.deadline()
    }

    /// Whether so many nodes have stopped that no majority is left: nothing can be written any
    /// more.
    #[must_use]
    pub fn majority_is_lost(&self) -> bool {
        2 * self.stopped.len() >= self.nodes
    }

    /// Whether it was stopped and everything is answered: what has not arrived by now will not be.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.is_stopping && self.proxy.is_idle()
    }
}

fn reply(ticket: Ticket, reply: Reply) -> RouterAction {
    match ticket {
        Ticket { connection: CALLERS, slot } => RouterAction::ReplyToCaller(slot, reply),
        Ticket { connection, slot } => RouterAction::Tell(connection, ToWriter::Reply(slot, reply)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn router(nodes: usize) -> Router {
        let settings = Settings { nodes, ..Settings::default() };
        let memory = MemoryBudget::unlimited();
        Router::new(Proxy::new(settings.proxy_config(), 7), nodes, memory)
    }

    fn step(router: &mut Router, inputs: impl IntoIterator<Item = RouterInput>) -> Vec<RouterAction> {
        inputs.into_iter().for_each(|input| router.accept(input));
        let mut actions = Vec::new();
        router.step(Instant::default(), &mut actions);
        actions
    }

    #[test]
    fn a_reply_belongs_to_the_connection_or_the_caller_that_asked() {
        let mut router = router(3);
        assert!(step(&mut router, [RouterInput::Stop]).is_empty());
        let inputs =
            [RouterInput::Asked(4, vec![(9, Request::Members)]), RouterInput::Called(2, Request::Members)];
        let actions = step(&mut router, inputs);
        assert!(matches!(
            actions[..],
            [
                RouterAction::Tell(4, ToWriter::Reply(9, Err(Failure::ShuttingDown))),
                RouterAction::ReplyToCaller(2, Err(Failure::ShuttingDown))
            ]
        ));
    }

    #[test]
    fn who_reads_nothing_is_cut_off_and_others_are_told() {
        let mut router = router(3);
        let eviction = |connection, holder| Eviction { connection, holder };
        let given_up = vec![eviction(4, Holder::Replies), eviction(5, Holder::HalfLines)];
        let actions = step(&mut router, [RouterInput::GiveUp(given_up)]);
        assert!(matches!(
            actions[..],
            [RouterAction::Cut(4), RouterAction::Tell(5, ToWriter::GiveUp(Holder::HalfLines))]
        ));
    }

    #[test]
    fn what_there_is_no_memory_for_is_refused() {
        let memory = MemoryBudget::new(1 << 20, 1, 0);
        let mut router = Router::new(Proxy::new(Settings::default().proxy_config(), 7), 5, memory.clone());
        memory.note_node(NodeId(0), crate::memory::NodeMemory { text: 1 << 20, ..Default::default() });
        let key = crate::kv::Key::new("k").unwrap();
        let value = crate::kv::Value::from_json("1").unwrap();
        let put = Request::Write { command: crate::kv::Command::Put { key, value }, session: None };
        let asked = [RouterInput::Asked(4, vec![(9, put.clone())]), RouterInput::Called(2, put)];
        let actions = step(&mut router, asked);
        assert!(matches!(
            actions[..],
            [
                RouterAction::Tell(4, ToWriter::Reply(9, Err(Failure::NoMemory(Holder::Data)))),
                RouterAction::ReplyToCaller(2, Err(Failure::NoMemory(Holder::Data)))
            ]
        ));
    }

    #[test]
    fn who_reads_nothing_gives_way_to_who_asks() {
        use crate::memory::{ConnectionMemory, NodeMemory, Progress};
        let memory = MemoryBudget::new(8 << 20, 2, 0);
        let mut router = Router::new(Proxy::new(Settings::default().proxy_config(), 7), 5, memory.clone());
        let (mut client, _) = memory.connect(6).unwrap();
        let unread = ConnectionMemory { replies: 6 << 20, ..ConnectionMemory::default() };
        let mut evictions = Vec::new();
        client.note(unread, Progress::default(), &mut evictions);
        assert_eq!(evictions, []);
        memory.note_node(NodeId(0), NodeMemory { text: 1 << 20, ..Default::default() });
        let get = Request::LinearizableRead(crate::kv::Query::Value(crate::kv::Key::new("k").unwrap()));
        let actions = step(&mut router, [RouterInput::Asked(4, vec![(9, get)])]);
        // The question itself waits for a leader to be known, and was not refused.
        assert!(matches!(actions[..], [RouterAction::Cut(6)]), "{actions:?}");
    }

    #[test]
    fn the_requests_of_one_step_go_to_each_node_together() {
        let mut router = router(3);
        let asked = RouterInput::Asked(4, vec![(1, Request::Status), (2, Request::Status)]);
        let actions = step(&mut router, [asked]);
        let sizes = actions.iter().map(|action| match action {
            RouterAction::Ask(node, requests) => (node.0, requests.len()),
            other => panic!("{other:?}"),
        });
        assert_eq!(sizes.collect::<Vec<_>>(), [(0, 2), (1, 2), (2, 2)]);
    }

    #[test]
    fn a_majority_is_lost_with_the_node_that_makes_it_half() {
        for (nodes, needed) in [(1, 1), (2, 1), (3, 2), (4, 2), (5, 3)] {
            let mut router = router(nodes);
            for stopped in 0..nodes {
                assert_eq!(router.majority_is_lost(), stopped >= needed, "{stopped} of {nodes} stopped");
                step(&mut router, [RouterInput::NodeStopped(NodeId(stopped as u64))]);
            }
        }
    }

    #[test]
    fn a_stop_is_done_when_everything_is_answered() {
        let mut router = router(3);
        step(&mut router, [RouterInput::Called(0, Request::Status)]);
        assert!(step(&mut router, [RouterInput::Stop]).is_empty());
        assert!(!router.is_done(), "a question is under way");
        for node in 0..3 {
            step(&mut router, [RouterInput::NodeStopped(NodeId(node))]);
        }
        assert!(router.is_done());
    }
}
