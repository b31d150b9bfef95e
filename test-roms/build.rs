//! Builds the guest programs with the C compiler, used as assembler and linker; `loops/` is C.
//!
//! Each program becomes `OUT_DIR/<name>.bin`, a 64 KiB ROM image laid out by `boot/rom.ld`; the
//! self-tests in `suite/` are of 128 KiB, laid out by `suite/suite.ld`. The kernels in `multiboot/`
//! become ELF files.

#[path = "loops/build.rs"]
mod loops;

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, exit};

/// Boot code that is written for one mode.
const BOOT: &[&str] =
    &["reset", "real", "clock", "protected", "paging", "long", "start", "map", "interrupts"];
/// The same for a program in 32-bit code.
const BOOT_PROTECTED: &[&str] = &["reset", "real", "clock", "protected", "paged"];
/// Boot code that is assembled once for each mode.
const BOOT_EACH_MODE: &[&str] = &["serial", "steps", "power"];

const DEMO: &[&str] = &["demo", "timer", "faults", "user", "primes", "mandelbrot", "sort"];

/// A little of everything.
const VARIETY: &[&str] = &["variety", "integers", "addresses", "floats", "faults", "code"];

const MICRO: &[&str] = &[
    "alu",
    "multiply",
    "branches",
    "load-64k",
    "store-64k",
    "load-16m",
    "store-16m",
    "push-pop",
    "call-ret",
    "rep-movsb",
    "rep-stosq",
    "lodsb",
    "x87",
    "sse-float",
    "sse-double",
    "sse-integer",
    "page-fault",
    "syscall",
    "interrupt",
    "port",
];

/// Accesses to devices, and interrupts from them.
const ACCESSES: &[&str] = &[
    "port-read",
    "port-write",
    "pic-read",
    "pic-write",
    "ioapic-read",
    "ioapic-write",
    "hpet-read",
    "apic-read",
    "apic-write",
    "apic-interrupt",
    "pic-interrupt",
];

/// The self-tests: a ROM for each chapter of the processor's manual, and for each chip. The library
/// has its list from here.
const SUITE: &[&str] = &[
    "segmentation",
    "protection",
    "paging",
    "interrupts",
    "tasks",
    "syscalls",
    "v86",
    "registers",
    "debug",
    "x87",
    "sse",
    "smm",
    "virtualization",
    "pic",
    "pit",
    "lapic",
    "ioapic",
    "hpet",
    "rtc",
    "uart",
    "ports",
    "ps2",
    "dma",
    "fwcfg",
    "pci",
    "acpi",
];
/// What every self-test needs.
const SUITE_FRAMEWORK: &[&str] = &["boot.S", "enter.S", "tap.c", "world.c", "space.c", "chip.c"];

/// Kernels that print what a Multiboot loader tells them: version, and what its code is told.
const MULTIBOOT: &[(&str, &[&str])] = &[("multiboot1", &[]), ("multiboot2", &["-DMULTIBOOT2"])];

/// The self-tests are 32-bit code that any processor from the 80486 on runs.
const SUITE_FLAGS: &[&str] = &[
    "-m32",
    "-march=i386",
    "-std=gnu11",
    "-Os",
    "-ffreestanding",
    "-fno-pic",
    "-fno-stack-protector",
    "-fno-asynchronous-unwind-tables",
    "-fno-strict-aliasing",
    "-fno-delete-null-pointer-checks",
    "-fcf-protection=none",
    "-mgeneral-regs-only",
    "-masm=intel",
];

/// Free-standing C: no library, nothing below the stack pointer, floating point as the source has
/// it.
const C_FLAGS: &[&str] = &[
    "-std=gnu11",
    "-ffreestanding",
    "-ffp-contract=off",
    "-fno-math-errno",
    "-fno-pic",
    "-fno-stack-protector",
    "-fno-asynchronous-unwind-tables",
    "-fcf-protection=none",
    "-mno-red-zone",
];

const LINK_FLAGS: &[&str] = &[
    "-nostdlib",
    "-static",
    "-no-pie",
    "-Wl,--oformat=binary",
    "-Wl,--build-id=none",
    "-Wl,-z,noexecstack",
];

/// For programs of the host.
const NATIVE_LINK_FLAGS: &[&str] =
    &["-nostdlib", "-static", "-no-pie", "-Wl,--build-id=none", "-Wl,-z,noexecstack"];

const ELF_LINK_FLAGS: &[&str] =
    &["-nostdlib", "-static", "-no-pie", "-Wl,--build-id=none", "-Wl,-z,noexecstack", "-Wl,-n"];

