//! Where code and data end: limits, wraparound and canonical form; and which instructions may be
//! locked. Expected values are the manuals', and where these leave it open a Zen 5's.

use trivium_cpu::Vector;
use trivium_cpu::bits::cr0;
use trivium_cpu::model::{CpuModel, Feature};
use trivium_cpu::state::CS;

use crate::testing::{DATA, TestMachine};

const GP: u8 = Vector::GP as u8;

#[test]
fn sixteen_bit_code_goes_on_beyond_64_kib_if_its_segment_does() {
    // nop; nop at FFFEh, then inc ax
    let machine = |limit| {
        let mut m = TestMachine::real(&[]);
        m.put(0xfffe, &[0x90, 0x90, 0x40]);
        m.set(|s| {
            s.segments.regs[CS].limit = limit;
            s.general.rip = 0xfffe;
        });
        m
    };
    let mut m = machine(0x1_ffff);
    m.run(3);
    assert_eq!((m.state().general.rip, m.reg(0)), (0x1_0001, 1));
    // It does not wrap: the fetch at 10000h is beyond the limit.
    let mut m = machine(0xffff);
    assert_eq!(m.run_to_handler(), GP);
    let sp = m.reg(4);
    assert_eq!(m.get_u16(sp), 0);
}

#[test]
fn an_instruction_that_goes_beyond_the_limit_raises_gp() {
    // mov al, imm8 whose immediate is at 10000h
    let mut m = TestMachine::real(&[]);
    m.put(0xffff, &[0xb0, 0x55]);
    m.set(|s| s.general.rip = 0xffff);
    assert_eq!(m.run_to_handler(), GP);
    let sp = m.reg(4);
    assert_eq!((m.get_u16(sp), m.reg(0)), (0xffff, 0));
}

#[test]
fn near_branches_of_16_bits_are_cut_and_those_of_32_bits_are_not() {
    // jmp -18 at 0; jmp +20h at FFF0h; o32 jmp to 10010h
    let cases: [(u64, &[u8], u64); 4] = [
        (0, &[0xeb, 0xee], 0xfff0),
        (0xfff0, &[0xeb, 0x20], 0x12),
        (0x100, &[0x66, 0xe9, 0x0a, 0xff, 0, 0], 0x1_0010),
        (0xfffd, &[0xe8, 0x10, 0], 0x10),
    ];
    for (at, code, target) in cases {
        let mut m = TestMachine::real(&[]);
        m.put(at, code);
        m.set(|s| {
            s.segments.regs[CS].limit = 0x1_ffff;
            s.general.rip = at;
        });
        m.run(1);
        assert_eq!(m.state().general.rip, target, "{code:x?}");
    }
}

#[test]
fn accesses_beyond_4_gib_raise_gp_or_ss_in_segments_that_span_all() {
    // mov eax, [FFFFFFFDh]; movups xmm0, [FFFFFFF1h]; add [FFFFFFFFh], ax
    let codes: [&[u8]; 3] = [
        &[0xa1, 0xfd, 0xff, 0xff, 0xff],
        &[0x0f, 0x10, 0x05, 0xf1, 0xff, 0xff, 0xff],
        &[0x66, 0x01, 0x05, 0xff, 0xff, 0xff, 0xff],
    ];
    for code in codes {
        let mut m = TestMachine::protected(code);
        m.set(|s| s.control.cr4 |= trivium_cpu::bits::cr4::OSFXSR);
        m.raises(Vector::GP, Some(0));
    }
    // push eax with ESP = 2, on a handler's stack that is another
    let mut m = TestMachine::protected(&[0x50]).at_cpl3();
    m.set(|s| s.general.regs[4] = 2);
    assert_eq!(m.run_to_exception(), (Vector::SS as u8, 0));
}

#[test]
fn a_base_wraps_addresses_at_4_gib() {
    // mov eax, fs:[FFFFF000h + DATA] with a base of 1000h
    let at = (DATA as u32).wrapping_sub(0x1000).to_le_bytes();
    let mut code = vec![0x64, 0xa1];
    code.extend(at);
    let mut m = TestMachine::protected(&code);
    m.put(DATA, &[0x78, 0x56, 0x34, 0x12]);
    m.set(|s| s.segments.regs[4].base = 0x1000);
    m.run(1);
    assert_eq!(m.reg(0), 0x1234_5678);
    let mut m = TestMachine::protected(&[0x64, 0xa1, 0, 0xf0, 0xff, 0xff]);
    m.put(DATA, &[0x78, 0x56, 0x34, 0x12]);
    m.set(|s| s.segments.regs[4].base = DATA + 0x1000);
    m.run(1);
    assert_eq!(m.reg(0), 0x1234_5678);
}

