// SPDX-License-Identifier: Apache-2.0
//! The whole conversation with the host: hello, then doing as it says, once each.
//!
//! Nothing that differs between runs happens before the host speaks, so that the machine can be copied while it waits.

use crate::{
    cgroup::Group,
    control::{Control, Error},
    failure::Failure,
    machine, mounts, run,
    vsock::Dialling,
    wire::{FromGuest, Mount, ToGuest, VERSION, port},
};

/// Speaks with the host for as long as it listens: why it ended.
pub fn serve() -> Error {
    let Ok(socket) = Dialling::begin(port::CONTROL).and_then(Dialling::complete) else { return Error::Closed };
    let mut control = Control::new(socket);
    let Err(error) = converse(&mut control);
    if error == Error::Protocol {
        // There is nothing to wait for: the next message could not be told from the last.
        _ = control.fail(Failure::PROTOCOL);
    }
    error
}

fn converse(control: &mut Control) -> Result<core::convert::Infallible, Error> {
    control.send(FromGuest::Hello { version: VERSION })?;
    let mut group = None;
    let mut mounted = false;
    loop {
        match control.receive()? {
            ToGuest::Ping => control.send(FromGuest::Pong)?,
            // Before the command has started, or after it has ended.
            ToGuest::Signal(_) => {}
            ToGuest::Mount(mount) if !mounted => {
                mounted = true;
                match furnish(&mount) {
                    Ok(new) => {
                        group = Some(new);
                        control.send(FromGuest::Mounted)?;
                    }
                    Err(failure) => control.fail(failure)?,
                }
            }
            ToGuest::Exec(exec) => match group.take() {
                Some(group) => run::run(control, group, exec)?,
                None => control.fail(Failure::PROTOCOL)?,
            },
            ToGuest::Mount(_) => control.fail(Failure::PROTOCOL)?,
        }
    }
}

/// Everything that can be done before it is known what will run.
fn furnish(mount: &Mount) -> Result<Group, Failure> {
    mounts::assemble(mount)?;
    machine::raise_loopback()?;
    Group::create()
}
