//! The scenes with a fixed plot.

use crate::Shm;
use faultless_guest::object::Object;
use faultless_guest::probe::{accerr, adrerr, maperr};
use faultless_guest::rng::mix;
use faultless_guest::sys::{self, End, NONE, PAGE, RO, RW, SHARED_ANON};

const SHARED: i32 = libc::MAP_SHARED;
const PRIVATE: i32 = libc::MAP_PRIVATE;

fn key(scene: u64, page: usize) -> u64 {
    mix(scene << 32 | page as u64) | 1
}

/// Two mappings of one file show the same bytes at once.
pub fn views(shm: &Shm, object: &Object) {
    let (one, two) = (shm.map(0, object, SHARED), shm.map(1, object, SHARED));
    for page in 0..shm.pages {
        let (from, to) = if page % 2 == 0 { (one, two) } else { (two, one) };
        // The other side has read the page before in every third case.
        if page % 3 == 0 {
            shm.verify("new file", to, page, 0);
        }
        from.fill(page, key(1, page));
        shm.verify("other view", to, page, key(1, page));
        to.store(page * PAGE + 8, 7);
        shm.report.same("word from the other side", from.load(page * PAGE + 8), 7);
    }
    // Rights of one mapping are not those of the other.
    shm.report.need("mprotect", one.protect(0, shm.pages, RO));
    two.fill(0, key(2, 0));
    shm.verify("read-only view", one, 0, key(2, 0));
    shm.report.same("store", one.try_store(0, 1), Err(accerr(one.addr(0))));
    shm.report.need("munmap", one.unmap(0, 1));
    shm.verify("after the other view went", two, 0, key(2, 0));
}

/// pread and pwrite see and change the same bytes as a shared mapping.
pub fn calls(shm: &Shm, object: &Object) {
    let view = shm.map(0, object, SHARED);
    for page in 0..shm.pages {
        if page % 2 == 0 {
            view.store(page * PAGE, 1);
        }
        shm.report.need("pwrite", object.fill(page, key(3, page)));
        shm.verify("after pwrite", view, page, key(3, page));
        view.fill(page, key(4, page));
        shm.verify_file("after a store", object, page, key(4, page));
    }
    // Across page borders, at odd offsets.
    for border in (PAGE..shm.pages * PAGE).step_by(PAGE) {
        let text = *b"crossing the border";
        shm.report.same("pwrite", object.write(border - 9, &text), Ok(text.len()));
        for (index, byte) in text.iter().enumerate() {
            shm.report.same("byte", view.load_byte(border - 9 + index), *byte);
        }
    }
}

/// A private mapping shows the file until it is written to, and nobody sees what is.
pub fn private(shm: &Shm, object: &Object) {
    let shared = shm.map(0, object, SHARED);
    let (one, two) = (shm.map(1, object, PRIVATE), shm.map(2, object, PRIVATE));
    for page in 0..shm.pages {
        shared.fill(page, key(5, page));
        shm.verify("private view", one, page, key(5, page));
        // One byte makes the whole page private.
        one.store_byte(page * PAGE + 100, 0xee);
        shared.fill(page, key(6, page));
        let mut want = faultless_guest::object::bytes(key(5, page));
        want[100] = 0xee;
        for (index, byte) in want.iter().enumerate() {
            let got = one.load_byte(page * PAGE + index);
            shm.report.check(got == *byte, || format!("private page {page}, byte {index}: {got:#x}"));
        }
        shm.verify("other private view", two, page, key(6, page));
        shm.verify_file("file", object, page, key(6, page));
    }
    // Mapped anew, it shows the file again.
    let one = shm.map(1, object, PRIVATE);
    (0..shm.pages).for_each(|page| shm.verify("mapped anew", one, page, key(6, page)));
}

/// What children write to shared memory stays after them; what they write to private
/// memory does not; and their unmapping and protecting is their own.
pub fn inherit(shm: &Shm, object: &Object) {
    let shared = shm.map(0, object, SHARED);
    let private = shm.map(1, object, PRIVATE);
    let anonymous = shm.views[2];
    shm.report.need("mmap", anonymous.map_as(0, shm.pages, RW, SHARED_ANON, -1, 0));
    (0..shm.pages).for_each(|page| shared.fill(page, key(7, page)));
    private.fill(0, key(8, 0));
    let mine = |page: &usize, child: usize| page % shm.children == child;
    shm.family(|child| {
        for page in (0..shm.pages).filter(|page| mine(page, child)) {
            // Before the parent has touched the anonymous page at all.
            anonymous.fill(page, key(9, page));
            shared.fill(page, key(10, page));
            private.fill(page, key(11, page));
        }
        let right = shared.protect(0, shm.pages, NONE).is_ok() && anonymous.unmap(0, 2).is_ok();
        let gone = anonymous.try_load(0) == Err(maperr(anonymous.addr(0)));
        i32::from(!(right && gone))
    });
    shm.verify("parent's private page", private, 0, key(8, 0));
    for page in 0..shm.pages {
        shm.verify("children's anonymous page", anonymous, page, key(9, page));
        shm.verify("children's file page", shared, page, key(10, page));
        shm.verify_file("file", object, page, key(10, page));
        if page > 0 {
            shm.verify("private page shows the file", private, page, key(10, page));
        }
    }
}

