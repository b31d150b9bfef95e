//! What the blocks of a loop are made of: instructions that leave nothing undefined, on registers,
//! memory and the stack.

use iced_x86::{Code, IcedError, Instruction, MemoryOperand, Register};

use super::assemble::Assembly;
use super::choices::Choices;
use super::machine::{DATA, DATA_SIZE};

/// Which register is for what.
pub(super) struct Roles {
    /// It is 64-bit code.
    pub(super) wide: bool,
    /// What the loop counts with.
    pub(super) counter: u8,
    /// Registers that lead to data; the first is a multiple of 32.
    pub(super) pointers: Vec<u8>,
    /// Those that may have any value.
    pub(super) data: Vec<u8>,
    /// Whether RCX, RSI and RDI are among the last.
    pub(super) strings: bool,
}

/// Numbers of registers.
pub(super) const RSP: u8 = 4;
const RCX: u8 = 1;
const RSI: u8 = 6;
const RDI: u8 = 7;

impl Roles {
    pub(super) fn new(choices: &mut Choices<'_>, wide: bool) -> Self {
        let strings = choices.chance(6);
        let is_apart = |n: &u8| *n == RSP || strings && [RCX, RSI, RDI].contains(n);
        let mut free: Vec<u8> = (0..if wide { 16 } else { 8 }).filter(|n| !is_apart(n)).collect();
        for n in (1..free.len()).rev() {
            free.swap(n, choices.below(n as u64 + 1) as usize);
        }
        let counter = free.pop().unwrap_or(0);
        let pointers = 1 + choices.below(if wide && !strings { 4 } else { 2 }) as usize;
        let pointers = free.split_off(free.len() - pointers);
        // Few of those that are left, or all.
        if choices.chance(8) {
            free.truncate(2 + choices.below(3) as usize);
        }
        if strings {
            free.extend([RCX, RSI, RDI]);
        }
        Self { wide, counter, pointers, data: free, strings }
    }

    pub(super) fn word(&self) -> u8 {
        if self.wide { 8 } else { 4 }
    }
}

/// The register of a number and size.
pub(super) fn register(number: u8, size: u8) -> Register {
    let n = u32::from(number);
    match size {
        8 => Register::RAX + n,
        4 => Register::EAX + n,
        2 => Register::AX + n,
        _ if number < 4 => Register::AL + n,
        _ => Register::SPL + (n - 4),
    }
}

/// By log2 of their operands' bytes: of a register or memory and a register.
const INTO: &[[Code; 4]] = &[
    [Code::Mov_rm8_r8, Code::Mov_rm16_r16, Code::Mov_rm32_r32, Code::Mov_rm64_r64],
    [Code::Mov_rm8_r8, Code::Mov_rm16_r16, Code::Mov_rm32_r32, Code::Mov_rm64_r64],
    [Code::Add_rm8_r8, Code::Add_rm16_r16, Code::Add_rm32_r32, Code::Add_rm64_r64],
    [Code::Adc_rm8_r8, Code::Adc_rm16_r16, Code::Adc_rm32_r32, Code::Adc_rm64_r64],
    [Code::Sub_rm8_r8, Code::Sub_rm16_r16, Code::Sub_rm32_r32, Code::Sub_rm64_r64],
    [Code::Sbb_rm8_r8, Code::Sbb_rm16_r16, Code::Sbb_rm32_r32, Code::Sbb_rm64_r64],
    [Code::Xor_rm8_r8, Code::Xor_rm16_r16, Code::Xor_rm32_r32, Code::Xor_rm64_r64],
    [Code::Cmp_rm8_r8, Code::Cmp_rm16_r16, Code::Cmp_rm32_r32, Code::Cmp_rm64_r64],
    [Code::Test_rm8_r8, Code::Test_rm16_r16, Code::Test_rm32_r32, Code::Test_rm64_r64],
    [Code::Xchg_rm8_r8, Code::Xchg_rm16_r16, Code::Xchg_rm32_r32, Code::Xchg_rm64_r64],
    [Code::Xadd_rm8_r8, Code::Xadd_rm16_r16, Code::Xadd_rm32_r32, Code::Xadd_rm64_r64],
];

