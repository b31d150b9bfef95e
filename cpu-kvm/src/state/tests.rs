//! States of many kinds through the kernel's structures and, where there is one, through KVM, in
//! every order of CPUs.

use trivium_cpu::bits::{cr4, debug, rflags};
use trivium_cpu::state::{CpuState, Injected, X87Register};
use trivium_cpu::{Vcpu, model::CpuModel};
use trivium_interp::{Interpreter, Topology};

use super::*;
use crate::guest::{self, PLACE};
use crate::testing::{kvm, max};

/// Numbers that look random and are the same every time.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        // xorshift64*
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.next().is_multiple_of(n)
    }
}

/// A state that a guest in 64-bit mode, or in real mode, may be in between two instructions.
fn state(numbers: &mut Numbers, memory: &trivium_memory::GuestMemory) -> CpuState {
    let cpl = if numbers.one_in(2) { 3 } else { 0 };
    let mut state = match numbers.one_in(4) {
        true => guest::real_mode(memory, &[0xf4]),
        false => guest::long_mode(memory, cpl, &[0xf4], &[0xf4]),
    };
    let rip = state.general.rip;
    state.general.regs.fill_with(|| numbers.next());
    state.general.rip = rip;
    let flags = rflags::STATUS | rflags::DF | rflags::AC | rflags::ID | rflags::IF;
    state.general.rflags = numbers.next() & flags | rflags::FIXED;
    state.control.cr2 = numbers.next();
    state.control.cr4 |= numbers.next() & (cr4::TSD | cr4::DE | cr4::FSGSBASE);
    for address in &mut state.debug.address {
        *address = numbers.next() & 0x7fff_ffff_ffff;
    }
    state.debug.dr6 = debug::DR6_FIXED | numbers.next() & debug::DR6_B;
    state.msrs.kernel_gs_base = numbers.next() & 0x7fff_ffff_ffff;
    state.msrs.lstar = numbers.next() & 0x7fff_ffff_ffff;
    state.msrs.sfmask = numbers.next() & 0xffff_ffff;
    state.msrs.tsc_aux = numbers.next() & 0xffff_ffff;
    state.msrs.mtrr_var[2] = numbers.next() & 0xf_ffff_f006;
    state.msrs.mc_banks[3][0] = numbers.next();
    state.msrs.tsc_offset = numbers.next();
    for reg in &mut state.x87.regs {
        *reg = X87Register {
            mantissa: numbers.next() | 1 << 63,
            sign_exponent: numbers.next() as u16 & 0xbfff | 1,
        };
    }
    state.x87.control = 0x37f;
    state.x87.status = numbers.next() as u16 & 0x7f00 & !0x4700 | (numbers.next() as u16 & 7) << 11;
    state.x87.tags = if numbers.one_in(3) { 0xffff } else { 0 };
    state.x87.last_ip = numbers.next() & 0xffff_ffff;
    state.x87.last_opcode = numbers.next() as u16 & 0x7ff;
    for reg in &mut state.vector.regs {
        reg.fill_with(|| numbers.next());
    }
    state.vector.mxcsr = 0x1f80 | numbers.next() as u32 & 0x3f;
    state.events.nmi_masked = numbers.one_in(4);
    state.events.interrupt_shadow = numbers.one_in(4);
    state.events.debug_shadow = state.events.interrupt_shadow && numbers.one_in(2);
    if numbers.one_in(4) {
        let vector = 32 + (numbers.next() % 200) as u8;
        state.events.injected = Some(Injected { vector, error_code: None, software_length: None });
    } else if numbers.one_in(4) {
        state.events.injected =
            Some(Injected { vector: 13, error_code: Some(8), software_length: None });
    }
    state
}

