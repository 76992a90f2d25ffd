//! Which CPUs and interrupt controllers there are, from the ACPI tables.
//!
//! Read on the boot tables, which map all that firmware puts below 4 GiB.

use core::ptr::NonNull;

use acpi::madt::{Madt, MadtEntry};
use acpi::{AcpiHandler, AcpiTables, PhysicalMapping};

use super::paging::PHYSMAP;
use crate::arch::MAX_CPUS;
use crate::arch::ioapic::Line;

/// ISA interrupt of COM1.
const SERIAL_IRQ: u8 = 4;
const LOCAL_APIC_DEFAULT: u64 = 0xfee0_0000;

/// What the tables say.
#[derive(Clone, Copy)]
pub struct Platform {
    /// Physical address of the local APICs.
    pub local_apic: u64,
    /// Where COM1's interrupt arrives.
    pub serial: Option<Line>,
    /// APIC ids of usable CPUs, in table order.
    ids: [u32; MAX_CPUS],
    count: usize,
}

impl Platform {
    /// How many CPUs there are (at least the one this runs on).
    pub fn cpu_count(&self) -> usize {
        self.count.max(1)
    }

    /// APIC ids of the CPUs.
    pub fn ids(&self) -> &[u32] {
        &self.ids[..self.count]
    }
}

/// Reaches tables through the window of the boot tables.
#[derive(Clone)]
struct Window;

impl AcpiHandler for Window {
    unsafe fn map_physical_region<T>(&self, physical: usize, size: usize) -> PhysicalMapping<Self, T> {
        let at = NonNull::new((PHYSMAP as usize + physical) as *mut T).expect("the window is not at zero");
        // SAFETY: the boot tables map `size` bytes there; they stay mapped while the reader runs.
        unsafe { PhysicalMapping::new(physical, at, size, size, Window) }
    }

    fn unmap_physical_region<T>(_region: &PhysicalMapping<Self, T>) {}
}

/// Reads the tables. Without them: one CPU, no serial interrupt.
pub fn read(rsdp: u64) -> Platform {
    let mut platform = Platform { local_apic: LOCAL_APIC_DEFAULT, serial: None, ids: [0; MAX_CPUS], count: 0 };
    if rsdp != 0 {
        // SAFETY: the boot protocol says the root pointer is there.
        if let Ok(tables) = unsafe { AcpiTables::from_rsdp(Window, rsdp as usize) }
            && let Ok(madt) = tables.find_table::<Madt>()
        {
            read_madt(&madt, &mut platform);
        }
    }
    platform
}

fn read_madt(madt: &PhysicalMapping<Window, Madt>, platform: &mut Platform) {
    const USABLE: u32 = 1;
    let mut input = u32::from(SERIAL_IRQ);
    let mut controllers: [Option<(u64, u32)>; 4] = [None; 4];
    let mut controller_count = 0;
    platform.local_apic = u64::from(madt.get().local_apic_address);
    for entry in madt.get().entries() {
        match entry {
            MadtEntry::LocalApic(local) if local.flags & USABLE != 0 && platform.count < MAX_CPUS => {
                platform.ids[platform.count] = u32::from(local.apic_id);
                platform.count += 1;
            }
            MadtEntry::IoApic(io) if controller_count < controllers.len() => {
                controllers[controller_count] = Some((u64::from(io.io_apic_address), io.global_system_interrupt_base));
                controller_count += 1;
            }
            MadtEntry::InterruptSourceOverride(over) if over.irq == SERIAL_IRQ => {
                input = over.global_system_interrupt;
            }
            _ => {}
        }
    }
    platform.serial = controllers
        .iter()
        .flatten()
        .filter(|(_, base)| *base <= input)
        .max_by_key(|(_, base)| *base)
        .map(|&(ioapic, base)| Line { ioapic, input: input - base });
}
