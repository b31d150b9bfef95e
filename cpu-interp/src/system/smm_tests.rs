//! System-management mode against the statements of the manuals.

use super::*;
use crate::testing::{CODE, DATA, TABLES, TestMachine, sel};
use trivium_cpu::model::{CpuModel, Feature, Vendor};
use trivium_cpu::{Exit, ResetKind, Vector};

const SMBASE: u64 = 0x3_0000;
const RSM: [u8; 2] = [0x0f, 0xaa];

fn with_handler(mut m: TestMachine, code: &[u8]) -> TestMachine {
    m.put(SMBASE + HANDLER, code);
    *m.bus.smi.lock().unwrap() = true;
    m
}

fn intel() -> CpuModel {
    CpuModel { vendor: Vendor::Intel, ..TestMachine::model() }
}

fn old() -> CpuModel {
    let mut model = TestMachine::model();
    model.features.disable(Feature::Lm);
    CpuModel { family: 5, ..model }
}

#[test]
fn an_smi_enters_the_handler_in_the_state_of_table_32_4() {
    let mut m = with_handler(TestMachine::long(&[0x90]), &[0x90]);
    m.set(|s| s.debug.dr7 |= 0x300);
    m.run(1);
    let s = m.state();
    assert_eq!((s.general.rip, s.general.rflags), (HANDLER + 1, 2));
    assert_eq!(s.control.cr0 & (cr0::PE | cr0::EM | cr0::TS | cr0::PG), 0);
    assert_eq!((s.control.cr4, s.control.efer, s.debug.dr7), (0, 0, 0x400));
    let cs = s.segments.regs[CS];
    assert_eq!((cs.selector, cs.base, cs.limit), (0x3000, SMBASE, u32::MAX));
    for n in [0, 2, 3, 4, 5] {
        let segment = s.segments.regs[n];
        assert_eq!((segment.selector, segment.base, segment.limit), (0, 0, u32::MAX));
    }
    assert!(s.events.smm && s.events.nmi_masked && s.segments.cpl == 0);
    assert_eq!(*m.bus.smm.lock().unwrap(), [true]);
}

#[test]
fn rsm_goes_on_as_if_nothing_had_happened() {
    for make in [
        || TestMachine::long(&[0x90, 0xf4]),
        || TestMachine::long(&[0x90, 0xf4]).at_cpl3(),
        || TestMachine::long_with(intel(), &[0x90, 0xf4]),
        || TestMachine::protected(&[0x90, 0xf4]),
        || TestMachine::protected(&[0x90, 0xf4]).in_v86(3),
        || TestMachine::real(&[0x90, 0xf4]),
        || TestMachine::real_with(old(), &[0x90, 0xf4]),
    ] {
        let set = |s: &mut CpuState| {
            let wide = s.control.efer & efer::LMA != 0;
            for (n, reg) in s.general.regs.iter_mut().enumerate().filter(|(n, _)| *n != 4) {
                *reg = if wide { 0x0123_4567_89ab_cdef ^ n as u64 } else { 0x89ab_cdef };
            }
            s.general.rflags |= 0x8d5;
            s.debug.dr6 |= 2;
            s.msrs.lstar = 0x1234;
        };
        // xor eax, eax; mov ds, ax; rsm
        let mut m = with_handler(make(), &[0x31, 0xc0, 0x8e, 0xd8, 0x0f, 0xaa]);
        m.set(set);
        let before = m.state();
        m.run(3);
        let mut after = m.state();
        if before.control.efer & efer::LMA == 0 {
            // A 32-bit save area has no upper halves, nor registers R8 to R15.
            after.general.regs[8..].copy_from_slice(&before.general.regs[8..]);
        }
        assert_eq!(before.differences(&after), []);
        assert_eq!(*m.bus.smm.lock().unwrap(), [true, false]);
    }
}

#[test]
fn the_save_area_has_the_layout_of_the_vendor_and_the_modes() {
    let cases = [
        (TestMachine::long(&[0x90]), 0xff78, 0xfff8, 0xfefc, 0x2_0064),
        (TestMachine::long_with(intel(), &[0x90]), 0xffd8, 0xff5c, 0xfefc, 0x2_0101),
        (TestMachine::real_with(old(), &[0x90]), 0xfff0, 0xffd0, 0xfefc, 0x2_0000),
    ];
    for (m, rip, rax, revision, identifier) in cases {
        let mut m = with_handler(m, &[0x90]);
        m.set(|s| s.general.regs[0] = 0x1234_5678);
        m.run(1);
        assert_eq!(m.get_u32(SMBASE + rip), CODE as u32);
        assert_eq!(m.get_u32(SMBASE + rax), 0x1234_5678);
        assert_eq!(m.get_u32(SMBASE + revision), identifier);
    }
}

