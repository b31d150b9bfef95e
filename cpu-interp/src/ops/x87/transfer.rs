//! Loads, stores, constants, exchanges and conditional moves.

use iced_x86::{Instruction, MemorySize, Mnemonic, OpKind};
use trivium_host_fpu::F80;
use trivium_host_fpu::x87::{
    Bcd, Operand, Real32, Real64, X87Load, X87Store, fldl2e, fldl2t, fldlg2, fldln2, fldpi,
    is_store_vetoed, status, store_truncated,
};

use crate::cpu::Cpu;
use crate::decode::{Context, Selection};
use crate::mem::Rights;
use crate::op::{GeneralFn, Op, Stop};

/// A format that operands have in memory.
pub trait MemOperand: Operand {
    /// Loads it from the memory operand.
    fn fetch(cpu: &mut Cpu, op: &Op) -> Result<Self, Stop>;
    /// Stores it to the memory operand.
    fn put(self, cpu: &mut Cpu, op: &Op) -> Result<(), Stop>;
    /// Raises what storing it would raise.
    fn probe(cpu: &mut Cpu, op: &Op) -> Result<(), Stop>;
}

macro_rules! mem_operand {
    ($t:ty, $raw:ty, |$load:ident| $from:expr, |$store:ident| $to:expr) => {
        impl MemOperand for $t {
            fn fetch(cpu: &mut Cpu, op: &Op) -> Result<Self, Stop> {
                let $load: $raw = cpu.load_operand(op)?;
                Ok($from)
            }
            fn put(self, cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
                let $store = self;
                cpu.store_operand::<$raw>(op, $to)
            }
            fn probe(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
                let len = size_of::<$raw>() as u64;
                let linear = cpu.linear(op.seg, cpu.offset(op), len, true)?;
                cpu.probe(linear, len, true, Rights::Program)
            }
        }
    };
}
mem_operand!(Real32, u32, |raw| Self(raw), |value| value.0);
mem_operand!(Real64, u64, |raw| Self(raw), |value| value.0);
mem_operand!(i16, u16, |raw| raw as i16, |value| value as u16);
mem_operand!(i32, u32, |raw| raw as i32, |value| value as u32);
mem_operand!(i64, u64, |raw| raw as i64, |value| value as u64);

/// The ten bytes at the memory operand: eight, then two, each with the checks of its own.
fn load_ten(cpu: &mut Cpu, op: &Op) -> Result<[u8; 10], Stop> {
    let offset = cpu.offset(op);
    let low: u64 = cpu.load_seg(op.seg, offset)?;
    let high: u16 = cpu.load_seg(op.seg, offset.wrapping_add(8))?;
    let mut bytes = [0; 10];
    bytes[..8].copy_from_slice(&low.to_le_bytes());
    bytes[8..].copy_from_slice(&high.to_le_bytes());
    Ok(bytes)
}

/// Where the eight and the two bytes go of what has ten, if they can.
fn probe_ten(cpu: &mut Cpu, op: &Op) -> Result<[u64; 2], Stop> {
    let offset = cpu.offset(op);
    let low = cpu.linear(op.seg, offset, 8, true)?;
    cpu.probe(low, 8, true, Rights::Program)?;
    let high = cpu.linear(op.seg, offset.wrapping_add(8), 2, true)?;
    cpu.probe(high, 2, true, Rights::Program)?;
    Ok([low, high])
}

fn store_ten(cpu: &mut Cpu, op: &Op, bytes: [u8; 10]) -> Result<(), Stop> {
    let [low_at, high_at] = probe_ten(cpu, op)?;
    let [a, b, c, d, e, f, g, h, i, j] = bytes;
    let low = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
    cpu.store_linear(low_at, low, Rights::Program)?;
    cpu.store_linear(high_at, u16::from_le_bytes([i, j]), Rights::Program)
}

impl MemOperand for Bcd {
    fn fetch(cpu: &mut Cpu, op: &Op) -> Result<Self, Stop> {
        load_ten(cpu, op).map(Self)
    }
    fn put(self, cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
        store_ten(cpu, op, self.0)
    }
    fn probe(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
        probe_ten(cpu, op).map(|_| ())
    }
}

fn load<T: MemOperand + X87Load>(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    cpu.x87_begin()?;
    let source = T::fetch(cpu, op)?;
    cpu.x87_note(op);
    let full = !cpu.x87_is_empty(7);
    if full {
        cpu.x87_push(F80::INDEFINITE);
        return Ok(());
    }
    let result = source.load(cpu.x87_env());
    cpu.x87_take_status(result.status, result.conditions);
    // An unmasked denormal exception is only reported: unlike others, FLD goes on.
    if result.status & !cpu.x87.control & status::IE == 0 {
        cpu.x87_push(result.value);
    }
    Ok(())
}

