//! Finds a node's cluster at its first start: dials the nodes that its [`ClusterSearch`] names.

use std::sync::Arc;

use coracle_core::host::{ClusterSearch, DialAddresses, PeerNews, SearchStep};
use coracle_core::peer::{Founders, Origin};
use coracle_core::raft::Configuration;
use coracle_storage::host::{MemberFailure, StartError};

use crate::link::dial;
use crate::network::Network;
use crate::threads::lock;

/// Dials until the cluster is found, or until a node refuses permanently; `None`: this node shuts
/// down.
pub(crate) fn find(
    network: &Arc<Network>,
    origin: &Origin,
) -> Result<Option<(Founders, Option<Configuration>)>, MemberFailure> {
    let mut search = ClusterSearch::new(network.id, origin.clone()).ok_or(StartError::NoOrigin)?;
    let mut events = Vec::new();
    while !network.is_over() {
        let step = search.next_step(lock(&network.directory).local(), &mut events);
        let mut called = Ok(());
        match step {
            SearchStep::Found(founders, configuration) => return Ok(Some((founders, configuration))),
            SearchStep::Rest(pause) => network.rest(pause),
            SearchStep::Call(to, address) => {
                let dialled = dial(network, to, &address, &mut DialAddresses::default());
                called =
                    search.called(dialled.map(|(_, handshake, welcome)| (handshake, welcome)), &mut events);
            }
        }
        events.drain(..).for_each(|event| network.deliver(PeerNews::Report(event)));
        called?;
    }
    Ok(None)
}
