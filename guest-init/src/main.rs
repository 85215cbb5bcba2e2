// SPDX-License-Identifier: Apache-2.0
//! The guest's PID 1.
fn main() {}
