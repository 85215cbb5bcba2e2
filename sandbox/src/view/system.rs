// SPDX-License-Identifier: Apache-2.0
//! The part of the view that is the same for every run on a host: programs, libraries and `/etc`.
//!
//! Not for anything that depends on the caller. Layout after hier(7) and file-hierarchy(7).
//!
//! `/etc` is a directory of the view's own in which each permitted entry is shown by itself, rather than the host's
//! with some names covered: then an entry that appears in the host's `/etc` while a guest runs is not in the guest's,
//! and a forgotten name in the table below costs nothing as long as its file is not open to everyone. What appears
//! later *inside* a shown directory is held back by the file server, which opens nothing here that is not open to
//! everyone ([`Audience::Everyone`]). The price is that a file the host replaces during the run stays the old one.

use super::{Audience, Error, Kind, View, credentials, open_to_everyone};
use std::path::{Path, PathBuf};

/// Directories of the root that hold programs of the distribution, besides those whose name begins with `lib`. They
/// are the same on every such host, hence no secret.
const PROGRAMS: &[&str] = &["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store"];

/// Directories that hold programs this host's administrator put there, and perhaps their configuration.
const OWN_PROGRAMS: &[&str] = &["/usr/local", "/opt"];

/// Directories every program expects, empty. Guest init relies on them: it mounts on some, and makes none.
const EMPTY: &[(&str, u32)] = &[
    ("/dev", 0o755),
    ("/home", 0o755),
    ("/proc", 0o555),
    ("/run", 0o755),
    ("/sys", 0o555),
    ("/tmp", 0o1777),
    ("/var", 0o755),
    ("/var/tmp", 0o1777),
];

/// A link every program expects. In the guest, making it would begin with a copy of the directory it is in.
const RUN_LINK: (&str, &str) = ("/var/run", "/run");

/// Entries of `/etc` that are never shown, although some hosts leave them open to everyone.
#[rustfmt::skip]
const ETC_HIDDEN: &[(&str, &str)] = &[
    ("NetworkManager", "network passwords"), ("ceph", "keys"), ("chef", "keys"), ("cni", "host network"),
    ("consul.d", "tokens"), ("containers", "registry logins"), ("crypttab", "disk keys"), ("cups", "printer passwords"),
    ("davfs2", "passwords"), ("docker", "keys"), ("gshadow", "password hashes"), ("hostid", "identity of the host"),
    ("ipsec.conf", "VPN"), ("ipsec.d", "VPN keys"), ("ipsec.secrets", "VPN keys"), ("krb5.keytab", "keys"),
    ("kubernetes", "cluster keys"), ("letsencrypt", "certificate keys"), ("machine-id", "identity of the host"),
    ("msmtprc", "mail password"), ("mysql", "database passwords"), ("nomad.d", "tokens"), ("openvpn", "VPN keys"),
    ("ppp", "passwords"), ("puppetlabs", "keys"), ("rancher", "cluster keys"), ("salt", "keys"),
    ("shadow", "password hashes"), ("ssh", "host keys"), ("sudoers", "who may become root"),
    ("sudoers.d", "who may become root"), ("swanctl", "VPN keys"), ("tinc", "VPN keys"), ("vault.d", "tokens"),
    ("wireguard", "VPN keys"), ("wpa_supplicant", "network passwords"),
];

/// Files of `/etc` that are shown only without a password in them.
const ETC_EXAMINED: &[&str] = &["environment", "gitconfig", "npmrc", "pip.conf", "wgetrc"];

/// Paths inside shown entries of `/etc` that are covered.
#[rustfmt::skip]
const ETC_COVERED: &[&str] = &[
    "apt/auth.conf", "apt/auth.conf.d", "pki/tls/private", "postfix/sasl", "security/opasswd", "ssl/private",
];

const PROGRAM: &str = "programs and libraries of the host";
const CONFIGURATION: &str = "configuration every user may read";

pub(super) fn describe(view: &mut View) -> Result<(), Error> {
    for &(path, mode) in EMPTY {
        view.add(path, Kind::Directory { mode }, "empty");
    }
    let (link, target) = RUN_LINK;
    // A host that has a directory there may have its current directory in it.
    if Path::new(link).is_symlink() || !Path::new(link).is_dir() {
        view.add(link, Kind::Link { target: target.into() }, "as everywhere");
    }
    for (path, audience) in programs()? {
        program(view, &path, audience)?;
    }
    etc(view, Path::new("/etc"))
}

