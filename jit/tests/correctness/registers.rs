//! Registers, flags, counts: what re-encoding for other registers can get wrong.

use trivium_cpu::Exit;

use crate::code;
use crate::machine::{CODE, DATA, R8, RAX, RBX, RCX, RDI, RDX, everywhere};

const ONES: u64 = u64::MAX;

#[test]
fn ah_to_bh_are_the_second_bytes_and_spl_to_dil_the_first() {
    everywhere(|m| {
        let code = code!(CODE
            ; mov ebp, 20
            ; mov edi, DATA as i32
            ; again:
            ; mov rax, QWORD 0x1122_3344_5566_7788
            ; mov rbx, QWORD -0x6655_4433_2211_0100
            ; mov ah, bl
            ; mov bh, al
            ; xchg ch, dl
            ; add dh, ah
            ; mov [rdi], ah
            ; mov cl, [rdi]
            ; xor ch, [rdi]
            ; sub [rdi], bh
            ; movzx r8d, bl
            ; movzx esi, bh
            ; mov r9b, r8b
            ; add r9b, sil
            ; xchg r9b, al
            ; mov r10w, r9w
            ; mov sil, r10b
            ; setc dh
            ; cmovc r11d, esi
            ; dec ebp
            ; jnz <again
            ; hlt
        );
        m.put(CODE, &code);
        m.run_to_halt();
        assert_eq!(m.reg(RBX), 0x99aa_bbcc_ddee_8800);
        // AH was BL; AL is R9B, which was R8B (BL) and SIL (BH).
        assert_eq!(m.reg(RAX), 0x1122_3344_5566_0088);
        assert_eq!(m.reg(R8), 0);
    });
}

#[test]
fn results_of_32_bits_are_zero_extended_and_others_are_not() {
    // For each register: 32 bits, then 16, then 8; and CMOV, which clears the upper half even if
    // it does not move.
    everywhere(|m| {
        let code = code!(CODE
            ; mov ebp, 20
            ; again:
            ; mov rax, -1 ; mov rcx, -1 ; mov rdx, -1 ; mov rbx, -1
            ; mov r8, -1 ; mov r9, -1 ; mov r10, -1 ; mov r11, -1
            ; mov r12, -1 ; mov r13, -1 ; mov r14, -1 ; mov r15, -1
            ; mov eax, eax
            ; mov r8d, r8d
            ; mov r12d, r12d
            ; xor r9w, r9w
            ; xor r10b, r10b
            ; xor cx, cx
            ; stc
            ; cmovnc r11d, eax
            ; cmovnc edx, eax
            ; cmovnc r13d, r8d
            ; lea r14d, [r15 + 1]
            ; add r15d, 0
            ; dec ebp
            ; jnz <again
            ; hlt
        );
        m.put(CODE, &code);
        m.run_to_halt();
        let low = 0xffff_ffff;
        let regs = m.state().general.regs;
        assert_eq!((regs[RAX], regs[R8], regs[12]), (low, low, low));
        assert_eq!((regs[9], regs[10], regs[RCX]), (ONES << 16, ONES << 8, ONES << 16));
        assert_eq!((regs[11], regs[RDX], regs[13]), (low, low, low));
        assert_eq!((regs[14], regs[15], regs[RBX]), (0, low, ONES));
    });
}

#[test]
fn the_fs_base_of_the_guest_is_not_the_hosts() {
    thread_local! {
        static MARK: std::cell::Cell<u64> = const { std::cell::Cell::new(0x5a5a) };
    }
    everywhere(|m| {
        let code = code!(CODE
            ; mov ecx, 20
            ; mov eax, DATA as i32
            ; wrfsbase rax
            ; add eax, 0x1000
            ; wrgsbase rax
            ; again:
            ; fs mov [0x10], rcx
            ; fs mov rbx, [0x10]
            ; gs add [0x20], rbx
            ; rdfsbase r8
            ; dec ecx
            ; jnz <again
            ; hlt
        );
        m.put(CODE, &code);
        m.run_to_halt();
        assert_eq!(m.number(DATA + 0x10), 1);
        assert_eq!(m.number(DATA + 0x1020), (1..=20).sum::<u64>());
        assert_eq!(m.reg(R8), DATA);
        assert_eq!(MARK.get(), 0x5a5a);
    });
}

