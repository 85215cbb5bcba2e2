// SPDX-License-Identifier: Apache-2.0
use std::fs;

use proptest::prelude::*;

use super::*;

/// A home directory with a project in it.
struct Place {
    home: tempfile::TempDir,
}

impl Place {
    fn new() -> Place {
        let place = Place { home: tempfile::tempdir().expect("a directory can be made") };
        fs::create_dir_all(place.project().join("src/deep")).expect("and more in it");
        place
    }

    fn project(&self) -> PathBuf {
        self.home.path().canonicalize().expect("it is there").join("project")
    }

    fn variable(&self) -> impl Fn(&str) -> Option<OsString> {
        let home = self.home.path().canonicalize().expect("it is there");
        move |name| (name == "HOME").then(|| home.clone().into_os_string())
    }

    fn user(&self, text: &str) {
        let directory = self.home.path().join(".config/sandbox");
        fs::create_dir_all(&directory).expect("a directory can be made");
        fs::write(directory.join("config.toml"), text).expect("a file can be written");
    }

    fn sandbox_toml(&self, text: &str) {
        fs::write(self.project().join("sandbox.toml"), text).expect("a file can be written");
    }

    fn found(&self) -> Vec<Found> {
        Places::of(&self.variable()).find(&self.project().join("src/deep")).expect("can be read")
    }

    fn trust(&self) {
        trust::remember(self.found().last().expect("a file"), &self.variable()).expect("can be trusted");
    }

    /// The options that all of it amounts to.
    fn words(&self, variables: &[(&str, &str)]) -> Result<Vec<String>, String> {
        let home = self.variable();
        let variable = |name: &str| {
            let set = variables.iter().find(|(own, _)| *own == name);
            set.map(|(_, value)| OsString::from(value)).or_else(|| home(name))
        };
        let gathered = gather(self.found(), &variable, |found| trust::holds(found, &variable));
        let (settings, _) = gathered.map_err(|error| crate::explain(&error))?;
        let words = settings.values().flat_map(|setting| &setting.words);
        Ok(words.map(|word| word.to_string_lossy().into_owned()).collect())
    }
}

#[test]
fn no_file_sets_nothing() {
    assert_eq!(Place::new().words(&[]), Ok(vec![]));
}

#[test]
fn the_later_counts_and_lists_add_up() {
    let place = Place::new();
    place.user("memory = '2G'\ntimeout = '60s'\ncpus = 2\nenv = ['A=1']\nvolumes = ['/srv:/data:ro', 'x:/y']");
    place.sandbox_toml("memory = '1G'\ntimeout = '50s'\n");
    let set = place.words(&[("SANDBOX_TIMEOUT", "3m"), ("SANDBOX_REQUIRE_KVM", "1"), ("SANDBOX_CPUS", "3")]);
    let near = place.home.path().canonicalize().expect("there").join(".config/sandbox/x");
    let volume = format!("--volume={}:/y:rw", near.display());
    let expected = [
        "--cpus=3",
        "--env=A=1",
        "--memory=1G",
        "--require-kvm",
        "--timeout=3m",
        "--volume=/srv:/data:ro",
        volume.as_str(),
    ];
    assert_eq!(set.expect("makes sense"), expected);
    assert_eq!(place.words(&[("SANDBOX_TIMEOUT", "none")]).expect("makes sense").len(), 5);
}

#[test]
fn what_is_kept_goes_where_its_file_says() {
    let place = Place::new();
    let near = place.home.path().canonicalize().expect("there").join(".config/sandbox");
    place.user(
        "keep = 'always'\nkeep_dir = 'kept'\nterminal = 'never'\ncopy_out = ['out/a:b', '/c:/d']\ncommit = ['build']\nkill_after = '5s'\ndiff = false\nsync_out = ['insta', 'out/*']",
    );
    place.sandbox_toml("keep = 'on-failure'\nterminal = 'auto'\nkill_after = '2s'\nusage = true");
    let expected = [
        "--commit=build".to_owned(),
        format!("--copy-out=out/a:{}", near.join("b").display()),
        "--copy-out=/c:/d".to_owned(),
        "--keep=on-failure".to_owned(),
        format!("--keep-dir={}", near.join("kept").display()),
        "--kill-after=2s".to_owned(),
        "--sync-out=insta".to_owned(),
        "--sync-out=out/*".to_owned(),
        "--usage".to_owned(),
    ];
    assert_eq!(place.words(&[]).expect("makes sense"), expected);
    let set = place.words(&[("SANDBOX_KEEP_DIR", "here"), ("SANDBOX_TERMINAL", "never"), ("SANDBOX_DIFF", "1")]);
    let set = set.expect("makes sense");
    assert!(["--keep-dir=here", "--no-tty", "--diff"].iter().all(|word| set.iter().any(|own| own == word)), "{set:?}");
}

