//! /proc/PID/maps, smaps and smaps_rollup: the areas of a process, with their names and what their pages are.
//!
//! Called by `process`. Looking changes nothing, not even what counts as used (GU-02).

use alloc::vec::Vec;

use faultless::AreaInfo;
use faultless_linux::text::{MapLine, PageSums, line_of};

use super::super::data;
use super::super::device::split_number;
use super::super::inode::ROOT_DEVICE;
use super::text::Text;
use crate::arch::CpuLocal;
use crate::errno::Errno;
use crate::heap;
use crate::machine::KernelMachine;
use crate::process::Memory;
use crate::shm;

/// Where System V shared memory seems to be.
const SHARED_DEVICE: u64 = 1;
/// More than a line is long without its name.
const LINE: usize = 128;
/// More than the lines of one area in smaps are long.
const LINES: usize = 1024;

/// What is asked of the areas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detail {
    /// A line each (`maps`).
    Lines,
    /// And what their pages are (`smaps`).
    Pages,
}

/// Appends `maps` or `smaps`.
///
/// # Errors
///
/// `ENOMEM`: a program can have many areas.
pub fn write(cpu: &mut CpuLocal, memory: &Memory, detail: Detail, text: &mut Text) -> Result<(), Errno> {
    let extra = if detail == Detail::Pages { LINES } else { 0 };
    for area in &collect(cpu, memory)? {
        let line = named(memory, area);
        // A byte of the name may become four.
        heap::reserve(&mut text.0, LINE + line.name.len() * 4 + extra)?;
        line.write(text);
        if detail == Detail::Pages {
            PageSums::of(memory.space(), &mut cpu.vm, area).write_area(area, text);
        }
    }
    Ok(())
}

/// Appends `smaps_rollup`.
///
/// # Errors
///
/// `ENOMEM`.
pub fn write_rollup(cpu: &mut CpuLocal, memory: &Memory, text: &mut Text) -> Result<(), Errno> {
    let areas = collect(cpu, memory)?;
    let ends = areas.first().zip(areas.last());
    let range = ends.map_or((0, 0), |(first, last)| (first.range.start().as_u64(), last.range.end().as_u64()));
    let mut sums = PageSums::default();
    for area in &areas {
        sums += PageSums::of(memory.space(), &mut cpu.vm, area);
    }
    MapLine { range, name: b"[rollup]".to_vec(), ..MapLine::default() }.write(text);
    sums.write_rollup(text);
    Ok(())
}

/// All areas: their pages cannot be looked at while the areas are visited.
fn collect(cpu: &mut CpuLocal, memory: &Memory) -> Result<Vec<AreaInfo<KernelMachine>>, Errno> {
    let mut complete = Ok(());
    let mut areas = Vec::new();
    memory.space().areas(&mut cpu.vm, |area| {
        complete = complete.and_then(|()| heap::reserve(&mut areas, 1));
        if complete.is_ok() {
            areas.push(area);
        }
    });
    complete?;
    Ok(areas)
}

/// The line of an area with its file and name.
fn named(memory: &Memory, area: &AreaInfo<KernelMachine>) -> MapLine {
    let (brk_start, brk_end) = memory.space().brk_range();
    let heap = (brk_start.as_u64(), brk_end.as_u64());
    let stack = memory.image.stack;
    let mut line = line_of(area);
    let range = line.range;
    match &area.object {
        Some((object, _)) => match data::file_of_object(object.id()) {
            Some(inode) => {
                let (major, minor) = split_number(inode.device);
                line.file = (major, minor, inode.number);
                line.name = inode.path();
            }
            None => {
                // Shared memory that is no file of ours.
                let id = shm::id_of(object.id()).and_then(|id| u64::try_from(id).ok());
                let (major, minor) = split_number(if id.is_some() { SHARED_DEVICE } else { ROOT_DEVICE });
                line.file = (major, minor, id.unwrap_or(object.id()));
                line.name = object.label().into();
            }
        },
        None if range.0 <= heap.1 && range.1 > heap.0 && heap.0 != heap.1 => {
            line.name = b"[heap]".to_vec();
        }
        None if range.0 <= stack && stack < range.1 => line.name = b"[stack]".to_vec(),
        None => {}
    }
    line
}