#[test]
fn the_direction_flag_and_mxcsr_of_the_guest_are_not_the_hosts() {
    everywhere(|m| {
        let code = code!(CODE
            ; mov ecx, 20
            ; mov edi, DATA as i32
            ; mov DWORD [rdi], 0xffc0
            ; ldmxcsr [rdi]
            ; std
            ; again:
            ; addps xmm0, xmm1
            ; add edx, ecx
            ; dec ecx
            ; jnz <again
            ; lea rdi, [rdi + 0x20]
            ; stosb
            ; stmxcsr [rdi + 0x21]
            ; hlt
        );
        m.put(CODE, &code);
        m.run_to_halt();
        assert_eq!(m.reg(RDI), DATA + 0x1f);
        assert_eq!(m.number(DATA + 0x40) as u32 & 0xffff, 0xffc0);
        // Denormals are not flushed here, and rounding is to nearest.
        let small = std::hint::black_box(f32::MIN_POSITIVE);
        assert!(small / 2.0 > 0.0);
        assert_eq!(std::hint::black_box(1.0_f32) / 3.0, 0.333_333_34);
    });
}

/// All kinds of blocks, for counting.
fn program() -> Vec<u8> {
    code!(CODE
        ; mov ecx, 1000
        ; mov edi, DATA as i32
        ; again:
        ; add eax, ecx
        ; test al, 4
        ; jz >even
        ; nop
        ; call >function
        ; jmp >on
        ; even:
        ; push rax
        ; mov [rdi + rcx], al
        ; pop rbx
        ; on:
        ; pushfq
        ; popfq
        ; cpuid
        ; mov ecx, [rdi + 0x800]
        ; dec ecx
        ; mov [rdi + 0x800], ecx
        ; jmp <again
        ; function:
        ; inc r8
        ; lea r9, [r9 + r8 * 4]
        ; ret
    )
}

#[test]
fn a_budget_ends_at_the_same_instruction() {
    for budget in 1..60 {
        everywhere(|m| {
            m.put(CODE, &program());
            m.put(DATA + 0x800, &[100]);
            for round in 0..20 {
                assert_eq!(m.run(budget), Exit::Budget, "round {round}");
            }
        });
    }
}

#[test]
fn flags_go_through_translated_code_and_out_of_it() {
    // All 64 values of the six flags, by POPF, through a hot block and by PUSHF.
    everywhere(|m| {
        let code = code!(CODE
            ; mov ecx, 0x1000
            ; mov edi, DATA as i32
            ; mov r10d, 0x8d5
            ; again:
            ; pdep r9, rcx, r10
            ; push r9
            ; popfq
            ; mov r8, r9
            ; lea rdx, [rdi + 8]
            ; mov [rdi], r8
            ; bswap r11
            ; pushfq
            ; pop rbx
            ; and ebx, 0x8d5
            ; cmp rbx, r9
            ; jne >wrong
            ; dec ecx
            ; jnz <again
            ; mov esi, 1
            ; wrong:
            ; hlt
        );
        m.put(CODE, &code);
        m.run_to_halt();
        assert_eq!(m.reg(6), 1, "flags {:#x} became {:#x}", m.reg(9), m.reg(RBX));
    });
}

#[test]
fn the_x87_units_last_operand_is_noted_where_it_is_among_others() {
    everywhere(|m| {
        let code = code!(CODE
            ; mov ecx, 20
            ; again:
            ; mov rax, [rbx]
            ; fld QWORD [rbx + 0x40]
            ; mov [rbx + 0x20], rax
            ; fstp QWORD [rbx + 0x48]
            ; mov rax, [rbx + 0x60]
            ; dec ecx
            ; jnz <again
            ; hlt
        );
        m.put(CODE, &code);
        m.set(|state| state.general.regs[RBX] = DATA);
        m.run_to_halt();
        assert_eq!(m.state().x87.last_dp, DATA + 0x48);
    });
}
