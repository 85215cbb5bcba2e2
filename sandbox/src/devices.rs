// SPDX-License-Identifier: Apache-2.0
//! The devices of a machine. The only place that names concrete ones; both engines take the list as it is.

use guest_init::wire::VIEW_TAG;

use crate::engine::{Attachment, Remote, Sockets};
use crate::virtio::{
    Id,
    rng::Rng,
    vsock::{Supply, Vsock},
};

/// How many there are. A kernel is told of so many, whether they are there when it boots or not.
pub(crate) const COUNT: usize = 3;

/// Every machine has the same devices in the same order; what differs between runs is behind them.
pub(crate) fn list(sockets: Sockets) -> [Attachment; COUNT] {
    let Sockets { ports, files, supply } = sockets;
    [
        Attachment::Local(Box::new(Vsock::new(ports, supply.map(Supply::new)))),
        Attachment::Remote(Remote { id: Id::Fs, tag: Some(VIEW_TAG), socket: files }),
        Attachment::Local(Box::new(Rng::new())),
    ]
}