/// What a project's file may set.
const NARROW: [&str; 24] = [
    "memory = '512M'",
    "timeout = '5s'",
    "output_limit = '1M'",
    "pids_limit = 9",
    "cpus = 1",
    "require_kvm = true",
    "home_tools = false",
    "engine = 'kvm'",
    "engine = 'auto'",
    "boot = true",
    "disk_size = '64M'",
    "shm_size = '512M'",
    "memory = '256M'\ndisk_size = '128M'",
    "volumes = []",
    "nested = false",
    "home_tools = true",
    "require_kvm = false",
    "timeout = 'none'",
    "terminal = 'always'",
    "terminal = 'never'",
    "diff = true",
    "usage = true",
    "keep = 'never'",
    "commit = []",
];

/// What a user may have set.
const STRICT: &str =
    "memory = '256M'\ntimeout = '5s'\nrequire_kvm = true\nhome_tools = false\nengine = 'kvm'\npids_limit = 9";

/// What a project's file may not set without trust, if the user's file says what stands first.
const WIDE: [(&str, &str); 26] = [
    ("", "memory = '2G'"),
    ("", "cpus = 2"),
    ("", "engine = 'qemu'"),
    ("", "nested = true"),
    ("", "disk_size = '600M'"),
    ("", "memory = '256M'\ndisk_size = '129M'"),
    ("", "volumes = ['/:/host']"),
    ("", "env = ['AWS_SECRET']"),
    ("", "ulimits = ['nofile=9']"),
    ("", "tmpfs = ['/cache']"),
    ("", "copy_out = ['/etc/hostname:.']"),
    ("", "commit = ['build']"),
    ("", "sync_out = ['insta']"),
    ("", "keep = 'on-failure'"),
    ("", "keep_dir = 'kept'"),
    ("", "kill_after = '1s'"),
    ("", "retries = 1"),
    ("keep = 'on-failure'", "keep = 'always'"),
    ("kill_after = '2s'", "kill_after = '3s'"),
    (STRICT, "memory = '257M'"),
    (STRICT, "timeout = '6s'"),
    (STRICT, "timeout = 'none'"),
    (STRICT, "require_kvm = false"),
    (STRICT, "home_tools = true"),
    (STRICT, "engine = 'auto'"),
    (STRICT, "pids_limit = 'none'"),
];

#[test]
fn a_project_may_narrow_and_only_with_trust_widen() {
    for text in NARROW {
        let place = Place::new();
        place.sandbox_toml(text);
        place.words(&[]).unwrap_or_else(|error| panic!("{text}: {error}"));
    }
    for (user, text) in WIDE {
        let place = Place::new();
        place.user(user);
        place.sandbox_toml(text);
        let error = place.words(&[]).expect_err(text);
        let key = text.lines().last().and_then(|line| line.split(' ').next()).expect("a key");
        for part in [key, "sandbox.toml", "run: sandbox trust"] {
            assert!(error.contains(part), "{text}: {error}");
        }
        place.trust();
        place.words(&[]).unwrap_or_else(|error| panic!("{text}, trusted: {error}"));
    }
}

#[test]
fn trust_is_in_what_was_seen_and_where() {
    let place = Place::new();
    place.sandbox_toml("memory = '2G'");
    place.trust();
    place.words(&[]).expect("trusted");
    place.sandbox_toml("memory = '3G'");
    place.words(&[]).expect_err("changed");
    place.trust();
    place.words(&[]).expect("trusted again");
    place.sandbox_toml("memory = '2G'");
    place.words(&[]).expect_err("what was trusted before the last time is not");
    place.trust();
    fs::copy(place.project().join("sandbox.toml"), place.project().join("src/sandbox.toml")).expect("can be copied");
    place.words(&[]).expect_err("the same file elsewhere");
    fs::remove_file(place.project().join("src/sandbox.toml")).expect("can be removed");
    place.words(&[]).expect("trusted still");
    trust::forget(&place.found()[0], &place.variable()).expect("can be revoked");
    place.words(&[]).expect_err("trusted no longer");
}

#[test]
fn a_strangers_file_is_read_only_once_trusted() {
    let found = |text: &str, project: bool| {
        let stranger = project.then_some(1234);
        vec![Found { path: "/tmp/sandbox.toml".into(), text: text.to_owned(), project, stranger }]
    };
    let gathered = |found, trusted| gather(found, &|_: &str| None, |_| Ok(trusted)).map(drop);
    for text in ["memory = '512M'", "", "no such key"] {
        let error = crate::explain(&gathered(found(text, true), false).expect_err("a stranger's"));
        for part in ["/tmp/sandbox.toml", "1234", "sandbox trust \"/tmp\"", "--no-config"] {
            assert!(error.contains(part), "{error}");
        }
    }
    gathered(found("memory = '512M'", true), true).expect("trusted");
    gathered(found("memory = '512M'", false), false).expect("the user's own");
    let place = Place::new();
    place.sandbox_toml("memory = '512M'");
    assert_eq!(place.found()[0].stranger, None);
}

#[test]
fn the_search_ends_at_the_home_directory() {
    let place = Place::new();
    let inner = place.project().join("src");
    place.sandbox_toml("memory = '512M'");
    let home = |name: &str| (name == "HOME").then(|| inner.clone().into_os_string());
    assert!(Places::of(&home).find(&inner.join("deep")).expect("can be read").is_empty());
    assert_eq!(place.found()[0].path, place.project().join("sandbox.toml"));
}

