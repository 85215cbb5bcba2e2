// SPDX-License-Identifier: Apache-2.0
//! Kernel and initramfs of the guest: how they are built, stored and checked.
//!
//! Both are built once per machine and kept in a [`Store`] under the user's cache directory, each under a name made
//! from the digest of what it was made from. A run asks the store for the current [`Image`] and opens it; opening
//! checks it from the first byte to the last, so nothing half-written, foreign or outdated is ever booted.
//!
//! Not here: how a guest is started (the engines), and anything that differs from run to run. Nothing is downloaded;
//! the kernel's source comes from the distribution's package or from a tree the user names.

mod command_line;
mod cpio;
mod digest;
mod elf;
mod image;
mod initramfs;
mod kernel;
mod manifest;
mod progress;
mod store;

pub use command_line::{COMMAND_LINE, clock_words};
pub use cpio::{Entry as ArchiveEntry, pack as pack_archive};
pub use digest::{of_bytes as sha256, of_reader as sha256_of};
pub use image::{Check, Error as ImageError, Image};
pub use initramfs::{Error as InitramfsError, build as build_initramfs};
pub use kernel::{Error as KernelError, Options as KernelOptions, build as build_kernel};
pub use manifest::{Flavour, Kind, Manifest, Origin};
pub use progress::Event;
pub use store::{Entry, Error as StoreError, Gc, Lock, Store, TemplateKey};
