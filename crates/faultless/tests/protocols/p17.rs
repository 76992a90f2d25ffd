//! P17: what is stored to a file's page is written, or the page is dirty; and nobody stores unasked.

use crate::model::*;
use crate::scenario;
use faultless::{Object, PageReader, PageWriter, Pager, PagerError, Sharing, Standing, WriteErrors};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

type Two = X86<2, 1, 2>;
type File = Arc<Object<ModelMachine<Two>>>;

/// What a store keeps of a page.
#[derive(Default)]
struct Kept {
    /// The first word, if it was ever written.
    word: Option<u64>,
    /// Was the pager asked since?
    asked: bool,
}

/// A backing store that wants to be asked before each store through a mapping. The pages read 5 at first.
#[derive(Default)]
struct Disk {
    pages: [Mutex<Kept>; 2],
    /// Nothing may be written any more.
    closed: AtomicBool,
}

impl Disk {
    fn word(&self, index: u64) -> Option<u64> {
        self.page(index).word
    }

    fn page(&self, index: u64) -> std::sync::MutexGuard<'_, Kept> {
        self.pages[index as usize].lock().expect("no panic is survived")
    }
}

impl Pager for Disk {
    fn fill(&self, _index: u64, page: &mut PageWriter<'_>) -> Result<(), PagerError> {
        page.write(0, &5u64.to_le_bytes());
        Ok(())
    }

    fn writes_back(&self) -> bool {
        true
    }

    fn page_mkwrite(&self, index: u64) -> Result<(), PagerError> {
        self.page(index).asked = true;
        Ok(())
    }

    fn write_page(&self, index: u64, page: &PageReader<'_>) -> Result<(), PagerError> {
        let mut word = [0; 8];
        page.read(0, &mut word);
        assert!(!self.closed.load(SeqCst), "written after it was cut off");
        let (mut kept, word) = (self.page(index), Some(u64::from_le_bytes(word)));
        // A page may be written once more than needed, but not stored to after it was written.
        assert!(kept.asked || kept.word == word, "stored to unasked");
        *kept = Kept { word, asked: false };
        Ok(())
    }
}

struct Stage {
    world: World<Two>,
    workers: [Worker<Two>; 2],
    space: Space<Two>,
    disk: Arc<Disk>,
    file: File,
}

/// A file of two pages of which the first is mapped, shared, at page 0.
fn mapped() -> Stage {
    let (world, [mut a, b]) = World::<Two>::new::<2>(40);
    let disk = Arc::new(Disk::default());
    let file = world.vm.new_file(2 * 4096, disk.clone(), "model").expect("memory");
    let space = a.space();
    a.map_object(&space, 0, 1, rw(), Sharing::Shared, &file, 0);
    Stage { world, workers: [a, b], space, disk, file }
}

/// The same with both CPUs able to store there without a fault.
fn stored() -> Stage {
    let mut stage = mapped();
    let [a, b] = &mut stage.workers;
    a.run(&stage.space);
    b.run(&stage.space);
    assert!(a.write(&stage.space, 0, 0, 6) && b.write(&stage.space, 0, 1, 1));
    stage
}

fn sync(worker: &mut Worker<Two>, file: &File) {
    let mut known: WriteErrors = file.write_errors();
    file.sync(&mut worker.cpu, 0, 2 * 4096, &mut known).expect("the disk takes all");
}

/// `a` writes the file back while `b` stores 7: it is written, or the page is dirty, and then it is written.
fn sync_against(stage: Stage, store: impl FnOnce(Worker<Two>) -> Worker<Two> + Send + 'static) {
    let Stage { world, workers: [mut a, b], space, disk, file } = stage;
    let running = spawn(move || store(b));
    sync(&mut a, &file);
    assert!(disk.word(0).is_some(), "what was stored before is written");
    let b = running.join();
    let is_dirty = file.standing(0) == Some(Standing::Dirty);
    reach(if is_dirty { "after" } else { "before" });
    assert!(disk.word(0) == Some(7) || is_dirty, "lost store");
    sync(&mut a, &file);
    assert_eq!((disk.word(0), file.standing(0)), (Some(7), Some(Standing::Clean)));
    world.audit([a, b], &[&space], &[&file]);
}

scenario! {
    /// A store by the MMU, through a translation that permits it.
    store (3, 4)
    reaches ["before", "after"]
    catches [NoDirtyMark, ClaimAfterClean, WriteBeforeFlush, AskWhileWritten]
    {
        let stage = stored();
        let space = stage.space.clone();
        sync_against(stage, move |mut b| {
            assert!(b.write(&space, 0, 0, 7));
            b
        });
    }
}

scenario! {
    /// A store from outside: the entry is marked first, then the bytes are copied.
    store_from_outside (3, 4)
    reaches ["before", "after"]
    catches [NoWriteWait]
    {
        let stage = stored();
        let space = stage.space.clone();
        sync_against(stage, move |mut b| {
            assert!(b.store(&space, 0, 0, 7));
            b
        });
    }
}

scenario! {
    /// The page is dirty, but may be read only: the pager is asked, and its answer is worth nothing after a clean.
    permission (2, 3)
    reaches ["before", "after"]
    catches [OldPermission]
    {
        let mut stage = stored();
        let [a, _] = &mut stage.workers;
        a.protect(&stage.space, 0, 1, RO);
        a.protect(&stage.space, 0, 1, rw());
        let space = stage.space.clone();
        sync_against(stage, move |mut b| {
            assert!(b.write(&space, 0, 0, 7));
            b
        });
    }
}