/// How the boot code of a ROM is made.
#[derive(Clone, Copy, PartialEq)]
enum Boot {
    /// Says what it does.
    Narrated,
    /// Says nothing, and leaves timers and interrupt controllers alone.
    Quiet,
    /// Quiet, and maps memory with 2 MiB pages instead of 4 KiB pages.
    LargePages,
    /// Quiet, and stays in 32-bit protected mode, with paging.
    Protected,
}

impl Boot {
    fn defines(self) -> &'static [&'static str] {
        match self {
            Boot::Narrated => &["-DNARRATE"],
            Boot::Quiet => &[],
            Boot::Protected => &["-m32"],
            Boot::LargePages => &["-DLARGE_PAGES"],
        }
    }
}

struct Builder {
    compiler: Vec<String>,
    source: PathBuf,
    out: PathBuf,
}

fn main() {
    println!("cargo::rerun-if-env-changed=CC");
    for folder in ["accesses", "boot", "demo", "loops", "micro", "multiboot", "suite", "variety"] {
        println!("cargo::rerun-if-changed={folder}");
    }
    let builder = Builder::from_env();
    builder.build_all();
}

impl Builder {
    fn from_env() -> Self {
        let cc = env::var("CC").unwrap_or_default();
        let mut compiler: Vec<String> = cc.split_whitespace().map(str::to_owned).collect();
        if compiler.is_empty() {
            compiler.push("cc".to_owned());
        }
        Self {
            compiler,
            source: path_from_env("CARGO_MANIFEST_DIR"),
            out: path_from_env("OUT_DIR"),
        }
    }

    fn build_all(&self) {
        let narrated = self.boot(Boot::Narrated);
        let quiet = self.boot(Boot::Quiet);

        let demo = DEMO.iter().map(|name| {
            self.assemble(&format!("demo/{name}.S"), &format!("demo-{name}"), &["-DNARRATE"])
        });
        self.link("demo", &narrated, demo.collect());

        let variety = VARIETY.iter().map(|name| {
            let source = format!("variety/{name}.S");
            self.assemble(&source, &format!("variety-{name}"), &[])
        });
        self.link("variety", &quiet, variety.collect());
        let hot = self.assemble("variety/hot.S", "variety-hot", &[]);
        self.link("hot", &quiet, vec![hot]);
        let segments = self.assemble("variety/segments.S", "variety-segments", &[]);
        let reset = self.assemble("boot/reset.S", "segments-reset", &[]);
        self.link("segments", &[reset], vec![segments]);

        self.build_loops();
        for (folder, names) in [("micro", MICRO), ("accesses", ACCESSES)] {
            for name in names {
                let rom = format!("{folder}-{name}");
                let body = self.assemble(&format!("{folder}/{name}.S"), &rom, &[]);
                self.link(&rom, &quiet, vec![self.frame(name), body]);
            }
        }
        let framework: Vec<PathBuf> =
            SUITE_FRAMEWORK.iter().map(|f| self.suite_object(f)).collect();
        for name in SUITE {
            let chapter = self.suite_object(&format!("{name}.c"));
            self.link_suite(name, &framework, &chapter);
        }
        self.list_suite();
        for &(name, defines) in MULTIBOOT {
            self.build_multiboot(name, defines);
        }
    }

    /// A kernel, as an ELF file.
    fn build_multiboot(&self, name: &str, defines: &[&str]) {
        let flags = [SUITE_FLAGS, defines].concat();
        let part = |file: &str| {
            let object = format!("{name}-{file}");
            self.assemble(&format!("multiboot/{file}"), &object, &flags)
        };
        let objects = [part("start.S"), part("report.c"), part(&format!("{name}.c"))];
        let mut script = std::ffi::OsString::from("-Wl,-T,");
        script.push(self.source.join("multiboot/kernel.ld"));
        let mut command = self.command();
        command.arg("-m32").args(ELF_LINK_FLAGS).arg(script).args(objects);
        command.arg("-o").arg(self.out.join(format!("{name}.elf")));
        run(command, name);
    }

    fn suite_object(&self, file: &str) -> PathBuf {
        self.assemble(&format!("suite/{file}"), &format!("suite-{file}"), SUITE_FLAGS)
    }

    fn link_suite(&self, name: &str, framework: &[PathBuf], chapter: &Path) {
        let image = self.out.join(format!("suite-{name}.bin"));
        let mut script = std::ffi::OsString::from("-Wl,-T,");
        script.push(self.source.join("suite/suite.ld"));
        let mut command = self.command();
        command.arg("-m32").args(LINK_FLAGS).arg(script).args(framework).arg(chapter);
        command.arg("-o").arg(&image);
        run(command, name);
        check_size(&image, 128 * 1024);
    }

