//! What one ELF image asks of its loader: interpreter, libraries, search paths.
//!
//! Called by `libraries` and `prepare`. Reads program headers only, as the kernel and the dynamic linker do: section
//! headers may be stripped. Absent on purpose: symbols, relocations, versions.

use std::fmt;

use object::elf::{self, FileHeader64};
use object::read::elf::{Dyn, FileHeader, ProgramHeader};
use object::{Endianness, LittleEndian as LE, U16};

/// The facts of one x86-64 Linux image.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Image {
    /// `PT_INTERP`: the dynamic linker, absent in static programs and most libraries.
    pub interpreter: Option<String>,
    /// `DT_NEEDED`, in order.
    pub needed: Vec<String>,
    /// `DT_RPATH`, split at colons.
    pub rpath: Vec<String>,
    /// `DT_RUNPATH`, split at colons. Its presence switches `rpath` off, even when it is empty.
    pub runpath: Option<Vec<String>>,
    /// `DT_SONAME`: another name under which the loader knows this library.
    pub soname: Option<String>,
}

/// Why a file is not an image that the guest can load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageError {
    /// The file does not start with the ELF magic.
    NotElf,
    /// A 32-bit image.
    Class32,
    /// An image for another processor; the number is `e_machine`.
    Machine(u16),
    /// Neither a program nor a shared object; the number is `e_type`.
    Type(u16),
    /// The headers point outside the file or contradict themselves.
    Malformed,
}

/// Offset and place of `e_type` and `e_machine`: the same in both classes, so they can be read before the rest.
const IDENT_CLASS: usize = 4;
const IDENT_DATA: usize = 5;
const TYPE_OFFSET: usize = 16;
const MACHINE_OFFSET: usize = 18;

impl Image {
    /// Reads the facts from the bytes of a file.
    ///
    /// # Errors
    ///
    /// [`ImageError`] if the file is not an x86-64 program or shared object.
    pub fn parse(data: &[u8]) -> Result<Self, ImageError> {
        check_kind(data)?;
        let malformed = |_| ImageError::Malformed;
        let header = FileHeader64::<Endianness>::parse(data).map_err(malformed)?;
        let endian = header.endian().map_err(malformed)?;
        let segments = header.program_headers(endian, data).map_err(malformed)?;
        let mut image = Image::default();
        for segment in segments {
            if let Some(path) = segment.interpreter(endian, data).map_err(malformed)? {
                image.interpreter = Some(text(path)?);
            }
            if let Some(entries) = segment.dynamic(endian, data).map_err(malformed)? {
                let strings = Strings::find(endian, data, segments, entries)?;
                image.read_dynamic(endian, entries, &strings)?;
            }
        }
        Ok(image)
    }

    fn read_dynamic(
        &mut self,
        endian: Endianness,
        entries: &[elf::Dyn64<Endianness>],
        strings: &Strings<'_>,
    ) -> Result<(), ImageError> {
        for entry in live(endian, entries) {
            let value = entry.d_val(endian);
            match entry.d_tag(endian) {
                elf::DT_NEEDED => self.needed.push(strings.at(value)?),
                elf::DT_SONAME => self.soname = Some(strings.at(value)?),
                elf::DT_RPATH => self.rpath = split_path(&strings.at(value)?),
                elf::DT_RUNPATH => self.runpath = Some(split_path(&strings.at(value)?)),
                _ => {}
            }
        }
        Ok(())
    }
}

fn check_kind(data: &[u8]) -> Result<(), ImageError> {
    if !data.starts_with(&elf::ELFMAG) {
        return Err(ImageError::NotElf);
    }
    let half = |offset: usize| -> Result<u16, ImageError> {
        let bytes = data.get(offset..offset + 2).ok_or(ImageError::Malformed)?;
        Ok(U16::<LE>::from_bytes([bytes[0], bytes[1]]).get(LE))
    };
    let machine = half(MACHINE_OFFSET)?;
    if data[IDENT_DATA] != elf::ELFDATA2LSB.0 {
        // Big endian: the number was read the wrong way round.
        return Err(ImageError::Machine(machine.swap_bytes()));
    }
    if machine != elf::EM_X86_64.0 && machine != elf::EM_386.0 {
        return Err(ImageError::Machine(machine));
    }
    if data[IDENT_CLASS] != elf::ELFCLASS64.0 {
        return Err(ImageError::Class32);
    }
    if machine != elf::EM_X86_64.0 {
        return Err(ImageError::Machine(machine));
    }
    match half(TYPE_OFFSET)? {
        kind if kind == elf::ET_EXEC.0 || kind == elf::ET_DYN.0 => Ok(()),
        kind => Err(ImageError::Type(kind)),
    }
}

