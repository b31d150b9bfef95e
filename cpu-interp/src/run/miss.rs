//! Accesses of handlers that the TLB could not serve.
//!
//! Most need a page walk and no more. The others (device registers, accesses across two pages,
//! stores to pages that hold code) are done on loan: the handler is given a TLB entry that leads
//! to a scratch page where what it wants to load has been put together, is run alone, and what it
//! has stored there goes where it belongs. So handlers have no other way to memory than the TLB.

use super::{Interpreter, Session};
use crate::cpu::{Access, Miss};
use crate::mem::{Place, Rights};
use crate::op::Stop;
use crate::tlb::{Entry, Tlb};

/// A TLB entry on loan.
#[derive(Clone, Copy)]
struct Loan {
    miss: Miss,
    /// What was in the TLB at its place.
    saved: Entry,
    /// Where the access was put together; none if it goes where it belongs at once.
    scratch: Option<usize>,
    parts: Parts,
}

/// Where the bytes of an access belong: up to two places, with the number of bytes at the first.
#[derive(Clone, Copy)]
struct Parts {
    places: [Place; 2],
    first: usize,
}

/// The loans of one operation: it makes at most one access of each kind.
#[derive(Default)]
pub(super) struct Loans {
    list: [Option<Loan>; 3],
    /// There are some.
    any: bool,
}

impl Loans {
    /// One for a device register, whose value is in the scratch page.
    pub(super) fn of_device(miss: Miss, saved: Entry, scratch: usize, gpa: u64) -> Self {
        let parts = Parts { places: [Place::Device(gpa); 2], first: usize::from(miss.size) };
        let mut loans = Self { any: true, ..Self::default() };
        loans.list[miss.kind as usize] = Some(Loan { miss, saved, scratch: Some(scratch), parts });
        loans
    }
}

impl Interpreter {
    /// Serves the miss by a page walk alone, if that is enough.
    pub(super) fn fill_tlb(&mut self) -> bool {
        let miss = self.cpu.miss;
        self.found = None;
        let last = miss.linear.wrapping_add(u64::from(miss.size) - 1);
        let crosses = last & !0xfff != miss.linear & !0xfff;
        if crosses || !self.cpu.may_cache(miss.linear) {
            return false;
        }
        let write = miss.kind != Access::Read;
        let walked = match self.cpu.check_bounds(miss.linear, miss.size, miss.seg) {
            Ok(()) => self.cpu.translate(miss.linear, write, Rights::Program),
            Err(stop) => Err(stop),
        };
        let Ok(place) = walked else {
            // `finish` meets the same exception.
            self.cpu.stop = crate::op::StopReason::Miss;
            return false;
        };
        let tlb = &self.cpu.tlb;
        let entries = if write { &tlb.write } else { &tlb.read };
        let filled = entries[Tlb::index(miss.linear)].has(miss.linear);
        self.found = (!filled).then_some((miss, place));
        self.cpu.native.count(|counts| counts.tlb_fills += u64::from(filled));
        filled
    }

    /// Puts the access together in the scratch page and lends the handler an entry to it.
    pub(super) fn lend(
        &mut self,
        loans: &mut Loans,
        session: &mut Session<'_>,
    ) -> Result<(), Stop> {
        let miss = self.cpu.miss;
        let found = self.found.take();
        self.cpu.native.count(|counts| counts.lent += 1);
        self.cpu.check_bounds(miss.linear, miss.size, miss.seg)?;
        let (write, size) = (miss.kind != Access::Read, u64::from(miss.size));
        self.cpu.examine(miss.linear, size, size.next_power_of_two().min(16), write)?;
        let parts = match found {
            Some((found, place)) if found == miss => {
                Parts { places: [place; 2], first: usize::from(miss.size) }
            }
            _ => self.parts(&miss, write)?,
        };
        let slot = miss.kind as usize;
        let direct = self.direct(&parts, write);
        let scratch = self.cpu.scratch + slot * 64;
        if direct.is_none() && miss.kind != Access::Write {
            let mut bytes = [0; 64];
            let bytes = &mut bytes[..usize::from(miss.size.min(64))];
            self.read_parts(&parts, bytes, session);
            self.cpu.ram.write_slice(scratch, bytes);
        }
        let last = miss.linear.wrapping_add(u64::from(miss.size) - 1);
        let offset = direct.unwrap_or(scratch);
        // What another loan's page walk has entered may have taken this one's place.
        if let Some(earlier) = loans.list[slot].take() {
            self.cpu.tlb.give_back(earlier.miss.linear, write, earlier.saved);
        }
        let host = self.cpu.ram.base_address().wrapping_add(offset as u64);
        let saved = self.cpu.tlb.lend(miss.linear, last, host, write);
        let scratch = direct.is_none().then_some(scratch);
        loans.any = true;
        loans.list[slot] = Some(Loan { miss, saved, scratch, parts });
        Ok(())
    }

