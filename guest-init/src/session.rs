// SPDX-License-Identifier: Apache-2.0
//! The whole conversation with the host: hello, then doing as it says, once each.
//!
//! Nothing that differs between runs happens before the host speaks, so that the machine can be copied while it waits.

use crate::{
    cgroup::Group,
    control::{Control, Error},
    devices,
    failure::Failure,
    freeze, machine, mounts,
    room::Room,
    run,
    vsock::Dialling,
    wire::{FromGuest, Mount, Tally, ToGuest, VERSION, port},
};
use rustix::{fd::OwnedFd, io::Errno};

/// Speaks with the host for as long as it listens: why it ended.
pub fn serve() -> Error {
    let ground = lay_ground();
    let Ok(socket) = dial() else { return Error::Closed };
    let mut control = Control::new(socket);
    let Err(error) = converse(&mut control, ground);
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

fn converse(control: &mut Control, ground: Result<Group, Failure>) -> Result<core::convert::Infallible, Error> {
    control.send(FromGuest::Hello { version: VERSION })?;
    let mut ground = Some(ground);
    let mut group = None;
    loop {
        match control.receive()? {
            ToGuest::Ping => control.send(FromGuest::Pong(Tally::default()))?,
            // Before the command has started, or after it has ended.
            ToGuest::Signal { .. } | ToGuest::Resize(_) => {}
            ToGuest::Mount(mount) => match ground.take().map(|ground| furnish(&mount, ground)) {
                Some(Ok(new)) => {
                    group = Some(new);
                    control.send(FromGuest::Mounted)?;
                }
                Some(Err(failure)) => control.fail(failure)?,
                None => control.fail(Failure::PROTOCOL)?,
            },
            ToGuest::Exec(exec) => match group.take() {
                Some((group, room)) => run::run(control, group, room, exec)?,
                None => control.fail(Failure::PROTOCOL)?,
            },
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
fn furnish(mount: &Mount, ground: Result<Group, Failure>) -> Result<(Group, Room), Failure> {
    let group = ground?;
    machine::seed(&mount.entropy)?;
    machine::set_clock(mount.clock)?;
    mounts::assemble(mount)?;
    Ok((group, Room::new(&mount.tmpfs)))
}