fn load_extended(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    cpu.x87_begin()?;
    let value = F80::from_bytes(load_ten(cpu, op)?);
    cpu.x87_note(op);
    push(cpu, value);
    Ok(())
}

fn push(cpu: &mut Cpu, value: F80) {
    if cpu.x87_push(value) {
        cpu.x87_take_status(0, status::C1);
    }
}

/// FLD ST(i). Its register comes as the operand after ST(0), or alone.
fn load_register(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    cpu.x87_begin()?;
    cpu.x87_note(op);
    let i = op.aux;
    if cpu.x87_is_empty(i) {
        if cpu.x87_stack_fault(false) {
            cpu.x87_set_top(cpu.x87_top().wrapping_sub(1));
            cpu.x87_set(0, F80::INDEFINITE);
        }
        return Ok(());
    }
    let value = cpu.x87_get(i);
    push(cpu, value);
    Ok(())
}

fn constant(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    cpu.x87_begin()?;
    cpu.x87_note(op);
    let control = cpu.x87.control;
    let value = match op.aux {
        0 => F80::ONE,
        1 => F80::ZERO,
        2 => fldpi(control),
        3 => fldl2t(control),
        4 => fldl2e(control),
        5 => fldlg2(control),
        _ => fldln2(control),
    };
    push(cpu, value);
    Ok(())
}

/// Stores ST(0) in the format `T`; `TRUNCATE` for FISTTP. Whatever an unmasked exception keeps from
/// being stored, memory is looked at first.
fn store<T: MemOperand + X87Store, const POP: bool, const TRUNCATE: bool>(
    cpu: &mut Cpu,
    op: &Op,
) -> Result<(), Stop> {
    cpu.x87_begin()?;
    let before = cpu.x87.status;
    let empty = cpu.x87_is_empty(0);
    if empty && cpu.x87.control & status::IE == 0 {
        T::probe(cpu, op)?;
        cpu.x87_stack_fault(false);
        cpu.x87_note(op);
        return Ok(());
    }
    if empty {
        cpu.x87_stack_fault(false);
    }
    let value = if empty { F80::INDEFINITE } else { cpu.x87_get(0) };
    let env = cpu.x87_env();
    let result = if TRUNCATE { store_truncated::<T>(env, value) } else { T::store(env, value) };
    let vetoed = is_store_vetoed(env.control, result.status);
    let stored = if vetoed { T::probe(cpu, op) } else { result.value.put(cpu, op) };
    if let Err(stop) = stored {
        cpu.x87.status = before;
        return Err(stop);
    }
    cpu.x87_note(op);
    cpu.x87_take_status(result.status, result.conditions);
    if POP && !vetoed {
        cpu.x87_pop();
    }
    Ok(())
}

fn store_extended(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    cpu.x87_begin()?;
    let empty = cpu.x87_is_empty(0);
    let kept = empty && cpu.x87.control & status::IE == 0;
    if kept {
        probe_ten(cpu, op)?;
    } else {
        let value = if empty { F80::INDEFINITE } else { cpu.x87_get(0) };
        store_ten(cpu, op, value.to_bytes())?;
    }
    cpu.x87_note(op);
    if empty {
        cpu.x87_stack_fault(false);
    } else {
        cpu.x87_take_status(0, status::C1);
    }
    if !kept {
        cpu.x87_pop();
    }
    Ok(())
}

fn store_register<const POP: bool>(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    cpu.x87_begin()?;
    cpu.x87_note(op);
    if cpu.x87_is_empty(0) {
        if !cpu.x87_stack_fault(false) {
            return Ok(());
        }
        cpu.x87_set(op.aux, F80::INDEFINITE);
    } else {
        let value = cpu.x87_get(0);
        cpu.x87_set(op.aux, value);
        cpu.x87_take_status(0, status::C1);
    }
    if POP {
        cpu.x87_pop();
    }
    Ok(())
}

/// D9 D8 to DF, an alias of FSTP ST(i) in no manual; an empty ST(0) is popped without a fault.
fn store_quietly(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    if !cpu.x87_is_empty(0) {
        return store_register::<true>(cpu, op);
    }
    cpu.x87_begin()?;
    cpu.x87_note(op);
    cpu.x87_take_status(0, status::C1);
    cpu.x87_pop();
    Ok(())
}

