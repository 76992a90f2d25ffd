//! Texts of /proc, compared with what Linux writes.

use faultless_kernel_hosted::names::name_of;
use faultless_kernel_hosted::text::{
    Facts, LargePages, MachineMemory, Sizes, Text, write_cpu_list, write_limit, write_uptime,
};
use faultless_linux::text::MapLine;
use linux_raw_sys::general as linux;

fn text(write: impl FnOnce(&mut Text)) -> String {
    let mut text = Text::default();
    write(&mut text);
    String::from_utf8(text.0).expect("written as UTF-8")
}

#[test]
fn lines_of_maps_are_aligned() {
    let line = MapLine {
        range: (0x40_0000, 0x40_1000),
        rights: (true, false, true),
        offset: 0x1000,
        file: (8, 1, 1234),
        name: b"/bin/x".to_vec(),
        ..MapLine::default()
    };
    let expected = format!("{:<73}/bin/x\n", "00400000-00401000 r-xp 00001000 08:01 1234 ");
    assert_eq!(text(|t| line.write(t)), expected);
    let nameless = MapLine { range: (0x7fff_f7ff_0000, 0x7fff_f7ff_1000), shared: true, ..MapLine::default() };
    assert_eq!(text(|t| nameless.write(t)), "7ffff7ff0000-7ffff7ff1000 ---s 00000000 00:00 0 \n");
}

#[test]
fn a_long_line_of_maps_keeps_a_space_before_the_name() {
    let line = MapLine {
        range: (0xffff_ffff_ff60_0000, 0xffff_ffff_ff60_1000),
        file: (0xff, 0xfffff, u64::MAX),
        offset: u64::MAX - 4095,
        name: b"a\nb".to_vec(),
        ..MapLine::default()
    };
    assert!(text(|t| line.write(t)).ends_with("18446744073709551615  a\\012b\n"));
}

const SIZES: Sizes = Sizes {
    peak: 10,
    total: 12,
    resident_peak: 3,
    anon: 2,
    file: 3,
    shmem: 1,
    data: 4,
    stack: 33,
    text: 5,
    executable: 8,
    tables: 6,
    locked: 7,
    hugetlb: 512,
};

#[test]
fn sizes_are_pages_in_statm_and_kilobytes_in_status() {
    assert_eq!(text(|t| SIZES.write_statm(t)), "12 6 4 5 0 37 0\n");
    let status = text(|t| SIZES.write_status(t));
    for line in [
        "VmPeak:\t      48 kB",
        "VmSize:\t      48 kB",
        "VmHWM:\t      24 kB",
        "VmRSS:\t      24 kB",
        "RssAnon:\t       8 kB",
        "RssFile:\t      12 kB",
        "RssShmem:\t       4 kB",
        "VmData:\t      16 kB",
        "VmStk:\t     132 kB",
        "VmExe:\t      20 kB",
        "VmLib:\t      12 kB",
        "VmLck:\t      28 kB",
        "VmPTE:\t      24 kB",
        "VmSwap:\t       0 kB",
        "HugetlbPages:\t    2048 kB",
    ] {
        assert!(status.lines().any(|l| l == line), "{line} is missing from\n{status}");
    }
}

fn facts() -> Facts {
    Facts {
        tid: 7,
        pid: 7,
        parent: 1,
        group: 7,
        session: 1,
        name: b"a) b".to_vec(),
        state: 'S',
        terminal: (0, -1),
        threads: 2,
        affinity: 0b1011,
        umask: 0o22,
        ..Facts::default()
    }
}

#[test]
fn stat_has_52_fields_after_any_name() {
    for sizes in [None, Some(&SIZES)] {
        let stat = text(|t| facts().write_stat(sizes, t));
        assert!(stat.starts_with("7 (a) b) S 1 7 1 0 -1 0 "), "{stat}");
        let rest = stat.rsplit_once(") ").expect("a name in parentheses").1;
        assert_eq!(rest.split_whitespace().count(), 50, "{stat}");
    }
}

#[test]
fn status_of_a_zombie_has_no_memory() {
    let alive = text(|t| facts().write_status(Some(&SIZES), t));
    let zombie = text(|t| Facts { state: 'Z', ..facts() }.write_status(None, t));
    assert!(alive.contains("State:\tS (sleeping)\n") && alive.contains("VmRSS:"));
    assert!(zombie.contains("State:\tZ (zombie)\n") && !zombie.contains("Vm"));
    assert!(alive.contains("Umask:\t0022\n") && alive.contains("Cpus_allowed_list:\t0-1,3\n"));
}

#[test]
fn small_formats() {
    assert_eq!(text(|t| write_cpu_list(0, t)), "");
    assert_eq!(text(|t| write_cpu_list(u64::MAX, t)), "0-63");
    assert_eq!(text(|t| write_cpu_list(0b1101, t)), "0,2-3");
    assert_eq!(text(|t| write_uptime(12_345, 5, t)), "123.45 0.05\n");
    assert_eq!(
        text(|t| write_limit("Max stack size", "bytes", (8_388_608, u64::MAX), t)),
        "Max stack size            8388608              unlimited            bytes     \n"
    );
    assert!(text(|t| write_limit("x", "", (0, u64::MAX - 1), t)).contains(" 0 "));
}

#[test]
fn names_of_calls_agree_with_their_numbers() {
    for (number, name) in [
        (linux::__NR_read, "read"),
        (linux::__NR_mremap, "mremap"),
        (linux::__NR_uname, "uname"),
        (linux::__NR_rseq, "rseq"),
        (linux::__NR_clone3, "clone3"),
        (linux::__NR_futex_waitv, "futex_waitv"),
        (linux::__NR_file_setattr, "file_setattr"),
    ] {
        assert_eq!(name_of(number as usize), Some(name));
    }
    assert_eq!(name_of(400), None);
    assert_eq!(name_of(10_000), None);
}

#[test]
fn the_machine_is_told_in_kilobytes_and_in_pages() {
    let memory = MachineMemory {
        total: 1000,
        free: 400,
        cached: 70,
        shmem: 20,
        anon: 30,
        mapped: 40,
        anon_huge: 0,
        dirty: 3,
        writing: 2,
        tables: 5,
        pool: LargePages { total: 9, free: 7, reserved: 5, surplus: 1 },
        commit: (600, 50),
        faults: 123,
        major_faults: 4,
    };
    let shown = text(|t| memory.write(t));
    for line in [
        "MemTotal:           4000 kB",
        "Cached:              280 kB",
        "Dirty:                12 kB",
        "Writeback:             8 kB",
        "PageTables:           20 kB",
        "Committed_AS:        200 kB",
        "HugePages_Total:       9",
        "HugePages_Free:        7",
        "HugePages_Rsvd:        5",
        "HugePages_Surp:        1",
        "Hugepagesize:       2048 kB",
        "Hugetlb:           18432 kB",
    ] {
        assert!(shown.lines().any(|l| l == line), "{line} is missing from\n{shown}");
    }
    let shown = text(|t| memory.write_pages(t));
    for line in ["nr_free_pages 400", "nr_shmem 20", "pgfault 123", "pgmajfault 4"] {
        assert!(shown.lines().any(|l| l == line), "{line} is missing from\n{shown}");
    }
}
