// SPDX-License-Identifier: Apache-2.0
//! What the command cannot see, and cannot harm.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use harness::{Case, Need};
use sha2::{Digest, Sha256};
use tests::Bench;
use tests::tier::whole;

macro_rules! case {
    ($name:ident $(, $need:expr)*) => {
        Case { name: concat!("isolation::", stringify!($name)), needs: &[$($need),*], body: $name }
    };
}

pub(crate) const CASES: &[Case] = &[
    case!(destruction_stays_inside),
    case!(secrets_are_not_there, Need::Root),
    case!(home_shows_tools_only),
    case!(links_out_of_the_directory_lead_nowhere),
    case!(network_is_loopback_only),
    case!(home_tools_can_be_hidden),
    case!(explain_tells_what_is_seen),
    case!(volume_read_only_is_the_hosts_decision, Need::Root),
];

type Result = std::result::Result<(), String>;

/// Every file below a directory with its mode and content.
fn fingerprint(root: &Path) -> BTreeMap<String, (u32, String)> {
    let mut found = BTreeMap::new();
    let mut open = vec![root.to_owned()];
    while let Some(place) = open.pop() {
        // In a nested host the view has directories that not even root may read.
        let Ok(entries) = fs::read_dir(&place) else { continue };
        for entry in entries {
            let path = entry.expect("its entries can be read").path();
            let data = fs::symlink_metadata(&path).expect("they stay");
            let name = path.display().to_string();
            let content = if data.is_symlink() {
                fs::read_link(&path).expect("a link can be read").display().to_string()
            } else if data.is_file() {
                fs::read(&path).map(|bytes| format!("{:x?}", &Sha256::digest(bytes)[..])).unwrap_or_default()
            } else {
                String::new()
            };
            if data.is_dir() {
                open.push(path);
            }
            found.insert(name, (data.permissions().mode(), content));
        }
    }
    found
}

/// Two places that are looked at before and after, what is removed first, and what is removed in the end, without most
/// commands. To read and remove as much as on the first line takes a guest's guest a quarter of an hour.
const DESTROYED: [[&str; 4]; 2] = [
    ["/usr/bin", "/usr/share/doc", "/usr/share", "/usr"],
    ["/usr/sbin", "/usr/share/perl5", "/usr/share/perl5", "/usr/sbin"],
];

fn destruction_stays_inside() -> Result {
    let bench = Bench::new();
    for name in ["a", "b", "c"] {
        bench.write(name, format!("precious {name}"));
    }
    fs::create_dir(bench.path().join("d")).map_err(|error| error.to_string())?;
    bench.write("d/e", "deep");
    let [shown, data, removed, rest] = DESTROYED[usize::from(!whole())];
    let places = [bench.path(), Path::new("/etc"), Path::new(shown), Path::new(data)];
    let before: Vec<_> = places.map(fingerprint).into();
    assert!(before.iter().all(|found| !found.is_empty()), "what cannot be read cannot be compared");
    let script = format!(
        "ls \"$PWD\" | wc -l; rm -rf {removed} /etc \"$PWD\"/* ; ls \"$PWD\" | wc -l; \
         dd if=/dev/zero of=/x bs=1M count=10000; rm -rf {rest}"
    );
    let ran = bench.run(["-u", "0", "-m", "512M", "--", "sh", "-c", &script]).wait();
    assert_eq!(ran.text(), "4\n0", "{}", ran.stderr);
    assert!(ran.stderr.contains("No space left on device"), "{}", ran.stderr);
    fs::remove_file(bench.path().join(".report.json")).map_err(|error| error.to_string())?;
    for (place, before) in places.into_iter().zip(before) {
        let after = fingerprint(place);
        assert!(after == before, "{} has changed", place.display());
    }
    Ok(())
}

/// Tries to list or read each path in the guest, as root; prints those that can be.
fn visible(bench: &Bench, paths: &[&str]) -> String {
    let script = "for path; do if [ -s \"$path\" ] && [ ! -d \"$path\" ] && head -c 1 \"$path\" >/dev/null 2>&1; then \
                  echo \"$path\"; elif [ -d \"$path\" ] && [ -n \"$(ls -A \"$path\")\" ]; then echo \"$path\"; fi; done";
    let mut words = vec!["-u", "0", "--", "sh", "-c", script, "sh"];
    words.extend(paths);
    let ran = bench.run(words).wait();
    ran.expect(0, "exited");
    ran.text()
}

fn secrets_are_not_there() -> Result {
    let bench = Bench::new();
    let secrets = [
        "/etc/shadow",
        "/etc/gshadow",
        "/etc/shadow-",
        "/etc/sudoers",
        "/etc/ssh/ssh_host_ed25519_key",
        "/etc/ssh/ssh_host_rsa_key",
        "/etc/ssl/private",
        "/var/lib",
        "/var/log",
        "/var/run/docker.sock",
        "/run/docker.sock",
        "/run/systemd",
        "/srv",
        "/mnt",
        "/media",
        "/boot",
        "/home",
        "/root/.ssh",
        "/root/.bashrc",
        "/root/.profile",
        "/lost+found",
        "/proc/1/root/etc/shadow",
        "/dev/vda",
        "/dev/kvm",
        "/dev/mem",
    ];
    assert_eq!(visible(&bench, &secrets), "");
    // The test would say so too if nothing at all could be seen.
    assert_eq!(visible(&bench, &["/etc/passwd", "/usr/bin"]), "/etc/passwd\n/usr/bin");
    Ok(())
}

