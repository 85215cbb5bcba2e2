// SPDX-License-Identifier: Apache-2.0
//! What a guest sees that is a host of sandboxes itself (`--nested`): this program and its images, at their own paths.
//!
//! Read-only like all the rest; an inner run only reads them. Not for where the guest looks for them: its environment
//! says that ([`crate::spec::Spec::guest_environment`]).

use super::{Audience, Error, Nested, View};
use std::path::Path;

pub(super) fn describe(view: &mut View, nested: &Nested) -> Result<(), Error> {
    show(view, &nested.program, "this program, for sandboxes in the sandbox")?;
    show(view, &nested.images, "its kernels and initramfs, for sandboxes in the sandbox")
}

/// As it was asked for by name, it must be there.
fn show(view: &mut View, path: &Path, why: &str) -> Result<(), Error> {
    path.metadata().map_err(|source| Error::Look { path: path.into(), source })?;
    view.show(path, Audience::Caller, why);
    Ok(())
}
