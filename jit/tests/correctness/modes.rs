//! Code of 16 bits, in real and virtual-8086 mode and in protected segments: offsets, stack pointers
//! and branches wrap at 64 KiB, limits are checked, and bases are those of the moment.

use trivium_cpu::bits::{cr0, cr4, rflags};
use trivium_cpu::state::{CS, CpuState, DS, ES, FS, SS, Segment, SegmentAttributes, TableRegister};

use crate::machine::{
    CODE, DATA, HANDLERS, HLT, Machine, PRESENT, RAX, RBP, RBX, RCX, RDI, RDX, RSI, RSP, WRITE,
    everywhere,
};

/// The real-mode vector table, and the tables of protected mode.
const IVT: u64 = 0x7000;
const IDT: u64 = 0x7800;
const GDT: u64 = 0x2100;
const TSS: u64 = 0x2200;
/// The stack of level 0, for what V86 code raises.
const STACK_0: u64 = 0x8_fff0;
const GP: u8 = 13;
const SS_FAULT: u8 = 12;

/// How often loops go round: often enough that every kind of translation is reached.
const TIMES: u16 = 300;

fn segment(selector: u16, base: u64, limit: u32, attributes: u16) -> Segment {
    Segment { selector, base, limit, attributes: SegmentAttributes(attributes) }
}

/// A segment as loads in real mode make them.
fn real(base: u64, attributes: u16) -> Segment {
    segment((base >> 4) as u16, base, 0xffff, attributes)
}

fn common(m: &mut Machine, change: impl FnOnce(&mut CpuState)) {
    for vector in 0..256_u64 {
        let handler = HANDLERS + 16 * vector;
        m.put(IVT + 4 * vector, &(handler as u32).to_le_bytes());
        // An interrupt gate of 32 bits, to the code segment of the GDT.
        let gate = handler & 0xffff | 8 << 16 | 0x8e << 40;
        m.put(IDT + 8 * vector, &gate.to_le_bytes());
    }
    m.put(GDT + 8, &0x00cf_9b00_0000_ffff_u64.to_le_bytes());
    m.put(GDT + 16, &0x00cf_9300_0000_ffff_u64.to_le_bytes());
    m.put(TSS + 4, &(STACK_0 as u32).to_le_bytes());
    m.put(TSS + 8, &16_u32.to_le_bytes());
    m.set(|s| {
        s.control.efer = 0;
        s.control.cr4 = cr4::OSFXSR | cr4::OSXMMEXCPT;
        s.segments.gdtr = TableRegister { base: GDT, limit: 0x3f };
        s.segments.tr = segment(0x18, TSS, 0x67, 0x8b);
        (s.general.regs[RSP], s.general.regs[RDX]) = (0xfff0, 0);
        change(s);
    });
}

/// Real mode: CS at [`CODE`], DS and ES at [`DATA`], the stack 64 KiB below the code.
fn real_mode(m: &mut Machine) {
    common(m, |s| {
        s.control.cr0 = cr0::ET | cr0::NE;
        s.segments.idtr = TableRegister { base: IVT, limit: 0x3ff };
        s.segments.regs = [real(DATA, 0x93); 6];
        s.segments.regs[CS] = real(CODE, 0x9b);
        s.segments.regs[SS] = real(CODE - 0x1_0000, 0x93);
        s.general.rip = 0;
    });
}

/// The same in virtual-8086 mode, of an I/O privilege level.
fn v86(m: &mut Machine, iopl: u64) {
    common(m, |s| {
        s.control.cr0 = cr0::PE | cr0::ET | cr0::NE;
        s.segments.idtr = TableRegister { base: IDT, limit: 0x7ff };
        s.segments.regs = [real(DATA, 0xf3); 6];
        s.segments.regs[CS] = real(CODE, 0xf3);
        s.segments.regs[SS] = real(CODE - 0x1_0000, 0xf3);
        s.segments.cpl = 3;
        s.general.rip = 0;
        s.general.rflags = 2 | rflags::VM | iopl << 12;
    });
}

/// Protected mode with 16-bit code and a 16-bit stack.
fn protected(m: &mut Machine) {
    common(m, |s| {
        s.control.cr0 = cr0::PE | cr0::ET | cr0::NE;
        s.segments.idtr = TableRegister { base: IDT, limit: 0x7ff };
        s.segments.regs = [segment(16, DATA, 0xffff, 0x93); 6];
        s.segments.regs[CS] = segment(8, CODE, 0xffff, 0x9b);
        s.segments.regs[SS] = segment(16, CODE - 0x1_0000, 0xffff, 0x93);
        s.general.rip = 0;
    });
}

