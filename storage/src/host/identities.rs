//! Random identities: incarnations, cluster ids and boot numbers from the operating system's random
//! numbers.
//!
//! They must differ even between machines that boot from one image at the same moment. A generator
//! that seeds itself from the time and a thread's address does not guarantee that. Tests and the
//! simulator supply their own numbers; this crate draws no other random numbers.

use coracle_core::{ClusterId, Incarnation};

use super::StartError;

/// Draws a new incarnation of a node.
///
/// # Errors
///
/// [`StartError::Randomness`] when the operating system provides no random numbers.
pub fn draw_incarnation() -> Result<Incarnation, StartError> {
    Ok(Incarnation(getrandom::u64()?))
}

/// Draws the identity of a new cluster.
///
/// # Errors
///
/// [`StartError::Randomness`] when the operating system provides no random numbers.
pub fn draw_cluster() -> Result<ClusterId, StartError> {
    let (high, low) = (getrandom::u64()?, getrandom::u64()?);
    Ok(ClusterId(u128::from(high) << 64 | u128::from(low)))
}

/// Draws the boot number, which identifies one run of a node.
///
/// # Errors
///
/// [`StartError::Randomness`] when the operating system provides no random numbers.
pub fn draw_boot() -> Result<u64, StartError> {
    Ok(getrandom::u64()?)
}
