// SPDX-License-Identifier: Apache-2.0
//! What a case finds, and what a case is.

use crate::device::After;
use crate::machine::Machine;

/// How a device held out.
#[derive(Clone, Copy)]
pub(crate) enum Held {
    /// It did what the specification says.
    Pass,
    /// It refused, and said so or kept quiet.
    Reject,
}

/// An error says what it did instead.
pub(crate) type Verdict = Result<Held, &'static str>;

pub(crate) const PASS: Verdict = Ok(Held::Pass);
pub(crate) const REJECT: Verdict = Ok(Held::Reject);

/// One thing that no driver may do, or that no driver does.
pub(crate) struct Case {
    pub(crate) number: u32,
    /// Tests of the threat list that it is part of.
    pub(crate) tests: &'static str,
    /// Section of virtio 1.2 that says what is right.
    pub(crate) section: &'static str,
    pub(crate) name: &'static str,
    pub(crate) run: fn(&mut Machine) -> Verdict,
}

/// A row of a table.
pub(crate) const fn case(
    number: u32,
    tests: &'static str,
    section: &'static str,
    name: &'static str,
    run: fn(&mut Machine) -> Verdict,
) -> Case {
    Case { number, tests, section, name, run }
}

/// Goes on only if so.
pub(crate) fn ensure(held: bool, otherwise: &'static str) -> Result<(), &'static str> {
    if held { Ok(()) } else { Err(otherwise) }
}

impl After {
    /// A request that must not be carried out was not.
    pub(crate) fn refused(self) -> Verdict {
        match self {
            Self::Used { length: 0, .. } | Self::Broken => REJECT,
            Self::Used { .. } => Err("carried out"),
            Self::Silence => Err("no answer"),
        }
    }

    /// A request that may be carried out or not was answered.
    pub(crate) fn answered(self) -> Verdict {
        match self {
            Self::Used { length: 1.., .. } => PASS,
            other => other.refused(),
        }
    }

    /// Nothing came of what means nothing.
    pub(crate) fn ignored(self) -> Verdict {
        match self {
            Self::Silence => REJECT,
            Self::Broken => Err("gave up"),
            Self::Used { .. } => Err("used something"),
        }
    }
}
