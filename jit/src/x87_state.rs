//! The x87 unit on its way between the CPU's state and the host's. As with vector registers, it is
//! loaded when a block first uses it; translated code then leaves it to Rust in an image of XSAVE.

use std::mem::offset_of;

use dynasmrt::{DynasmApi, DynasmLabelApi, dynasm};
use trivium_cpu::state::{self, X87Register};
use trivium_interp::Cpu;
use trivium_interp::native::{Native, NativeX87, X87Image};

use crate::emit::Assembler;
use crate::host::Host;
use crate::regs::at;

const NATIVE: usize = offset_of!(Cpu, native) + offset_of!(Native, x87);
const IMAGE: i32 = at(NATIVE + offset_of!(NativeX87, image));
const BLOCKED: i32 = at(offset_of!(Cpu, x87_blocked));
const X87: usize = offset_of!(Cpu, x87);
const CONTROL: i32 = at(X87 + offset_of!(state::X87, control));
const STATUS: i32 = at(X87 + offset_of!(state::X87, status));
const TAGS: i32 = at(X87 + offset_of!(state::X87, tags));
const REGS: usize = X87 + offset_of!(state::X87, regs);
const MANTISSA: i32 = at(REGS + offset_of!(X87Register, mantissa));
const EXPONENT: i32 = at(REGS + offset_of!(X87Register, sign_exponent));
/// Where the unit's last instruction was.
pub(crate) const LAST_IP: i32 = at(X87 + offset_of!(state::X87, last_ip));
pub(crate) const LAST_DP: i32 = at(X87 + offset_of!(state::X87, last_dp));
pub(crate) const LAST_CS: i32 = at(X87 + offset_of!(state::X87, last_cs));
pub(crate) const LAST_DS: i32 = at(X87 + offset_of!(state::X87, last_ds));
pub(crate) const LAST_OPCODE: i32 = at(X87 + offset_of!(state::X87, last_opcode));
/// 0 if the unit is in the host.
pub(crate) const IDLE: i32 = at(NATIVE + offset_of!(NativeX87, idle));
/// Set by MMX instructions.
pub(crate) const MMX: i32 = at(NATIVE + offset_of!(NativeX87, mmx));
/// A word for FLDCW.
pub(crate) const CONTROL_WORD: i32 = at(NATIVE + offset_of!(NativeX87, control));

/// The control word's masks of exceptions.
pub(crate) const MASKS: i32 = 0x3f;
/// The status word's ES and B: an exception waits.
const PENDING: i32 = 0x8080;
/// The lower bits of eight tags.
const TAG_BITS: i32 = 0x5555;
/// Where XSAVE has the tags, a bit each, the first register, and what components there are.
const IMAGE_TAGS: usize = 4;
const IMAGE_ST: usize = 32;
const IMAGE_PRESENT: i32 = IMAGE + 512;
/// The x87 component.
const COMPONENT: i32 = 1;
const EMPTY: u16 = 3;
const REGISTER: usize = size_of::<X87Register>();
const _: () = assert!(REGISTER == 16);

/// Whether the host can save the unit without vector registers.
pub(crate) fn host_can() -> bool {
    is_x86_feature_detected!("xsave")
}

/// Whether the routine of [`emit_load`] would load the unit.
pub(crate) fn can_load(cpu: &Cpu) -> bool {
    let (control, status) = (i32::from(cpu.x87.control), i32::from(cpu.x87.status));
    !cpu.x87_blocked && control & MASKS == MASKS && status & PENDING == 0
}

