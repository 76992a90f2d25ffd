//! What the guest said about itself.
//!
//! | module     | answers                                                      |
//! |------------|--------------------------------------------------------------|
//! | `events`   | what a line of the kernel's report stream means              |
//! | `document` | the whole run as one JSON document                           |
//! | `table`    | the memory report for people                                 |
//!
//! Called by `vm` (events) and `commands`. Absent on purpose: the meaning of single counters. What the kernel counts
//! passes through, so a counter that it gains shows up without a change here.

pub mod document;
pub mod events;
pub mod table;
