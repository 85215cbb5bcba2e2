// SPDX-License-Identifier: Apache-2.0
//! A program's tests, of both kinds, in the hands of libtest-mimic.

use std::collections::HashSet;
use std::env;
use std::iter;
use std::panic::catch_unwind;
use std::process::ExitCode;
use std::sync::mpsc::{self, Sender};

use libtest_mimic::{Arguments, Failed, Trial};
use sandbox::{Verdict, suite};

use crate::case::Case;
use crate::inside;
use crate::machine::Registered;

/// With this variable set, a case that cannot run here fails instead of being skipped.
const STRICT: &str = "SANDBOX_STRICT";

const PANIC: &str = "infrastructure, which says nothing of the test: the harness panicked";

/// All tests of a program: those in machines, which register themselves, and those on the host, which are given.
///
/// ```standalone_crate
/// use harness::{Case, Need, Suite};
///
/// const CASES: &[Case] = &[Case { name: "host::has_a_shell", needs: &[Need::Program("sh")], body: || Ok(()) }];
///
/// #[harness::test(memory = "256M")]
/// fn has_a_shell() {
///     assert!(std::path::Path::new("/bin/sh").exists());
/// }
///
/// fn main() -> std::process::ExitCode {
///     Suite::new().cases(CASES).run()
/// }
/// ```
#[derive(Debug)]
pub struct Suite {
    cases: Vec<&'static Case>,
    kind: String,
    left_out: fn(&str) -> Option<&'static str>,
    chosen: fn(usize) -> bool,
}

impl Suite {
    /// Of those that register themselves.
    #[expect(clippy::new_without_default, reason = "a suite is made to be run")]
    #[must_use]
    pub fn new() -> Self {
        Self { cases: Vec::new(), kind: String::new(), left_out: |_| None, chosen: |_| true }
    }

    /// Adds tests that run on the host. One whose needs are not met is ignored, and says why; if the variable `SANDBOX_STRICT` is
    /// set, it fails.
    #[must_use]
    pub fn cases(mut self, cases: impl IntoIterator<Item = &'static Case>) -> Self {
        self.cases.extend(cases);
        self
    }

    /// What stands in brackets before each test's name.
    #[must_use]
    pub fn kind(mut self, kind: impl Into<String>) -> Self {
        self.kind = kind.into();
        self
    }

    /// Which tests are ignored, and why, by their names.
    #[must_use]
    pub fn left_out(mut self, why: fn(&str) -> Option<&'static str>) -> Self {
        self.left_out = why;
        self
    }

    /// Which of all tests, counted from 0, are this program's: so that several can share them.
    #[must_use]
    pub fn part(mut self, chosen: fn(usize) -> bool) -> Self {
        self.chosen = chosen;
        self
    }

    /// Runs what is chosen on the command line. In a machine it runs the test that the machine is for; so nothing of a program's `main`
    /// that is not for every test should come before it.
    #[must_use]
    pub fn run(self) -> ExitCode {
        if let Some(code) = inside::run() {
            return code;
        }
        let arguments = Arguments::from_args();
        let (sender, lost) = mpsc::channel();
        let registered = Registered::all();
        let names = self.cases.iter().map(|case| case.name.to_owned()).chain(registered.iter().map(|test| test.name()));
        let mut seen = HashSet::new();
        if let Some(twice) = names.into_iter().find(|name| !seen.insert(name.clone())) {
            eprintln!("harness: two tests are called {twice}");
            return suite::exit_code([Verdict::Infrastructure]);
        }
        let cases = self.cases.iter().map(|case| self.on_host(case));
        let machines = registered.into_iter().map(|test| self.in_machine(test, sender.clone()));
        let all = cases.chain(machines).enumerate();
        let trials = all.filter(|(number, _)| (self.chosen)(*number)).map(|(_, trial)| trial).collect();
        let counted = libtest_mimic::run(&arguments, trials);
        let lost = lost.try_iter().count();
        let failed = usize::try_from(counted.num_failed).unwrap_or(usize::MAX).saturating_sub(lost);
        let verdicts = [(Verdict::Infrastructure, lost), (Verdict::Fail, failed)];
        suite::exit_code(verdicts.into_iter().flat_map(|(verdict, count)| iter::repeat_n(verdict, count)))
    }

    fn on_host(&self, case: &'static Case) -> Trial {
        let strict = env::var_os(STRICT).is_some_and(|value| value != "0");
        let obstacle = case.obstacle();
        // Left out with a reason is no skip.
        let left_out = (self.left_out)(case.name);
        let skipped = left_out.is_some() || (obstacle.is_some() && !strict);
        let kind = self.reason(left_out.or(obstacle.as_deref().filter(|_| skipped)));
        Trial::test(case.name, move || match obstacle {
            Some(reason) => Err(Failed::from(format!("cannot run here: {reason}"))),
            None => (case.body)().map_err(Failed::from),
        })
        .with_kind(kind)
        .with_ignored_flag(skipped)
    }

    fn in_machine(&self, test: &'static Registered, lost: Sender<()>) -> Trial {
        let name = test.name();
        let why = (self.left_out)(&name).or(test.ignored);
        // A panic there is ours: what the test does, it does in its machine.
        let perform = || catch_unwind(|| inside::perform(test)).unwrap_or((Verdict::Infrastructure, PANIC.to_owned()));
        Trial::test(name, move || match perform() {
            (Verdict::Pass, _) => Ok(()),
            (verdict, words) => {
                if verdict == Verdict::Infrastructure {
                    // The receiver outlives every trial.
                    let _sent = lost.send(());
                }
                Err(Failed::from(words))
            }
        })
        .with_kind(self.reason(why.filter(|why| !why.is_empty())))
        .with_ignored_flag(why.is_some())
    }

    fn reason(&self, why: Option<&str>) -> String {
        let parts = [self.kind.as_str(), &why.map(|why| format!("left out: {why}")).unwrap_or_default()];
        parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(", ")
    }
}
