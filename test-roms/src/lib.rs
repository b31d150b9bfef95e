//! Guest programs of our own: ROM images built from `boot/`, `demo/`, `loops/` and `micro/`.
//!
//! Each image is 64 KiB, belongs at the end of the first 4 GiB and must also be visible at F0000h,
//! as a PC's BIOS is. It starts at the reset vector, prints on COM1, and switches the machine off
//! through the PIIX4's power management. 16 MiB of RAM are enough.

/// Shows a PC's way from the first instruction to long mode and says what each step costs; then
/// does some work (primes, sorting, a Mandelbrot set as text) and switches off.
pub static DEMO: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/demo.bin"));

#[cfg(test)]
mod tests {
    use super::*;

    /// Offset in the image of the first instruction, 16 bytes below 4 GiB (SDM vol. 3A 10.1.4).
    const RESET_VECTOR: usize = 0xFFF0;

    fn images() -> Vec<(String, &'static [u8])> {
        vec![("demo".to_owned(), DEMO)]
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
            assert_eq!(image.len(), 64 * 1024, "{name}");
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
}
