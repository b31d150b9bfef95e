//! What FXSAVE, FXRSTOR and XSAVE do with the x87 unit's pointers and MXCSR, which differs by vendor.

use trivium_cpu::bits::cr4;
use trivium_cpu::model::{CpuModel, Vendor};
use trivium_cpu::state::{DS, X87};
use trivium_cpu::{Exit, Vector};

use crate::testing::{CODE, DATA, TestMachine};

const FXSAVE64: [u8; 3] = [0x48, 0x0f, 0xae];
/// The pointers and the opcode: byte 6, and bytes 8 to 23.
const IP: u64 = 0x0000_1234_5678_9abc;
const DP: u64 = 0x0000_4321_8765_4321;
const OPCODE: u16 = 0x5e8;
/// Status and control words with an exception that is pending: divide by zero.
const PENDING: (u16, u16) = (0x8084, 0x37b);
const QUIET: (u16, u16) = (0x0004, 0x37f);

fn model(name: &str) -> CpuModel {
    CpuModel::by_name(name).unwrap()
}

/// Runs FXSAVE64 or FXRSTOR64 at DATA, which is filled with A5h first.
fn run(model: CpuModel, save: bool, change: impl FnOnce(&mut TestMachine)) -> TestMachine {
    let modrm = if save { 0x06 } else { 0x0e };
    let mut machine = TestMachine::long_with(model, &[&FXSAVE64[..], &[modrm, 0xf4]].concat());
    machine.put(DATA, &[0xa5; 512]);
    machine.set(|state| state.general.regs[6] = DATA);
    change(&mut machine);
    assert_eq!(machine.run(2), Exit::Halted);
    machine
}

/// Opcode and pointers that FXSAVE64 leaves in memory.
fn saved(model: CpuModel, (status, control): (u16, u16)) -> (u16, u64, u64) {
    let machine = run(model, true, |machine| {
        machine.set(|state| {
            let (last_opcode, last_ip, last_dp) = (OPCODE, IP, DP);
            let x87 = X87 { status, control, tags: 0xffff, ..state.x87 };
            state.x87 = X87 { last_opcode, last_ip, last_dp, ..x87 };
        });
    });
    assert_eq!(machine.get_u16(DATA), control);
    assert_eq!(machine.get_u16(DATA + 2), status);
    assert_eq!(machine.get::<2>(DATA + 4), [0, 0], "all empty");
    (machine.get_u16(DATA + 6), machine.get_u64(DATA + 8), machine.get_u64(DATA + 16))
}

/// Opcode and pointers after FXRSTOR64 of these, where they were 1, 2 and 3.
fn restored(model: CpuModel, words: (u16, u16), pointers: (u16, u64, u64)) -> (u16, u64, u64) {
    let mut machine = run(model, false, |machine| {
        machine.set(|state| {
            state.x87 = X87 { last_opcode: 1, last_ip: 2, last_dp: 3, ..state.x87 };
        });
        machine.put(DATA, &words.1.to_le_bytes());
        machine.put(DATA + 2, &words.0.to_le_bytes());
        machine.put(DATA + 6, &pointers.0.to_le_bytes());
        machine.put_u64(DATA + 8, pointers.1);
        machine.put_u64(DATA + 16, pointers.2);
        machine.put_u64(DATA + 24, 0x1f80);
    });
    let x87 = machine.state().x87;
    (x87.last_opcode, x87.last_ip, x87.last_dp)
}

const ALL: (u16, u64, u64) = (OPCODE, IP, DP);

/// Intel SDM vol. 1, 10.5.1.
#[test]
fn intel_processors_always_save_and_restore_pointers() {
    for words in [QUIET, PENDING] {
        assert_eq!(saved(model("core2duo"), words), ALL);
        assert_eq!(restored(model("core2duo"), words, ALL), ALL);
    }
}

/// AMD APM vol. 2, 11.4.4.
#[test]
fn amd_processors_save_and_restore_pointers_while_an_exception_is_pending() {
    const A5: u64 = 0xa5a5_a5a5_a5a5_a5a5;
    assert_eq!(saved(model("phenom"), PENDING), ALL);
    assert_eq!(saved(model("phenom"), QUIET), (0xa5a5, A5, A5), "memory is left alone");
    assert_eq!(restored(model("phenom"), PENDING, ALL), ALL);
    assert_eq!(restored(model("phenom"), QUIET, ALL), (1, 2, 3), "the unit is left alone");
}

