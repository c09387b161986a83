//! The router: hands clients' requests to the proxy, and each reply to the connection or caller
//! that asked.
//!
//! Requests come from connections, which number their slots, and from callers in this process,
//! which a runtime numbers as one more connection. The proxy knows neither, only a [`Ticket`] that
//! it returns with the reply.
//!
//! The router also counts the nodes that have stopped: without a majority nothing can be written
//! any more. And it decides when an orderly stop is complete: nothing new is accepted, and
//! everything under way is answered.
//!
//! Deliberately not here: channels and sockets. A runtime maps connections and callers to the
//! places where their replies go, and carries out the actions of [`Router::step`].

use std::collections::{BTreeMap, BTreeSet};

use super::{Settings, ToWriter};
use crate::memory::{Eviction, Holder, MemoryBudget};
use crate::proxy::{Answered, Proxy, ProxyInput, ProxyOutput, Reply, RequestError, Ticket};
use crate::raft::NodeId;
use crate::replica::{Input, Request};
use crate::time::Instant;

/// The connection number of callers in this process. Clients' numbers begin with 1.
const CALLERS: u64 = 0;

/// An input of the router.
#[derive(Debug)]
pub enum RouterInput {
    /// Requests of a client over this connection, which is not 0, each with its slot.
    Asked(u64, Vec<(u64, Request)>),
    /// A request of a caller in this process; the number identifies the call until it is answered.
    Called(u64, Request),
    /// Connections to close to free memory.
    GiveUp(Vec<Eviction>),
    /// Inputs for the proxy, from a node or the network.
    FromNode(Vec<ProxyInput>),
    /// A node has stopped, and sends no more answers.
    NodeStopped(NodeId),
    /// Accept no new requests, and answer those under way.
    Stop,
}

/// An action for the runtime.
#[derive(Clone, Debug)]
pub enum RouterAction {
    /// Hand these requests to a node.
    Ask(NodeId, Vec<Input>),
    /// Send this message to the writing half of a connection. The client may be gone.
    Tell(u64, ToWriter),
    /// Close a connection without a message: its client does not read.
    Cut(u64),
    /// End the input of a connection, whose reading half may wait for more: shut the socket's
    /// reading side.
    EndInput(u64),
    /// Hand a caller its reply.
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
    /// Replies to requests that were rejected before the proxy saw them, and connections to close.
    at_once: Vec<RouterAction>,
    inputs: Vec<ProxyInput>,
    outputs: Vec<ProxyOutput>,
}

impl Router {
    /// Creates a router in front of `nodes` nodes of this process, which rejects requests that
    /// `memory` has no room for.
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

    /// Creates the router in front of all nodes of a cluster in this process.
    #[must_use]
    pub fn of_cluster(settings: &Settings, seed: u64, memory: MemoryBudget) -> Self {
        Self::new(Proxy::new(settings.proxy_config(), seed), settings.nodes, memory)
    }

    /// Creates the router in front of one node of a cluster of processes.
    #[must_use]
    pub fn of_member(settings: &Settings, id: NodeId, seed: u64, memory: MemoryBudget) -> Self {
        Self::new(Proxy::new(settings.member_proxy_config(id), seed), 1, memory)
    }

    /// Adds an input to the next step.
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
                for Eviction { connection, holder } in evictions {
                    if holder == Holder::Replies {
                        self.at_once.push(RouterAction::Cut(connection));
                        continue;
                    }
                    // The writer hears the reason before it hears that the reader has ended.
                    self.at_once.push(RouterAction::Tell(connection, ToWriter::GiveUp(holder)));
                    self.at_once.push(RouterAction::EndInput(connection));
                }
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
            // Clients that do not read their replies are closed before a request is rejected.
            self.accept(RouterInput::GiveUp(self.memory.relieve()));
            refused = self.memory.refuses(&request);
        }
        match refused {
            None => self.inputs.push(ProxyInput::Ask(ticket, request)),
            Some(holder) => self.at_once.push(reply(ticket, Err(RequestError::NoMemory(holder)))),
        }
    }

    /// Processes the accepted inputs, and appends the resulting actions to `actions`.
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

    /// Returns when the next step is due if nothing arrives; `None`: never.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.proxy.deadline()
    }

    /// Returns whether no majority of running nodes is left, so that nothing can be written any
    /// more.
    #[must_use]
    pub fn majority_is_lost(&self) -> bool {
        2 * self.stopped.len() >= self.nodes
    }

    /// Returns whether the router was stopped and every request is answered.
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
                RouterAction::Tell(4, ToWriter::Reply(9, Err(RequestError::ShuttingDown))),
                RouterAction::ReplyToCaller(2, Err(RequestError::ShuttingDown))
            ]
        ));
    }

    #[test]
    fn a_client_that_reads_nothing_is_cut_off_and_others_get_a_message() {
        let mut router = router(3);
        let eviction = |connection, holder| Eviction { connection, holder };
        let given_up = vec![eviction(4, Holder::Replies), eviction(5, Holder::HalfLines)];
        let actions = step(&mut router, [RouterInput::GiveUp(given_up)]);
        assert!(matches!(
            actions[..],
            [
                RouterAction::Cut(4),
                RouterAction::Tell(5, ToWriter::GiveUp(Holder::HalfLines)),
                RouterAction::EndInput(5)
            ]
        ));
    }

    #[test]
    fn a_request_without_memory_is_rejected() {
        let memory = MemoryBudget::new(1 << 20, 1, 0);
        let mut router = Router::new(Proxy::new(Settings::default().proxy_config(), 7), 5, memory.clone());
        memory.note_node(NodeId(0), crate::memory::NodeMemory { text: 1 << 20, ..Default::default() });
        let key = crate::kv::Key::new("k").unwrap();
        let value = crate::kv::Value::from_json("1").unwrap();
        let put = Request::Write {
            command: crate::kv::Command::Put { key, value },
            session: None,
            wants_meta: false,
        };
        let asked = [RouterInput::Asked(4, vec![(9, put.clone())]), RouterInput::Called(2, put)];
        let actions = step(&mut router, asked);
        assert!(matches!(
            actions[..],
            [
                RouterAction::Tell(4, ToWriter::Reply(9, Err(RequestError::NoMemory(Holder::Data)))),
                RouterAction::ReplyToCaller(2, Err(RequestError::NoMemory(Holder::Data)))
            ]
        ));
    }

    #[test]
    fn a_client_that_reads_nothing_is_closed_before_a_request_is_rejected() {
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
        // The request itself waits for a leader and was not rejected.
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
    fn a_majority_is_lost_when_half_of_the_nodes_have_stopped() {
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