/// A home directory with everything a developer has in it.
fn home() -> Bench {
    let home = Bench::new();
    let files = [
        (".ssh/id_ed25519", "key"),
        (".aws/credentials", "key"),
        (".netrc", "key"),
        (".gnupg/private", "key"),
        (".cargo/bin/tool", "#!/bin/sh\necho tool runs\n"),
        (".cargo/credentials.toml", "token"),
        (".cargo/credentials", "token"),
        (".local/bin/mine", "#!/bin/sh\necho mine runs\n"),
        ("work/secret", "plans"),
        (".bash_history", "passwords"),
    ];
    for (name, text) in files {
        let path = home.path().join(name);
        fs::create_dir_all(path.parent().expect("it has one")).expect("can be made");
        home.write(name, text);
        let mode = if name.contains("/bin/") { 0o755 } else { 0o600 };
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("can be set");
    }
    home
}

fn with_home(call: tests::Call, home: &Bench) -> tests::Call {
    let path = home.path().display();
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")));
    let call = call.env("XDG_CACHE_HOME", cache.expect("the caller has a home"));
    call.env("HOME", home.path()).env("PATH", format!("{path}/.cargo/bin:{path}/.local/bin:/usr/bin:/bin"))
}

fn home_shows_tools_only() -> Result {
    let (home, bench) = (home(), Bench::new());
    let ran = with_home(bench.shell("tool; mine; cd; find . -type f | sort"), &home).wait();
    ran.prints("tool runs\nmine runs\n./.cargo/bin/tool\n./.local/bin/mine");
    Ok(())
}

fn home_tools_can_be_hidden() -> Result {
    let (home, bench) = (home(), Bench::new());
    let ran = with_home(bench.run(["--no-home-tools", "--", "sh", "-c", "tool"]), &home).wait();
    ran.expect(127, "exited");
    Ok(())
}

fn links_out_of_the_directory_lead_nowhere() -> Result {
    let bench = Bench::new();
    let outside = Bench::new();
    outside.write("secret", "outside");
    for (name, target) in
        [("shadow", Path::new("/etc/shadow")), ("out", &outside.path().join("secret")), ("up", Path::new("../"))]
    {
        symlink(target, bench.path().join(name)).map_err(|error| error.to_string())?;
    }
    let script = "cat shadow out 2>/dev/null | wc -c; ls -A up/ | wc -l; ls /proc/1/cwd/ 2>/dev/null | grep -c shadow";
    let ran = bench.run(["-u", "0", "--", "sh", "-c", script]).wait();
    assert_eq!(ran.text(), "0\n1\n0", "{}", ran.stderr);
    Ok(())
}

fn network_is_loopback_only() -> Result {
    let script = "ls /sys/class/net; cat /proc/net/route | wc -l; \
                  python3 -c 'import socket\ns = socket.socket(); s.bind((\"127.0.0.1\", 0)); s.listen()\n\
                  c = socket.create_connection(s.getsockname()); c.send(b\"x\"); print(s.accept()[0].recv(1))'";
    Bench::new().run(["-e", "PATH=/usr/bin:/bin", "sh", "-c", script]).wait().prints("lo\n1\nb'x'");
    Ok(())
}

fn explain_tells_what_is_seen() -> Result {
    let (home, bench) = (home(), Bench::new());
    let ran = with_home(bench.run(["--explain", "--", "true"]), &home).wait();
    assert_eq!(ran.code(), 0, "{}", ran.stderr);
    let text = ran.text();
    for word in ["/usr", ".cargo/bin", &bench.path().display().to_string(), "loopback"] {
        assert!(text.contains(word), "no {word} in:\n{text}");
    }
    Ok(())
}

/// The guest's root remounts a read-only volume writable; the host still refuses.
fn volume_read_only_is_the_hosts_decision() -> Result {
    let (bench, data) = (Bench::new(), Bench::new());
    data.write("file", "content");
    let volume = format!("{}:/data:ro", data.path().display());
    let script = "mount -o remount,rw,bind /data; mount -o remount,rw /data; echo y > /data/file && echo written; \
                  echo z > /data/new && echo made; rm -f /data/file && echo removed; chmod 777 /data/file && echo changed; true";
    let ran = bench.run(["-u", "0", "-v", &volume, "--", "sh", "-c", script]).wait();
    ran.prints("");
    assert_eq!(fs::read_to_string(data.path().join("file")).map_err(|error| error.to_string())?, "content");
    Ok(())
}