/// The same of a register and a register or memory.
const FROM: &[[Code; 4]] = &[
    [Code::Mov_r8_rm8, Code::Mov_r16_rm16, Code::Mov_r32_rm32, Code::Mov_r64_rm64],
    [Code::Mov_r8_rm8, Code::Mov_r16_rm16, Code::Mov_r32_rm32, Code::Mov_r64_rm64],
    [Code::Add_r8_rm8, Code::Add_r16_rm16, Code::Add_r32_rm32, Code::Add_r64_rm64],
    [Code::Adc_r8_rm8, Code::Adc_r16_rm16, Code::Adc_r32_rm32, Code::Adc_r64_rm64],
    [Code::Xor_r8_rm8, Code::Xor_r16_rm16, Code::Xor_r32_rm32, Code::Xor_r64_rm64],
    [Code::Cmp_r8_rm8, Code::Cmp_r16_rm16, Code::Cmp_r32_rm32, Code::Cmp_r64_rm64],
    [Code::Cmovb_r16_rm16, Code::Cmovb_r16_rm16, Code::Cmovb_r32_rm32, Code::Cmovb_r64_rm64],
    [Code::Cmovg_r16_rm16, Code::Cmovg_r16_rm16, Code::Cmovg_r32_rm32, Code::Cmovg_r64_rm64],
    [Code::Cmovo_r16_rm16, Code::Cmovo_r16_rm16, Code::Cmovo_r32_rm32, Code::Cmovo_r64_rm64],
];

/// The same of a register or memory alone.
const UNARY: &[[Code; 4]] = &[
    [Code::Inc_rm8, Code::Inc_rm16, Code::Inc_rm32, Code::Inc_rm64],
    [Code::Dec_rm8, Code::Dec_rm16, Code::Dec_rm32, Code::Dec_rm64],
    [Code::Neg_rm8, Code::Neg_rm16, Code::Neg_rm32, Code::Neg_rm64],
    [Code::Not_rm8, Code::Not_rm16, Code::Not_rm32, Code::Not_rm64],
    [Code::Setb_rm8, Code::Setb_rm8, Code::Setb_rm8, Code::Setb_rm8],
    [Code::Setle_rm8, Code::Setle_rm8, Code::Setle_rm8, Code::Setle_rm8],
];

/// Loads of vectors, and what needs aligned memory.
const VECTOR_LOADS: &[Code] = &[
    Code::Movups_xmm_xmmm128,
    Code::Movdqu_xmm_xmmm128,
    Code::Movd_xmm_rm32,
    Code::Movq_xmm_xmmm64,
    Code::Movhps_xmm_m64,
    Code::Cvtps2pd_xmm_xmmm64,
    Code::Pmovzxbw_xmm_xmmm64,
    Code::VEX_Vmovdqu_ymm_ymmm256,
    Code::VEX_Vmovups_xmm_xmmm128,
    Code::VEX_Vbroadcastss_ymm_m32,
    Code::VEX_Vpmovsxbw_ymm_xmmm128,
];
const VECTOR_STORES: &[Code] = &[
    Code::Movups_xmmm128_xmm,
    Code::Movdqu_xmmm128_xmm,
    Code::Movd_rm32_xmm,
    Code::Movq_xmmm64_xmm,
    Code::Movhps_m64_xmm,
    Code::VEX_Vmovdqu_ymmm256_ymm,
    Code::VEX_Vmovups_xmmm128_xmm,
];
const ALIGNED: &[Code] = &[
    Code::Paddd_xmm_xmmm128,
    Code::Pxor_xmm_xmmm128,
    Code::Addpd_xmm_xmmm128,
    Code::Movaps_xmm_xmmm128,
    Code::VEX_Vmovdqa_ymm_ymmm256,
];
const ALIGNED_STORES: &[Code] =
    &[Code::Movaps_xmmm128_xmm, Code::VEX_Vmovdqa_ymmm256_ymm, Code::Movntdq_m128_xmm];