#[test]
fn what_makes_no_sense_is_refused_by_place_and_name() {
    for (text, hints) in [
        ("memry = '1G'", &["\"memry\"", "memory is one"][..]),
        ("require-kvm = true", &["require_kvm is one"]),
        ("no_home_tools = true", &["home_tools is one"]),
        ("xyz = 1", &["there are boot, commit"]),
        ("cpus = 1\nmemory = ", &["line 2"]),
        ("cpus = 1\ncpus = 2", &["line 2"]),
        ("memory = 'lots'", &["memory: ", "512M"]),
        ("memory = -1", &["memory: -1"]),
        ("memory = 'none'", &["memory: "]),
        ("cpus = '2'", &["cpus: ", "number"]),
        ("timeout = 5", &["timeout: ", "90s"]),
        ("require_kvm = 'yes'", &["true or false"]),
        ("engine = 'xen'", &["engine: "]),
        ("volumes = '/a:/b'", &["volumes: ", "list"]),
        ("volumes = ['/a:/b:rx']", &["volumes: ", "ro or rw"]),
        ("ulimits = ['files=1']", &["ulimits: ", "nofile"]),
        ("env = ['=1']", &["env: ", "NAME"]),
        ("keep = 'failure'", &["keep: ", "\"on-failure\""]),
        ("keep = true", &["keep: ", "\"on-failure\""]),
        ("keep_dir = ''", &["keep_dir: ", "path"]),
        ("terminal = true", &["terminal: ", "\"auto\""]),
        ("copy_out = ['x']", &["copy_out: ", "GUEST:HOST"]),
        ("commit = ['/etc']", &["commit: ", "below"]),
        ("tmpfs = ['/a:size=x']", &["tmpfs: "]),
        ("keep_vm = true", &["\"keep_vm\""]),
        ("diff_tar = 'x'", &["\"diff_tar\""]),
        ("[run]\nmemory = '1G'", &["\"run\""]),
    ] {
        for project in [false, true] {
            let place = Place::new();
            if project {
                place.sandbox_toml(text)
            } else {
                place.user(text)
            }
            let error = place.words(&[]).expect_err(text);
            let file = if project { "/project/sandbox.toml" } else { "/.config/sandbox/config.toml" };
            assert!(error.contains(file), "{text}: {error}");
            hints.iter().for_each(|hint| assert!(error.contains(hint), "{text}: {error}"));
        }
    }
    let error = Place::new().words(&[("SANDBOX_MEMORY", "lots")]).expect_err("refused");
    assert!(error.starts_with("SANDBOX_MEMORY: "), "{error}");
}

#[test]
fn what_lies_there_and_is_no_file_does_not_hold_us_up() {
    let place = Place::new();
    let path = place.project().join("sandbox.toml");
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, 0o600.into(), 0)
        .expect("a pipe can be made");
    let error = Places::of(&place.variable()).find(&place.project()).expect_err("no file");
    assert!(crate::explain(&error).contains("--no-config"), "{error}");
    fs::remove_file(&path).expect("can be removed");
    fs::write(&path, "#".repeat(70_000)).expect("a file can be written");
    Places::of(&place.variable()).find(&place.project()).expect_err("too long");
}

#[test]
fn flags_come_last() {
    let typed = |words: &[&str]| ["sandbox", "run"].iter().chain(words).map(OsString::from).collect();
    let place = Place::new();
    place.user("memory = '2G'\nvolumes = ['/a:/b']\nhome_tools = false");
    let (settings, _) = gather(place.found(), &place.variable(), |_| Ok(false)).expect("makes sense");
    let text = |words| format!("{:?}", again(typed(words), &settings).expect("parses").0);
    assert!(text(&["-m", "3G", "--", "true"]).contains("memory: 3221225472"));
    let plain = text(&["-v/c:/d", "true"]);
    for part in ["memory: 2147483648", "\"/a\"", "\"/c\"", "no_home_tools: true", "command: [\"true\"]"] {
        assert!(plain.contains(part), "{part}: {plain}");
    }
}

#[test]
fn an_explanation_names_places_and_keeps_values_of_variables() {
    let place = Place::new();
    place.user("memory = '2G'\nenv = ['TOKEN=hush']");
    let (_, sources) = gather(place.found(), &place.variable(), |_| Ok(false)).expect("makes sense");
    let text = Source::explain(&sources);
    assert!(text.contains("/.config/sandbox/config.toml\" sets env = [\"TOKEN\"], memory = \"2G\""), "{text}");
    assert_eq!(Source::explain(&[]), "");
}

proptest! {
    /// Whatever lies there is settings or a refusal.
    #[test]
    fn hostile_files_do_no_harm(text in ".{0,200}|[a-z_]{1,12} = ('[ -~]{0,20}'|[0-9.]{1,30}|\\[[^\\]]{0,20}\\])") {
        let found = Found { path: "/x/sandbox.toml".into(), text, project: true, stranger: None };
        let _either = gather(vec![found], &|_: &str| None, |_| Ok(true));
    }
}
