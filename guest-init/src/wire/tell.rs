// SPDX-License-Identifier: Apache-2.0
//! What init is asked about files. What it answers is no message of the control connection ([`crate::record`]).

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

/// Which files to tell of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tell {
    /// Over which connection.
    pub number: u32,
    /// Everything at this absolute path, which is ended by a NUL byte; or what commands have changed in the private layer: anywhere,
    /// if it is empty, else at and on the way to these paths, without the slash before them, and with a NUL byte before each and
    /// after the last.
    pub path: ByteBuf,
    /// Whether also what files hold.
    pub content: bool,
}
