// SPDX-License-Identifier: BSD-2-Clause
//! Bytes that are wiped when they are no longer needed.

use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::proto::entropy::Entropy;

/// `N` secret bytes, wiped on drop.
///
/// It has neither `Debug`, `Clone` nor `PartialEq`, so a key reaches neither a log nor a second
/// place by accident, and nobody compares it in variable time. A move may leave a copy on the
/// stack: wiping is a precaution, not a promise.
///
/// ```
/// let secret = mptunnel_core::proto::crypto::Secret::new([7; 32]);
/// assert_eq!(secret.expose(), &[7; 32]);
/// ```
///
/// ```compile_fail,E0277
/// let secret = mptunnel_core::proto::crypto::Secret::new([7; 32]);
/// println!("{secret:?}");
/// ```
///
/// ```compile_fail,E0599
/// let secret = mptunnel_core::proto::crypto::Secret::new([7; 32]);
/// let copy: mptunnel_core::proto::crypto::Secret<32> = secret.clone();
/// ```
///
/// ```compile_fail,E0369
/// let secret = mptunnel_core::proto::crypto::Secret::new([7; 32]);
/// assert!(secret == mptunnel_core::proto::crypto::Secret::new([7; 32]));
/// ```
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct Secret<const N: usize>([u8; N]);

impl<const N: usize> Secret<N> {
    /// Takes over `bytes`. The caller's own copy, if it keeps one, is the caller's to wipe.
    pub fn new(mut bytes: [u8; N]) -> Self {
        let secret = Secret(bytes);
        bytes.zeroize();
        secret
    }

    /// Draws `N` random bytes.
    pub fn generate(entropy: &mut dyn Entropy) -> Self {
        let mut secret = Secret([0; N]);
        entropy.fill(&mut secret.0);
        secret
    }

    /// The bytes. The name is long so that each use of it stands out.
    pub const fn expose(&self) -> &[u8; N] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wiped_secret_is_zero() {
        let mut secret = Secret::new([7; 32]);

        secret.zeroize();

        assert_eq!(secret.expose(), &[0; 32]);
    }

    #[test]
    fn a_secret_wipes_itself_when_dropped() {
        fn wipes_on_drop<T: ZeroizeOnDrop>() {}
        wipes_on_drop::<Secret<32>>();
        assert!(std::mem::needs_drop::<Secret<32>>());
    }
}
