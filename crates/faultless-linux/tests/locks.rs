//! Locked memory, seals, promises: what the calls answer on the hosted machine, in Linux's order of checks (AC-06, MA-01).

use faultless::{AreaFlags, CommitPolicy, CpuId, Layout, PAGE_SIZE, Vm};
use faultless_hosted::{Fast, FastConfig};
use faultless_linux::calls::{self, MmapArgs, MremapArgs, NoFile};
use faultless_linux::{Caller, Errno, Limits, Memory};
use linux_raw_sys::general as linux;

const AT: u64 = 0x1_0000_0000;
const PAGE: u64 = PAGE_SIZE;
const ANON: u32 = linux::MAP_PRIVATE | linux::MAP_ANONYMOUS;
const FIXED: u32 = ANON | linux::MAP_FIXED;
const RW: u32 = linux::PROT_READ | linux::PROT_WRITE;
const TWO_PAGES: Limits = Limits { locked: 2 * PAGE, may_lock: false, ..Limits::NONE };
const NOTHING: Limits = Limits { locked: 0, may_lock: false, ..Limits::NONE };

fn with_caller(limits: Limits, then: impl FnOnce(&mut Caller<'_, Fast>)) {
    let vm = Vm::new(Fast::new(FastConfig::new(512, 1)).expect("memory")).expect("a machine");
    let mut cpu = vm.cpu(CpuId::new(0)).expect("a CPU");
    let memory = Memory::new(vm.new_space(&mut cpu, Layout::linux()).expect("a space"));
    then(&mut Caller { memory: &memory, cpu: &mut cpu, limits });
    memory.space.exit(&mut cpu);
}

/// Maps pages from the `page`th on.
fn map(caller: &mut Caller<'_, Fast>, page: u64, pages: u64, protection: u32, flags: u32) -> Result<(), Errno> {
    let args = MmapArgs { address: AT + page * PAGE, length: pages * PAGE, protection, flags, offset: 0 };
    calls::mmap(caller, args, None::<&NoFile>).map(drop)
}

fn locked(caller: &Caller<'_, Fast>) -> u64 {
    caller.memory.space.extent().locked
}

fn resident(caller: &Caller<'_, Fast>) -> u64 {
    caller.memory.space.usage().resident()
}

#[test]
fn mlock_brings_in_and_counts() {
    with_caller(Limits::NONE, |caller| {
        map(caller, 0, 8, RW, FIXED).expect("mmap");
        assert_eq!(calls::mlock(caller, AT + PAGE + 5, PAGE), Ok(()));
        assert_eq!((locked(caller), resident(caller)), (2, 2));
        assert_eq!(calls::mlock2(caller, AT + 2 * PAGE, 2 * PAGE, linux::MLOCK_ONFAULT), Ok(()));
        assert_eq!((locked(caller), resident(caller)), (3, 2));
        assert_eq!(calls::mlock2(caller, AT, PAGE, 2), Err(Errno::EINVAL));
        assert_eq!(calls::madvise(caller, AT, 8 * PAGE, linux::MADV_DONTNEED), Err(Errno::EINVAL));
        assert_eq!(calls::madvise(caller, AT + PAGE, PAGE, linux::MADV_FREE), Err(Errno::EINVAL));
        assert_eq!(calls::madvise(caller, AT + PAGE, PAGE, linux::MADV_COLD), Err(Errno::EINVAL));
        assert_eq!(calls::msync(caller, AT, 8 * PAGE, linux::MS_INVALIDATE), Err(Errno::EBUSY));
        assert_eq!(calls::madvise(caller, AT + PAGE, PAGE, linux::MADV_DONTNEED_LOCKED), Ok(()));
        assert_eq!(resident(caller), 1);
        assert_eq!(calls::munlock(caller, AT, 8 * PAGE), Ok(()));
        assert_eq!(locked(caller), 0);
        let child = caller.memory.fork(caller.cpu).expect("fork");
        assert_eq!(child.space.extent().locked, 0);
        child.space.exit(caller.cpu);
    });
}

#[test]
fn mlock_stops_where_linux_stops() {
    with_caller(Limits::NONE, |caller| {
        map(caller, 0, 2, RW, FIXED).expect("mmap");
        map(caller, 3, 2, RW, FIXED).expect("mmap");
        assert_eq!(calls::mlock(caller, AT, 5 * PAGE), Err(Errno::ENOMEM));
        assert_eq!((locked(caller), resident(caller)), (2, 0), "locked up to the hole, brought in nowhere");
        assert_eq!(calls::mlock(caller, AT, u64::MAX), Ok(()), "the length wraps to nothing");
        assert_eq!(calls::mlock(caller, AT, AT.wrapping_neg()), Err(Errno::EINVAL));
        map(caller, 8, 1, 0, FIXED).expect("mmap");
        assert_eq!(calls::mlock(caller, AT + 8 * PAGE, PAGE), Err(Errno::ENOMEM), "no rights, nothing to read");
        assert_eq!(locked(caller), 3);
        assert_eq!(calls::munlockall(caller), Ok(()));
        assert_eq!(locked(caller), 0);
    });
}

#[test]
fn the_limit_counts_each_page_once() {
    with_caller(TWO_PAGES, |caller| {
        map(caller, 0, 8, RW, FIXED).expect("mmap");
        assert_eq!(calls::mlock(caller, AT, 3 * PAGE), Err(Errno::ENOMEM));
        assert_eq!(calls::mlock(caller, AT, 2 * PAGE), Ok(()));
        assert_eq!(calls::mlock(caller, AT, 2 * PAGE), Ok(()), "locked before");
        assert_eq!(calls::mlock(caller, AT + PAGE, 2 * PAGE), Err(Errno::ENOMEM));
        assert_eq!(calls::mlockall(caller, linux::MCL_CURRENT), Err(Errno::ENOMEM));
        assert_eq!(map(caller, 20, 1, RW, FIXED | linux::MAP_LOCKED), Err(Errno::EAGAIN));
        assert_eq!(calls::mlockall(caller, linux::MCL_FUTURE), Ok(()));
        assert_eq!(map(caller, 20, 1, RW, FIXED), Err(Errno::EAGAIN));
        let grow = MremapArgs { address: AT + PAGE, old_length: PAGE, new_length: 2 * PAGE, flags: 1, new_address: 0 };
        assert_eq!(calls::mremap(caller, grow), Err(Errno::EAGAIN));
        assert_eq!(locked(caller), 2);
    });
    with_caller(NOTHING, |caller| {
        map(caller, 0, 8, RW, FIXED).expect("mmap");
        assert_eq!(calls::mlock(caller, AT, 0), Err(Errno::EPERM));
        assert_eq!(calls::mlockall(caller, linux::MCL_ONFAULT), Err(Errno::EINVAL));
        assert_eq!(calls::mlockall(caller, linux::MCL_FUTURE), Err(Errno::EPERM));
        assert_eq!(map(caller, 20, 1, RW, FIXED | linux::MAP_LOCKED), Err(Errno::EPERM));
        assert_eq!(calls::munlock(caller, AT, PAGE), Ok(()));
    });
}

#[test]
fn later_mappings_are_locked_too() {
    with_caller(Limits::NONE, |caller| {
        caller.memory.space.set_brk(faultless::VirtAddr::new(AT + (1 << 30)));
        assert_eq!(calls::mlockall(caller, linux::MCL_FUTURE), Ok(()));
        map(caller, 0, 3, RW, FIXED).expect("mmap");
        map(caller, 8, 1, 0, FIXED).expect("mmap");
        assert_eq!((locked(caller), resident(caller)), (4, 3));
        calls::brk(caller, AT + (1 << 30) + 2 * PAGE);
        assert_eq!((locked(caller), resident(caller)), (6, 5));
        assert_eq!(calls::mprotect(caller, AT + 8 * PAGE, PAGE, u64::from(RW)), Ok(()));
        assert_eq!(resident(caller), 6, "locked memory that becomes writable is there");
        let keep = MremapArgs { address: AT, old_length: PAGE, new_length: PAGE, flags: 5, new_address: 0 };
        calls::mremap(caller, keep).expect("mremap");
        assert_eq!(locked(caller), 6, "what stays without its page is not locked");
        let grow =
            MremapArgs { address: AT + 2 * PAGE, old_length: PAGE, new_length: 3 * PAGE, flags: 0, new_address: 0 };
        calls::mremap(caller, grow).expect("mremap");
        assert_eq!((locked(caller), resident(caller)), (8, 8));
        let both = linux::MCL_CURRENT | linux::MCL_FUTURE | linux::MCL_ONFAULT;
        assert_eq!(calls::mlockall(caller, both), Ok(()));
        map(caller, 30, 4, RW, FIXED | linux::MAP_LOCKED | linux::MAP_POPULATE).expect("mmap");
        assert_eq!(resident(caller), 8, "locked when they come");
        let child = caller.memory.fork(caller.cpu).expect("fork");
        assert_eq!(child.space.default_flags(), AreaFlags::NONE);
        child.space.exit(caller.cpu);
    });
}

#[test]
fn sealed_memory_stays() {
    with_caller(Limits::NONE, |caller| {
        map(caller, 0, 4, linux::PROT_READ, FIXED).expect("mmap");
        map(caller, 4, 4, RW, FIXED).expect("mmap");
        let cases = [
            (AT + 1, PAGE, 0, Errno::EINVAL),
            (AT, PAGE, 1, Errno::EINVAL),
            (AT, u64::MAX, 0, Errno::EINVAL),
            (AT, PAGE.wrapping_neg(), 0, Errno::EINVAL),
            (AT, 9 * PAGE, 0, Errno::ENOMEM),
        ];
        for (start, length, flags, errno) in cases {
            assert_eq!(calls::mseal(caller, start, length, flags), Err(errno));
        }
        assert_eq!(calls::munmap(caller, AT + 7 * PAGE, PAGE), Ok(()), "a failed call has sealed nothing");
        assert_eq!(calls::mseal(caller, AT + PAGE, 0, 0), Ok(()));
        assert_eq!(calls::mseal(caller, AT + PAGE, 5 * PAGE, 0), Ok(()));
        assert_eq!(calls::munmap(caller, AT, 8 * PAGE), Err(Errno::EPERM));
        assert_eq!(map(caller, 3, 1, RW, FIXED), Err(Errno::EPERM));
        assert_eq!(calls::mprotect(caller, AT + PAGE, PAGE, 1), Err(Errno::EPERM));
        let shrink = MremapArgs { address: AT, old_length: 4 * PAGE, new_length: PAGE, flags: 0, new_address: 0 };
        assert_eq!(calls::mremap(caller, shrink), Err(Errno::EPERM));
        let to = MremapArgs { address: AT, old_length: PAGE, new_length: PAGE, flags: 3, new_address: AT + 3 * PAGE };
        assert_eq!(calls::mremap(caller, to), Err(Errno::EPERM));
        assert_eq!(calls::madvise(caller, AT + PAGE, PAGE, linux::MADV_DONTNEED), Err(Errno::EPERM));
        assert_eq!(calls::madvise(caller, AT + PAGE, PAGE, linux::MADV_DONTFORK), Err(Errno::EPERM));
        assert_eq!(calls::madvise(caller, AT + PAGE, PAGE, linux::MADV_NOHUGEPAGE), Ok(()));
        assert_eq!(calls::madvise(caller, AT + 4 * PAGE, PAGE, linux::MADV_DONTNEED), Ok(()), "it may be written");
        assert_eq!(calls::mlock(caller, AT + PAGE, PAGE), Ok(()));
    });
}

#[test]
fn droppable_memory_is_neither_kept_nor_promised() {
    with_caller(Limits::NONE, |caller| {
        let droppable = 8 | linux::MAP_ANONYMOUS | linux::MAP_FIXED;
        assert_eq!(map(caller, 0, 2, RW, droppable | linux::MAP_LOCKED), Err(Errno::EINVAL));
        assert_eq!(map(caller, 0, 2, RW, droppable | linux::MAP_GROWSDOWN), Err(Errno::EINVAL));
        map(caller, 0, 2, RW, droppable).expect("mmap");
        assert_eq!(caller.cpu.vm().committed(), 0);
        assert_eq!(calls::mlock(caller, AT, PAGE), Ok(()));
        assert_eq!(locked(caller), 0);
        assert_eq!(calls::madvise(caller, AT, PAGE, linux::MADV_KEEPONFORK), Err(Errno::EINVAL));
        assert_eq!(calls::madvise(caller, AT, PAGE, linux::MADV_DODUMP), Err(Errno::EINVAL));
    });
}

#[test]
fn strict_promises_know_no_noreserve() {
    with_caller(Limits::NONE, |caller| {
        let free = FIXED | linux::MAP_NORESERVE;
        map(caller, 0, 9, RW, free).expect("mmap");
        assert_eq!(caller.cpu.vm().committed(), 0);
        caller.cpu.vm().set_commit_policy(CommitPolicy::Strict { limit: 10, reserve: 0 });
        map(caller, 20, 9, RW, free).expect("mmap");
        assert_eq!(map(caller, 40, 1, RW, free), Err(Errno::ENOMEM));
        assert_eq!(map(caller, 40, 1, linux::PROT_READ, free), Ok(()));
        assert_eq!(calls::mprotect(caller, AT + 40 * PAGE, PAGE, 3), Err(Errno::ENOMEM));
        assert_eq!(map(caller, 20, 9, RW, free), Ok(()), "what is replaced is given back");
    });
}

#[test]
fn there_are_no_protection_keys() {
    with_caller(Limits::NONE, |caller| {
        map(caller, 0, 1, RW, FIXED).expect("mmap");
        assert_eq!((calls::pkey_alloc(), calls::pkey_free()), (Err(Errno::EINVAL), Err(Errno::EINVAL)));
        assert_eq!(calls::pkey_mprotect(caller, AT, PAGE, 1, -1), Ok(()));
        assert_eq!(calls::pkey_mprotect(caller, AT, PAGE, 1, 0), Err(Errno::EINVAL));
        assert_eq!(calls::pkey_mprotect(caller, AT, 0, 1, 0), Ok(()));
    });
}
