// SPDX-License-Identifier: Apache-2.0
//! Views of made-up home directories on the real host.

use super::*;
use std::fs;
use tempfile::TempDir;

/// A home directory with a bit of everything.
fn home() -> TempDir {
    let home = tempfile::tempdir_in(std::env::temp_dir().canonicalize().unwrap()).unwrap();
    for directory in
        [".cargo/bin", ".cargo/registry", ".rustup/toolchains/stable", ".ssh", ".pyenv/shims", "src/a", "bin", ".aws"]
    {
        fs::create_dir_all(home.path().join(directory)).unwrap();
    }
    for file in
        [".cargo/credentials.toml", ".cargo/env", ".netrc", ".rustup/settings.toml", ".ssh/id_ed25519", "src/a/file"]
    {
        fs::write(home.path().join(file), "x").unwrap();
    }
    home
}

fn request(home: &Path, cwd: &Path, path: &[&str]) -> Request {
    let path = std::env::join_paths(path.iter().map(|entry| home.join(entry))).unwrap();
    Request { cwd: cwd.into(), path: Some(path), home: Some(home.into()), home_tools: true, ..Request::default() }
}

fn shown(view: &View) -> Vec<&Path> {
    view.entries().iter().filter(|entry| matches!(entry.kind, Kind::Shown { .. })).map(|entry| &*entry.path).collect()
}

#[test]
fn a_toolchain_is_shown_without_its_credentials() {
    let home = home();
    let at = |name: &str| home.path().join(name);
    let view = View::of(&request(home.path(), &at("src/a"), &[".cargo/bin"])).unwrap();

    let shown = shown(&view);
    for name in [".cargo/bin", ".cargo/env", ".cargo/registry", ".rustup/toolchains", ".rustup/settings.toml", "src/a"]
    {
        assert!(shown.contains(&&*at(name)), "{name} is missing");
    }
    for name in ["", ".cargo", ".cargo/credentials.toml", ".netrc", ".ssh", ".pyenv", "src", ".aws"] {
        assert!(!shown.contains(&&*at(name)), "{name} is shown");
    }
}

#[test]
fn only_tools_in_path_are_shown() {
    let home = home();
    let view = View::of(&request(home.path(), Path::new("/"), &[".pyenv/shims"])).unwrap();
    let inside: Vec<_> = shown(&view).into_iter().filter(|path| path.starts_with(home.path())).collect();
    assert_eq!(inside, [home.path().join(".pyenv")]);
}

#[test]
fn no_tool_is_shown_when_not_wanted() {
    let home = home();
    let mut request = request(home.path(), Path::new("/"), &[".cargo/bin"]);
    request.home_tools = false;
    let view = View::of(&request).unwrap();
    assert!(!shown(&view).iter().any(|path| path.starts_with(home.path())));
}

#[test]
fn variables_say_where_an_installation_is() {
    let home = home();
    let elsewhere = home.path().join("src/cargo");
    fs::create_dir_all(elsewhere.join("bin")).unwrap();
    let mut request = request(home.path(), Path::new("/"), &["src/cargo/bin"]);
    request.environment.insert("CARGO_HOME".into(), elsewhere.clone().into());
    let view = View::of(&request).unwrap();
    assert!(shown(&view).contains(&&*elsewhere.join("bin")));

    // One that names the home directory shows nothing.
    request.environment.insert("PYENV_ROOT".into(), home.path().into());
    let view = View::of(&request).unwrap();
    assert!(!shown(&view).contains(&home.path()));
    assert!(view.unfound().iter().any(|unfound| unfound.contains("pyenv")));
}

#[test]
fn a_configuration_with_a_token_is_held_back() {
    let home = home();
    let config = home.path().join(".cargo/config.toml");
    for (text, seen) in [
        ("[build]\njobs = 2\n", true),
        ("[registry]\ntoken = \"s\"\n", false),
        ("[source.m]\nregistry = \"https://m.example/i\"\n", true),
        ("[http]\nproxy = \"http://u:p@proxy\"\n", false),
    ] {
        fs::write(&config, text).unwrap();
        let view = View::of(&request(home.path(), Path::new("/"), &[".cargo/bin"])).unwrap();
        assert_eq!(shown(&view).contains(&&*config), seen, "{text}");
    }
}

#[test]
fn a_home_directory_as_current_directory_is_empty() {
    let home = home();
    for cwd in [home.path(), home.path().parent().unwrap()] {
        let view = View::of(&request(home.path(), cwd, &[])).unwrap();
        assert!(!shown(&view).iter().any(|path| path.starts_with(home.path())));
        assert!(view.notices().iter().any(|notice| notice.contains("shown empty")), "{cwd:?}");
    }
}

#[test]
fn a_link_leads_to_the_current_directory_whatever_is_shown_of_it() {
    let (home, elsewhere) = (home(), tempfile::tempdir_in(std::env::temp_dir().canonicalize().unwrap()).unwrap());
    let link = elsewhere.path().join("link");
    for target in [home.path(), &home.path().join("src"), Path::new("/usr/lib"), Path::new("/dev")] {
        let _first_time = fs::remove_file(&link);
        std::os::unix::fs::symlink(target, &link).unwrap();
        let view = View::of(&request(home.path(), &link, &[])).unwrap();
        let entry = view.entries().iter().find(|entry| entry.path == link);
        assert_eq!(entry.map(|entry| &entry.kind), Some(&Kind::Link { target: target.into() }));
    }
}

