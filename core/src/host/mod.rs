//! Hosts: state machines without I/O that make the decisions which all runtimes share.
//!
//! A runtime carries bytes, messages and time. Hosts stand between the core's state machines and a
//! runtime: they accept events or the time and return actions. The simulator drives the same hosts,
//! so their rules are tested there as well.
//!
//! | file | decides |
//! | --- | --- |
//! | `node` | which inputs one turn of the replica takes, what follows from its outputs, which configuration the connections follow |
//! | `router` | which connection or caller gets a reply, when a majority is lost, when a stop is complete |
//! | `forward` | which requests of other nodes are accepted, and how forwarded requests are numbered |
//! | `directory` | which nodes are linked at which address, which dialling nodes are accepted |
//! | `link` | whether a link is up, what waits to be sent, what is reported about it, when it is dialled again |
//! | `peer_actions` | nothing: the actions that the directory and the links return |
//! | `flow` | how many bytes may be in flight on a connection to another node |
//! | `addresses` | which address of a host name is tried next |
//! | `arrivals` | when a listener accepts the next client |
//! | `handshakes` | which connection is closed when too many have not finished their handshake |
//! | `places` | how many connections there may be with nodes that are not members |
//! | `inbound` | whether the node or the router receives a frame, and when an inbox is full |
//! | `founding` | when a cluster is bootstrapped, which cluster a joiner adopts, which refusal is final |
//! | `client` | what the two halves of a client's connection do next |
//! | `removal` | when a node ends that was removed from its cluster |
//! | `caller` | how a request of the program itself is made, and its answer read |
//! | `snapshots` | how a node without files keeps its snapshots in memory |
//! | `settings` | the settings of a cluster, and whether they are valid |
//! | `watch` | when a connection is closed whose other end has vanished |
//! | `wait` | when a waiting driver arms its timer, and when its deadline is due |

mod addresses;
mod arrivals;
mod caller;
mod client;
mod directory;
mod flow;
mod forward;
mod founding;
mod handshakes;
mod inbound;
mod keepalive;
mod link;
mod node;
mod pace;
mod peer_actions;
mod places;
mod removal;
mod router;
mod settings;
mod snapshots;
mod wait;

pub use addresses::{DialAddresses, share_of};
pub use arrivals::Arrivals;
pub use caller::Question;
pub use client::{
    CLIENT_READ_BYTES, CLIENT_WRITE_BYTES, ClientHost, ForRouter, INVALID_TOKEN_REST, ReadStep, ToWriter,
};
pub use directory::{Directory, Greeting, LINK_GRACE, REACHED_VALID};
pub use flow::{WINDOW_BYTES_FIRST, WINDOW_BYTES_MAX, WINDOW_BYTES_MIN};
pub use forward::{FORWARDED_MAX, Forwarded, Forwarder};
pub use founding::{CALL_AGAIN_AFTER, ClusterSearch, SearchStep};
pub use handshakes::{CLIENT_HANDSHAKE_TIMEOUT, CLIENT_HANDSHAKES_MAX, Handshakes};
pub use inbound::{INBOX_BYTES_MAX, INBOX_ITEMS_MAX, Inbound, InboundError, Received, inbox_is_full};
pub use keepalive::{CLIENT_KEEPALIVE, Keepalive, PEER_KEEPALIVE};
pub use link::{
    DialError, HANDSHAKE_TIMEOUT, Link, PEER_SILENCE_MAX, PING_EVERY, REFUSAL_TIMEOUT, RESOLVE_TIMEOUT,
    SEND_BYTES, SEND_TIMEOUT, SILENCE_MAX,
};
pub use node::{HostInput, NodeAction, NodeHost, TURN_INPUTS_MAX};
pub use pace::{PACED_PIECES, Pace};
pub use peer_actions::{LinkChange, PeerActions, PeerNews};
pub use places::PeerPlaces;
pub use removal::{REMOVAL_GRACE, Removal};
pub use router::{Router, RouterAction, RouterInput};
pub use settings::{Settings, SettingsError};
pub use snapshots::{SnapshotOrder, snapshot_written};
pub use wait::{NextWait, Wait};
