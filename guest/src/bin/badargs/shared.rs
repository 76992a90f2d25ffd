//! System V shared memory, other processes' memory, barriers, protection keys, memfds.
//!
//! Rows: FL-01, TR-01, GU-06, VM-11.

use crate::Lines;
use crate::alone::{Alone, alone, raw};
use crate::stage::{KERNEL, Stage, number};
use faultless_guest::sys::{self, ANON, PAGE, RO, RW, Result};

const IPC_PRIVATE: usize = 0;
const IPC_CREAT: usize = 0o1000;
const IPC_EXCL: usize = 0o2000;
const IPC_RMID: usize = 0;
const IPC_SET: usize = 1;
const IPC_STAT: usize = 2;
const IPC_INFO: usize = 3;
const SHM_LOCK: usize = 11;
const SHM_UNLOCK: usize = 12;
const SHM_STAT: usize = 13;
const SHM_INFO: usize = 14;
const SHM_RDONLY: usize = 0o10000;
const SHM_RND: usize = 0o20000;
const SHM_REMAP: usize = 0o40000;
const SHM_EXEC: usize = 0o100000;

fn key() -> usize {
    0x6600_0000 | sys::getpid() as usize
}

/// Size, mode and attachments of a segment.
fn stat(id: usize) -> String {
    let mut bytes = [0_u64; 14];
    match raw(libc::SYS_shmctl, &[id, IPC_STAT, bytes.as_mut_ptr() as usize]) {
        Ok(_) => {
            let mode = bytes[2] >> 32;
            let made = bytes[10] as i32 == sys::getpid();
            format!("{} bytes, mode {mode:o}, attached {}, made here: {made}", bytes[6], bytes[11])
        }
        Err(errno) => errno.to_string(),
    }
}

/// shmget, shmat, shmdt and shmctl.
pub fn shm(stage: &mut Stage, lines: &mut Lines) {
    stage.reset();
    alone(stage, lines, |child| {
        for (name, key, size, flags) in [
            ("no such key", key(), PAGE, 0),
            ("no size", IPC_PRIVATE, 0, 0o600),
            ("too much", IPC_PRIVATE, usize::MAX, 0o600),
            ("more than a file may have", IPC_PRIVATE, 1 << 63, 0o600),
            ("more than there is", IPC_PRIVATE, 1 << 50, 0o600),
        ] {
            let _ = child.call(&format!("shmget of {name}"), libc::SYS_shmget, &[key, size, flags]);
        }
        let id = raw(libc::SYS_shmget, &[key(), 3 * PAGE + 5, IPC_CREAT | 0o640]);
        let id = child.stage.report.need("shmget", id);
        for (name, size, flags) in [
            ("the same", 0, 0),
            ("the same with CREAT", PAGE, IPC_CREAT),
            ("the same with EXCL", PAGE, IPC_CREAT | IPC_EXCL),
            ("more of it", 4 * PAGE, 0),
        ] {
            let got = raw(libc::SYS_shmget, &[key(), size, flags]).map(|got| usize::from(got == id));
            child.line(format_args!("shmget of {name} -> {}", number(got)));
        }
        attach(child, id);
        control(child, id);
        gone(child, id);
    });
}

fn attach(child: &Alone, id: usize) {
    let at = |page| child.at(page);
    for (name, args) in [
        ("a bad id", [usize::MAX, 0, 0]),
        ("no such id", [0x7fff_0000, 0, 0]),
        ("unaligned", [id, at(20) + 1, 0]),
        ("SHM_RND", [id, at(20) + 1, SHM_RND]),
        ("where it is", [id, at(20), 0]),
        ("over its end", [id, at(23), 0]),
        ("SHM_REMAP", [id, at(23), SHM_REMAP]),
        ("SHM_REMAP nowhere", [id, 0, SHM_REMAP]),
        ("SHM_RND to 0 with SHM_REMAP", [id, 5, SHM_RND | SHM_REMAP]),
        ("KERNEL", [id, KERNEL, 0]),
        ("read only", [id, at(30), SHM_RDONLY]),
        ("to execute", [id, at(40), SHM_EXEC]),
    ] {
        child.place(&format!("shmat {name}"), raw(libc::SYS_shmat, &args));
    }
    child.line(stat(id));
    child.line(child.stage.look());
    let _ = child.call("read only to RW", libc::SYS_mprotect, &[at(30), PAGE, RW as usize]);
    let _ = child.call("a hole", libc::SYS_munmap, &[at(41), PAGE]);
    child.line(stat(id));
    let end = faultless_guest::child::run(|| {
        child.line(format_args!("in a child: {}", stat(id)));
        0
    });
    child.line(format_args!("{end:?} {}", stat(id)));
    for (name, addr) in [
        ("unaligned", at(40) + 1),
        ("0", 0),
        ("its middle", at(42)),
        ("other memory", at(0)),
        ("with a hole", at(40)),
        ("again", at(40)),
        ("what was cut", at(20)),
        ("KERNEL", KERNEL),
    ] {
        let _ = child.call(&format!("shmdt of {name}"), libc::SYS_shmdt, &[addr]);
        child.line(stat(id));
    }
}

