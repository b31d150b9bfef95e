//! Guest programs of our own: ROM images built from `boot/`, `demo/`, `variety/`, `loops/`,
//! `micro/` and `accesses/`, and the self-tests in `suite/`. Besides, kernels in `multiboot/` for whoever loads such.
//!
//! Each image is 64 KiB (a self-test's 128 KiB), belongs at the end of the first 4 GiB and must also be visible at F0000h,
//! as a PC's BIOS is. It starts at the reset vector, prints on COM1 (115,200 baud), and switches the
//! machine off through the PIIX4's power management. All but two need 16 MiB of RAM or more, the
//! benchmarks `load-16m` and `store-16m` 32 MiB.
//!
//! A benchmark prints, with interrupts off, in 64-bit code (some loops in 32-bit code):
//!
//! ```text
//! loop NAME start
//! loop NAME tsc TICKS            TSC ticks in between, 16 hexadecimal digits
//! loop NAME done CHECKSUM        16 hexadecimal digits
//! ```
//!
//! and before the last line `loop NAME wrong: not EXPECTED` if the checksum is not what it must be.

#![forbid(unsafe_code)]

mod loops;

pub use loops::{Group, LOOPS, Loop};

/// Size of every image in bytes.
pub const IMAGE_SIZE: usize = 64 * 1024;

/// Where the build script puts the figure in an image: a little-endian 64-bit number.
const INSTRUCTIONS_OFFSET: usize = IMAGE_SIZE - 32;

/// Shows a PC's way from the first instruction to long mode and says what each step costs; then
/// does some work (primes, sorting, a Mandelbrot set as text) and switches off.
///
/// About 65 million instructions, and 10 ms asleep.
pub static DEMO: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/demo.bin"));

/// Executes a little of everything in ring 3, 2,000 times, with operands for which an instruction that
/// is nearly right shows, and switches off. About 20 million instructions.
pub static VARIETY: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/variety.bin"));

/// Loops in ring 0 that run long enough for a translator to make the most of them, and changes of all
/// that it may rely on. Without an end.
pub static HOT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/hot.bin"));

/// Loops in real mode with what segments are made of, long enough to be translated. Without an end.
pub static SEGMENTS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/segments.bin"));

macro_rules! image {
    ($kind:literal, $name:literal) => {
        include_bytes!(concat!(env!("OUT_DIR"), "/", $kind, "-", $name, ".bin"))
    };
}

macro_rules! micro {
    ($($name:literal),* $(,)?) => {
        &[$(($name, image!("micro", $name), instructions(image!("micro", $name)))),*]
    };
}

