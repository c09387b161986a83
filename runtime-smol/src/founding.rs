//! How a node without files finds its cluster: by meeting all those with whom it founds one, or by being let in.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use coracle_core::peer::{Finally, Founders, PeerHappening, PeerRefusal};
use coracle_core::raft::{Configuration, NodeId, Roster};
use smol::Timer;

use crate::link::{DialError, dial};
use crate::network::Network;

/// The pause between two rounds of calls.
const CALL_AGAIN_AFTER: Duration = Duration::from_millis(100);

/// Meets the others until all have met, or one of them tells of the cluster.
///
/// # Errors
///
/// A refusal that will not change by itself.
pub(crate) async fn found(network: &Rc<Network>, peers: &Roster) -> Result<Founders, PeerRefusal> {
    let own = network.id();
    let mut finally = Finally::default();
    let mut told = Vec::new();
    let mut refusals = BTreeMap::new();
    loop {
        // Who was met a while ago may have lost its files since.
        let mut met = BTreeMap::new();
        for (node, member) in peers.iter().filter(|(node, _)| *node != own) {
            let address = network.dial_overrides.get(&node).unwrap_or(&member.address);
            match dial(network, Some(node), address).await {
                Ok((_, meeting, welcome)) => match welcome.cluster()? {
                    Some((founders, _)) => return Ok(founders),
                    None => drop(met.insert(node, meeting.incarnation)),
                },
                Err(DialError::Refused(refusal)) if finally.is_reached_by(&refusal, own) => {
                    return Err(refusal);
                }
                Err(DialError::Refused(refusal)) => {
                    if refusals.insert(node, refusal.clone()).as_ref() != Some(&refusal) {
                        network.tell(PeerHappening::Refused(node, refusal));
                    }
                }
                // It is not there yet.
                Err(_) => {}
            }
        }
        if let Some(founders) = network.local.borrow().found(&met) {
            return Ok(founders);
        }
        let is_missing = |node: &NodeId| *node != own && !met.contains_key(node);
        let missing: Vec<_> = peers.iter().map(|(node, _)| node).filter(is_missing).collect();
        if missing != told {
            network.tell(PeerHappening::WaitsFor(missing.clone()));
            told = missing;
        }
        Timer::after(CALL_AGAIN_AFTER).await;
    }
}

/// Asks the member at `address` to be let in, until it is: a member of the cluster with an address of its own.
///
/// # Errors
///
/// A refusal that will not change by itself.
pub(crate) async fn join(
    network: &Rc<Network>,
    address: &str,
) -> Result<(Founders, Configuration), PeerRefusal> {
    let own = network.id();
    let mut finally = Finally::default();
    let mut told = String::new();
    loop {
        let why = match dial(network, None, address).await {
            Ok((_, _, welcome)) => match welcome.cluster()? {
                Some(cluster) => return Ok(cluster),
                None => DialError::NotReady.to_string(),
            },
            Err(DialError::Refused(refusal)) if finally.is_reached_by(&refusal, own) => return Err(refusal),
            Err(error) => error.to_string(),
        };
        if why != told {
            network.tell(PeerHappening::Joining(address.to_owned(), why.clone()));
            told = why;
        }
        Timer::after(CALL_AGAIN_AFTER).await;
    }
}