    /// The arena offset of an access that may be made in place, as those may that are in plain RAM
    /// but watched: so a locked one stays locked.
    fn direct(&self, parts: &Parts, write: bool) -> Option<usize> {
        let memory = &self.cpu.memory;
        match parts.places {
            [Place::Ram(first), Place::Ram(second)] if first == second => {
                (!write || !memory.code().has_code(first)).then_some(first)
            }
            _ => None,
        }
    }

    fn parts(&mut self, miss: &Miss, write: bool) -> Result<Parts, Stop> {
        let size = usize::from(miss.size);
        let in_page = 4096 - (miss.linear & 0xfff) as usize;
        let first = self.cpu.translate(miss.linear, write, Rights::Program)?;
        if size <= in_page {
            return Ok(Parts { places: [first; 2], first: size });
        }
        let next = miss.linear.wrapping_add(in_page as u64);
        let next = if self.cpu.long_mode() { next } else { next & 0xffff_ffff };
        let second = self.cpu.translate(next, write, Rights::Program)?;
        Ok(Parts { places: [first, second], first: in_page })
    }

    fn read_parts(&mut self, parts: &Parts, bytes: &mut [u8], session: &mut Session<'_>) {
        let (first, second) = bytes.split_at_mut(parts.first.min(bytes.len()));
        for (place, bytes) in [(parts.places[0], first), (parts.places[1], second)] {
            match place {
                _ if bytes.is_empty() => {}
                Place::Ram(offset) | Place::Rom(offset, _) => {
                    self.cpu.ram.read_slice(offset, bytes);
                }
                Place::Device(gpa) => session.bus().mmio_read(gpa, bytes),
            }
        }
    }

    fn write_parts(&mut self, parts: &Parts, bytes: &[u8], session: &mut Session<'_>) {
        let (first, second) = bytes.split_at(parts.first.min(bytes.len()));
        for (place, bytes) in [(parts.places[0], first), (parts.places[1], second)] {
            match place {
                _ if bytes.is_empty() => {}
                Place::Ram(offset) => self.store_bytes(offset, bytes),
                Place::Rom(_, gpa) | Place::Device(gpa) => session.bus().mmio_write(gpa, bytes),
            }
        }
    }

    /// Stores to RAM in one access where the width is one that the host has.
    fn store_bytes(&mut self, offset: usize, bytes: &[u8]) {
        let cpu = &mut self.cpu;
        match *bytes {
            [a] => cpu.ram.store(offset, a),
            [a, b] => cpu.ram.store(offset, u16::from_le_bytes([a, b])),
            [a, b, c, d] => cpu.ram.store(offset, u32::from_le_bytes([a, b, c, d])),
            [a, b, c, d, e, f, g, h] => {
                cpu.ram.store(offset, u64::from_le_bytes([a, b, c, d, e, f, g, h]));
            }
            _ => cpu.ram.write_slice(offset, bytes),
        }
        cpu.memory.dirty().mark(offset, bytes.len());
        cpu.note_code_write(offset, bytes.len());
    }

    /// Takes the loans back; what a completed operation stored goes where it belongs.
    pub(super) fn settle(&mut self, loans: &mut Loans, completed: bool, session: &mut Session<'_>) {
        if std::mem::take(&mut loans.any) {
            self.take_back(loans, completed, session);
        }
        self.flush_device_stores(session);
    }

    fn take_back(&mut self, loans: &mut Loans, completed: bool, session: &mut Session<'_>) {
        for loan in loans.list.iter_mut().filter_map(Option::take) {
            let write = loan.miss.kind != Access::Read;
            // The operation may have gone over to another privilege's TLB; it makes no accesses
            // after that, and blocks of system operations take no loans.
            self.cpu.tlb.give_back(loan.miss.linear, write, loan.saved);
            if let Some(scratch) = loan.scratch.filter(|_| completed && write) {
                let mut bytes = [0; 64];
                let bytes = &mut bytes[..usize::from(loan.miss.size.min(64))];
                self.cpu.ram.read_slice(scratch, bytes);
                self.write_parts(&loan.parts, bytes, session);
            }
        }
    }
}
