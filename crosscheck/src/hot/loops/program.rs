//! Loops: blocks with branches whose ways depend on data, functions that return and that do not, and
//! what changes tables and code around them.

use iced_x86::{Code, Instruction, MemoryOperand, Register};

use super::assemble::{Assembled, Assembly, Label};
use super::body::{Body, RSP, Roles, register};
use super::choices::Choices;
use super::machine::{CODE, CODE_SIZE, DATA, Kind, OTHER, STACK};

/// A program.
pub(super) struct Program {
    /// Address and bytes of its parts.
    pub(super) sections: Vec<(u64, Vec<u8>)>,
    /// Where it begins, and begins again after exceptions.
    pub(super) start: u64,
    /// Bytes of it that may have any value.
    pub(super) spots: Vec<u64>,
    /// Where some of its blocks begin.
    pub(super) blocks: Vec<u64>,
}

struct Maker<'c, 'b> {
    body: Body<'c, 'b>,
    kind: Kind,
    /// Instructions whose last byte may have any value.
    spots: Vec<Label>,
    blocks: Vec<Label>,
    /// Of what is seldom run, and of functions.
    cold: usize,
    functions: usize,
    latch: Label,
}

/// Conditional branches: Jcc rel32.
const CONDITIONS: [[Code; 2]; 12] = [
    [Code::Jb_rel32_32, Code::Jb_rel32_64],
    [Code::Jae_rel32_32, Code::Jae_rel32_64],
    [Code::Je_rel32_32, Code::Je_rel32_64],
    [Code::Jne_rel32_32, Code::Jne_rel32_64],
    [Code::Js_rel32_32, Code::Js_rel32_64],
    [Code::Jns_rel32_32, Code::Jns_rel32_64],
    [Code::Jp_rel32_32, Code::Jp_rel32_64],
    [Code::Jo_rel32_32, Code::Jo_rel32_64],
    [Code::Jl_rel32_32, Code::Jl_rel32_64],
    [Code::Jg_rel32_32, Code::Jg_rel32_64],
    [Code::Jbe_rel32_32, Code::Jbe_rel32_64],
    [Code::Jge_rel32_32, Code::Jge_rel32_64],
];
const JMP: [Code; 2] = [Code::Jmp_rel32_32, Code::Jmp_rel32_64];
const CALL: [Code; 2] = [Code::Call_rel32_32, Code::Call_rel32_64];

/// Makes one.
pub(super) fn make(choices: &mut Choices<'_>, kind: Kind) -> Program {
    let wide = kind.wide;
    let roles = Roles::new(choices, wide);
    let mut asm = Assembly::new(if wide { 64 } else { 32 });
    // Blocks lie across pages too.
    let mut at = [CODE, CODE + 0x4000, CODE + 0x8000];
    for at in &mut at {
        *at += if choices.chance(8) { 0xf00 + choices.below(0x100) } else { choices.below(0x800) };
    }
    let [main, cold, functions] = at.map(|at| asm.section(at));
    asm.switch(main);
    let latch = asm.label();
    let body = Body { choices, asm, roles };
    let mut maker =
        Maker { body, kind, spots: Vec::new(), blocks: Vec::new(), cold, functions, latch };
    let start = maker.program();
    let Maker { body, spots, blocks, .. } = maker;
    let assembled = body.asm.finish();
    let Assembled { ref sections, .. } = assembled;
    debug_assert!(sections.iter().all(|(at, bytes)| at + bytes.len() as u64 <= CODE + CODE_SIZE));
    Program {
        start: assembled.address(start),
        spots: spots.iter().map(|&spot| assembled.last_byte(spot)).collect(),
        blocks: blocks.iter().map(|&block| assembled.address(block)).collect(),
        sections: assembled.sections,
    }
}

impl Maker<'_, '_> {
    fn label(&mut self) -> Label {
        self.body.asm.label()
    }

    fn way(&self, codes: [Code; 2]) -> Code {
        codes[usize::from(self.kind.wide)]
    }

    fn branch(&mut self, codes: [Code; 2], to: Label) {
        let code = self.way(codes);
        self.body.asm.branch(code, to);
    }

    fn chance(&mut self, of_16: u64) -> bool {
        self.body.choices.chance(of_16)
    }

    fn register(&self, number: u8) -> Register {
        register(number, self.body.word())
    }

    /// Gives a register of any size a number.
    fn set(&mut self, number: u8, value: u64) {
        let made = Instruction::with2(Code::Mov_r32_imm32, register(number, 4), value as u32);
        self.body.asm.add(made);
    }