/// What all 16-bit modes have in common.
fn in_16_bits(test: impl Fn(&mut Machine)) {
    everywhere(|m| {
        real_mode(m);
        test(m);
    });
    everywhere(|m| {
        v86(m, 3);
        test(m);
    });
    everywhere(|m| {
        protected(m);
        test(m);
    });
}

/// Ends what privileged and other code can end alike: with an access beyond the limit.
const END: [u8; 3] = [0xa1, 0xff, 0xff]; // mov ax, [0xffff]

fn put_code(m: &mut Machine, code: &[u8]) {
    m.put(CODE, code);
    m.put(CODE + code.len() as u64, &END);
}

fn run_to_end(m: &mut Machine) {
    assert_eq!(m.run_to_exception(), GP);
}

#[test]
fn effective_addresses_wrap_at_64_kib() {
    in_16_bits(|m| {
        // mov cx, TIMES; again: add dx, [bx+si+0x7fff]; inc word [di]; loop again
        let [low, high] = TIMES.to_le_bytes();
        let code = [0xb9, low, high, 0x03, 0x90, 0xff, 0x7f, 0xff, 0x05, 0xe2, 0xf8];
        put_code(m, &code);
        m.put(DATA + 0xfffd, &3_u16.to_le_bytes());
        m.set(|s| {
            (s.general.regs[RBX], s.general.regs[RSI]) = (0xaaaa_fffd, 0xbbbb_8001);
            (s.general.regs[RDX], s.general.regs[RDI]) = (0xcccc_0000, 0xdddd_0010);
        });
        run_to_end(m);
        // 0xfffd + 0x8001 + 0x7fff is 0x1fffd.
        assert_eq!(m.reg(RDX), 0xcccc_0000 + 3 * u64::from(TIMES));
        assert_eq!(u16::from_le_bytes(m.get(DATA + 0x10)), TIMES);
    });
}

#[test]
fn a_stack_pointer_of_16_bits_wraps_and_leaves_the_rest_of_esp_alone() {
    in_16_bits(|m| {
        let stack = CODE - 0x1_0000;
        // mov cx, TIMES; again: push ax; push bx; pop dx; pop di; loop again; mov esi, esp; mov sp, 0x8000
        let [low, high] = TIMES.to_le_bytes();
        let code = [
            0xb9, low, high, 0x50, 0x53, 0x5a, 0x5f, 0xe2, 0xfa, 0x66, 0x89, 0xe6, 0xbc, 0x00, 0x80,
        ];
        put_code(m, &code);
        m.set(|s| {
            s.general.regs[RSP] = 0x1234_0002;
            (s.general.regs[RAX], s.general.regs[RBX]) = (0xaaaa, 0xbbbb);
        });
        run_to_end(m);
        assert_eq!(u16::from_le_bytes(m.get(stack)), 0xaaaa);
        assert_eq!(u16::from_le_bytes(m.get(stack + 0xfffe)), 0xbbbb);
        assert_eq!((m.reg(RDX) & 0xffff, m.reg(RDI) & 0xffff), (0xbbbb, 0xaaaa));
        assert_eq!(m.reg(RSI), 0x1234_0002);
    });
}

#[test]
fn a_word_at_the_segments_last_byte_raises_gp_or_ss() {
    in_16_bits(|m| {
        // again: mov ax, [bx]; add bx, 2; jmp again
        m.put(CODE, &[0x8b, 0x07, 0x83, 0xc3, 0x02, 0xeb, 0xf9]);
        m.set(|s| s.general.regs[RBX] = 0xfe01);
        assert_eq!(m.run_to_exception(), GP);
        assert_eq!(m.reg(RBX), 0xffff);
    });
    in_16_bits(|m| {
        // again: mov ax, [bp]; add bp, 2; jmp again
        m.put(CODE, &[0x8b, 0x46, 0x00, 0x83, 0xc5, 0x02, 0xeb, 0xf8]);
        m.set(|s| s.general.regs[RBP] = 0xfe01);
        assert_eq!(m.run_to_exception(), SS_FAULT);
        assert_eq!(m.reg(RBP), 0xffff);
    });
    // The last byte alone is in the segment.
    in_16_bits(|m| {
        put_code(m, &[0xb1, 0xff, 0x02, 0x07, 0xfe, 0xc9, 0x75, 0xfa]);
        m.put(DATA + 0xffff, &[1]);
        m.set(|s| s.general.regs[RBX] = 0xffff);
        run_to_end(m);
    });
}