fn control(child: &Alone, id: usize) {
    let mut room = [0_u64; 32];
    let to = room.as_mut_ptr() as usize;
    for (name, args) in [
        ("a bad id", [usize::MAX, IPC_STAT, to]),
        ("no such id", [0x7fff_0000, IPC_STAT, to]),
        ("no such command", [id, 99, to]),
        ("a negative command", [id, usize::MAX, to]),
        ("IPC_STAT to nowhere", [id, IPC_STAT, 0]),
        ("IPC_SET from nowhere", [id, IPC_SET, 8]),
        ("IPC_SET of no such id", [0x7fff_0000, IPC_SET, to]),
        ("IPC_INFO to nowhere", [0, IPC_INFO, 8]),
        ("SHM_INFO to nowhere", [0, SHM_INFO, 8]),
        ("SHM_STAT of no such place", [4095, SHM_STAT, to]),
        ("SHM_LOCK", [id, SHM_LOCK, 0]),
    ] {
        let _ = child.call(name, libc::SYS_shmctl, &args);
    }
    child.line(stat(id));
    let _ = child.call("SHM_UNLOCK", libc::SYS_shmctl, &[id, SHM_UNLOCK, 0]);
    let _ = raw(libc::SYS_shmctl, &[0, IPC_INFO, to]);
    let limits = room;
    child.line(format_args!("limits: {:?}", &limits[..5]));
    let _ = raw(libc::SYS_shmctl, &[id, IPC_STAT, to]);
    room[2] = room[2] & 0xffff_ffff | 0o7755 << 32;
    let _ = child.call("IPC_SET", libc::SYS_shmctl, &[id, IPC_SET, room.as_mut_ptr() as usize]);
    child.line(stat(id));
}

fn gone(child: &Alone, id: usize) {
    let _ = child.call("IPC_RMID", libc::SYS_shmctl, &[id, IPC_RMID, 0]);
    child.line(stat(id));
    let _ = child.call("shmget of its key", libc::SYS_shmget, &[key(), PAGE, 0]);
    child.place("shmat of what is to go", raw(libc::SYS_shmat, &[id, child.at(16), 0]));
    child.stage.arena.fill(16, 0x77);
    let _ = child.call("shmdt", libc::SYS_shmdt, &[child.at(16)]);
    child.line(stat(id));
    let _ = child.call("shmdt of the first that is left", libc::SYS_shmdt, &[child.at(23)]);
    let _ = child.call("shmdt of the last", libc::SYS_shmdt, &[child.at(30)]);
    child.line(stat(id));
    let _ = child.call("IPC_RMID again", libc::SYS_shmctl, &[id, IPC_RMID, 0]);
}

/// process_vm_readv, process_vm_writev and process_madvise.
pub fn remote(stage: &mut Stage, lines: &mut Lines) {
    stage.reset();
    alone(stage, lines, |child| {
        let pid = sys::getpid() as usize;
        let at = |page| child.at(page);
        let run = |start: usize, length: usize| [start, length];
        let cases = [
            ("a page", run(at(0), PAGE), run(at(1), PAGE)),
            ("less than there is", run(at(0), 100), run(at(1), PAGE)),
            ("more than there is", run(at(0), PAGE), run(at(1), 100)),
            ("from a hole", run(at(0), PAGE), run(at(4), PAGE)),
            ("into a hole", run(at(3), 2 * PAGE), run(at(0), 2 * PAGE)),
            ("from no access", run(at(0), PAGE), run(at(7), PAGE)),
            ("up to a hole", run(at(0), 3 * PAGE), run(at(3) + 5, 2 * PAGE)),
            ("read only", run(at(0), PAGE), run(at(5), PAGE)),
            ("behind the end of a file", run(at(0), PAGE), run(at(13), PAGE)),
            ("KERNEL", run(at(0), PAGE), run(KERNEL, PAGE)),
            ("into KERNEL", run(KERNEL, PAGE), run(at(0), PAGE)),
            ("nothing", run(at(0), 0), run(KERNEL, PAGE)),
            ("of nothing", run(at(0), PAGE), run(KERNEL, 0)),
            ("a negative length", run(at(0), PAGE), run(at(0), usize::MAX)),
            ("a negative length here", run(at(0), usize::MAX), run(at(0), PAGE)),
        ];
        for (name, here, there) in cases {
            for (call, what) in [(libc::SYS_process_vm_readv, "read"), (libc::SYS_process_vm_writev, "write")] {
                let args = [pid, here.as_ptr() as usize, 1, there.as_ptr() as usize, 1, 0];
                let _ = child.call(&format!("{what} {name}"), call, &args);
            }
        }
        let one = run(at(0), PAGE);
        let vector = one.as_ptr() as usize;
        for (name, args) in [
            ("flags", [pid, vector, 1, vector, 1, 1]),
            ("no such process", [0x3fff_ffff, vector, 1, vector, 1, 0]),
            ("many runs", [pid, vector, 1025, vector, 1, 0]),
            ("many remote runs", [pid, vector, 1, vector, 1025, 0]),
            ("a bad vector", [pid, 8, 1, vector, 1, 0]),
            ("a bad remote vector", [pid, vector, 1, 8, 1, 0]),
            ("no runs", [0x3fff_ffff, vector, 0, 8, 1, 0]),
            ("no remote runs", [0x3fff_ffff, vector, 1, 8, 0, 0]),
        ] {
            let _ = child.call(name, libc::SYS_process_vm_readv, &args);
        }
        advise(child, vector);
        family(child);
    });
}