/// Benchmarks of one kind of instruction each: name, image, and the number of instructions between
/// the markers, without those that print them. Repeated string instructions count once for each
/// repetition, faulting ones when they complete.
pub static MICRO: &[(&str, &[u8], u64)] = micro![
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

macro_rules! accesses {
    ($($name:literal),* $(,)?) => {
        &[$(($name, image!("accesses", $name), instructions(image!("accesses", $name)))),*]
    };
}

/// Benchmarks of accesses to devices, and of interrupts: name, image, and how many there are of
/// them between the markers.
pub static ACCESSES: &[(&str, &[u8], u64)] = accesses![
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

/// Self-tests of a PC, one for each chapter of the processor's manual and one for each chip: name and
/// image, of 128 KiB.
///
/// Each runs on any processor from the 80486 on and needs 16 MiB of RAM. It reports on COM1 in TAP
/// version 13, a line for each check with its citation, and ends by writing 0 to isa-debug-exit at
/// port 501h, or 1 if a check failed. What the processor lacks by CPUID is skipped.
pub static SUITE: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/suite.rs"));

/// Kernels in ELF that print on COM1 what a Multiboot loader tells them, for Multiboot 1 and
/// Multiboot2; then they write 0 to isa-debug-exit at port 501h.
pub static MULTIBOOT: [&[u8]; 2] = [
    include_bytes!(concat!(env!("OUT_DIR"), "/multiboot1.elf")),
    include_bytes!(concat!(env!("OUT_DIR"), "/multiboot2.elf")),
];

/// The figure that a micro-benchmark's image carries.
const fn instructions(image: &[u8; IMAGE_SIZE]) -> u64 {
    let mut bytes = [0; 8];
    let mut i = 0;
    while i < bytes.len() {
        bytes[i] = image[INSTRUCTIONS_OFFSET + i];
        i += 1;
    }
    u64::from_le_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Offset in the image of the first instruction, 16 bytes below 4 GiB (SDM vol. 3A 10.1.4).
    const RESET_VECTOR: usize = 0xFFF0;

    fn images() -> Vec<(&'static str, &'static [u8])> {
        let mut images = vec![("demo", DEMO), ("variety", VARIETY), ("hot", HOT)];
        images.extend(LOOPS.iter().map(|body| (body.name, body.rom)));
        images.extend(MICRO.iter().chain(ACCESSES).map(|&(name, image, _)| (name, image)));
        images
    }

    fn contains(image: &[u8], text: &str) -> bool {
        image.windows(text.len()).any(|window| window == text.as_bytes())
    }

    /// The offset in segment F000h to which the far jump at the reset vector goes.
    fn jump_target(image: &[u8]) -> usize {
        let jump = &image[RESET_VECTOR..];
        assert_eq!(jump[0], 0xEA, "JMP ptr16:16");
        assert_eq!(u16::from_le_bytes([jump[3], jump[4]]), 0xF000, "segment of the view at F0000h");
        usize::from(u16::from_le_bytes([jump[1], jump[2]]))
    }

    #[test]
    fn an_image_is_64_kib() {
        for (name, image) in images() {
            assert_eq!(image.len(), IMAGE_SIZE, "{name}");
        }
    }

    #[test]
    fn a_self_test_ends_with_its_reset_vector_and_name() {
        for (name, image) in SUITE {
            assert_eq!(image.len(), 2 * IMAGE_SIZE, "{name}");
            assert_eq!(jump_target(&image[IMAGE_SIZE..]), 0xF000, "{name}");
            assert!(image.ends_with(b"TRIVIUM ROM"), "{name}");
        }
    }

    #[test]
    fn the_reset_vector_jumps_to_code_that_turns_interrupts_off() {
        for (name, image) in images() {
            let target = jump_target(image);
            assert_eq!(image[target..target + 2], [0xFA, 0xFC], "{name}: CLI, CLD");
        }
    }

    #[test]
    fn the_image_ends_with_its_name() {
        for (name, image) in images() {
            assert!(image.ends_with(b"TRIVIUM ROM"), "{name}");
        }
    }

    #[test]
    fn a_loop_is_also_a_program_of_its_width() {
        for Loop { name, bits, program, .. } in LOOPS {
            // ELF header: EI_CLASS is 1 for 32-bit objects, 2 for 64-bit objects.
            let class = if *bits == 32 { 1 } else { 2 };
            assert!(program.starts_with(&[0x7F, b'E', b'L', b'F', class]), "{name}");
        }
    }

    #[test]
    fn names_are_unique() {
        let mut names: Vec<_> = images().into_iter().map(|(name, _)| name).collect();
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn a_benchmark_prints_its_own_name() {
        for (name, image) in images().into_iter().skip(3) {
            assert!(contains(image, &format!("{name}\0")), "{name}");
        }
    }

    #[test]
    fn the_demo_narrates_and_benchmarks_do_not() {
        let narration = "as in 1978";
        for (name, image) in images() {
            assert_eq!(contains(image, narration), name == "demo", "{name}");
        }
    }

    #[test]
    fn a_micro_benchmark_says_how_much_it_does() {
        for &(name, _, instructions) in MICRO.iter().chain(ACCESSES) {
            assert!((1_000_000..100_000_000).contains(&instructions), "{name}: {instructions}");
        }
    }

    #[test]
    fn every_source_is_used() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        for (folder, extension) in [("loops", "c"), ("micro", "S"), ("accesses", "S")] {
            for entry in std::fs::read_dir(root.join(folder)).unwrap() {
                let path = entry.unwrap().path();
                if path.extension().is_some_and(|found| found == extension) {
                    let name = path.file_stem().unwrap().to_str().unwrap();
                    let used = images().iter().any(|(image, _)| *image == name);
                    assert!(used, "{}", path.display());
                }
            }
        }
    }
}
