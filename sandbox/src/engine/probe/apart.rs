// SPDX-License-Identifier: Apache-2.0
//! The trial in a process of its own: this program once more, which can be ended whatever KVM does with it.
//!
//! KVM_RUN returns when the guest stops or a signal comes, and a guest on a KVM that does not work may never stop. A signal
//! would need a handler, which would be the whole program's; a process needs none, and its end also ends its machine.

use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{DEVICE, Finding, trial};
use crate::sys::child;

/// The hidden subcommand that calls [`answer()`].
pub const SUBCOMMAND: &str = "kvm-trial";

/// A trial takes milliseconds, under emulation some hundred.
const LIMIT: Duration = Duration::from_secs(5);

/// An answer is shorter than this, and comes in one piece.
const ANSWER_MAX: usize = 4096;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("its process cannot be started")]
    Start(#[source] io::Error),
    #[error("its process cannot be waited for")]
    Wait(#[source] io::Error),
    #[error("it came to no end within {} s", LIMIT.as_secs())]
    Late,
    #[error("its process told nothing that can be understood")]
    Answer(#[source] serde_json::Error),
}

/// Carries out the subcommand: tries KVM and prints the finding.
#[must_use]
pub fn answer() -> ExitCode {
    let finding = match OpenOptions::new().read(true).write(true).open(DEVICE) {
        Ok(device) => trial::run(device),
        Err(error) => Finding::of_open(&error),
    };
    let said = serde_json::to_vec(&finding).map_err(io::Error::from).and_then(|text| io::stdout().write_all(&text));
    if said.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Has `program`, which must be this one, try KVM.
pub(super) fn ask(program: &Path) -> Result<Finding, Error> {
    let mut command = Command::new(program);
    command.arg(SUBCOMMAND).env_clear().current_dir("/");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    child::die_with_parent(&mut command, 3, || Ok(()));
    let mut trial = Trial(command.spawn().map_err(Error::Start)?);
    let text = trial.answer(Instant::now() + LIMIT)?;
    serde_json::from_slice(&text).map_err(Error::Answer)
}

/// A process under way. Dropping it ends it.
struct Trial(Child);

impl Trial {
    fn answer(&mut self, deadline: Instant) -> Result<Vec<u8>, Error> {
        let Some(output) = &mut self.0.stdout else { return Ok(Vec::new()) };
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let timeout = Timespec::try_from(left).map_err(|error| Error::Wait(io::Error::other(error)))?;
            match poll(&mut [PollFd::new(output, PollFlags::IN)], Some(&timeout)) {
                Ok(0) => return Err(Error::Late),
                Ok(_) => break,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(Error::Wait(error.into())),
            }
        }
        let mut text = vec![0; ANSWER_MAX];
        let count = output.read(&mut text).map_err(Error::Wait)?;
        text.truncate(count);
        Ok(text)
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        // Both fail only if it has ended and been waited for already.
        let _over = self.0.kill();
        let _over = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_says_nothing_is_no_finding() {
        assert!(matches!(ask(Path::new("/bin/true")), Err(Error::Answer(_))));
        assert!(matches!(ask(Path::new("/bin/echo")), Err(Error::Answer(_))));
        assert!(matches!(ask(Path::new("/no/such/program")), Err(Error::Start(_))));
    }

    #[test]
    fn a_process_that_does_not_end_is_given_up_and_ended() {
        let mut command = Command::new("sleep");
        command.arg("600").stdout(Stdio::piped());
        let mut trial = Trial(command.spawn().expect("sleep can be started"));
        let begun = Instant::now();
        assert!(matches!(trial.answer(begun + Duration::from_millis(20)), Err(Error::Late)));
        drop(trial);
        assert!(begun.elapsed() < Duration::from_secs(60));
    }
}
