// SPDX-License-Identifier: Apache-2.0
//! The devices of a machine. The only place that names concrete ones; both engines take the list as it is.

use std::io;

use guest_init::wire::VIEW_TAG;

use crate::engine::{Attachment, Remote, Sockets};
use crate::virtio::{
    Id,
    disk::Disk,
    rng::Rng,
    vsock::{Supply, Vsock},
};

/// How many there are. A kernel is told of so many, whether they are there when it boots or not.
pub(crate) const fn count(disk: bool) -> usize {
    if disk { 4 } else { 3 }
}

/// Every machine has the same devices in the same order, and those with a disk have it behind them; what differs between
/// runs is behind the devices.
///
/// # Errors
/// If the disk's file cannot be looked at.
pub(crate) fn list(sockets: Sockets) -> io::Result<Vec<Attachment>> {
    let Sockets { ports, files, disk, supply } = sockets;
    let mut devices = vec![
        Attachment::Local(Box::new(Vsock::new(ports, supply.map(Supply::new)))),
        Attachment::Remote(Remote { id: Id::Fs, tag: Some(VIEW_TAG), socket: files }),
        Attachment::Local(Box::new(Rng::new())),
    ];
    if let Some(disk) = disk {
        devices.push(Attachment::Local(Box::new(Disk::new(disk)?)));
    }
    Ok(devices)
}
