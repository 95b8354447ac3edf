// SPDX-License-Identifier: BSD-2-Clause
//! The control socket of a running mpclient or mpserver, through which `mptunnel status` and its
//! sisters see and change it.
//!
//! It is a Unix stream socket that only its owner and root can open. A line of JSON (RFC 8259) is a
//! request, and the next line that comes is its answer:
//!
//! ```text
//! {"ask":"hello"}                                     {"ok":{"program":"mpclient","pid":4711,…}}
//! {"ask":"status"}                                    {"ok":{…}}
//! {"ask":"prometheus"}                                {"ok":"# HELP …"}
//! {"ask":"get","key":"flows"}   (or without key)      {"ok":[{"key":"flows","value":"1024",…}]}
//! {"ask":"set","key":"flows","value":"9"}             {"ok":null}
//! {"ask":"path-add","words":"to=h:1 name=lte"}        {"ok":{"id":3}}
//! {"ask":"path-set","path":"lte","words":"weight=2"}  {"ok":null}
//! {"ask":"path-remove","path":"lte"}                  {"ok":null}
//! {"ask":"recent"}                                    {"ok":[{…},…]}
//! {"ask":"events","from":7}     (or without from)     {"ok":null}, then {"event":{…}} for ever
//! {"ask":"what"}                                      {"error":"…","kind":"usage"}
//! ```
//!
//! The kind of an error is `usage` (the request is wrong and will stay so), `failed` (it may go
//! well later) or `busy` (there are too many who ask). Later versions add requests and members, and
//! remove none.
//!
//! `server` answers on one thread of its own, bounded in the size of requests, in the number of
//! those who ask and in the time that it waits for them; nothing of it is on the way of a datagram.

pub mod client;
pub(crate) mod events;
mod http;
pub(crate) mod operate;
pub mod place;
pub(crate) mod server;
