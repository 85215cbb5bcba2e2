// SPDX-License-Identifier: Apache-2.0
//! `images`: builds, lists and removes the images guests boot. What is typed and what is printed; the work is in the
//! library.

mod table;
mod terminal;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use images::{Flavour, KernelOptions, Store, build_initramfs, build_kernel};
use std::env;
use std::io::{self, Write as _};
use std::num::NonZero;
use std::path::PathBuf;
use std::process::ExitCode;
use terminal::Terminal;

/// Builds and keeps the kernel and the initramfs that sandboxes boot
#[derive(Debug, Parser)]
#[command(version, after_help = "Images are kept in $XDG_CACHE_HOME/sandbox, or ~/.cache/sandbox.")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Build an image and make it the one that runs use
    #[command(subcommand)]
    Build(Build),
    /// Show what is stored
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Remove images no run uses, templates (the next run makes its own), and what interrupted builds left behind
    Gc {
        /// Only show what would be removed
        #[arg(long)]
        dry_run: bool,
    },
}

#[derive(Debug, Subcommand)]
enum Build {
    /// Build a kernel from the distribution's source (Debian: linux-source-6.12)
    #[command(after_help = "Examples:
  images build kernel
  images build kernel --flavour nested --jobs 4
  LINUX_SRC=~/linux images build kernel     builds from a tree of your own, as it is")]
    Kernel(KernelArgs),
    /// Pack the guest's init
    #[command(after_help = "Example:
  images build initramfs --init target/x86_64-unknown-linux-gnu/init/guest-init")]
    Initramfs {
        /// The init program: x86-64, statically linked
        #[arg(long, value_name = "PATH")]
        init: PathBuf,
    },
}

#[derive(Debug, Args)]
struct KernelArgs {
    /// Which configuration: base, or nested, which adds KVM
    #[arg(long, default_value = "base", value_name = "base|nested")]
    flavour: Flavour,
    /// Compilers at a time [default: one per processor]
    #[arg(long, short, value_name = "N")]
    jobs: Option<NonZero<usize>>,
    /// A kernel source tree or archive [default: $LINUX_SRC, else the newest /usr/src/linux-source-*.tar.xz]
    #[arg(long, value_name = "PATH")]
    source: Option<PathBuf>,
    /// Build even what is stored already
    #[arg(long)]
    force: bool,
}

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // if even that cannot be written, the exit code still says it
            let _ = writeln!(io::stderr(), "images: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<()> {
    let store = Store::of_user()?;
    match cli.command {
        Command::Build(Build::Kernel(arguments)) => {
            let flavour = arguments.flavour;
            let source = arguments.source.or_else(|| env::var_os("LINUX_SRC").map(PathBuf::from));
            let options = KernelOptions { flavour, jobs: arguments.jobs, source, force: arguments.force };
            let mut terminal = Terminal::new(format!("kernel of flavour {flavour}"));
            let built = build_kernel(&store, &options, &mut |event| terminal.show(event));
            terminal.finish(built.context("failed to build the kernel")?.path());
        }
        Command::Build(Build::Initramfs { init }) => {
            let mut terminal = Terminal::new("initramfs".to_owned());
            let built = build_initramfs(&store, &init, &mut |event| terminal.show(event));
            terminal.finish(built.context("failed to build the initramfs")?.path());
        }
        Command::List { json } => {
            let entries = store.entries().context("failed to list the images")?;
            let text = if json { table::json(&entries)? } else { table::text(&entries) };
            io::stdout().write_all(text.as_bytes())?;
        }
        Command::Gc { dry_run } => {
            let gc = store.gc(dry_run).context("failed to remove old images")?;
            io::stdout().write_all(table::removed(&gc, dry_run).as_bytes())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn flavour_and_jobs_are_checked_when_typed() {
        assert!(Cli::try_parse_from(["images", "build", "kernel", "--flavour", "debug"]).is_err());
        assert!(Cli::try_parse_from(["images", "build", "kernel", "--jobs", "0"]).is_err());
        assert!(Cli::try_parse_from(["images", "build", "kernel", "--flavour", "nested", "-j4"]).is_ok());
    }
}