#[test]
fn a_limit_is_checked_where_it_is() {
    everywhere(|m| {
        protected(m);
        // again: mov [bx], al; inc bx; jmp again
        m.put(CODE, &[0x88, 0x07, 0x43, 0xeb, 0xfb]);
        m.set(|s| s.segments.regs[DS].limit = 0x1fe);
        assert_eq!(m.run_to_exception(), GP);
        assert_eq!(m.reg(RBX), 0x1ff);
    });
    // Nothing is pushed beyond the limit of the stack, whose pointer then stays.
    everywhere(|m| {
        protected(m);
        m.put(CODE, &[0x50, 0x42, 0xeb, 0xfc]); // again: push ax; inc dx; jmp again
        m.set(|s| {
            // At level 3, as what is raised is pushed too.
            s.segments.regs = [segment(19, DATA, 0xfff, 0xf3); 6];
            s.segments.regs[CS] = segment(11, CODE, 0xffff, 0xfb);
            s.segments.cpl = 3;
            s.general.regs[RSP] = 0x201;
        });
        assert_eq!(m.run_to_exception(), SS_FAULT);
        assert_eq!(m.reg(RDX), 0x100);
        let frame = m.reg(RSP);
        assert_eq!(u32::from_le_bytes(m.get(frame + 16)), 1);
    });
}

#[test]
fn segments_that_may_not_be_read_or_written_raise_gp() {
    // Data that is read only; and code that may not be read.
    for (attributes, code) in [(0x91, [0x88, 0x07]), (0x99, [0x8a, 0x07])] {
        everywhere(|m| {
            protected(m);
            let [a, b] = code;
            m.put(CODE, &[0x43, 0x4b, 0xe2, 0xfc, a, b]); // again: inc bx; dec bx; loop again
            m.set(|s| {
                s.segments.regs[DS].attributes = SegmentAttributes(attributes);
                s.general.regs[RCX] = 60;
            });
            assert_eq!(m.run_to_exception(), GP);
        });
    }
}

#[test]
fn segments_that_expand_down_have_what_is_above_the_limit() {
    everywhere(|m| {
        protected(m);
        m.put(CODE, &[0xfe, 0x07, 0x4b, 0xeb, 0xfb]); // again: inc byte [bx]; dec bx; jmp again
        m.set(|s| {
            s.segments.regs[DS].attributes = SegmentAttributes(0x97);
            s.segments.regs[DS].limit = 0xfdff;
            s.general.regs[RBX] = 0xffff;
        });
        assert_eq!(m.run_to_exception(), GP);
        assert_eq!(m.reg(RBX), 0xfdff);
    });
}

#[test]
fn branches_of_16_bits_wrap() {
    in_16_bits(|m| {
        // At 0: again: dec cx; jnz 0xfff0 (backwards through 0); the end.
        put_code(m, &[0x49, 0x0f, 0x85, 0xeb, 0xff]);
        m.put(CODE + 0xfff0, &[0x40, 0xe9, 0x0c, 0x00]); // inc ax; jmp 0
        m.set(|s| s.general.regs[RCX] = u64::from(TIMES));
        run_to_end(m);
        assert_eq!(m.reg(RAX), u64::from(TIMES) - 1);
    });
}

#[test]
fn calls_and_returns_of_16_bits_push_16() {
    in_16_bits(|m| {
        let [low, high] = TIMES.to_le_bytes();
        // mov cx, TIMES; again: call f; call di; loop again; end; f: inc dx; ret 0
        put_code(m, &[0xb9, low, high, 0xe8, 0x0a, 0x00, 0xff, 0xd7, 0xe2, 0xf9]);
        m.put(CODE + 0x10, &[0x42, 0xc2, 0x00, 0x00]);
        m.set(|s| s.general.regs[RDI] = 0x5555_0010);
        run_to_end(m);
        assert_eq!(m.reg(RDX), 2 * u64::from(TIMES));
    });
}

#[test]
fn a_return_beyond_the_code_segment_raises_gp_itself() {
    everywhere(|m| {
        protected(m);
        m.set(|s| {
            s.segments.regs[CS].limit = 0xff;
            s.general.regs[RAX] = 0x10;
        });
        // again: push ax; ret; and at 0x10: add ax, 0; dec cl; jnz again; mov ah, 1; jmp again
        m.put(CODE, &[0x50, 0xc3]);
        m.put(CODE + 0x10, &[0xfe, 0xc9, 0x75, 0xec, 0xb4, 0x01, 0xeb, 0xe8]);
        assert_eq!(m.run_to_exception(), GP);
        // What it would have returned to is on the stack still: error code, EIP, CS, EFLAGS.
        let frame = m.reg(RSP);
        let at = u32::from_le_bytes(m.get(CODE - 0x1_0000 + frame + 4));
        assert_eq!(at, 1);
    });
}

