//! The calls' checks: bad arguments one at a time, on the hosted machine. What Linux answers is in the comments of no
//! test: `faultless check --against linux` asks it.

use faultless::{
    Backing, CpuId, Layout, MapRequest, Page, PageRange, PageReader, PageWriter, Pager, PagerError, Sharing, VirtAddr,
    Vm,
};
use faultless_hosted::{Fast, FastConfig};
use faultless_linux::calls::{self, FileRights, MapFile, MapTarget, MmapArgs, NoFile};
use faultless_linux::{Caller, Errno, Limits, Memory, text};
use linux_raw_sys::general as linux;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

const AT: u64 = 0x1_0000_0000;
const ANON: u32 = linux::MAP_PRIVATE | linux::MAP_ANONYMOUS;
const FIXED: u32 = ANON | linux::MAP_FIXED;

fn with_caller(limits: Limits, then: impl FnOnce(&mut Caller<'_, Fast>)) {
    let vm = Vm::new(Fast::new(FastConfig::new(512, 1)).expect("memory")).expect("a machine");
    let mut cpu = vm.cpu(CpuId::new(0)).expect("a CPU");
    let memory = Memory::new(vm.new_space(&mut cpu, Layout::linux()).expect("a space"));
    then(&mut Caller { memory: &memory, cpu: &mut cpu, limits });
    memory.space.exit(&mut cpu);
}

fn args(flags: u32) -> MmapArgs {
    MmapArgs { address: AT, length: 0x3000, protection: linux::PROT_READ | linux::PROT_WRITE, flags, offset: 0 }
}

fn anon(caller: &mut Caller<'_, Fast>, args: MmapArgs) -> Result<u64, Errno> {
    calls::mmap(caller, args, None::<&NoFile>)
}

#[test]
fn mmap_checks_in_linux_order() {
    with_caller(Limits::NONE, |caller| {
        let cases = [
            (MmapArgs { offset: 1, length: 0, ..args(ANON) }, Errno::EINVAL),
            (MmapArgs { length: 0, ..args(linux::MAP_PRIVATE) }, Errno::EBADF),
            (MmapArgs { length: 0, ..args(FIXED) }, Errno::EINVAL),
            (MmapArgs { length: u64::MAX, ..args(ANON) }, Errno::ENOMEM),
            (MmapArgs { address: AT + 1, length: 1 << 47, ..args(FIXED) }, Errno::ENOMEM),
            (MmapArgs { address: AT + 1, ..args(FIXED) }, Errno::EINVAL),
            (MmapArgs { address: 0, ..args(FIXED) }, Errno::EPERM),
            (MmapArgs { address: 22_u64.wrapping_neg(), ..args(FIXED) }, Errno::EINVAL),
            (MmapArgs { address: 4096_u64.wrapping_neg(), ..args(FIXED) }, Errno::ENOMEM),
            (args(linux::MAP_ANONYMOUS), Errno::EINVAL),
            (args(ANON | linux::MAP_HUGETLB), Errno::ENOMEM),
        ];
        for (args, errno) in cases {
            assert_eq!(anon(caller, args), Err(errno), "{args:?}");
        }
        assert_eq!(anon(caller, args(FIXED)), Ok(AT));
        assert_eq!(anon(caller, args(ANON | linux::MAP_FIXED_NOREPLACE)), Err(Errno::EEXIST));
    });
}

/// A file that only refuses.
struct Refusing(FileRights);

impl MapFile<Fast> for Refusing {
    fn rights(&self) -> FileRights {
        self.0
    }

    fn is_regular(&self) -> bool {
        true
    }

    fn target(&self) -> Result<MapTarget<Fast>, Errno> {
        Ok(MapTarget::Unmappable)
    }
}

#[test]
fn a_file_is_asked_last() {
    let (none, read) = (FileRights { read: false, write: false }, FileRights { read: true, write: false });
    with_caller(Limits::NONE, |caller| {
        let mut map = |flags, rights| calls::mmap(caller, args(flags), Some(&Refusing(rights)));
        assert_eq!(map(linux::MAP_SHARED, read), Err(Errno::EACCES));
        assert_eq!(map(linux::MAP_PRIVATE, none), Err(Errno::EACCES));
        assert_eq!(map(linux::MAP_PRIVATE, read), Err(Errno::ENODEV));
        assert_eq!(map(linux::MAP_SHARED_VALIDATE | 1 << 25, read), Err(Errno::EOPNOTSUPP));
        assert_eq!(map(0, read), Err(Errno::EINVAL));
    });
}

/// A device with one page to show, or that has run out of it.
struct Window<'a>(Option<&'a Page<Fast>>);

impl MapFile<Fast> for Window<'_> {
    fn rights(&self) -> FileRights {
        FileRights { read: true, write: true }
    }

    fn is_regular(&self) -> bool {
        false
    }

    fn target(&self) -> Result<MapTarget<Fast>, Errno> {
        Ok(MapTarget::Frames)
    }

    fn fill(&self, caller: &mut Caller<'_, Fast>, range: PageRange, _offset: u64) -> Result<(), Errno> {
        let page = self.0.ok_or(Errno::ENOMEM)?;
        caller.memory.space.insert_page(caller.cpu, range.start(), page).map_err(|_| Errno::EBUSY)
    }
}

