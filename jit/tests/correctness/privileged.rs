//! What kernels do on their way in and out: segment registers, SWAPGS, users' pages under SMAP.

use trivium_cpu::bits::cr4;
use trivium_cpu::state::{CS, DS, ES, GS, SegmentAttributes};

use crate::code;
use crate::machine::{CODE, DATA, GDT, NOWHERE, R8, RAX, RBX, RSP, STACK, everywhere};

const PF: u8 = 14;

#[test]
fn swapgs_exchanges_the_bases_of_gs() {
    everywhere(|m| {
        let code = code!(CODE
            ; mov ebp, 41
            ; xor ebx, ebx
            ; again:
            ; swapgs
            ; rdgsbase rax
            ; gs add rbx, [DATA as i32]
            ; dec ebp
            ; jnz <again
            ; hlt
        );
        m.put(CODE, &code);
        m.put(DATA + 0x1000, &1_u64.to_le_bytes());
        m.put(DATA + 0x2000, &0x1_0000_u64.to_le_bytes());
        m.set(|state| {
            state.segments.regs[GS].base = 0x1000;
            state.msrs.kernel_gs_base = 0x2000;
        });
        m.run_to_halt();
        assert_eq!((m.reg(RAX), m.reg(RBX)), (0x2000, 21 * 0x1_0000 + 20));
        let state = m.state();
        assert_eq!((state.segments.regs[GS].base, state.msrs.kernel_gs_base), (0x2000, 0x1000));
    });
}

#[test]
fn a_popped_stack_pointer_is_what_was_popped() {
    everywhere(|m| {
        let code = code!(CODE
            ; mov ebp, 40
            ; again:
            ; push rbp
            ; push rsp
            ; pop rsp
            ; pop rbx
            ; lea rax, [rsp - 0x100]
            ; push rax
            ; pop rsp
            ; push rbx
            ; pop r8
            ; lea rsp, [rsp + 0x100]
            ; dec ebp
            ; jnz <again
            ; hlt
        );
        m.put(CODE, &code);
        m.run_to_halt();
        // PUSH RSP stores the value from before.
        assert_eq!((m.reg(RSP), m.reg(RBX), m.reg(R8)), (STACK, 1, 1));
        assert_eq!(m.number(STACK - 0x108), 1);
    });
}

#[test]
fn users_pages_are_out_of_reach_before_stac_and_after_clac() {
    everywhere(|m| {
        // What is done with them is tried without them by the same loop, to which the way is known.
        let code = code!(CODE
            ; mov ebp, 2000
            ; xor ebx, ebx
            ; again:
            ; stac
            ; mov rdx, r12
            ; call >sum
            ; add rbx, [r12 + 8]
            ; clac
            ; mov rdx, r13
            ; cmp ebp, 100
            ; cmove rdx, r12
            ; je >without
            ; cmp ebp, 1996
            ; jb >next
            ; without:
            ; call >sum
            ; next:
            ; dec ebp
            ; jnz <again
            ; hlt
            ; sum:
            ; mov ecx, 10
            ; more:
            ; add rbx, [rdx]
            ; dec ecx
            ; jnz <more
            ; ret
        );
        m.put(CODE, &code);
        let (user, own) = (DATA + 0x3000, DATA + 0x800);
        m.map(NOWHERE, user | 7);
        [(user, 1_u64), (user + 8, 1 << 16), (own, 1 << 32)]
            .iter()
            .for_each(|(at, number)| m.put(*at, &number.to_le_bytes()));
        m.set(|state| {
            state.control.cr4 |= cr4::SMAP;
            state.general.regs[R8 + 4] = NOWHERE;
            state.general.regs[R8 + 5] = own;
        });
        assert_eq!(m.run_to_exception(), PF);
        assert_eq!(m.state().control.cr2, NOWHERE);
        assert_eq!(m.reg(RBX), 1901 * (10 + (1 << 16)) + 5 * (10 << 32));
    });
}

#[test]
fn segments_are_loaded_anew_when_their_descriptor_has_changed() {
    let [value, base] = [DATA, GDT + 19].map(|at| (at as u32).to_le_bytes());
    let code = [
        &[0xbd, 60, 0, 0, 0][..], // mov ebp, 60
        &[0x31, 0xdb],            // xor ebx, ebx
        &[0xb8, 16, 0, 0, 0],     // mov eax, 16
        &[0x8e, 0xd8],            // again: mov ds, eax
        &[0x1e],                  // push ds
        &[0x07],                  // pop es
        &[0x03, 0x1d],            // add ebx, [DATA]
        &value,
        &[0x26, 0x03, 0x98], // add ebx, es:[eax + DATA]
        &value,
        &[0x83, 0xfd, 2], // cmp ebp, 2
        &[0x75, 7],       // jne next
        &[0xc6, 0x05],    // mov byte [GDT + 19], 1
        &base,
        &[1],
        &[0x4d],       // next: dec ebp
        &[0x75, 0xe0], // jnz again
        &[0xf4],       // hlt
    ]
    .concat();
    assert_eq!(code[12..14], [0x8e, 0xd8], "the jump leads there");
    assert_eq!(code.len() - 1 - 0x20, 12, "and from here");
    everywhere(|m| {
        m.put(CODE, &code);
        for (at, number) in [(0, 1_u32), (16, 1 << 8), (0x100, 1 << 16), (0x110, 1 << 24)] {
            m.put(DATA + at, &number.to_le_bytes());
        }
        m.set(|state| state.segments.regs[CS].attributes = SegmentAttributes(0xc09b));
        m.run_to_halt();
        // The base is 100h in the last round.
        assert_eq!(m.reg(RBX), 59 * 0x101 + 0x101_0000);
        let regs = m.state().segments.regs;
        assert_eq!([DS, ES].map(|n| (regs[n].selector, regs[n].base)), [(16, 0x100); 2]);
    });
}

#[test]
fn a_descriptor_out_of_the_tables_limit_is_not_loaded_again() {
    const GP: u8 = 13;
    // mov eax, 16; mov ebp, 40; again: mov es, eax; dec ebp; jnz again; then the limit is less
    let code = [0xb8, 16, 0, 0, 0, 0xbd, 40, 0, 0, 0, 0x8e, 0xc0, 0x4d, 0x75, 0xfb, 0xf4];
    everywhere(|m| {
        m.put(CODE, &code);
        m.set(|state| state.segments.regs[CS].attributes = SegmentAttributes(0xc09b));
        m.run_to_halt();
        m.set(|state| state.segments.gdtr.limit = 22);
        m.go_on_at(CODE);
        // The handler's segment is within.
        assert_eq!(m.run_to_exception(), GP);
        let at = m.reg(RSP);
        assert_eq!(m.number(at), 16, "the error code");
    });
}