    /// All of it; gives where it begins.
    fn program(&mut self) -> Label {
        let (outer, inner) = (self.label(), self.label());
        self.body.asm.put(outer);
        self.set(RSP, STACK);
        let strides: Vec<u64> = self.pointers();
        if self.chance(8) {
            self.action();
        }
        let count = 2 + self.body.choices.below(40);
        self.set(self.body.roles.counter, count);
        let blocks = 1 + self.body.choices.below(6);
        self.body.asm.put(inner);
        self.block_begins(inner);
        for _ in 0..blocks {
            self.block();
        }
        self.end(inner, &strides, count);
        if self.chance(8) {
            self.action();
        }
        self.branch(JMP, outer);
        outer
    }

    fn block_begins(&mut self, label: Label) {
        self.blocks.push(label);
    }

    /// Lets the pointers lead to data; gives what they are moved by each time around.
    fn pointers(&mut self) -> Vec<u64> {
        let mut strides = Vec::new();
        for (n, pointer) in self.body.roles.pointers.clone().into_iter().enumerate() {
            let page = DATA + 0x2000 + 0x1000 * self.body.choices.below(4);
            let offset = match self.chance(8) {
                true => 0xf80 + self.body.choices.below(0x80),
                false => self.body.choices.below(0x1000),
            };
            let all: &[u64] = &[0, 1, 3, 4, 8, 8, 16, 24, 32, 64, 100, 255, 512, 1000];
            let stride = self.body.choices.pick(all);
            let mask = if n == 0 { 31 } else { 0 };
            self.set(pointer, page + offset & !mask);
            strides.push(stride & !mask);
        }
        strides
    }

    /// Something that is tested, and a branch that depends on it.
    fn conditional(&mut self, to: Label) {
        let data = self.body.data();
        let tested = register(data, 4);
        let value = self.body.choices.pick(&[1, 2, 4, 3, 0x10, 0x40]);
        let made = match self.body.choices.below(5) {
            0 => Some(Instruction::with2(Code::Test_rm32_imm32, tested, value)),
            1 => Some(Instruction::with2(Code::Add_rm32_imm8, tested, value)),
            2 => {
                let with = register(self.body.data(), 4);
                Some(Instruction::with2(Code::Cmp_rm32_r32, tested, with))
            }
            3 => {
                let memory = self.body.memory();
                Some(Instruction::with2(Code::Cmp_rm8_imm8, memory, value))
            }
            // The flags that there are.
            _ => None,
        };
        if let Some(made) = made {
            self.body.asm.add(made);
        }
        if self.chance(5) {
            // That leave flags alone.
            let memory = self.body.memory();
            let to = register(self.body.data(), 4);
            self.body.asm.add(Instruction::with2(Code::Mov_r32_rm32, to, memory));
        }
        let condition = self.body.choices.pick(&CONDITIONS);
        self.branch(condition, to);
    }

    fn block(&mut self) {
        self.body.body(6);
        self.spot();
        let next = self.label();
        match self.body.choices.below(12) {
            0..=4 => {
                let aside = self.aside(next);
                self.conditional(aside);
            }
            5 => self.conditional(next),
            6 => {
                let aside = self.aside(next);
                self.branch(JMP, aside);
            }
            7 => self.small_loop(),
            _ => self.call(next),
        }
        self.body.asm.put(next);
        self.block_begins(next);
        // The label needs an instruction.
        self.body.registers();
    }

    /// An instruction whose last byte may be overwritten.
    fn spot(&mut self) {
        if self.chance(8) {
            let spot = self.label();
            self.body.asm.put(spot);
            self.spots.push(spot);
            let to = register(self.body.data(), 4);
            self.body.asm.add(Instruction::with2(Code::Add_rm32_imm8, to, 5));
        }
    }

    /// A block elsewhere that goes on at a label; gives where it is.
    fn aside(&mut self, next: Label) -> Label {
        let here = self.body.asm.switch(self.cold);
        let label = self.label();
        self.body.asm.put(label);
        self.block_begins(label);
        self.body.registers();
        self.body.body(3);
        if self.chance(1) {
            self.action();
        }
        self.spot();
        let next = if self.chance(3) { self.latch } else { next };
        self.branch(JMP, next);
        self.body.asm.switch(here);
        label
    }

    /// A loop of one block within the loop.
    fn small_loop(&mut self) {
        if self.body.roles.data.len() < 3 {
            return;
        }
        let at = self.body.choices.below(self.body.roles.data.len() as u64) as usize;
        let counter = self.body.roles.data[at];
        if self.body.roles.strings && [1, 6, 7].contains(&counter) || counter == 0 {
            return;
        }
        self.body.roles.data.swap_remove(at);
        let count = 1 + self.body.choices.below(20);
        self.set(counter, count);
        let again = self.label();
        self.body.asm.put(again);
        self.block_begins(again);
        self.body.lea();
        self.body.registers();
        self.body.body(5);
        self.body.asm.add(Instruction::with1(Code::Dec_rm32, register(counter, 4)));
        self.branch([Code::Jne_rel32_32, Code::Jne_rel32_64], again);
        self.body.roles.data.push(counter);
    }