/// Locked additions of all processes to the same words.
pub fn count(shm: &Shm, object: &Object) {
    const TURNS: u64 = 500;
    let view = shm.map(0, object, SHARED);
    let anonymous = shm.views[2];
    shm.report.need("mmap", anonymous.map_as(0, 2, RW, SHARED_ANON, -1, 0));
    shm.family(|_| {
        for _ in 0..TURNS {
            view.add(0, 1);
            view.add(PAGE * 2 - 64, 1);
            anonymous.add(PAGE, 1);
        }
        0
    });
    let want = TURNS * shm.children as u64;
    for (name, got) in
        [("file", view.load(0)), ("second page", view.load(PAGE * 2 - 64)), ("anonymous", anonymous.load(PAGE))]
    {
        shm.report.same(name, got, want);
    }
}

/// Bytes stay in the file when no mapping is left, and a mapping stays when its
/// descriptor is closed.
pub fn persist(shm: &Shm, object: &Object) {
    for round in 0..3 {
        shm.family(|child| {
            // The child has the only mapping.
            let view = shm.map(0, object, SHARED);
            for page in (0..shm.pages).filter(|page| page % shm.children == child) {
                view.fill(page, key(12 + round, page));
            }
            0
        });
        (0..shm.pages).for_each(|page| shm.verify_file("file", object, page, key(12 + round, page)));
    }
    let other = shm.report.need("object", Object::new(2 * PAGE));
    shm.report.need("pwrite", other.fill(1, key(20, 1)));
    let view = shm.views[1];
    shm.report.need("mmap", view.map_as(0, 2, RW, SHARED, other.fd, 0));
    drop(other);
    shm.verify("file without descriptor", view, 1, key(20, 1));
    view.fill(0, key(20, 0));
    let end = faultless_guest::child::run(|| {
        i32::from(view.verify(0, key(20, 0)).is_err() || view.verify(1, key(20, 1)).is_err())
    });
    shm.report.same("child of a file without descriptor", end, End::Exit(0));
}

/// read into, and write from, a mapping of the very pages of the file that are meant:
/// a kernel that holds a page while it copies would wait for itself.
pub fn own_file(shm: &Shm, object: &Object) {
    for flags in [SHARED, PRIVATE] {
        let view = shm.map(0, object, flags);
        for page in 0..shm.pages {
            shm.report.need("pwrite", object.fill(page, key(21, page)));
            // Not yet touched: the fault happens inside the call.
            let (addr, offset) = (view.page_addr(page), page * PAGE);
            for call in [libc::SYS_pread64, libc::SYS_pwrite64] {
                let args = [object.fd as usize, addr, PAGE, offset, 0, 0];
                // SAFETY: reads into, or writes from, a page of the arena.
                let done = unsafe { sys::call(call, args) };
                shm.report.same("transfer to itself", done, Ok(PAGE));
            }
            shm.verify("page copied onto itself", view, page, key(21, page));
        }
        // From one page of the file to the next, through the mapping.
        let last = shm.pages - 1;
        let args = [object.fd as usize, view.addr(0), PAGE, last * PAGE, 0, 0];
        // SAFETY: writes from a page of the arena.
        let done = unsafe { sys::call(libc::SYS_pwrite64, args) };
        shm.report.same("transfer to another page", done, Ok(PAGE));
        shm.verify_file("copied page", object, last, key(21, 0));
    }
}

/// Parent and child hand a word to and fro, sleeping on it.
pub fn futex(shm: &Shm, object: &Object) {
    const TURNS: u64 = 200;
    let (here, there) = (shm.map(0, object, SHARED), shm.map(1, object, SHARED));
    // The child uses another mapping of the same word.
    let pid = faultless_guest::child::spawn(|| {
        (0..TURNS).for_each(|turn| hand_over(there, turn * 2 + 1));
        0
    });
    (0..TURNS).for_each(|turn| hand_over(here, turn * 2));
    let end = shm.report.need("wait", sys::wait(pid));
    shm.report.same("partner", end, (pid, End::Exit(0)));
    shm.report.same("word", here.load(0), TURNS * 2);
}

/// Waits until the word is `value`, adds one and wakes the other side.
fn hand_over(view: faultless_guest::arena::Arena, value: u64) {
    let futex = |op: i32, arg: u64| {
        // SAFETY: the word lies in the arena; there is no timeout.
        unsafe { sys::call(libc::SYS_futex, [view.addr(0), op as usize, arg as usize, 0, 0, 0]) }
    };
    loop {
        let now = view.load(0);
        if now == value {
            break;
        }
        // Ends when the word changes; a wake-up without reason only costs a turn.
        let _ = futex(libc::FUTEX_WAIT, now);
    }
    view.store(0, value + 1);
    let _ = futex(libc::FUTEX_WAKE, 1);
}

/// Behind the end of the file there is SIGBUS; when the file grows, zeroes.
pub fn grow(shm: &Shm, object: &Object) {
    let view = shm.map(0, object, SHARED);
    view.fill(0, key(22, 0));
    let small = shm.report.need("object", Object::new(PAGE));
    let view = shm.views[1];
    shm.report.need("mmap", view.map_as(0, 4, RW, SHARED, small.fd, 0));
    for page in 1..4 {
        let at = page * PAGE + 5 * page;
        shm.report.same("load behind the file", view.try_load(at), Err(adrerr(view.addr(at))));
        shm.report.same("store behind the file", view.try_store(at, 1), Err(adrerr(view.addr(at))));
        shm.report.need("ftruncate", small.resize((page + 1) * PAGE));
        shm.verify("grown file", view, page, 0);
        view.fill(page, key(23, page));
        shm.verify_file("grown file", &small, page, key(23, page));
    }
}