/// The entries before `DT_NULL`.
fn live(endian: Endianness, entries: &[elf::Dyn64<Endianness>]) -> impl Iterator<Item = &elf::Dyn64<Endianness>> {
    entries.iter().take_while(move |entry| entry.d_tag(endian) != elf::DT_NULL)
}

/// The dynamic string table, found through its address as the loader finds it.
struct Strings<'data>(&'data [u8]);

impl<'data> Strings<'data> {
    fn find(
        endian: Endianness,
        data: &'data [u8],
        segments: &[elf::ProgramHeader64<Endianness>],
        entries: &[elf::Dyn64<Endianness>],
    ) -> Result<Self, ImageError> {
        let value =
            |tag| live(endian, entries).find(|entry| entry.d_tag(endian) == tag).map(|entry| entry.d_val(endian));
        let (Some(address), Some(size)) = (value(elf::DT_STRTAB), value(elf::DT_STRSZ)) else {
            return Ok(Strings(&[]));
        };
        segments
            .iter()
            .filter(|segment| segment.p_type(endian) == elf::PT_LOAD)
            .find_map(|segment| segment.data_range(endian, data, address, size).ok()?)
            .map(Strings)
            .ok_or(ImageError::Malformed)
    }

    fn at(&self, offset: u64) -> Result<String, ImageError> {
        let start = usize::try_from(offset).map_err(|_| ImageError::Malformed)?;
        let rest = self.0.get(start..).ok_or(ImageError::Malformed)?;
        let end = rest.iter().position(|&byte| byte == 0).ok_or(ImageError::Malformed)?;
        text(&rest[..end])
    }
}

fn text(bytes: &[u8]) -> Result<String, ImageError> {
    String::from_utf8(bytes.to_vec()).map_err(|_| ImageError::Malformed)
}

/// Splits a search path at its colons. Empty members mean the current directory to the loader; a guest that starts
/// elsewhere would find something else there, so they are left out.
fn split_path(path: &str) -> Vec<String> {
    path.split(':').filter(|member| !member.is_empty()).map(str::to_owned).collect()
}

/// The name of a processor by its ELF number, for messages.
fn machine_name(machine: u16) -> Option<&'static str> {
    Some(match elf::Machine(machine) {
        elf::EM_386 => "32-bit x86",
        elf::EM_ARM => "32-bit Arm",
        elf::EM_AARCH64 => "64-bit Arm",
        elf::EM_RISCV => "RISC-V",
        elf::EM_PPC64 => "PowerPC",
        elf::EM_S390 => "IBM Z",
        elf::EM_MIPS => "MIPS",
        elf::EM_LOONGARCH => "LoongArch",
        _ => return None,
    })
}

impl fmt::Display for ImageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            ImageError::NotElf => f.write_str("it is not an ELF file"),
            ImageError::Class32 => f.write_str("it is a 32-bit program"),
            ImageError::Machine(machine) => match machine_name(machine) {
                Some(name) => write!(f, "it was built for {name}"),
                None => write!(f, "it was built for another processor (ELF machine {machine})"),
            },
            ImageError::Type(1) => f.write_str("it is an object file that was not linked yet"),
            ImageError::Type(4) => f.write_str("it is a core dump"),
            ImageError::Type(kind) => write!(f, "its ELF type {kind} is not a program"),
            ImageError::Malformed => f.write_str("its ELF headers are damaged"),
        }
    }
}

impl std::error::Error for ImageError {}

#[cfg(test)]
pub(crate) mod tests;
