//! The QEMU command line of one machine.
//!
//! Called by `commands` and `session`. The accelerator is always named, because QEMU's own choice differs from host to
//! host. Devices: a serial console on standard input and output, a debug console whose bytes are the guest's reports,
//! an exit device. Absent on purpose: disks, networks, displays.

use std::ffi::{OsStr, OsString};
use std::fs::OpenOptions;
use std::path::Path;
use std::process::Command;

use crate::units::Size;
use crate::vm::error::MachineError;

/// QEMU's exit code when the guest wrote 0x10 to the exit device: an orderly end. 0 is not one, since a triple fault
/// ends with 0 too.
pub const ORDERLY_END: i32 = (0x10 << 1) | 1;

/// What executes the guest's instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accelerator {
    /// QEMU's translator: runs everywhere, and counts instructions if asked.
    Tcg(Clock),
    /// The host's hardware.
    Kvm,
}

/// What the translator's virtual time follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clock {
    /// The host's clock; one host thread per CPU.
    Host,
    /// The number of instructions executed: each run is the same, to the microsecond. One host thread. The time of day
    /// starts at [`COUNTED_EPOCH`] and the CPU's random numbers are those of a fixed seed, whatever the host has.
    Instructions,
}

/// The time of day at which a guest starts whose instructions are counted.
pub const COUNTED_EPOCH: &str = "2026-01-01T00:00:00";

/// The board.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Board {
    /// A PC with PCI Express.
    Q35,
    /// A small board without legacy devices, which boots faster.
    Microvm,
}

/// A machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// What executes it.
    pub accelerator: Accelerator,
    /// The board.
    pub board: Board,
    /// The number of CPUs.
    pub cpus: u32,
    /// The size of memory.
    pub memory: Size,
}

/// The files of one run.
#[derive(Debug, Clone, Copy)]
pub struct Files<'f> {
    /// The kernel image.
    pub kernel: &'f Path,
    /// The guest's archive.
    pub archive: &'f Path,
    /// Where the bytes of the debug console go.
    pub events: &'f Path,
}

impl Machine {
    /// The command that runs this machine, with standard streams not yet set.
    pub fn command(&self, qemu: &Path, files: &Files<'_>) -> Command {
        let mut command = Command::new(qemu);
        command.args(self.accelerator.arguments());
        command.args(self.accelerator.chance());
        command.args(["-M", self.board.argument()]);
        command.args(["-smp", &self.cpus.to_string()]);
        command.args(["-m", &format!("{}M", self.memory.mib_rounded_up())]);
        command.args(["-no-user-config", "-nodefaults", "-display", "none", "-no-reboot"]);
        // The console's bytes are the program's: QEMU must not make signals of them.
        command.args(["-chardev", "stdio,id=con,signal=off", "-serial", "chardev:con"]);
        command.arg("-chardev");
        command.arg(option_path("file,id=rep,path=", files.events));
        command.args(["-device", "isa-debugcon,iobase=0xe9,chardev=rep"]);
        command.args(["-device", "isa-debug-exit,iobase=0xf4,iosize=4"]);
        command.arg("-kernel").arg(files.kernel);
        command.arg("-initrd").arg(files.archive);
        command.args(["-append", &format!("faultless.cpus={}", self.cpus)]);
        command
    }

    /// Checks what can be known before QEMU starts. `files` is the size of kernel image and archive.
    ///
    /// # Errors
    ///
    /// [`MachineError::MemoryTooSmall`], [`MachineError::NoKvm`].
    pub fn check(&self, files: Size) -> Result<(), MachineError> {
        let needed = Size::from_bytes(files.bytes().saturating_add(KERNEL_NEEDS.bytes()));
        if self.memory < needed {
            return Err(MachineError::MemoryTooSmall { memory: self.memory, needed });
        }
        if self.accelerator == Accelerator::Kvm {
            let kvm = OpenOptions::new().read(true).write(true).open("/dev/kvm");
            kvm.map_err(MachineError::NoKvm)?;
        }
        Ok(())
    }
}