    /// Calls a function that goes on at a label, or behind the call.
    fn call(&mut self, next: Label) {
        let behind = self.label();
        let function = self.function(next, Some(behind));
        let by_register = self.body.data();
        if self.chance(2) {
            // Its address cannot be told before all is there.
            let to = self.register(by_register);
            let made = Instruction::with2(Code::Mov_r32_imm32, register(by_register, 4), 0x4_0000);
            self.body.asm.add_address(made, function);
            let code = if self.kind.wide { Code::Call_rm64 } else { Code::Call_rm32 };
            self.body.asm.add(Instruction::with1(code, to));
        } else {
            self.branch(CALL, function);
        }
        self.body.asm.put(behind);
        if self.chance(8) {
            self.body.one();
        }
    }

    /// Makes a function, which may go on at a label in place of the one behind the call, if that is
    /// known; gives where it is.
    fn function(&mut self, other: Label, behind: Option<Label>) -> Label {
        let inner = (behind.is_some() && self.chance(4)).then(|| self.function(other, None));
        let here = self.body.asm.switch(self.functions);
        let label = self.label();
        self.body.asm.put(label);
        self.block_begins(label);
        self.body.registers();
        self.body.body(4);
        if let Some(inner) = inner {
            self.branch(CALL, inner);
        }
        self.spot();
        self.returns(other, behind);
        self.body.asm.switch(here);
        label
    }

    fn returns(&mut self, other: Label, behind: Option<Label>) {
        let wide = self.kind.wide;
        let (ret, ret_more) = match wide {
            true => (Code::Retnq, Code::Retnq_imm16),
            false => (Code::Retnd, Code::Retnd_imm16),
        };
        let plain = Instruction::with(ret);
        let stack = self.register(RSP);
        let top = MemoryOperand::with_base(stack);
        match (self.body.choices.below(if behind.is_some() { 14 } else { 8 }), behind) {
            // To another place at times, which no branch tells of.
            (12.., Some(behind)) if self.body.roles.data.len() > 1 => {
                let [a, b] = [self.body.roles.data[0], self.body.roles.data[1]];
                for (number, to) in [(a, behind), (b, other)] {
                    let to_number = register(number, 4);
                    let made = Instruction::with2(Code::Mov_r32_imm32, to_number, 0x4_0000);
                    self.body.asm.add_address(made, to);
                }
                let (cmov, store) = match wide {
                    true => (Code::Cmovs_r64_rm64, Code::Mov_rm64_r64),
                    false => (Code::Cmovs_r32_rm32, Code::Mov_rm32_r32),
                };
                let (a, b) = (self.register(a), self.register(b));
                self.body.asm.add(Instruction::with2(cmov, a, b));
                self.body.asm.add(Instruction::with2(store, top, a));
                self.body.asm.add(Ok(plain));
            }
            // To another place at times.
            (8 | 9, _) => {
                let usual = self.label();
                self.conditional(usual);
                let code = if wide { Code::Mov_rm64_imm32 } else { Code::Mov_rm32_imm32 };
                self.body.asm.add_address(Instruction::with2(code, top, 0x4_0000), other);
                self.body.asm.put(usual);
                self.body.asm.add(Ok(plain));
            }
            (10, _) => {
                let to = self.register(self.body.roles.data[0]);
                let (pop, jmp) = match wide {
                    true => (Code::Pop_r64, Code::Jmp_rm64),
                    false => (Code::Pop_r32, Code::Jmp_rm32),
                };
                self.body.asm.add(Instruction::with1(pop, to));
                self.body.asm.add(Instruction::with1(jmp, to));
            }
            (11, _) => {
                let usual = self.label();
                self.conditional(usual);
                let code = if wide { Code::Lea_r64_m } else { Code::Lea_r32_m };
                let more = MemoryOperand::with_base_displ(stack, self.body.word().into());
                self.body.asm.add(Instruction::with2(code, stack, more));
                self.branch(JMP, other);
                self.body.asm.put(usual);
                self.body.asm.add(Ok(plain));
            }
            (7, _) => {
                // What was pushed is not taken off but dropped.
                let push = if wide { Code::Push_r64 } else { Code::Push_r32 };
                let from = register(self.body.data(), self.body.word());
                self.body.asm.add(Instruction::with1(push, from));
                let code = if wide { Code::Lea_r64_m } else { Code::Lea_r32_m };
                let more = MemoryOperand::with_base_displ(stack, self.body.word().into());
                self.body.asm.add(Instruction::with2(code, stack, more));
                self.body.asm.add(Ok(plain));
            }
            (6, _) => {
                self.body.asm.add(Instruction::with1(ret_more, 8));
            }
            _ => {
                self.body.asm.add(Ok(plain));
            }
        }
    }

