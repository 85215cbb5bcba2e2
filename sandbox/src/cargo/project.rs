// SPDX-License-Identifier: Apache-2.0
//! Where a package's workspace is, by cargo's own rules (Cargo book, "Workspaces"), and where cargo looks for configuration.

use std::path::{Path, PathBuf};

use toml::{Table, Value};

const MANIFEST: &str = "Cargo.toml";

/// The workspace's directory of the package in this one: the nearest with a workspace that does not leave the package out, or
/// the package's own.
pub(super) fn root(package: &Path) -> PathBuf {
    let own = manifest(package);
    let named = own.as_ref().and_then(|own| own.get("package")?.get("workspace")?.as_str());
    if let Some(named) = named
        && let Ok(root) = package.join(named).canonicalize()
    {
        return root;
    }
    for place in package.ancestors() {
        let Some(workspace) = manifest(place).and_then(|manifest| manifest.get("workspace").cloned()) else { continue };
        let left_out = workspace.get("exclude").and_then(Value::as_array).into_iter().flatten();
        let mut left_out = left_out.filter_map(Value::as_str).map(|path| place.join(path));
        return if left_out.any(|path| package.starts_with(path)) { package.to_owned() } else { place.to_owned() };
    }
    package.to_owned()
}

/// Configuration of the directories above, which cargo reads if a test calls it.
pub(super) fn configuration(root: &Path) -> Vec<PathBuf> {
    let names = [".cargo/config.toml", ".cargo/config"];
    let places = root.ancestors().skip(1).flat_map(|place| names.map(|name| place.join(name)));
    places.filter(|path| path.is_file()).collect()
}

/// What cannot be read says nothing.
fn manifest(place: &Path) -> Option<Table> {
    std::fs::read_to_string(place.join(MANIFEST)).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn the_workspace_is_the_nearest_that_has_the_package() {
        let place = tempfile::tempdir().unwrap();
        let at = |name: &str| place.path().join(name);
        let write = |name: &str, text: &str| {
            fs::create_dir_all(at(name)).unwrap();
            fs::write(at(name).join(MANIFEST), text).unwrap();
        };
        write("", "[workspace]\nmembers = [\"a\"]\nexclude = [\"out\"]\n");
        write("a", "[package]\nname = \"a\"\n");
        write("a/b", "[package]\nname = \"b\"\n[workspace]\n");
        write("a/c", "[package]\nname = \"c\"\nworkspace = \"../..\"\n");
        write("out/d", "[package]\nname = \"d\"\n");
        for (package, workspace) in [("a", ""), ("a/b", "a/b"), ("out/d", "out/d")] {
            assert_eq!(root(&at(package)), at(workspace).components().collect::<PathBuf>(), "{package}");
        }
        assert_eq!(root(&at("a/c")), place.path().canonicalize().unwrap());
    }
}
