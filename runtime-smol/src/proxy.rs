//! The proxy's driver: brings clients' requests and nodes' answers to the core's proxy, and its outputs to them.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;

use coracle_core::proxy::{Proxy, ProxyInput, ProxyOutput, Reply, Ticket};
use coracle_core::raft::NodeId;
use coracle_core::{Input, Request};
use slab::Slab;

use crate::alarm::Alarm;
use crate::clock::Clock;
use crate::connection::ToWriter;
use crate::mailbox::{AnswerSlot, Receiver, Sender};
use crate::peers::Peers;

/// The connection number of callers in this process.
const CALLERS: u64 = 0;

/// What arrives at the proxy.
#[derive(Debug)]
pub(crate) enum ProxyEvent {
    /// A client connected; its replies go there.
    Connected(u64, Sender<ToWriter>),
    /// A client asks, each request with its slot.
    Asked(u64, Vec<(u64, Request)>),
    /// A client is gone.
    Disconnected(u64),
    /// A caller in this process asks.
    Called(Request, AnswerSlot<Reply>),
    /// A node has something to say.
    FromNode(Vec<ProxyInput>),
    /// A node has stopped.
    NodeStopped(NodeId),
    /// Take nothing new; the channel is closed when nothing is under way any more.
    Stop(async_channel::Sender<()>),
}

/// The proxy and what it is connected to.
#[derive(Debug)]
pub(crate) struct ProxyDriver {
    pub(crate) proxy: Proxy,
    pub(crate) inbox: Receiver<ProxyEvent>,
    pub(crate) peers: Peers,
    pub(crate) nodes: usize,
    /// Set when so many nodes have stopped that the cluster cannot go on.
    pub(crate) majority_is_lost: Rc<Cell<bool>>,
    pub(crate) clock: Clock,
}

/// Where replies go.
#[derive(Debug, Default)]
struct Clients {
    connections: BTreeMap<u64, Sender<ToWriter>>,
    callers: Slab<AnswerSlot<Reply>>,
}

impl ProxyDriver {
    /// Drives the proxy until everybody who could ask it is gone, or it is stopped and idle.
    pub(crate) async fn run(mut self) {
        let mut alarm = Alarm::new(self.clock);
        let mut clients = Clients::default();
        let mut stopped_nodes = 0;
        let mut stopping: Option<async_channel::Sender<()>> = None;
        let (mut inputs, mut outputs) = (Vec::new(), Vec::new());
        loop {
            let first = if stopping.is_some() && self.proxy.is_idle() {
                match self.inbox.take() {
                    Some(late) => Some(late),
                    None => return clients.dismiss(),
                }
            } else {
                let deadline = self.proxy.deadline();
                let Ok(first) = alarm.receive(&self.inbox, deadline).await else { return };
                first
            };
            let rest = std::iter::from_fn(|| self.inbox.take());
            for event in first.into_iter().chain(rest) {
                match event {
                    ProxyEvent::NodeStopped(node) => {
                        stopped_nodes += 1;
                        inputs.push(ProxyInput::NodeStopped(node));
                    }
                    ProxyEvent::Stop(done) => {
                        stopping = Some(done);
                        inputs.push(ProxyInput::Stop);
                    }
                    event => clients.take(event, &mut inputs),
                }
            }
            self.majority_is_lost.set(2 * (self.nodes - stopped_nodes) <= self.nodes);
            self.proxy.step(self.clock.now(), &mut inputs, &mut outputs);
            self.carry_out(&mut outputs, &mut clients);
        }
    }

    fn carry_out(&self, outputs: &mut Vec<ProxyOutput>, clients: &mut Clients) {
        let mut requests: BTreeMap<NodeId, Vec<Input>> = BTreeMap::new();
        for output in outputs.drain(..) {
            match output {
                ProxyOutput::Ask(node, id, request) => {
                    requests.entry(node).or_default().push(Input::Request(id, request));
                }
                ProxyOutput::Reply(ticket, reply) => clients.reply(ticket, reply),
            }
        }
        for (node, requests) in requests {
            self.peers.ask(node, requests);
        }
    }
}

impl Clients {
    fn take(&mut self, event: ProxyEvent, inputs: &mut Vec<ProxyInput>) {
        match event {
            ProxyEvent::Connected(connection, replies) => drop(self.connections.insert(connection, replies)),
            ProxyEvent::Disconnected(connection) => drop(self.connections.remove(&connection)),
            ProxyEvent::Asked(connection, requests) => {
                let ask = |(slot, request)| ProxyInput::Ask(Ticket { connection, slot }, request);
                inputs.extend(requests.into_iter().map(ask));
            }
            ProxyEvent::Called(request, reply) => {
                // Each call is answered once, so its place may be another's then.
                let ticket = Ticket { connection: CALLERS, slot: self.callers.insert(reply) as u64 };
                inputs.push(ProxyInput::Ask(ticket, request));
            }
            ProxyEvent::FromNode(news) => inputs.extend(news),
            ProxyEvent::NodeStopped(_) | ProxyEvent::Stop(_) => unreachable!("the driver keeps these"),
        }
    }

    /// Tells the clients that no more replies will come.
    fn dismiss(&self) {
        for connection in self.connections.values() {
            let _ = connection.send(ToWriter::Stop);
        }
    }

    /// A client that is gone needs no reply.
    fn reply(&mut self, ticket: Ticket, reply: Reply) {
        if ticket.connection == CALLERS {
            let place = usize::try_from(ticket.slot).expect("it was a place");
            self.callers.remove(place).give(reply);
        } else if let Some(connection) = self.connections.get(&ticket.connection) {
            let _ = connection.send(ToWriter::Reply(ticket.slot, reply));
        }
    }
}
