//! What the boot loader says: the PVH start info, copied out before anything overwrites it.

use super::paging::PHYSMAP;

const MAGIC: u32 = 0x336e_c578;
const CMDLINE_MAX: usize = 1024;
const REGIONS_MAX: usize = 32;

/// Memory that may be used.
const KIND_RAM: u32 = 1;

/// A range of physical addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Region {
    pub start: u64,
    pub end: u64,
}

/// The start info in memory of our own.
pub struct BootInfo {
    regions: [Region; REGIONS_MAX],
    region_count: usize,
    cmdline: [u8; CMDLINE_MAX],
    cmdline_len: usize,
    /// The archive, if there is one.
    pub module: Option<Region>,
    /// Physical address of the ACPI root pointer.
    pub rsdp: u64,
}

#[derive(Clone, Copy)]
#[repr(C)]
struct StartInfo {
    magic: u32,
    version: u32,
    flags: u32,
    module_count: u32,
    modules: u64,
    cmdline: u64,
    rsdp: u64,
    memory_map: u64,
    memory_map_entries: u32,
    reserved: u32,
}

#[derive(Clone, Copy)]
#[repr(C)]
struct Module {
    address: u64,
    size: u64,
    cmdline: u64,
    reserved: u64,
}

#[derive(Clone, Copy)]
#[repr(C)]
struct MapEntry {
    address: u64,
    size: u64,
    kind: u32,
    reserved: u32,
}

impl BootInfo {
    /// Usable RAM, as the firmware reports it.
    pub fn regions(&self) -> &[Region] {
        &self.regions[..self.region_count]
    }

    /// The kernel command line.
    pub fn cmdline(&self) -> &[u8] {
        &self.cmdline[..self.cmdline_len]
    }
}

/// Reads a plain value from physical memory below 4 GiB.
fn peek<T: Copy>(physical: u64) -> T {
    // SAFETY: the boot tables map the first 4 GiB; the boot protocol says what lies there, and
    // all types read here are plain numbers.
    unsafe { ((PHYSMAP + physical) as *const T).read_unaligned() }
}

/// Copies the start info at physical address `at`.
pub fn read(at: u64) -> BootInfo {
    let start: StartInfo = peek(at);
    assert!(start.magic == MAGIC, "not started by the PVH protocol");
    let mut info = BootInfo {
        regions: [Region::default(); REGIONS_MAX],
        region_count: 0,
        cmdline: [0; CMDLINE_MAX],
        cmdline_len: 0,
        module: None,
        rsdp: start.rsdp,
    };
    read_regions(&start, &mut info);
    if start.cmdline != 0 {
        while info.cmdline_len < CMDLINE_MAX {
            let byte: u8 = peek(start.cmdline + info.cmdline_len as u64);
            if byte == 0 {
                break;
            }
            info.cmdline[info.cmdline_len] = byte;
            info.cmdline_len += 1;
        }
    }
    if start.module_count > 0 {
        let module: Module = peek(start.modules);
        info.module = Some(Region { start: module.address, end: module.address + module.size });
    }
    info
}

fn read_regions(start: &StartInfo, info: &mut BootInfo) {
    for n in 0..u64::from(start.memory_map_entries) {
        let entry: MapEntry = peek(start.memory_map + n * size_of::<MapEntry>() as u64);
        if entry.kind == KIND_RAM && info.region_count < REGIONS_MAX {
            info.regions[info.region_count] =
                Region { start: entry.address.next_multiple_of(4096), end: (entry.address + entry.size) & !4095 };
            info.region_count += 1;
        }
    }
}
