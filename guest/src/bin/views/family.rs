//! Processes that share pages, and tables: each sees what is its own, and the shares add up.

use super::look::{EXCLUSIVE, PRESENT, in_pages, sums, with};
use super::{PAGES, Views};
use faultless_guest::child::{Note, spawn};
use faultless_guest::sys::{self, End, PAGE};

const NAMES: [&str; 5] = ["Rss", "Private_Dirty", "Shared_Dirty", "Private_Clean", "Shared_Clean"];

/// Parent and child, from both sides.
pub fn family(views: &Views) {
    let (arena, written) = views.written(1);
    let note = Note::new();
    let child = spawn(|| {
        note.wait(0, 1);
        (0..30).for_each(|page| arena.store(page * PAGE, 9));
        note.set(1, 1);
        note.wait(0, 2);
        0
    });
    let see = |who: i32| in_pages(&sums(who, arena), NAMES);
    for who in [0, child] {
        views.report.same("all shared", see(who), [written, 0, written, 0, 0]);
        views.report.same("share", sums(who, arena)["Pss"], written * 4 / 2);
        views.report.same("exclusive", with(who, arena, PRESENT | EXCLUSIVE), Vec::new());
    }
    note.set(0, 1);
    note.wait(1, 1);
    // 30 pages each are private now.
    for who in [0, child] {
        views.report.same("some shared", see(who), [written, 30, written - 30, 0, 0]);
        views.report.same("share", sums(who, arena)["Pss"], (written - 30) * 4 / 2 + 30 * 4);
        let exclusive = with(who, arena, EXCLUSIVE);
        views.report.same("exclusive", exclusive, (0..30).collect());
    }
    (600..PAGES).for_each(|page| arena.store(page * PAGE, 8));
    let own = 30 + (PAGES - 600) as u64;
    views.report.same("parent", see(0), [written, own, written - own, 0, 0]);
    views.report.same("child", see(child), [written, own, written - own, 0, 0]);
    note.set(0, 2);
    views.report.same("end", sys::wait(child), Ok((child, End::Exit(0))));
    views.report.same("alone again", see(0), [written, written, 0, 0, 0]);
    views.report.same("share", sums(0, arena)["Pss"], written * 4);
    views.report.fold(written);
}

/// A tree of four generations, each with stores of its own: over all processes the shares sum up to the pages.
pub fn tree(views: &Views) {
    const DEPTH: usize = 4;
    let (arena, written) = views.written(3);
    let note = Note::new();
    let first = spawn(|| generation(&note, 1, DEPTH, arena));
    note.wait(0, DEPTH as u64);
    let mut total = 0;
    let mut shares = 0;
    for depth in 0..=DEPTH {
        let who = if depth == 0 { 0 } else { note.get(depth) as i32 };
        let figures = sums(who, arena);
        let [rss, private, shared, clean, mixed] = in_pages(&figures, NAMES);
        views.report.same("resident", rss, written);
        views.report.same("dirty", (private + shared, clean + mixed), (written, 0));
        // Every generation stored to as many pages as its depth; it and nobody else has those copies.
        views.report.check(private >= depth as u64, || format!("generation {depth}: {private} private"));
        views.report.same("exclusive", with(who, arena, EXCLUSIVE).len() as u64, private);
        shares += figures["Pss"];
        total += depth as u64;
    }
    // The pages of the first, and each copy; each look rounded its share down.
    let pages = (written + total) * 4;
    let rounding = DEPTH as u64 + 1;
    views
        .report
        .check((pages - rounding..=pages).contains(&shares), || format!("{shares} kB are shares of {pages} kB"));
    note.set(100, 1);
    views.report.same("end", sys::wait(first), Ok((first, End::Exit(0))));
    views.report.same("alone again", pages_of_private(arena), written);
    views.report.fold(shares);
}

fn pages_of_private(arena: faultless_guest::arena::Arena) -> u64 {
    in_pages(&sums(0, arena), ["Private_Dirty"])[0]
}

/// Generation `depth` stores to some pages that nobody else stores to, makes the next, and waits for the end. The copies
/// that the stores make are of pages that its parents keep.
fn generation(note: &Note, depth: usize, last: usize, arena: faultless_guest::arena::Arena) -> i32 {
    note.set(depth, sys::getpid() as u64);
    let mut child = 0;
    if depth < last {
        child = spawn(|| generation(note, depth + 1, last, arena));
        note.wait(0, (last - depth) as u64);
    }
    // From the youngest on, so that each store copies a page that the generation above has, too.
    (0..depth).for_each(|number| arena.store((depth * 60 + number * 3) * PAGE, 7));
    let _ = note.add(0, 1);
    note.wait(100, 1);
    if child != 0 && sys::wait(child) != Ok((child, End::Exit(0))) {
        return 1;
    }
    0
}
