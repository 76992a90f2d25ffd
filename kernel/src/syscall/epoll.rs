//! `epoll`: level-triggered and one-shot.

use linux_raw_sys::general as linux;

use super::Calls;
use super::Handler::{Full, Plain};
use super::call::Call;
use super::open::make_epoll;
use super::poll::{Patience, swap_mask, wait};
use crate::errno::{Errno, SysResult};
use crate::fs::{Body, Control, Event, OnExec};
use crate::sched::Outcome;
use crate::uaccess::{self, Layout};

pub(super) const CALLS: Calls = &[
    (linux::__NR_epoll_create, Plain(epoll_create)),
    (linux::__NR_epoll_create1, Plain(epoll_create1)),
    (linux::__NR_epoll_ctl, Plain(epoll_ctl)),
    (linux::__NR_epoll_wait, Full(|call| run(call, |call| Ok(Patience::of_millis(call.int(3)))))),
    (linux::__NR_epoll_pwait, Full(epoll_pwait)),
    (linux::__NR_epoll_pwait2, Full(epoll_pwait2)),
];

/// Bytes of a `struct epoll_event`, which is packed.
const EVENT: usize = 12;
/// Most events reported at once.
const EVENTS_MAX: usize = 1024;

fn epoll_create(call: &mut Call<'_>) -> SysResult {
    if call.int(0) <= 0 {
        return Err(Errno::EINVAL);
    }
    make_epoll(call, OnExec::Keep)
}

fn epoll_create1(call: &mut Call<'_>) -> SysResult {
    let flags = call.uint(0);
    if flags & !linux::EPOLL_CLOEXEC != 0 {
        return Err(Errno::EINVAL);
    }
    make_epoll(call, OnExec::closing_if(flags != 0))
}

fn epoll_ctl(call: &mut Call<'_>) -> SysResult {
    let (operation, fd, at) = (call.uint(1), call.int(2), call.word(3));
    let event = match operation {
        linux::EPOLL_CTL_DEL => Event { events: 0, data: 0 },
        _ => {
            let bytes: [u8; EVENT] = uaccess::read(call.cpu, at)?;
            Event { events: uaccess::half(&bytes, 0), data: uaccess::word(&bytes, 4) }
        }
    };
    let instance = call.file(0)?;
    let target = call.file(2)?;
    match &target.inode.body {
        // Ready at all times, and therefore refused by Linux as well.
        Body::Regular(_) | Body::Directory(_) | Body::Proc(_) => return Err(Errno::EPERM),
        Body::Epoll(_) => return Err(Errno::EINVAL),
        _ => {}
    }
    let Body::Epoll(epoll) = &instance.inode.body else {
        return Err(Errno::EINVAL);
    };
    let control = match operation {
        linux::EPOLL_CTL_ADD => Control::Add(event),
        linux::EPOLL_CTL_MOD => Control::Modify(event),
        linux::EPOLL_CTL_DEL => Control::Delete,
        _ => return Err(Errno::EINVAL),
    };
    epoll.control(fd, &target, control)?;
    Ok(0)
}

fn epoll_pwait(call: &mut Call<'_>) -> Outcome {
    run(call, |call| {
        let (mask, size) = (call.word(4), call.word(5));
        swap_mask(call, mask, size)?;
        Ok(Patience::of_millis(call.int(3)))
    })
}

fn epoll_pwait2(call: &mut Call<'_>) -> Outcome {
    run(call, |call| {
        let (timeout, mask, size) = (call.word(3), call.word(4), call.word(5));
        let patience = Patience::of_timespec(call, timeout)?;
        swap_mask(call, mask, size)?;
        Ok(patience)
    })
}

/// Runs a wait whose patience `begin` finds out.
fn run(call: &mut Call<'_>, begin: fn(&mut Call<'_>) -> Result<Patience, Errno>) -> Outcome {
    let steps = |call: &mut Call<'_>| {
        let patience = begin(call)?;
        wait_for_events(call, patience)
    };
    steps(call).unwrap_or_else(Outcome::from)
}

fn wait_for_events(call: &mut Call<'_>, patience: Patience) -> Result<Outcome, Errno> {
    let (to, most) = (call.word(1), call.int(2));
    if most <= 0 || most as usize > i32::MAX as usize / EVENT {
        return Err(Errno::EINVAL);
    }
    let file = call.file(0)?;
    let Body::Epoll(epoll) = &file.inode.body else {
        return Err(Errno::EINVAL);
    };
    if patience != Patience::None {
        epoll.register(call.thread);
    }
    let events = epoll.ready(EVENTS_MAX.min(most as usize));
    if events.is_empty() {
        return Ok(wait(call, patience).unwrap_or(Outcome::Done(0)));
    }
    let layout = events.iter().fold(Layout::new(), |layout, event| layout.u32(event.events).u64(event.data));
    layout.write(call.cpu, to)?;
    Ok(Outcome::Done(events.len() as i64))
}
