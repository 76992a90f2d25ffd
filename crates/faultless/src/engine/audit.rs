//! The recount at quiescence (REQUIREMENTS section 0): every counter against what the tables hold.

use super::{Cpu, Vm};
use crate::frame::recount_free;
use crate::machine::Machine;
use crate::object::Object;
use crate::space::Space;
use crate::table::{Delta, recount};
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

/// What a recount found wrong, one sentence each.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AuditError(pub Vec<String>);

impl fmt::Display for AuditError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().take(20).try_for_each(|line| writeln!(f, "{line}"))
    }
}

impl<M: Machine> Vm<M> {
    /// Counts references, mappings, table shares, resident pages and free frames anew and compares them with the counters.
    ///
    /// For tests: nothing else may run, `spaces` are all that exist, `objects` all objects, and every CPU but `cpu`
    /// has collected.
    ///
    /// # Errors
    ///
    /// [`AuditError`] lists what does not agree.
    pub fn audit(&self, cpu: &mut Cpu<M>, spaces: &[&Space<M>], objects: &[&Arc<Object<M>>]) -> Result<(), AuditError> {
        self.audit_all(&mut [cpu], spaces, objects)
    }

    /// The same for who has the tokens of all CPUs: it collects for each, and finds each single frame that is lost or in
    /// two places. [`Vm::audit`] allows for as many as the caches of the other CPUs may hold.
    ///
    /// # Errors
    ///
    /// As [`Vm::audit`].
    ///
    /// # Panics
    ///
    /// If `cpus` is empty.
    pub fn audit_all(
        &self,
        cpus: &mut [&mut Cpu<M>],
        spaces: &[&Space<M>],
        objects: &[&Arc<Object<M>>],
    ) -> Result<(), AuditError> {
        let mut complete = true;
        for cpu in cpus.iter_mut() {
            complete &= cpu.collect();
        }
        let caches: Vec<_> = cpus.iter().map(|cpu| &cpu.local).collect();
        let ctx = cpus[0].ctx();
        let roots: Vec<_> = spaces.iter().map(|space| space.core.root).collect();
        let mut count = recount(ctx, &roots);
        if !complete {
            count.errors.push(String::from("this CPU could not collect: some section is active"));
        }
        for object in objects {
            object.each_page(&mut |_, frame| count.add_reference(frame));
        }
        count.compare(ctx);
        let others = self.seats.taken().saturating_sub(cpus.len());
        count.errors.append(&mut recount_free(ctx, &caches, others));
        for (space, weight) in spaces.iter().zip(count.weights.clone()) {
            let usage = space.usage();
            let counted = Delta {
                anon: usage.anon as i64,
                file: usage.file as i64,
                memory: usage.shmem as i64,
                tables: usage.tables as i64,
                huge: usage.huge as i64,
            };
            if counted != weight {
                count.errors.push(format!("space {}: counters {counted:?}, recount {weight:?}", space.id()));
            }
        }
        if count.errors.is_empty() { Ok(()) } else { Err(AuditError(count.errors)) }
    }
}