/// What the kernel needs beside its image and the files: its heap, tables and frame records, with a little to run in.
const KERNEL_NEEDS: Size = Size::from_mib(32);

impl Accelerator {
    fn arguments(self) -> &'static [&'static str] {
        match self {
            Accelerator::Tcg(Clock::Host) => &["-accel", "tcg,thread=multi", "-cpu", "max"],
            Accelerator::Tcg(Clock::Instructions) => {
                &["-accel", "tcg,thread=single", "-icount", "shift=0,sleep=off", "-cpu", "max"]
            }
            Accelerator::Kvm => &["-accel", "kvm", "-cpu", "host"],
        }
    }

    /// Where the time of day and random numbers come from.
    fn chance(self) -> Vec<String> {
        match self {
            Accelerator::Tcg(Clock::Instructions) => {
                vec!["-rtc".into(), format!("base={COUNTED_EPOCH},clock=vm"), "-seed".into(), "1".into()]
            }
            Accelerator::Tcg(Clock::Host) | Accelerator::Kvm => vec!["-rtc".into(), "base=utc".into()],
        }
    }

    /// The name for reports.
    pub fn name(self) -> &'static str {
        match self {
            Accelerator::Tcg(Clock::Host) => "tcg",
            Accelerator::Tcg(Clock::Instructions) => "tcg, counting instructions",
            Accelerator::Kvm => "kvm",
        }
    }
}

impl Board {
    fn argument(self) -> &'static str {
        match self {
            Board::Q35 => "q35",
            Board::Microvm => "microvm,isa-serial=on,rtc=on",
        }
    }

    /// The name for reports.
    pub fn name(self) -> &'static str {
        match self {
            Board::Q35 => "q35",
            Board::Microvm => "microvm",
        }
    }
}

/// A path inside an option, where a comma is written twice.
fn option_path(prefix: &str, path: &Path) -> OsString {
    let mut option = OsString::from(prefix);
    for (index, part) in path.as_os_str().as_encoded_bytes().split(|&byte| byte == b',').enumerate() {
        if index > 0 {
            option.push(",,");
        }
        option.push(<OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(part));
    }
    option
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(machine: &Machine) -> String {
        let files = Files { kernel: Path::new("/k"), archive: Path::new("/a"), events: Path::new("/odd,dir/e") };
        let command = machine.command(Path::new("qemu"), &files);
        let words = command.get_args().map(|word| word.to_string_lossy().into_owned());
        words.collect::<Vec<_>>().join(" ")
    }

    fn machine() -> Machine {
        Machine { accelerator: Accelerator::Tcg(Clock::Host), board: Board::Q35, cpus: 3, memory: Size::from_mib(256) }
    }

    #[test]
    fn the_accelerator_is_always_named() {
        assert!(line(&machine()).contains("-accel tcg,thread=multi -cpu max -rtc base=utc -M q35 -smp 3 -m 256M"));
        let counted =
            Machine { accelerator: Accelerator::Tcg(Clock::Instructions), board: Board::Microvm, ..machine() };
        assert!(line(&counted).contains("-accel tcg,thread=single -icount shift=0,sleep=off -cpu max -rtc base=20"));
        let hardware = Machine { accelerator: Accelerator::Kvm, ..machine() };
        assert!(line(&hardware).contains("-accel kvm -cpu host"));
    }

    #[test]
    fn a_counted_run_takes_neither_time_nor_chance_from_the_host() {
        let counted = Machine { accelerator: Accelerator::Tcg(Clock::Instructions), ..machine() };
        assert!(line(&counted).contains("-rtc base=2026-01-01T00:00:00,clock=vm -seed 1 -M q35"));
        assert!(!line(&machine()).contains("-seed"));
    }

    #[test]
    fn commas_in_paths_are_doubled() {
        assert!(line(&machine()).contains("file,id=rep,path=/odd,,dir/e"));
    }

    #[test]
    fn files_that_fill_memory_are_refused_before_the_start() {
        assert!(machine().check(Size::from_mib(100)).is_ok());
        assert!(matches!(machine().check(Size::from_mib(250)), Err(MachineError::MemoryTooSmall { .. })));
    }
}