const X87_LOADS: &[Code] = &[
    Code::Fld_m32fp,
    Code::Fld_m64fp,
    Code::Fld_m80fp,
    Code::Fild_m16int,
    Code::Fild_m32int,
    Code::Fild_m64int,
];
const X87_AMID: &[Code] =
    &[Code::Fadd_m32fp, Code::Fmul_m64fp, Code::Fst_m64fp, Code::Fist_m16int, Code::Fadd_m64fp];
const X87_STORES: &[Code] = &[
    Code::Fstp_m32fp,
    Code::Fstp_m64fp,
    Code::Fstp_m80fp,
    Code::Fistp_m16int,
    Code::Fistp_m32int,
    Code::Fistp_m64int,
];

/// Log2 of the elements' bytes.
const STRINGS: &[u8] = &[0, 1, 2, 3];

/// What makes a loop's blocks.
pub(super) struct Body<'c, 'b> {
    pub(super) choices: &'c mut Choices<'b>,
    pub(super) asm: Assembly,
    pub(super) roles: Roles,
}

impl Body<'_, '_> {
    pub(super) fn word(&self) -> u8 {
        self.roles.word()
    }

    pub(super) fn data(&mut self) -> u8 {
        let n = self.choices.below(self.roles.data.len() as u64) as usize;
        self.roles.data[n]
    }

    /// A data register of some size.
    fn part(&mut self, log: u8) -> Register {
        let number = self.data();
        match log {
            0 if number < 4 && self.choices.chance(5) => Register::AH + u32::from(number),
            0 if !self.roles.wide && number >= 4 => Register::AL,
            _ => register(number, 1 << log),
        }
    }

    /// Log2 of an operand's bytes.
    fn size(&mut self) -> u8 {
        let sizes: &[u8] = if self.roles.wide { &[0, 1, 2, 2, 3, 3] } else { &[0, 1, 2, 2] };
        self.choices.pick(sizes)
    }

    /// Memory by a number alone, of data.
    fn absolute(&mut self) -> MemoryOperand {
        let at = DATA + 0xf00 + self.choices.below(0x200);
        let none = Register::None;
        match self.roles.wide {
            true if self.choices.chance(12) => {
                MemoryOperand::new(Register::RIP, none, 1, at as i64, 8, false, none)
            }
            true => MemoryOperand::new(none, none, 1, at as i64, 8, false, none),
            false => MemoryOperand::new(none, none, 1, at as i64, 4, false, none),
        }
    }

    /// A memory operand, of which R8 to R15 and the like are no more than what may be encoded.
    pub(super) fn memory(&mut self) -> MemoryOperand {
        let word = self.word();
        let none = Register::None;
        let n = self.choices.below(self.roles.pointers.len() as u64) as usize;
        let base = register(self.roles.pointers[n], word);
        let near: &[i64] = &[0, 0, 0, 1, 2, 3, 4, 5, 7, 8, 8, 16, 24, 31, 60, 100, 200, -1, -4, -8];
        let displacement = self.choices.pick(near);
        let size = u32::from(displacement != 0);
        let plain =
            |base, displacement| MemoryOperand::new(base, none, 1, displacement, size, false, none);
        match self.choices.below(16) {
            0 => self.absolute(),
            // Not where a function is to return to.
            1 => plain(register(RSP, word), 64 + (displacement & !7)),
            2 => plain(register(RSP, word), 64 + self.choices.pick(&[0, 1, 6, 12, 17])),
            3 => {
                // An operand around a segment's limit of 4 GiB may fault or not. Intel SDM vol. 3, 5.3.
                let displacement = displacement.abs();
                let segment = self.choices.pick(&[Register::FS, Register::GS]);
                let index = self.byte_in_register();
                MemoryOperand::new(
                    register(index, word),
                    none,
                    1,
                    displacement,
                    size,
                    false,
                    segment,
                )
            }
            4 | 5 => {
                let index = self.byte_in_register();
                let scale = self.choices.pick(&[1, 2, 4, 8]);
                let index = register(index, word);
                MemoryOperand::new(base, index, scale, displacement, size, false, none)
            }
            6 if self.roles.wide => {
                // An address of 32 bits.
                plain(register(self.roles.pointers[n], 4), displacement)
            }
            _ => plain(base, displacement),
        }
    }

