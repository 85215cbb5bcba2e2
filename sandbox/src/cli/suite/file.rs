// SPDX-License-Identifier: Apache-2.0
//! A suite's file: what can be written there, and what that means (docs/suites.md).

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use toml::{Table, Value};

use super::expect::Expect;
use crate::caller::Caller;
use crate::cli::config::{Settings, keys, merge, words};

/// A suite as its file has it.
#[derive(Debug)]
pub(super) struct Suite {
    /// What it is called: as its file, unless that says otherwise.
    pub(super) name: String,
    /// Where its file is; absolute.
    pub(super) path: PathBuf,
    /// The directory that its tests see and start in: that of its file.
    pub(super) directory: PathBuf,
    pub(super) entries: Vec<Entry>,
}

/// A test as the file has it.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) command: Vec<OsString>,
    pub(super) input: Vec<u8>,
    pub(super) expect: Expect,
    pub(super) retries: u32,
    pub(super) ignored: bool,
    needs: Needs,
}

/// What a test needs, and what `[defaults]` says that all need.
#[derive(Debug, Clone, Default)]
struct Needs {
    settings: Settings,
    workdir: Option<PathBuf>,
    root: Option<bool>,
    files: Vec<PathBuf>,
    retries: Option<u32>,
}

/// Keys beside those of a configuration: of the file, of a test, and those needs that `[defaults]` has too.
const FILE: [&str; 3] = ["name", "defaults", "test"];
const TEST: [&str; 9] = ["name", "command", "stdin", "stdin_file", "status", "signal", "stdout", "stderr", "ignored"];
const NEEDS: [&str; 4] = ["workdir", "root", "files", "retries"];

/// Keys of a configuration that a test has no use for, and what there is instead.
const ELSEWHERE: [(&str, &str); 4] = [
    ("diff", "a suite shows no listing; copy_out brings out what a test makes"),
    ("keep", "a test that does not pass leaves its evidence in any case, one that does leaves none"),
    ("keep_dir", "--evidence says where evidence is left"),
    (
        "usage",
        "a suite shows no table; report.json has the figures of a test that did not pass, SANDBOX_REPORTS those of all",
    ),
];

/// A test without bounds would hang a suite, or fill the disk with its output.
const BOUNDS: &str = "timeout = '5m'\noutput_limit = '16M'";

impl Suite {
    pub(super) fn read(file: &Path, caller: &Caller) -> Result<Self, String> {
        let wrong = |problem: String| format!("{}: {problem}", file.display());
        let path = caller.directory.join(file);
        let text = fs::read_to_string(&path).map_err(|error| wrong(format!("cannot read it: {error}")))?;
        let directory = path.parent().unwrap_or(Path::new("/")).to_owned();
        Self::parse(&text, path.clone(), plain(&directory)).map_err(wrong)
    }

    fn parse(text: &str, path: PathBuf, directory: PathBuf) -> Result<Self, String> {
        let table: Table = text.parse().map_err(|error: toml::de::Error| {
            let before = error.span().and_then(|span| text.get(..span.start));
            let line = before.map_or(1, |before| before.matches('\n').count() + 1);
            format!("line {line}: {}", error.message())
        })?;
        if let Some(name) = table.keys().find(|name| !FILE.contains(&name.as_str())) {
            return Err(keys::unknown(name, FILE));
        }
        let mut common = Needs::default();
        let bounds: Table = BOUNDS.parse().map_err(|error: toml::de::Error| error.to_string())?;
        common.read(&bounds, &directory, &[])?;
        match table.get("defaults") {
            None => {}
            Some(Value::Table(defaults)) => {
                common.read(defaults, &directory, &[]).map_err(|problem| format!("[defaults]: {problem}"))?;
            }
            Some(_) => return Err("defaults: write it as a table, [defaults]".to_owned()),
        }
        let tests = match table.get("test") {
            Some(Value::Array(tests)) if !tests.is_empty() => tests,
            _ => return Err("it has no tests; each is a table, [[test]]".to_owned()),
        };
        let entries: Vec<Entry> = tests
            .iter()
            .enumerate()
            .map(|(number, test)| Entry::read(test, &common, &directory, number + 1))
            .collect::<Result<_, _>>()?;
        let mut names = HashSet::new();
        if let Some(twice) = entries.iter().find(|entry| !names.insert(entry.name.as_str())) {
            return Err(format!("two tests are called {:?}", twice.name));
        }
        let name = match table.get("name") {
            Some(name) => string("name", name)?,
            None => path.file_stem().map_or_else(|| "suite".to_owned(), |stem| stem.to_string_lossy().into_owned()),
        };
        Ok(Self { name, path, directory, entries })
    }
}

/// Without `.` and `..`, as a place in the guest has to be.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                plain.pop();
            }
            part => plain.push(part),
        }
    }
    plain
}

