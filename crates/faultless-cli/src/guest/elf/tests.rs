//! Images made by hand, so that the facts do not depend on what is installed. `libraries` uses the builder too.

use super::*;

const HEADER: usize = 64;
const SEGMENT: usize = 56;
const PT_LOAD: u32 = 1;
const PT_DYNAMIC: u32 = 2;
const PT_INTERP: u32 = 3;

/// Bytes of an ELF file with the given dynamic entries and nothing to execute.
#[derive(Clone, Default)]
pub(crate) struct Builder {
    interpreter: Option<String>,
    entries: Vec<(u64, String)>,
}

impl Builder {
    pub(crate) fn interpreter(mut self, path: &str) -> Self {
        self.interpreter = Some(path.to_owned());
        self
    }

    pub(crate) fn needed(self, name: &str) -> Self {
        self.entry(1, name)
    }

    pub(crate) fn soname(self, name: &str) -> Self {
        self.entry(14, name)
    }

    pub(crate) fn rpath(self, path: &str) -> Self {
        self.entry(15, path)
    }

    pub(crate) fn runpath(self, path: &str) -> Self {
        self.entry(29, path)
    }

    fn entry(mut self, tag: u64, value: &str) -> Self {
        self.entries.push((tag, value.to_owned()));
        self
    }

    /// Lays out header, three segments, interpreter, strings, entries; loaded one to one at `BASE`.
    pub(crate) fn build(&self) -> Vec<u8> {
        const BASE: u64 = 0x40_0000;
        let mut body = Vec::new();
        let start = HEADER + 3 * SEGMENT;
        let interpreter = self.interpreter.clone().map(|path| path + "\0");
        let interpreter_len = interpreter.as_ref().map_or(0, String::len);
        body.extend(interpreter.unwrap_or_default().bytes());
        let strings_at = (start + body.len()) as u64;
        let mut strings = vec![0u8];
        let mut dynamic = Vec::new();
        for (tag, value) in &self.entries {
            dynamic.push((*tag, strings.len() as u64));
            strings.extend(value.bytes().chain([0]));
        }
        dynamic.extend([(5, BASE + strings_at), (10, strings.len() as u64), (0, 0), (1, u64::MAX)]);
        body.extend(&strings);
        body.resize(body.len().next_multiple_of(8), 0);
        let dynamic_at = (start + body.len()) as u64;
        for (tag, value) in &dynamic {
            body.extend(tag.to_le_bytes());
            body.extend(value.to_le_bytes());
        }
        let total = (start + body.len()) as u64;
        let mut file = header(3);
        let interp_kind = if interpreter_len > 0 { PT_INTERP } else { 0 };
        file.extend(segment(PT_LOAD, 0, BASE, total));
        file.extend(segment(interp_kind, start as u64, BASE + start as u64, interpreter_len as u64));
        file.extend(segment(PT_DYNAMIC, dynamic_at, BASE + dynamic_at, dynamic.len() as u64 * 16));
        file.extend(body);
        file
    }
}

fn header(segments: u16) -> Vec<u8> {
    let mut bytes = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0];
    bytes.resize(16, 0);
    bytes.extend(3u16.to_le_bytes()); // ET_DYN
    bytes.extend(62u16.to_le_bytes()); // EM_X86_64
    bytes.extend(1u32.to_le_bytes());
    bytes.extend(0u64.to_le_bytes()); // entry
    bytes.extend((HEADER as u64).to_le_bytes());
    bytes.extend(0u64.to_le_bytes()); // no sections
    bytes.extend(0u32.to_le_bytes());
    bytes.extend((HEADER as u16).to_le_bytes());
    bytes.extend((SEGMENT as u16).to_le_bytes());
    bytes.extend(segments.to_le_bytes());
    bytes.resize(HEADER, 0);
    bytes
}

fn segment(kind: u32, offset: u64, address: u64, size: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(kind.to_le_bytes());
    bytes.extend(4u32.to_le_bytes());
    for value in [offset, address, address, size, size, 8] {
        bytes.extend(value.to_le_bytes());
    }
    bytes
}

#[test]
fn the_facts_are_found_without_section_headers() {
    let bytes = Builder::default()
        .interpreter("/lib64/ld.so")
        .needed("liba.so.1")
        .needed("libb.so.2")
        .rpath("/r1:/r2")
        .runpath("$ORIGIN/../lib::/x")
        .soname("self.so")
        .build();
    let strings = |values: &[&str]| values.iter().map(|&value| value.to_owned()).collect::<Vec<_>>();
    assert_eq!(
        Image::parse(&bytes),
        Ok(Image {
            interpreter: Some("/lib64/ld.so".into()),
            needed: strings(&["liba.so.1", "libb.so.2"]),
            rpath: strings(&["/r1", "/r2"]),
            runpath: Some(strings(&["$ORIGIN/../lib", "/x"])),
            soname: Some("self.so".into()),
        })
    );
}

#[test]
fn a_static_image_asks_for_nothing() {
    assert_eq!(Image::parse(&Builder::default().build()), Ok(Image::default()));
}

#[test]
fn other_files_say_what_they_are() {
    let good = Builder::default().needed("x").build();
    let changed = |at: usize, value: u8| {
        let mut bytes = good.clone();
        bytes[at] = value;
        Image::parse(&bytes)
    };
    assert_eq!(Image::parse(b"#!/bin/sh"), Err(ImageError::NotElf));
    assert_eq!(Image::parse(b""), Err(ImageError::NotElf));
    assert_eq!(Image::parse(b"\x7fELF"), Err(ImageError::Malformed));
    assert_eq!(changed(IDENT_CLASS, 1), Err(ImageError::Class32));
    assert_eq!(changed(MACHINE_OFFSET, 183), Err(ImageError::Machine(183)));
    assert_eq!(changed(TYPE_OFFSET, 1), Err(ImageError::Type(1)));
    assert_eq!(ImageError::Machine(183).to_string(), "it was built for 64-bit Arm");
    assert_eq!(ImageError::Machine(3).to_string(), "it was built for 32-bit x86");
}

#[test]
fn no_prefix_and_no_single_damaged_byte_panics() {
    let good = Builder::default().interpreter("/lib64/ld.so").needed("liba.so").build();
    for length in 0..good.len() {
        let _ = Image::parse(&good[..length]);
    }
    for at in 0..good.len() {
        for value in [0, 1, 0x7f, 0xff] {
            let mut bytes = good.clone();
            bytes[at] = value;
            let _ = Image::parse(&bytes);
        }
    }
}
