//! Was everything that was seen possible?
//!
//! Each space has a past: the rights of each page, whether it shows the object and how, and its own words. The words
//! of the object belong to all. A child's past begins with what was possible in the parent during the fork.

use super::stage::{Event, Stage, State, What, lock};
use super::{FIRST_OF_OBJECT, OBJECT_PAGES, PAGES, SLOTS};
use faultless::{Access, FaultError, Rights, Sharing};
use faultless_model::history::{Register, Span};
use std::collections::BTreeSet;

/// What a space has at a word of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Word {
    Own(u64),
    /// The page shows the object privately since then, and may have been copied at any time since.
    Through {
        since: u64,
    },
}

/// The past of one space.
struct Past {
    states: Vec<Register<State>>,
    /// For pages of the object: how they show it.
    shows: Vec<Register<Sharing>>,
    own: Vec<Vec<Register<Word>>>,
    /// When a page was moved elsewhere and back.
    aways: Vec<(usize, Span)>,
    /// When a page was discarded. Until the call returns, one CPU may have a new page while another still has the old one
    /// (P10): stores meanwhile are in no order, and who sees one knows nothing of what others see.
    discards: Vec<(usize, Span)>,
    /// Operations that tell nothing of others to who sees them.
    loose: BTreeSet<usize>,
}

/// The past of the object.
struct ObjectPast {
    sizes: Register<u64>,
    words: Vec<Vec<Register<u64>>>,
}

impl Past {
    fn of_first() -> Self {
        let pages = PAGES.len();
        Self {
            states: vec![Register::new(State::Mapped(Rights::READ | Rights::WRITE)); pages],
            shows: vec![Register::new(Sharing::Shared); pages],
            own: vec![vec![Register::new(Word::Own(0)); SLOTS]; pages],
            aways: Vec::new(),
            discards: Vec::new(),
            loose: BTreeSet::new(),
        }
    }

    fn of_child(parent: &Self, span: Span) -> Self {
        fn born<V: Copy + PartialEq>(registers: &[Register<V>], span: Span) -> Vec<Register<V>> {
            registers.iter().map(|register| Register::born(span, register.possible(span))).collect()
        }
        let mut states: Vec<_> = parent.states.iter().map(|register| register.possible(span)).collect();
        (0..states.len())
            .filter(|page| parent.was_away(*page, span))
            .for_each(|page| states[page].push(State::Unmapped));
        Self {
            states: states.into_iter().map(|states| Register::born(span, states)).collect(),
            shows: born(&parent.shows, span),
            own: parent.own.iter().map(|words| born(words, span)).collect(),
            aways: Vec::new(),
            discards: Vec::new(),
            loose: BTreeSet::new(),
        }
    }

    /// Was the page elsewhere at some time in `span`?
    fn was_away(&self, page: usize, span: Span) -> bool {
        self.aways.iter().any(|(moved, away)| *moved == page && meet(*away, span))
    }

    /// How the page may have been shown during `span`: (as the object itself, as the space's own).
    fn kinds(&self, page: usize, span: Span) -> (bool, bool) {
        if page < FIRST_OF_OBJECT {
            return (false, true);
        }
        let possible = self.shows[page].possible(span);
        (possible.contains(&Sharing::Shared), possible.contains(&Sharing::Private))
    }

    fn change(&mut self, event: &Event) {
        let Event { id, span, page, .. } = *event;
        match event.what {
            What::Becomes(state) => self.states[page].write(id, span, state),
            What::Shows(None) => self.own[page].iter_mut().for_each(|word| word.write(id, span, Word::Own(0))),
            What::Shows(Some(sharing)) => {
                self.shows[page].write(id, span, sharing);
                let since = span.start;
                self.own[page].iter_mut().for_each(|word| word.write(id, span, Word::Through { since }));
            }
            What::Discarded => {
                let word = if page < FIRST_OF_OBJECT { Word::Own(0) } else { Word::Through { since: span.start } };
                self.own[page].iter_mut().for_each(|own| own.write(id, span, word));
                self.discards.push((page, span));
                self.loose.insert(id);
            }
            What::Away => self.aways.push((page, span)),
            What::Stored { .. } | What::Saw { .. } | What::Tried { .. } | What::Sized { .. } => {}
            What::Punched | What::Sent { .. } | What::Forced { .. } => {}
        }
    }

