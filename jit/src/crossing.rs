//! Vectors that lie across two pages: loops over data that is not aligned meet one every few dozen
//! accesses. Where both pages are in the TLB, the part of memory around their border passes through a
//! buffer of the CPU's state, and translated code goes on.

use std::mem::offset_of;

use dynasmrt::{DynamicLabel, DynasmApi, DynasmLabelApi, dynasm};
use iced_x86::Instruction;
use trivium_interp::Cpu;
use trivium_interp::cpu::TLB_ADDRESS;
use trivium_interp::native::{Native, NativeCrossing};
use trivium_interp::tlb::{Entry, INDEX_MASK};

use crate::emit::{Assembler, CALL, Emitter, memory as tlb};
use crate::regs::{at, near};

const NATIVE: usize = offset_of!(Cpu, native) + offset_of!(Native, crossing);
const BUFFER: i32 = at(NATIVE + offset_of!(NativeCrossing, buffer));
const BORDER: i32 = at(NATIVE + offset_of!(NativeCrossing, border));
const FIRST: i32 = at(NATIVE + offset_of!(NativeCrossing, first));
const SECOND: i32 = at(NATIVE + offset_of!(NativeCrossing, second));
/// Bytes of the buffer on each side of the border: as much as the longest vector.
const HALF: i32 = 32;
/// The bits of an address that are not an offset into its page.
const PAGE: i32 = !0xfff;
/// The bits of an address that choose the entry of the TLB, moved to where its size puts them.
const INDEX: i32 = (INDEX_MASK >> 8) as i32;
const _: () = assert!(size_of::<Entry>() == 16);

/// The lengths of accesses that are looked after.
pub(crate) const SIZES: std::ops::RangeInclusive<usize> = 16..=HALF as usize;

/// Where the routines are. All take the address of the access in R8 and its length less one in RCX,
/// and overwrite RCX and R9.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Routines {
    /// Copies what is around the border into the buffer. Then RCX is 0 and the operand at [R8 + R9];
    /// or RCX is not, as there is no border in the operand or a page is not in the TLB.
    read: u64,
    /// The same for a store, which is then to go to [R8 + R9]; nothing is copied.
    write: u64,
    /// Copies what was stored there to where it belongs.
    finish: u64,
}

impl Routines {
    /// Emits them by a function that gives a routine's address.
    pub(crate) fn emit(mut routine: impl FnMut(&dyn Fn(&mut Assembler)) -> u64) -> Self {
        Self {
            read: routine(&|asm| emit_begin(asm, tlb::READ)),
            write: routine(&|asm| emit_begin(asm, tlb::WRITE)),
            finish: routine(&emit_finish),
        }
    }
}

/// RAX, RDX and RBX become free, and flags.
fn emit_save(asm: &mut Assembler) {
    dynasm!(asm
        ; .arch x64
        ; push rdx
        ; push rbx
        ; push rax
        ; lahf
        ; seto al
        ; push rax
    );
}

fn emit_restore(asm: &mut Assembler) {
    dynasm!(asm
        ; .arch x64
        ; pop rax
        ; add al, 127
        ; sahf
        ; pop rax
        ; pop rbx
        ; pop rdx
        ; ret
    );
}

