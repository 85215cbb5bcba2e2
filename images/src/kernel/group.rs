// SPDX-License-Identifier: Apache-2.0
//! A process group that dies with us, however we die.
//!
//! make starts sub-makes, shells and compilers; a death signal would reach the first only. So all of them run in the
//! group of a watcher that reads from a pipe whose only writer is this process: when that ends, the kernel closes
//! the pipe, and the watcher kills its group, itself included.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};

#[derive(Debug)]
pub(super) struct Group {
    watcher: Child,
    id: i32,
}

impl Group {
    /// Starts the watcher.
    pub(super) fn new() -> io::Result<Self> {
        let watcher = Command::new("sh")
            .args(["-c", "read -r _; kill -KILL 0"])
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let id = i32::try_from(watcher.id()).map_err(io::Error::other)?;
        Ok(Self { watcher, id })
    }

    /// Makes a command, once spawned, a member.
    pub(super) fn adopt<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command.process_group(self.id)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        drop(self.watcher.stdin.take());
        // nobody to tell: it can only fail if there is nothing to wait for
        let _ = self.watcher.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt as _;

    #[test]
    fn members_and_their_children_die_with_the_group() {
        let group = Group::new().unwrap();
        let (mut reader, writer) = io::pipe().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 600 & sleep 600"]).stdout(writer);
        let mut member = group.adopt(&mut command).spawn().unwrap();
        drop(command);

        drop(group);

        assert_eq!(member.wait().unwrap().signal(), Some(9));
        // end of file: neither the shell nor its children hold the writing end any more
        assert_eq!(io::copy(&mut reader, &mut io::sink()).unwrap(), 0);
    }
}
