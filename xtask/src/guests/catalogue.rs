//! The table of guests: what each is, which package it comes from, which files it leaves.

use flate2::Crc;

use super::debian::{BENCH, STRESS, STRESS386, Tree};
use super::initrd::{INIT, TOOLS_INIT};

/// One guest of the cache.
#[derive(Debug)]
pub struct Guest {
    /// Its folder in the cache.
    pub name: &'static str,
    /// What it is, in a few words.
    pub about: &'static str,
    /// How it is made.
    pub recipe: Recipe,
}

/// A Debian package of an architecture.
#[derive(Debug)]
pub struct Source {
    /// Debian's name of the architecture: `amd64`, `i386`.
    pub arch: &'static str,
    /// The package, or a metapackage.
    pub package: &'static str,
    /// For a metapackage: what the name of the dependency that is wanted starts with.
    pub depends: Option<&'static str>,
}

/// A file of a package and the name that it gets in the cache.
#[derive(Debug)]
pub struct Member {
    /// Path in the package as `tar --wildcards` takes it.
    pub pattern: &'static str,
    /// Name in the guest's folder.
    pub file: &'static str,
}

/// How a guest is made from its package.
#[derive(Debug)]
pub enum Recipe {
    /// Files of the package as they are.
    Members {
        /// The package.
        source: Source,
        /// The files.
        members: &'static [Member],
    },
    /// A gzipped cpio archive with busybox and our `/init`.
    Initrd {
        /// The package with a static busybox.
        source: Source,
    },
    /// The same with other programs, and an `/init` that runs them.
    Tools {
        /// Packages, and the files that go into the archive under their names.
        parts: &'static [Part],
    },
    /// A whole tree of Debian as a cpio archive, for benchmarks.
    Debian {
        /// The package of the program that makes it.
        source: Source,
    },
    /// The same for a guest under load.
    Stress {
        /// The package of the program that makes it.
        source: Source,
        /// Debian's name of the guest's architecture.
        arch: &'static str,
    },
    /// A gzipped cpio archive with nothing but an `/init` of our own, a static program in C.
    Program {
        /// Its source.
        source: &'static str,
        /// For what width it is compiled: `-m64`, `-m32`.
        width: &'static str,
    },
}

/// A package and the files that are taken from it.
#[derive(Debug)]
pub struct Part {
    /// The package.
    pub source: Source,
    /// The files.
    pub members: &'static [Member],
}

/// The file of a package with a static busybox.
const BUSYBOX: &[Member] = &[Member { pattern: "./bin/busybox", file: "bin/busybox" }];

const MMDEBSTRAP: &[Member] = &[Member { pattern: "./usr/bin/mmdebstrap", file: "mmdebstrap" }];

impl Guest {
    /// Whether it is large and only benchmarks want it.
    pub fn is_on_demand(&self) -> bool {
        self.tree().is_some()
    }

