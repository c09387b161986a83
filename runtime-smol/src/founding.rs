//! Finds a node's cluster at its first start: dials the nodes that its [`ClusterSearch`] names.

use std::rc::Rc;

use coracle_core::host::{ClusterSearch, DialAddresses, PeerNews, SearchStep};
use coracle_core::peer::{Founders, Origin};
use coracle_core::raft::Configuration;
use coracle_storage::host::{MemberFailure, StartError};
use smol::Timer;

use crate::link::dial;
use crate::network::Network;

/// Dials until the cluster is found, or until a node refuses permanently.
pub(crate) async fn find(
    network: &Rc<Network>,
    origin: &Origin,
) -> Result<(Founders, Option<Configuration>), MemberFailure> {
    let mut search = ClusterSearch::new(network.id, origin.clone()).ok_or(StartError::NoOrigin)?;
    let mut events = Vec::new();
    loop {
        let step = search.next_step(network.directory.borrow().local(), &mut events);
        let mut called = Ok(());
        match step {
            SearchStep::Found(founders, configuration) => return Ok((founders, configuration)),
            SearchStep::Rest(pause) => drop(Timer::after(pause).await),
            SearchStep::Call(to, address) => {
                let dialled = dial(network, to, &address, &mut DialAddresses::default()).await;
                called =
                    search.called(dialled.map(|(_, handshake, welcome)| (handshake, welcome)), &mut events);
            }
        }
        events.drain(..).for_each(|event| network.deliver(PeerNews::Report(event)));
        called?;
    }
}
