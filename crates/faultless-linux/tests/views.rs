//! pagemap, clear_refs and smaps of a hosted space: what the entries and lines say (AC-02, GU-02).

use faultless::{Access, AreaFlags, CpuId, Layout, MapRequest, PAGE_SIZE, PageRange, Rights, VirtAddr, Vm};
use faultless_hosted::{Fast, FastConfig};
use faultless_linux::pagemap::{EXCLUSIVE, Frames, PRESENT, SOFT_DIRTY, clear_refs, pagemap};
use faultless_linux::text::{PageSums, Text, vm_flags};
use faultless_linux::{Errno, Memory};

const AT: u64 = 0x1_0000_0000;

type Cpu = faultless::Cpu<Fast>;
type Space = faultless::Space<Fast>;

/// Four pages at `AT`: written, read, untouched, written.
fn with_pages(then: impl FnOnce(&mut Cpu, &Space)) {
    let vm = Vm::new(Fast::new(FastConfig::new(512, 1)).expect("memory")).expect("a machine");
    let mut cpu = vm.cpu(CpuId::new(0)).expect("a CPU");
    let memory = Memory::new(vm.new_space(&mut cpu, Layout::linux()).expect("a space"));
    let at = |page: u64| VirtAddr::new(AT + page * PAGE_SIZE);
    let request = MapRequest::anonymous(4 * PAGE_SIZE).fixed(at(0));
    memory.space.map(&mut cpu, request).expect("room");
    for (page, access) in [(0, Access::Write), (1, Access::Read), (3, Access::Write)] {
        memory.space.fault(&mut cpu, at(page), access).expect("memory");
    }
    then(&mut cpu, &memory.space);
    memory.space.exit(&mut cpu);
}

fn entries(cpu: &mut Cpu, space: &Space, frames: Frames) -> Vec<u64> {
    let mut entries = [u64::MAX; 6];
    assert_eq!(pagemap(space, cpu, AT / PAGE_SIZE - 1, frames, &mut entries), 6);
    entries.to_vec()
}

#[test]
fn pagemap_tells_what_is_there_and_whose() {
    with_pages(|cpu, space| {
        let own = PRESENT | EXCLUSIVE;
        let new = |bits| bits | SOFT_DIRTY;
        assert_eq!(entries(cpu, space, Frames::Hidden), [0, new(own), new(PRESENT), new(0), new(own), 0]);
        clear_refs(space, cpu, b"4\n").expect("memory");
        assert_eq!(entries(cpu, space, Frames::Hidden), [0, own, PRESENT, 0, own, 0]);
        let child = space.fork(cpu).expect("memory");
        assert_eq!(entries(cpu, space, Frames::Hidden), [0, PRESENT, PRESENT, 0, PRESENT, 0]);
        space.write(cpu, VirtAddr::new(AT), &[1]).expect("writable");
        assert_eq!(entries(cpu, space, Frames::Hidden), [0, new(own), PRESENT, 0, PRESENT, 0]);
        assert_eq!(entries(cpu, &child, Frames::Hidden), [0, own, PRESENT, 0, PRESENT, 0]);
        let shown = entries(cpu, space, Frames::Shown);
        assert_ne!(shown[1] << 9, shown[4] << 9, "different frames");
        assert_eq!(shown[4], entries(cpu, &child, Frames::Shown)[4], "the same frame");
        child.exit(cpu);
    });
}

#[test]
fn pagemap_ends_with_the_space() {
    with_pages(|cpu, space| {
        let end = space.layout().highest.as_u64() / PAGE_SIZE;
        let tables = space.usage().tables;
        for (first, count) in [(end - 3, 3), (end, 0), (u64::MAX, 0), (1 << 24, 8)] {
            let mut entries = [1; 8];
            assert_eq!(pagemap(space, cpu, first, Frames::Hidden, &mut entries), count);
            assert!(entries[..count].iter().all(|entry| *entry == 0));
        }
        assert_eq!(space.usage().tables, tables);
    });
}

#[test]
fn clear_refs_takes_five_numbers() {
    with_pages(|cpu, space| {
        for wrong in ["", "0", "6", "-1", "x", "4 4", "99999999999"] {
            assert_eq!(clear_refs(space, cpu, wrong.as_bytes()), Err(Errno::EINVAL), "{wrong}");
        }
        for right in ["1", " 2\n", "+3", "04", "5"] {
            assert_eq!(clear_refs(space, cpu, right.as_bytes()), Ok(()), "{right}");
        }
    });
}

#[test]
fn the_flags_of_an_area_are_in_linuxs_order() {
    with_pages(|cpu, space| {
        let flags = AreaFlags::DROPPABLE | AreaFlags::SEALED | AreaFlags::WIPE_ON_FORK | AreaFlags::NO_DUMP;
        let request = MapRequest { flags: flags | AreaFlags::NO_RESERVE, ..MapRequest::anonymous(PAGE_SIZE) };
        let at = space.map(cpu, request).expect("room");
        let mut text = Text::default();
        vm_flags(&space.area_at(cpu, at).expect("mapped"), &mut text);
        assert_eq!(String::from_utf8(text.0).expect("text"), "VmFlags: rd wr mr mw me nr wf dd sd dp sl \n");
    });
}

#[test]
fn smaps_tells_what_the_pages_of_an_area_are() {
    with_pages(|cpu, space| {
        let range = PageRange::with_len(VirtAddr::new(AT), PAGE_SIZE).expect("a range");
        space.protect(cpu, range, Rights::READ).expect("mapped");
        let mut areas = Vec::new();
        space.areas(cpu, |area| areas.push(area));
        let texts: Vec<String> = areas
            .iter()
            .map(|area| {
                let mut text = Text::default();
                PageSums::of(space, cpu, area).write_area(area, &mut text);
                String::from_utf8(text.0).expect("text")
            })
            .collect();
        for (text, size, flags) in [(&texts[0], 4, "rd mr mw me ac sd"), (&texts[1], 12, "rd wr mr mw me ac sd")] {
            let lines = [
                format!("Size:              {size:5} kB"),
                "Rss:                   4 kB".to_owned(),
                "Pss:                   4 kB".to_owned(),
                "Private_Dirty:         4 kB".to_owned(),
                "Anonymous:             4 kB".to_owned(),
                "THPeligible:           0".to_owned(),
                format!("VmFlags: {flags} "),
            ];
            for line in lines {
                assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
            }
        }
    });
}