    /// After all changes are known: stores, which go here or to the object.
    fn store(&mut self, event: &Event, object: &mut ObjectPast) {
        let Event { id, page, .. } = *event;
        let (What::Stored { slot, value } | What::Sent { slot, value }) = event.what else { return };
        let discards = self.discards.iter().filter(|(other, discard)| *other == page && meet(*discard, event.span));
        let last = discards.map(|(_, discard)| discard.end).max();
        if last.is_some() {
            self.loose.insert(id);
        }
        let span = Span { end: last.unwrap_or_default().max(event.span.end), ..event.span };
        // What a device stores to may not be the page any more.
        let kinds = if let What::Sent { .. } = event.what { (true, true) } else { self.kinds(page, event.span) };
        match kinds {
            (true, false) => object.words[page - FIRST_OF_OBJECT][slot].write(id, span, value),
            (false, _) => self.own[page][slot].write(id, span, Word::Own(value)),
            (true, true) => {
                self.own[page][slot].may_write(id, span, Word::Own(value));
                if page >= FIRST_OF_OBJECT {
                    object.words[page - FIRST_OF_OBJECT][slot].may_write(id, span, value);
                }
            }
        }
    }

    /// A truncation takes private copies too, in every space.
    fn cut(&mut self, event: &Event) {
        let What::Sized { pages } = event.what else { return };
        if (event.page - FIRST_OF_OBJECT) as u64 >= pages {
            let word = Word::Through { since: event.span.start };
            self.own[event.page].iter_mut().for_each(|own| own.write(event.id, event.span, word));
        }
    }

    /// What a read may see.
    fn possible(&self, object: &ObjectPast, page: usize, slot: usize, span: Span) -> Vec<u64> {
        let (shared, private) = self.kinds(page, span);
        let mut values = Vec::new();
        if shared {
            values.extend(object.words[page - FIRST_OF_OBJECT][slot].possible(span));
        }
        for word in self.own[page][slot].possible(span).into_iter().filter(|_| private) {
            match word {
                Word::Own(value) => values.push(value),
                Word::Through { since } => {
                    let span = Span { start: since, end: span.end };
                    values.extend(object.words[page - FIRST_OF_OBJECT][slot].possible(span));
                }
            }
        }
        values
    }

    /// A read that only one write explains tells when that write had happened. True if that is news.
    fn learn(&mut self, object: &mut ObjectPast, event: &Event) -> bool {
        let Event { span, page, .. } = *event;
        let What::Saw { slot, value } = event.what else { return false };
        match self.kinds(page, span) {
            (true, false) => {
                let words = &mut object.words[page - FIRST_OF_OBJECT];
                let by = words[slot].explanation(span, value);
                by.is_some_and(|by| words.iter_mut().fold(false, |news, word| word.had_happened(by, span.end) | news))
            }
            (false, _) => {
                let words = &mut self.own[page];
                let through = |word: &Word| matches!(word, Word::Through { .. });
                if words[slot].possible(span).iter().any(through) {
                    return false;
                }
                let by = words[slot].explanation(span, Word::Own(value)).filter(|by| !self.loose.contains(by));
                by.is_some_and(|by| words.iter_mut().fold(false, |news, word| word.had_happened(by, span.end) | news))
            }
            (true, true) => false,
        }
    }
}

/// Did they overlap?
fn meet(one: Span, other: Span) -> bool {
    one.start <= other.end && other.start <= one.end
}

impl ObjectPast {
    fn new() -> Self {
        let words = vec![vec![Register::new(0); SLOTS]; OBJECT_PAGES as usize];
        Self { sizes: Register::new(OBJECT_PAGES), words }
    }

    fn cut(&mut self, event: &Event) {
        if let What::Punched = event.what {
            let words = &mut self.words[event.page - FIRST_OF_OBJECT];
            words.iter_mut().for_each(|word| word.write(event.id, event.span, 0));
        }
        let What::Sized { pages } = event.what else { return };
        let page = event.page - FIRST_OF_OBJECT;
        if page == 0 {
            self.sizes.write(event.id, event.span, pages);
        }
        if page as u64 >= pages {
            self.words[page].iter_mut().for_each(|word| word.write(event.id, event.span, 0));
        }
    }
}

