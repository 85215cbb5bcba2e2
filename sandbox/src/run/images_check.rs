// SPDX-License-Identifier: Apache-2.0
//! The digests of kernel and initramfs, computed while the machine boots with them.
//!
//! Reading 16 MiB takes as long as a fourteenth of a boot. No command is sent to a machine before both are known to
//! be right, and if they are not, that is the run's error, whatever became of the machine.

use std::io;
use std::thread::{self, JoinHandle};

use super::Error;

/// A check in progress, or passed.
pub(super) struct ImagesCheck(Option<JoinHandle<Result<(), images::ImageError>>>);

impl ImagesCheck {
    pub(super) fn begin(checks: [images::Check; 2]) -> io::Result<Self> {
        let work = move || checks.into_iter().try_for_each(images::Check::finish);
        thread::Builder::new().name("images".to_owned()).spawn(work).map(|thread| Self(Some(thread)))
    }

    /// Waits for the check's end, which comes long before that of the boot. Only the first failure is told.
    pub(super) fn passed(&mut self) -> Result<(), Error> {
        match self.0.take().map(JoinHandle::join) {
            None => Ok(()),
            Some(Ok(checked)) => Ok(checked?),
            Some(Err(_panic)) => Err(io::Error::other("the check of kernel and initramfs panicked").into()),
        }
    }
}