fn advise(child: &Alone, vector: usize) {
    for (name, args) in [
        ("a bad descriptor", [usize::MAX, vector, 1, 0, 0]),
        ("a file", [child.stage.file.fd as usize, vector, 1, 0, 0]),
        ("flags", [usize::MAX, 8, 1, 0, 1]),
        ("a bad vector", [usize::MAX, 8, 1, 0, 0]),
    ] {
        let _ = child.call(&format!("process_madvise of {name}"), libc::SYS_process_madvise, &args);
    }
}

/// A child's memory, and that of one that is gone.
fn family(child: &Alone) {
    let (from, into) = child.stage.report.need("pipe", sys::pipe());
    let pid = faultless_guest::child::spawn(|| {
        sys::close(into);
        child.stage.arena.fill(2, 0x55);
        let _ = sys::read(from, &mut [0]);
        i32::from(child.stage.arena.verify(2, 0x66).is_err())
    });
    sys::close(from);
    let run = |page| [child.at(page), PAGE];
    // Until the child has filled its page.
    for _ in 0..1000 {
        let (here, there) = (run(16), run(2));
        let _ = child.map(16, 1, RW, ANON);
        let _ =
            raw(libc::SYS_process_vm_readv, &[pid as usize, here.as_ptr() as usize, 1, there.as_ptr() as usize, 1, 0]);
        if child.stage.arena.verify(16, 0x55).is_ok() {
            break;
        }
        let _ = sys::sleep_micros(10_000);
    }
    child.line(format_args!("the child's page: {}", child.stage.arena.verify(16, 0x55).is_ok()));
    child.stage.arena.fill(16, 0x66);
    let (here, there) = (run(16), run(2));
    let args = [pid as usize, here.as_ptr() as usize, 1, there.as_ptr() as usize, 1, 0];
    let _ = child.call("write to the child", libc::SYS_process_vm_writev, &args);
    sys::close(into);
    let end = sys::wait(pid).map(|(_, end)| end);
    child.line(format_args!("the child: {:?}, mine: {}", end, child.stage.arena.verify(2, 0x23).is_ok()));
    let _ = child.call("read of who is gone", libc::SYS_process_vm_readv, &args);
}

/// membarrier and protection keys.
pub fn barrier(stage: &mut Stage, lines: &mut Lines) {
    stage.reset();
    alone(stage, lines, |child| {
        let base = raw(libc::SYS_membarrier, &[0]).map(|known| known & 0x27f);
        child.line(format_args!("QUERY -> {}", number(base)));
        for (command, flags) in [
            (0, 1),
            (1, 0),
            (1, 1),
            (2, 0),
            (3, 0),
            (8, 0),
            (32, 0),
            (4, 0),
            (16, 0),
            (512, 0),
            (8, 0),
            (64, 0),
            (32, 0),
            (512, 0),
            (1 << 20, 0),
            (usize::MAX, 0),
        ] {
            let _ = child.call(&format!("membarrier({command}, {flags})"), libc::SYS_membarrier, &[command, flags, 0]);
        }
        let end = faultless_guest::child::run(|| {
            let _ = child.call("registered in a child", libc::SYS_membarrier, &[512, 0, 0]);
            0
        });
        child.line(format_args!("{end:?}"));
    });
    alone(stage, lines, |child| {
        let at = child.at(0);
        for (name, call, args) in [
            ("pkey_mprotect(-1)", libc::SYS_pkey_mprotect, [at, PAGE, RO as usize, usize::MAX]),
            ("pkey_mprotect(99)", libc::SYS_pkey_mprotect, [at, PAGE, RW as usize, 99]),
            ("pkey_mprotect(99) of nothing", libc::SYS_pkey_mprotect, [at, 0, RW as usize, 99]),
            ("pkey_mprotect(99) unaligned", libc::SYS_pkey_mprotect, [at + 1, 0, RW as usize, 99]),
            ("pkey_alloc with flags", libc::SYS_pkey_alloc, [1, 0, 0, 0]),
            ("pkey_alloc with rights", libc::SYS_pkey_alloc, [0, 4, 0, 0]),
            ("pkey_free(99)", libc::SYS_pkey_free, [99, 0, 0, 0]),
        ] {
            let _ = child.call(name, call, &args);
        }
        child.line(child.stage.look());
    });
}

/// A memfd with these flags.
pub fn memfd(flags: usize) -> Result {
    raw(libc::SYS_memfd_create, &[c"badargs".as_ptr() as usize, flags])
}
