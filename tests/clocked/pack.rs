// SPDX-License-Identifier: Apache-2.0
//! What is in the measuring host's memory: programs with the libraries they are linked to, the guest's images, and two
//! small programs of the measurement's own.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use images::{ArchiveEntry, Flavour, Store, build_initramfs, pack_archive};

use super::Request;

/// Contenders and tools, by name; one that is not installed is left out, and its rows with it.
const PROGRAMS: [&str; 8] = ["true", "echo", "cat", "strace", "bwrap", "crun", "qemu-system-x86_64", "dash"];

/// What QEMU's machine needs besides itself, and where distributions keep it.
const ROMS: [&str; 3] = ["qboot.rom", "pvh.bin", "linuxboot_dma.bin"];
const ROM_PLACES: [&str; 3] = ["/usr/share/qemu", "/usr/share/seabios", "/usr/share/qemu-firmware"];

/// A guest's init that says how many instructions its machine has run, and resets it.
const TELLING_INIT: &str = include_str!("init.S");

/// A program that writes the monotonic clock in nanoseconds and then the time stamp counter.
const BOTH_CLOCKS: &str = include_str!("clocks.S");

/// Where the second store is, whose init only tells the time.
pub(super) const TELLING_CACHE: &str = "telling";

/// The archive's content while it is collected.
#[derive(Default)]
struct Tree {
    directories: BTreeSet<String>,
    files: Vec<(String, u32, Vec<u8>)>,
}

impl Tree {
    fn directory(&mut self, name: &str) {
        let mut path = PathBuf::new();
        for part in Path::new(name) {
            path.push(part);
            self.directories.insert(path.to_string_lossy().into_owned());
        }
    }

    fn file(&mut self, name: &str, mode: u32, bytes: Vec<u8>) {
        let name = name.trim_start_matches('/');
        if self.files.iter().all(|(other, ..)| other != name) {
            self.directory(&Path::new(name).parent().unwrap_or(Path::new("")).to_string_lossy());
            self.files.push((name.to_owned(), mode, bytes));
        }
    }

    /// A program, and the libraries that the dynamic linker says it loads, each at its own path.
    fn program(&mut self, source: &Path, target: &str) -> Result<()> {
        let read = |path: &Path| fs::read(path).with_context(|| format!("cannot read {}", path.display()));
        self.file(target, 0o755, read(source)?);
        let listed = Command::new("ldd").arg(source).output().context("cannot run ldd")?;
        for word in String::from_utf8_lossy(&listed.stdout).split_whitespace().filter(|word| word.starts_with('/')) {
            self.file(word, 0o755, read(Path::new(word))?);
        }
        Ok(())
    }

    fn images(&mut self, store: &Store, cache: &str) -> Result<()> {
        let images = store.images();
        for (image, pointer) in
            [(store.kernel(Flavour::Base)?, "current-kernel-base"), (store.initramfs()?, "current-initramfs")]
        {
            let from = image.path().parent().context("an image is in a directory")?;
            let name = fs::read_to_string(images.join(pointer))?;
            let to = format!("{cache}/sandbox/images");
            for file in ["manifest.json", &image.path().file_name().unwrap_or_default().to_string_lossy()] {
                self.file(&format!("{to}/{}/{file}", name.trim_end()), 0o644, fs::read(from.join(file))?);
            }
            self.file(&format!("{to}/{pointer}"), 0o644, name.into_bytes());
        }
        Ok(())
    }

    fn pack(&self) -> Result<Vec<u8>> {
        let directories = self.directories.iter().map(|name| ArchiveEntry::Directory { name, mode: 0o755 });
        let device = ArchiveEntry::CharacterDevice { name: "dev/console", mode: 0o600, major: 5, minor: 1 };
        let files = self.files.iter().map(|(name, mode, bytes)| ArchiveEntry::File { name, mode: *mode, bytes });
        Ok(pack_archive(&directories.chain([device]).chain(files).collect::<Vec<_>>())?)
    }
}

/// The whole archive.
pub(super) fn host(place: &Path, store: &Store, sandbox: &Path, request: &Request) -> Result<Vec<u8>> {
    let mut tree = Tree::default();
    for name in ["dev", "proc", "sys", "tmp", "run", "var", "root", "bundle/rootfs"] {
        tree.directory(name);
    }
    tree.program(&env::current_exe()?, "init")?;
    tree.program(sandbox, "usr/bin/sandbox")?;
    for name in PROGRAMS {
        let found = ["/usr/bin", "/bin", "/usr/sbin"].iter().map(|place| Path::new(place).join(name));
        if let Some(path) = found.into_iter().find(|path| path.is_file()) {
            tree.program(&path, &format!("usr/bin/{name}"))?;
        }
    }
    for rom in ROMS {
        if let Some(path) = ROM_PLACES.iter().map(|place| Path::new(place).join(rom)).find(|path| path.is_file()) {
            tree.file(&format!("usr/share/qemu/{rom}"), 0o644, fs::read(path)?);
        }
    }
    if let Some(firecracker) = &request.firecracker {
        tree.program(firecracker, "usr/bin/firecracker")?;
    }
    tree.file("bundle/config.json", 0o644, include_bytes!("crun.json").to_vec());
    tree.file("usr/bin/clocks", 0o755, fs::read(assembled(place, "clocks", BOTH_CLOCKS)?)?);
    tree.file("etc/passwd", 0o644, b"root:x:0:0:root:/root:/bin/sh\n".to_vec());
    tree.file("etc/group", 0o644, b"root:x:0:\n".to_vec());
    if let Ok(cache) = fs::read("/etc/ld.so.cache") {
        tree.file("etc/ld.so.cache", 0o644, cache);
    }
    tree.file("rounds", 0o644, request.rounds.to_string().into_bytes());
    tree.images(store, "root/.cache")?;
    tree.images(&telling(place, store)?, TELLING_CACHE)?;
    tree.pack()
}

/// A store with the same kernel and an init that only tells the time.
fn telling(place: &Path, store: &Store) -> Result<Store> {
    let own = Store::at(place.join("telling"));
    build_initramfs(&own, &assembled(place, "init", TELLING_INIT)?, &mut |_| {})?;
    let kernel = store.kernel(Flavour::Base)?;
    let from = kernel.path().parent().context("an image is in a directory")?;
    let name = from.file_name().context("a directory has a name")?;
    let to = own.images().join(name);
    fs::create_dir_all(&to)?;
    for file in ["manifest.json", "vmlinux"] {
        fs::copy(from.join(file), to.join(file))?;
    }
    fs::write(own.images().join("current-kernel-base"), name.as_encoded_bytes())?;
    Ok(own)
}

/// A program from assembly, without any library.
fn assembled(place: &Path, name: &str, source: &str) -> Result<PathBuf> {
    let (text, program) = (place.join(format!("{name}.S")), place.join(name));
    fs::write(&text, source)?;
    let status =
        Command::new("gcc").args(["-nostdlib", "-static", "-no-pie", "-o"]).arg(&program).arg(&text).status()?;
    ensure!(status.success(), "gcc failed on {}", text.display());
    Ok(program)
}
