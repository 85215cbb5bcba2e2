// SPDX-License-Identifier: Apache-2.0
//! QEMU's argument list: a pure function of numbers and constants.
//!
//! Nothing that a user or a guest chose ever stands here: a comma in it would begin another option. Written for
//! QEMU 7.2 (qemu-system-x86_64(1), docs/system/i386/microvm.rst).

use crate::engine::Model;
use crate::virtio::Id;

/// What the arguments are made from; the numbers are descriptors of the child.
#[derive(Debug)]
pub(super) struct Machine {
    pub(super) model: Model,
    pub(super) start: Start,
    pub(super) memory: i32,
    pub(super) console: i32,
    pub(super) devices: Vec<Device>,
}

/// What it begins with.
#[derive(Debug)]
pub(super) enum Start {
    /// A kernel.
    Boot { kernel: i32, initramfs: i32, command_line: &'static str, tsc_khz: u32 },
    /// Firmware that does not look for one.
    Clone { firmware: i32 },
}

/// A device behind a vhost-user socket.
#[derive(Debug)]
pub(super) struct Device {
    pub(super) id: Id,
    pub(super) tag: Option<&'static str>,
    pub(super) socket: i32,
}

/// Options that never change.
///
/// PIT, PIC and RTC stay on: without them the guest wedges under TCG. No ACPI and no PCI: the kernel has neither. The clock
/// on the board shows the same to every machine, so that a clone does not think that it has slept since its template was
/// made; guest init sets the clock that programs see. The kernel is told of its devices by [`DEVICES`], whether
/// they are there already or not.
const FIXED: [&str; 19] = [
    "-nodefaults",
    "-no-user-config",
    "-no-reboot",
    "-display",
    "none",
    "-M",
    "microvm,acpi=off,pcie=off,usb=off,pit=on,pic=on,rtc=on,isa-serial=on,auto-kernel-cmdline=off,memory-backend=memory",
    "-rtc",
    "base=2026-01-01,clock=vm",
    "-accel",
    "tcg",
    "-sandbox",
    "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
    "-serial",
    "chardev:console",
    "-monitor",
    "none",
    "-name",
    "sandbox",
];

/// All that TCG can do but for two things. Virtualization is for those who ask for it; nobody else's guest should reach
/// that much of QEMU. SMAP guards the guest's kernel from its users, who own it, and TCG translates what runs with its
/// flag set apart from what runs without, one block in twenty of a run.
const CPU: &str = "max,-smap,-svm";

/// The processor of a guest that is a host of sandboxes: one that Linux knows to have SVM with nested paging. What QEMU
/// 7.2's TCG lacks of an EPYC is left out by name, or its warnings of that would be the first that a failed run says. And it
/// has no XSAVE, nor what needs it: TCG does not intercept XSETBV, so that KVM there would not know of its guests' state.
const CPU_NESTED: &str = concat!(
    "EPYC,+svm,-smap,",
    "-rdseed,-sha-ni,-fxsr-opt,-misalignsse,-3dnowprefetch,-osvw,-topoext,-perfctr-core,",
    "-clzero,-xsaveerptr,-ibpb,-nrip-save,-xsave,-xsaveopt,-xsavec,-xsaves,-xgetbv1,-avx,-avx2,-f16c,-fma",
);

/// What a kernel under TCG is told besides the clock, unless it clears the pages of files itself.
///
/// Clearing a page when it is given out is for correctness: QEMU keeps translations of code by address and drops them
/// when the *guest* writes there, but it does not see the file server write. A page of the page cache that held one
/// program and is read again with another would run the old one's code. This clears all others too, which takes longer. A kernel
/// of ours clears what the file server fills by itself, but not what comes from a disk.
const CLEAR_ALL: &str = " init_on_alloc=1";

/// Where devices are that come first, second and third on QEMU's command line (hw/i386/microvm.c: windows of 512 bytes
/// from 0xfeb00000, interrupts from 5; the last of eight is taken first), as the kernel is told (kernel-parameters.txt).
const DEVICES: &str = " virtio_mmio.device=512@0xfeb00e00:12 virtio_mmio.device=512@0xfeb00c00:11 \
                       virtio_mmio.device=512@0xfeb00a00:10";
/// The one after them, of a machine with a disk.
const DISK: &str = " virtio_mmio.device=512@0xfeb00800:9";

impl Machine {
    pub(super) fn arguments(&self) -> Vec<String> {
        let mut arguments: Vec<String> = FIXED.iter().map(|&option| option.to_owned()).collect();
        let mut option = |name: &str, value: String| arguments.extend([name.to_owned(), value]);
        let model = &self.model;
        option("-cpu", (if model.nested { CPU_NESTED } else { CPU }).to_owned());
        option("-smp", model.cpus.to_string());
        option("-m", format!("size={}B", model.memory));
        option("-object", self.memory_backend());
        match &self.start {
            Start::Boot { kernel, initramfs, command_line, tsc_khz } => {
                option("-kernel", descriptor(*kernel));
                option("-initrd", descriptor(*initramfs));
                let clear = if model.clears_file_pages && !model.disk { "" } else { CLEAR_ALL };
                let disk = if model.disk { DISK } else { "" };
                option("-append", format!("{command_line} {}{clear}{DEVICES}{disk}", images::clock_words(*tsc_khz)));
            }
            Start::Clone { firmware } => option("-bios", descriptor(*firmware)),
        }
        option("-chardev", format!("socket,id=console,fd={}", self.console));
        for (number, device) in self.devices.iter().enumerate() {
            option("-chardev", format!("socket,id=device{number},fd={}", device.socket));
            option("-device", format!("{},chardev=device{number}{}", device.model(), device.tag_option()));
        }
        arguments
    }

