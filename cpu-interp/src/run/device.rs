//! Device registers whose page is known: a handler's load or store of one without a page walk, and
//! the way on from there within the block.

use super::miss::Loans;
use super::{Interpreter, Position, Served, Session};
use crate::cpu::{Access, Miss, Space};
use crate::op::StopReason;

impl Interpreter {
    /// Serves a handler's load or store if it is of one device register, and its page is known. The
    /// handler is given what was read, or is asked what it stores, through the scratch page.
    pub(super) fn access_device(
        &mut self,
        position: &Position,
        session: &mut Session<'_>,
    ) -> Option<Served> {
        let miss = self.cpu.miss;
        let gpa = self.device_register(&miss)?;
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
            let mut loans = Loans::of_device(miss, saved, scratch, gpa);
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
        Some(self.after(position, session).map_or(Served::Other, Served::Next))
    }

    /// The guest-physical address of the one device register that an access is to, unless something
    /// watches it.
    fn device_register(&mut self, miss: &Miss) -> Option<u64> {
        let aligned = miss.size.is_power_of_two()
            && miss.size <= 8
            && miss.linear & (u64::from(miss.size) - 1) == 0;
        let cpu = &mut self.cpu;
        if !aligned || miss.kind == Access::Modify || cpu.space == Space::Checked || cpu.watch.data
        {
            return None;
        }
        let gpa = cpu.tlb.device(miss.linear, miss.kind == Access::Write)?;
        if cpu.check_bounds(miss.linear, miss.size, miss.seg).is_err() {
            // Whoever serves it otherwise meets the same exception.
            cpu.stop = StopReason::Miss;
            return None;
        }
        Some(gpa)
    }

    /// The position behind an operation that was completed by itself, if the processor may go on
    /// there: in the same block, and nobody wants anything of it.
    fn after(&self, position: &Position, session: &Session<'_>) -> Option<Position> {
        let Self { cpu, cache, .. } = self;
        let block = cache.block(position.block)?;
        let op = cache.ops(block.target).get(position.op + 1)?;
        let done = *block.before.get(position.op + 1)?;
        let here = block.rip.wrapping_add(op.off as u64) & cpu.ip_mask == cpu.rip;
        // What does nothing has no operation, but is an instruction.
        let next = here && done == position.done + 1;
        let wanted = cpu.look || cpu.attention.is_wanted() || cpu.pending_debug != 0;
        let changed = cpu.memory.code().any_written() || cpu.view.is_old(&cpu.memory);
        let free = next && !wanted && !changed && cpu.shadow == 0 && session.left > 0;
        free.then_some(Position { block: position.block, op: position.op + 1, done })
    }
}
