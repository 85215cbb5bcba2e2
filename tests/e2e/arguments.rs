// SPDX-License-Identifier: Apache-2.0
//! What the command is given: arguments, environment, user, directory. Bytes, not text.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use harness::{Case, Need};
use tests::Bench;

macro_rules! case {
    ($name:ident) => {
        Case { name: concat!("arguments::", stringify!($name)), needs: &[], body: $name }
    };
    ($name:ident, $($need:expr),+) => {
        Case { name: concat!("arguments::", stringify!($name)), needs: &[$($need),+], body: $name }
    };
}

pub(crate) const CASES: &[Case] = &[
    case!(odd_bytes_arrive_unchanged),
    case!(odd_environment_arrives_unchanged),
    case!(a_hundred_thousand_arguments),
    case!(the_longest_argument),
    case!(too_long_an_argument_is_refused_as_on_the_host),
    case!(environment_is_chosen),
    case!(user_is_the_callers, Need::Root),
    case!(workdir_and_umask_are_the_callers),
    case!(workdir_keeps_the_name_of_a_link),
    case!(volumes_are_where_they_should_be),
];

type Result = std::result::Result<(), String>;

fn odd() -> Vec<OsString> {
    let every: Vec<u8> = (1..=255).collect();
    [&b""[..], b" ", b"a,b=c", b"new\nline", b"\xff\xfe", b"--", b"-e", b"'\"\\$`*", &every]
        .iter()
        .map(|bytes| OsStr::from_bytes(bytes).to_owned())
        .collect()
}

fn odd_bytes_arrive_unchanged() -> Result {
    let mut words: Vec<OsString> = tests::words(["--", "printf", "%s\\0"]);
    words.extend(odd());
    let ran = Bench::new().run(words).wait();
    ran.expect(0, "exited");
    let expected: Vec<u8> = odd().iter().flat_map(|word| [word.as_bytes(), b"\0"].concat()).collect();
    assert_eq!(ran.stdout, expected);
    Ok(())
}

fn odd_environment_arrives_unchanged() -> Result {
    let mut words = Vec::new();
    for (number, value) in odd().into_iter().enumerate() {
        let mut entry = OsString::from(format!("V{number}="));
        entry.push(value);
        words.extend(["-e".into(), entry]);
    }
    words.extend(tests::words(["--", "env", "-0"]));
    let ran = Bench::new().run(words).wait();
    ran.expect(0, "exited");
    for (number, value) in odd().into_iter().enumerate() {
        let entry = [format!("V{number}=").as_bytes(), value.as_bytes()].concat();
        assert!(ran.stdout.split(|byte| *byte == 0).any(|line| line == entry), "V{number} is not there");
    }
    Ok(())
}

fn a_hundred_thousand_arguments() -> Result {
    let mut words: Vec<OsString> = tests::words(["--", "/bin/sh", "-c", "echo $# $1 ${100000}", "sh"]);
    words.extend((1..=100_000).map(|number| number.to_string().into()));
    Bench::new().run(words).wait().prints("100000 1 100000");
    Ok(())
}

/// Linux's limit for one string, its NUL byte included (execve(2), `MAX_ARG_STRLEN`).
const LONGEST: usize = 128 << 10;

fn the_longest_argument() -> Result {
    let mut words: Vec<OsString> = tests::words(["--", "sh", "-c", "echo ${#1}", "sh"]);
    words.push("x".repeat(LONGEST - 1).into());
    Bench::new().run(words).wait().prints(&(LONGEST - 1).to_string());
    Ok(())
}

/// The host refuses to start `sandbox` with such an argument, so the command makes it: the refusal is the same.
fn too_long_an_argument_is_refused_as_on_the_host() -> Result {
    let script =
        "import os\ntry: os.execv('/bin/true', ['true', 'x' * (1 << 20)])\nexcept OSError as e: print(e.errno)";
    let host = std::process::Command::new("/usr/bin/python3").args(["-c", script]).output();
    let host = String::from_utf8_lossy(&host.map_err(|error| error.to_string())?.stdout).trim().to_owned();
    assert_eq!(host, "7");
    Bench::new().run(["/usr/bin/python3", "-c", script]).wait().prints(&host);
    Ok(())
}

fn environment_is_chosen() -> Result {
    let bench = Bench::new();
    let call = bench.run(["-e", "PLAIN=1", "-e", "NAMED", "--", "env"]).env("NAMED", "2").env("API_TOKEN", "3");
    let ran = call.wait();
    ran.expect(0, "exited");
    let text = ran.text();
    let has = |line: &str| text.lines().any(|own| own == line);
    assert!(has("PLAIN=1") && has("NAMED=2") && !text.contains("API_TOKEN"), "{text}");
    assert!(has(&format!("PWD={}", bench.path().display())), "{text}");
    Ok(())
}

fn user_is_the_callers() -> Result {
    let bench = Bench::new();
    bench.run(["sh", "-c", "id -u; id -g"]).wait().prints("0\n0");
    bench.run(["-u", "1234:4321", "sh", "-c", "id -u; id -g; id -G"]).wait().prints("1234\n4321\n4321");
    bench.run(["-u", "nobody", "sh", "-c", "id -un; touch /usr/x 2>/dev/null || echo no"]).wait().prints("nobody\nno");
    Ok(())
}

fn workdir_and_umask_are_the_callers() -> Result {
    let bench = Bench::new();
    let here = bench.path().display().to_string();
    bench.shell("pwd -P; umask").wait().prints(&format!("{here}\n0022"));
    bench.run(["-w", "/usr/share", "pwd"]).wait().prints("/usr/share");
    Ok(())
}

/// As on the host: a shell believes a `PWD` that leads where it is.
fn workdir_keeps_the_name_of_a_link() -> Result {
    let bench = Bench::new();
    let (real, link) = (bench.path().join("real"), bench.path().join("link"));
    std::fs::create_dir(&real).map_err(|error| error.to_string())?;
    std::fs::write(real.join("file"), "content").map_err(|error| error.to_string())?;
    std::os::unix::fs::symlink("real", &link).map_err(|error| error.to_string())?;
    let in_link = |words: &[&str]| {
        let mut call = bench.run(words);
        call.command.current_dir(&link).env("PWD", &link);
        call.wait()
    };

    let script = "pwd; pwd -P; cat file ../link/file";
    in_link(&["--", "sh", "-c", script]).prints(&format!("{}\n{}\ncontentcontent", link.display(), real.display()));

    let names = link.display().to_string();
    in_link(&["-w", &names, "--", "sh", "-c", "pwd"]).prints(&names);
    let mut elsewhere = bench.run(["--", "pwd"]);
    elsewhere.command.current_dir(&real).env("PWD", "/usr");
    elsewhere.wait().prints(&real.display().to_string());
    Ok(())
}

fn volumes_are_where_they_should_be() -> Result {
    let (bench, data) = (Bench::new(), Bench::new());
    data.write("file", "content");
    let data = data.path().display();
    let (read_write, read_only) = (format!("{data}:/data"), format!("{data}:/frozen/here:ro"));
    let one_file = format!("{data}/file:/etc/motd:ro");
    let script = "cat /data/file; echo new > /data/new && cat /frozen/here/new; cat /etc/motd; \
                  echo x 2>/dev/null > /frozen/here/y || echo refused";
    let ran = bench.run(["-v", &read_write, "-v", &read_only, "-v", &one_file, "--", "sh", "-c", script]).wait();
    ran.prints("contentnew\ncontentrefused");
    assert_eq!(std::fs::read_to_string(format!("{data}/new")).map_err(|error| error.to_string())?, "new\n");
    Ok(())
}