fn emit_begin(asm: &mut Assembler, entries: i32) {
    emit_save(asm);
    dynasm!(asm
        ; .arch x64
        // RDX: the border.
        ; lea rdx, [r8 + rcx]
        ; and rdx, PAGE
        ; cmp rdx, r8
        ; jbe >refused
        ; mov rbx, [BYTE r14 + near(TLB_ADDRESS)]
        ; mov rax, r8
        ; shr rax, 8
        ; and eax, INDEX
        ; mov rcx, [rbx + rax + entries]
        ; add rcx, r8
        ; shr rcx, 12
        ; jnz >refused
        ; mov r9, [rbx + rax + entries + tlb::ADDEND]
        ; mov rax, rdx
        ; shr rax, 8
        ; and eax, INDEX
        ; mov rcx, [rbx + rax + entries]
        ; add rcx, rdx
        ; shr rcx, 12
        ; jnz >refused
        ; mov rax, [rbx + rax + entries + tlb::ADDEND]
        // Where the first page ends in the host, and where the second begins.
        ; add r9, rdx
        ; add rax, rdx
    );
    if entries == tlb::READ {
        for offset in (0..HALF).step_by(8) {
            dynasm!(asm
                ; .arch x64
                ; mov rcx, [r9 + offset - HALF]
                ; mov rbx, [rax + offset]
                ; mov [r14 + BUFFER + offset], rcx
                ; mov [r14 + BUFFER + HALF + offset], rbx
            );
        }
    } else {
        dynasm!(asm
            ; .arch x64
            ; mov [r14 + BORDER], rdx
            ; mov [r14 + FIRST], r9
            ; mov [r14 + SECOND], rax
        );
    }
    dynasm!(asm
        ; .arch x64
        ; lea r9, [r14 + BUFFER + HALF]
        ; sub r9, rdx
        ; mov ecx, 0
        ; jmp >done
        ; refused:
        ; mov ecx, 1
        ; done:
    );
    emit_restore(asm);
}

fn emit_finish(asm: &mut Assembler) {
    emit_save(asm);
    dynasm!(asm
        ; .arch x64
        ; push rsi
        ; push rdi
        ; mov rdx, rcx
        // To the first page: what is between the operand's address and the border.
        ; mov rcx, [r14 + BORDER]
        ; sub rcx, r8
        ; sub rdx, rcx
        ; lea rsi, [r14 + BUFFER + HALF]
        ; sub rsi, rcx
        ; mov rdi, [r14 + FIRST]
        ; sub rdi, rcx
        ; rep movsb
        // To the second: the rest.
        ; lea rcx, [rdx + 1]
        ; mov rdi, [r14 + SECOND]
        ; rep movsb
        ; pop rdi
        ; pop rsi
    );
    emit_restore(asm);
}

/// What a site does if its address is not found, emitted after the code.
pub(crate) struct Crossing {
    from: DynamicLabel,
    /// Where it goes on with the operand at hand.
    back: DynamicLabel,
    /// The way out.
    out: DynamicLabel,
    last: i32,
    /// The store, in the host's terms, which `back` comes after.
    store: Option<Instruction>,
}

impl Emitter {
    /// A label for an access of `size` bytes to jump to in place of the way out, with the one that
    /// comes after the look into the TLB or, of a store, after the instruction.
    pub(crate) fn crossing(&mut self, size: usize, out: DynamicLabel) -> (DynamicLabel, usize) {
        let [from, back] = [0; 2].map(|_| self.asm.new_dynamic_label());
        self.crossings.push(Crossing { from, back, out, last: size as i32 - 1, store: None });
        (from, self.crossings.len() - 1)
    }

    /// The operand of a crossing is at hand here.
    pub(crate) fn crossed(&mut self, number: usize, store: Option<Instruction>) {
        if let Some(crossing) = self.crossings.get_mut(number) {
            crossing.store = store;
            let back = crossing.back;
            dynasm!(self.asm ; .arch x64 ; =>back);
        }
    }

    /// Emits what the sites lead to.
    pub(crate) fn emit_crossings(&mut self) {
        let routines = self.routines.crossing;
        for crossing in std::mem::take(&mut self.crossings) {
            dynasm!(self.asm ; .arch x64 ; =>crossing.from ; mov ecx, crossing.last);
            let is_store = crossing.store.is_some();
            self.go_to(CALL, if is_store { routines.write } else { routines.read });
            dynasm!(self.asm
                ; .arch x64
                ; jrcxz >found
                ; jmp =>crossing.out
                ; found:
            );
            if let Some(store) = crossing.store {
                self.raw(&store);
                dynasm!(self.asm ; .arch x64 ; mov ecx, crossing.last);
                self.go_to(CALL, routines.finish);
            }
            self.jump_out(crossing.back);
        }
    }
}
