//! Finding the block at RIP, and making it where there is none.

use trivium_cpu::state::CS;
use trivium_cpu::walk::{self, is_canonical};
use trivium_cpu::{Exception, bits::cr4};
use trivium_memory::{Backing, Written};

use super::Interpreter;
use crate::block::{Dropped, Key, Reach};
use crate::cpu::Mode;
use crate::decode::{self, MAX_LEN, Source};
use crate::op::Stop;

const PAGE: usize = 4096;

impl Interpreter {
    /// The block at RIP; one of a single instruction if `single`.
    ///
    /// # Errors
    /// The instruction cannot be fetched: `Cpu::exception` says why.
    pub(super) fn current_block(&mut self, single: bool) -> Result<u32, Stop> {
        self.find_block(single).map(|(index, _)| index)
    }

    /// The block at RIP, and what may change the way to it.
    pub(super) fn find_block(&mut self, single: bool) -> Result<(u32, Reach), Stop> {
        let rip = self.cpu.rip;
        if let (false, Some(known)) = (single, self.cache.jump_and_reach(&self.cpu, rip)) {
            return Ok(known);
        }
        let linear = self.code_linear(rip)?;
        let (offset, reach) = self.fetch_place(linear)?;
        let mode = Mode(self.cpu.mode.0 | if single { Mode::SINGLE } else { 0 });
        let limit = self.cpu.code_limit() as u32;
        let key = Key { offset, rip, mode, limit, base: self.cpu.code_base() };
        let index = match self.cache.find(&key) {
            Some(index) if self.second_page_is_same(index)? => index,
            Some(index) => {
                self.cache.drop_block(index);
                self.cpu.generations.void(Reach::Page);
                self.tell_of_drops();
                self.make(key, linear)?
            }
            None => self.make(key, linear)?,
        };
        // A block that ends on another page depends on that one's translation too.
        let whole = self.cache.block(index).is_some_and(|b| b.second_page.is_none());
        let reach = if whole { reach } else { Reach::Any };
        if !single && !self.cpu.watches_code(rip) {
            self.cache.remember(&self.cpu, rip, index, reach);
        }
        Ok((index, reach))
    }

    /// The linear address of a RIP, with the checks that fetching makes.
    fn code_linear(&mut self, rip: u64) -> Result<u64, Stop> {
        let cpu = &mut self.cpu;
        let level5 = cpu.control.cr4 & cr4::LA57 != 0;
        let cs = &cpu.segments.regs[CS];
        if cpu.mode.has(Mode::LONG) {
            if is_canonical(rip, level5) {
                return Ok(rip);
            }
        } else if rip <= u64::from(cs.limit) {
            return Ok(cs.base.wrapping_add(rip) & 0xffff_ffff);
        }
        Err(cpu.raise(Exception::gp(0)))
    }

    /// The arena offset of code, and what may change that.
    fn fetch_place(&mut self, linear: u64) -> Result<(usize, Reach), Stop> {
        let cpu = &mut self.cpu;
        let user = cpu.cpl() == 3;
        if let Some(found) = cpu.fetch.get(linear, user, &cpu.generations) {
            return Ok(found);
        }
        let access = walk::Access { write: false, fetch: true, user, ac: false };
        let found = match walk::walk_in(&cpu.paging, &cpu.memory, &cpu.view, linear, access) {
            Ok(found) => found,
            Err(exception) => return Err(cpu.raise(exception)),
        };
        match cpu.view.lookup_code(found.gpa) {
            Backing::Ram(offset) | Backing::Rom(offset) => {
                let reach = crate::cpu::Cpu::reach(linear, found.global);
                cpu.fetch.put(linear, user, offset, reach, &cpu.generations);
                cpu.code_pages_of(reach).note(linear, found.page_size);
                Ok((offset, reach))
            }
            // Open bus reads as FFh FFh, which is no instruction; code in device registers is not
            // a thing that a PC's chips answer to.
            Backing::Mmio { .. } | Backing::Nothing => Err(cpu.raise(Exception::ud())),
        }
    }

    /// Whether a block that ends on another page than it begins would still be read from there.
    fn second_page_is_same(&mut self, index: u32) -> Result<bool, Stop> {
        let second = self.cache.block(index).and_then(|b| b.second_page);
        match second {
            None => Ok(true),
            Some((page, linear)) => Ok(self.fetch_place(linear)?.0 >> 12 == page),
        }
    }