#[test]
fn a_driver_fills_its_mapping_or_there_is_none() {
    with_caller(Limits::NONE, |caller| {
        let page = caller.cpu.vm().clone().new_page(caller.cpu).expect("memory");
        page.write(caller.cpu, 0, &[9]);
        let shared = linux::MAP_SHARED | linux::MAP_FIXED | linux::MAP_POPULATE;
        assert_eq!(calls::mmap(caller, args(shared), Some(&Window(Some(&page)))), Ok(AT));
        let mut byte = [0];
        caller.memory.space.read(caller.cpu, VirtAddr::new(AT), &mut byte).expect("the page");
        assert_eq!(byte, [9]);
        // The rest is a hole, also for MAP_POPULATE.
        assert!(caller.memory.space.read(caller.cpu, VirtAddr::new(AT + 0x1000), &mut byte).is_err());
        assert_eq!(calls::madvise(caller, AT, 0x1000, linux::MADV_POPULATE_WRITE), Ok(()));
        assert_eq!(calls::mmap(caller, args(shared), Some(&Window(None))), Err(Errno::ENOMEM));
        assert_eq!(calls::mincore(caller, AT, 0x1000, 0), Err(Errno::ENOMEM));
    });
}

#[test]
fn ranges_are_checked() {
    with_caller(Limits::NONE, |caller| {
        assert_eq!(anon(caller, args(FIXED)), Ok(AT));
        assert_eq!(calls::munmap(caller, AT, 0), Err(Errno::EINVAL));
        assert_eq!(calls::munmap(caller, AT, u64::MAX), Err(Errno::EINVAL));
        assert_eq!(calls::mprotect(caller, AT + 1, 0, 0), Err(Errno::EINVAL));
        assert_eq!(calls::mprotect(caller, AT, 0, 1 << 40), Ok(()));
        assert_eq!(calls::mprotect(caller, AT, 0x4000, 0), Err(Errno::ENOMEM));
        assert_eq!(calls::mprotect(caller, AT, 0x1000, 1 << 40), Err(Errno::EINVAL));
        assert_eq!(calls::msync(caller, AT, 0x3000, linux::MS_SYNC | linux::MS_ASYNC), Err(Errno::EINVAL));
        assert_eq!(calls::msync(caller, AT, 0x3000, linux::MS_SYNC), Ok(()));
        assert_eq!(calls::msync(caller, AT, 0x4000, linux::MS_SYNC), Err(Errno::ENOMEM));
        assert_eq!(calls::madvise(caller, AT, 0x3000, linux::MADV_WILLNEED), Ok(()));
        assert_eq!(calls::madvise(caller, AT, 0x3000, linux::MADV_REMOVE), Err(Errno::EINVAL));
        assert_eq!(calls::madvise(caller, AT, 0x3000, linux::MADV_POPULATE_READ), Err(Errno::EINVAL));
        assert_eq!(calls::mprotect(caller, AT, 0x3000, 3), Ok(()));
        assert_eq!(calls::madvise(caller, AT, 0x5000, linux::MADV_POPULATE_WRITE), Err(Errno::ENOMEM));
        assert_eq!(calls::mincore(caller, AT, 0x3000, 0), Ok(Some(vec![1, 1, 1])));
        assert_eq!(calls::mincore(caller, AT, 0x4000, 0), Err(Errno::ENOMEM));
        assert_eq!(calls::mincore(caller, AT, 0x3000, 1), Ok(None));
        assert_eq!(calls::madvise(caller, AT, 0x1000, linux::MADV_DONTNEED), Ok(()));
        assert_eq!(calls::mincore(caller, AT, 0x3000, 0), Ok(Some(vec![0, 1, 1])));
        assert_eq!(calls::madvise(caller, AT, 0x3000, linux::MADV_HWPOISON), Err(Errno::EINVAL));
        assert_eq!(calls::munlock(caller, AT + 5, 0x2000), Ok(()));
        assert_eq!(calls::mlock2(caller, AT, 1, 6), Err(Errno::EINVAL));
        assert_eq!(calls::mlockall(caller, linux::MCL_ONFAULT), Err(Errno::EINVAL));
    });
}

