// SPDX-License-Identifier: Apache-2.0
//! Locks on bytes of a file that belong to an open file (fcntl(2), "Open file description locks"): the kernel lifts them
//! when the last descriptor of it is closed, which the death of a process does too.

use std::fs::File;
use std::io;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};

/// The byte at this place of a file, which need not be that long.
fn byte(at: u64, kind: i32) -> libc::flock {
    libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: at as libc::off_t,
        l_len: 1,
        l_pid: 0,
    }
}

/// Locks a byte for this open file alone; whether that was possible at once.
pub(crate) fn try_lock(file: &File, at: u64) -> io::Result<bool> {
    match fcntl(file, FcntlArg::F_OFD_SETLK(&byte(at, libc::F_WRLCK))) {
        Ok(_) => Ok(true),
        Err(Errno::EAGAIN | Errno::EACCES) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// The same, and waits for it behind those that have waited longer. Nothing but a signal's handler interrupts that.
pub(crate) fn lock(file: &File, at: u64) -> io::Result<()> {
    loop {
        match fcntl(file, FcntlArg::F_OFD_SETLKW(&byte(at, libc::F_WRLCK))) {
            Ok(_) => return Ok(()),
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Gives a byte back.
pub(crate) fn unlock(file: &File, at: u64) -> io::Result<()> {
    fcntl(file, FcntlArg::F_OFD_SETLK(&byte(at, libc::F_UNLCK)))?;
    Ok(())
}

/// Whether another open file has this byte.
pub(crate) fn is_locked(file: &File, at: u64) -> io::Result<bool> {
    let mut found = byte(at, libc::F_WRLCK);
    fcntl(file, FcntlArg::F_OFD_GETLK(&mut found))?;
    Ok(found.l_type != libc::F_UNLCK as libc::c_short)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_is_free_when_its_holder_has_closed_the_file() {
        let place = tempfile::tempdir().unwrap();
        let open = || File::options().read(true).write(true).create(true).truncate(false).open(place.path().join("f"));
        let (one, other) = (open().unwrap(), open().unwrap());
        assert!(try_lock(&one, 7).unwrap());
        assert!(!try_lock(&other, 7).unwrap());
        assert!(try_lock(&other, 8).unwrap(), "the next byte is another's");
        assert_eq!((is_locked(&one, 7).unwrap(), is_locked(&other, 7).unwrap()), (false, true));
        let waiting = std::thread::spawn(move || {
            lock(&other, 7).unwrap();
            unlock(&other, 7).unwrap();
            other
        });
        drop(one);
        assert!(!is_locked(&waiting.join().unwrap(), 7).unwrap());
    }
}