#[test]
fn a_base_that_changes_is_seen() {
    in_16_bits(|m| {
        // again: mov al, [bx]; the end for DS:0xffff follows by END.
        put_code(m, &[0xb1, 0x7f, 0x02, 0x07, 0xfe, 0xc9, 0x75, 0xfa]);
        m.put(DATA, &[1]);
        m.put(DATA + 0x20, &[2]);
        let before = m.state();
        run_to_end(m);
        assert_eq!(m.reg(RAX) & 0xff, 127);
        m.set(|s| {
            *s = before;
            s.segments.regs[DS].base += 0x20;
            s.general.regs[RAX] = 0;
        });
        run_to_end(m);
        assert_eq!(m.reg(RAX) & 0xff, 254);
    });
}

#[test]
fn the_same_offset_in_two_code_segments_is_two_places() {
    in_16_bits(|m| {
        // Indirect jumps to 0x20, in each of two segments: inc ax, or inc dx.
        for (at, inc) in [(CODE, 0x40), (CODE + 0x1000, 0x42)] {
            m.put(at, &[0xff, 0xe7]); // jmp di
            m.put(at + 0x20, &[inc, 0xe2, 0xdd, 0xa1, 0xff, 0xff]); // loop 0
        }
        let mut before = m.state();
        before.general.regs[RDI] = 0x20;
        for round in 0..6 {
            let ax = m.reg(RAX);
            let dx = m.reg(RDX);
            m.set(|s| {
                *s = before;
                s.segments.regs[CS].base = CODE + 0x1000 * (round % 2);
                s.general.regs[RCX] = 100;
                (s.general.regs[RAX], s.general.regs[RDX]) = (ax, dx);
            });
            run_to_end(m);
        }
        assert_eq!((m.reg(RAX), m.reg(RDX)), (300, 300));
    });
}

#[test]
fn virtual_8086_code_of_a_lower_iopl_raises_gp_by_what_is_sensitive() {
    // CLI, STI, PUSHF, POPF, INT 20h, IRET.
    for code in [[0xfa, 0x90], [0xfb, 0x90], [0x9c, 0x90], [0x9d, 0x90], [0xcd, 0x20], [0xcf, 0x90]]
    {
        everywhere(|m| {
            v86(m, 0);
            let [a, b] = code;
            m.put(CODE, &[0x40, 0xe2, 0xfd, a, b]); // again: inc ax; loop again
            m.set(|s| s.general.regs[RCX] = 70);
            assert_eq!(m.run_to_exception(), GP);
            assert_eq!(m.reg(RAX), 70);
            // It is the instruction itself that faults, not what comes before or behind.
            let frame = m.reg(RSP);
            assert_eq!(u32::from_le_bytes(m.get(frame + 4)), 3);
        });
    }
}

#[test]
fn virtual_8086_code_of_iopl_3_has_its_flags() {
    everywhere(|m| {
        v86(m, 3);
        // again: sti; pushf; pop dx; cli; pushf; pop di; loop again
        put_code(m, &[0xfb, 0x9c, 0x5a, 0xfa, 0x9c, 0x5f, 0xe2, 0xf8]);
        m.set(|s| s.general.regs[RCX] = u64::from(TIMES));
        run_to_end(m);
        assert_eq!(m.reg(RDX) & rflags::IF, rflags::IF);
        assert_eq!(m.reg(RDI) & rflags::IF, 0);
        assert_eq!(m.reg(RDI) & rflags::IOPL, rflags::IOPL);
    });
}

