// SPDX-License-Identifier: Apache-2.0
//! The digests of kernel and initramfs, computed while the machine boots with them.
//!
//! Reading 16 MiB takes as long as a twentieth of a boot, and files that have not changed since they passed are not read
//! again ([`images::Image::begin`]). No command is sent to a machine before both are known to be
//! right, and if they are not, that is the run's error, whatever became of the machine.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use super::Error;
use crate::sys::eventfd;

/// A check in progress, or passed.
pub(super) struct ImagesCheck {
    thread: Option<JoinHandle<Result<(), images::ImageError>>>,
    /// Readable when the thread has its answer.
    done: Option<Arc<OwnedFd>>,
}

impl ImagesCheck {
    /// Begins what there is to check.
    pub(super) fn begin(checks: [Option<images::Check>; 2]) -> io::Result<Self> {
        if checks.iter().all(Option::is_none) {
            return Ok(Self { thread: None, done: None });
        }
        let done = Arc::new(eventfd::create()?);
        let bell = Arc::clone(&done);
        let work = move || {
            let answer = checks.into_iter().flatten().try_for_each(images::Check::finish);
            // Our own counter cannot be full.
            let _ = eventfd::signal(&bell);
            answer
        };
        let thread = thread::Builder::new().name("images".to_owned()).spawn(work)?;
        Ok(Self { thread: Some(thread), done: Some(done) })
    }

    /// What to poll for while there is no answer: a machine with a damaged kernel may never say a word.
    pub(super) fn pending(&self) -> Option<BorrowedFd<'_>> {
        self.thread.as_ref().and(self.done.as_deref()).map(OwnedFd::as_fd)
    }

    /// Waits for the answer, which comes long before the end of a boot. A failure is told once.
    pub(super) fn passed(&mut self) -> Result<(), Error> {
        match self.thread.take().map(JoinHandle::join) {
            None => Ok(()),
            Some(Ok(checked)) => Ok(checked?),
            Some(Err(_panic)) => Err(io::Error::other("the check of kernel and initramfs panicked").into()),
        }
    }
}

impl Drop for ImagesCheck {
    fn drop(&mut self) {
        // Left early, for another reason, which is being told.
        let _ = self.passed();
    }
}
