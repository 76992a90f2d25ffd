//! ELF headers and the initial stack, against files and readers made by hand.

use faultless_kernel_hosted::{elf, stack};

/// An ELF file with the given program headers: type, flags, offset, address, file and memory size.
fn file(kind: u16, headers: &[(u32, u32, u64, u64, u64, u64)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    bytes.extend_from_slice(&kind.to_le_bytes());
    bytes.extend_from_slice(&62_u16.to_le_bytes());
    bytes.extend_from_slice(&1_u32.to_le_bytes());
    for word in [0x40_1000_u64, 64, 0] {
        bytes.extend_from_slice(&word.to_le_bytes());
    }
    bytes.extend_from_slice(&0_u32.to_le_bytes());
    for half in [64_u16, 56, headers.len() as u16, 0, 0, 0] {
        bytes.extend_from_slice(&half.to_le_bytes());
    }
    for &(kind, flags, offset, address, file_bytes, memory_bytes) in headers {
        bytes.extend_from_slice(&kind.to_le_bytes());
        bytes.extend_from_slice(&flags.to_le_bytes());
        for word in [offset, address, address, file_bytes, memory_bytes, 0x1000] {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
    }
    bytes
}

const LOAD: u32 = 1;
const INTERPRETER: u32 = 3;

fn good() -> Vec<u8> {
    file(
        3,
        &[
            (LOAD, 4, 0, 0, 0x500, 0x500),
            (LOAD, 5, 0x1000, 0x1000, 0x800, 0x800),
            (LOAD, 6, 0x1800, 0x2800, 0x100, 0x3000),
            (INTERPRETER, 4, 0x200, 0x200, 28, 28),
        ],
    )
}

#[test]
fn headers_of_a_good_file() {
    let elf = elf::parse(&good()).expect("a good file");
    assert!(elf.relocatable);
    assert_eq!((elf.entry, elf.headers_address, elf.headers_count), (0x40_1000, 64, 4));
    assert_eq!(elf.interpreter, Some((0x200, 27)));
    let ranges: Vec<_> = elf.segments.iter().map(|s| (s.start(), s.end())).collect();
    assert_eq!(ranges, [(0, 0x1000), (0x1000, 0x2000), (0x2000, 0x6000)]);
}

#[test]
fn bad_files_are_refused() {
    let whole = file(2, &[(LOAD, 5, 0, 0x40_0000, 0x10, 0x10)]);
    assert!(elf::parse(&whole).is_ok());
    for (kind, header) in [
        ("more in the file than in memory", (LOAD, 5, 0, 0x40_0000, 0x20, 0x10)),
        ("address and offset differ within the page", (LOAD, 5, 8, 0x40_0000, 0x10, 0x10)),
        ("an address of the kernel", (LOAD, 5, 0, 0xffff_8000_0000_0000, 0x10, 0x10)),
        ("a size that wraps", (LOAD, 5, 0, 0x40_0000, 0x10, u64::MAX)),
        ("nothing to load", (LOAD, 5, 0, 0x40_0000, 0, 0)),
    ] {
        assert!(elf::parse(&file(2, &[header])).is_err(), "{kind}");
    }
    let overlapping = file(2, &[(LOAD, 5, 0, 0x1000, 0x10, 0x2000), (LOAD, 5, 0, 0x2000, 0x10, 0x10)]);
    assert!(elf::parse(&overlapping).is_err());
    assert!(elf::parse(&file(4, &[(LOAD, 5, 0, 0x1000, 0x10, 0x10)])).is_err(), "a core file");
}

#[test]
fn no_file_does_harm() {
    let whole = good();
    for length in 0..whole.len() {
        // Any answer will do, as long as there is one.
        let _ = elf::parse(&whole[..length]);
    }
    for at in 0..whole.len() {
        for value in [0, 1, 0x7f, 0x80, 0xff] {
            let mut changed = whole.clone();
            changed[at] = value;
            if let Ok(elf) = elf::parse(&changed) {
                assert!(elf.segments.iter().all(|s| s.start() <= s.address && s.address < s.end()));
            }
        }
    }
}

fn strings(list: &[Vec<u8>]) -> stack::Strings {
    let mut strings = stack::Strings::default();
    list.iter().for_each(|text| strings.push(text).expect("memory"));
    strings
}

#[test]
fn an_interpreter_takes_the_place_of_the_first_argument() {
    for (before, after) in [(&["a", "", "b"][..], 5), (&["a"][..], 3), (&[][..], 3)] {
        let before: Vec<Vec<u8>> = before.iter().map(|text| text.as_bytes().to_vec()).collect();
        let mut list = strings(&before);
        list.replace_first(&[b"/bin/sh", b"-x", b"/script"]).expect("memory");
        assert_eq!(list.count(), after);
        let mut expected = b"/bin/sh\0-x\0/script\0".to_vec();
        before.iter().skip(1).for_each(|text| expected.extend(text.iter().chain(&[0])));
        assert_eq!(*list.bytes_mut(), expected);
    }
}

/// Reads a built stack as a C library does.
struct Reader {
    bytes: Vec<u8>,
    base: u64,
}

impl Reader {
    fn word(&self, at: u64) -> u64 {
        let at = (at - self.base) as usize;
        u64::from_le_bytes(self.bytes[at..at + 8].try_into().expect("eight bytes"))
    }

    fn text(&self, at: u64) -> &[u8] {
        let rest = &self.bytes[(at - self.base) as usize..];
        &rest[..rest.iter().position(|&b| b == 0).expect("a terminator")]
    }
}

#[test]
fn a_stack_reads_as_it_was_built() {
    let top = 0x7fff_ffff_f000;
    for count in 0..6 {
        let args: Vec<Vec<u8>> = (0..count).map(|n| vec![b'a' + n; usize::from(n) * 7]).collect();
        let env = vec![b"PATH=/bin".to_vec(), b"X=".to_vec()];
        let (arg_strings, env_strings) = (strings(&args), strings(&env));
        let content = stack::Content {
            args: &arg_strings,
            env: &env_strings,
            file: b"/bin/x",
            random: [7; 16],
            auxv: &[(6, 4096), (9, 0x1234)],
        };
        let built = stack::build(top, &content).expect("memory");
        assert_eq!(built.pointer % 16, 0);
        assert_eq!(built.pointer + built.bytes.len() as u64, top);
        let reader = Reader { bytes: built.bytes, base: built.pointer };
        let mut at = built.pointer;
        let mut next = || {
            at += 8;
            reader.word(at - 8)
        };
        assert_eq!(next(), args.len() as u64);
        for arg in &args {
            assert_eq!(reader.text(next()), arg);
        }
        assert_eq!(next(), 0);
        for variable in &env {
            assert_eq!(reader.text(next()), variable);
        }
        assert_eq!(next(), 0);
        assert_eq!([next(), next(), next(), next()], [6, 4096, 9, 0x1234]);
        assert_eq!(next(), 15);
        assert_eq!(reader.text(next()), b"x86_64");
        assert_eq!(next(), 25);
        assert_eq!(reader.word(next()), 0x0707_0707_0707_0707);
        assert_eq!(next(), 31);
        assert_eq!(reader.text(next()), b"/bin/x");
        assert_eq!(next(), 0);
        assert_eq!(built.args.1, built.env.0, "tools overwrite both as one");
    }
}
