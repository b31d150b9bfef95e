//! Superblocks: blocks that mostly follow each other, translated together, and several times over
//! where they are a loop.
//!
//! One look at the quantum serves for all of them, accesses of all share their looks into the TLB,
//! and nothing is jumped over. Whatever goes another way than mostly goes on in the code of the
//! single blocks: every guest register is in its home there, so it is just a jump.

use std::sync::atomic::Ordering;

use iced_x86::{FlowControl, Instruction, Mnemonic};
use trivium_interp::Cpu;
use trivium_interp::block::{Block, BlockCache};
use trivium_interp::cpu::Mode;
use trivium_interp::native::NATIVE_SITES;

use crate::analyse::{End, Guest, instructions};
use crate::code::Region;
use crate::emit::memory::{Site, Sites};
use crate::emit::{Ahead, Emitted, Emitter, Finished, Single, Spare, is_flat, layout};
use crate::regs::Homes;
use crate::spans;
use crate::translate::{Jit, Link, emit_one};
use crate::x87::Notes;

/// Instructions that a superblock is to have at least, if it is a loop; and at most.
const ENOUGH: usize = 64;
const LIMIT: usize = 200;
/// How often a loop is repeated at most.
const COPIES: usize = 8;
/// So many translations that are not remembered are no reason to doubt that others will be.
const SEVERAL: u32 = 16;
/// Bytes at the beginning of the first block's code that make way for a jump.
const JUMP: usize = 5;

/// A superblock's code.
pub(crate) struct Superblock {
    /// What it is made of.
    parts: Vec<u32>,
    /// Where its code is: what is often run, and the rest.
    code: [std::ops::Range<u64>; 2],
    /// The accesses that remember translations.
    accesses: Vec<Site>,
    /// Instructions in it.
    count: u32,
    /// What was at the beginning of the first block's code.
    made_way: [u8; JUMP],
}

/// One block of a path, and how it goes on behind it.
struct Step {
    block: u32,
    guests: Vec<Guest>,
    end: End,
    /// The way, the next block, its RIP, and whether that is where the way leads in any case.
    next: Option<(Ahead, u32, u64, bool)>,
}

/// A return to come: where to, the block there and whether it is in any case, and the place of the
/// call in the path.
type Awaited = (u64, Option<(u32, bool)>, usize);

impl Superblock {
    /// Where its code begins.
    pub(crate) fn start(&self) -> u64 {
        self.code[0].start
    }

    /// Whether its code is in a region.
    pub(crate) fn is_in(&self, region: &Region) -> bool {
        self.code.iter().any(|code| region.has(code.start))
    }
}

impl Jit {
    /// Translates a block together with those that mostly follow it.
    pub(crate) fn make_superblock(&mut self, cpu: &mut Cpu, cache: &BlockCache, first: u32) {
        let heat = cache.block(first).map_or(0, |block| block.heat.get());
        let Some(code) = self.code(first) else { return };
        if code.superblock.is_some() {
            if !self.is_scattered(cpu, first, heat) {
                return;
            }
            self.give_up(first);
        }
        let Some(block) = cache.block(first) else { return };
        let path = self.path(cpu, cache, block);
        let closes = path.last().is_some_and(|step| step.next.is_some());
        if path.len() < 2 && !closes {
            return;
        }
        let Some(finished) = self.emit_path(cpu, cache, block, &path, closes) else { return };
        self.install(cpu, block, &path, &finished);
    }

