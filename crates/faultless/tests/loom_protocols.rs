//! The protocols of the core under loom: every interleaving within the bounds, weak memory included.
#![cfg(loom)]

mod model;
#[path = "protocols/p1.rs"]
mod p1;
#[path = "protocols/p2.rs"]
mod p2;
