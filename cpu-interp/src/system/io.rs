//! IN, OUT, INS, OUTS, HLT, and what does nothing here: NOP, fences, prefetches.
//!
//! Intel SDM vol. 1, chapter 19; vol. 2.

use iced_x86::{Code, Instruction, Mnemonic, OpKind};
use trivium_cpu::bits::rflags;
use trivium_cpu::model::Quirk;
use trivium_cpu::state::Activity;
use trivium_cpu::{CpuBus, Exception};

use super::interrupt::is_wide_tss;
use super::software::IO_MAP;
use crate::block::{Block, BlockCache};
use crate::cpu::Cpu;
use crate::decode::{Context, Selection};
use crate::mem::{Rights, address_mask};
use crate::next;
use crate::op::{Op, Stop, StopReason};

const RAX: u8 = 0;
const RCX: u8 = 1;
const RDX: u8 = 2;
const RSI: u8 = 6;
const RDI: u8 = 7;
/// Number of ES.
const ES: u8 = 0;

/// Iterations of INS or OUTS before a look at what others want.
const CHUNK: u32 = 4096;

impl Cpu {
    /// Whether the program may use a port: by IOPL, else by the map in the TSS. Intel SDM vol. 1,
    /// 19.5.2.
    ///
    /// # Errors
    /// #GP(0), #PF.
    fn check_port(&mut self, port: u16, width: u8) -> Result<(), Stop> {
        let free = !self.protected() || !self.v86() && self.cpl() <= self.iopl();
        if free || self.map_allows(port, width)? {
            return Ok(());
        }
        Err(self.raise(Exception::gp(0)))
    }

    fn map_allows(&mut self, port: u16, width: u8) -> Result<bool, Stop> {
        let tr = self.segments.tr;
        if !is_wide_tss(&tr) || tr.limit < 103 {
            return Ok(false);
        }
        let at = self.table_address(tr.base, IO_MAP);
        let map = self.load_linear::<u16>(at, Rights::Processor)?;
        let offset = u64::from(map) + u64::from(port / 8);
        // Two bytes are read always, so that the ports of one access may be in both.
        if offset + 1 > tr.limit.into() {
            return Ok(false);
        }
        let at = self.table_address(tr.base, offset);
        let bits = self.load_linear::<u16>(at, Rights::Processor)?;
        let mask = (1_u16 << width.min(8)) - 1;
        Ok(bits >> (port & 7) & mask == 0)
    }
}

/// The port: immediate, or DX if `aux` is set.
fn port(cpu: &Cpu, op: &Op) -> u16 {
    if op.aux != 0 { cpu.reg(RDX, 0, 2) as u16 } else { op.imm as u16 & 0xff }
}

fn port_in(cpu: &mut Cpu, op: &Op, bus: &dyn CpuBus) -> Result<(), Stop> {
    let port = port(cpu, op);
    cpu.check_port(port, op.size)?;
    let value = bus.pio_read(port, op.size);
    cpu.note_port(port, op.size);
    cpu.set_reg(RAX, 0, op.size, value.into());
    Ok(())
}

fn port_out(cpu: &mut Cpu, op: &Op, bus: &dyn CpuBus) -> Result<(), Stop> {
    let port = port(cpu, op);
    cpu.check_port(port, op.size)?;
    bus.pio_write(port, op.size, cpu.reg(RAX, 0, op.size) as u32);
    cpu.note_port(port, op.size);
    Ok(())
}

/// RSI, RDI or RCX as far as the address size goes.
fn counter(cpu: &Cpu, register: u8, op: &Op) -> u64 {
    cpu.regs[usize::from(register)] & address_mask(op.asize)
}

fn advance(cpu: &mut Cpu, register: u8, op: &Op) {
    let step = u64::from(op.size);
    let down = cpu.system_flags & rflags::DF != 0;
    let old = counter(cpu, register, op);
    let new = if down { old.wrapping_sub(step) } else { old.wrapping_add(step) };
    cpu.set_reg(register, 0, op.asize, new & address_mask(op.asize));
}

fn one_in(cpu: &mut Cpu, op: &Op, port: u16, bus: &dyn CpuBus) -> Result<(), Stop> {
    let at = counter(cpu, RDI, op);
    let linear = cpu.linear(ES, at, op.size.into(), true)?;
    cpu.probe(linear, op.size.into(), true, Rights::Program)?;
    let value = bus.pio_read(port, op.size);
    cpu.store_sized(ES, at, op.size, value.into())?;
    advance(cpu, RDI, op);
    Ok(())
}

fn one_out(cpu: &mut Cpu, op: &Op, port: u16, bus: &dyn CpuBus) -> Result<(), Stop> {
    let value = cpu.load_sized(op.seg, counter(cpu, RSI, op), op.size)?;
    bus.pio_write(port, op.size, value as u32);
    advance(cpu, RSI, op);
    Ok(())
}