/// Emits a routine that loads the unit: R8 is overwritten; afterwards RCX is 0, or the
/// unit has not been loaded, as it has or may have exceptions to be raised or may not be used.
pub(crate) fn emit_load(asm: &mut Assembler, host: Host) {
    dynasm!(asm
        ; .arch x64
        ; movzx ecx, BYTE [r14 + BLOCKED]
        ; jrcxz >allowed
        ; ret
        ; allowed:
        ; movzx ecx, WORD [r14 + CONTROL]
        ; not ecx
        ; mov r8d, MASKS
    );
    host.any_of_r8(asm);
    dynasm!(asm
        ; .arch x64
        ; jrcxz >masked
        ; ret
        ; masked:
        ; movzx ecx, WORD [r14 + STATUS]
        ; mov r8d, PENDING
    );
    host.any_of_r8(asm);
    dynasm!(asm
        ; .arch x64
        ; jrcxz >quiet
        ; ret
        ; quiet:
        ; push rax
        ; push rdx
        ; lahf
        ; seto al
        ; push rax
        ; movzx eax, WORD [r14 + CONTROL]
        ; mov [r14 + IMAGE], ax
        ; movzx ecx, WORD [r14 + STATUS]
        ; mov [r14 + IMAGE + 2], cx
        // A tag is empty if both of its bits are set.
        ; movzx eax, WORD [r14 + TAGS]
        ; mov edx, eax
        ; shr edx, 1
        ; and edx, eax
        ; and edx, TAG_BITS
        // Every other bit: pairs, fours and eights are brought together.
        ; mov r8d, edx
        ; shr r8d, 1
        ; or edx, r8d
        ; and edx, 0x3333
        ; mov r8d, edx
        ; shr r8d, 2
        ; or edx, r8d
        ; and edx, 0x0f0f
        ; mov r8d, edx
        ; shr r8d, 4
        ; or edx, r8d
        ; not edx
        ; mov [r14 + IMAGE + IMAGE_TAGS as i32], dl
        ; mov BYTE [r14 + MMX], 0
        // The images begin with the top of the stack.
        ; shr ecx, 11
        ; and ecx, 7
        ; shl ecx, 4
    );
    for n in 0..8 {
        let to = IMAGE + (IMAGE_ST + REGISTER * n) as i32;
        dynasm!(asm
            ; .arch x64
            ; mov rax, [r14 + rcx + MANTISSA]
            ; movzx edx, WORD [r14 + rcx + EXPONENT]
            ; mov [r14 + to], rax
            ; mov [r14 + to + 8], rdx
            ; add ecx, REGISTER as i32
            ; and ecx, 8 * REGISTER as i32 - 1
        );
    }
    dynasm!(asm
        ; .arch x64
        ; mov eax, COMPONENT
        ; mov edx, 0
        ; mov [r14 + IMAGE_PRESENT], rax
        ; xrstor64 [r14 + IMAGE]
        ; mov BYTE [r14 + IDLE], 0
        ; pop rax
        ; add al, 127
        ; sahf
        ; pop rdx
        ; pop rax
        ; mov ecx, 0
        ; ret
    );
}

/// Emits code that gives the unit back if the host has it: as an image, which [`take_back`] is to
/// take. RAX, RDX and flags are overwritten.
pub(crate) fn emit_save(asm: &mut Assembler) {
    if !host_can() {
        return;
    }
    dynasm!(asm
        ; .arch x64
        ; cmp BYTE [r14 + IDLE], 0
        ; jne >saved
        ; mov eax, COMPONENT
        ; mov edx, 0
        ; xsave64 [r14 + IMAGE]
        ; fninit
        ; saved:
    );
}

fn word(image: &X87Image, at: usize) -> u16 {
    image.0.get(at..).and_then(|bytes| bytes.first_chunk()).map_or(0, |b| u16::from_le_bytes(*b))
}

fn register(image: &X87Image, n: usize) -> X87Register {
    let at = IMAGE_ST + REGISTER * n;
    let mantissa = image.0.get(at..).and_then(|bytes| bytes.first_chunk());
    X87Register {
        mantissa: mantissa.map_or(0, |bytes| u64::from_le_bytes(*bytes)),
        sign_exponent: word(image, at + 8),
    }
}

/// The tag of a register that is not empty: 0 valid, 1 zero, 2 special.
fn tag(register: X87Register) -> u16 {
    match (register.sign_exponent & 0x7fff, register.mantissa) {
        (0, 0) => 1,
        (1..0x7fff, mantissa) if mantissa >> 63 != 0 => 0,
        _ => 2,
    }
}

/// Takes the image over into the state if there is one. Tags of registers that are as they were stay
/// so, as it is the interpreter that says what they are beside empty.
pub(crate) fn take_back(cpu: &mut Cpu) {
    if cpu.native.x87.idle != 0 {
        return;
    }
    cpu.native.x87.idle = 1;
    let image = &cpu.native.x87.image;
    let x87 = &mut cpu.x87;
    (x87.control, x87.status) = (word(image, 0), word(image, 2));
    let full = word(image, IMAGE_TAGS);
    let top = usize::from(x87.status >> 11 & 7);
    let mut tags = 0;
    for n in 0..8 {
        let physical = (top + n) & 7;
        let (old, new) = (&mut x87.regs[physical], register(image, n));
        let old_tag = x87.tags >> (2 * physical) & 3;
        tags |= match full >> physical & 1 != 0 {
            false => EMPTY,
            true if old_tag != EMPTY && *old == new => old_tag,
            true => tag(new),
        } << (2 * physical);
        *old = new;
    }
    let by_mmx = cpu.native.x87.mmx != 0 && full & 0xff == 0xff;
    x87.tags = if by_mmx { 0 } else { tags };
}