/// AMD APM vol. 3, E.4.7, RstrFpErrPtrs; as a Zen 5 does it.
#[test]
fn with_rstr_fp_err_ptrs_zeros_are_saved_and_pointers_always_restored() {
    assert_eq!(saved(model("max"), PENDING), ALL);
    assert_eq!(saved(model("max"), QUIET), (0, 0, 0));
    assert_eq!(restored(model("max"), QUIET, ALL), ALL);
}

/// As a Zen 5 does it.
#[test]
fn amd_processors_extend_pointers_by_sign_from_57_bits() {
    let wide = (OPCODE, 0x1234_5678_1234_5678, 0x8765_4321_8765_4321);
    let kept = (OPCODE, 0x0034_5678_1234_5678, 0xff65_4321_8765_4321);
    assert_eq!(restored(model("max"), PENDING, wide), kept);
    assert_eq!(restored(model("core2duo"), PENDING, wide), wide);
}

/// Intel SDM vol. 1, 11.6.6; AMD APM vol. 2, 11.5.10.
#[test]
fn the_mask_of_mxcsr_shows_daz_and_mm_as_the_model_has_them() {
    let mask = |name| run(model(name), true, |_| {}).get_u32(DATA + 28);
    assert_eq!(
        ["core2duo", "qemu64", "phenom", "max"].map(mask),
        [0xffff, 0xffff, 0x2_ffff, 0x2_ffff]
    );
}

/// Intel SDM vol. 1, 13.6: the initial configuration has pointers of zero. AMD's processors do not
/// save the pointers then, and on a Zen 5 they do not count.
#[test]
fn xsavec_leaves_out_an_x87_unit_in_its_initial_configuration() {
    // FNINIT; FNOP or FLD1; XSAVEC64 [rsi].
    for (vendor, instruction, present) in [
        (Vendor::Amd, [0xd9, 0xd0], 0),
        (Vendor::Amd, [0xd9, 0xe8], 1),
        (Vendor::Intel, [0xd9, 0xd0], 1),
    ] {
        let xsavec: &[u8] = &[0x48, 0x0f, 0xc7, 0x26, 0xf4];
        let code = [&[0xdb, 0xe3], &instruction[..], xsavec].concat();
        let mut machine = TestMachine::long_with(CpuModel { vendor, ..model("max") }, &code);
        machine.put(DATA, &[0xa5; 512]);
        machine.set(|state| {
            state.control.cr4 |= cr4::OSXSAVE;
            state.control.xcr0 = 7;
            (state.general.regs[0], state.general.regs[2]) = (1, 0);
            state.general.regs[6] = DATA;
        });
        assert_eq!(machine.run(4), Exit::Halted);
        assert_eq!(machine.get_u64(DATA + 512), present, "{vendor:?} {instruction:02x?}");
        let control = if present == 0 { 0xa5a5 } else { 0x37f };
        assert_eq!(machine.get_u16(DATA), control, "{vendor:?} {instruction:02x?}");
    }
}

/// As a Zen 5 does it: what is not compacted is all there, even if XSTATE_BV says that it is not
/// to be loaded.
#[test]
fn xrstor_looks_for_all_components_in_the_segment_unless_they_are_compacted() {
    const COMPACT: u64 = 1 << 63 | 7;
    for (components, fits) in [(0, false), (COMPACT, true)] {
        // XRSTOR [esi]; HLT.
        let mut machine = TestMachine::protected(&[0x0f, 0xae, 0x2e, 0xf4]);
        machine.put(DATA, &[0; 576]);
        machine.put_u64(DATA + 24, 0x1f80);
        machine.put_u64(DATA + 520, components);
        machine.set(|state| {
            state.control.cr4 |= cr4::OSXSAVE | cr4::OSFXSR;
            state.control.xcr0 = 7;
            (state.general.regs[0], state.general.regs[2]) = (7, 0);
            state.general.regs[6] = DATA;
            state.segments.regs[DS].limit = (DATA + 576 + 128) as u32;
        });
        if fits {
            assert_eq!(machine.run(2), Exit::Halted);
            assert!(machine.state().general.rip < CODE + 16, "not in a handler");
        } else {
            machine.raises(Vector::GP, Some(0));
        }
    }
}