impl Entry {
    fn read(test: &Value, common: &Needs, directory: &Path, number: usize) -> Result<Self, String> {
        let Value::Table(test) = test else { return Err("test: write each as a table, [[test]]".to_owned()) };
        let name = match test.get("name") {
            Some(name) => string("name", name).map_err(|problem| format!("test {number}: {problem}"))?,
            None => return Err(format!("test {number} has no name")),
        };
        let named = |problem: String| format!("test {name:?}: {problem}");
        // A line for each test: that is what lists are made of.
        if name.is_empty() || name.contains(char::is_control) {
            return Err(named("a name is a line of text".to_owned()));
        }
        let mut needs = common.clone();
        needs.read(test, directory, &TEST).map_err(named)?;
        Self::of(&name, test, needs, directory).map_err(named)
    }

    fn of(name: &str, test: &Table, needs: Needs, directory: &Path) -> Result<Self, String> {
        let command = match test.get("command") {
            // As everywhere, a text is a shell's, a list is the program and its arguments.
            Some(Value::String(script)) if !script.is_empty() => ["sh", "-c", script].map(OsString::from).to_vec(),
            Some(list @ Value::Array(_)) => texts("command", list)?.into_iter().map(OsString::from).collect(),
            None => return Err("it has no command".to_owned()),
            Some(_) => return Err("command: write it as [\"program\", \"argument\"], or as a line for sh".to_owned()),
        };
        if command.is_empty() {
            return Err("command: it names no program".to_owned());
        }
        let input = match (test.get("stdin"), test.get("stdin_file")) {
            (Some(_), Some(_)) => return Err("stdin and stdin_file: choose one".to_owned()),
            (Some(text), None) => string("stdin", text)?.into_bytes(),
            (None, Some(file)) => {
                let file = directory.join(string("stdin_file", file)?);
                fs::read(&file).map_err(|error| format!("cannot read {}: {error}", file.display()))?
            }
            (None, None) => Vec::new(),
        };
        let expect = Expect::read(test)?;
        // Nothing of what any other end leaves is committed: accepted, it would do nothing.
        if needs.settings.contains_key("commit") && !expect.is_success() {
            return Err("commit: only what a command with status 0 has changed is committed; use copy_out".to_owned());
        }
        Ok(Self {
            name: name.to_owned(),
            command,
            input,
            expect,
            retries: needs.retries.unwrap_or(0),
            ignored: test.get("ignored").map_or(Ok(false), |value| flag("ignored", value))?,
            needs,
        })
    }

    /// What it needs, as options of `sandbox run`.
    pub(super) fn options(&self) -> Vec<OsString> {
        let mut options = words(&self.needs.settings);
        for file in &self.needs.files {
            let mut volume = file.clone().into_os_string();
            volume.push(":");
            volume.push(plain(file));
            volume.push(":ro");
            options.push(option("--volume=", &volume));
        }
        options.extend(self.needs.workdir.iter().map(|directory| option("--workdir=", directory.as_os_str())));
        if self.needs.root == Some(true) {
            options.push("--user=root".into());
        }
        options
    }
}

fn option(name: &str, value: &OsStr) -> OsString {
    let mut option = OsString::from(name);
    option.push(value);
    option
}

