//! ELF headers: what of them `execve` needs, checked.
//!
//! Pure: bytes in, numbers out. The caller has read the first page of the file; program headers
//! that lie elsewhere are refused, as no linker puts them there.

use alloc::vec::Vec;

use super::exec::PAGE;

/// Why a file is not executed. All of it is ENOEXEC to user code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotExecutable;

/// A checked ELF file.
#[derive(Debug, PartialEq, Eq)]
pub struct Elf {
    /// It can be loaded anywhere.
    pub relocatable: bool,
    /// Entry point, before relocation.
    pub entry: u64,
    /// Address of the program headers in memory, before relocation; 0 if they are not loaded.
    pub headers_address: u64,
    /// Number of program headers.
    pub headers_count: u64,
    /// Segments to map, by address.
    pub segments: Vec<Segment>,
    /// File range of the interpreter's path, terminator excluded.
    pub interpreter: Option<(u64, u64)>,
}

/// A part of the file to map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Address in memory, before relocation.
    pub address: u64,
    /// Bytes in memory; those beyond `file_bytes` are zero.
    pub memory_bytes: u64,
    /// Where the bytes are in the file.
    pub offset: u64,
    /// How many of them there are.
    pub file_bytes: u64,
    /// `PF_R`, `PF_W`, `PF_X`.
    pub flags: u32,
}

impl Segment {
    /// First byte of its first page.
    pub fn start(&self) -> u64 {
        self.address & !(PAGE - 1)
    }

    /// One past its last page.
    pub fn end(&self) -> u64 {
        (self.address + self.memory_bytes).next_multiple_of(PAGE)
    }
}

/// Size of one program header.
pub const HEADER_SIZE: u64 = 56;

const EXECUTABLE: u16 = 2;
const SHARED: u16 = 3;
const X86_64: u16 = 62;
const LOAD: u32 = 1;
const INTERPRETER: u32 = 3;
/// Segments above this address are refused: room for relocation, and no overflow in sums.
const ADDRESS_MAX: u64 = 1 << 47;
const INTERPRETER_MAX: u64 = 4096;

struct Reader<'b>(&'b [u8]);

impl Reader<'_> {
    fn bytes<const N: usize>(&self, at: u64) -> Result<[u8; N], NotExecutable> {
        let at = usize::try_from(at).map_err(|_| NotExecutable)?;
        let end = at.checked_add(N).ok_or(NotExecutable)?;
        let slice = self.0.get(at..end).ok_or(NotExecutable)?;
        slice.try_into().map_err(|_| NotExecutable)
    }

    fn u16(&self, at: u64) -> Result<u16, NotExecutable> {
        Ok(u16::from_le_bytes(self.bytes(at)?))
    }

    fn u32(&self, at: u64) -> Result<u32, NotExecutable> {
        Ok(u32::from_le_bytes(self.bytes(at)?))
    }

    fn u64(&self, at: u64) -> Result<u64, NotExecutable> {
        Ok(u64::from_le_bytes(self.bytes(at)?))
    }
}

/// Reads the headers of a file from its first bytes.
pub fn parse(start_of_file: &[u8]) -> Result<Elf, NotExecutable> {
    let file = Reader(start_of_file);
    // Magic, 64-bit, little endian, version 1.
    if file.bytes(0)? != *b"\x7fELF\x02\x01\x01" || file.u16(18)? != X86_64 {
        return Err(NotExecutable);
    }
    let relocatable = match file.u16(16)? {
        EXECUTABLE => false,
        SHARED => true,
        _ => return Err(NotExecutable),
    };
    let (table, count) = (file.u64(32)?, u64::from(file.u16(56)?));
    if u64::from(file.u16(54)?) != HEADER_SIZE || count == 0 {
        return Err(NotExecutable);
    }
    let mut elf = Elf {
        relocatable,
        entry: file.u64(24)?,
        headers_address: 0,
        headers_count: count,
        segments: Vec::new(),
        interpreter: None,
    };
    for n in 0..count {
        read_header(&file, table.checked_add(n * HEADER_SIZE).ok_or(NotExecutable)?, table, &mut elf)?;
    }
    let sorted = elf.segments.windows(2).all(|w| w[0].end() <= w[1].start());
    if elf.segments.is_empty() || !sorted {
        return Err(NotExecutable);
    }
    Ok(elf)
}

fn read_header(file: &Reader<'_>, at: u64, table: u64, elf: &mut Elf) -> Result<(), NotExecutable> {
    let offset = file.u64(at + 8)?;
    let file_bytes = file.u64(at + 32)?;
    match file.u32(at)? {
        LOAD => {
            let segment = Segment {
                address: file.u64(at + 16)?,
                memory_bytes: file.u64(at + 40)?,
                offset,
                file_bytes,
                flags: file.u32(at + 4)?,
            };
            if segment.memory_bytes == 0 {
                return Ok(());
            }
            check(&segment)?;
            if (offset..offset + file_bytes).contains(&table) {
                elf.headers_address = segment.address + (table - offset);
            }
            elf.segments.push(segment);
        }
        INTERPRETER => {
            // The path ends with a zero byte.
            if !(2..=INTERPRETER_MAX).contains(&file_bytes) {
                return Err(NotExecutable);
            }
            elf.interpreter = Some((offset, file_bytes - 1));
        }
        _ => {}
    }
    Ok(())
}

fn check(segment: &Segment) -> Result<(), NotExecutable> {
    let sane = segment.address < ADDRESS_MAX
        && segment.memory_bytes < ADDRESS_MAX
        && segment.offset < ADDRESS_MAX
        && segment.file_bytes <= segment.memory_bytes
        && segment.address % PAGE == segment.offset % PAGE;
    if sane { Ok(()) } else { Err(NotExecutable) }
}
