// SPDX-License-Identifier: Apache-2.0
//! The whole conversation with the host: hello, then doing as it says, once each.
//!
//! Nothing that differs between runs happens before the host speaks, so that the machine can be copied while it waits.
//!
//! Of several commands each has a conversation of its own, with a process of its own at this end: a copy of the first,
//! which holds what the first has assembled, serves one command, and ends with it. So nothing here knows of more than one
//! command, nothing of one stays behind, and those that run at the same time share no loop.

use crate::{
    cgroup::Group,
    changes::Layers,
    control::{Control, Error},
    devices,
    failure::Failure,
    freeze, log, machine, mounts,
    room::Room,
    run,
    sys::{self, Clone},
    vsock::Dialling,
    wire::{FromGuest, Mount, Step, Tally, ToGuest, VERSION, port},
};
use core::convert::Infallible;
use rustix::{
    fd::OwnedFd,
    io::Errno,
    process::{WaitOptions, wait},
};

/// Speaks with the host for as long as it listens: why it ended.
pub fn serve() -> Error {
    let ground = lay_ground();
    let Ok(socket) = dial() else { return Error::Closed };
    let mut control = Control::new(socket, 0);
    let Err(error) = converse(&mut control, Some(ground), None);
    if error == Error::Protocol {
        // There is nothing to wait for: the next message could not be told from the last.
        _ = control.fail(Failure::PROTOCOL);
    }
    error
}

/// Without devices there is no host to speak with. Such a machine is to be frozen, and its copies have them.
fn dial() -> rustix::io::Result<OwnedFd> {
    let dialling = match Dialling::begin(port::CONTROL) {
        Err(Errno::NODEV) => {
            freeze::freeze()?;
            devices::bind()?;
            Dialling::begin(port::CONTROL)
        }
        begun => begun,
    };
    dialling?.complete()
}

fn converse(
    control: &mut Control,
    mut ground: Option<Result<Group, Failure>>,
    mut group: Option<(Group, Room)>,
) -> Result<Infallible, Error> {
    let mut layers = None;
    control.send(FromGuest::Hello { version: VERSION })?;
    loop {
        match control.receive()? {
            ToGuest::Ping => control.send(FromGuest::Pong(Tally::default()))?,
            // Before the command has started, or after it has ended.
            ToGuest::Signal { .. } | ToGuest::Resize(_) => {}
            ToGuest::Mount(mount) => match ground.take().map(|ground| furnish(&mount, ground)) {
                Some(Ok((new, room, below))) => {
                    group = Some((new, room));
                    layers = Some(below);
                    control.send(FromGuest::Mounted)?;
                }
                Some(Err(failure)) => control.fail(failure)?,
                None => control.fail(Failure::PROTOCOL)?,
            },
            ToGuest::Exec(exec) => match group.take() {
                Some((own, room)) => group = Some(run::run(control, own, room, exec)?),
                None => control.fail(Failure::PROTOCOL)?,
            },
            ToGuest::Beside(_) if group.is_none() => control.fail(Failure::PROTOCOL)?,
            ToGuest::Beside(number) => {
                if copy(control)?
                    && let Some((group, room)) = group.take()
                {
                    // Whatever it came to, the host has been told, or is gone.
                    let Err(_) = attend(control, &group, room, number);
                    sys::exit(0);
                }
            }
            ToGuest::Tell(request) => match &layers {
                Some(layers) => {
                    if copy(control)? {
                        layers.tell(&request);
                        sys::exit(0);
                    }
                }
                None => control.fail(Failure::PROTOCOL)?,
            },
            ToGuest::Log(number) => {
                if copy(control)? {
                    log::tell(number);
                    sys::exit(0);
                }
            }
        }
    }
}

/// Makes a copy of this process, which is to do one thing and to end; whether this is it.
fn copy(control: &mut Control) -> Result<bool, Error> {
    // Nothing else here waits for copies that have ended.
    while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}
    match sys::clone(0, None) {
        Ok(Clone::Child) => Ok(true),
        Ok(Clone::Parent { .. }) => Ok(false),
        Err(errno) => control.fail(Failure { step: Step::Fork, errno }).map(|()| false),
    }
}

/// Speaks with the host about one command. The copy's end of the first conversation is closed.
fn attend(control: &mut Control, group: &Group, room: Room, number: u32) -> Result<Infallible, Error> {
    let dialling = Dialling::begin(port::of(port::CONTROL, number)).and_then(Dialling::complete);
    let Ok(socket) = dialling else { return Err(Error::Closed) };
    *control = Control::new(socket, number);
    match group.another(number) {
        Ok(group) => converse(control, None, Some((group, room))),
        Err(failure) => {
            control.fail(failure)?;
            Err(Error::Closed)
        }
    }
}

/// What can be done before the host has said a word, so that no copy needs to do it. The host hears of a failure when it
/// first asks for something.
fn lay_ground() -> Result<Group, Failure> {
    machine::raise_loopback()?;
    Group::create()
}

/// Everything that can be done before it is known what will run.
fn furnish(mount: &Mount, ground: Result<Group, Failure>) -> Result<(Group, Room, Layers), Failure> {
    let group = ground?;
    machine::seed(&mount.entropy)?;
    machine::set_clock(mount.clock)?;
    let layers = mounts::assemble(mount)?;
    Ok((group, Room::new(&mount.tmpfs), layers))
}
