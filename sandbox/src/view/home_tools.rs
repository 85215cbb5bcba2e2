// SPDX-License-Identifier: Apache-2.0
//! The installations that `PATH` finds in the home directory: one table, and how it is applied.
//!
//! A program in `~/.cargo/bin` is of no use without its toolchain in `~/.rustup`: for each known kind of installation
//! the table says which `PATH` entry reveals it, where it lies, and what of it a program needs. All of it is shown
//! read-only at its own path. A `PATH` entry in the home directory that belongs to no known installation is shown by
//! itself. `PATH` entries elsewhere that no system directory covers are only mentioned.
//!
//! Not for credentials: what [`super::credentials`] lists is never shown, though it lie inside an installation.

use super::homes::Homes;
use super::{Audience, Request, View, credentials, directory_variable};
use std::path::{Path, PathBuf};

/// A kind of installation.
struct Tool {
    name: &'static str,
    /// Variable that says where it is.
    variable: Option<&'static str>,
    /// Where it is otherwise, below the home directory.
    root: &'static str,
    /// A `PATH` entry at or below this path, relative to the root, reveals it.
    revealed_by: &'static str,
    /// What is shown, relative to the root; `""` is all of it.
    shown: &'static [&'static str],
    /// Other installations its programs need, by name.
    needs: &'static [&'static str],
}

const fn whole(name: &'static str, variable: Option<&'static str>, root: &'static str) -> Tool {
    Tool { name, variable, root, revealed_by: "", shown: &[""], needs: &[] }
}

const fn parts(
    name: &'static str,
    variable: Option<&'static str>,
    root: &'static str,
    revealed_by: &'static str,
    shown: &'static [&'static str],
) -> Tool {
    Tool { name, variable, root, revealed_by, shown, needs: &[] }
}

/// What is never a `PATH` entry: for installations that only others reveal.
const NOTHING: &str = "\0";

#[rustfmt::skip]
const TOOLS: &[Tool] = &[
    Tool {
        name: "cargo", variable: Some("CARGO_HOME"), root: ".cargo", revealed_by: "bin", needs: &["rustup"],
        shown: &["bin", "env", "registry", "git", "config.toml", "config"],
    },
    parts("rustup", Some("RUSTUP_HOME"), ".rustup", NOTHING, &["toolchains", "settings.toml", "update-hashes"]),
    whole("pyenv", Some("PYENV_ROOT"), ".pyenv"),
    whole("rbenv", Some("RBENV_ROOT"), ".rbenv"),
    whole("nodenv", Some("NODENV_ROOT"), ".nodenv"),
    whole("goenv", Some("GOENV_ROOT"), ".goenv"),
    whole("rvm", Some("rvm_path"), ".rvm"),
    whole("nvm", Some("NVM_DIR"), ".nvm"),
    whole("fnm", Some("FNM_DIR"), ".local/share/fnm"),
    whole("volta", Some("VOLTA_HOME"), ".volta"),
    whole("asdf", Some("ASDF_DATA_DIR"), ".asdf"),
    whole("mise", Some("MISE_DATA_DIR"), ".local/share/mise"),
    parts("sdkman", Some("SDKMAN_DIR"), ".sdkman", "candidates", &["candidates", "bin"]),
    whole("conda", None, "miniconda3"),
    whole("conda", None, "anaconda3"),
    whole("conda", None, "miniforge3"),
    whole("conda", None, "mambaforge"),
    whole("pnpm", Some("PNPM_HOME"), ".local/share/pnpm"),
    parts("yarn", None, ".yarn", "bin", &["bin"]),
    whole("npm", None, ".npm-global"),
    parts("bun", Some("BUN_INSTALL"), ".bun", "bin", &["bin", "install/global"]),
    parts("deno", Some("DENO_INSTALL"), ".deno", "bin", &["bin"]),
    parts("go", Some("GOPATH"), "go", "bin", &["bin", "pkg"]),
    parts("dotnet", Some("DOTNET_ROOT"), ".dotnet", "", &["dotnet", "host", "sdk", "shared", "packs", "tools"]),
    parts("ghcup", None, ".ghcup", "bin", &["bin", "ghc", "env"]),
    parts("cabal", None, ".cabal", "bin", &["bin", "packages", "store"]),
    parts("juliaup", None, ".juliaup", "bin", &["bin"]),
    parts("krew", Some("KREW_ROOT"), ".krew", "bin", &["bin", "store"]),
    // `~/.local/bin` is full of links: pipx and uv keep what they lead to beside it.
    parts("~/.local", None, ".local", "bin", &[
        "bin", "lib", "pipx", "share/pipx", "share/uv/python", "share/uv/tools", "share/pypoetry/venv",
    ]),
];

