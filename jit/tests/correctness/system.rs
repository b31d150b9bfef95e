//! Division, flags beside the arithmetic ones, bit strings and strings: what translated code does
//! itself as long as nothing can go wrong.

use trivium_cpu::bits::rflags;

use crate::code;
use crate::machine::{CODE, DATA, R8, RAX, RBX, RCX, RDI, RDX, RSI, everywhere};

#[test]
fn divisions_leave_the_flags_alone() {
    everywhere(|m| {
        let code = code!(CODE
            ; mov ebp, 40
            ; xor ebx, ebx
            ; again:
            ; mov eax, 1000003
            ; xor edx, edx
            ; mov ecx, 17
            ; cmp ebp, 0x7fff_ffff
            ; div ecx
            ; setb bl
            ; mov r8d, edx
            ; mov rax, -1000003
            ; cqo
            ; mov r9, 17
            ; stc
            ; idiv r9
            ; adc bl, 0
            ; mov r10, rdx
            ; dec ebp
            ; jnz <again
            ; hlt
        );
        m.put(CODE, &code);
        m.run_to_halt();
        // 1000003 = 58823 * 17 + 12; the remainder has the dividend's sign.
        assert_eq!(m.reg(RAX), 0_u64.wrapping_sub(58823));
        assert_eq!(m.reg(R8), 12);
        assert_eq!(m.reg(R8 + 2), 0_u64.wrapping_sub(12));
        assert_eq!(m.reg(RBX), 2);
    });
}

#[test]
fn divisions_that_do_not_fit_raise_de() {
    // EDX:EAX, the divisor, and whether it is signed. Intel SDM vol. 2A, DIV, and IDIV.
    let cases: [(i64, i64, bool); 4] =
        [(1 << 40, 1, false), (5, 0, false), (-0x8000_0000, -1, true), (1 << 31, 1, true)];
    for (dividend, divisor, signed) in cases {
        everywhere(|m| {
            let code = code!(CODE
                ; mov ebp, 20
                ; again:
                ; mov eax, 7
                ; xor edx, edx
                ; mov ecx, 3
                ; cmp ebp, 2
                ; mov r8, QWORD dividend
                ; cmove rax, r8
                ; mov r9, r8
                ; shr r9, 32
                ; cmp ebp, 2
                ; cmove edx, r9d
                ; mov r9, QWORD divisor
                ; cmove ecx, r9d
                ; cmp r10d, 0
                ; jne >unsigned
                ; idiv ecx
                ; jmp >next
                ; unsigned:
                ; div ecx
                ; next:
                ; dec ebp
                ; jnz <again
                ; hlt
            );
            m.put(CODE, &code);
            m.set(|state| state.general.regs[R8 + 2] = u64::from(!signed));
            assert_eq!(m.run_to_exception(), 0, "{dividend} / {divisor}");
            assert_eq!(m.reg(5), 2);
        });
    }
}

#[test]
fn pushf_cli_and_sti_see_and_set_if_and_popf_takes_the_arithmetic_flags() {
    everywhere(|m| {
        let code = code!(CODE
            ; mov ebp, 40
            ; again:
            ; sti
            ; nop
            ; stc
            ; pushfq
            ; pop rax
            ; cli
            ; pushfq
            ; pop rbx
            ; xor rbx, 0x8d5
            ; push rbx
            ; popfq
            ; pushfq
            ; pop rcx
            ; lea ebp, [rbp - 1]
            ; xchg rcx, rsi
            ; mov ecx, ebp
            ; jrcxz >done
            ; jmp <again
            ; done:
            ; hlt
        );
        m.put(CODE, &code);
        m.run_to_halt();
        let arithmetic = 0x8d5;
        let (before, after) = (m.reg(RAX), m.reg(RSI));
        assert_eq!(before & rflags::IF, rflags::IF);
        assert_eq!(after & rflags::IF, 0);
        // All arithmetic flags are the other way round.
        assert_eq!((before ^ after) & arithmetic, arithmetic);
    });
}