    /// Decodes the block of a key.
    fn make(&mut self, key: Key, linear: u64) -> Result<u32, Stop> {
        let start = key.offset % PAGE;
        let mut bytes = [0; PAGE];
        self.cpu.ram.read_slice(key.offset - start, &mut bytes);
        let limit = self.cpu.code_limit();
        let vendor = self.cpu.model.vendor;
        let features = self.cpu.model.features;
        let source = Source { bytes: &bytes, start, rip: key.rip, limit, vendor, features };
        let (mut decoded, second) = match decode::decode_some(&source, key.mode, self.limits.most())
        {
            Ok(decoded) => (decoded, None),
            Err(decode::DecodeError::Truncated) => self.decode_across(key, linear, &bytes)?,
        };
        if self.translator.is_some() && !key.mode.has(Mode::SINGLE) {
            decoded.add_entry();
        }
        if !self.cache.has_room(decoded.ops.len()) {
            self.make_room();
        }
        let page = key.offset - start;
        for &(from, len) in &decoded.spans {
            match second {
                // The bytes are those of the instruction alone, on two pages.
                Some((page, _)) => {
                    self.mark_code(key.offset, PAGE - start);
                    self.mark_code(page << 12, len.saturating_sub(PAGE - start).max(1));
                }
                None => self.mark_code(page + from, len),
            }
        }
        let block = decoded.to_block(key, second);
        block.cold.set(self.warm);
        Ok(self.cache.insert(block, &decoded.ops))
    }

    /// Drops blocks for which there is no room any more: all, if the others are too many.
    pub(super) fn make_room(&mut self) {
        if !self.cache.make_room() {
            return self.drop_all_blocks();
        }
        self.cpu.generations.void(Reach::Page);
        self.tell_of_drops();
    }

    /// Begins anew, with no blocks.
    pub(super) fn drop_all_blocks(&mut self) {
        let pages = self.cache.clear();
        // Other CPUs may hold code of the same pages.
        if self.cpu.memory.code().has_one_reader() {
            for page in pages {
                self.cpu.memory.code().clear(page);
            }
        }
        self.cpu.generations.void(Reach::Page);
        self.tell_of_drops();
    }

    /// Lets the translator know of blocks that are no more.
    pub(super) fn tell_of_drops(&mut self) {
        let dropped = self.cache.take_dropped();
        if let Some(translator) = self.translator.as_mut().filter(|_| dropped != Dropped::None) {
            translator.forget(&mut self.cpu, dropped);
        }
    }

    /// Decodes an instruction that begins on one page and ends on the next.
    fn decode_across(
        &mut self,
        key: Key,
        linear: u64,
        first: &[u8; PAGE],
    ) -> Result<(decode::Decoded, Option<(usize, u64)>), Stop> {
        let start = key.offset % PAGE;
        let in_first = PAGE - start;
        let next = (linear & !0xfff).wrapping_add(PAGE as u64);
        // The rest is fetched after the checks that its address must pass, as for the first byte.
        let next_rip = key.rip.wrapping_add(in_first as u64);
        let next = if self.cpu.mode.has(Mode::LONG) {
            self.code_linear(next_rip)?
        } else if next_rip > self.cpu.code_limit() {
            return Err(self.cpu.raise(Exception::gp(0)));
        } else {
            next & 0xffff_ffff
        };
        let (second, _) = self.fetch_place(next)?;
        let mut bytes = [0; 2 * MAX_LEN];
        bytes[..in_first].copy_from_slice(&first[start..]);
        let end = in_first + MAX_LEN;
        self.cpu.ram.read_slice(second, &mut bytes[in_first..end]);
        let vendor = self.cpu.model.vendor;
        let limit = self.cpu.code_limit();
        let features = self.cpu.model.features;
        let bytes = &bytes[..end];
        let source = Source { bytes, start: 0, rip: key.rip, limit, vendor, features };
        let mode = Mode(key.mode.0 | Mode::SINGLE);
        match decode::decode(&source, mode) {
            Ok(decoded) => Ok((decoded, Some((second >> 12, next)))),
            // 15 bytes are there: what is not complete by then is too long.
            Err(decode::DecodeError::Truncated) => Err(self.cpu.raise(Exception::gp(0))),
        }
    }

    /// Bytes have become code: stores to their page must be seen from now on.
    fn mark_code(&mut self, offset: usize, len: usize) {
        if self.cpu.memory.code().mark(offset, len) {
            self.cpu.revoke_write(offset);
            self.cpu.revoke_write(offset + len - 1);
        }
    }

    /// Drops the blocks of pages whose code was written.
    pub(super) fn drop_written_code(&mut self) {
        let cpu = &mut self.cpu;
        let pages = match cpu.memory.code().take_written(&mut cpu.code_reader) {
            Written::Pages(pages) => pages,
            Written::Any => return self.drop_all_blocks(),
        };
        for page in pages {
            self.cache.drop_page(page);
        }
        self.cpu.generations.void(Reach::Page);
        self.tell_of_drops();
    }
}
