// SPDX-License-Identifier: Apache-2.0
//! What a stored image says of itself, and the names that follow from it. Plain data; [`crate::Image`] checks it.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Which configuration a kernel was built with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Flavour {
    /// What every sandbox boots.
    Base,
    /// The same with KVM, for a guest that is itself a host of sandboxes.
    Nested,
}

impl Flavour {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Base, Self::Nested];

    /// As it is typed and stored.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Base => "base",
            Self::Nested => "nested",
        }
    }
}

impl fmt::Display for Flavour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Flavour {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|flavour| flavour.name() == text)
            .ok_or_else(|| format!("no kernel flavour is called {text:?}: there are base and nested"))
    }
}

/// What an image is to the guest that begins with it. There is at most one current image of each kind but templates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// An uncompressed Linux kernel.
    Kernel(Flavour),
    /// The archive with the guest's init.
    Initramfs,
    /// The memory of a guest that was frozen when it had booted, for clones to begin with.
    Template,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 4] =
        [Self::Kernel(Flavour::Base), Self::Kernel(Flavour::Nested), Self::Initramfs, Self::Template];

    /// What its directories' names begin with.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Kernel(_) => "kernel",
            Self::Initramfs => "initramfs",
            Self::Template => "template",
        }
    }

    /// The file in the directory.
    pub(crate) const fn file_name(self) -> &'static str {
        match self {
            Self::Kernel(_) => "vmlinux",
            Self::Initramfs => "initramfs.cpio",
            Self::Template => "memory",
        }
    }

    /// The pointer to the current one. Templates are found by what they were made from.
    pub(crate) fn pointer(self) -> Option<String> {
        match self {
            Self::Kernel(flavour) => Some(format!("current-kernel-{flavour}")),
            Self::Initramfs => Some("current-initramfs".to_owned()),
            Self::Template => None,
        }
    }

    /// The command that makes one.
    pub(crate) const fn remedy(self) -> &'static str {
        match self {
            Self::Kernel(Flavour::Base) => "images build kernel",
            Self::Kernel(Flavour::Nested) => "images build kernel --flavour nested",
            Self::Initramfs => "images build initramfs --init PATH",
            // the next run makes a new one
            Self::Template => "images gc",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kernel(flavour) => write!(f, "kernel of flavour {flavour}"),
            Self::Initramfs => f.write_str("initramfs"),
            Self::Template => f.write_str("template"),
        }
    }
}

/// What an image was made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Origin {
    /// A kernel.
    Kernel {
        /// Which configuration.
        flavour: Flavour,
        /// Version the source calls itself, as `uname -r` in the guest.
        version: String,
        /// Where the source came from.
        source: String,
        /// Digest of the configuration fragments.
        config_sha256: String,
        /// First line of the compiler's `--version`.
        compiler: String,
        /// Whether it was built with our edits to the source.
        #[serde(default)]
        edited: bool,
    },
    /// An initramfs.
    Initramfs {
        /// Version of the protocol its init speaks.
        protocol: u16,
        /// Digest of the init program.
        init_sha256: String,
    },
    /// A template: memory, in a form that is the engines' affair.
    Template {
        /// Digest of everything that took part in its boot.
        boot_sha256: String,
    },
}

/// The text beside an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Digest of the whole image.
    pub sha256: String,
    /// Its size in bytes.
    pub size: u64,
    /// When it was made, in seconds since 1970.
    pub created: u64,
    /// What it was made from.
    #[serde(flatten)]
    pub origin: Origin,
}

impl Manifest {
    /// What the image is.
    pub const fn kind(&self) -> Kind {
        match &self.origin {
            Origin::Kernel { flavour, .. } => Kind::Kernel(*flavour),
            Origin::Initramfs { .. } => Kind::Initramfs,
            Origin::Template { .. } => Kind::Template,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kernel() -> Manifest {
        Manifest {
            sha256: "ab".repeat(32),
            size: 17,
            created: 1_700_000_000,
            origin: Origin::Kernel {
                flavour: Flavour::Nested,
                version: "6.12.117".to_owned(),
                source: "linux-source-6.12.tar.xz".to_owned(),
                config_sha256: "cd".repeat(32),
                compiler: "gcc (Debian 12.2.0-14) 12.2.0".to_owned(),
                edited: true,
            },
        }
    }

    #[test]
    fn manifest_survives_the_round_trip() {
        let initramfs =
            Manifest { origin: Origin::Initramfs { protocol: 1, init_sha256: "ef".repeat(32) }, ..kernel() };
        let template = Manifest { origin: Origin::Template { boot_sha256: "01".repeat(32) }, ..kernel() };

        for manifest in [kernel(), initramfs, template] {
            let text = serde_json::to_string(&manifest).unwrap();
            assert_eq!(serde_json::from_str::<Manifest>(&text).unwrap(), manifest, "{text}");
        }
    }

    #[test]
    fn manifest_without_a_digest_is_refused() {
        let mut value = serde_json::to_value(kernel()).unwrap();
        value.as_object_mut().unwrap().remove("sha256");

        assert!(serde_json::from_value::<Manifest>(value).is_err());
    }

    #[test]
    fn flavour_names_are_read_back() {
        for flavour in Flavour::ALL {
            assert_eq!(flavour.name().parse(), Ok(flavour));
        }
        assert!("debug".parse::<Flavour>().unwrap_err().contains("debug"));
    }
}
