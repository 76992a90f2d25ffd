//! Scenarios for [`faultless`], and who judges them: Linux itself.
//!
//! A [`Scenario`](scenario::Scenario) is a stream of system calls and accesses of several processes inside a fixed arena
//! of addresses. It is executed twice: by the host's kernel in child processes ([`host`]), and by faultless on a hosted
//! machine through `faultless-linux` ([`ours`]). After each step the answers, the signals, the fault counts, the list of
//! mappings, the resident pages and the sizes by kind must be equal; what may differ is in [`accepted`], with its reason.
//!
//! # Rooms, lowest first
//!
//! | room | what lives there | unsafe |
//! |---|---|---|
//! | [`arena`] | the addresses | no |
//! | [`scenario`] | steps as data and as text | no |
//! | [`generate`] | scenarios from a seed | no |
//! | [`view`] | what is compared | no |
//! | [`smaps`] | smaps and status, read and compared | no |
//! | [`burst`] | what threads may do at the same time | no |
//! | [`accepted`] | differences that are known, and why | no |
//! | [`ours`] | a hosted machine that executes steps | no |
//! | [`host`] | the host's kernel that executes steps | yes |
//! | [`judge`] | both side by side | no |
//! | [`shrink`], [`check`] | shorter failing scenarios; many seeds | no |
//!
//! Absent on purpose: processes that work at the same time; threads of one process do.

#![warn(missing_docs)]

pub mod accepted;
pub mod arena;
pub mod burst;
pub mod check;
pub mod generate;
pub mod host;
pub mod judge;
pub mod ours;
pub mod scenario;
pub mod shrink;
pub mod smaps;
pub mod view;
