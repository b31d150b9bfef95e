//! The table of compiled loops, and how each becomes a ROM and a program of the host: the same
//! objects, linked to boot code here and to `boot/native.c` there.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use super::{Boot, Builder, C_FLAGS, NATIVE_LINK_FLAGS};

/// A loop in C and how it is compiled.
struct Loop {
    source: &'static str,
    group: &'static str,
    flags: &'static [&'static str],
}

const GENERAL: &[&str] = &["-O2", "-mgeneral-regs-only"];
/// Scalar floating point in SSE registers, also in 32-bit code.
const SCALAR: &[&str] = &["-O2", "-msse2", "-mfpmath=sse"];
/// Loops that the compiler is to make vectors of.
const SSE2: &[&str] = &["-O3", "-msse2", "-mfpmath=sse"];
const AVX: &[&str] = &["-O3", "-mavx", "-mfpmath=sse"];
const X87: &[&str] = &["-O2", "-mfpmath=387"];

const fn general(source: &'static str) -> Loop {
    Loop { source, group: "General", flags: GENERAL }
}

const fn vector(source: &'static str, flags: &'static [&'static str]) -> Loop {
    Loop { source, group: "Vector", flags }
}

const LOOPS: &[Loop] = &[
    general("sieve"),
    general("sort"),
    general("matrix"),
    general("crc"),
    general("sha"),
    general("compress"),
    general("switch"),
    general("list"),
    general("recursion"),
    general("string"),
    general("indirect"),
    general("bignum"),
    general("hash"),
    vector("nbody", SCALAR),
    vector("mandelbrot", SCALAR),
    vector("transform", SSE2),
    vector("blend", SSE2),
    vector("scan", SSE2),
    vector("wave", AVX),
    vector("extended", X87),
];

/// Of what width, and with which boot code.
struct Mode {
    suffix: &'static str,
    bits: u32,
    boot: Boot,
    frame: &'static str,
    flags: &'static [&'static str],
}

const MODES: &[Mode] = &[
    Mode {
        suffix: "",
        bits: 64,
        boot: Boot::Quiet,
        frame: "boot/measure.S",
        flags: &["-m64", "-DBITS=64"],
    },
    Mode {
        suffix: "-32",
        bits: 32,
        boot: Boot::Protected,
        frame: "boot/measure32.S",
        flags: &["-m32", "-march=i686", "-DBITS=32"],
    },
    Mode {
        suffix: "-large-pages",
        bits: 64,
        boot: Boot::LargePages,
        frame: "boot/measure.S",
        flags: &["-m64", "-DBITS=64"],
    },
];

/// The only loop that is also run with large pages.
const LARGE: &str = "hash";

/// What a line of the table needs besides the names of files.
const ROW: &str = "include_bytes!(concat!(env!(\"OUT_DIR\"), ";

impl Builder {
    /// Builds all loops and writes the table that `src/loops.rs` includes.
    pub fn build_loops(&self) {
        let mut table = String::from("&[\n");
        for mode in MODES {
            let boot = self.boot(mode.boot);
            let is_large = mode.boot == Boot::LargePages;
            for body in LOOPS.iter().filter(|body| !is_large || body.source == LARGE) {
                let name = format!("{}{}", body.source, mode.suffix);
                self.build_loop(&name, mode, &boot, body);
                let _ = writeln!(table, "{}", row(&name, mode, body));
            }
        }
        table.push_str("]\n");
        if let Err(error) = fs::write(self.out.join("loops.rs"), table) {
            super::fail(&format!("Cannot write the table of loops: {error}"));
        }
    }

    /// The ROM and the program of one loop.
    fn build_loop(&self, name: &str, mode: &Mode, boot: &[PathBuf], body: &Loop) {
        let rom = format!("loop-{name}");
        let title = format!("-DNAME=\"{name}\"");
        let with = |more: &[&'static str]| [mode.flags, more].concat();
        let source = format!("loops/{}.c", body.source);
        let common = [
            self.assemble(&source, &rom, &[C_FLAGS, &with(body.flags)].concat()),
            self.assemble("loops/memory.S", &format!("{rom}-memory"), mode.flags),
        ];
        let frame = [mode.flags, &[title.as_str()]].concat();
        let mut parts = vec![self.assemble(mode.frame, &format!("{rom}-main"), &frame)];
        if body.group == "Vector" {
            let flags = with(if body.is_avx() { &["-DAVX"] } else { &[] });
            parts.push(self.assemble("boot/units.S", &format!("{rom}-units"), &flags));
        }
        parts.extend(common.iter().cloned());
        self.link_mode(mode.flags[0], &rom, boot, &parts);

        let main = [C_FLAGS, &with(GENERAL), &[&title]].concat();
        let main = self.assemble("boot/native.c", &format!("{rom}-native"), &main);
        let mut command = self.command();
        command.arg(mode.flags[0]).args(NATIVE_LINK_FLAGS).arg(main).args(common);
        command.arg("-o").arg(self.out.join(format!("{rom}.elf")));
        super::run(command, name);
    }
}

impl Loop {
    fn is_avx(&self) -> bool {
        self.flags.contains(&"-mavx")
    }
}

/// The line of the table that `src/loops.rs` includes.
fn row(name: &str, mode: &Mode, body: &Loop) -> String {
    format!(
        "Loop {{ name: {name:?}, group: Group::{}, bits: {}, avx: {}, \
         rom: {ROW}\"/loop-{name}.bin\")), program: {ROW}\"/loop-{name}.elf\")) }},",
        body.group,
        mode.bits,
        body.is_avx()
    )
}