    /// The end of the loop: pointers move, and it is counted.
    fn end(&mut self, again: Label, strides: &[u64], count: u64) {
        let latch = self.latch;
        self.body.asm.put(latch);
        self.block_begins(latch);
        self.body.lea();
        self.body.registers();
        for (pointer, stride) in self.body.roles.pointers.clone().into_iter().zip(strides) {
            if *stride == 0 || stride * count > 0x5000 {
                continue;
            }
            let to = self.register(pointer);
            let code = if self.kind.wide { Code::Add_rm64_imm32 } else { Code::Add_rm32_imm32 };
            let by = match self.chance(8) {
                true => Instruction::with2(code, to, *stride as i32),
                false => {
                    let code = if self.kind.wide { Code::Lea_r64_m } else { Code::Lea_r32_m };
                    Instruction::with2(code, to, MemoryOperand::with_base_displ(to, *stride as i64))
                }
            };
            self.body.asm.add(by);
        }
        let counter = register(self.body.roles.counter, 4);
        let (made, condition) = match self.body.choices.below(3) {
            0 => (
                Instruction::with2(Code::Sub_rm32_imm8, counter, 1),
                [Code::Ja_rel32_32, Code::Ja_rel32_64],
            ),
            1 => (
                Instruction::with2(Code::Add_rm32_imm8, counter, -1),
                [Code::Jg_rel32_32, Code::Jg_rel32_64],
            ),
            _ => (
                Instruction::with1(Code::Dec_rm32, counter),
                [Code::Jne_rel32_32, Code::Jne_rel32_64],
            ),
        };
        self.body.asm.add(made);
        if self.chance(4) {
            let memory = self.body.memory();
            let to = register(self.body.data(), 4);
            self.body.asm.add(Instruction::with2(Code::Mov_r32_rm32, to, memory));
        }
        self.branch(condition, again);
    }

    /// Something that changes what is around: a table's entry, code, FS.
    fn action(&mut self) {
        match self.body.choices.below(8) {
            0..=3 if self.kind.is_kernel => self.change_table(),
            4 if self.kind.wide => {
                let number = self.body.data();
                let base = DATA + 0x1000 * self.body.choices.below(8) + self.body.choices.below(64);
                self.set(number, base);
                let code = self.body.choices.pick(&[Code::Wrfsbase_r64, Code::Wrgsbase_r64]);
                self.body.asm.add(Instruction::with1(code, register(number, 8)));
            }
            5 => {
                let vector = 0xa0 + self.body.choices.below(8) as u32;
                self.body.asm.add(Instruction::with1(Code::Int_imm8, vector));
            }
            _ => self.overwrite_code(),
        }
    }

    fn overwrite_code(&mut self) {
        let Some(count) = (self.spots.len() as u64).checked_sub(1) else { return };
        let spot = self.spots[self.body.choices.below(count + 1) as usize];
        let memory = self.absolute(CODE);
        let value = 1 + self.body.choices.below(0x7f) as i32;
        let made = match self.chance(8) {
            true => Instruction::with2(Code::Xor_rm8_imm8, memory, value),
            false => Instruction::with1(Code::Inc_rm8, memory),
        };
        self.body.asm.add_last_byte(made, spot);
    }

    fn absolute(&self, at: u64) -> MemoryOperand {
        let size = if self.kind.wide { 8 } else { 4 };
        MemoryOperand::new(
            Register::None,
            Register::None,
            1,
            at as i64,
            size,
            false,
            Register::None,
        )
    }

    /// Changes a table's entry, and lets the processor know.
    fn change_table(&mut self) {
        let data = self.body.choices.chance(12);
        let page = match data {
            true => DATA + 0x2000 + 0x1000 * self.body.choices.below(5),
            false => CODE + 0x4000 * self.body.choices.below(3),
        };
        let changes: &[u64] = if data { &[OTHER, OTHER, 2, 1] } else { &[OTHER] };
        let change = self.body.choices.pick(changes) as i32;
        let entry = self.absolute(self.kind.entry(page));
        self.body.asm.add(Instruction::with2(Code::Xor_rm32_imm32, entry, change));
        let data = self.body.data();
        if self.chance(12) {
            let page = self.absolute(page);
            self.body.asm.add(Instruction::with1(Code::Invlpg_m, page));
        } else {
            let to = self.register(data);
            let (get, set) = match self.kind.wide {
                true => (Code::Mov_r64_cr, Code::Mov_cr_r64),
                false => (Code::Mov_r32_cr, Code::Mov_cr_r32),
            };
            self.body.asm.add(Instruction::with2(get, to, Register::CR3));
            self.body.asm.add(Instruction::with2(set, Register::CR3, to));
        }
    }
}
