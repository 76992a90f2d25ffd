//! All processes and threads by id, and the ids themselves.
//!
//! The table's lock is also what makes a fork atomic: a process becomes visible in [`admit`], and
//! whoever sends a signal to many, ends everybody or hands children over does all of it in
//! [`for_each`], [`for_group`] or [`close`]. So a new process is either seen by them, or its parent
//! sees what they did.

use alloc::collections::BTreeMap;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use super::{Process, signal_waits};
use crate::sched::Thread;
use crate::sync::Lock;

/// Ids start over after this one, as on Linux with its default limit on 64-bit machines.
const ID_MAX: i32 = 4_194_304;

struct Table {
    processes: BTreeMap<i32, Arc<Process>>,
    threads: BTreeMap<i32, Weak<Thread>>,
    last_id: i32,
    /// The first process has ended: no more are admitted.
    closed: bool,
}

static TABLE: Lock<Table> =
    Lock::new(Table { processes: BTreeMap::new(), threads: BTreeMap::new(), last_id: 0, closed: false });

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

/// Makes the first process findable.
pub fn insert(process: Arc<Process>) {
    TABLE.lock().processes.insert(process.pid, process);
}

/// Why a process was not admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// The one that forks has a signal to take first, perhaps one that was sent to its whole group
    /// and that the new process would have missed.
    Interrupted,
    /// Everything is about to end.
    Closed,
}

/// Makes a process that `forker` has made findable, as a child of `forker`'s process, or of that
/// one's parent if it is a sibling.
///
/// # Errors
///
/// [`Refused`]; nobody has seen the process then.
pub fn admit(process: &Arc<Process>, forker: &Thread, is_sibling: bool) -> Result<(), Refused> {
    let mut table = TABLE.lock();
    if table.closed {
        return Err(Refused::Closed);
    }
    if signal_waits(forker) {
        return Err(Refused::Interrupted);
    }
    let maker = &forker.process;
    // `setpgid` may have moved the maker since the copy was made.
    process.group.store(maker.group(), Ordering::Relaxed);
    process.session.store(maker.session(), Ordering::Relaxed);
    let parent = if is_sibling { maker.family.lock().parent.clone() } else { Arc::downgrade(maker) };
    if let Some(parent) = parent.upgrade() {
        parent.family.lock().children.push(process.clone());
    }
    process.family.lock().parent = parent;
    table.processes.insert(process.pid, process.clone());
    Ok(())
}

/// Takes the children away from a process that ends. None is added afterwards.
pub fn orphan(process: &Process) -> Vec<Arc<Process>> {
    let _table = TABLE.lock();
    let children = core::mem::take(&mut process.family.lock().children);
    for child in &children {
        child.family.lock().parent = Weak::new();
    }
    children
}

/// Admits no process from now on. Returns those that there are.
pub fn close() -> Vec<Arc<Process>> {
    let mut table = TABLE.lock();
    table.closed = true;
    table.processes.values().cloned().collect()
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

/// Calls `visit` with each process while none is admitted. `visit` must not come back here.
pub fn for_each(mut visit: impl FnMut(&Arc<Process>)) {
    TABLE.lock().processes.values().for_each(&mut visit);
}

/// As [`for_each`], for the processes of a group. Returns how many there are.
pub fn for_group(group: i32, mut visit: impl FnMut(&Arc<Process>)) -> usize {
    let mut count = 0;
    for_each(|process| {
        if process.group() == group {
            visit(process);
            count += 1;
        }
    });
    count
}

/// Whether `test` is true of any process of a group. `test` must not come back here.
pub fn any_in_group(group: i32, test: impl Fn(&Process) -> bool) -> bool {
    TABLE.lock().processes.values().any(|p| p.group() == group && test(p))
}

/// Moves `process` to `group`, which must be its own or have a member in `session`. Says whether it
/// has; no fork comes between.
pub fn join_group(process: &Process, group: i32, session: i32) -> bool {
    let table = TABLE.lock();
    let mut members = table.processes.values().filter(|p| p.group() == group);
    let may = group == process.pid || members.any(|p| p.session() == session);
    if may {
        process.group.store(group, Ordering::Relaxed);
    }
    may
}

/// Makes `process` the leader of a session and group of its own, unless there is a group with its
/// id. Says whether it is; no fork comes between.
pub fn lead_session(process: &Process) -> bool {
    let table = TABLE.lock();
    let may = table.processes.values().all(|p| p.group() != process.pid);
    if may {
        process.group.store(process.pid, Ordering::Relaxed);
        process.session.store(process.pid, Ordering::Relaxed);
    }
    may
}

/// How many processes and threads there are, and the last id given out.
pub fn counts() -> (usize, usize, i32) {
    let table = TABLE.lock();
    (table.processes.len(), table.threads.len(), table.last_id)
}
