// SPDX-License-Identifier: BSD-2-Clause
//! What the measurements share.

pub mod hot;
pub mod seal;