    /// Loads a byte of data into a register, as something to add to an address; gives the register.
    fn byte_in_register(&mut self) -> u8 {
        let index = self.data();
        let from = self.data();
        let from = if from < 4 || self.roles.wide { register(from, 1) } else { Register::AL };
        self.asm.add(Instruction::with2(Code::Movzx_r32_rm8, register(index, 4), from));
        index
    }

    /// Memory where the first pointer leads, which is aligned.
    fn aligned(&mut self) -> MemoryOperand {
        let near: &[i64] =
            if self.choices.chance(1) { &[16, 8, 1] } else { &[0, 0, 32, 64, 96, -32, -64] };
        let displacement = self.choices.pick(near);
        let base = register(self.roles.pointers[0], self.word());
        let size = u32::from(displacement != 0);
        MemoryOperand::new(base, Register::None, 1, displacement, size, false, Register::None)
    }

    /// Some instructions.
    pub(super) fn body(&mut self, most: u64) {
        for _ in 0..self.choices.below(most + 1) {
            self.one();
        }
    }

    /// One instruction, or some that belong together.
    pub(super) fn one(&mut self) {
        match self.choices.below(24) {
            0..=3 => self.registers(),
            4..=7 => self.load(),
            8..=11 => self.store(),
            12 => self.unary(),
            13 => self.immediate(),
            14..=16 => self.vector(),
            17 => self.x87(),
            18 | 19 => self.stack(),
            20 => self.flags(),
            21 => self.odd(),
            22 if self.roles.strings => self.string(),
            _ => self.lea(),
        };
    }

    pub(super) fn registers(&mut self) -> bool {
        let size = self.size();
        let (to, from) = (self.part(size), self.part(size));
        let code = self.choices.pick(INTO)[usize::from(size)];
        self.asm.add(Instruction::with2(code, to, from))
    }

    fn load(&mut self) -> bool {
        if self.choices.chance(3) {
            let codes = [Code::Movzx_r32_rm8, Code::Movsx_r32_rm16, Code::Movzx_r32_rm16];
            let (to, from) = (self.part(2), self.memory());
            return self.asm.add(Instruction::with2(self.choices.pick(&codes), to, from));
        }
        let size = self.size();
        let code = self.choices.pick(FROM)[usize::from(size)];
        let is_cmov = FROM[6..].iter().any(|codes| codes[0] == code);
        let from = self.memory();
        let to = self.part(if is_cmov && size == 0 { 1 } else { size });
        self.asm.add(Instruction::with2(code, to, from))
    }

    fn store(&mut self) -> bool {
        let size = self.size();
        let memory = self.memory();
        let from = self.part(size);
        let code = self.choices.pick(INTO)[usize::from(size)];
        self.asm.add(Instruction::with2(code, memory, from).map(|mut i| {
            let locks = !matches!(i.mnemonic(), iced_x86::Mnemonic::Mov | iced_x86::Mnemonic::Cmp)
                && i.mnemonic() != iced_x86::Mnemonic::Test;
            i.set_has_lock_prefix(locks && size == 2);
            i
        }))
    }

    fn unary(&mut self) -> bool {
        let size = self.size();
        let code = self.choices.pick(UNARY)[usize::from(size)];
        if self.choices.chance(8) {
            let memory = self.memory();
            return self.asm.add(Instruction::with1(code, memory));
        }
        let is_set = UNARY[4..].iter().any(|codes| codes[0] == code);
        let to = self.part(if is_set { 0 } else { size });
        self.asm.add(Instruction::with1(code, to))
    }