fn exchange(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    cpu.x87_begin()?;
    cpu.x87_note(op);
    let i = op.aux;
    let empty = [cpu.x87_is_empty(0), cpu.x87_is_empty(i)];
    if empty != [false; 2] && !cpu.x87_stack_fault(false) {
        return Ok(());
    }
    // An empty register counts as the indefinite from here on.
    let of = |cpu: &Cpu, i, empty| if empty { F80::INDEFINITE } else { cpu.x87_get(i) };
    let (a, b) = (of(cpu, 0, empty[0]), of(cpu, i, empty[1]));
    cpu.x87_set(i, a);
    cpu.x87_set(0, b);
    if empty == [false; 2] {
        cpu.x87_take_status(0, status::C1);
    }
    Ok(())
}

/// FCMOVcc: the condition's number is `aux2`.
fn conditional(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    cpu.x87_begin()?;
    cpu.x87_note(op);
    if cpu.x87_is_empty(0) || cpu.x87_is_empty(op.src) {
        if cpu.x87_stack_fault(false) {
            cpu.x87_set(0, F80::INDEFINITE);
        }
        return Ok(());
    }
    if cpu.flags.test_number(op.aux2) {
        let value = cpu.x87_get(op.src);
        cpu.x87_set(0, value);
    }
    Ok(())
}

fn loading(i: &Instruction) -> GeneralFn {
    match i.memory_size() {
        MemorySize::Float32 => load::<Real32>,
        MemorySize::Float64 => load::<Real64>,
        MemorySize::Int16 => load::<i16>,
        MemorySize::Int32 => load::<i32>,
        MemorySize::Int64 => load::<i64>,
        MemorySize::Bcd => load::<Bcd>,
        _ => load_extended,
    }
}

fn storing<const POP: bool>(i: &Instruction) -> GeneralFn {
    match i.memory_size() {
        MemorySize::Float32 => store::<Real32, POP, false>,
        MemorySize::Float64 => store::<Real64, POP, false>,
        MemorySize::Int16 => store::<i16, POP, false>,
        MemorySize::Int32 => store::<i32, POP, false>,
        MemorySize::Int64 => store::<i64, POP, false>,
        MemorySize::Bcd => store::<Bcd, POP, false>,
        _ => store_extended,
    }
}

fn truncating(i: &Instruction) -> GeneralFn {
    match i.memory_size() {
        MemorySize::Int16 => store::<i16, true, true>,
        MemorySize::Int32 => store::<i32, true, true>,
        _ => store::<i64, true, true>,
    }
}

/// The register that an instruction names besides ST(0).
fn other_register(i: &Instruction) -> u8 {
    let last = i.op_count().saturating_sub(1);
    i.op_register(last).number() as u8
}

/// The condition's number of FCMOVcc.
fn condition(i: &Instruction) -> Option<u8> {
    use Mnemonic as M;
    Some(match i.mnemonic() {
        M::Fcmovb => 2,
        M::Fcmovnb => 3,
        M::Fcmove => 4,
        M::Fcmovne => 5,
        M::Fcmovbe => 6,
        M::Fcmovnbe => 7,
        M::Fcmovu => 10,
        M::Fcmovnu => 11,
        _ => return None,
    })
}

/// Which constant an instruction loads.
fn constant_number(i: &Instruction) -> Option<u8> {
    use Mnemonic as M;
    let all = [M::Fld1, M::Fldz, M::Fldpi, M::Fldl2t, M::Fldl2e, M::Fldlg2, M::Fldln2];
    all.iter().position(|&m| m == i.mnemonic()).map(|n| n as u8)
}

/// Chooses handlers for the instructions of this part.
pub fn select(i: &Instruction, context: &Context) -> Option<Selection> {
    use Mnemonic as M;
    let mut op = context.op(i);
    if let Some(number) = constant_number(i) {
        op.aux = number;
        return Some(Selection::general(op, constant));
    }
    if let Some(number) = condition(i) {
        op.aux2 = number;
        return Some(Selection::general(op, conditional));
    }
    let memory = i.op_count() > 0 && i.op_kind(0) == OpKind::Memory;
    let function: GeneralFn = match (i.mnemonic(), memory) {
        (M::Fld, false) => load_register,
        (M::Fld | M::Fild | M::Fbld, true) => loading(i),
        (M::Fst, false) => store_register::<false>,
        (M::Fstp, false) => store_register::<true>,
        (M::Fstpnce, _) => store_quietly,
        (M::Fst | M::Fist, true) => storing::<false>(i),
        (M::Fstp | M::Fistp | M::Fbstp, true) => storing::<true>(i),
        (M::Fisttp, true) => truncating(i),
        (M::Fxch, _) => exchange,
        _ => return None,
    };
    op.aux = match (i.mnemonic(), memory) {
        (M::Fst | M::Fstp | M::Fstpnce, false) => i.op_register(0).number() as u8,
        (_, false) => other_register(i),
        _ => 0,
    };
    Some(Selection::general(op, function))
}