    /// The blocks that mostly follow each other from one on. The last has a next one only if that
    /// is the first.
    fn path(&mut self, cpu: &Cpu, cache: &BlockCache, first: &Block) -> Vec<Step> {
        let mut path: Vec<Step> = Vec::new();
        let mut returns = Vec::new();
        let (mut block, mut length) = (first, 0);
        loop {
            let mut guests = Vec::new();
            let end = instructions(cpu, block, cache.decoded_ops(block), &mut guests);
            length += guests.len();
            let last = guests.last().map(|guest| guest.instruction);
            let next = last
                .and_then(|last| self.ahead(cache, block, &last, end, (&mut returns, path.len())));
            path.push(Step { block: block.target.index, guests, end, next: None });
            let Some((way, to, is_sure)) = next else { break };
            let Some(next) = cache.block(to) else { break };
            let is_first = next.target.index == first.target.index;
            let is_known = path.iter().any(|step| step.block == next.target.index);
            if is_known && last.is_some_and(|last| last.is_call_near()) {
                // Returns from what calls itself are better left to the host.
                break;
            }
            let is_good = next.mode == first.mode
                && self.code(next.target.index).is_some_and(|code| code.superblock.is_none());
            if !is_good || is_known && !is_first || length > LIMIT && !is_first {
                break;
            }
            if let Some(step) = path.last_mut() {
                step.next = Some((way, next.target.index, next.rip, is_sure));
            }
            if is_first {
                break;
            }
            block = next;
        }
        // So are those from where a loop does not return from.
        let closes = path.last().is_some_and(|step| step.next.is_some());
        if let Some((_, _, call)) = returns.first().filter(|_| closes) {
            path.truncate(call + 1);
            if let Some(last) = path.last_mut() {
                last.next = None;
            }
        }
        path
    }

    /// Emits the blocks of a path.
    fn emit_path(
        &mut self,
        cpu: &Cpu,
        cache: &BlockCache,
        first: &Block,
        path: &[Step],
        closes: bool,
    ) -> Option<Finished> {
        self.observer.begin();
        let length = path.iter().map(|step| step.guests.len()).sum::<usize>().max(1);
        let copies = if closes { (ENOUGH / length).clamp(1, COPIES) } else { 1 };
        let list: Vec<Instruction> = (0..copies)
            .flat_map(|_| path.iter().flat_map(|step| step.guests.iter()))
            .map(|guest| guest.instruction)
            .collect();
        let word = if first.mode.has(Mode::LONG) { 8 } else { 4 };
        self.known.of(cpu.model.features, self.simd.host);
        let mut facts = Vec::new();
        let spans = spans::find(
            list.iter(),
            word,
            spans::WIDE_LIMIT,
            &mut self.known,
            (&mut facts, &mut self.room),
        );
        let spans = if is_flat(first.mode, first.key.limit) { spans } else { Vec::new() };
        let count =
            |step: &Step| cache.block(step.block).map_or(0, |block| i32::from(block.target.count));
        let mut later = copies as i32 * path.iter().map(count).sum::<i32>();
        let index = first.target.index;
        let mut emitter = Emitter::new(
            Spare::default(),
            self.memory.next_two(),
            (self.ways, self.simd),
            (index, first.mode, later),
            spans,
        );
        let start = self.code(index)?.start;
        emitter.limit = first.key.limit;
        emitter.notes = Notes::new(&cpu.model);
        let half = usize::from(first.mode.has(Mode::USER));
        let is_scattered = |i: &&Instruction| self.scattered.contains(&i.ip());
        let scattered = list.iter().filter(is_scattered).map(Instruction::ip).collect();
        emitter.sites =
            Some(Sites { free: self.free_sites[half].clone(), used: Vec::new(), scattered });
        let homes = Homes::for_uses(&self.known.uses(&list));
        emitter.begin_superblock(
            i32::from(first.target.count),
            start + layout::body(self.simd.host),
            homes,
        );
        let mut facts = facts.into_iter();
        for (number, step) in (0..copies).flat_map(|_| path.iter()).enumerate() {
            let is_last = number + 1 == copies * path.len();
            later -= count(step);
            let block = cache.block(step.block)?;
            let single = Single { entries: self.code(step.block)?.entries.clone() };
            emitter.begin(step.block, later, step.next.map(|next| next.0), single);
            let ops = cache.decoded_ops(block);
            let apart = self.apart.contains(&block.rip);
            let mut emitted = Emitted::Done;
            for (number_in, guest) in step.guests.iter().enumerate() {
                emitter.is_last = number_in + 1 == step.guests.len();
                let offset = emitter.offset();
                let mut facts = facts.next()?;
                facts.span = facts.span.filter(|_| !apart);
                emitted = emit_one(&mut emitter, cpu, guest, facts, ops);
                let left = emitted == Emitted::Not;
                self.observer.step(cpu, block, (&guest.instruction, guest.op), offset, left);
                if emitted == Emitted::Not {
                    // All that comes behind it would be for nothing.
                    if number < 2 {
                        return None;
                    }
                    emitter.leave_to_interpreter(guest.op);
                    return emitter.finish();
                }
                if emitted == Emitted::Ended {
                    break;
                }
            }
            match (emitted, step.end, step.guests.last()) {
                (Emitted::Done, End::GoOn(rip), _) => emitter.go_on(1, rip),
                (Emitted::Done, End::Instruction, Some(last)) => {
                    emitter.go_on_after(&last.instruction);
                }
                _ => {}
            }
            if let Some((_, next, rip, is_sure)) = step.next {
                emitter.pass_on(next, rip, is_sure);
                if is_last {
                    emitter.close();
                }
            }
        }
        emitter.finish()
    }

