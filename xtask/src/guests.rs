//! `cargo xtask guests`: fetches and builds the real guests that tests and benchmarks boot.
//!
//! Everything comes from Debian packages, or is compiled from sources of ours, and goes to a cache outside the source tree:
//! `$TRIVIUM_GUESTS`, else `$XDG_CACHE_HOME/trivium/guests`, else `~/.cache/trivium/guests`.
//! A test opens `<cache>/<guest>/<file>`:
//!
//! | guest | files | what it is |
//! |---|---|---|
//! | `cloud` | `vmlinuz` | Debian's 64-bit cloud kernel, of the reference guest |
//! | `initrd` | `initrd` | the reference guest's user space, 64-bit |
//! | `linux686` | `vmlinuz` | Debian's 32-bit kernel without PAE |
//! | `linux686pae` | `vmlinuz` | Debian's 32-bit kernel with PAE |
//! | `initrd386` | `initrd` | the same user space, 32-bit |
//! | `installer-amd64` | `linux`, `initrd.gz` | Debian's installer, text, 64-bit |
//! | `installer-i386` | `linux`, `initrd.gz` | Debian's installer, text, 32-bit |
//! | `memtest86+` | `memtest86+x64.bin`, `memtest86+ia32.bin` | memtest86+ as a Linux kernel |
//! | `u-boot` | `u-boot.rom`, `u-boot64.rom` | U-Boot as firmware |
//! | `xen` | `xen` | Xen, a Multiboot kernel |
//! | `invaders` | `invaders.exec` | GRUB invaders, a Multiboot kernel |
//! | `firmware-tools` | `initrd` | a user space that looks at SMBIOS and ACPI tables |
//! | `debian` | `initrd` | Debian with systemd and some programs, 64-bit; for benchmarks |
//! | `stress`, `stress386` | `initrd` | Debian with stress-ng and a compiler, 64-bit and 32-bit; for `cargo xtask stress` |
//! | `paths`, `paths386` | `initrd` | a program of ours that goes the kernel's paths |
//!
//! Beside them `guest.json` names the packages with their versions and the sizes of the files.
//! A guest whose `guest.json` fits its recipe and its files is complete and left alone; any other
//! is built in a temporary folder of the cache and renamed into place. What the user space prints
//! on the console is told in `guests/initrd/init.sh`.

mod apt;
mod cache;
mod catalogue;
mod cpio;
mod debian;
mod initrd;
mod program;
mod unpack;

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};
use clap::builder::PossibleValuesParser;
use indicatif::{ProgressBar, ProgressStyle};

use crate::interrupt;
use apt::Apt;
use cache::Cache;
use catalogue::{GUESTS, Guest, Recipe, Source};
pub use debian::KNOWN;

/// Arguments of `cargo xtask guests`.
#[derive(clap::Args)]
pub struct Args {
    /// Only list the guests, and which of them are present
    #[arg(long)]
    list: bool,
    /// The guests to fetch; all of them when none is named
    #[arg(value_parser = PossibleValuesParser::new(GUESTS.iter().map(|guest| guest.name)))]
    name: Vec<String>,
}

/// Lists or fetches the guests that `args` names.
pub fn run(args: &Args) -> Result<()> {
    let chosen: Vec<&Guest> = GUESTS.iter().filter(|guest| is_chosen(guest, &args.name)).collect();
    let cache = Cache::open()?;
    if args.list { list(&cache, &chosen) } else { fetch(&cache, &chosen) }
}

/// Fetches every guest that is not present yet, but for large ones; for the commands that boot them.
pub fn fetch_all() -> Result<()> {
    let wanted = GUESTS.iter().filter(|guest| !guest.is_on_demand());
    fetch(&Cache::open()?, &wanted.collect::<Vec<_>>())
}

/// Fetches one guest if it is not present yet.
pub fn fetch_one(name: &str) -> Result<()> {
    let wanted = GUESTS.iter().filter(|guest| guest.name == name);
    fetch(&Cache::open()?, &wanted.collect::<Vec<_>>())
}

/// Where `guest`'s `file` is, once fetched.
pub fn path(guest: &str, file: &str) -> Result<std::path::PathBuf> {
    Ok(Cache::open()?.guest(guest).join(file))
}

fn is_chosen(guest: &Guest, names: &[String]) -> bool {
    names.is_empty() || names.iter().any(|name| name == guest.name)
}