    /// What a tree of Debian is made from.
    pub fn tree(&self) -> Option<&'static Tree> {
        match self.recipe {
            Recipe::Debian { .. } => Some(&BENCH),
            Recipe::Stress { arch: "i386", .. } => Some(&STRESS386),
            Recipe::Stress { .. } => Some(&STRESS),
            _ => None,
        }
    }

    /// The packages that the guest is made from, and what is taken from each.
    pub fn parts(&self) -> Vec<(&Source, &'static [Member])> {
        match &self.recipe {
            Recipe::Members { source, members } => vec![(source, members)],
            Recipe::Initrd { source } => vec![(source, BUSYBOX)],
            Recipe::Tools { parts } => {
                parts.iter().map(|part| (&part.source, part.members)).collect()
            }
            Recipe::Debian { source } | Recipe::Stress { source, .. } => {
                vec![(source, MMDEBSTRAP)]
            }
            Recipe::Program { .. } => Vec::new(),
        }
    }

    /// The files that the guest leaves in its folder.
    pub fn files(&self) -> Vec<&'static str> {
        match &self.recipe {
            Recipe::Members { members, .. } => members.iter().map(|member| member.file).collect(),
            _ => vec!["initrd"],
        }
    }

    /// Changes when the recipe does, so that a guest of an older recipe is built again.
    pub fn fingerprint(&self) -> u32 {
        let mut crc = Crc::new();
        crc.update(format!("{:?}", self.recipe).as_bytes());
        let init = match self.recipe {
            Recipe::Members { .. } | Recipe::Program { .. } => return crc.sum(),
            Recipe::Initrd { .. } => INIT,
            Recipe::Tools { .. } => TOOLS_INIT,
            Recipe::Debian { .. } | Recipe::Stress { .. } => {
                let tree = self.tree().unwrap_or(&BENCH);
                crc.update(tree.packages.join(" ").as_bytes());
                for (_, content) in tree.files.iter().skip(1) {
                    crc.update(content.as_bytes());
                }
                tree.files.first().map_or("", |(_, content)| content)
            }
        };
        crc.update(init.as_bytes());
        crc.update(super::initrd::APPLETS.join(" ").as_bytes());
        crc.sum()
    }
}

/// Goes the kernel's paths.
const PATHS: &str = include_str!("../../../bench/guest/paths.c");

const VMLINUZ: &[Member] = &[Member { pattern: "./boot/vmlinuz-*", file: "vmlinuz" }];

const fn kernel(arch: &'static str, package: &'static str) -> Recipe {
    let source = Source { arch, package, depends: Some("linux-image-") };
    Recipe::Members { source, members: VMLINUZ }
}

const fn plain(arch: &'static str, package: &'static str) -> Source {
    Source { arch, package, depends: None }
}

