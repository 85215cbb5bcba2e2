// SPDX-License-Identifier: Apache-2.0
//! vsock ports on the host that the guest dials, each exactly once. The constants are the first command's; each further
//! command has the same ones moved on ([`of`]).

/// The control connection.
pub const CONTROL: u32 = 1024;
/// The command's standard input: host to guest.
pub const STDIN: u32 = 1025;
/// The command's standard output: guest to host.
pub const STDOUT: u32 = 1026;
/// The command's standard error: guest to host.
pub const STDERR: u32 = 1027;

/// How many ports there are between a command's first and the next one's.
const STEP: u32 = 8;

/// The port that the command of this number, counted from 0, has instead of the `first` one's.
pub fn of(first: u32, number: u32) -> u32 {
    first.wrapping_add(number.wrapping_mul(STEP))
}