type One = fn(&mut Cpu, &Op, u16, &dyn CpuBus) -> Result<(), Stop>;

/// Does one iteration, or with REP as many as RCX says, stopping now and then.
fn repeat(cpu: &mut Cpu, op: &Op, bus: &dyn CpuBus, one: One) -> Result<(), Stop> {
    let port = cpu.reg(RDX, 0, 2) as u16;
    let repeats = op.prefixes & (Op::REP | Op::REPNE) != 0;
    let nothing = repeats && counter(cpu, RCX, op) == 0;
    if !nothing || cpu.model.does(Quirk::RepeatedIoAsksFirst) {
        cpu.check_port(port, op.size)?;
    }
    if nothing {
        return Ok(());
    }
    cpu.look = true;
    if !repeats {
        one(cpu, op, port, bus)?;
        cpu.note_port(port, op.size);
        return Ok(());
    }
    for done in 0..CHUNK {
        match one(cpu, op, port, bus) {
            Ok(()) => {}
            // What was loaded from devices is counted from where the instruction was begun.
            Err(Stop) if done > 0 && cpu.stop == StopReason::MmioRead => break,
            Err(Stop) => return Err(Stop),
        }
        let left = counter(cpu, RCX, op).wrapping_sub(1) & address_mask(op.asize);
        cpu.set_reg(RCX, 0, op.asize, left);
        cpu.note_port(port, op.size);
        if left == 0 {
            return Ok(());
        }
        if cpu.system_flags & rflags::TF != 0 {
            // Each iteration is followed by #DB, like an instruction of its own.
            cpu.next_rip = cpu.rip;
            cpu.system_flags |= rflags::RF;
            return Ok(());
        }
        if cpu.attention.is_wanted() || cpu.pending_debug != 0 {
            break;
        }
    }
    cpu.stop = StopReason::Again;
    Err(Stop)
}

fn ins(cpu: &mut Cpu, op: &Op, bus: &dyn CpuBus) -> Result<(), Stop> {
    repeat(cpu, op, bus, one_in)
}

fn outs(cpu: &mut Cpu, op: &Op, bus: &dyn CpuBus) -> Result<(), Stop> {
    repeat(cpu, op, bus, one_out)
}

fn hlt(cpu: &mut Cpu, _: &Op) -> Result<(), Stop> {
    cpu.require_cpl0()?;
    cpu.activity = Activity::Halted;
    cpu.look = true;
    Ok(())
}

fn nop(cpu: &mut Cpu, _: &Op, rest: &[Op], block: &Block, links: &BlockCache) {
    next!(cpu, rest, block, links)
}

/// IN and OUT: the port is in operand `n`.
fn with_port(i: &Instruction, context: &Context, n: u32) -> Op {
    let mut op = context.op(i);
    op.aux = u8::from(i.op_kind(n) == OpKind::Register);
    let data = i.op_register(1 - n);
    op.size = data.size() as u8;
    op
}

/// INS and OUTS: the address size is that of the string operand.
fn with_string(i: &Instruction, context: &Context) -> Op {
    let mut op = context.op(i);
    op.size = i.memory_size().size() as u8;
    for n in 0..i.op_count() {
        op.asize = match i.op_kind(n) {
            OpKind::MemorySegSI | OpKind::MemoryESDI => 2,
            OpKind::MemorySegESI | OpKind::MemoryESEDI => 4,
            OpKind::MemorySegRSI | OpKind::MemoryESRDI => 8,
            _ => continue,
        };
    }
    op
}

/// Hints and fences: memory is in order, and nothing is done ahead of time. RDSSP is a NOP without
/// shadow stacks.
fn is_nop(i: &Instruction) -> bool {
    use Mnemonic as M;
    matches!(
        i.mnemonic(),
        M::Nop
            | M::Pause
            | M::Endbr32
            | M::Endbr64
            | M::Rdsspd
            | M::Rdsspq
            | M::Lfence
            | M::Mfence
            | M::Sfence
            | M::Prefetch
            | M::Prefetchw
            | M::Prefetchwt1
            | M::Prefetchnta
            | M::Prefetcht0
            | M::Prefetcht1
            | M::Prefetcht2
            | M::Prefetchit0
            | M::Prefetchit1
            // A hint that may be ignored, in the space of what older processors take for a NOP.
            | M::Cldemote
            | M::Reservednop
    )
}