    fn memory_backend(&self) -> String {
        let (bytes, path) = (self.model.memory, descriptor(self.memory));
        format!("memory-backend-file,id=memory,size={bytes}B,mem-path={path},share=on,align=2M")
    }
}

impl Device {
    /// QEMU's front end for the device type.
    fn model(&self) -> &'static str {
        match self.id {
            Id::Disk => "vhost-user-blk",
            Id::Rng => "vhost-user-rng",
            Id::Vsock => "vhost-user-vsock-device",
            Id::Fs => "vhost-user-fs-device",
        }
    }

    fn tag_option(&self) -> String {
        self.tag.map(|tag| format!(",tag={tag}")).unwrap_or_default()
    }
}

fn descriptor(number: i32) -> String {
    format!("/proc/self/fd/{number}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(nested: bool) -> Machine {
        Machine {
            model: Model { memory: 1 << 30, cpus: 2, nested, disk: false, clears_file_pages: false },
            start: Start::Boot { kernel: 3, initramfs: 4, command_line: "console=ttyS0", tsc_khz: 3000 },
            memory: 5,
            console: 6,
            devices: vec![
                Device { id: Id::Vsock, tag: None, socket: 7 },
                Device { id: Id::Fs, tag: Some("view"), socket: 8 },
            ],
        }
    }

    #[test]
    fn arguments_are_constants_and_numbers() {
        let tail = machine(false).arguments().split_off(FIXED.len()).join(" ");
        assert_eq!(
            tail,
            "-cpu max,-smap,-svm -smp 2 -m size=1073741824B \
             -object memory-backend-file,id=memory,size=1073741824B,mem-path=/proc/self/fd/5,share=on,align=2M \
             -kernel /proc/self/fd/3 -initrd /proc/self/fd/4 -append console=ttyS0 tsc_early_khz=3000 lpj=12000 init_on_alloc=1 \
             virtio_mmio.device=512@0xfeb00e00:12 virtio_mmio.device=512@0xfeb00c00:11 virtio_mmio.device=512@0xfeb00a00:10 \
             -chardev socket,id=console,fd=6 \
             -chardev socket,id=device0,fd=7 -device vhost-user-vsock-device,chardev=device0 \
             -chardev socket,id=device1,fd=8 -device vhost-user-fs-device,chardev=device1,tag=view"
        );
    }

    #[test]
    fn a_machine_with_a_disk_is_told_where_it_is() {
        let plain = Model { clears_file_pages: true, ..machine(false).model };
        let words = |model| Machine { model, ..machine(false) }.arguments().join(" ");
        let with = words(Model { disk: true, ..plain });
        assert!(
            with.contains(" init_on_alloc=1 ") && with.contains(":10 virtio_mmio.device=512@0xfeb00800:9 "),
            "{with}"
        );
        assert!(!words(plain).contains("init_on_alloc") && !words(plain).contains("feb00800"));
    }

    #[test]
    fn a_clone_differs_in_what_it_begins_with_alone() {
        let boot = machine(false).arguments();
        let clone = Machine { start: Start::Clone { firmware: 3 }, ..machine(false) }.arguments();
        let (start, end) = (FIXED.len() + 8, FIXED.len() + 10);
        assert_eq!(clone[start..end], ["-bios", "/proc/self/fd/3"]);
        assert_eq!((&boot[..start], &boot[start + 6..]), (&clone[..start], &clone[end..]));
    }

    #[test]
    fn a_nested_machine_differs_in_its_processor_alone() {
        let (plain, nested) = (machine(false).arguments(), machine(true).arguments());
        let differing: Vec<_> = plain.iter().zip(&nested).filter(|(one, other)| one != other).collect();
        assert_eq!(plain.len(), nested.len());
        assert!(matches!(differing[..], [(one, other)] if one == CPU && other.contains("+svm")), "{differing:?}");
    }
}
