//! `mmap`: what files say to it.

use alloc::sync::Arc;

use faultless::PageRange;
use faultless_linux::Caller;
use faultless_linux::calls::{self, FileRights, MapFile, MapTarget, MmapArgs};
use linux_raw_sys::general as linux;

use super::as_caller;
use crate::errno::{Errno, SysResult};
use crate::fs::{Body, Device, FileData, OpenFile, frames};
use crate::machine::KernelMachine;
use crate::syscall::call::Call;

/// An open file that is to be mapped.
struct Mappable(Arc<OpenFile>);

impl MapFile<KernelMachine> for Mappable {
    fn rights(&self) -> FileRights {
        let rights = self.0.rights();
        FileRights { read: rights.read, write: rights.write }
    }

    fn is_regular(&self) -> bool {
        matches!(self.0.inode.body, Body::Regular(_))
    }

    fn is_huge(&self) -> bool {
        self.0.inode.data().is_some_and(FileData::is_huge)
    }

    fn seals_writes(&self) -> bool {
        self.0.inode.data().is_some_and(FileData::seals_writes)
    }

    fn target(&self) -> Result<MapTarget<KernelMachine>, Errno> {
        Ok(match &self.0.inode.body {
            Body::Regular(data) => MapTarget::Object(data.object(&self.0.inode)?),
            Body::Device(Device::Zero) => MapTarget::Zero,
            Body::Device(Device::Frames) => MapTarget::Frames,
            _ => MapTarget::Unmappable,
        })
    }

    fn fill(&self, caller: &mut Caller<'_, KernelMachine>, range: PageRange, offset: u64) -> Result<(), Errno> {
        frames::fill(caller, range, offset)
    }
}

pub(in crate::syscall) fn mmap(call: &mut Call<'_>) -> SysResult {
    let args = MmapArgs {
        address: call.word(0),
        length: call.word(1),
        protection: call.uint(2),
        flags: call.uint(3),
        offset: call.word(5),
    };
    let is_anonymous = args.flags & linux::MAP_ANONYMOUS != 0;
    let file = if is_anonymous { None } else { call.file(4).ok().map(Mappable) };
    as_caller(call, |caller| calls::mmap(caller, args, file.as_ref())).map(u64::cast_signed)
}