/// PREFETCH and PREFETCHW with a register: undefined for AMD, whose instructions they are (APM
/// vol. 3, PREFETCH), nothing for Intel.
fn is_prefetch_of_register(i: &Instruction) -> bool {
    use Code::*;
    matches!(
        i.code(),
        Reservednop_rm16_r16_0F0D | Reservednop_rm32_r32_0F0D | Reservednop_rm64_r64_0F0D
    )
}

/// Chooses functions for the instructions of this group.
#[must_use]
pub fn select(i: &Instruction, context: &Context) -> Option<Selection> {
    use Mnemonic as M;
    if context.vendor.has(Quirk::PrefetchOfRegisterUndefined) && is_prefetch_of_register(i) {
        return None;
    }
    if is_nop(i) && i.code() != Code::INVALID {
        return Some(Selection::register(context.op(i), nop));
    }
    Some(match i.mnemonic() {
        M::In => Selection::system(with_port(i, context, 1), port_in),
        M::Out => Selection::system(with_port(i, context, 0), port_out),
        M::Insb | M::Insw | M::Insd => Selection::system(with_string(i, context), ins),
        M::Outsb | M::Outsw | M::Outsd => Selection::system(with_string(i, context), outs),
        M::Hlt => Selection::general_end(context.op(i), hlt),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{CODE, DATA, DEVICE, TSS, TestMachine};
    use trivium_cpu::model::{CpuModel, Vendor};
    use trivium_cpu::{Exit, Vector};

    #[test]
    fn ports_are_read_and_written_in_three_widths() {
        // in al, 0x60; in ax, dx; in eax, dx
        let mut m = TestMachine::long(&[0xe4, 0x60, 0x66, 0xed, 0xed]);
        m.bus.answers.lock().unwrap().extend([0x1a, 0x2b2b, 0x3c3c_3c3c]);
        m.set(|s| s.general.regs[0] = !0);
        m.run(1);
        assert_eq!(m.reg(0), !0xff | 0x1a);
        m.run(1);
        assert_eq!(m.reg(0), !0xffff | 0x2b2b);
        m.run(1);
        assert_eq!(m.reg(0), 0x3c3c_3c3c);
        // out 0x80, al; out dx, ax; out dx, eax
        let mut m = TestMachine::long(&[0xe6, 0x80, 0x66, 0xef, 0xef]);
        m.set(|s| (s.general.regs[0], s.general.regs[2]) = (0x1234_5678, 0x1_03f8));
        m.run(3);
        let expected = [(0x80, 1, 0x78), (0x3f8, 2, 0x5678), (0x3f8, 4, 0x1234_5678)];
        assert_eq!(*m.bus.written.lock().unwrap(), expected);
    }

    /// OUT of AX to port 0x3f7 at CPL 3 with this map from 0x3f0 on.
    fn with_map(map: [u8; 2], limit: u32) -> TestMachine {
        let mut m = TestMachine::protected(&[0x66, 0xef]).at_cpl3();
        m.put(TSS + 102, &104_u16.to_le_bytes());
        m.put(TSS + 104 + 0x3f0 / 8, &map);
        m.set(|s| {
            s.segments.tr.limit = limit;
            s.general.regs[2] = 0x3f7;
        });
        m
    }

    #[test]
    fn programs_are_let_through_by_the_map_bit_by_bit() {
        let end = 104 + 0x3f8 / 8;
        let mut m = with_map([0x7f, 0xfe], end);
        m.run(1);
        assert_eq!(m.bus.written.lock().unwrap().len(), 1);
        with_map([0x80, 0xfe], end).raises(Vector::GP, Some(0));
        with_map([0x7f, 0x01], end).raises(Vector::GP, Some(0));
        with_map([0, 0], end - 1).raises(Vector::GP, Some(0));
        with_map([0, 0], 103).raises(Vector::GP, Some(0));
    }

    #[test]
    fn iopl_lets_through_without_a_map_but_not_in_virtual_8086_mode() {
        let mut m = TestMachine::protected(&[0xe6, 0x80]).at_cpl3();
        m.set(|s| s.general.rflags |= 3 << 12);
        m.run(1);
        assert_eq!(m.bus.written.lock().unwrap().len(), 1);
        let mut m = TestMachine::protected(&[0xe6, 0x80]).in_v86(3);
        m.put(TSS + 102, &[0xff, 0xff]);
        m.raises(Vector::GP, Some(0));
    }

    #[test]
    fn rep_ins_fills_memory() {
        // rep insw
        let mut m = TestMachine::long(&[0x66, 0xf3, 0x6d]);
        m.bus.answers.lock().unwrap().extend([0x1111, 0x2222, 0x3333]);
        m.set(|s| (s.general.regs[1], s.general.regs[7]) = (3, DATA));
        m.run(1);
        assert_eq!((m.get_u64(DATA), m.reg(1)), (0x3333_2222_1111, 0));
        assert_eq!((m.reg(7), m.state().general.rip), (DATA + 6, CODE + 3));
        assert_eq!(*m.bus.retired.lock().unwrap(), 1);
    }

    #[test]
    fn ins_reads_no_port_whose_value_it_cannot_store() {
        // rep insb across the end of what is mapped
        let mut m = TestMachine::long(&[0xf3, 0x6c]);
        m.put_u64(crate::testing::TABLES + 0x2010, 0);
        m.put_u64(crate::testing::TABLES + 0x2008, 0x87);
        m.bus.answers.lock().unwrap().extend([1, 2, 3]);
        m.set(|s| (s.general.regs[1], s.general.regs[7]) = (3, 0x3f_ffff));
        assert_eq!(m.run_to_exception(), (Vector::PF as u8, 2));
        assert_eq!((m.reg(1), m.reg(7)), (2, 0x40_0000));
        assert_eq!(m.bus.answers.lock().unwrap().len(), 2);
        assert_eq!(m.state().control.cr2, 0x40_0000);
    }

    #[test]
    fn rep_outs_goes_down_with_df_and_reads_devices() {
        // rep outsb
        let mut m = TestMachine::protected(&[0xf3, 0x6e]);
        m.set(|s| {
            (s.general.regs[1], s.general.regs[6]) = (3, DEVICE + 2);
            s.general.rflags |= rflags::DF;
        });
        m.run(1);
        assert_eq!(*m.bus.written.lock().unwrap(), [(0x600, 1, 2), (0x600, 1, 1), (0x600, 1, 0)]);
        assert_eq!((m.reg(1), m.reg(6)), (0, DEVICE - 1));
    }

    #[test]
    fn rep_with_nothing_to_do_does_nothing() {
        let mut m = TestMachine::protected(&[0xf3, 0x6e]);
        m.run(1);
        assert_eq!((m.state().general.rip, m.bus.written.lock().unwrap().len()), (CODE + 2, 0));
    }

    #[test]
    fn rep_with_nothing_to_do_asks_for_permission_as_the_vendor_says() {
        for (vendor, end) in [(Vendor::Amd, Vector::GP as u8), (Vendor::Intel, Vector::UD as u8)] {
            let model = CpuModel { vendor, ..TestMachine::model() };
            // rep outsb; ud2
            let mut m = TestMachine::long_with(model, &[0xf3, 0x6e, 0x0f, 0x0b]).at_cpl3();
            assert_eq!(m.run_to_exception().0, end, "{vendor:?}");
        }
    }

    #[test]
    fn sixteen_bit_addresses_wrap_and_leave_the_rest() {
        // a16 rep outsb
        let mut m = TestMachine::protected(&[0x67, 0xf3, 0x6e]);
        m.put(0xffff, &[0x77]);
        m.put(0, &[0x88]);
        m.set(|s| (s.general.regs[1], s.general.regs[6]) = (0x5_0002, 0x5_ffff));
        m.run(1);
        assert_eq!(*m.bus.written.lock().unwrap(), [(0x600, 1, 0x77), (0x600, 1, 0x88)]);
        assert_eq!((m.reg(1), m.reg(6)), (0x5_0000, 0x5_0001));
    }

    #[test]
    fn a_rep_of_many_makes_room_for_interrupts_in_between() {
        // rep outsb
        let mut m = TestMachine::protected(&[0xf3, 0x6e]);
        let count = u64::from(CHUNK) + 10;
        m.set(|s| (s.general.regs[1], s.general.regs[6]) = (count, DATA));
        m.run(1);
        assert_eq!(m.bus.written.lock().unwrap().len(), CHUNK as usize + 10);
        assert_eq!(m.reg(1), 0);
    }

    #[test]
    fn hlt_is_for_cpl0() {
        let mut m = TestMachine::long(&[0xf4]);
        assert_eq!(m.run(5), Exit::Halted);
        assert_eq!(m.state().general.rip, CODE + 1);
        TestMachine::long(&[0xf4]).at_cpl3().raises(Vector::GP, Some(0));
    }

    #[test]
    fn hints_and_fences_do_nothing() {
        let codes: [&[u8]; 8] = [
            &[0x90],
            &[0xf3, 0x90],
            &[0xf3, 0x0f, 0x1e, 0xfa],
            &[0x0f, 0x1f, 0x44, 0, 0],
            &[0x0f, 0xae, 0xe8],
            &[0x0f, 0xae, 0xf0],
            &[0x0f, 0xae, 0xf8],
            &[0x0f, 0x18, 0x08],
        ];
        for code in codes {
            let mut m = TestMachine::long(code).at_cpl3();
            m.run(1);
            assert_eq!(m.state().general.rip, CODE + code.len() as u64, "{code:x?}");
        }
    }
}
