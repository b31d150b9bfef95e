//! Device registers whose page is known: a handler's load or store of one without a page walk, and
//! the way on from there within the block.

use super::miss::Loans;
use super::{Interpreter, Position, Served, Session};
use crate::cpu::{Access, Cpu, Miss, Mode, Space};
use crate::op::{Op, StopReason};

impl Interpreter {
    /// Serves a handler's load or store if it is of one device register, and its page is known.
    pub(super) fn access_device(
        &mut self,
        position: &Position,
        session: &mut Session<'_>,
    ) -> Option<Served> {
        let miss = self.cpu.miss;
        let Self { cpu, cache, .. } = self;
        let gpa = device_register(cpu, &miss)?;
        cpu.native.count(|counts| counts.device += 1);
        let block = cache.block(position.block)?;
        let (op, rest) = cache.decoded_ops(block).get(position.op..)?.split_first()?;
        if !move_of_device(cpu, op, &miss, gpa, session) {
            return self.lend_register(position, &miss, gpa, session);
        }
        session.retire(1);
        cpu.rip = cpu.rip_after(block, op);
        // Between the two may be what does nothing, or a jump that was followed.
        let goes_on = rest.first().is_some_and(|next| next.off == op.off + i16::from(op.len));
        if !goes_on || is_wanted(cpu) || session.left == 0 {
            return Some(Served::Other);
        }
        let Position { block, op, done } = *position;
        Some(Served::Next(Position { block, op: op + 1, done: done + 1 }))
    }

    /// Gives a handler what was read, or asks it what it stores, through the scratch page.
    fn lend_register(
        &mut self,
        position: &Position,
        miss: &Miss,
        gpa: u64,
        session: &mut Session<'_>,
    ) -> Option<Served> {
        let cpu = &mut self.cpu;
        let (write, size) = (miss.kind == Access::Write, usize::from(miss.size.min(8)));
        let scratch = cpu.scratch + miss.kind as usize * 64;
        if !write {
            let mut bytes = [0; 8];
            session.bus().mmio_read(gpa, &mut bytes[..size]);
            cpu.ram.store(scratch, u64::from_le_bytes(bytes));
        }
        let host = cpu.ram.base_address().wrapping_add(scratch as u64);
        let saved = cpu.tlb.lend(miss.linear, miss.linear, host, write);
        cpu.mmio.forget();
        let start = cpu.rip;
        if !self.run_alone(position) {
            // It makes another access that needs help.
            self.cpu.rip = start;
            let mut loans = Loans::of_device(*miss, saved, scratch, gpa);
            return Some(self.serve_with(position, &mut loans, session));
        }
        let cpu = &mut self.cpu;
        cpu.tlb.give_back(miss.linear, write, saved);
        if write {
            let bytes: u64 = cpu.ram.load(scratch);
            session.bus().mmio_write(gpa, &bytes.to_le_bytes()[..size]);
        }
        self.flush_device_stores(session);
        session.retire(1);
        Some(Served::Other)
    }
}

/// The guest-physical address of the one device register that an access is to, unless something
/// watches it.
fn device_register(cpu: &mut Cpu, miss: &Miss) -> Option<u64> {
    let aligned = miss.size.is_power_of_two()
        && miss.size <= 8
        && miss.linear & (u64::from(miss.size) - 1) == 0;
    let watched = cpu.space == Space::Checked || cpu.watch.data;
    if !aligned || watched || miss.kind == Access::Modify {
        return None;
    }
    let gpa = cpu.tlb.device(miss.linear, miss.kind == Access::Write)?;
    // In long mode an address whose page is known is canonical.
    if !cpu.mode.has(Mode::LONG) && cpu.check_bounds(miss.linear, miss.size, miss.seg).is_err() {
        // Whoever serves it otherwise meets the same exception.
        cpu.stop = StopReason::Miss;
        return None;
    }
    Some(gpa)
}

/// Whether anybody wants something of the processor before its next instruction, or what it runs may
/// have changed.
fn is_wanted(cpu: &Cpu) -> bool {
    cpu.look
        || cpu.attention.is_wanted()
        || cpu.pending_debug != 0
        || cpu.shadow != 0
        || cpu.code_is_written()
        || cpu.view.is_old(&cpu.memory)
}

/// Does the whole of an instruction that only moves between a register and the processor, if it is
/// such a one.
fn move_of_device(
    cpu: &mut Cpu,
    op: &Op,
    miss: &Miss,
    gpa: u64,
    session: &mut Session<'_>,
) -> bool {
    let size = usize::from(miss.size.min(8));
    let value = match op.prefixes & (Op::LOAD | Op::STORE | Op::STORE_IMMEDIATE) {
        Op::LOAD => {
            let mut bytes = [0; 8];
            session.bus().mmio_read(gpa, &mut bytes[..size]);
            cpu.set_reg(op.dst, op.dst_shift, op.size, u64::from_le_bytes(bytes));
            return true;
        }
        Op::STORE => cpu.reg(op.src, op.src_shift, miss.size),
        Op::STORE_IMMEDIATE => op.imm,
        _ => return false,
    };
    session.bus().mmio_write(gpa, &value.to_le_bytes()[..size]);
    true
}
