//! The kernel's own half of every address space, made once at boot and never changed.
//!
//! | from | what | rights |
//! |---|---|---|
//! | `PHYSMAP` | all RAM, at its physical address | rw, but the kernel's code and constants r |
//! | `DEVICES` | registers of interrupt controllers | rw, uncached |
//! | `STACKS` | one kernel stack per CPU, unmapped pages between | rw |
//! | `KERNEL_BASE` | the kernel image | code rx, constants r, data rw |
//!
//! Nothing is writable and executable. There is no identity mapping: the other CPUs start on the
//! boot tables, which live on for that.

use core::sync::atomic::{AtomicU64, Ordering};

use super::memory;
use super::pvh::{BootInfo, Region};
use crate::arch::{cpu, tlb};
use faultless::FrameId;

/// Start of the window onto all RAM.
pub const PHYSMAP: u64 = 0xffff_8000_0000_0000;
/// Start of device registers.
pub const DEVICES: u64 = 0xffff_fe00_0000_0000;
/// Start of the kernel stacks.
pub const STACKS: u64 = 0xffff_fe00_4000_0000;
/// Where the linker puts the kernel, less its physical address.
pub const KERNEL_BASE: u64 = 0xffff_ffff_8000_0000;

const PAGE: u64 = 4096;
const LARGE: u64 = 2 << 20;
const DEVICES_END: u64 = DEVICES + LARGE;

const PRESENT: u64 = 1;
const WRITABLE: u64 = 1 << 1;
const UNCACHED: u64 = 1 << 4 | 1 << 3;
const LARGE_PAGE: u64 = 1 << 7;
const GLOBAL: u64 = 1 << 8;
const NO_EXECUTE: u64 = 1 << 63;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

const READ: u64 = PRESENT | GLOBAL | NO_EXECUTE;
const READ_WRITE: u64 = READ | WRITABLE;
const READ_EXECUTE: u64 = PRESENT | GLOBAL;

/// Physical address of the kernel's root table.
static ROOT: AtomicU64 = AtomicU64::new(0);
/// The next free page of the device window.
static NEXT_DEVICE: AtomicU64 = AtomicU64::new(DEVICES);

unsafe extern "C" {
    safe static text_start: u8;
    safe static text_end: u8;
    safe static rodata_end: u8;
    safe static data_end: u8;
}

/// Where RAM at `physical` is visible.
pub fn physical_to_virtual(physical: u64) -> u64 {
    PHYSMAP + physical
}

/// Root frame of the kernel alone, for CPUs that run no thread.
pub fn kernel_root() -> FrameId {
    FrameId::new(ROOT.load(Ordering::Relaxed) / PAGE)
}

/// Loads the kernel's root on this CPU.
pub fn load_kernel_root() {
    // SAFETY: the kernel's own root maps all that kernel code uses.
    unsafe { cpu::set_root(ROOT.load(Ordering::Relaxed)) };
    tlb::note_loaded(kernel_root());
}

/// Builds the tables and loads them.
pub fn init(info: &BootInfo) {
    let root = new_table();
    ROOT.store(root, Ordering::Relaxed);
    map_ram(root, info);
    map_image(root);
    // Tables for the device window and the stacks exist from now on, so that later mappings never
    // change a root table that spaces have copied.
    entry_for(root, DEVICES, false);
    entry_for(root, STACKS, false);
    load_kernel_root();
}

fn map_ram(root: u64, info: &BootInfo) {
    let image = [
        Region { start: physical_of(&text_start), end: physical_of(&rodata_end) },
        Region { start: u64::MAX, end: u64::MAX },
    ];
    let low = Region { start: 0, end: 1 << 20 };
    let all = info.regions().iter().copied().filter(|r| r.start >= low.end);
    // The archive may lie in a region that the firmware does not report as usable.
    for region in core::iter::once(low).chain(all).chain(info.module.map(whole_pages)) {
        let mut at = region.start;
        for protected in image {
            map(root, PHYSMAP + at, at, clip(at, region.end.min(protected.start)), READ_WRITE);
            at = at.max(protected.start.min(region.end));
            map(root, PHYSMAP + at, at, clip(at, region.end.min(protected.end)), READ);
            at = at.max(protected.end.min(region.end));
        }
    }
}

