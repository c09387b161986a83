//! Name resolution for dialling: the order in which the addresses of a host name are tried, and the
//! fallback when the resolver returns none.
//!
//! A name is resolved for each attempt, because its address may have changed. Its addresses are
//! tried one after the other, each for a share of the time, because one of two machines behind a
//! name may be down without any sign of it. A resolver that fails must not cost the cluster a
//! member: then the address that worked last is tried.

use core::net::SocketAddr;
use std::time::Duration;

/// The dial addresses of one node: remembers the address that worked last. See the module.
#[derive(Clone, Copy, Debug, Default)]
pub struct DialAddresses {
    last: Option<SocketAddr>,
}

impl DialAddresses {
    /// Returns the addresses to try, in order, given the result of resolving the name. The address
    /// that worked last comes first.
    ///
    /// # Errors
    ///
    /// The resolver's error, when no address has worked before.
    pub fn candidates<E>(&self, resolved: Result<Vec<SocketAddr>, E>) -> Result<Vec<SocketAddr>, E> {
        let mut addresses = match (resolved, self.last) {
            (Ok(addresses), Some(last)) if addresses.is_empty() => vec![last],
            (Err(_), Some(last)) => vec![last],
            (resolved, _) => resolved?,
        };
        if let Some(at) = addresses.iter().position(|address| Some(*address) == self.last) {
            addresses[..=at].rotate_right(1);
        }
        Ok(addresses)
    }

    /// Notes that a handshake at this address was answered.
    pub fn worked(&mut self, address: SocketAddr) {
        self.last = Some(address);
    }
}

/// Returns the time for the next of `untried` addresses, when `left` remains for all of them.
#[must_use]
pub fn share_of(left: Duration, untried: usize) -> Duration {
    left / u32::try_from(untried.max(1)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(host: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, host], 4001))
    }

    #[test]
    fn all_addresses_are_tried_and_the_one_that_worked_last_comes_first() {
        let mut addresses = DialAddresses::default();
        let resolved = || Ok::<_, ()>(vec![address(1), address(2), address(3)]);
        assert_eq!(addresses.candidates(resolved()), resolved());
        addresses.worked(address(3));
        assert_eq!(addresses.candidates(resolved()), Ok(vec![address(3), address(1), address(2)]));
    }

    #[test]
    fn a_name_that_cannot_be_resolved_falls_back_to_the_address_that_worked() {
        let mut addresses = DialAddresses::default();
        assert_eq!(addresses.candidates(Err("no resolver")), Err("no resolver"));
        addresses.worked(address(2));
        assert_eq!(addresses.candidates(Err("no resolver")), Ok(vec![address(2)]));
        assert_eq!(addresses.candidates(Ok::<_, ()>(Vec::new())), Ok(vec![address(2)]));
    }

    #[test]
    fn a_name_that_has_moved_is_followed() {
        let mut addresses = DialAddresses::default();
        addresses.worked(address(2));
        assert_eq!(addresses.candidates(Ok::<_, ()>(vec![address(9)])), Ok(vec![address(9)]));
    }

    #[test]
    fn each_address_gets_its_share_of_the_time() {
        assert_eq!(share_of(Duration::from_secs(2), 4), Duration::from_millis(500));
        assert_eq!(share_of(Duration::from_secs(2), 0), Duration::from_secs(2));
    }
}
