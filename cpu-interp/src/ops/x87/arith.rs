//! Arithmetic, compares and functions.

use iced_x86::{Code, Instruction, MemorySize, Mnemonic, OpKind};
use trivium_cpu::model::Quirk;
use trivium_host_fpu::F80;
use trivium_host_fpu::x87::{
    F2xm1, Fadd, Fcom, Fcos, Fdiv, Fdivr, Fmul, Fpatan, Fprem, Fprem1, Fptan, Frndint, Fscale,
    Fsin, Fsincos, Fsqrt, Fsub, Fsubr, Fucom, Fxtract, Fyl2x, Fyl2xp1, Operand, X87Arith,
    X87Binary, X87Compare, X87Extract, X87Unary, eflags, ftst, is_vetoed, status,
};

use super::transfer::MemOperand;
use crate::cpu::Cpu;
use crate::decode::{Context, Selection};
use crate::op::{GeneralFn, Op, Stop};

/// An arithmetic operation with every kind of source.
trait Arith:
    X87Arith<F80>
    + X87Arith<trivium_host_fpu::x87::Real32>
    + X87Arith<trivium_host_fpu::x87::Real64>
    + X87Arith<i16>
    + X87Arith<i32>
{
}
macro_rules! ariths { ($($t:ty)*) => { $(impl Arith for $t {})* } }
ariths!(Fadd Fsub Fsubr Fmul Fdiv Fdivr);

/// Writes a result to ST(i), if exceptions let it; whether they did.
fn write(cpu: &mut Cpu, i: u8, result: &trivium_host_fpu::x87::X87Result) -> bool {
    let allowed = cpu.x87_take(result);
    if allowed {
        cpu.x87_set(i, result.value);
    }
    allowed
}

/// ST(i) is empty where it is to be read: the response goes to ST(to). Whether it is masked.
fn underflow(cpu: &mut Cpu, to: u8) -> bool {
    let masked = cpu.x87_stack_fault(false);
    if masked {
        cpu.x87_set(to, F80::INDEFINITE);
    }
    masked
}

fn with_memory<O: X87Arith<S>, S: MemOperand>(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    cpu.x87_begin()?;
    let source = S::fetch(cpu, op)?;
    cpu.x87_note(op);
    if cpu.x87_is_empty(0) {
        underflow(cpu, 0);
    } else {
        let result = O::apply(cpu.x87_env(), cpu.x87_get(0), source);
        write(cpu, 0, &result);
    }
    Ok(())
}

fn with_register<O: X87Arith<F80>, const POP: bool>(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    cpu.x87_begin()?;
    cpu.x87_note(op);
    let done = if cpu.x87_is_empty(op.dst) || cpu.x87_is_empty(op.src) {
        underflow(cpu, op.dst)
    } else {
        let result = O::apply(cpu.x87_env(), cpu.x87_get(op.dst), cpu.x87_get(op.src));
        write(cpu, op.dst, &result)
    };
    if POP && done {
        cpu.x87_pop();
    }
    Ok(())
}

/// All condition codes set: not comparable.
const UNORDERED: u16 = status::C0 | status::C2 | status::C3;

/// Compares ST(0) with a source, and pops `pops` times. The manual says of unmasked exceptions that
/// they leave the condition codes as they are, but processors set them to unordered.
fn compare<O: X87Compare<S>, S: Operand>(cpu: &mut Cpu, source: Option<S>, pops: u8) {
    let done = match source {
        Some(source) if !cpu.x87_is_empty(0) => {
            let new = O::apply(cpu.x87_env(), cpu.x87_get(0), source);
            cpu.x87_take_status(new, status::CONDITIONS);
            !is_vetoed(cpu.x87.control, new)
        }
        _ => {
            let masked = cpu.x87_stack_fault(false);
            cpu.x87.status |= UNORDERED;
            masked
        }
    };
    if done {
        cpu.x87_pop_times(pops);
    }
}

fn compare_memory<S: MemOperand, const POPS: u8>(cpu: &mut Cpu, op: &Op) -> Result<(), Stop>
where
    Fcom: X87Compare<S>,
{
    cpu.x87_begin()?;
    let source = S::fetch(cpu, op)?;
    cpu.x87_note(op);
    compare::<Fcom, S>(cpu, Some(source), POPS);
    Ok(())
}

fn compare_register<O: X87Compare<F80>, const POPS: u8>(
    cpu: &mut Cpu,
    op: &Op,
) -> Result<(), Stop> {
    cpu.x87_begin()?;
    cpu.x87_note(op);
    let source = (!cpu.x87_is_empty(op.src)).then(|| cpu.x87_get(op.src));
    compare::<O, F80>(cpu, source, POPS);
    Ok(())
}

