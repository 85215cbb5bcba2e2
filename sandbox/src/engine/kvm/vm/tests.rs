// SPDX-License-Identifier: Apache-2.0
use super::*;
use std::io::Read;

/// For a host with a KVM that runs kernels: `KERNEL=… INITRAMFS=… cargo test -p sandbox boots_a_kernel -- --ignored`.
#[test]
#[ignore = "needs a KVM that runs kernels, and KERNEL and INITRAMFS"]
fn boots_a_kernel() {
    let open = |name: &str| File::open(std::env::var_os(name).expect(name)).expect(name);
    let cpus = std::env::var("CPUS").map_or(1, |cpus| cpus.parse().unwrap());
    let ranges = layout::memory(256 << 20);
    let (file, _) = crate::memory::create(256 << 20).unwrap();
    let (console, mut host) = UnixStream::pair().unwrap();
    let parts = Parts {
        kvm: File::options().read(true).write(true).open("/dev/kvm").unwrap().into(),
        memory: crate::memory::map(&file, &ranges).unwrap(),
        ranges,
        kernel: open("KERNEL"),
        initramfs: open("INITRAMFS"),
        command_line: std::env::var("LINE").unwrap_or(images::COMMAND_LINE.to_owned()),
        console,
        cpus,
        devices: vec![Backing::Local(Box::new(crate::virtio::rng::Rng::new()))],
        nested: false,
    };
    let reader = std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        let mut all = Vec::new();
        while let Ok(count @ 1..) = host.read(&mut buffer) {
            print!("{}", String::from_utf8_lossy(&buffer[..count]));
            all.extend_from_slice(&buffer[..count]);
        }
        all
    });
    let begun = std::time::Instant::now();
    let vm = Vm::new(parts).unwrap();
    println!("assembled in {:?}", begun.elapsed());
    let ending = vm.run(|| Ok(())).unwrap();
    println!("ended after {:?}: {ending:?}", begun.elapsed());
    let _ = reader.join();
}