impl Stage {
    /// Judges the whole log.
    ///
    /// # Errors
    ///
    /// The first event that nothing explains, and all events of its page.
    pub(super) fn judge(&self) -> Result<(), String> {
        let log = lock(&self.log);
        let (pasts, object) = self.pasts(&log);
        for event in log.iter() {
            let past = &pasts[event.space];
            judge_word(past, &object, event).and_then(|()| judge_outcome(past, &object, event)).map_err(|what| {
                let near =
                    |other: &&Event| other.page == event.page && other.span.start.abs_diff(event.span.start) < 200;
                let lines: String = log.iter().filter(near).map(line).collect();
                let parents: Vec<_> = lock(&self.spaces).iter().map(|on| on.parent).collect();
                format!("{what}\n  the event:\n{}  parents: {parents:?}\n  its page:\n{lines}", line(event))
            })?;
        }
        Ok(())
    }

    fn pasts(&self, log: &[Event]) -> (Vec<Past>, ObjectPast) {
        let mut object = ObjectPast::new();
        log.iter().for_each(|event| object.cut(event));
        let mut pasts: Vec<Past> = Vec::new();
        for on in lock(&self.spaces).iter() {
            let mut past = match on.parent {
                None => Past::of_first(),
                Some((parent, span)) => Past::of_child(&pasts[parent], span),
            };
            let mine = || log.iter().filter(|event| event.space == on.number);
            mine().for_each(|event| past.change(event));
            log.iter().for_each(|event| past.cut(event));
            mine().for_each(|event| past.store(event, &mut object));
            // Reads make later reads of older values impossible; that may decide further reads.
            for _ in 0..3 {
                if !mine().fold(false, |news, event| past.learn(&mut object, event) | news) {
                    break;
                }
            }
            pasts.push(past);
        }
        (pasts, object)
    }
}

fn judge_word(past: &Past, object: &ObjectPast, event: &Event) -> Result<(), String> {
    let What::Saw { slot, value } = event.what else { return Ok(()) };
    let possible = past.possible(object, event.page, slot, event.span);
    if possible.contains(&value) { Ok(()) } else { Err(format!("saw {value}, possible were {possible:?}")) }
}

fn judge_outcome(past: &Past, object: &ObjectPast, event: &Event) -> Result<(), String> {
    let (access, outcome, forced) = match event.what {
        What::Tried { access, outcome } => (access, outcome, false),
        What::Forced { outcome } => (Access::Write, outcome, true),
        _ => return Ok(()),
    };
    let (page, span) = (event.page, event.span);
    let states = past.states[page].possible(span);
    let sizes = object.sizes.possible(span);
    let inside = |size: &u64| page < FIRST_OF_OBJECT || *size > (page - FIRST_OF_OBJECT) as u64;
    // A debugger may store to whatever is private; of the object, this is not looked at.
    let permits = |state: &State| matches!(state, State::Mapped(rights) if rights.allow(access) || forced);
    let refuses = |state: &State| matches!(state, State::Mapped(rights) if !rights.allow(access));
    let possible = match outcome {
        Ok(()) => states.iter().any(permits) && sizes.iter().any(inside),
        Err(FaultError::Unmapped) => states.contains(&State::Unmapped) || past.was_away(page, span),
        Err(FaultError::Denied) => states.iter().any(refuses),
        Err(FaultError::Bus) => states.iter().any(permits) && !sizes.iter().all(inside),
        Err(FaultError::OutOfMemory) => true,
        Err(FaultError::Watched) => false, // nobody watches
    };
    if possible { Ok(()) } else { Err(format!("{access:?} ended in {outcome:?}, possible were {states:?}, {sizes:?}")) }
}

fn line(event: &Event) -> String {
    let Event { span, space, cpu, what, .. } = event;
    format!("    {:>4}..{:<4} space {space} cpu {cpu} {what:?}\n", span.start, span.end)
}
