//! What can be wrong with QEMU, the kernel image or the machine that was asked for.
//!
//! Raised by `qemu`, `image` and `session`.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::error::{listed, quoted};
use crate::units::Size;

/// A machine that cannot be started.
#[derive(Debug)]
pub enum MachineError {
    /// QEMU's binary is not there.
    NoQemu(PathBuf),
    /// QEMU is there and cannot be started.
    QemuUnusable(PathBuf, io::Error),
    /// QEMU gave up before the guest ran.
    QemuFailed {
        /// How it ended.
        ended: String,
        /// What it printed.
        stderr: String,
    },
    /// Hardware acceleration was asked for and is not to be had.
    NoKvm(io::Error),
    /// There is no kernel image.
    NoKernel {
        /// Where it was looked for.
        looked: Vec<PathBuf>,
        /// A source tree that can build it.
        workspace: Option<PathBuf>,
    },
    /// The kernel image is something else.
    NotKernel(PathBuf),
    /// The guest's files alone would fill its memory.
    MemoryTooSmall {
        /// What was asked for.
        memory: Size,
        /// What the kernel and the files take.
        needed: Size,
    },
}

impl MachineError {
    /// A short fixed name, for JSON.
    pub fn kind(&self) -> &'static str {
        use MachineError::*;
        match self {
            NoQemu(_) => "qemu_missing",
            QemuUnusable(..) => "qemu_unusable",
            QemuFailed { .. } => "qemu_failed",
            NoKvm(_) => "kvm_unavailable",
            NoKernel { .. } => "kernel_missing",
            NotKernel(_) => "not_a_kernel",
            MemoryTooSmall { .. } => "memory_too_small",
        }
    }

    /// What the user can do about it, if anything is known.
    pub fn help(&self) -> Option<String> {
        use MachineError::*;
        Some(match self {
            NoQemu(_) => "install it (Debian, Ubuntu: apt-get install qemu-system-x86), \
                          or name it with --qemu PATH or FAULTLESS_QEMU"
                .into(),
            QemuUnusable(..) => "check the path given with --qemu or FAULTLESS_QEMU".into(),
            QemuFailed { stderr, .. } => return qemu_help(stderr),
            NotKernel(_) => "build it with `cargo xtask kernel`, or leave --kernel and FAULTLESS_KERNEL out".into(),
            NoKvm(_) => "use --accel tcg (the default), or run where /dev/kvm can be opened".into(),
            NoKernel { workspace, .. } => kernel_help(workspace.as_deref()),
            MemoryTooSmall { needed, .. } => {
                format!("give it more: --memory {}M", needed.mib_rounded_up().next_power_of_two())
            }
        })
    }
}

/// What is known about the words with which QEMU gives up.
fn qemu_help(stderr: &str) -> Option<String> {
    let says = |text: &str| stderr.to_ascii_lowercase().contains(text);
    let help = match () {
        () if says("cannot set up guest memory") || says("cannot allocate memory") => {
            "this host cannot give so much: use a smaller --memory"
        }
        () if says("kvm") => "use --accel tcg (the default)",
        () if says("smp cpus") => "use fewer --cpus",
        () => return None,
    };
    Some(help.into())
}

fn kernel_help(workspace: Option<&Path>) -> String {
    match workspace {
        Some(workspace) => format!("build it: cd {} && cargo xtask kernel", workspace.display()),
        None => "name it with --kernel FILE or FAULTLESS_KERNEL; \
                 `cargo xtask kernel` in the source tree builds it"
            .into(),
    }
}

impl fmt::Display for MachineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use MachineError::*;
        match self {
            NoQemu(qemu) => write!(f, "QEMU is not installed: {} was not found", qemu.display()),
            QemuUnusable(qemu, source) => {
                write!(f, "{} cannot be started: {source}", qemu.display())
            }
            QemuFailed { ended, stderr } => {
                write!(f, "QEMU gave up before the guest started ({ended}){}", quoted(stderr))
            }
            NoKvm(source) => write!(f, "KVM cannot be used: /dev/kvm: {source}"),
            NoKernel { looked, .. } => write!(f, "the kernel image was not found. Looked for:{}", listed(looked)),
            NotKernel(path) => {
                write!(f, "{} is not an image of the kernel: it has no PVH entry point", path.display())
            }
            MemoryTooSmall { memory, needed } => {
                write!(f, "{memory} of memory are too few: the kernel and the guest's files alone take {needed}")
            }
        }
    }
}

impl std::error::Error for MachineError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            MachineError::QemuUnusable(_, source) | MachineError::NoKvm(source) => Some(source),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_comes_with_the_command_that_helps() {
        let qemu = MachineError::NoQemu("qemu-system-x86_64".into());
        assert!(qemu.help().expect("help").contains("apt-get install qemu-system-x86)"));
        let kernel = MachineError::NoKernel { looked: vec![], workspace: Some("/src/faultless".into()) };
        let command = "build it: cd /src/faultless && cargo xtask kernel";
        assert_eq!(kernel.help().expect("help"), command);
        let gave_up = |stderr: &str| MachineError::QemuFailed { ended: String::new(), stderr: stderr.into() }.help();
        assert!(gave_up("failed to initialize kvm: No such device").expect("help").contains("--accel tcg"));
        assert!(gave_up("cannot set up guest memory 'pc.ram'").expect("help").contains("smaller --memory"));
        assert_eq!(gave_up("no such board"), None);
        let memory = MachineError::MemoryTooSmall { memory: Size::from_mib(32), needed: Size::from_mib(100) };
        assert_eq!(memory.help().expect("help"), "give it more: --memory 128M");
    }
}