#[test]
fn addresses_of_the_stack_that_are_not_canonical_raise_ss() {
    let cases: [(&[u8], Vector); 8] = [
        (&[0x8b, 0x07], Vector::GP),          // mov eax, [rdi]
        (&[0x36, 0x8b, 0x07], Vector::GP),    // ss: is ignored
        (&[0x8b, 0x45, 0], Vector::SS),       // mov eax, [rbp]
        (&[0x3e, 0x8b, 0x45, 0], Vector::SS), // ds: is ignored
        (&[0x64, 0x8b, 0x45, 0], Vector::GP), // fs:
        (&[0x58], Vector::SS),                // pop rax
        (&[0xc9], Vector::SS),                // leave
        (&[0x8b, 0x04, 0x24], Vector::SS),    // mov eax, [rsp]
    ];
    for (code, vector) in cases {
        let mut m = TestMachine::long(code).at_cpl3();
        m.set(|s| {
            for n in [4, 5, 7] {
                s.general.regs[n] = 0x8000_0000_0000;
            }
        });
        assert_eq!(m.run_to_exception(), (vector as u8, 0), "{code:x?}");
    }
}

/// Instructions that LOCK may stand before, with a memory operand [rbx] and as far as they have
/// one, a register operand instead. Intel SDM vol. 2, LOCK.
const LOCKABLE: &[&[u8]] = &[
    &[0x00, 0x03], // add
    &[0x01, 0x03],
    &[0x08, 0x03], // or
    &[0x10, 0x03], // adc
    &[0x18, 0x03], // sbb
    &[0x20, 0x03], // and
    &[0x28, 0x03], // sub
    &[0x30, 0x03], // xor
    &[0x80, 0x03, 1],
    &[0x81, 0x0b, 1, 0, 0, 0],
    &[0x83, 0x33, 1],
    &[0x86, 0x03], // xchg
    &[0x87, 0x03],
    &[0xf6, 0x13],       // not
    &[0xf7, 0x1b],       // neg
    &[0xfe, 0x03],       // inc
    &[0xff, 0x0b],       // dec
    &[0x0f, 0xab, 0x03], // bts
    &[0x0f, 0xb3, 0x03], // btr
    &[0x0f, 0xbb, 0x03], // btc
    &[0x0f, 0xba, 0x2b, 1],
    &[0x0f, 0xba, 0x3b, 1],
    &[0x0f, 0xb0, 0x03], // cmpxchg
    &[0x0f, 0xb1, 0x03],
    &[0x0f, 0xc0, 0x03], // xadd
    &[0x0f, 0xc1, 0x03],
    &[0x0f, 0xc7, 0x0b], // cmpxchg8b
    &[0x48, 0x0f, 0xc7, 0x0b],
];

#[test]
fn lock_is_for_the_manuals_list_with_a_memory_operand_alone() {
    for code in LOCKABLE {
        // LOCK comes before REX.
        let locked = [&[0xf0][..], code].concat();
        let mut m = TestMachine::long(&locked);
        m.set(|s| s.general.regs[3] = DATA);
        m.run(1);
        assert_eq!(m.state().general.rip, crate::testing::CODE + locked.len() as u64, "{code:x?}");
        // With a register as destination: the ModR/M byte's mode becomes 3.
        let opcode = usize::from(code[0] == 0x48);
        let modrm = opcode + if code[opcode] == 0x0f { 2 } else { 1 };
        let mut register = locked.clone();
        register[modrm + 1] |= 0xc0;
        TestMachine::long(&register).raises(Vector::UD, None);
    }
    // Others, with memory operands or none.
    let others: [&[u8]; 18] = [
        &[0x8b, 0x03],
        &[0x89, 0x03],
        &[0x03, 0x03],          // add eax, [rbx]: the destination is a register
        &[0x38, 0x03],          // cmp
        &[0x83, 0x3b, 1],       // cmp
        &[0x84, 0x03],          // test
        &[0xd1, 0x23],          // shl
        &[0x0f, 0xa3, 0x03],    // bt
        &[0x0f, 0xba, 0x23, 1], // bt
        &[0xff, 0x33],          // push
        &[0x90],
        &[0xf4],
        &[0xa4],
        &[0xcc],
        &[0x0f, 0xa2],
        &[0x0f, 0x22, 0xd8], // mov cr3
        &[0xd9, 0x03],       // fld: before #NM
        &[0x0f, 0x10, 0x03], // movups
    ];
    for code in others {
        let mut m = TestMachine::long(&[&[0xf0][..], code].concat());
        m.set(|s| s.control.cr0 |= cr0::TS);
        m.raises(Vector::UD, None);
    }
}

#[test]
fn lock_mov_cr0_is_mov_cr8_where_cpuid_says_so() {
    // lock mov cr0, eax; lock mov ebx, cr0
    let code = [0xf0, 0x0f, 0x22, 0xc0, 0xf0, 0x0f, 0x20, 0xc3];
    let mut model: CpuModel = TestMachine::model();
    model.features.enable(Feature::Cr8Legacy);
    let mut m = TestMachine::long_with(model, &code);
    m.set(|s| s.general.regs[0] = 9);
    m.run(2);
    assert_eq!(m.reg(3), 9);
    assert_eq!(*m.bus.cr8.lock().unwrap(), 9);
    model.features.disable(Feature::Cr8Legacy);
    TestMachine::long_with(model, &code).raises(Vector::UD, None);
    // MOV CR8 itself is there in any case.
    let mut m = TestMachine::long_with(model, &[0x44, 0x0f, 0x20, 0xc3]);
    m.run(1);
    assert_eq!(m.state().general.rip, crate::testing::CODE + 4);
}