    /// The list of self-tests, name and image, as the library includes it.
    fn list_suite(&self) {
        let chapter = |name| {
            let image = self.out.join(format!("suite-{name}.bin"));
            format!("({name:?}, include_bytes!({:?})),\n", image.display().to_string())
        };
        let list: String = SUITE.iter().map(chapter).collect();
        let path = self.out.join("suite.rs");
        if let Err(error) = fs::write(&path, format!("&[\n{list}]\n")) {
            fail(&format!("Cannot write {}: {error}", path.display()));
        }
    }

    /// The boot code, as objects.
    fn boot(&self, boot: Boot) -> Vec<PathBuf> {
        let flavour = match boot {
            Boot::Narrated => "narrated",
            Boot::Quiet => "quiet",
            Boot::LargePages => "large",
            Boot::Protected => "protected",
        };
        let (files, modes): (_, &[&str]) = match boot {
            Boot::Protected => (BOOT_PROTECTED, &["16", "32"]),
            _ => (BOOT, &["16", "32", "64"]),
        };
        let mut objects: Vec<PathBuf> = files
            .iter()
            .map(|name| {
                let object = format!("{flavour}-{name}");
                self.assemble(&format!("boot/{name}.S"), &object, boot.defines())
            })
            .collect();
        for name in BOOT_EACH_MODE {
            for mode in modes {
                let bits = format!("-DBITS={mode}");
                let defines = [boot.defines(), &[bits.as_str()]].concat();
                let object = format!("{flavour}-{name}{mode}");
                objects.push(self.assemble(&format!("boot/{name}.S"), &object, &defines));
            }
        }
        objects
    }

    /// The benchmarks' main program, which prints the markers around the part that counts.
    fn frame(&self, title: &str) -> PathBuf {
        let define = format!("-DNAME=\"{title}\"");
        self.assemble("boot/measure.S", &format!("main-{title}"), &[&define])
    }

    fn assemble(&self, source: &str, object: &str, defines: &[&str]) -> PathBuf {
        let object = self.out.join(format!("{object}.o"));
        let mut command = self.command();
        command.arg("-I").arg(self.source.join("boot")).args(defines);
        command.arg("-c").arg(self.source.join(source)).arg("-o").arg(&object);
        run(command, source);
        object
    }

    fn link(&self, name: &str, boot: &[PathBuf], program: Vec<PathBuf>) {
        self.link_mode("-m64", name, boot, &program);
    }

    fn link_mode(&self, width: &str, name: &str, boot: &[PathBuf], program: &[PathBuf]) {
        let image = self.out.join(format!("{name}.bin"));
        let mut script = std::ffi::OsString::from("-Wl,-T,");
        script.push(self.source.join("boot/rom.ld"));
        let mut command = self.command();
        command
            .arg(width)
            .args(LINK_FLAGS)
            .arg(script)
            .args(boot)
            .args(program)
            .arg("-o")
            .arg(&image);
        run(command, name);
        check_size(&image, 64 * 1024);
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.compiler[0]);
        command.args(&self.compiler[1..]);
        command
    }
}

/// Runs the compiler; without one, or when it fails, says so in one line and ends the build.
fn run(mut command: Command, what: &str) {
    let program = command.get_program().to_owned();
    match command.output() {
        Ok(output) if output.status.success() => {}
        Ok(output) => fail(&format!(
            "{} could not build the guest program {what}; it must be a gcc or clang for x86-64 \
             (set CC to name one):\n{}",
            program.display(),
            String::from_utf8_lossy(&output.stderr)
        )),
        Err(error) => fail(&no_compiler(&program, &error)),
    }
}

fn no_compiler(program: &OsStr, error: &std::io::Error) -> String {
    format!(
        "The guest programs need a C compiler, and {} cannot be run ({error}); \
         install gcc or clang, or set CC to name one",
        program.display()
    )
}

fn check_size(image: &Path, size: u64) {
    match fs::metadata(image) {
        Ok(data) if data.len() == size => {}
        Ok(data) => {
            fail(&format!("{} has {} bytes, not {size}", image.display(), data.len()));
        }
        Err(error) => fail(&format!("{} was not written: {error}", image.display())),
    }
}

fn path_from_env(name: &str) -> PathBuf {
    match env::var_os(name) {
        Some(path) => PathBuf::from(path),
        None => fail(&format!("{name} is not set: run this through cargo")),
    }
}

fn fail(message: &str) -> ! {
    println!("cargo::error={}", message.lines().next().unwrap_or_default());
    for line in message.lines().skip(1) {
        println!("cargo::warning={line}");
    }
    exit(1)
}
