// SPDX-License-Identifier: Apache-2.0
//! How a run ended, and the one table from ending to exit code.
//!
//! Every way to end has a name. A run is a success only if the guest said so; whatever is not known is an ending of
//! its own, never zero.

use std::fmt;

/// Why a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// The command exited with this status.
    Exited(u8),
    /// This signal killed the command.
    Signaled(u8),
    /// Our time limit passed.
    Timeout,
    /// The guest ran out of its memory.
    Oom {
        /// Whom its kernel killed.
        victim: Victim,
        /// The most that the command and its children had used, in bytes; zero if that is not known.
        peak: u64,
    },
    /// The program exists but cannot be run; why.
    NotExecutable(String),
    /// There is no such program; where it was looked for.
    NotFound(String),
    /// The guest's kernel panicked.
    GuestPanic,
    /// The guest rebooted or powered itself off; how.
    GuestReset(String),
    /// The guest stopped answering, or its answers make no sense; how.
    LostContact(String),
    /// The process that runs the machine ended on its own; how.
    VmmCrash(String),
    /// The guest did not come up in time.
    BootTimeout,
    /// The command wrote more than it was allowed to.
    OutputLimit,
    /// Something of ours failed; what.
    SetupError(String),
    /// What was asked for makes no sense; why.
    UsageError(String),
    /// This signal told us to stop.
    Cancelled(i32),
}

/// Whom the guest's kernel killed for want of memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Victim {
    /// The command, or one of its children whose end was its own; which process, if the kernel's word has come.
    Command(Option<Killed>),
    /// Guest init: the machine as a whole had no memory left.
    Init,
}

/// A process that the guest's kernel killed for want of memory, in the kernel's words. Whoever is root in the guest can
/// forge them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Killed {
    /// What it called itself.
    pub name: String,
    /// Its number as the guest's kernel counts; the command's own namespace counts otherwise.
    pub pid: u32,
}

impl fmt::Display for Killed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (pid {})", self.name, self.pid)
    }
}

/// What an ending says of the command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// It said that all is well.
    Pass,
    /// It did not, or it went beyond what it was allowed.
    Fail,
    /// Nothing: the machine did not come up or was lost, or we were told to stop.
    Infrastructure,
}

impl Verdict {
    /// The name in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::Infrastructure => "infrastructure",
        }
    }
}