#[test]
fn bit_strings_reach_before_and_behind_their_operand() {
    everywhere(|m| {
        let code = code!(CODE
            ; mov ebp, 40
            ; mov rdi, DATA as i32 + 0x800
            ; mov r8, -65
            ; mov ecx, 100
            ; xor ebx, ebx
            ; again:
            ; bts QWORD [rdi], r8
            ; bts DWORD [rdi], ecx
            ; btc QWORD [rdi], r8
            ; bts QWORD [rdi], r8
            ; adc ebx, 0
            ; btr DWORD [rdi], ecx
            ; adc ebx, 0
            ; bt [rdi], r8
            ; adc ebx, 0
            ; dec ebp
            ; jnz <again
            ; hlt
        );
        m.put(CODE, &code);
        m.run_to_halt();
        // Bit -65 is bit 63 of the quadword two before; bit 100 is bit 4 of the fourth doubleword.
        assert_eq!(m.number(DATA + 0x800 - 16), 1 << 63);
        assert_eq!(m.number(DATA + 0x800 + 8), 0);
        // BTC cleared it, so the BTS behind it found none; BTR and BT find theirs set.
        assert_eq!(m.reg(RBX), 80);
    });
}

#[test]
fn single_string_instructions_go_the_way_that_df_says() {
    everywhere(|m| {
        let code = code!(CODE
            ; mov ebp, 3000
            ; mov rsi, DATA as i32
            ; mov rdi, DATA as i32 + 0x4000
            ; again:
            ; movsb
            ; lodsb
            ; add al, 1
            ; stosb
            ; dec ebp
            ; jnz <again
            ; mov ebp, 5
            ; std
            ; back:
            ; stosw
            ; dec ebp
            ; jnz <back
            ; cld
            ; hlt
        );
        m.put(CODE, &code);
        let data: Vec<u8> = (0..6000_u32).map(|n| (n * 7) as u8).collect();
        m.put(DATA, &data);
        m.run_to_halt();
        assert_eq!(m.reg(RSI), DATA + 6000);
        assert_eq!(m.reg(RDI), DATA + 0x4000 + 6000 - 10);
        let [first, second] = m.get(DATA + 0x4000 + 2000);
        assert_eq!((first, second), (data[2000], data[2001].wrapping_add(1)));
    });
}

#[test]
fn an_access_that_begins_on_the_page_before_is_not_taken_for_one_of_the_next() {
    const PASSES: u32 = 60;
    // Two pages that are next to each other in linear addresses and not in memory.
    everywhere(|m| {
        let (first, second) = (DATA + 0x8000, DATA + 0x2000);
        m.map(DATA + 0x1000, second | 3);
        m.map(DATA, first | 3);
        m.put(first + 0xffc, &[1, 2, 3, 4]);
        m.put(second, &[5, 6, 7, 8]);
        m.put(first + 0x1000, &[0xee; 8]);
        m.put(second - 4, &[0xdd; 4]);
        let code = code!(CODE
            ; mov ebp, PASSES as i32
            ; xor edx, edx
            ; again:
            ; mov rdi, DATA as i32 + 0x1010
            ; walk:
            ; add rdx, [rdi]
            ; rol rdx, 9
            ; lea r8, [rdi + rdi]
            ; sub r8, rdi
            ; lea rdi, [r8 - 1]
            ; cmp rdi, DATA as i32 + 0xff0
            ; jne <walk
            ; dec ebp
            ; jnz <again
            ; hlt
        );
        m.put(CODE, &code);
        m.run_to_halt();
        let mut bytes = m.get::<0x10>(first + 0xff0).to_vec();
        bytes.extend(m.get::<0x20>(second));
        // Of all passes: sooner or later such accesses are found to remember in vain.
        let places = (0..PASSES).flat_map(|_| (1..=0x20_usize).rev());
        let sum = places.fold(0_u64, |sum, at| {
            let word = bytes[at..at + 8].try_into().expect("eight bytes");
            sum.wrapping_add(u64::from_le_bytes(word)).rotate_left(9)
        });
        assert_eq!(m.reg(RDX), sum);
    });
}
