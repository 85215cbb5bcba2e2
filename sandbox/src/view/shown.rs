// SPDX-License-Identifier: Apache-2.0
//! Paths that are shown besides the current directory, in the same way: what a project of cargo's is made of, or what a
//! program that uses the library names.
//!
//! They were inferred, so one that is not there is no error, and none of them may show what a current directory would not: a
//! home directory, a tree of the system, or credentials.

use super::homes::Homes;
use super::{Audience, Kind, View, credentials, current};
use std::path::PathBuf;

const WHY: &str = "of the project";

/// Directories that everybody puts things into.
const SHARED: &[&str] = &["/tmp", "/var/tmp", "/dev/shm"];

pub(super) fn describe(view: &mut View, paths: &[PathBuf], homes: &Homes) {
    for path in paths.iter().filter(|path| path.is_absolute()) {
        let Ok(real) = path.canonicalize() else { continue };
        if current::is_settled(&real) {
            // There already, as far as it is for a guest.
        } else if current::is_whole(&real, homes) || SHARED.iter().any(|shared| real == std::path::Path::new(shared)) {
            view.notices.push(format!("{path:?} is not shown: it holds more than a project"));
        } else if homes.credentials_holding(&real).is_some() {
            view.notices.push(format!("{path:?} is not shown: credentials are kept there"));
        } else if credentials::is_examined(&real) && credentials::in_text(&real) {
            view.notices.push(format!("{path:?} is not shown: it may hold a token"));
        } else {
            view.show(path, Audience::Caller, WHY);
            for ticket in credentials::tickets(&real) {
                view.add(ticket, Kind::Covered, "credentials");
            }
        }
    }
}