#[test]
fn what_the_handler_writes_to_the_save_area_is_restored() {
    // mov dword [SMBASE + FFF8h], 55h; rsm: RAX in the AMD64 layout, by a 32-bit address
    let mut code = vec![0x66, 0x67, 0xc7, 0x05];
    code.extend((SMBASE as u32 + 0xfff8).to_le_bytes());
    code.extend([0x55, 0, 0, 0, 0x0f, 0xaa]);
    let mut m = with_handler(TestMachine::long(&[0x90]), &code);
    m.run(2);
    assert_eq!(m.reg(0), 0x55);
}

#[test]
fn smbase_is_relocated_by_the_next_rsm() {
    // mov dword [SMBASE + FF00h], 40000h; rsm
    let mut code = vec![0x66, 0x67, 0xc7, 0x05];
    code.extend((SMBASE as u32 + 0xff00).to_le_bytes());
    code.extend([0, 0, 0x4, 0, 0x0f, 0xaa]);
    let mut m = with_handler(TestMachine::long(&[0x90, 0x90]), &code);
    m.run(2);
    assert_eq!(m.state().msrs.smbase, 0x4_0000);
    m.put(0x4_8000, &[0xf4]);
    *m.bus.smi.lock().unwrap() = true;
    assert_eq!(m.run(5), Exit::Halted);
    assert_eq!(m.state().segments.regs[CS].base, 0x4_0000);
    // INIT leaves it alone.
    m.set(|s| (s.events.smm, s.events.activity) = (false, Activity::Running));
    *m.bus.reset.lock().unwrap() = Some(ResetKind::Init);
    m.run(0);
    assert_eq!(m.state().msrs.smbase, 0x4_0000);
}

#[test]
fn rsm_outside_of_smm_is_undefined() {
    TestMachine::long(&RSM).raises(Vector::UD, None);
    TestMachine::protected(&RSM).raises(Vector::UD, None);
}

#[test]
fn hlt_is_gone_back_to_if_the_handler_leaves_the_flag_alone() {
    let mut m = TestMachine::long(&[0xf4, 0x90]);
    assert_eq!(m.run(5), Exit::Halted);
    let mut m = with_handler(m, &RSM);
    assert_eq!(m.run(5), Exit::Halted);
    let state = m.state();
    assert_eq!((state.general.rip, state.events.smm), (CODE + 1, false));
    assert_eq!(m.get::<1>(SMBASE + 0xfec9), [1]);
    // mov byte cs:[FEC9h], 0; rsm
    let mut m = with_handler(m, &[0x2e, 0xc6, 0x06, 0xc9, 0xfe, 0, 0x0f, 0xaa]);
    assert_eq!(m.run(3), Exit::Budget);
    assert_eq!(m.state().general.rip, CODE + 2);
}

#[test]
fn nmis_and_smis_wait_in_smm_and_the_mask_comes_back() {
    let mut m = with_handler(TestMachine::long(&[0x90, 0x90]), &[0x90, 0x90, 0x0f, 0xaa]);
    m.run(1);
    *m.bus.nmi.lock().unwrap() = true;
    *m.bus.smi.lock().unwrap() = true;
    *m.bus.reset.lock().unwrap() = Some(ResetKind::Init);
    m.run(1);
    assert_eq!(m.state().general.rip, HANDLER + 2);
    assert!(m.bus.reset.lock().unwrap().take().is_some(), "INIT waits too");
    // The second SMI is latched: it comes before the interrupted program goes on.
    m.run(2);
    let state = m.state();
    assert_eq!((state.general.rip, state.events.smm), (HANDLER + 1, true));
    assert_eq!(m.get_u64(SMBASE + 0xff78), CODE);
    assert_eq!(m.run_to_handler(), Vector::NMI as u8);
}

#[test]
fn iret_in_the_handler_lets_nmis_in() {
    // The real-mode table of interrupts is at 0.
    let mut m = TestMachine::long(&[0x90]);
    m.put(0x8, &[0x00, 0x60, 0, 0]);
    // mov sp, 9000h; pushf; push cs; push 8009h; iret; nop; nop
    let code = [0xbc, 0, 0x90, 0x9c, 0x0e, 0x68, 0x09, 0x80, 0xcf, 0x90, 0x90];
    let mut m = with_handler(m, &code);
    m.set(|s| (s.segments.idtr.base, s.segments.idtr.limit) = (0, 0x3ff));
    m.run(1);
    *m.bus.nmi.lock().unwrap() = true;
    assert_eq!(m.run(10), Exit::Halted);
    // Through the table of far pointers, as in real mode.
    assert_eq!(m.state().general.rip, 0x6001);
}

