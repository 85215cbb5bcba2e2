// SPDX-License-Identifier: Apache-2.0
//! Where people keep what must never reach a guest: one table, relative to a home directory.
//!
//! The table is a second line. The first is that nothing of a home directory is shown unless something asks for it;
//! this one holds back what lies inside, or is, the path asked for. A volume (`-v`) is an explicit wish and is not
//! held against it.

use std::path::{Path, PathBuf};

/// Files and directories below a home directory that hold credentials or private history.
#[rustfmt::skip]
const KEPT: &[&str] = &[
    // keys
    ".ssh", ".gnupg", ".pki", ".putty", ".step", ".password-store", ".age", ".config/sops", ".config/age",
    ".local/share/keyrings", ".local/share/kwalletd", ".config/keepassxc", ".config/op", ".config/Bitwarden",
    // clouds and clusters
    ".aws", ".azure", ".kube", ".oci", ".ibmcloud", ".boto", ".s3cfg", ".config/gcloud", ".config/doctl",
    ".config/hcloud", ".config/flyctl", ".fly", ".config/heroku", ".config/netlify", ".wrangler", ".config/.wrangler",
    ".config/rclone", ".config/stripe", ".config/vercel", ".databrickscfg", ".terraform.d", ".terraformrc",
    ".vault-token", ".config/linode-cli", ".config/scw", ".config/exoscale", ".pulumi/credentials.json",
    // forges, registries, package managers
    ".git-credentials", ".config/git/credentials", ".config/gh", ".config/hub", ".config/glab-cli", ".netrc", ".authinfo",
    ".authinfo.gpg", ".docker", ".config/containers", ".npmrc", ".yarnrc", ".yarnrc.yml", ".config/configstore", ".pypirc",
    ".pip", ".config/pip", ".config/pypoetry", ".condarc", ".cargo/credentials", ".cargo/credentials.toml", ".gem/credentials",
    ".local/share/gem/credentials", ".m2/settings.xml", ".m2/settings-security.xml", ".gradle/gradle.properties",
    ".composer/auth.json", ".config/composer/auth.json", ".nuget/NuGet", ".config/NuGet", ".hex/hex.config", ".subversion",
    ".cabal/config", ".huggingface/token", ".cache/huggingface/token", ".kaggle", ".config/hatch", ".local/share/uv/credentials",
    // databases and mail
    ".pgpass", ".my.cnf", ".mylogin.cnf", ".mongorc.js", ".config/filezilla", ".msmtprc", ".mutt", ".thunderbird",
    // browsers, chats, wallets, assistants
    ".mozilla", ".config/google-chrome", ".config/chromium", ".config/BraveSoftware", ".config/Slack", ".config/discord",
    ".config/Signal", ".bitcoin", ".ethereum", ".electrum", ".claude", ".claude.json", ".codex", ".config/anthropic",
    ".config/github-copilot", ".config/openai",
    // histories: people type passwords
    ".bash_history", ".zsh_history", ".local/share/fish", ".python_history", ".node_repl_history", ".psql_history",
    ".mysql_history", ".lesshst", ".viminfo",
];

/// The table's entry that `path` is or is inside of.
pub(super) fn holding(home: &Path, path: &Path) -> Option<PathBuf> {
    all(home).find(|kept| path.starts_with(kept))
}

/// The table's entries that are inside `path`.
pub(super) fn inside(home: &Path, path: &Path) -> Vec<PathBuf> {
    all(home).filter(|kept| kept != path && kept.starts_with(path)).collect()
}

/// Kerberos tickets directly in a directory: they lie in `/tmp` (krb5.conf(5), `default_ccache_name`).
pub(super) fn tickets(directory: &Path) -> Vec<PathBuf> {
    let entries = directory.read_dir().into_iter().flatten().flatten();
    let mut tickets: Vec<PathBuf> = entries
        .filter(|entry| entry.file_name().as_encoded_bytes().starts_with(b"krb5cc"))
        .map(|entry| entry.path())
        .collect();
    tickets.sort();
    tickets
}

fn all(home: &Path) -> impl Iterator<Item = PathBuf> {
    KEPT.iter().map(move |kept| home.join(kept))
}

/// Whether a file is of those that are only shown without a secret in them: cargo's configuration.
pub(super) fn is_examined(path: &Path) -> bool {
    path.file_name().is_some_and(|file| file == "config.toml" || file == "config")
}

/// Whether a configuration file may hold a secret. One that cannot be read is taken to.
pub(super) fn in_text(path: &Path) -> bool {
    const WORDS: &[&str] = &["token", "password", "passwd", "secret", "_auth"];
    let Ok(text) = std::fs::read_to_string(path) else { return true };
    let text = text.to_ascii_lowercase();
    // The host part of a URL may carry a name and password before an `@`.
    let mut hosts = text.split("://").skip(1).filter_map(|rest| rest.split(['/', '"', '\'', ' ', '\n']).next());
    hosts.any(|host| host.contains('@')) || WORDS.iter().any(|word| text.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_in_a_kept_directory_is_found() {
        let home = Path::new("/home/u");
        assert_eq!(holding(home, Path::new("/home/u/.ssh/keys")), Some("/home/u/.ssh".into()));
        assert_eq!(holding(home, Path::new("/home/u/.sshfs")), None);
        assert_eq!(holding(home, Path::new("/home/v/.ssh")), None);
    }

    #[test]
    fn what_a_directory_would_give_away_is_listed() {
        let found = inside(Path::new("/home/u"), Path::new("/home/u/.cargo"));
        assert_eq!(found, [Path::new("/home/u/.cargo/credentials"), Path::new("/home/u/.cargo/credentials.toml")]);
    }

    #[test]
    fn the_table_is_relative_and_plain() {
        for kept in KEPT {
            assert!(Path::new(kept).components().all(|part| matches!(part, std::path::Component::Normal(_))), "{kept}");
        }
    }
}