impl Cause {
    /// What this ending says of the command.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        match self {
            Self::Exited(0) => Verdict::Pass,
            Self::Exited(_)
            | Self::Signaled(_)
            | Self::Timeout
            | Self::Oom { .. }
            | Self::OutputLimit
            | Self::NotExecutable(_)
            | Self::NotFound(_) => Verdict::Fail,
            Self::GuestPanic
            | Self::GuestReset(_)
            | Self::LostContact(_)
            | Self::VmmCrash(_)
            | Self::BootTimeout
            | Self::SetupError(_)
            | Self::UsageError(_)
            | Self::Cancelled(_) => Verdict::Infrastructure,
        }
    }

    /// Whether another attempt could end otherwise, as far as the cause alone says: something of ours was lost, and nobody
    /// has asked for that.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        self.verdict() == Verdict::Infrastructure && !matches!(self, Self::UsageError(_) | Self::Cancelled(_))
    }

    /// The cause's name in reports.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Exited(_) => "exited",
            Self::Signaled(_) => "signaled",
            Self::Timeout => "timeout",
            Self::Oom { .. } => "oom",
            Self::NotExecutable(_) => "not_executable",
            Self::NotFound(_) => "not_found",
            Self::GuestPanic => "guest_panic",
            Self::GuestReset(_) => "guest_reset",
            Self::LostContact(_) => "lost_contact",
            Self::VmmCrash(_) => "vmm_crash",
            Self::BootTimeout => "boot_timeout",
            Self::OutputLimit => "output_limit",
            Self::SetupError(_) => "setup_error",
            Self::UsageError(_) => "usage_error",
            Self::Cancelled(_) => "cancelled",
        }
    }

    /// What `sandbox run` exits with.
    #[must_use]
    pub fn code(&self) -> u8 {
        match self {
            Self::Exited(status) => *status,
            Self::Signaled(signal) => signal.saturating_add(128),
            Self::Timeout => 124,
            Self::Oom { .. } => 137,
            Self::NotExecutable(_) => 126,
            Self::NotFound(_) => 127,
            Self::GuestPanic
            | Self::GuestReset(_)
            | Self::LostContact(_)
            | Self::VmmCrash(_)
            | Self::BootTimeout
            | Self::OutputLimit
            | Self::SetupError(_)
            | Self::UsageError(_) => 125,
            Self::Cancelled(signal) => u8::try_from(128 + signal).unwrap_or(125),
        }
    }

    /// The signal in the ending, if there is one.
    #[must_use]
    pub fn signal(&self) -> Option<i32> {
        match self {
            Self::Signaled(signal) => Some(i32::from(*signal)),
            Self::Oom { victim: Victim::Command(_), .. } => Some(9),
            Self::Cancelled(signal) => Some(*signal),
            _ => None,
        }
    }

    /// Whether the guest itself failed, so that its console's last lines help.
    #[must_use]
    pub fn is_of_the_machine(&self) -> bool {
        matches!(
            self,
            Self::GuestPanic
                | Self::GuestReset(_)
                | Self::LostContact(_)
                | Self::VmmCrash(_)
                | Self::BootTimeout
                | Self::Oom { victim: Victim::Init, .. }
        )
    }

    /// Whether the user has to be told more than the exit code says: everything but the command's own ending.
    #[must_use]
    pub fn needs_words(&self) -> bool {
        !matches!(self, Self::Exited(_) | Self::Signaled(_) | Self::Cancelled(_))
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(status) => write!(f, "the command exited with status {status}"),
            Self::Signaled(signal) => write!(f, "signal {signal} killed the command"),
            Self::Timeout => write!(f, "the command exceeded its time limit and was killed"),
            Self::Oom { victim: Victim::Command(who), peak } => {
                write!(f, "the guest ran out of memory and killed ")?;
                match who {
                    Some(who) => write!(f, "{who}")?,
                    None => write!(f, "the command")?,
                }
                if *peak > 0 {
                    write!(f, " at a peak of {} MiB", peak >> 20)?;
                }
                write!(f, "; give it more with -m")
            }
            Self::Oom { victim: Victim::Init, .. } => {
                write!(f, "the guest ran out of memory as a whole; give it more with -m")
            }
            Self::NotExecutable(why) | Self::NotFound(why) => write!(f, "{why}"),
            Self::GuestPanic => write!(f, "the guest's kernel panicked"),
            Self::GuestReset(how) => write!(f, "the guest rebooted or powered off before the command had ended: {how}"),
            Self::LostContact(how) => write!(f, "lost contact with the guest: {how}"),
            Self::VmmCrash(how) => write!(f, "the virtual machine's process ended: {how}"),
            Self::BootTimeout => write!(f, "the guest did not come up in time"),
            Self::OutputLimit => write!(f, "the command wrote more than --output-limit allows and was killed"),
            Self::SetupError(what) | Self::UsageError(what) => write!(f, "{what}"),
            Self::Cancelled(signal) => write!(f, "stopped by signal {signal}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_those_of_the_design() {
        let text = String::new;
        let table = [
            (Cause::Exited(7), 7),
            (Cause::Signaled(9), 137),
            (Cause::Timeout, 124),
            (Cause::Oom { victim: Victim::Command(None), peak: 0 }, 137),
            (Cause::NotExecutable(text()), 126),
            (Cause::NotFound(text()), 127),
            (Cause::GuestPanic, 125),
            (Cause::GuestReset(text()), 125),
            (Cause::LostContact(text()), 125),
            (Cause::VmmCrash(text()), 125),
            (Cause::BootTimeout, 125),
            (Cause::OutputLimit, 125),
            (Cause::SetupError(text()), 125),
            (Cause::UsageError(text()), 125),
            (Cause::Cancelled(2), 130),
            (Cause::Cancelled(15), 143),
            (Cause::Cancelled(1), 129),
        ];
        for (cause, code) in table {
            assert_eq!(cause.code(), code, "{}", cause.name());
        }
    }

    #[test]
    fn only_a_status_of_zero_is_a_pass() {
        assert_eq!(Cause::Exited(0).verdict(), Verdict::Pass);
        for failed in [Cause::Exited(1), Cause::Exited(125), Cause::Signaled(6), Cause::Timeout, Cause::OutputLimit] {
            assert_eq!(failed.verdict(), Verdict::Fail, "{}", failed.name());
        }
        for lost in [Cause::GuestPanic, Cause::BootTimeout, Cause::Cancelled(15)] {
            assert_eq!(lost.verdict(), Verdict::Infrastructure, "{}", lost.name());
        }
    }

    #[test]
    fn want_of_memory_names_whom_it_killed_and_the_peak() {
        let who = Some(Killed { name: "cc1".to_owned(), pid: 57 });
        let text = Cause::Oom { victim: Victim::Command(who), peak: 224 << 20 }.to_string();
        assert_eq!(
            text,
            "the guest ran out of memory and killed cc1 (pid 57) at a peak of 224 MiB; give it more with -m"
        );
    }
}