#[test]
fn the_root_as_current_directory_is_the_default_view() {
    let home = home();
    let view = View::of(&request(home.path(), Path::new("/"), &[])).unwrap();
    assert_eq!(view.notices(), [] as [&str; 0]);
    assert!(!shown(&view).contains(&Path::new("/")));
}

#[test]
fn a_current_directory_among_credentials_is_refused() {
    let home = home();
    for cwd in [".ssh", ".aws"] {
        let refused = View::of(&request(home.path(), &home.path().join(cwd), &[]));
        assert!(matches!(refused, Err(Error::Credentials { .. })), "{cwd}");
    }
}

#[test]
fn credentials_inside_the_current_directory_are_covered() {
    let home = home();
    let cargo = home.path().join(".cargo");
    let view = View::of(&request(home.path(), &cargo, &[])).unwrap();
    let covered: Vec<_> = view.entries().iter().filter(|entry| entry.kind == Kind::Covered).map(|e| &e.path).collect();
    assert!(covered.contains(&&cargo.join("credentials.toml")));
}

#[test]
fn a_directory_that_is_empty_otherwise_is_shown_when_current() {
    let view = View::of(&Request { cwd: "/tmp".into(), ..Request::default() }).unwrap();
    let tmp: Vec<_> = view.entries().iter().filter(|entry| entry.path == Path::new("/tmp")).collect();
    assert!(matches!(tmp[..], [Entry { kind: Kind::Shown { audience: Audience::Caller, .. }, .. }]));
}

#[test]
fn tickets_in_the_current_directory_are_covered() {
    let home = home();
    let cwd = home.path().join("src");
    fs::write(cwd.join("krb5cc_1000"), "x").unwrap();
    let view = View::of(&request(home.path(), &cwd, &[])).unwrap();
    assert!(view.entries().iter().any(|entry| entry.path == cwd.join("krb5cc_1000") && entry.kind == Kind::Covered));
}

#[test]
fn a_linked_home_directory_is_shown_with_its_link() {
    let real = home();
    let other = tempfile::tempdir_in(std::env::temp_dir().canonicalize().unwrap()).unwrap();
    let link = other.path().join("home");
    std::os::unix::fs::symlink(real.path(), &link).unwrap();
    let view = View::of(&request(&link, &real.path().join("src/a"), &[".cargo/bin"])).unwrap();
    assert!(view.entries().iter().any(|e| e.path == link && e.kind == Kind::Link { target: real.path().into() }));
    assert!(shown(&view).contains(&&*real.path().join(".cargo/bin")));
}

#[test]
fn secrets_of_the_system_are_nowhere() {
    let view = View::of(&Request { cwd: "/".into(), ..Request::default() }).unwrap();
    for path in ["/etc", "/etc/shadow", "/etc/ssh", "/etc/sudoers", "/etc/machine-id", "/root", "/var", "/run", "/"] {
        assert!(!shown(&view).contains(&Path::new(path)), "{path}");
    }
    assert!(shown(&view).contains(&Path::new("/etc/passwd")));
}

#[test]
fn the_explanation_names_paths_and_reasons() {
    let home = home();
    let mut request = request(home.path(), &home.path().join("src/a"), &[".cargo/bin"]);
    request.volumes.push(Volume { source: home.path().join("src"), target: "/data".into(), read_only: false });
    let text = View::of(&request).unwrap().explain();
    for part in ["/usr ", "cargo, found in PATH", "current directory", "/data <- ", "WRITABLE", "shadow (", "passwd,"] {
        assert!(text.contains(part), "{part} is missing in\n{text}");
    }
}

#[test]
fn a_relative_or_missing_current_directory_is_an_error() {
    for cwd in ["work", "/nowhere/at/all"] {
        assert!(View::of(&Request { cwd: cwd.into(), ..Request::default() }).is_err());
    }
}

#[test]
fn what_guest_init_relies_on_is_there() {
    let home = home();
    for cwd in ["/", "/tmp", "/var/tmp", "/dev"] {
        let view = View::of(&request(home.path(), Path::new(cwd), &[])).unwrap();
        let kind =
            |path: &str| view.entries().iter().find(|entry| entry.path == Path::new(path)).map(|entry| &entry.kind);
        for path in ["/dev", "/proc", "/sys", "/run", "/tmp", "/var", "/var/tmp"] {
            assert!(matches!(kind(path), Some(Kind::Directory { .. } | Kind::Shown { .. })), "{path} from {cwd}");
        }
        let run = Path::new("/var/run");
        assert!(matches!(kind("/var/run"), Some(Kind::Link { .. })) || !run.is_symlink() && run.is_dir());
    }
}

#[test]
fn what_is_shown_besides_is_no_more_than_a_project() {
    let home = home();
    let at = |name: &str| home.path().join(name);
    let mut request = request(home.path(), &at("src/a"), &[]);
    request.shown = [".cargo", "bin", ".ssh", "", "missing"].map(at).to_vec();
    request.shown.extend(["/tmp", "/etc/shadow", "/", "relative"].map(PathBuf::from));
    let view = View::of(&request).unwrap();
    let shown = shown(&view);
    for (path, seen) in [(".cargo", true), ("bin", true), (".ssh", false), ("", false)] {
        assert_eq!(shown.contains(&&*at(path)), seen, "{path}");
    }
    for path in ["/tmp", "/etc/shadow", "/"] {
        assert!(!shown.contains(&Path::new(path)), "{path}");
    }
    let covered = at(".cargo/credentials.toml");
    assert!(view.entries().iter().any(|entry| entry.path == covered && entry.kind == Kind::Covered));
}
