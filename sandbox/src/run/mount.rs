// SPDX-License-Identifier: Apache-2.0
//! What the guest is told about its root.

use std::io;
use std::path::Path;

use guest_init::wire;

use super::exec;
use crate::spec::{Spec, Tmpfs};
use crate::view::View;

/// Everything that the guest needs to assemble it.
pub(super) fn message(spec: &Spec, view: &View) -> io::Result<wire::Mount> {
    let volumes = view.volumes();
    let targets: Vec<&Path> = volumes.iter().map(|volume| volume.target.as_path()).collect();
    Ok(wire::Mount {
        clock: exec::clock()?,
        entropy: exec::entropy()?,
        private_bytes: spec.limits.private.unwrap_or_else(|| spec.half_of_memory()),
        disk: spec.disk().is_some(),
        shm_bytes: spec.limits.shm.unwrap_or_else(|| spec.half_of_memory()),
        volumes: volumes
            .iter()
            .map(|volume| wire::Volume {
                target: exec::bytes(volume.target.as_os_str()),
                directory: volume.source.is_dir(),
                read_only: volume.read_only,
            })
            .collect(),
        tmpfs: spec.limits.tmpfs.iter().map(|own| tmpfs(own, &targets, spec)).collect(),
    })
}

fn tmpfs(own: &Tmpfs, volumes: &[&Path], spec: &Spec) -> wire::Tmpfs {
    let size = own.size.unwrap_or_else(|| spec.half_of_memory());
    // Inodes are not limited apart: they count as memory of the command's group.
    let options = format!("mode={:o},nr_inodes=0,size={size}", own.mode);
    wire::Tmpfs {
        target: exec::bytes(own.target.as_os_str()),
        options: options.into_bytes().into(),
        executable: own.executable,
        after: after(&own.target, volumes),
    }
}

/// How many volumes come before a file system at `target`: those up to the last that it lies in.
fn after(target: &Path, volumes: &[&Path]) -> u32 {
    let around = (1..).zip(volumes).filter(|(_, volume)| target.starts_with(volume));
    around.map(|(number, _)| number).last().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_system_comes_after_what_it_lies_in() {
        let volumes = ["/a", "/b/c", "/a/b", "/t/v"].map(Path::new);
        for (target, number) in [("/x", 0), ("/a/x", 1), ("/a/b/x", 3), ("/b", 0), ("/b/c", 2), ("/t", 0), ("/ab", 0)] {
            assert_eq!(after(Path::new(target), &volumes), number, "{target}");
        }
    }
}