/// FCOMI and its like: the result goes to ZF, PF and CF; OF, SF and AF are cleared. As with
/// [`compare`], unmasked exceptions do not keep them from that. Of the condition codes C1 is cleared
/// at most.
fn compare_to_flags<O: X87Compare<F80>, const POPS: u8>(
    cpu: &mut Cpu,
    op: &Op,
) -> Result<(), Stop> {
    cpu.x87_begin()?;
    cpu.x87_note(op);
    let done = if cpu.x87_is_empty(0) || cpu.x87_is_empty(op.src) {
        cpu.flags.set_explicit(eflags(UNORDERED));
        cpu.x87_stack_fault(false)
    } else {
        let cleared = if cpu.model.does(Quirk::FcomiKeepsC1) { 0 } else { status::C1 };
        let new = O::apply(cpu.x87_env(), cpu.x87_get(0), cpu.x87_get(op.src));
        cpu.x87_take_status(new & !status::CONDITIONS, cleared);
        cpu.flags.set_explicit(eflags(new));
        !is_vetoed(cpu.x87.control, new)
    };
    if done {
        cpu.x87_pop_times(POPS);
    }
    Ok(())
}

fn test(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    cpu.x87_begin()?;
    cpu.x87_note(op);
    struct Ftst;
    impl X87Compare<F80> for Ftst {
        fn apply(env: trivium_host_fpu::x87::X87Env, st0: F80, _: F80) -> u16 {
            ftst(env, st0)
        }
    }
    compare::<Ftst, F80>(cpu, Some(F80::ZERO), 0);
    Ok(())
}

fn examine(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    cpu.x87_begin()?;
    cpu.x87_note(op);
    let value = cpu.x87_get(0);
    let class = match cpu.x87_is_empty(0) {
        // C1 is the sign even of an empty register. Intel SDM vol. 2, FXAM.
        true => status::C3 | status::C0 | value.examine() & status::C1,
        false => value.examine(),
    };
    cpu.x87_take_status(class, status::CONDITIONS);
    Ok(())
}

/// An instruction says in C2 whether it is incomplete, or its operand out of range: with stack faults
/// that it is not. Others leave C2 alone.
fn clear_c2(cpu: &mut Cpu, partial: bool) {
    if partial {
        cpu.x87.status &= !status::C2;
    }
}

fn unary<O: X87Unary, const PARTIAL: bool>(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    cpu.x87_begin()?;
    cpu.x87_note(op);
    if cpu.x87_is_empty(0) {
        clear_c2(cpu, PARTIAL);
        underflow(cpu, 0);
    } else {
        let result = O::apply(cpu.x87_env(), cpu.x87_get(0));
        write(cpu, 0, &result);
    }
    Ok(())
}

/// On ST(0) and ST(1); with `POP` the result is ST(1) before the pop.
fn binary<O: X87Binary, const POP: bool, const PARTIAL: bool>(
    cpu: &mut Cpu,
    op: &Op,
) -> Result<(), Stop> {
    cpu.x87_begin()?;
    cpu.x87_note(op);
    let to = u8::from(POP);
    let done = if cpu.x87_is_empty(0) || cpu.x87_is_empty(1) {
        clear_c2(cpu, PARTIAL);
        underflow(cpu, to)
    } else {
        let result = O::apply(cpu.x87_env(), cpu.x87_get(0), cpu.x87_get(1));
        write(cpu, to, &result)
    };
    if POP && done {
        cpu.x87_pop();
    }
    Ok(())
}

/// Replaces ST(0) and pushes.
fn extract<O: X87Extract, const PARTIAL: bool>(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    cpu.x87_begin()?;
    cpu.x87_note(op);
    let full = !cpu.x87_is_empty(7);
    if cpu.x87_is_empty(0) || full {
        clear_c2(cpu, PARTIAL);
        if cpu.x87_stack_fault(full && !cpu.x87_is_empty(0)) {
            cpu.x87_set(0, F80::INDEFINITE);
            cpu.x87_set_top(cpu.x87_top().wrapping_sub(1));
            cpu.x87_set(0, F80::INDEFINITE);
        }
        return Ok(());
    }
    let pair = O::apply(cpu.x87_env(), cpu.x87_get(0));
    cpu.x87_take_status(pair.status, pair.conditions);
    let out_of_range = pair.conditions & pair.status & status::C2 != 0;
    if !out_of_range && !is_vetoed(cpu.x87.control, pair.status) {
        cpu.x87_set(0, pair.replaced);
        cpu.x87_push(pair.pushed);
    }
    Ok(())
}

