// SPDX-License-Identifier: Apache-2.0
//! The processors of a machine: a thread each, ended together.
//!
//! A processor that runs guest code is stopped by a signal, whatever the guest does. The signal alone could be lost: it
//! may come between the look at the flag and KVM_RUN. So it is sent again every millisecond until the thread has ended.

use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::{Machine, run};
use crate::engine::kvm::Ending;
use crate::sys::kick;
use crate::sys::kvm::Cpu;

/// Between two kicks of a processor that has not stopped yet.
const KICK_AGAIN: Duration = Duration::from_millis(1);

/// After which a processor is left to the end of the process: KVM itself does not come back.
const PATIENCE: Duration = Duration::from_secs(1);

/// Why processors do not run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The signal that stops them.
    #[error("cannot install the signal that stops a virtual CPU")]
    Signal(#[source] io::Error),
    /// A thread.
    #[error("cannot start the thread of virtual CPU {cpu}")]
    Thread {
        /// Whose.
        cpu: usize,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// Running processors. Dropping it stops them.
#[derive(Debug)]
pub(crate) struct Team {
    stop: Arc<AtomicBool>,
    endings: Receiver<Ending>,
    threads: Vec<JoinHandle<()>>,
    machine: Arc<Machine>,
}

impl Team {
    /// Starts all processors. Each thread calls `confine` before its first guest instruction, and does not run if that
    /// fails.
    pub(crate) fn start(
        cpus: Vec<Cpu>,
        machine: Arc<Machine>,
        confine: impl Fn() -> io::Result<()> + Send + Sync + 'static,
    ) -> Result<Self, Error> {
        kick::install().map_err(Error::Signal)?;
        let (sender, endings) = mpsc::channel();
        let confine = Arc::new(confine);
        let mut team = Self { stop: Arc::default(), endings, threads: Vec::new(), machine };
        for (number, mut cpu) in cpus.into_iter().enumerate() {
            let (stop, machine, confine, sender) =
                (team.stop.clone(), team.machine.clone(), confine.clone(), sender.clone());
            let work = move || {
                let work = || match confine() {
                    Ok(()) => run(&mut cpu, &machine, &stop),
                    Err(error) => Ending::Unconfined { errno: error.raw_os_error().unwrap_or(0) },
                };
                // The thread ends here, so nobody sees what a panic has left half done.
                let ending = panic::catch_unwind(AssertUnwindSafe(work)).unwrap_or(Ending::Panicked);
                // Nobody listens any more if another processor ended first.
                let _heard = sender.send(ending);
            };
            let thread = thread::Builder::new().name(format!("vcpu-{number}")).spawn(work);
            team.threads.push(thread.map_err(|source| Error::Thread { cpu: number, source })?);
        }
        Ok(team)
    }

    /// Waits until one processor ends, then stops the others and has the devices finish what the guest has handed to them.
    pub(crate) fn wait(mut self) -> Ending {
        // A machine without processors has nobody to answer.
        let ending = self.endings.recv().unwrap_or(Ending::Panicked);
        self.stop();
        self.machine.windows.hang_up();
        ending
    }

    /// Stops every processor that still runs; whether all have stopped.
    pub(crate) fn stop(&mut self) -> bool {
        self.stop.store(true, Ordering::Release);
        let (begun, mut all) = (Instant::now(), true);
        for thread in self.threads.drain(..) {
            while !thread.is_finished() && begun.elapsed() < PATIENCE {
                kick::send(&thread);
                let _ending = self.endings.recv_timeout(KICK_AGAIN);
            }
            all &= thread.is_finished();
            if thread.is_finished() {
                // A panic was the thread's ending.
                drop(thread.join());
            }
        }
        all
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        self.stop();
    }
}