/// Directories of programs outside any home directory that the view has anyway.
const SYSTEM: &[&str] = &["/usr", "/bin", "/sbin", "/opt", "/nix/store"];

pub(super) fn describe(view: &mut View, request: &Request, homes: &Homes) {
    let Some(home) = homes.own() else { return };
    let Some(path) = &request.path else { return };
    for entry in std::env::split_paths(path).filter(|entry| entry.is_absolute()) {
        let revealed: Vec<&Tool> = TOOLS.iter().filter(|tool| reveals(tool, &entry, home, request)).collect();
        for tool in &revealed {
            show(view, tool, home, request, homes);
            for other in TOOLS.iter().filter(|other| tool.needs.contains(&other.name)) {
                show(view, other, home, request, homes);
            }
        }
        if revealed.is_empty() {
            lone(view, &entry, home, homes);
        }
    }
}

/// Where an installation is: as written, since `PATH` says it in the same way.
fn root(tool: &Tool, home: &Path, request: &Request) -> PathBuf {
    let written = request.home.as_deref().unwrap_or(home);
    tool.variable
        .and_then(|name| directory_variable(&request.environment, name))
        .unwrap_or_else(|| written.join(tool.root))
}

fn reveals(tool: &Tool, entry: &Path, home: &Path, request: &Request) -> bool {
    let root = root(tool, home, request);
    let at = if tool.revealed_by.is_empty() { root } else { root.join(tool.revealed_by) };
    entry.starts_with(&at)
}

fn show(view: &mut View, tool: &Tool, home: &Path, request: &Request, homes: &Homes) {
    let root = root(tool, home, request);
    for part in tool.shown {
        let path = if part.is_empty() { root.clone() } else { root.join(part) };
        installed(view, &path, tool.name, homes);
    }
}

/// A `PATH` entry of no known installation.
fn lone(view: &mut View, entry: &Path, home: &Path, homes: &Homes) {
    let Ok(real) = entry.canonicalize() else { return };
    if real.starts_with(home) {
        installed(view, entry, "directory in PATH", homes);
    } else if !SYSTEM.iter().any(|system| real.starts_with(system)) && !view.has(&real, Audience::Everyone) {
        unfound(
            view,
            format!("{entry:?} is in PATH but not shown; -v {path}:{path}:ro shows it", path = entry.display()),
        );
    }
}

fn installed(view: &mut View, path: &Path, name: &str, homes: &Homes) {
    let Ok(real) = path.canonicalize() else { return };
    // A variable may name anything, even the home directory itself.
    if real.parent().is_none() || homes.within(&real) {
        unfound(view, format!("{path:?} ({name}) is not shown: it holds more than an installation"));
    } else if homes.credentials_holding(&real).is_some() {
        unfound(view, format!("{path:?} ({name}) is not shown: credentials are kept there"));
    } else if credentials::is_examined(&real) && credentials::in_text(&real) {
        unfound(view, format!("{path:?} ({name}) is not shown: it may hold a token"));
    } else {
        view.show(path, Audience::Caller, &format!("{name}, found in PATH"));
    }
}

fn unfound(view: &mut View, text: String) {
    if !view.unfound.contains(&text) {
        view.unfound.push(text);
    }
}