    fn immediate(&mut self) -> bool {
        let value = self.choices.pick(&[1, 2, 0x7f, -1, -128, 8, 0x55]);
        let to = self.part(2);
        let code = self.choices.pick(&[
            Code::Add_rm32_imm8,
            Code::Sub_rm32_imm8,
            Code::Cmp_rm32_imm8,
            Code::Adc_rm32_imm8,
            Code::Xor_rm32_imm8,
            Code::And_rm32_imm8,
        ]);
        if self.choices.chance(4) {
            let memory = self.memory();
            return self.asm.add(Instruction::with2(code, memory, value));
        }
        self.asm.add(Instruction::with2(code, to, value))
    }

    fn xmm(&mut self, code: Code) -> Register {
        let n = self.choices.below(if self.roles.wide { 10 } else { 8 }) as u32;
        let is_wide = format!("{code:?}").contains("_ymm");
        if is_wide { Register::YMM0 + n } else { Register::XMM0 + n }
    }

    fn vector(&mut self) -> bool {
        let kind = self.choices.below(8);
        let codes = match kind {
            0..=2 => VECTOR_LOADS,
            3..=5 => VECTOR_STORES,
            6 => ALIGNED,
            _ => ALIGNED_STORES,
        };
        let code = self.choices.pick(codes);
        let register = self.xmm(code);
        let memory = if kind < 6 { self.memory() } else { self.aligned() };
        let is_load = matches!(kind, 0..=2 | 6);
        self.asm.add(match is_load {
            true => Instruction::with2(code, register, memory),
            false => Instruction::with2(code, memory, register),
        })
    }

    fn x87(&mut self) -> bool {
        let plain = |mut memory: MemoryOperand| {
            memory.segment_prefix = Register::None;
            memory
        };
        let (a, b, c) = (self.memory(), self.memory(), self.memory());
        let (first, last) = (self.choices.pick(X87_LOADS), self.choices.pick(X87_STORES));
        let amid = self.choices.pick(X87_AMID);
        // The place of an operand in FS may be more than it is worth to know.
        let loaded = self.asm.add(Instruction::with1(first, plain(a)));
        if self.choices.chance(8) {
            self.asm.add(Instruction::with1(amid, plain(b)));
        }
        if self.choices.chance(4) {
            self.one();
        }
        loaded && self.asm.add(Instruction::with1(last, plain(c)))
    }

    /// What goes and comes again.
    fn stack(&mut self) -> bool {
        let word = self.word();
        let (from, to) = (register(self.data(), word), register(self.data(), word));
        let (push, pop) = match self.roles.wide {
            true => (Code::Push_r64, Code::Pop_r64),
            false => (Code::Push_r32, Code::Pop_r32),
        };
        self.asm.add(Instruction::with1(push, from));
        if self.choices.chance(8) {
            self.one();
        }
        match self.choices.below(8) {
            0 => {
                let code = if self.roles.wide { Code::Pop_rm64 } else { Code::Pop_rm32 };
                let memory = self.memory();
                if self.asm.add(Instruction::with1(code, memory)) {
                    return true;
                }
                self.asm.add(Instruction::with1(pop, to))
            }
            1 => {
                let flags = if self.roles.wide { Code::Pushfq } else { Code::Pushfd };
                self.asm.add(Ok(Instruction::with(flags)));
                if self.choices.chance(8) {
                    let back = if self.roles.wide { Code::Popfq } else { Code::Popfd };
                    self.registers();
                    self.asm.add(Ok(Instruction::with(back)));
                } else {
                    self.asm.add(Instruction::with1(pop, to));
                }
                self.asm.add(Instruction::with1(pop, from))
            }
            _ => self.asm.add(Instruction::with1(pop, to)),
        }
    }

