//! All processes and threads by id, and the ids themselves.

use alloc::collections::BTreeMap;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;

use super::Process;
use crate::sched::Thread;
use crate::sync::Lock;

/// Ids start over after this one, as on Linux with its default limit on 64-bit machines.
const ID_MAX: i32 = 4_194_304;

struct Table {
    processes: BTreeMap<i32, Arc<Process>>,
    threads: BTreeMap<i32, Weak<Thread>>,
    last_id: i32,
}

static TABLE: Lock<Table> = Lock::new(Table { processes: BTreeMap::new(), threads: BTreeMap::new(), last_id: 0 });

/// An id that no process, thread or process group uses.
pub fn new_id() -> i32 {
    let mut table = TABLE.lock();
    loop {
        // Ends: there are far fewer processes than ids.
        table.last_id = table.last_id % ID_MAX + 1;
        let id = table.last_id;
        let taken = table.processes.contains_key(&id)
            || table.threads.contains_key(&id)
            || table.processes.values().any(|p| p.group() == id || p.session() == id);
        if !taken {
            return id;
        }
    }
}

/// Makes a process findable.
pub fn insert(process: Arc<Process>) {
    TABLE.lock().processes.insert(process.pid, process);
}

/// Makes a thread findable.
pub fn insert_thread(thread: &Arc<Thread>) {
    TABLE.lock().threads.insert(thread.tid, Arc::downgrade(thread));
}

/// Forgets a thread.
pub fn remove_thread(tid: i32) {
    TABLE.lock().threads.remove(&tid);
}

/// Forgets a process. Returns how many are left.
pub fn remove(pid: i32) -> usize {
    let (removed, left) = {
        let mut table = TABLE.lock();
        (table.processes.remove(&pid), table.processes.len())
    };
    // What it still owns is dropped here, after the lock.
    drop(removed);
    left
}

/// The process with this id, zombies included.
pub fn find(pid: i32) -> Option<Arc<Process>> {
    TABLE.lock().processes.get(&pid).cloned()
}

/// The live thread with this id.
pub fn find_thread(tid: i32) -> Option<Arc<Thread>> {
    TABLE.lock().threads.get(&tid)?.upgrade()
}

/// All processes, by id.
pub fn all() -> Vec<Arc<Process>> {
    TABLE.lock().processes.values().cloned().collect()
}

/// All processes of a group.
pub fn group(group: i32) -> Vec<Arc<Process>> {
    let table = TABLE.lock();
    table.processes.values().filter(|p| p.group() == group).cloned().collect()
}

/// How many processes and threads there are, and the last id given out.
pub fn counts() -> (usize, usize, i32) {
    let table = TABLE.lock();
    (table.processes.len(), table.threads.len(), table.last_id)
}