/// Every guest, in the order in which they are fetched.
pub const GUESTS: &[Guest] = &[
    Guest {
        name: "cloud",
        about: "Debian's 64-bit cloud kernel",
        recipe: kernel("amd64", "linux-image-cloud-amd64"),
    },
    Guest {
        name: "initrd",
        about: "user space of the reference guest, 64-bit",
        recipe: Recipe::Initrd { source: plain("amd64", "busybox-static") },
    },
    Guest {
        name: "linux686",
        about: "Debian's 32-bit kernel without PAE",
        recipe: kernel("i386", "linux-image-686"),
    },
    Guest {
        name: "linux686pae",
        about: "Debian's 32-bit kernel with PAE",
        recipe: kernel("i386", "linux-image-686-pae"),
    },
    Guest {
        name: "initrd386",
        about: "user space of the reference guest, 32-bit",
        recipe: Recipe::Initrd { source: plain("i386", "busybox-static") },
    },
    Guest {
        name: "installer-amd64",
        about: "Debian's installer, text, 64-bit",
        recipe: Recipe::Members {
            source: plain("amd64", "debian-installer-12-netboot-amd64"),
            members: &[
                Member {
                    pattern: "./usr/lib/debian-installer/images/12/amd64/text/debian-installer/amd64/linux",
                    file: "linux",
                },
                Member {
                    pattern: "./usr/lib/debian-installer/images/12/amd64/text/debian-installer/amd64/initrd.gz",
                    file: "initrd.gz",
                },
            ],
        },
    },
    Guest {
        name: "installer-i386",
        about: "Debian's installer, text, 32-bit",
        recipe: Recipe::Members {
            source: plain("i386", "debian-installer-12-netboot-i386"),
            members: &[
                Member {
                    pattern: "./usr/lib/debian-installer/images/12/i386/text/debian-installer/i386/linux",
                    file: "linux",
                },
                Member {
                    pattern: "./usr/lib/debian-installer/images/12/i386/text/debian-installer/i386/initrd.gz",
                    file: "initrd.gz",
                },
            ],
        },
    },
    Guest {
        name: "memtest86+",
        about: "memtest86+ as a Linux kernel, 64- and 32-bit",
        recipe: Recipe::Members {
            source: plain("amd64", "memtest86+"),
            members: &[
                Member { pattern: "./boot/memtest86+x64.bin", file: "memtest86+x64.bin" },
                Member { pattern: "./boot/memtest86+ia32.bin", file: "memtest86+ia32.bin" },
            ],
        },
    },
    Guest {
        name: "u-boot",
        about: "U-Boot as firmware, 32-bit and 64-bit",
        recipe: Recipe::Members {
            source: plain("amd64", "u-boot-qemu"),
            members: &[
                Member { pattern: "./usr/lib/u-boot/qemu-x86/u-boot.rom", file: "u-boot.rom" },
                Member { pattern: "./usr/lib/u-boot/qemu-x86_64/u-boot.rom", file: "u-boot64.rom" },
            ],
        },
    },
    Guest {
        name: "xen",
        about: "Xen, a Multiboot kernel",
        recipe: Recipe::Members {
            source: plain("amd64", "xen-hypervisor-4.17-amd64"),
            members: &[Member { pattern: "./boot/xen-4.17-amd64.gz", file: "xen" }],
        },
    },
    Guest {
        name: "invaders",
        about: "GRUB invaders, a Multiboot kernel",
        recipe: Recipe::Members {
            source: plain("amd64", "grub-invaders"),
            members: &[Member { pattern: "./boot/invaders.exec", file: "invaders.exec" }],
        },
    },
    Guest {
        name: "paths",
        about: "a program that goes the kernel's paths, 64-bit",
        recipe: Recipe::Program { source: PATHS, width: "-m64" },
    },
    Guest {
        name: "paths386",
        about: "a program that goes the kernel's paths, 32-bit",
        recipe: Recipe::Program { source: PATHS, width: "-m32" },
    },
    Guest {
        name: "debian",
        about: "Debian with systemd, a compiler, Python, SQLite and OpenSSL, 64-bit",
        recipe: Recipe::Debian { source: plain("amd64", "mmdebstrap") },
    },
    Guest {
        name: "stress",
        about: "Debian with stress-ng and a compiler, 64-bit",
        recipe: Recipe::Stress { source: plain("amd64", "mmdebstrap"), arch: "amd64" },
    },
    Guest {
        name: "stress386",
        about: "Debian with stress-ng and a compiler, 32-bit",
        recipe: Recipe::Stress { source: plain("amd64", "mmdebstrap"), arch: "i386" },
    },
    Guest {
        name: "firmware-tools",
        about: "user space that looks at SMBIOS and ACPI tables, 64-bit",
        recipe: Recipe::Tools {
            parts: &[
                Part { source: plain("amd64", "busybox-static"), members: BUSYBOX },
                Part {
                    source: plain("amd64", "dmidecode"),
                    members: &[Member { pattern: "./usr/sbin/dmidecode", file: "bin/dmidecode" }],
                },
                Part {
                    source: plain("amd64", "acpica-tools"),
                    members: &[Member { pattern: "./usr/bin/acpidump", file: "bin/acpidump" }],
                },
                Part {
                    source: plain("amd64", "libc6"),
                    members: &[
                        Member {
                            pattern: "./lib/x86_64-linux-gnu/libc.so.6",
                            file: "lib/x86_64-linux-gnu/libc.so.6",
                        },
                        Member {
                            pattern: "./lib/x86_64-linux-gnu/ld-linux-x86-64.so.2",
                            file: "lib64/ld-linux-x86-64.so.2",
                        },
                    ],
                },
            ],
        },
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_fingerprints_are_unique() {
        let mut names: Vec<_> = GUESTS.iter().map(|guest| guest.name).collect();
        let mut prints: Vec<_> = GUESTS.iter().map(Guest::fingerprint).collect();
        names.sort_unstable();
        prints.sort_unstable();
        names.dedup();
        prints.dedup();
        assert_eq!((names.len(), prints.len()), (GUESTS.len(), GUESTS.len()));
    }
}
