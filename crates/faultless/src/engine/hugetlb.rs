//! The pool of large pages and memory made of them (hugetlb), in public.

use super::{Cpu, OutOfMemory, Vm};
use crate::frame::HugePool;
use crate::machine::Machine;
use crate::object::Object;
use alloc::sync::Arc;

impl<M: Machine> Vm<M> {
    /// Makes the pool of large pages as large as `pages`, as near as memory in a row allows, and says what it has then
    /// (vm.nr_hugepages). What is in use or promised stays; what is too much of it goes when it is free.
    ///
    /// # Panics
    ///
    /// If the token belongs to another `Vm`.
    pub fn set_huge_pool(&self, cpu: &mut Cpu<M>, pages: u64) -> HugePool {
        cpu.ctx_in(&self.memory).resize_pool(pages)
    }

    /// What the pool has.
    #[must_use]
    pub fn huge_pool(&self) -> HugePool {
        self.memory.pool_counts()
    }

    /// Memory of large pages out of the pool: `size` bytes, rounded up to whole ones. They come with the first access, or
    /// [`FaultError::Bus`](crate::FaultError) if the pool is empty; a mapping without
    /// [`AreaFlags::NO_RESERVE`](crate::AreaFlags) is promised its pages, or is not made.
    ///
    /// # Errors
    ///
    /// As [`Vm::new_memory`].
    pub fn new_huge_memory(&self, size: u64, label: &str) -> Result<Arc<Object<M>>, OutOfMemory> {
        let object = Object::of_large_pages(Arc::clone(&self.memory), self.registry.next_id(), size, label);
        Ok(Arc::new(object))
    }

    /// The same, all of it promised at once (shmget's SHM_HUGETLB).
    ///
    /// # Errors
    ///
    /// [`OutOfMemory`] if the pool has too few.
    ///
    /// # Panics
    ///
    /// If the token belongs to another `Vm`.
    pub fn new_promised_huge_memory(
        &self,
        cpu: &mut Cpu<M>,
        size: u64,
        label: &str,
    ) -> Result<Arc<Object<M>>, OutOfMemory> {
        let object = self.new_huge_memory(size, label)?;
        let pages = object.size() / Object::<M>::large_size();
        object.promise_large(cpu.ctx_in(&self.memory), (0, pages)).map_err(|_| OutOfMemory)?;
        Ok(object)
    }
}
