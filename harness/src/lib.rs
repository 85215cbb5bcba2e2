// SPDX-License-Identifier: Apache-2.0
//! Tests that want a machine: functions that each run in a virtual machine of their own, with the interface of `cargo test`.
//!
//! A test is one function with one attribute, anywhere in the test program; the program's `main` is [`main()`], and its entry in
//! `Cargo.toml` says `harness = false`. What a test needs is data in the attribute: see [`Machine`].
//!
//! ```standalone_crate
//! use std::{fs, io, thread};
//!
//! /// As root of its own machine it may do to it what it likes: the machine dies with the test.
//! #[harness::test(memory = "256M", root)]
//! fn a_host_without_users() -> io::Result<()> {
//!     fs::remove_file("/etc/passwd")?;
//!     assert!(fs::read("/etc/passwd").is_err());
//!     Ok(())
//! }
//!
//! #[harness::test(cpus = 2, timeout = "1m", env = ["GREETING=hello"])]
//! fn two_processors() {
//!     assert_eq!(thread::available_parallelism().unwrap().get(), 2);
//!     assert_eq!(std::env::var("GREETING").unwrap(), "hello");
//! }
//!
//! #[harness::test]
//! #[ignore = "takes long"]
//! fn later() {}
//!
//! fn main() -> std::process::ExitCode {
//!     harness::main()
//! }
//! ```
//!
//! `cargo test` runs as many at a time as there are processors, and puts into the message of a failure what the test wrote. Under
//! nextest each test is a process, and what it writes is passed on as it comes. Either way the program is started again in the machine,
//! where it sees what `cargo test` shows it on the host, at the same paths ([`sandbox::cargo`]), and runs that one function. It passes
//! if that returns; otherwise its panic is the message, with the places of all that is known of it (output, console, report) and a line that
//! repeats it. They lie in the target directory (`vm-evidence`), or where `SANDBOX_EVIDENCE` says.
//!
//! Of a test whose machine did not come up or was lost nothing is known: its message says *infrastructure*, and if no other test has
//! failed, the exit code is 125 and not 101.
//!
//! The machine is run by the `sandbox` program, which `SANDBOX_BIN` or `PATH` names.
//!
//! Tests that boot machines themselves, on the host, go into the same suite: see [`Case`] and [`Suite`].

mod case;
mod inside;
mod machine;
mod suite;

pub use case::{Case, Need};
pub use harness_attribute::test;
pub use machine::{Machine, Registered};
pub use suite::Suite;

#[doc(hidden)]
pub use inventory;

use std::process::ExitCode;

/// Runs the tests of this program that are chosen on its command line. For the end of `main`.
#[must_use]
pub fn main() -> ExitCode {
    Suite::new().run()
}
