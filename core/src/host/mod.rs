//! Hosts: what every runtime decides alike, without I/O.
//!
//! A runtime carries bytes, messages and time. Between the machines of this crate and a runtime
//! stand hosts: plain state machines that are handed events or the time and answer with what to do.
//! The simulator drives the same ones, so a rule that stands here is a rule that is tested.
//!
//! | file | decides |
//! | --- | --- |
//! | `node` | what one turn takes from the inbox, what becomes of a replica's outputs, which configuration is followed |
//! | `router` | which connection or caller a reply belongs to, when a majority is lost, when a stop is done |
//! | `forward` | which requests of other nodes are accepted, and under which number requests are forwarded |
//! | `directory` | which nodes are wanted at which address, which of those that dial are listened to |
//! | `link` | whether a link is up, what waits to be sent, what is reported of it, when it is dialled again |
//! | `peer_actions` | nothing: in its terms the directory and the links say what is to be done |
//! | `flow` | how many bytes may be in flight on a connection to another node |
//! | `addresses` | which address of a name is tried next |
//! | `handshakes` | which connection gives way when too many have not shown whose they are |
//! | `places` | how many connections others than members may hold |
//! | `inbound` | for whom the frames of a node that has dialled are, and when no more fit |
//! | `founding` | when a cluster is founded, which node a joiner believes, which refusal is final |
//! | `client` | what the two halves of a client's connection do next |
//! | `removal` | when a node ends that its cluster has removed |
//! | `caller` | how a program's own question is asked, and its answer read |
//! | `snapshots` | what becomes of snapshots in memory |
//! | `settings` | what a cluster is told before it starts |
//! | `watch` | when a connection is given up whose other end has vanished |
//! | `wait` | when a waiting driver arms its timer, and when its deadline is due |

mod addresses;
mod caller;
mod client;
mod directory;
mod flow;
mod forward;
mod founding;
mod handshakes;
mod inbound;
mod link;
mod node;
mod peer_actions;
mod places;
mod removal;
mod router;
mod settings;
mod snapshots;
mod wait;
mod watch;

pub use addresses::{DialAddresses, share_of};
pub use caller::Question;
pub use client::{CLIENT_READ_BYTES, CLIENT_WRITE_BYTES, ClientHost, ForRouter, ReadStep, ToWriter};
pub use directory::{Directory, Greeting, LINK_GRACE, REACHED_VALID};
pub use flow::{WINDOW_BYTES_FIRST, WINDOW_BYTES_MAX, WINDOW_BYTES_MIN};
pub use forward::{FORWARDED_MAX, Forwarded, Forwarder};
pub use founding::{CALL_AGAIN_AFTER, ClusterSearch, SearchStep};
pub use handshakes::Handshakes;
pub use inbound::{INBOX_BYTES_MAX, INBOX_ITEMS_MAX, Inbound, InboundFault, Received, inbox_is_full};
pub use link::{
    DialFailure, HANDSHAKE_PATIENCE, Link, PEER_SILENCE_MAX, PING_EVERY, REFUSAL_PATIENCE, RESOLVE_PATIENCE,
    SEND_BYTES, SEND_PATIENCE, SILENCE_MAX,
};
pub use node::{HostInput, NodeAction, NodeHost, TURN_INPUTS_MAX};
pub use peer_actions::{LinkChange, PeerActions, PeerNews};
pub use places::PeerPlaces;
pub use removal::{REMOVAL_GRACE, Removal};
pub use router::{Router, RouterAction, RouterInput};
pub use settings::{Settings, SettingsError};
pub use snapshots::{SnapshotOrder, snapshot_written};
pub use wait::{NextWait, Wait};
pub use watch::{CLIENT_WATCH, PEER_WATCH, Watch};