/// The program directories that exist, in a fixed order.
fn programs() -> Result<Vec<(PathBuf, Audience)>, Error> {
    let distribution = PROGRAMS.iter().map(|path| (PathBuf::from(path), Audience::Caller));
    let own = OWN_PROGRAMS.iter().map(|path| (PathBuf::from(path), Audience::Everyone));
    Ok(distribution.chain(own).filter(|(path, _)| path.is_dir()).collect())
}

fn program(view: &mut View, path: &Path, audience: Audience) -> Result<(), Error> {
    let real = path.canonicalize().map_err(|source| Error::Look { path: path.into(), source })?;
    let inside = PROGRAMS.iter().chain(OWN_PROGRAMS).any(|program| real.starts_with(program));
    match path.read_link().ok() {
        // A link that stays among the programs is kept as one, and so is one that is inside them. Any other is shown
        // as the directory it leads to.
        Some(target) if inside => view.add(path, Kind::Link { target }, PROGRAM),
        Some(_) if view.covering(path).is_some() => {}
        _ => view.add(path, Kind::Shown { source: real, audience }, PROGRAM),
    }
    Ok(())
}

fn etc(view: &mut View, etc: &Path) -> Result<(), Error> {
    view.add(etc, Kind::Directory { mode: 0o755 }, CONFIGURATION);
    for path in names(etc)? {
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
            view.hidden.push((path, "its name is not text"));
            continue;
        };
        if let Some(why) = hidden(name) {
            view.hidden.push((path, why));
            continue;
        }
        if ETC_EXAMINED.contains(&name) && credentials::in_text(&path) {
            view.hidden.push((path, "may hold a password"));
            continue;
        }
        let metadata = path.symlink_metadata().map_err(|source| Error::Look { path: path.clone(), source })?;
        if metadata.is_symlink() {
            let target = path.read_link().map_err(|source| Error::Look { path: path.clone(), source })?;
            view.add(path, Kind::Link { target }, CONFIGURATION);
        } else if (metadata.is_dir() || metadata.is_file()) && open_to_everyone(&metadata) {
            view.add(path.clone(), Kind::Shown { source: path, audience: Audience::Everyone }, CONFIGURATION);
        } else {
            view.hidden.push((path, "not open to everyone"));
        }
    }
    for path in ETC_COVERED.iter().map(|name| etc.join(name)) {
        if view.has(&path, Audience::Everyone) && path.symlink_metadata().is_ok_and(|m| !m.is_symlink()) {
            view.add(path, Kind::Covered, "keys");
        }
    }
    Ok(())
}

/// Why an entry of `/etc` is never shown, if so. Backups end in `-` (`shadow-`, passwd(5)).
fn hidden(name: &str) -> Option<&'static str> {
    if name.ends_with('-') || name.ends_with('~') {
        return Some("backup");
    }
    ETC_HIDDEN.iter().find(|(hidden, _)| *hidden == name).map(|(_, why)| *why)
}

fn names(directory: &Path) -> Result<Vec<PathBuf>, Error> {
    let look = |source| Error::Look { path: directory.into(), source };
    let mut paths = Vec::new();
    for entry in directory.read_dir().map_err(look)? {
        paths.push(entry.map_err(look)?.path());
    }
    paths.sort();
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hidden_names_and_backups_are_known() {
        for name in ["shadow", "shadow-", "passwd-", "ssh", "machine-id", "sudoers.d", "hosts~"] {
            assert!(hidden(name).is_some(), "{name}");
        }
        for name in ["passwd", "group", "hosts", "ssl", "ld.so.cache", "localtime"] {
            assert!(hidden(name).is_none(), "{name}");
        }
    }

    #[test]
    fn only_what_everyone_may_read_is_shown() {
        use std::os::unix::fs::PermissionsExt;
        let etc_directory = tempfile::tempdir().unwrap();
        let at = |name: &str| etc_directory.path().join(name);
        for (name, mode) in [("open", 0o644), ("closed", 0o640), ("shadow", 0o644)] {
            std::fs::write(at(name), name).unwrap();
            std::fs::set_permissions(at(name), std::fs::Permissions::from_mode(mode)).unwrap();
        }
        std::fs::create_dir(at("enter-only")).unwrap();
        std::fs::set_permissions(at("enter-only"), std::fs::Permissions::from_mode(0o711)).unwrap();
        std::os::unix::fs::symlink("/nowhere", at("link")).unwrap();

        let mut view = View::default();
        etc(&mut view, etc_directory.path()).unwrap();

        let shown: Vec<_> = view.entries.iter().skip(1).map(|entry| entry.path.clone()).collect();
        assert_eq!(shown, [at("link"), at("open")]);
        assert_eq!(view.hidden.len(), 3);
    }
}