fn sign<const ABS: bool>(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    cpu.x87_begin()?;
    cpu.x87_note(op);
    if cpu.x87_is_empty(0) {
        underflow(cpu, 0);
        return Ok(());
    }
    let value = cpu.x87_get(0);
    cpu.x87_set(0, if ABS { value.abs() } else { value.chs() });
    cpu.x87_take_status(0, status::C1);
    Ok(())
}

fn arith<O: Arith>(i: &Instruction, pops: bool) -> GeneralFn {
    use trivium_host_fpu::x87::{Real32, Real64};
    if i.op_kind(0) != OpKind::Memory {
        return if pops { with_register::<O, true> } else { with_register::<O, false> };
    }
    match i.memory_size() {
        MemorySize::Float32 => with_memory::<O, Real32>,
        MemorySize::Float64 => with_memory::<O, Real64>,
        MemorySize::Int16 => with_memory::<O, i16>,
        _ => with_memory::<O, i32>,
    }
}

fn comparing(i: &Instruction, pops: bool) -> GeneralFn {
    use trivium_host_fpu::x87::{Real32, Real64};
    match (i.op_kind(0) == OpKind::Memory, i.memory_size(), pops) {
        (false, _, false) => compare_register::<Fcom, 0>,
        (false, _, true) => compare_register::<Fcom, 1>,
        (_, MemorySize::Float32, false) => compare_memory::<Real32, 0>,
        (_, MemorySize::Float32, true) => compare_memory::<Real32, 1>,
        (_, MemorySize::Float64, false) => compare_memory::<Real64, 0>,
        (_, MemorySize::Float64, true) => compare_memory::<Real64, 1>,
        (_, MemorySize::Int16, false) => compare_memory::<i16, 0>,
        (_, MemorySize::Int16, true) => compare_memory::<i16, 1>,
        (_, _, false) => compare_memory::<i32, 0>,
        (_, _, true) => compare_memory::<i32, 1>,
    }
}

/// Chooses handlers for the instructions of this part.
pub fn select(i: &Instruction, context: &Context) -> Option<Selection> {
    use Mnemonic as M;
    let function: GeneralFn = match i.mnemonic() {
        M::Fadd | M::Fiadd => arith::<Fadd>(i, false),
        M::Faddp => arith::<Fadd>(i, true),
        M::Fsub | M::Fisub => arith::<Fsub>(i, false),
        M::Fsubp => arith::<Fsub>(i, true),
        M::Fsubr | M::Fisubr => arith::<Fsubr>(i, false),
        M::Fsubrp => arith::<Fsubr>(i, true),
        M::Fmul | M::Fimul => arith::<Fmul>(i, false),
        M::Fmulp => arith::<Fmul>(i, true),
        M::Fdiv | M::Fidiv => arith::<Fdiv>(i, false),
        M::Fdivp => arith::<Fdiv>(i, true),
        M::Fdivr | M::Fidivr => arith::<Fdivr>(i, false),
        M::Fdivrp => arith::<Fdivr>(i, true),
        M::Fcom | M::Ficom => comparing(i, false),
        M::Fcomp | M::Ficomp => comparing(i, true),
        M::Fcompp => compare_register::<Fcom, 2>,
        M::Fucom => compare_register::<Fucom, 0>,
        M::Fucomp => compare_register::<Fucom, 1>,
        M::Fucompp => compare_register::<Fucom, 2>,
        M::Fcomi => compare_to_flags::<Fcom, 0>,
        M::Fcomip => compare_to_flags::<Fcom, 1>,
        M::Fucomi => compare_to_flags::<Fucom, 0>,
        M::Fucomip => compare_to_flags::<Fucom, 1>,
        M::Ftst => test,
        M::Fxam => examine,
        M::Fsqrt => unary::<Fsqrt, false>,
        M::Frndint => unary::<Frndint, false>,
        M::F2xm1 => unary::<F2xm1, false>,
        M::Fsin => unary::<Fsin, true>,
        M::Fcos => unary::<Fcos, true>,
        M::Fprem => binary::<Fprem, false, true>,
        M::Fprem1 => binary::<Fprem1, false, true>,
        M::Fscale => binary::<Fscale, false, false>,
        M::Fyl2x => binary::<Fyl2x, true, false>,
        M::Fyl2xp1 => binary::<Fyl2xp1, true, false>,
        M::Fpatan => binary::<Fpatan, true, false>,
        M::Fxtract => extract::<Fxtract, false>,
        M::Fsincos => extract::<Fsincos, true>,
        M::Fptan => extract::<Fptan, true>,
        M::Fabs => sign::<true>,
        M::Fchs => sign::<false>,
        _ => return None,
    };
    let mut op = context.op(i);
    if matches!(i.code(), Code::Fcompp | Code::Fucompp) {
        op.src = 1;
    }
    // Those that write no arithmetic flags must not be taken to.
    Some(Selection::general(op, function))
}
