// SPDX-License-Identifier: BSD-2-Clause
//! Why a received datagram was not used. Rubbish from the network is a counter, never an error.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

macro_rules! drop_reasons {
    ($($(#[$doc:meta])* $variant:ident $field:ident,)*) => {
        /// Why a received datagram, or a part of one, was dropped.
        #[derive(Clone, Copy, Debug, Eq, PartialEq)]
        #[non_exhaustive]
        pub enum DropReason { $($(#[$doc])* $variant,)* }

        impl DropReason {
            /// The name under which the counter is exported.
            pub const fn name(self) -> &'static str {
                match self { $(DropReason::$variant => stringify!($field),)* }
            }
        }

        /// One monotonic counter for each [`DropReason`].
        #[derive(Debug, Default)]
        pub struct DropCounters { $($field: AtomicU64,)* }

        impl DropCounters {
            /// Counts one drop and returns its reason, so that a refusal is one expression.
            pub fn count(&self, reason: DropReason) -> DropReason {
                let counter = match reason { $(DropReason::$variant => &self.$field,)* };
                counter.fetch_add(1, Relaxed);
                reason
            }

            /// Counts `many` drops for `reason`.
            pub fn count_many(&self, reason: DropReason, many: u64) {
                let counter = match reason { $(DropReason::$variant => &self.$field,)* };
                counter.fetch_add(many, Relaxed);
            }

            /// How many were dropped for `reason`.
            pub fn of(&self, reason: DropReason) -> u64 {
                match reason { $(DropReason::$variant => self.$field.load(Relaxed),)* }
            }

            /// All counters by name, in the order of their definition.
            pub fn snapshot(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($field), self.$field.load(Relaxed)),)*]
            }
        }
    };
}

drop_reasons! {
    /// Shorter than its type allows, or a handshake message of another length than the only one.
    BadLength bad_len,
    /// The first four bytes are not a type, the version, and two zeros.
    BadHeader bad_header,
    /// A message that this side never receives (an INIT at a client, a RESP at a server).
    WrongDirection wrong_direction,
    /// An INIT for a key that is not among ours: the two ends are configured with different keys.
    UnknownKey unknown_key,
    /// The keyed checksum of a handshake message is wrong.
    BadMac1 bad_mac1,
    /// The address-bound checksum is wrong or missing while it is demanded.
    BadMac2 bad_mac2,
    /// The guard of a CTRL packet is wrong.
    BadGuard bad_guard,
    /// An ephemeral key that is one of the low-order points of X25519.
    LowOrderKey low_order_key,
    /// A handshake message that does not open.
    BadHandshake bad_handshake,
    /// More handshakes than the limits allow.
    RateLimited rate_limited,
    /// The stored answer to this INIT has been sent as often as its budget allows.
    ReplyBudget reply_budget,
    /// No session has this index.
    UnknownIndex unknown_index,
    /// A handshake answer that belongs to no live attempt.
    NoAttempt no_attempt,
    /// DATA in a clear session, or DATA_CLEAR in an encrypted one.
    WrongMode clear_rejected,
    /// The key is past its life or its limits.
    KeyExpired key_expired,
    /// Accepted before: a replay, or the second copy of a packet sent on several paths.
    Duplicate duplicate,
    /// Older than the window remembers.
    TooOld too_old,
    /// The tag does not verify.
    AuthFailed auth_fail,
    /// Authentic, but its contents make no sense.
    Malformed malformed,
    /// A kind of DATA that this version does not know.
    UnknownKind unknown_kind,
    /// An unfinished datagram gave up its memory: too old, or too many of them.
    ReassemblyEvicted reassembly_evicted,
    /// A NOSESSION that did not meet the conditions under which it is honoured.
    NoSessionIgnored nosession_ignored,
    /// A probe that is not newer than the last one of its path.
    StaleProbe stale_probe,
    /// The application did not fetch its datagrams fast enough.
    QueueFull queue_full,
}