fn whole_pages(region: Region) -> Region {
    Region { start: region.start & !(PAGE - 1), end: region.end.next_multiple_of(PAGE) }
}

fn clip(start: u64, end: u64) -> u64 {
    end.saturating_sub(start)
}

fn map_image(root: u64) {
    let part = |from: &u8, to: &u8, rights: u64| {
        let (start, end) = (core::ptr::from_ref(from) as u64, core::ptr::from_ref(to) as u64);
        map(root, start, start - KERNEL_BASE, end - start, rights);
    };
    part(&text_start, &text_end, READ_EXECUTE);
    part(&text_end, &rodata_end, READ);
    part(&rodata_end, &data_end, READ_WRITE);
}

fn physical_of(symbol: &u8) -> u64 {
    core::ptr::from_ref(symbol) as u64 - KERNEL_BASE
}

/// Maps `bytes` at `to`, in large pages where both ends allow it.
fn map(root: u64, to: u64, physical: u64, bytes: u64, rights: u64) {
    let mut done = 0;
    while done < bytes {
        let (at, from) = (to + done, physical + done);
        let large = at % LARGE == 0 && from % LARGE == 0 && bytes - done >= LARGE;
        // What overlaps another region is mapped already; it stays as it is.
        if let Some(entry) = entry_for(root, at, large)
            && read(entry) == 0
        {
            write(entry, from | rights | if large { LARGE_PAGE } else { 0 });
        }
        done += if large { LARGE } else { PAGE };
    }
}

/// Address of the entry that maps `address` with a small or a large page; makes missing tables.
/// None if a large page maps it already.
fn entry_for(root: u64, address: u64, large: bool) -> Option<u64> {
    let mut table = root;
    let last = if large { 1 } else { 0 };
    for level in (last + 1..4).rev() {
        let entry = table + index(address, level) * 8;
        let value = read(entry);
        table = if value == 0 {
            let fresh = new_table();
            write(entry, fresh | PRESENT | WRITABLE);
            fresh
        } else if value & LARGE_PAGE != 0 {
            return None;
        } else {
            value & ADDRESS
        };
    }
    Some(table + index(address, last) * 8)
}

fn index(address: u64, level: u32) -> u64 {
    address >> (12 + 9 * level) & 511
}

/// A zeroed table's physical address.
fn new_table() -> u64 {
    let table = memory::take(PAGE);
    for n in 0..512 {
        write(table + n * 8, 0);
    }
    table
}

fn read(physical: u64) -> u64 {
    // SAFETY: an entry of a table made here, visible through the window of the tables in use.
    unsafe { (physical_to_virtual(physical) as *const u64).read() }
}

fn write(physical: u64, value: u64) {
    // SAFETY: as for `read`; tables made here are changed by the first CPU only, at boot.
    unsafe { (physical_to_virtual(physical) as *mut u64).write(value) }
}

/// Maps the page of device registers that `physical` is in. Returns where `physical` is visible.
pub fn map_device(physical: u64) -> u64 {
    let at = NEXT_DEVICE.fetch_add(PAGE, Ordering::Relaxed);
    assert!(at < DEVICES_END, "few devices are mapped");
    map(ROOT.load(Ordering::Relaxed), at, physical & !(PAGE - 1), PAGE, READ_WRITE | UNCACHED);
    at + physical % PAGE
}

/// Maps a kernel stack of `bytes` made of `frames` at `at`; what lies below stays unmapped.
pub fn map_stack(at: u64, physical: u64, bytes: u64) {
    map(ROOT.load(Ordering::Relaxed), at, physical, bytes, READ_WRITE);
}

/// Copies the kernel half of the root into the fresh root table at `to`, whose entries are zero.
pub fn fill_root(set: impl Fn(usize, u64)) {
    let root = ROOT.load(Ordering::Relaxed);
    for n in 256..512 {
        let value = read(root + n * 8);
        if value != 0 {
            set(n as usize, value);
        }
    }
}