#[test]
fn mremap_checks_in_linux_order() {
    use calls::MremapArgs;
    with_caller(Limits::NONE, |caller| {
        assert_eq!(anon(caller, args(FIXED)), Ok(AT));
        let usual =
            MremapArgs { address: AT, old_length: 0x3000, new_length: 0x3000, flags: 3, new_address: AT + 0x8000 };
        let cases = [
            (MremapArgs { flags: 8, address: 1, ..usual }, Errno::EINVAL),
            (MremapArgs { address: AT + 1, ..usual }, Errno::EINVAL),
            (MremapArgs { new_length: 0, ..usual }, Errno::EINVAL),
            (MremapArgs { new_address: AT + 0x2000, ..usual }, Errno::EINVAL),
            (MremapArgs { flags: 2, ..usual }, Errno::EINVAL),
            (MremapArgs { flags: 5, new_length: 0x1000, ..usual }, Errno::EINVAL),
            (MremapArgs { address: AT + 0x10000, ..usual }, Errno::EFAULT),
            (MremapArgs { old_length: 0, flags: 1, ..usual }, Errno::EINVAL),
            (MremapArgs { old_length: 0x4000, new_length: 0x5000, flags: 1, ..usual }, Errno::EFAULT),
        ];
        for (args, errno) in cases {
            assert_eq!(calls::mremap(caller, args), Err(errno), "{args:?}");
        }
        // Shrinks over the end of the mapping, then moves what is left, then with a hole.
        let shrink = MremapArgs { old_length: 0x9000, new_length: 0x2000, flags: 0, ..usual };
        assert_eq!(calls::mremap(caller, shrink), Ok(AT));
        assert_eq!(calls::mremap(caller, usual), Ok(AT + 0x8000));
        assert_eq!(calls::mincore(caller, AT, 0x1000, 0), Err(Errno::ENOMEM));
        assert_eq!(calls::mincore(caller, AT + 0x8000, 0x2000, 0), Ok(Some(vec![0, 0])));
    });
}

#[test]
fn limits_hold() {
    with_caller(Limits::NONE, |caller| {
        caller.memory.space.set_limits(faultless::Limits { pages: 5, data: 4, ..faultless::Limits::NONE });
        assert_eq!(anon(caller, args(FIXED)), Ok(AT));
        // Replacing what is there costs nothing more.
        assert_eq!(anon(caller, args(FIXED)), Ok(AT));
        let next = |length, protection| MmapArgs { address: AT + 0x10000, length, protection, ..args(FIXED) };
        assert_eq!(anon(caller, next(0x2000, 3)), Err(Errno::ENOMEM));
        assert_eq!(anon(caller, next(0x2000, 1)), Ok(AT + 0x10000));
        assert_eq!(anon(caller, MmapArgs { address: AT + 0x20000, length: 1, ..args(FIXED) }), Err(Errno::ENOMEM));
        assert_eq!(text::Sizes::of(caller.memory, caller.cpu).total, 5);
        let mut shown = text::Text::default();
        caller.memory.space.areas(caller.cpu, |area| text::line_of(&area).write(&mut shown));
        assert_eq!(
            core::str::from_utf8(&shown.0),
            Ok("100000000-100003000 rw-p 00000000 00:00 0 \n100010000-100012000 r--p 00000000 00:00 0 \n")
        );
    });
}

/// A file that is kept only sometimes; counts the pages that were.
#[derive(Default)]
struct Unreliable {
    fails: AtomicBool,
    kept: AtomicU64,
}

impl Pager for Unreliable {
    fn fill(&self, _index: u64, _page: &mut PageWriter<'_>) -> Result<(), PagerError> {
        Ok(())
    }

    fn writes_back(&self) -> bool {
        true
    }

    fn write_page(&self, _index: u64, _page: &PageReader<'_>) -> Result<(), PagerError> {
        if self.fails.load(Relaxed) {
            return Err(PagerError);
        }
        self.kept.fetch_add(1, Relaxed);
        Ok(())
    }
}

#[test]
fn msync_writes_back_and_tells_failures_once() {
    with_caller(Limits::NONE, |caller| {
        let pager = Arc::new(Unreliable::default());
        let object = caller.cpu.vm().clone().new_file(0x3000, pager.clone(), "file").expect("memory");
        let request = MapRequest {
            sharing: Sharing::Shared,
            backing: Backing::Object { object, offset: 0 },
            ..MapRequest::anonymous(0x3000).fixed(VirtAddr::new(AT))
        };
        caller.memory.space.map(caller.cpu, request).expect("room");
        let store = |caller: &mut Caller<'_, Fast>, at| {
            caller.memory.space.write(caller.cpu, VirtAddr::new(at), &[1]).expect("mapped");
        };
        store(caller, AT);
        store(caller, AT + 0x2000);
        assert_eq!(calls::msync(caller, AT, 0x3000, linux::MS_ASYNC), Ok(()));
        assert_eq!(pager.kept.load(Relaxed), 0, "there is nobody who would do it later");
        assert_eq!(calls::msync(caller, AT, 0x1000, linux::MS_SYNC), Ok(()));
        assert_eq!(pager.kept.load(Relaxed), 1);
        pager.fails.store(true, Relaxed);
        assert_eq!(calls::msync(caller, AT, 0x3000, linux::MS_SYNC), Err(Errno::EIO));
        pager.fails.store(false, Relaxed);
        assert_eq!(calls::msync(caller, AT, 0x4000, linux::MS_SYNC), Err(Errno::ENOMEM), "the end is a hole");
        assert_eq!(pager.kept.load(Relaxed), 2);
    });
}