    /// Puts a superblock's code in place.
    fn install(&mut self, cpu: &mut Cpu, block: &Block, path: &[Step], finished: &Finished) {
        let first = block.target.index;
        let count = finished.count as u32;
        let (start, cold) = self.memory.next_two();
        if !self.memory.put_two(finished.hot(), finished.cold()) {
            if self.memory.could_hold(finished.hot(), finished.cold()) {
                // The next time.
                self.make_room(cpu);
            }
            return;
        }
        self.observer.superblock(block, finished, (start, cold));
        let mut parts: Vec<u32> = path.iter().map(|step| step.block).collect();
        parts.dedup();
        for &part in &parts {
            if let Some(code) = self.code(part) {
                code.parts_of.push(first);
            }
        }
        for &(block, at) in &finished.guards {
            if let Some(code) = self.code(block) {
                code.guards.push(start + at as u64);
                if let Some(own) = code.guards.first().copied() {
                    let guard: [u8; layout::GUARD] = self.memory.read(own);
                    self.memory.write(start + at as u64, &guard);
                }
            }
        }
        for site in &finished.sites {
            let link = Link { slot: site.slot, operand: site.operand, stub: site.stub, to: None };
            let next = self.following(site.block, site.slot);
            let Some(code) = self.code(site.block) else { continue };
            code.links.push(link);
            if let Some((next, is_sure)) = next {
                self.join(site.block, site.operand, next, is_sure);
            }
        }
        let accesses = finished.accesses.as_ref().map_or(Vec::new(), |sites| sites.used.clone());
        let is_free = |free: &u16| !accesses.iter().any(|site| site.number == *free);
        self.free_sites.iter_mut().for_each(|half| half.retain(is_free));
        accesses.iter().for_each(|site| cpu.native.sites.take(site.number));
        let Some(code) = self.code(first) else { return };
        let entry = code.start;
        let made_way = self.memory.read(entry);
        let code =
            [start..start + finished.hot().len() as u64, cold..cold + finished.cold().len() as u64];
        if let Some(first) = self.code(first) {
            first.superblock = Some(Superblock { parts, code, accesses, count, made_way });
        }
        self.memory.write(entry, &[0xe9]);
        self.memory.jump_to(entry + 1, start);
        self.redirect(first, entry, start);
        if let Some(made) = &self.superblocks {
            made.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Makes jumps to a block that lead to an address lead to another.
    fn redirect(&mut self, block: u32, from: u64, to: u64) {
        let Some(code) = self.code(block) else { return };
        let mut places: Vec<u64> = code.incoming.iter().map(|(operand, _)| *operand).collect();
        // Its own guard's.
        places.extend(code.guards.first().map(|guard| guard + layout::GUARD_JUMP));
        for operand in places {
            if self.memory.target(operand) == from {
                self.memory.jump_to(operand, to);
            }
        }
    }

    /// Whether many accesses of a superblock find other translations than last time: it is then to be
    /// made anew, and they are to look into the TLB.
    fn is_scattered(&mut self, cpu: &mut Cpu, first: u32, heat: u32) -> bool {
        let Some(superblock) = self.code(first).and_then(|code| code.superblock.as_ref()) else {
            return false;
        };
        // About so many instructions were run since the last look, if they were all of it.
        let instructions = (heat / 2).max(1).saturating_mul(cpu.native.quantum as u32);
        let often = (instructions / superblock.count.max(1) / 4).max(SEVERAL);
        let accesses = superblock.accesses.clone();
        let mut any = false;
        for Site { ip, number, .. } in accesses {
            let Some(misses) = cpu.native.sites.misses.get_mut(usize::from(number)) else {
                continue;
            };
            if std::mem::take(misses) > often {
                self.scattered.insert(ip);
                any = true;
            }
        }
        any
    }

    /// Gives up the superblocks that a block is part of.
    pub(crate) fn give_up_superblocks(&mut self, block: u32) {
        let Some(code) = self.code(block) else { return };
        for first in std::mem::take(&mut code.parts_of) {
            self.give_up(first);
        }
    }

    pub(crate) fn give_up(&mut self, first: u32) {
        let Some(code) = self.code(first) else { return };
        let entry = code.start;
        let Some(superblock) = code.superblock.take() else { return };
        let Superblock { parts, code, accesses, made_way, .. } = superblock;
        for site in &accesses {
            let half = usize::from(usize::from(site.number) >= NATIVE_SITES / 2);
            self.free_sites[half].push(site.number);
        }
        self.memory.write(entry, &made_way);
        let [hot, cold] = code;
        self.redirect(first, hot.start, entry);
        for part in parts {
            let Some(code) = self.code(part) else { continue };
            code.parts_of.retain(|&of| of != first);
            code.guards.retain(|guard| !hot.contains(guard) && !cold.contains(guard));
            let (gone, links) = code
                .links
                .iter()
                .partition(|link| hot.contains(&link.operand) || cold.contains(&link.operand));
            code.links = links;
            let gone: Vec<Link> = gone;
            gone.iter().for_each(|link| self.unlink(link));
        }
    }

    /// Where a block mostly goes on: the way, the block, and whether the way leads there in any case.
    fn ahead(
        &mut self,
        cache: &BlockCache,
        block: &Block,
        last: &Instruction,
        end: End,
        (returns, place): (&mut Vec<Awaited>, usize),
    ) -> Option<(Ahead, u32, bool)> {
        let number = block.target.index;
        let mut way = |slot: u8| {
            let (to, is_sure) = self.following(number, slot)?;
            Some((Ahead::Link(slot), to, is_sure))
        };
        if end != End::Instruction {
            return way(1);
        }
        match last.flow_control() {
            FlowControl::Next => way(1),
            FlowControl::UnconditionalBranch if last.is_jmp_short_or_near() => way(0),
            FlowControl::Call if last.is_call_near() => {
                let next = last.next_ip() & block.mode.ip_mask();
                returns.push((next, way(1).map(|(_, to, is_sure)| (to, is_sure)), place));
                way(0)
            }
            FlowControl::Return if last.mnemonic() == Mnemonic::Ret => {
                let (rip, to, _) = returns.pop()?;
                let (to, is_sure) = to?;
                Some((Ahead::Return(rip), to, is_sure))
            }
            FlowControl::ConditionalBranch
                if last.is_jcc_short_or_near() || last.is_loop() || last.is_jcx_short() =>
            {
                let mut heat = |slot: u8| {
                    let next = cache.block(way(slot)?.1)?;
                    Some((u64::from(next.heat.get()), u64::from(next.target.count), next.rip))
                };
                match (heat(0), heat(1)) {
                    (Some((taken, taken_count, rip)), Some((not, not_count, _))) => {
                        let (taken, not) = (taken * not_count, not * taken_count);
                        let backwards = taken == not && rip <= block.rip;
                        way(u8::from(taken < not || taken == not && !backwards))
                    }
                    (Some(_), None) => way(0),
                    _ => way(1),
                }
            }
            _ => None,
        }
    }
}
