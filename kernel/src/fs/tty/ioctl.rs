//! `ioctl` on the terminal.
//!
//! Called by the system call. Requests that are not here are `ENOTTY`, as for a driver that does not
//! know them.

use linux_raw_sys::general as linux;
use linux_raw_sys::ioctl as request;

use super::Tty;
use super::termios::{SIZE, SIZE2};
use crate::arch::CpuLocal;
use crate::errno::{Errno, SysResult};
use crate::signal::{self, SigInfo, number};
use crate::uaccess::{self, Layout};

impl Tty {
    /// Does what `command` says.
    ///
    /// # Errors
    ///
    /// `ENOTTY`, `EFAULT`, `EINVAL`, and those of job control.
    pub fn ioctl(&self, cpu: &mut CpuLocal, command: u32, argument: u64) -> SysResult {
        match command {
            request::TCGETS => self.get(cpu, argument, SIZE),
            request::TCGETS2 => self.get(cpu, argument, SIZE2),
            request::TCSETS | request::TCSETSW => self.set::<SIZE>(cpu, argument),
            request::TCSETSF => self.flush_and(cpu, |cpu| self.set::<SIZE>(cpu, argument)),
            request::TCSETS2 | request::TCSETSW2 => self.set::<SIZE2>(cpu, argument),
            request::TCSETSF2 => self.flush_and(cpu, |cpu| self.set::<SIZE2>(cpu, argument)),
            request::TCFLSH => self.flush(cpu, argument as u32),
            request::TCXONC => self.flow(cpu, argument as u32),
            // Output is never behind: there is nothing to wait for, and no break to send.
            request::TCSBRK => self.check_change(cpu).map(|()| 0),
            request::TIOCGWINSZ => self.get_window(cpu, argument),
            request::TIOCSWINSZ => self.set_window(cpu, argument),
            request::TIOCINQ => put_int(cpu, argument, self.state.lock().discipline.readable() as i32),
            request::TIOCOUTQ | request::TIOCGETD => put_int(cpu, argument, 0),
            _ => self.control(cpu, command, argument),
        }
    }

    /// Requests about sessions and groups.
    fn control(&self, cpu: &mut CpuLocal, command: u32, argument: u64) -> SysResult {
        let process = cpu.current().process.clone();
        match command {
            request::TIOCGPGRP => {
                let group = self.foreground(&process)?;
                put_int(cpu, argument, group)
            }
            request::TIOCSPGRP => {
                let group = uaccess::read_u32(cpu, argument)?.cast_signed();
                self.set_foreground(cpu, group).map(|()| 0)
            }
            request::TIOCGSID => {
                if !self.controls(&process) {
                    return Err(Errno::ENOTTY);
                }
                put_int(cpu, argument, process.session())
            }
            request::TIOCSCTTY => self.take_control(&process).map(|()| 0),
            request::TIOCNOTTY => self.give_up_control(&process).map(|()| 0),
            _ => Err(Errno::ENOTTY),
        }
    }

    fn get(&self, cpu: &mut CpuLocal, to: u64, size: usize) -> SysResult {
        let bytes = self.state.lock().discipline.termios().to_bytes();
        uaccess::write(cpu, to, &bytes[..size])?;
        Ok(0)
    }

    fn set<const N: usize>(&self, cpu: &mut CpuLocal, from: u64) -> SysResult {
        let bytes: [u8; N] = uaccess::read(cpu, from)?;
        self.check_change(cpu)?;
        {
            let mut state = self.state.lock();
            let mut termios = *state.discipline.termios();
            termios.update(&bytes);
            state.discipline.set_termios(termios);
        }
        // What was not readable before may be now, and stopped output may go on.
        self.readable.wake_all();
        self.writable.wake_all();
        Ok(0)
    }

    fn flush_and(&self, cpu: &mut CpuLocal, then: impl FnOnce(&mut CpuLocal) -> SysResult) -> SysResult {
        self.check_change(cpu)?;
        self.state.lock().discipline.flush_input();
        then(cpu)
    }

    fn flush(&self, cpu: &mut CpuLocal, queue: u32) -> SysResult {
        self.check_change(cpu)?;
        match queue {
            linux::TCIFLUSH | linux::TCIOFLUSH => self.state.lock().discipline.flush_input(),
            // Output is written at once: none is queued.
            linux::TCOFLUSH => {}
            _ => return Err(Errno::EINVAL),
        }
        Ok(0)
    }

    fn flow(&self, cpu: &mut CpuLocal, action: u32) -> SysResult {
        self.check_change(cpu)?;
        let stopped = match action {
            linux::TCOOFF => true,
            linux::TCOON => false,
            _ => return Err(Errno::EINVAL),
        };
        self.state.lock().discipline.set_stopped(stopped);
        self.writable.wake_all();
        Ok(0)
    }

    fn get_window(&self, cpu: &mut CpuLocal, to: u64) -> SysResult {
        let window = self.state.lock().window;
        window.into_iter().fold(Layout::new(), Layout::u16).write(cpu, to)?;
        Ok(0)
    }

    fn set_window(&self, cpu: &mut CpuLocal, from: u64) -> SysResult {
        let bytes: [u8; 8] = uaccess::read(cpu, from)?;
        let field = |n: usize| u16::from_le_bytes([bytes[2 * n], bytes[2 * n + 1]]);
        let window = [field(0), field(1), field(2), field(3)];
        let (changed, foreground) = {
            let mut state = self.state.lock();
            let changed = state.window != window;
            state.window = window;
            (changed, state.foreground)
        };
        if changed {
            signal::send_group(foreground, SigInfo::kernel(number::SIGWINCH));
        }
        Ok(0)
    }
}

/// Writes an `int` for the caller.
pub(in crate::fs) fn put_int(cpu: &mut CpuLocal, to: u64, value: i32) -> SysResult {
    uaccess::write(cpu, to, &value.to_le_bytes())?;
    Ok(0)
}
