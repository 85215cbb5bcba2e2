// SPDX-License-Identifier: Apache-2.0
//! Tests that run on the host and boot machines themselves, and what a host must offer for them.

use std::fmt;

/// A test that boots machines, or says why it cannot.
pub struct Case {
    /// Name, unique in its suite.
    pub name: &'static str,
    /// What the machine it runs on must offer.
    pub needs: &'static [Need],
    /// The test: panics or returns an error to fail.
    pub body: fn() -> Result<(), String>,
}

/// Something not every host offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// A program in `PATH`.
    Program(&'static str),
    /// The superuser.
    Root,
    /// A variable of the environment that leads to something.
    Variable(&'static str),
}

impl Need {
    /// Why this host does not meet the need, if it does not.
    #[must_use]
    pub fn missing(self) -> Option<String> {
        match self {
            Self::Program(name) => {
                let path = std::env::var_os("PATH").unwrap_or_default();
                let found = std::env::split_paths(&path).any(|place| place.join(name).is_file());
                (!found).then(|| format!("no {name} in PATH"))
            }
            Self::Variable(name) => std::env::var_os(name).is_none().then(|| format!("{name} is not set")),
            Self::Root => {
                let owner = std::fs::metadata("/proc/self").map(|own| std::os::unix::fs::MetadataExt::uid(&own));
                (!owner.is_ok_and(|uid| uid == 0)).then(|| "not root".to_owned())
            }
        }
    }
}

impl Case {
    /// Why this case cannot run here, if it cannot.
    #[must_use]
    pub fn obstacle(&self) -> Option<String> {
        self.needs.iter().find_map(|need| need.missing())
    }
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Case").field("name", &self.name).field("needs", &self.needs).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unmet_need_is_an_obstacle_with_a_reason() {
        let needs = &[Need::Program("sh"), Need::Program("no-such-program")];
        let case = Case { name: "x", needs, body: || Ok(()) };
        assert_eq!(case.obstacle().as_deref(), Some("no no-such-program in PATH"));
    }
}