#[test]
fn rsm_with_a_state_that_cannot_be_shuts_down() {
    // (offset in the AMD64 layout, value): CR0 with PG and without PE, or NW without CD; reserved
    // bits of CR4 and EFER; CR4 without PAE in long mode; virtual-8086 in long mode.
    let cases: [(u32, u32); 6] = [
        (0xff58, 0x8000_0010),
        (0xff58, 0xa000_0011),
        (0xff48, 1 << 31 | 0x20),
        (0xfed0, 0x502),
        (0xff48, 0),
        (0xff70, 0x2_0002),
    ];
    for (offset, value) in cases {
        let mut code = vec![0x66, 0x67, 0xc7, 0x05];
        code.extend((SMBASE as u32 + offset).to_le_bytes());
        code.extend(value.to_le_bytes());
        code.extend(RSM);
        let mut m = with_handler(TestMachine::long(&[0x90]), &code);
        assert_eq!(m.run(5), Exit::Shutdown, "{offset:x} {value:x}");
    }
    // A Pentium's SMBASE is a multiple of 32 KiB, the P6 family's is not.
    for (family, end) in [(5, Exit::Shutdown), (6, Exit::Budget)] {
        let mut code = vec![0x66, 0x67, 0xc7, 0x05];
        code.extend((SMBASE as u32 + 0xfef8).to_le_bytes());
        code.extend([0, 0x10, 0x4, 0]);
        code.extend(RSM);
        let model = CpuModel { family, ..old() };
        let mut m = with_handler(TestMachine::real_with(model, &[0x90]), &code);
        assert_eq!(m.run(2), end);
    }
}

#[test]
fn an_smi_waits_for_the_shadow_of_mov_ss_to_end() {
    // mov ss, eax; inc ecx; nop
    let mut m = TestMachine::long(&[0x8e, 0xd0, 0xff, 0xc1, 0x90]);
    m.set(|s| s.general.regs[0] = sel::DATA.into());
    m.run(1);
    let mut m = with_handler(m, &[0xf4]);
    assert_eq!(m.run(5), Exit::Halted);
    assert_eq!(m.get_u64(SMBASE + 0xff78), CODE + 4);
}

#[test]
fn pae_paging_has_its_pointers_read_anew() {
    let mut m = TestMachine::protected(&[0x90]);
    m.put_u64(TABLES, (TABLES + 0x1000) | 1);
    m.put_u64(TABLES + 0x1000, 0x83);
    m.set(|s| {
        s.control.cr0 |= cr0::PG;
        s.control.cr4 |= cr4::PAE;
        s.control.cr3 = TABLES;
        s.control.pdptr = [(TABLES + 0x1000) | 1, 0, 0, 0];
    });
    let mut m = with_handler(m, &RSM);
    m.put_u64(TABLES + 8, (TABLES + 0x1000) | 1);
    m.run(1);
    assert_eq!(m.state().control.pdptr[1], (TABLES + 0x1000) | 1);
    assert_eq!(m.get_u32(DATA), 0);
}

/// SMRAM at A0000h, which only a processor in system-management mode sees, is backed by RAM at
/// 50000h here.
#[test]
fn smram_is_hidden_outside_of_smm() {
    use std::sync::Arc;
    use trivium_memory::{FlatMap, GuestPhysAddr, Maps, Region, RegionKind};

    // MOV EAX,[A0000h]; HLT.
    let mut m = TestMachine::protected(&[0xa1, 0x00, 0x00, 0x0a, 0x00, 0xf4]);
    let ram = RegionKind::Ram { offset: 0 };
    let hole = |kind| [Region::new(0, 0x10_0000, ram), Region::new(0xa_0000, 0x1_0000, kind)];
    let map = |kind| Arc::new(FlatMap::new(&hole(kind)));
    let shown = map(RegionKind::Ram { offset: 0x5_0000 });
    let all = map(RegionKind::Mmio { id: 0 });
    m.memory.set_maps(Maps { all, smm: shown.clone(), smm_code: shown });
    // MOV EAX,[CS:0]; RSM - from a segment with base A0000h.
    m.put(0x5_8000, &[0x66, 0x2e, 0xa1, 0x00, 0x00, 0x0f, 0xaa]);
    m.put(0x5_0000, &[0x78, 0x56, 0x34, 0x12]);
    m.set(|s| s.msrs.smbase = 0xa_0000);
    *m.bus.smi.lock().unwrap() = true;
    m.run(1);
    assert_eq!((m.state().general.rip, m.state().general.regs[0]), (HANDLER + 5, 0x1234_5678));
    m.run(1);
    assert!(!m.state().events.smm);
    assert_eq!(m.run(2), Exit::Halted);
    assert_ne!(m.state().general.regs[0], 0x1234_5678, "the device's, not SMRAM's");
    let mut hidden = [0; 4];
    assert!(m.memory.read(GuestPhysAddr(0xa_0000), &mut hidden).is_err());
}