scenario! {
    /// Parent and child share the table; it is cleaned for both while the parent copies it to store.
    shared_table (2, 3)
    reaches ["before", "after"]
    catches [CleanUnlocked]
    {
        let mut stage = stored();
        let child = stage.workers[0].fork(&stage.space);
        let Stage { world, workers: [mut a, mut b], space, disk, file } = stage;
        let other = space.clone();
        let running = spawn(move || {
            assert!(b.write(&other, 0, 0, 7));
            b
        });
        sync(&mut a, &file);
        let b = running.join();
        let is_dirty = file.standing(0) == Some(Standing::Dirty);
        reach(if is_dirty { "after" } else { "before" });
        assert!(disk.word(0) == Some(7) || is_dirty, "lost store");
        assert!(is_dirty || a.entry(&space, 0).is_none_or(|entry| !entry.write), "clean, but writable");
        world.audit([a, b], &[&space, &child], &[&file]);
    }
}

scenario! {
    /// Another file's page, or another page, takes the place while the pager is asked (CW-08).
    unmap_while_asked (2, 3)
    reaches ["old page", "new page", "signal"]
    catches [PermitOtherPage]
    {
        let Stage { world, workers: [mut a, mut b], space, disk, file } = mapped();
        a.run(&space);
        b.run(&space);
        assert_eq!(a.read_object(&file, 1), Some(5));
        assert_eq!(b.read(&space, 0, 0), Some(5));
        let other = space.clone();
        let running = spawn(move || {
            let stored = b.write(&other, 0, 0, 7);
            (b, stored)
        });
        a.unmap(&space, 0, 1);
        a.map_object(&space, 0, 1, rw(), Sharing::Shared, &file, 1);
        a.read(&space, 0, 0);
        let (b, stored) = running.join();
        let words = (a.read_object(&file, 0), a.read_object(&file, 1));
        reach(match words {
            (Some(7), _) => "old page",
            (_, Some(7)) => "new page",
            _ => "signal",
        });
        assert_eq!(stored, words != (Some(5), Some(5)));
        sync(&mut a, &file);
        assert!([(0, words.0), (1, words.1)].iter().all(|(page, word)| *word != Some(7) || disk.word(*page) == *word));
        world.audit([a, b], &[&space], &[&file]);
    }
}

scenario! {
    /// The page is cut off while the pager is asked, and a new one comes (CW-08).
    cut_while_asked (2, 3)
    reaches ["stored", "signal"]
    catches [PermitOtherPage]
    {
        let Stage { world, workers: [mut a, mut b], space, disk, file } = mapped();
        a.run(&space);
        b.run(&space);
        assert_eq!(b.read(&space, 0, 0), Some(5));
        let other = space.clone();
        let running = spawn(move || {
            let stored = b.write(&other, 0, 0, 7);
            (b, stored)
        });
        a.resize(&file, 0);
        *disk.page(0) = Kept::default();
        a.resize(&file, 1);
        a.read(&space, 0, 0);
        let (b, stored) = running.join();
        reach(if stored { "stored" } else { "signal" });
        let word = a.read_object(&file, 0);
        assert!(word == Some(0) || stored && word == Some(7), "{word:?}");
        // Panics if the page that is there was stored to by a permission for the one before.
        sync(&mut a, &file);
        assert!(word == Some(0) || disk.word(0) == Some(7), "lost store");
        world.audit([a, b], &[&space], &[&file]);
    }
}

scenario! {
    /// A dirty page is cut off while it is written: nothing is written behind the end when the truncation has returned.
    cut_while_written (3, 4)
    reaches ["written"]
    catches [CutDuringWrite]
    {
        let Stage { world, workers: [mut a, mut b], space, disk, file } = stored();
        let shown = file.clone();
        let running = spawn(move || {
            sync(&mut b, &shown);
            b
        });
        a.resize(&file, 0);
        disk.closed.store(true, SeqCst);
        let b = running.join();
        if disk.word(0).is_some() {
            reach("written");
        }
        world.audit([a, b], &[&space], &[&file]);
    }
}

scenario! {
    /// Two who synchronise: when either is done, what was stored before is written, whoever did it.
    sync_sync (3, 4)
    catches [NoWriteAwait]
    {
        let Stage { world, workers: [mut a, mut b], space, disk, file } = stored();
        let (shown, store) = (file.clone(), disk.clone());
        let running = spawn(move || {
            sync(&mut b, &shown);
            assert_eq!(store.word(0), Some(6), "not written yet");
            b
        });
        sync(&mut a, &file);
        assert_eq!(disk.word(0), Some(6), "not written yet");
        let b = running.join();
        assert_eq!(file.standing(0), Some(Standing::Clean));
        world.audit([a, b], &[&space], &[&file]);
    }
}

scenario! {
    /// Shared memory is unmapped while it is stored to by a translation that permits that: the page knows of the store.
    unmapped (4, 6)
    reaches ["stored", "signal"]
    catches [DirtyNotMoved]
    {
        let (world, [mut a, mut b]) = World::<Two>::new::<2>(40);
        // Nothing is written to it, so that the page is clean.
        let object = world.vm.new_memory(4096, "model").expect("memory");
        let space = a.space();
        a.map_object(&space, 0, 1, rw(), Sharing::Shared, &object, 0);
        b.run(&space);
        assert_eq!(b.read(&space, 0, 0), Some(0));
        assert_eq!(object.standing(0), Some(Standing::Clean));
        let other = space.clone();
        let running = spawn(move || {
            reach(if b.write(&other, 0, 0, 7) { "stored" } else { "signal" });
            b
        });
        a.unmap(&space, 0, 1);
        let is_dirty = object.standing(0) == Some(Standing::Dirty);
        let word = a.read_object(&object, 0);
        assert!(word == Some(0) || is_dirty, "stored to, and clean");
        let b = running.join();
        assert_eq!(a.read_object(&object, 0), word, "stored to after it was unmapped");
        world.audit([a, b], &[&space], &[&object]);
    }
}