    fn flags(&mut self) -> bool {
        let code = self.choices.pick(&[
            Code::Stc,
            Code::Clc,
            Code::Cmc,
            Code::Lahf,
            Code::Cld,
            Code::Nopd,
        ]);
        if code == Code::Lahf && !self.roles.data.contains(&0) {
            return false;
        }
        self.asm.add(Ok(Instruction::with(code)))
    }

    /// What is otherwise than most in some way.
    fn odd(&mut self) -> bool {
        let log = 2 + u8::from(self.roles.wide && self.choices.chance(8));
        let at = usize::from(log - 2);
        let (a, b) = (self.part(log), self.part(log));
        let memory = self.memory();
        match self.choices.below(7) {
            0 => {
                let code = [Code::Bswap_r32, Code::Bswap_r64][at];
                self.asm.add(Instruction::with1(code, a))
            }
            1 if self.roles.data.contains(&0) => {
                let code = [Code::Cmpxchg_rm32_r32, Code::Cmpxchg_rm64_r64][at];
                self.asm.add(Instruction::with2(code, memory, b))
            }
            2 => {
                let code = [Code::Movbe_r32_m32, Code::Movbe_r64_m64][at];
                self.asm.add(Instruction::with2(code, a, memory))
            }
            3 => {
                let code = [Code::VEX_Rorx_r32_rm32_imm8, Code::VEX_Rorx_r64_rm64_imm8][at];
                self.asm.add(Instruction::with3(code, a, memory, 7))
            }
            4 => {
                let code = [Code::VEX_Shlx_r32_rm32_r32, Code::VEX_Shlx_r64_rm64_r64][at];
                self.asm.add(Instruction::with3(code, a, memory, b))
            }
            5 => {
                let code = [Code::Popcnt_r32_rm32, Code::Popcnt_r64_rm64][at];
                self.asm.add(Instruction::with2(code, a, memory))
            }
            _ => {
                let code = [Code::Crc32_r32_rm32, Code::Crc32_r64_rm64][at];
                self.asm.add(Instruction::with2(code, a, memory))
            }
        }
    }

    /// REP MOVS and REP STOS, of some bytes of data.
    fn string(&mut self) -> bool {
        let kinds = if self.roles.wide { STRINGS } else { &STRINGS[..3] };
        let kind = self.choices.pick(kinds);
        let copies = self.choices.chance(10);
        let count = self.choices.pick(&[0, 1, 3, 7, 16, 33, 100]);
        let [from, to] = [0; 2].map(|_| DATA + 0x800 + self.choices.below(DATA_SIZE - 0x1000));
        for (number, value) in [(RCX, count), (RSI, from as u32), (RDI, to as u32)] {
            self.asm.add(Instruction::with2(Code::Mov_r32_imm32, register(number, 4), value));
        }
        let bits = if self.roles.wide { 64 } else { 32 };
        self.asm.add(string_instruction(kind, copies, bits))
    }

    pub(super) fn lea(&mut self) -> bool {
        let log = 2 + u8::from(self.roles.wide && self.choices.chance(8));
        let (to, memory) = (self.part(log), self.memory());
        let code = if log == 3 { Code::Lea_r64_m } else { Code::Lea_r32_m };
        self.asm.add(Instruction::with2(code, to, memory))
    }
}

/// REP MOVS or REP STOS.
fn string_instruction(log: u8, copies: bool, bits: u32) -> Result<Instruction, IcedError> {
    use iced_x86::RepPrefixKind::Repe;
    match (log, copies) {
        (0, true) => Instruction::with_movsb(bits, Register::None, Repe),
        (1, true) => Instruction::with_movsw(bits, Register::None, Repe),
        (2, true) => Instruction::with_movsd(bits, Register::None, Repe),
        (_, true) => Instruction::with_movsq(bits, Register::None, Repe),
        (0, false) => Instruction::with_stosb(bits, Repe),
        (1, false) => Instruction::with_stosw(bits, Repe),
        (2, false) => Instruction::with_stosd(bits, Repe),
        (_, false) => Instruction::with_stosq(bits, Repe),
    }
}