#[test]
fn code_of_32_bits_in_segments_with_bases_is_translated_by_them() {
    everywhere(|m| {
        protected(m);
        m.set(|s| {
            s.segments.regs = [segment(16, DATA, 0xfff, 0x4093); 6];
            s.segments.regs[CS] = segment(8, CODE, 0xfff, 0x409b);
            s.segments.regs[SS] = segment(16, DATA + 0x1000, 0xfff, 0x4093);
            s.segments.regs[FS] = segment(16, DATA + 0x2000, 0xff, 0x4093);
            s.general.regs[RSP] = 0x1000;
            s.general.regs[RCX] = u64::from(TIMES);
        });
        // again: add eax, [0x10]; push eax; pop edx; inc dword fs:[0x20]; loop again; inc dword fs:[0x100]
        let code = [
            0x03, 0x05, 0x10, 0, 0, 0, 0x50, 0x5a, 0x64, 0xff, 0x05, 0x20, 0, 0, 0, 0xe2, 0xef,
            0x64, 0xff, 0x05, 0x00, 0x01, 0, 0,
        ];
        m.put(CODE, &code);
        m.put(DATA + 0x10, &7_u32.to_le_bytes());
        assert_eq!(m.run_to_exception(), GP);
        assert_eq!(m.reg(RAX), 7 * u64::from(TIMES));
        assert_eq!(u32::from_le_bytes(m.get(DATA + 0x2020)), TIMES.into());
        assert_eq!(m.reg(RDX), 7 * u64::from(TIMES));
    });
}

#[test]
fn address_sizes_can_be_overridden_in_flat_code() {
    everywhere(|m| {
        protected(m);
        m.set(|s| {
            s.segments.regs = [segment(16, 0, u32::MAX, 0xc093); 6];
            s.segments.regs[CS] = segment(8, 0, u32::MAX, 0xc09b);
            s.general.rip = CODE;
            s.general.regs[RBX] = 0x1_a000;
            s.general.regs[RCX] = u64::from(TIMES);
        });
        // again: add eax, [bx+0x10]; loop again; hlt
        m.put(CODE, &[0x67, 0x03, 0x47, 0x10, 0xe2, 0xfa, HLT]);
        m.put(0xa010, &3_u32.to_le_bytes());
        m.put(0x1_a010, &1_u32.to_le_bytes());
        m.run_to_halt();
        assert_eq!(m.reg(RAX), 3 * u64::from(TIMES));
    });
}

#[test]
fn addresses_of_32_bits_wrap_also_between_accesses_that_are_near_each_other() {
    everywhere(|m| {
        // The last page of 4 GiB, by the tables of the first.
        m.put(0x1_1000 + 8 * 3, &0x1_2007_u64.to_le_bytes());
        m.put(0x1_2000 + 8 * 511, &0x1_3007_u64.to_le_bytes());
        m.map(0x1f_f000, DATA + 0x1000 | PRESENT | WRITE);
        m.put(DATA, &1_u32.to_le_bytes());
        m.put(DATA + 0x1ff0, &[2, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0]);
        m.set(|s| {
            s.segments.regs[CS] = segment(8, 0, u32::MAX, 0xc09b);
            s.general.rip = CODE;
            s.general.regs[RCX] = 300;
            s.general.regs[RDX] = 0;
            s.general.regs[RDI] = 0x8007_0000;
            s.general.regs[RSI] = 0x4001_8000;
        });
        #[rustfmt::skip]
        let code = [
            // again: mov ebx, 0xfffffff0; mov eax, [ebx]; add ebx, 16; add eax, [ebx-8]
            0xbb, 0xf0, 0xff, 0xff, 0xff, 0x8b, 0x03, 0x83, 0xc3, 0x10, 0x03, 0x43, 0xf8,
            // add [ebx-4], eax; add eax, [edi+0x7fff0000]; add eax, [4*esi]; add edx, eax
            0x01, 0x43, 0xfc, 0x03, 0x87, 0, 0, 0xff, 0x7f, 0x03, 0x04, 0xb5, 0, 0, 0, 0, 0x01, 0xc2,
            // loop again; hlt
            0xe2, 0xdf, HLT,
        ];
        m.put(CODE, &code);
        m.run_to_halt();
        assert_eq!((m.reg(RCX), m.reg(RDX)), (0, 7 * 300));
        assert_eq!(m.get::<4>(DATA + 0x1ffc), (5 * 300_u32).to_le_bytes());
    });
}

#[test]
fn big_real_mode_has_segments_of_4_gib() {
    everywhere(|m| {
        real_mode(m);
        m.set(|s| {
            s.segments.regs[ES].base = 0;
            s.segments.regs[ES].limit = u32::MAX;
            s.general.regs[RBX] = DATA;
            s.general.regs[RCX] = u64::from(TIMES);
        });
        // again: add eax, es:[ebx+4*edi]; loop again
        put_code(m, &[0x26, 0x67, 0x66, 0x03, 0x04, 0xbb, 0xe2, 0xf8]);
        m.put(DATA, &5_u32.to_le_bytes());
        run_to_end(m);
        assert_eq!(m.reg(RAX), 5 * u64::from(TIMES));
    });
}