#[test]
fn the_kernels_structures_keep_all_of_a_state() {
    let memory = guest::memory(16).unwrap();
    let layout = XsaveLayout::of_host(true, false);
    let room = EventRoom { payload: true, smm: false };
    let mut numbers = Numbers(7);
    for round in 0..2000 {
        let before = state(&mut numbers, &memory);
        // What is loaded into stays behind where the structures leave something out.
        let mut after = CpuState { msrs: before.msrs, ..CpuState::default() };
        after.general = from_regs(&to_regs(&before.general));
        from_sregs(&mut after, &to_sregs(&before, 0, 0));
        after.control.xcr0 = from_xcrs(&to_xcrs(before.control.xcr0));
        from_xsave(&mut after, &to_xsave(&before, layout), layout);
        after.debug = from_debug(&to_debug(&before.debug));
        from_events(&mut after, &to_events(&before, room).unwrap(), room);
        let differences: Vec<_> =
            before.differences(&after).iter().map(ToString::to_string).collect();
        assert!(differences.is_empty(), "{round}: {differences:?}");
    }
}

#[test]
fn an_absent_part_of_an_image_is_its_initial_value() {
    let layout = XsaveLayout::of_host(true, false);
    let mut state = CpuState::default();
    state.vector.regs[3] = [1, 2, 3, 4];
    from_xsave(&mut state, &kvm_bindings::kvm_xsave::default(), layout);
    assert_eq!(state.vector.regs[3], [0; 4]);
    assert_eq!((state.x87.control, state.x87.tags), (0x37f, 0xffff), "SDM vol. 1, 13.6");
    assert_eq!(state.vector.mxcsr, 0x1f80);
}

#[test]
fn what_kvm_has_no_place_for_is_refused() {
    let smm = |state: &mut CpuState| state.events.smm = true;
    let soft = |state: &mut CpuState| {
        state.events.injected =
            Some(Injected { vector: 0x80, error_code: None, software_length: Some(2) });
    };
    for spoil in [smm, soft] {
        let mut state = CpuState::default();
        spoil(&mut state);
        assert!(to_events(&state, EventRoom { payload: true, smm: false }).is_err());
    }
}

#[test]
fn system_management_mode_goes_over_where_kvm_has_it() {
    let room = EventRoom { payload: true, smm: true };
    for (smm, smi_pending) in [(false, false), (false, true), (true, false), (true, true)] {
        let mut before = CpuState::default();
        (before.events.smm, before.events.smi_pending) = (smm, smi_pending);
        let mut after = CpuState::default();
        from_events(&mut after, &to_events(&before, room).unwrap(), room);
        assert_eq!(after.events, before.events);
    }
}

/// One of the CPUs that a state goes through.
fn interpreter(memory: &std::sync::Arc<trivium_memory::GuestMemory>) -> Box<dyn Vcpu> {
    let topology = Topology { apic_id: 0, cpus: 1, tsc_hz: PLACE.tsc_hz, apic_hz: PLACE.apic_hz };
    let scratch = memory.scratch(0, 1).unwrap();
    Box::new(Interpreter::new(memory.clone(), max(), topology, scratch))
}

#[test]
fn a_state_goes_through_every_ordered_pair_of_cpus() {
    assert!(CpuModel::by_name("max").is_ok());
    let memory = guest::memory(16).unwrap();
    let Some(first) = kvm(&memory, &[]) else { return };
    let Some(second) = kvm(&memory, &[]) else { return };
    let mut cpus: [(&str, Box<dyn Vcpu>); 4] = [
        ("interp", interpreter(&memory)),
        ("kvm", Box::new(first)),
        ("another interp", interpreter(&memory)),
        ("another kvm", Box::new(second)),
    ];
    let mut numbers = Numbers(11);
    for from in 0..cpus.len() {
        for to in 0..cpus.len() {
            for _ in 0..10 {
                let before = state(&mut numbers, &memory);
                cpus[from].1.load(&before).unwrap();
                let between = cpus[from].1.save().unwrap();
                cpus[to].1.load(&between).unwrap();
                let after = cpus[to].1.save().unwrap();
                let differences: Vec<_> =
                    before.differences(&after).iter().map(ToString::to_string).collect();
                assert!(
                    differences.is_empty(),
                    "{} to {}: {differences:?}",
                    cpus[from].0,
                    cpus[to].0
                );
                assert_eq!(before.msrs.tsc_offset, after.msrs.tsc_offset);
            }
        }
    }
}
