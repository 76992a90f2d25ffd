//! Memory calls: arguments out of registers, files out of descriptors. What Linux checks, and in which
//! order, is `faultless_linux`'s.
//!
//! | file | calls |
//! |---|---|
//! | `map` | `mmap` |
//! | `remote` | `process_vm_readv`, `process_vm_writev`, `process_madvise` |
//! | `barrier` | `membarrier` |
//! | `shm` | `shmget`, `shmat`, `shmdt`, `shmctl` |
//! | this one | all others |
//!

mod barrier;
mod map;
mod remote;
mod shm;

use faultless_linux::calls::{MremapArgs, RemapFilePagesArgs};
use faultless_linux::{Caller, calls};
use linux_raw_sys::general as linux;

use super::Calls;
use super::Handler::Plain;
use super::call::Call;
use crate::arch::CpuLocal;
use crate::errno::{Errno, SysResult};
use crate::machine::KernelMachine;
use crate::uaccess;

pub(super) const CALLS: Calls = &[
    (linux::__NR_mmap, Plain(map::mmap)),
    (linux::__NR_munmap, Plain(|call| range(call, calls::munmap))),
    (linux::__NR_mprotect, Plain(|call| range_with(call, |call| call.word(2), calls::mprotect))),
    (linux::__NR_brk, Plain(brk)),
    (linux::__NR_madvise, Plain(|call| range_with(call, |call| call.uint(2), calls::madvise))),
    (linux::__NR_mincore, Plain(mincore)),
    (linux::__NR_mremap, Plain(mremap)),
    (linux::__NR_remap_file_pages, Plain(remap_file_pages)),
    (linux::__NR_msync, Plain(|call| range_with(call, |call| call.uint(2), calls::msync))),
    (linux::__NR_mlock, Plain(|call| range(call, calls::mlock))),
    (linux::__NR_mlock2, Plain(|call| range_with(call, |call| call.uint(2), calls::mlock2))),
    (linux::__NR_mlockall, Plain(mlockall)),
    (linux::__NR_munlock, Plain(|call| range(call, calls::munlock))),
    (linux::__NR_process_vm_readv, Plain(remote::read)),
    (linux::__NR_process_vm_writev, Plain(remote::write)),
    (linux::__NR_process_madvise, Plain(remote::madvise)),
    (linux::__NR_membarrier, Plain(barrier::membarrier)),
    (linux::__NR_shmget, Plain(shm::shmget)),
    (linux::__NR_shmat, Plain(shm::shmat)),
    (linux::__NR_shmdt, Plain(shm::shmdt)),
    (linux::__NR_shmctl, Plain(shm::shmctl)),
    (linux::__NR_mseal, Plain(|call| range_with(call, |call| call.word(2), calls::mseal))),
    (linux::__NR_pkey_alloc, Plain(|_| calls::pkey_alloc().map(i64::from))),
    (linux::__NR_pkey_free, Plain(|_| finish(calls::pkey_free()))),
    (linux::__NR_pkey_mprotect, Plain(pkey_mprotect)),
    (linux::__NR_munlockall, Plain(|call| finish(as_caller(call, calls::munlockall)))),
];

/// Lets the process make a call on its memory.
fn as_caller<R>(call: &mut Call<'_>, then: impl FnOnce(&mut Caller<'_, KernelMachine>) -> R) -> R {
    let limits = call.process().call_limits();
    // What the thread runs on is loaded as long as it is in a call.
    let CpuLocal { memory: Some(memory), vm, .. } = &mut *call.cpu else { unreachable!("a call without a space") };
    then(&mut Caller { memory: &memory.linux, cpu: vm, limits })
}

fn finish(result: Result<(), Errno>) -> SysResult {
    result.map(|()| 0)
}

type Range = fn(&mut Caller<'_, KernelMachine>, u64, u64) -> Result<(), Errno>;
type RangeWith<T> = fn(&mut Caller<'_, KernelMachine>, u64, u64, T) -> Result<(), Errno>;

/// A call whose arguments are an address and a length.
fn range(call: &mut Call<'_>, then: Range) -> SysResult {
    let (start, length) = (call.word(0), call.word(1));
    finish(as_caller(call, |caller| then(caller, start, length)))
}

/// The same with one argument more.
fn range_with<T>(call: &mut Call<'_>, third: fn(&Call<'_>) -> T, then: RangeWith<T>) -> SysResult {
    let (start, length, third) = (call.word(0), call.word(1), third(call));
    finish(as_caller(call, |caller| then(caller, start, length, third)))
}

fn brk(call: &mut Call<'_>) -> SysResult {
    let wanted = call.word(0);
    Ok(as_caller(call, |caller| calls::brk(caller, wanted)).cast_signed())
}

fn mincore(call: &mut Call<'_>) -> SysResult {
    let (start, length, to) = (call.word(0), call.word(1), call.word(2));
    for part in 0.. {
        let Some(found) = as_caller(call, |caller| calls::mincore(caller, start, length, part))? else { break };
        let at = to.checked_add(part * calls::MINCORE_PART).ok_or(Errno::EFAULT)?;
        uaccess::write(call.cpu, at, &found)?;
    }
    Ok(0)
}

fn mremap(call: &mut Call<'_>) -> SysResult {
    let args = MremapArgs {
        address: call.word(0),
        old_length: call.word(1),
        new_length: call.word(2),
        flags: call.uint(3),
        new_address: call.word(4),
    };
    as_caller(call, |caller| calls::mremap(caller, args)).map(u64::cast_signed)
}

fn pkey_mprotect(call: &mut Call<'_>) -> SysResult {
    let (start, length, protection, key) = (call.word(0), call.word(1), call.word(2), call.int(3));
    finish(as_caller(call, |caller| calls::pkey_mprotect(caller, start, length, protection, key)))
}

fn remap_file_pages(call: &mut Call<'_>) -> SysResult {
    let args = RemapFilePagesArgs {
        start: call.word(0),
        size: call.word(1),
        protection: call.word(2),
        page: call.word(3),
        flags: call.word(4),
    };
    finish(as_caller(call, |caller| calls::remap_file_pages(caller, args)))
}

fn mlockall(call: &mut Call<'_>) -> SysResult {
    let flags = call.uint(0);
    finish(as_caller(call, |caller| calls::mlockall(caller, flags)))
}
