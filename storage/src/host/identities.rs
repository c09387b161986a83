//! Identities drawn from the operating system's randomness.
//!
//! What tells two nodes, two clusters or two runs apart must differ between machines that boot from
//! one image at one moment, so a generator that seeds itself from the time and a thread's address
//! does not do. The tests and the simulator bring their own numbers: nothing else of this crate
//! draws any.

use coracle_core::{ClusterId, Incarnation};

use super::StartError;

/// A new incarnation of a node.
///
/// # Errors
///
/// [`StartError::Randomness`].
pub fn draw_incarnation() -> Result<Incarnation, StartError> {
    Ok(Incarnation(getrandom::u64()?))
}

/// The identity of a new cluster.
///
/// # Errors
///
/// [`StartError::Randomness`].
pub fn draw_cluster() -> Result<ClusterId, StartError> {
    let (high, low) = (getrandom::u64()?, getrandom::u64()?);
    Ok(ClusterId(u128::from(high) << 64 | u128::from(low)))
}

/// The number of a run of a node.
///
/// # Errors
///
/// [`StartError::Randomness`].
pub fn draw_boot() -> Result<u64, StartError> {
    Ok(getrandom::u64()?)
}
