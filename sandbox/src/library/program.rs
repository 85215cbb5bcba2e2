// SPDX-License-Identifier: Apache-2.0
//! Where the `sandbox` program is, for a program that is another.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::Error;

/// The variable that says where the program is.
const VARIABLE: &str = "SANDBOX_BIN";

/// Its name in `PATH`.
const NAME: &str = "sandbox";

/// Finds it where `named` says, else the environment. It is asked for its version: another's processes would not
/// understand ours.
pub(crate) fn find(named: Option<&Path>) -> Result<PathBuf, Error> {
    let program = match named {
        Some(program) => program.to_owned(),
        None => match env::var_os(VARIABLE) {
            Some(program) => program.into(),
            None => in_path().ok_or(Error::NoProgram)?,
        },
    };
    let program = std::path::absolute(program).map_err(Error::Caller)?;
    let mut command = Command::new(&program);
    let said = command.arg("--version").env_clear().stdin(Stdio::null()).stderr(Stdio::null()).output();
    let expected = format!("{NAME} {}\n", env!("CARGO_PKG_VERSION"));
    match said {
        Ok(output) if output.stdout == expected.as_bytes() => Ok(program),
        Ok(output) => {
            let said = String::from_utf8_lossy(output.stdout.get(..60).unwrap_or(&output.stdout)).trim().to_owned();
            let found = format!("asked for its version it says {said:?} and not {:?}", expected.trim());
            Err(Error::Program { program, found })
        }
        Err(error) => Err(Error::Program { program, found: error.to_string() }),
    }
}

fn in_path() -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    let places = env::split_paths(&path).filter(|place| place.is_absolute());
    places.map(|place| place.join(NAME)).find(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_sandbox_is_refused_by_what_it_says() {
        let refusal = |program: &str| find(Some(Path::new(program))).expect_err("refused").to_string();
        assert!(refusal("/no/such/program").contains("No such file"), "{}", refusal("/no/such/program"));
        let other = refusal("/bin/echo");
        assert!(other.contains("\"--version\"") || other.contains("\"echo"), "{other}");
        assert!(other.contains("Builder::program or SANDBOX_BIN"), "{other}");
    }
}