impl Needs {
    /// Takes what a table says over what was said before. Lists add up; `others` are keys that somebody else reads.
    fn read(&mut self, table: &Table, directory: &Path, others: &[&'static str]) -> Result<(), String> {
        let mut settings = Settings::new();
        for (name, value) in table {
            if let Some((_, instead)) = ELSEWHERE.iter().find(|(key, _)| key == name) {
                return Err(format!("{name} means nothing in a suite: {instead}"));
            }
            match name.as_str() {
                "workdir" => self.workdir = Some(plain(&directory.join(string(name, value)?))),
                "root" => self.root = Some(flag(name, value)?),
                "files" => {
                    for file in texts(name, value)? {
                        let path = directory.join(&file);
                        // It ends a path in the option that this is.
                        if path.as_os_str().as_bytes().contains(&b':') {
                            let path = path.display();
                            return Err(format!(
                                "files: {path} has a colon, and cannot be shown; name a directory above it"
                            ));
                        }
                        self.files.push(path);
                    }
                }
                "retries" => {
                    let count = value.as_integer().and_then(|count| u32::try_from(count).ok());
                    self.retries = Some(count.ok_or("retries: write a number, as 2")?);
                }
                other if others.contains(&other) => {}
                other => {
                    if !keys::set(&mut settings, other, value, directory)? {
                        let usable = keys::names().filter(|name| ELSEWHERE.iter().all(|(key, _)| key != name));
                        let all = others.iter().copied().chain(NEEDS).chain(usable);
                        return Err(keys::unknown(other, all));
                    }
                }
            }
        }
        merge(&mut self.settings, settings);
        Ok(())
    }
}

pub(super) fn string(name: &str, value: &Value) -> Result<String, String> {
    value.as_str().map(str::to_owned).ok_or_else(|| format!("{name}: write a text, as \"…\""))
}

fn flag(name: &str, value: &Value) -> Result<bool, String> {
    value.as_bool().ok_or_else(|| format!("{name}: write true or false"))
}

pub(super) fn texts(name: &str, value: &Value) -> Result<Vec<String>, String> {
    let entries =
        value.as_array().and_then(|list| list.iter().map(|entry| entry.as_str().map(str::to_owned)).collect());
    entries.ok_or_else(|| format!("{name}: write a list of texts, as [\"…\", \"…\"]"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Suite, String> {
        Suite::parse(text, "/place/checks.toml".into(), "/place".into())
    }

    fn options(suite: &Suite, number: usize) -> Vec<String> {
        suite.entries[number].options().into_iter().map(|word| word.into_string().expect("text")).collect()
    }

    #[test]
    fn needs_are_options_and_paths_are_the_files() {
        let suite = parse(
            "[defaults]\nmemory = '256M'\nretries = 2\nenv = ['A=1']\nfiles = ['../data']\n\
             [[test]]\nname = 'one'\ncommand = 'exit 0'\n\
             [[test]]\nname = 'two'\ncommand = ['./x', 'y']\nmemory = '512M'\ntimeout = 'none'\ncpus = 2\nroot = true\n\
             workdir = 'sub'\nvolumes = ['out:/out']\nenv = ['B=2']\nretries = 0\nignored = true\n",
        )
        .expect("it is right");
        assert_eq!((suite.name.as_str(), suite.entries.len()), ("checks", 2));
        let one = "--env=A=1 --memory=256M --output-limit=16M --timeout=5m --volume=/place/../data:/data:ro";
        assert_eq!(options(&suite, 0).join(" "), one);
        let two = "--cpus=2 --env=A=1 --env=B=2 --memory=512M --output-limit=16M --volume=/place/out:/out:rw \
                   --volume=/place/../data:/data:ro --workdir=/place/sub --user=root";
        assert_eq!(options(&suite, 1).join(" "), two);
        assert_eq!(suite.entries[0].command, ["sh", "-c", "exit 0"]);
        assert_eq!(suite.entries[1].command, ["./x", "y"]);
        let rest: Vec<_> = suite.entries.iter().map(|entry| (entry.retries, entry.ignored)).collect();
        assert_eq!(rest, [(2, false), (0, true)]);
    }

    #[test]
    fn what_is_wrong_is_said_with_what_would_be_right() {
        let test = |lines: &str| format!("[[test]]\nname = 'x'\ncommand = 'true'\n{lines}\n");
        let table = [
            ("tests = []".to_owned(), "there is no key \"tests\"; test is one"),
            ("name = 'x'".to_owned(), "no tests; each is a table, [[test]]"),
            ("[[test]]\ncommand = 'x'".to_owned(), "test 1 has no name"),
            ("[[test]]\nname = 'x'".to_owned(), "test \"x\": it has no command"),
            ("[[test]]\nname = 'a\\nb'\ncommand = 'x'".replace('\'', "\""), "a name is a line"),
            (test("") + &test(""), "two tests are called \"x\""),
            (test("memroy = '1G'"), "there is no key \"memroy\"; memory is one"),
            (test("time-out = '1s'"), "timeout is one"),
            (test("memory = true"), "test \"x\": memory: write a size"),
            (test("stdout = 7"), "stdout: write"),
            (test("retries = -1"), "retries: write a number"),
            (test("stdin = 'x'\nstdin_file = 'y'"), "choose one"),
            (test("stdin_file = '/no/such'"), "cannot read /no/such"),
            ("[defaults]\ncommand = 'x'\n".to_owned() + &test(""), "[defaults]: there is no key \"command\""),
            ("[[test]\n".to_owned(), "line 1: "),
            (test("diff = true"), "test \"x\": diff means nothing in a suite: "),
            (test("keep = 'always'"), "keep means nothing in a suite: "),
            (test("keep_dir = 'kept'"), "--evidence says where"),
            ("[defaults]\nusage = true\n".to_owned() + &test(""), "[defaults]: usage means nothing in a suite: "),
            (test("keepdir = 'kept'"), "there is no key \"keepdir\"; "),
            (test("commit = ['.']\nstatus = 3"), "test \"x\": commit: only what a command with status 0"),
            ("[defaults]\ncommit = ['.']\n".to_owned() + &test("signal = 9"), "use copy_out"),
            (test("files = ['../a:b']"), "test \"x\": files: /place/../a:b has a colon"),
        ];
        for (text, words) in table {
            let error = parse(&text).expect_err(&text);
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
