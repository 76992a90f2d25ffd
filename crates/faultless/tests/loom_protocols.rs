//! The protocols of the core under loom: every interleaving within the bounds, weak memory included.
#![cfg(loom)]

mod model;

#[global_allocator]
static HEAP: model::Poison = model::Poison;

#[path = "protocols/p1.rs"]
mod p1;
#[path = "protocols/p10.rs"]
mod p10;
#[path = "protocols/p11.rs"]
mod p11;
#[path = "protocols/p12.rs"]
mod p12;
#[path = "protocols/p13.rs"]
mod p13;
#[path = "protocols/p14.rs"]
mod p14;
#[path = "protocols/p15.rs"]
mod p15;
#[path = "protocols/p17.rs"]
mod p17;
#[path = "protocols/p2.rs"]
mod p2;
#[path = "protocols/p3.rs"]
mod p3;
#[path = "protocols/p4.rs"]
mod p4;
#[path = "protocols/p5.rs"]
mod p5;
#[path = "protocols/p6.rs"]
mod p6;
#[path = "protocols/p7.rs"]
mod p7;
#[path = "protocols/p8.rs"]
mod p8;
#[path = "protocols/p9.rs"]
mod p9;