fn list(cache: &Cache, guests: &[&Guest]) -> Result<()> {
    println!("Guests in {}", cache.root().display());
    for guest in guests {
        let state = match cache.complete(guest) {
            Some(manifest) => manifest.packages.join(", "),
            None => "absent".into(),
        };
        println!("  {:16} {} ({state})", guest.name, guest.about);
    }
    Ok(())
}

fn fetch(cache: &Cache, guests: &[&Guest]) -> Result<()> {
    println!("Guests in {}", cache.root().display());
    let _lock = cache.lock()?;
    for guest in guests {
        interrupt::check()?;
        if cache.complete(guest).is_some() {
            println!("  {:16} present", guest.name);
            continue;
        }
        let start = Instant::now();
        let packages = build(cache, guest).with_context(|| format!("Guest {}", guest.name))?;
        let seconds = start.elapsed().as_secs_f64();
        println!("  {:16} built in {seconds:.1} s from {}", guest.name, packages.join(", "));
    }
    Ok(())
}

/// Builds one guest and puts it in place; returns its packages.
fn build(cache: &Cache, guest: &Guest) -> Result<Vec<String>> {
    let bar = progress(guest);
    let work = cache.temporary()?;
    let out = work.path().join("out");
    std::fs::create_dir(&out)?;
    let packages = make(cache, guest, work.path(), &out, &bar)?;
    bar.finish_and_clear();
    interrupt::check()?;
    cache.commit(guest, &out, packages)
}

/// Makes the files of `guest` in `out`, with `work` for what is needed on the way.
fn make(
    cache: &Cache,
    guest: &Guest,
    work: &Path,
    out: &Path,
    bar: &ProgressBar,
) -> Result<Vec<String>> {
    let parts = guest.parts();
    let init = match guest.recipe {
        Recipe::Program { source, width } => {
            bar.set_message("compiling");
            return program::build(source, width, work, out, &mut || bar.tick());
        }
        Recipe::Members { .. } | Recipe::Debian { .. } | Recipe::Stress { .. } => None,
        Recipe::Initrd { .. } => Some(initrd::INIT),
        Recipe::Tools { .. } => Some(initrd::TOOLS_INIT),
    };
    let tree = work.join("initrd");
    let to = match guest.recipe {
        Recipe::Members { .. } => out,
        _ => tree.as_path(),
    };
    let mut packages = Vec::new();
    for (index, (source, members)) in parts.iter().enumerate() {
        let folder = work.join(format!("package-{index}"));
        std::fs::create_dir(&folder)?;
        let (deb, package) = download(cache, source, &folder, bar)?;
        unpack::members(&deb, members, &folder, to, &mut || bar.tick())?;
        packages.push(package);
    }
    if let Some(what) = guest.tree() {
        bar.set_message("making the tree, which takes minutes");
        let program = tree.join("mmdebstrap");
        packages.extend(debian::build(what, &program, work, out, &mut || bar.tick())?);
    }
    if let Some(init) = init {
        let programs: Vec<_> = parts.iter().flat_map(|(_, members)| *members).collect();
        initrd::build(&tree, &programs, init, out)?;
    }
    Ok(packages)
}

/// Fetches the package that `source` means into `folder`; gives its archive and its name with its
/// version.
fn download(
    cache: &Cache,
    source: &Source,
    folder: &Path,
    bar: &ProgressBar,
) -> Result<(PathBuf, String)> {
    let apt = Apt::new(&cache.root().join(".apt"), source.arch)?;
    bar.set_message(format!("reading the {} package lists", source.arch));
    apt.update(&mut || bar.tick())?;
    let package = apt.resolve(source)?;
    bar.set_message(package.to_string());
    bar.set_length(package.size);
    let deb = apt.download(&package, folder, &mut |bytes| bar.set_position(bytes))?;
    bar.set_message(format!("unpacking {}", package.name));
    Ok((deb, package.to_string()))
}

/// A bar on standard error; hidden by indicatif when that is no terminal.
fn progress(guest: &Guest) -> ProgressBar {
    let template = "  {prefix:16} {bar:24} {bytes:>10}/{total_bytes:10} {msg}";
    let style = ProgressStyle::with_template(template).unwrap_or(ProgressStyle::default_bar());
    ProgressBar::new(1).with_style(style).with_prefix(guest.name)
}
