//! Blocks of pre-decoded operations, where to find them, and when they are void.
//!
//! A block begins at a RIP in a mode at a physical place, and ends with an operation that leaves
//! it. Blocks remember which block follows them ([`Link`]); such links, and the entries of the jump
//! cache, hold as long as nothing has happened that could lead elsewhere ([`Reach`]).

use std::cell::Cell;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use crate::cpu::{Cpu, Mode};
use crate::op::{Op, StopReason, SystemFn};

/// A block of pre-decoded operations. What handlers need of it is in its first cache line.
#[repr(C, align(64))]
pub struct Block {
    /// RIP of its first instruction.
    pub rip: u64,
    /// The blocks that follow: by branching, and by going on.
    pub links: [Cell<Link>; 2],
    /// The mode it was decoded for.
    pub mode: Mode,
    /// Where it is in the cache.
    pub target: Target,
    /// Where its operations are as they were decoded, if a translator has replaced some.
    pub decoded: u32,
    /// For each operation, how many of the block's instructions come before it.
    pub before: Box<[u8]>,
    /// What the outer loop calls for the last operation, if that is [`crate::op::system`].
    pub system: Option<SystemFn>,
    /// Where it came from.
    pub key: Key,
    /// Whether its first operation stands for all of it: [`crate::op::count`], or what a translator
    /// has made.
    pub has_entry: bool,
    /// How many times it is still to be entered before it is worth translating; then the
    /// translator's.
    pub cold: Cell<u32>,
    /// How often the quantum was used up where it would have begun, in translated code.
    pub heat: Cell<u32>,
    /// Arena page of its last byte if that is not the first byte's, and its linear address.
    pub second_page: Option<(usize, u64)>,
}

/// What identifies a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key {
    /// Arena offset of its first byte.
    pub offset: usize,
    /// RIP of its first instruction: operations hold addresses made from it.
    pub rip: u64,
    /// The mode.
    pub mode: Mode,
    /// The code segment's limit, where the block or its branches may pass it.
    pub limit: u32,
    /// The code segment's base: the blocks that follow are found by it.
    pub base: u32,
}

/// What can make the way from one block to another void.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(u8)]
pub enum Reach {
    /// Only that blocks are dropped: both are on the same page.
    Page = 0,
    /// That, and dropping translations of global pages.
    Global = 1,
    /// That, and dropping any translation.
    #[default]
    Any = 2,
}

/// Numbers that change when ways of each [`Reach`] become void.
#[derive(Debug, Clone, Copy)]
pub struct Generations {
    of: [u64; 4],
    /// The same of whoever knows by himself when blocks are dropped.
    mappings: [u64; 4],
    /// The greatest that there was. No number comes twice, but for [`Self::exchange`].
    newest: u64,
}

/// What [`Reach::Any`] had as its numbers when an address space was left.
#[derive(Debug, Clone, Copy, Default)]
pub struct Left {
    of: u64,
    mappings: u64,
}

impl Default for Generations {
    fn default() -> Self {
        // Links that were never set have 0.
        Self { of: [1; 4], mappings: [1; 4], newest: 1 }
    }
}

impl Generations {
    #[inline(always)]
    fn of(&self, reach: Reach) -> u64 {
        self.of[reach as usize & 3]
    }

    /// The number of ways of a reach that depend on translations of addresses alone.
    #[inline(always)]
    #[must_use]
    pub fn mappings(&self, reach: Reach) -> u64 {
        self.mappings[reach as usize & 3]
    }

    /// Makes ways of `reach`, and of those that depend on more, void.
    pub fn void(&mut self, reach: Reach) {
        self.newest += 1;
        self.of[reach as usize & 3..].fill(self.newest);
        if reach != Reach::Page {
            self.mappings[reach as usize & 3..].fill(self.newest);
        }
    }

    /// Goes over to another address space: ways that depend on any translation hold again if they
    /// did under these numbers and no others have become void since. Gives the numbers of those that
    /// held until now.
    pub fn exchange(&mut self, entered: Left) -> Left {
        let any = Reach::Any as usize;
        let left = Left { of: self.of[any], mappings: self.mappings[any] };
        self.newest += 1;
        for (numbers, entered) in
            [(&mut self.of, entered.of), (&mut self.mappings, entered.mappings)]
        {
            let holds = entered >= numbers[Reach::Global as usize];
            numbers[any..].fill(if holds { entered } else { self.newest });
        }
        left
    }
}

/// All that is needed to enter a block, so that its operations can be fetched without a look at
/// the block itself.
#[derive(Debug, Clone, Copy, Default)]
pub struct Target {
    /// The block's number.
    pub index: u32,
    /// Where its operations begin among all.
    pub start: u32,
    /// How many they are; never none, and the last leaves the block.
    pub len: u8,
    /// Instructions in it.
    pub count: u8,
}

/// A block that follows another, if `generation` is the present one of `reach`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Link {
    generation: u64,
    target: Target,
    reach: Reach,
}

/// An entry of the jump cache.
#[derive(Debug, Clone, Copy, Default)]
struct Jump {
    /// RIP.
    place: u64,
    /// Generation, code segment and mode.
    tag: u64,
    target: Target,
    reach: Reach,
}

const JUMPS: usize = 4096;

fn jump_slot(rip: u64) -> usize {
    (rip ^ rip >> 12) as usize % JUMPS
}

#[inline(always)]
fn jump_tag(cpu: &Cpu, reach: Reach) -> u64 {
    cpu.tag(cpu.generations.of(reach))
}

/// A fast hash for keys that are addresses.
#[derive(Default)]
pub struct AddressHasher(u64);

impl Hasher for AddressHasher {
    fn finish(&self) -> u64 {
        self.0 ^ self.0 >> 32
    }
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }
    fn write_u64(&mut self, value: u64) {
        self.0 = (self.0.rotate_left(5) ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
    fn write_usize(&mut self, value: usize) {
        self.write_u64(value as u64);
    }
    fn write_u32(&mut self, value: u32) {
        self.write_u64(u64::from(value));
    }
    fn write_u16(&mut self, value: u16) {
        self.write_u64(u64::from(value));
    }
}

type Map<K, V> = HashMap<K, V, BuildHasherDefault<AddressHasher>>;

/// All blocks of a CPU.
pub struct BlockCache {
    /// The operations of all blocks, and room that dropped ones have left.
    ops: Vec<Op>,
    /// Where so many operations in a row are nobody's, by their number.
    room: Vec<Vec<u32>>,
    blocks: Vec<Block>,
    jumps: Box<[Cell<Jump>]>,
    map: Map<Key, u32>,
    /// Which blocks have bytes in an arena page.
    pages: Map<usize, Vec<u32>>,
    free: Vec<u32>,
    /// How many times blocks were dropped.
    drops: u64,
    dropped: Dropped,
}

/// Blocks that are no more.
#[derive(Debug, Default, PartialEq, Eq)]
pub enum Dropped {
    /// None.
    #[default]
    None,
    /// Those of these numbers.
    Some(Vec<u32>),
    /// All that there were.
    All,
}

/// There are no more operations than this: 48 bytes each, 48 MiB.
const MAX_OPS: usize = 1 << 20;
/// Nor more in a block.
const MAX_BLOCK_OPS: usize = u8::MAX as usize;
/// Dropping blocks that are seldom run must yield as many operations to be worth it.
const WORTH_DROPPING: usize = MAX_OPS / 4;

impl BlockCache {
    /// An empty cache.
    #[must_use]
    pub fn new() -> Self {
        Self {
            // Address space only, until it is used: it never moves.
            ops: Vec::with_capacity(MAX_OPS),
            room: vec![Vec::new(); MAX_BLOCK_OPS + 1],
            blocks: Vec::new(),
            jumps: vec![Cell::default(); JUMPS].into(),
            map: Map::default(),
            pages: Map::default(),
            free: Vec::new(),
            drops: 0,
            dropped: Dropped::None,
        }
    }

    /// A number that grows when blocks are dropped: block numbers from before may be others'.
    #[must_use]
    pub fn drops(&self) -> u64 {
        self.drops
    }

    /// A block by its number.
    #[inline(always)]
    #[must_use]
    pub fn block(&self, index: u32) -> Option<&Block> {
        self.blocks.get(index as usize)
    }

    /// A block's operations.
    #[inline(always)]
    #[must_use]
    pub fn ops(&self, target: Target) -> &[Op] {
        let start = target.start as usize;
        self.ops.get(start..start + usize::from(target.len)).unwrap_or_default()
    }

    /// A block's operations as they were decoded.
    #[inline(always)]
    #[must_use]
    pub fn decoded_ops(&self, block: &Block) -> &[Op] {
        self.ops(Target { start: block.decoded, ..block.target })
    }

    /// The block of a key.
    #[must_use]
    pub fn find(&self, key: &Key) -> Option<u32> {
        self.map.get(key).copied()
    }

    /// The block at the CPU's RIP, if the jump cache knows.
    #[inline(always)]
    #[must_use]
    pub fn jump(&self, cpu: &Cpu, rip: u64) -> Option<Target> {
        let jump = self.jumps[jump_slot(rip)].get();
        (jump.place == rip && jump.tag == jump_tag(cpu, jump.reach)).then_some(jump.target)
    }

    /// The number of the block at a RIP and what the way to it depends on, if the jump cache knows.
    #[must_use]
    pub fn jump_and_reach(&self, cpu: &Cpu, rip: u64) -> Option<(u32, Reach)> {
        self.jump(cpu, rip).map(|target| (target.index, self.jumps[jump_slot(rip)].get().reach))
    }

    /// Tells the jump cache.
    pub fn remember(&self, cpu: &Cpu, rip: u64, index: u32, reach: Reach) {
        if let Some(&Block { target, .. }) = self.block(index) {
            let (place, tag) = (rip, jump_tag(cpu, reach));
            self.jumps[jump_slot(rip)].set(Jump { place, tag, target, reach });
        }
    }

    /// Links a block to the one that follows it. Gives what the link depends on.
    pub fn link(&self, cpu: &Cpu, from: u32, slot: u8, to: u32, reach: Reach) -> Option<Reach> {
        let (block, next) = (self.block(from)?, self.block(to)?);
        let whole = block.second_page.is_none() && next.second_page.is_none();
        let same_page = block.key.offset >> 12 == next.key.offset >> 12
            && block.rip >> 12 == next.rip >> 12
            && whole;
        let reach = if same_page { Reach::Page } else { reach };
        if let Some(link) = block.links.get(usize::from(slot)) {
            let generation = cpu.generations.of(reach);
            link.set(Link { generation, target: next.target, reach });
        }
        Some(reach)
    }

    /// The block that follows another by a link, if the link holds, and what it depends on.
    #[must_use]
    pub fn following(&self, cpu: &Cpu, block: &Block, slot: u8) -> Option<(Target, Reach)> {
        let link = block.links[usize::from(slot & 1)].get();
        (link.generation == cpu.generations.of(link.reach)).then_some((link.target, link.reach))
    }

    /// Whether another block of `ops` operations fits; if not, [`Self::make_room`] is due.
    #[must_use]
    pub fn has_room(&self, ops: usize) -> bool {
        self.ops.len() + ops <= MAX_OPS || self.room.iter().skip(ops).any(|room| !room.is_empty())
    }

    /// Takes room for so many operations: what a dropped block of as many has left, or after all
    /// others, or a part of what a longer one has left. `filler` is there until they are.
    fn take_room(&mut self, len: usize, filler: Op) -> Option<u32> {
        if let Some(start) = self.room.get_mut(len)?.pop() {
            return Some(start);
        }
        let end = self.ops.len();
        if end + len <= MAX_OPS {
            self.ops.resize(end + len, filler);
            return Some(end as u32);
        }
        let longer = (len..=MAX_BLOCK_OPS).find(|&longer| !self.room[longer].is_empty())?;
        let start = self.room[longer].pop()?;
        self.room[longer - len].push(start + len as u32);
        Some(start)
    }

    /// Makes room for others by dropping blocks that were never translated, if there are many; else it
    /// drops none, and [`Self::clear`] is due. The CPU's ways of every reach must be made void.
    #[must_use]
    pub fn make_room(&mut self) -> bool {
        let is_plain = |block: &&Block| block.decoded == block.target.start;
        let all = self.map.values().filter_map(|&index| self.block(index));
        let plain: Vec<Target> = all.filter(is_plain).map(|block| block.target).collect();
        let yielded: usize = plain.iter().map(|target| usize::from(target.len)).sum();
        if yielded < WORTH_DROPPING {
            return false;
        }
        for target in plain {
            self.drop_block(target.index);
        }
        true
    }

    /// Takes a new block in, with its operations, for which there is room; its `target` is set here.
    pub fn insert(&mut self, mut block: Block, ops: &[Op]) -> u32 {
        let filler = ops.first().copied();
        let start = filler.and_then(|op| self.take_room(ops.len(), op)).unwrap_or_default();
        let index = self.free.pop().unwrap_or(self.blocks.len() as u32);
        block.target.index = index;
        block.target.start = start;
        block.target.len = ops.len() as u8;
        block.decoded = start;
        self.ops[start as usize..][..ops.len()].copy_from_slice(ops);
        self.map.insert(block.key, index);
        let second = block.second_page.map(|(page, _)| page);
        for page in [Some(block.key.offset >> 12), second].into_iter().flatten() {
            self.pages.entry(page).or_default().push(index);
        }
        match self.blocks.get_mut(index as usize) {
            Some(place) => *place = block,
            None => self.blocks.push(block),
        }
        index
    }

    /// Replaces operations of a block, and keeps them all as they were decoded; false if there is no
    /// room.
    pub fn replace_ops(&mut self, index: u32, replaced: &[(u8, Op)]) -> bool {
        let Some(block) = self.blocks.get(index as usize) else { return true };
        let (start, len) = (block.target.start as usize, usize::from(block.target.len));
        let decoded = block.decoded as usize;
        if decoded != start {
            self.ops.copy_within(decoded..decoded + len, start);
        } else {
            let filler = self.ops.get(start).copied();
            let Some(copy) = filler.and_then(|op| self.take_room(len, op)) else { return false };
            self.ops.copy_within(start..start + len, copy as usize);
            if let Some(block) = self.blocks.get_mut(index as usize) {
                block.decoded = copy;
            }
        }
        let Some(ops) = self.ops.get_mut(start..start + len) else { return true };
        for &(number, op) in replaced {
            if let Some(place) = ops.get_mut(usize::from(number)) {
                *place = op;
            }
        }
        true
    }

    /// Makes a block's operations those that were decoded again, as if it had not been entered often:
    /// it is to be interpreted `cold` times.
    pub fn restore_ops(&mut self, index: u32, cold: u32) {
        let Some(block) = self.blocks.get(index as usize) else { return };
        let (start, len) = (block.target.start as usize, usize::from(block.target.len));
        let decoded = block.decoded as usize;
        if decoded != start && decoded + len <= self.ops.len() {
            self.ops.copy_within(decoded..decoded + len, start);
        }
        block.cold.set(cold);
    }

    /// Takes the numbers of the blocks that were dropped since the last call.
    pub fn take_dropped(&mut self) -> Dropped {
        std::mem::take(&mut self.dropped)
    }

    /// Drops the blocks that have bytes in an arena page. The CPU's ways of every reach must be made void.
    pub fn drop_page(&mut self, page: usize) {
        for index in self.pages.remove(&page).unwrap_or_default() {
            // The list is out of the map, so this takes the number out of the other page's alone.
            self.drop_block(index);
        }
    }

    /// Drops one block. The CPU's ways of every reach must be made void.
    pub fn drop_block(&mut self, index: u32) {
        let Some(block) = self.blocks.get(index as usize) else { return };
        if self.map.get(&block.key) != Some(&index) {
            return;
        }
        self.map.remove(&block.key);
        let (start, decoded, len) = (block.target.start, block.decoded, block.target.len);
        self.room[usize::from(len)].push(start);
        if decoded != start {
            self.room[usize::from(len)].push(decoded);
        }
        self.drops += 1;
        match &mut self.dropped {
            Dropped::None => self.dropped = Dropped::Some(vec![index]),
            Dropped::Some(list) => list.push(index),
            Dropped::All => {}
        }
        for page in [Some(block.key.offset >> 12), block.second_page.map(|(page, _)| page)] {
            if let Some(list) = page.and_then(|p| self.pages.get_mut(&p)) {
                list.retain(|&i| i != index);
            }
        }
        self.free.push(index);
    }

    /// Drops everything. The CPU's ways of every reach must be made void. Gives the pages that held code.
    pub fn clear(&mut self) -> Vec<usize> {
        let pages = self.pages.keys().copied().collect();
        let mut ops = std::mem::take(&mut self.ops);
        ops.clear();
        let dropped = Dropped::All;
        *self = Self { drops: self.drops + 1, ops, dropped, ..Self::new() };
        pages
    }
}

impl Default for BlockCache {
    fn default() -> Self {
        Self::new()
    }
}

/// Ends a block: goes on with the block at `rip`, through link number `slot`. A tail call.
#[inline(always)]
pub fn follow(cpu: &mut Cpu, rip: u64, slot: u8, block: &Block, links: &BlockCache) {
    let link = block.links[usize::from(slot & 1)].get();
    if link.generation == cpu.generations.of(link.reach) {
        return enter(cpu, link.target, links);
    }
    unlinked(cpu, rip, slot, block)
}

#[cold]
#[inline(never)]
fn unlinked(cpu: &mut Cpu, rip: u64, slot: u8, block: &Block) {
    cpu.rip = rip;
    cpu.stop_link = slot;
    cpu.stop_at(StopReason::Unlinked, 0, block);
}

/// Ends a block: goes on with the block at `rip`, which is not always the same. A tail call.
#[inline(always)]
pub fn follow_indirect(cpu: &mut Cpu, rip: u64, block: &Block, links: &BlockCache) {
    match links.jump(cpu, rip) {
        Some(target) => enter(cpu, target, links),
        None => unlinked(cpu, rip, NO_LINK, block),
    }
}

/// For `Cpu::stop_link`: there is no link to set.
pub const NO_LINK: u8 = 2;

#[inline(always)]
fn enter(cpu: &mut Cpu, target: Target, links: &BlockCache) {
    let Some(next) = links.block(target.index) else { return };
    let left = cpu.quantum - i64::from(target.count);
    if left < 0 {
        return exhausted(cpu, next, links);
    }
    cpu.quantum = left;
    if let Some((op, rest)) = links.ops(target).split_first() {
        (op.run)(cpu, op, rest, next, links)
    }
}

/// Comes to a block with the quantum used up.
#[cold]
#[inline(never)]
pub fn exhausted(cpu: &mut Cpu, next: &Block, links: &BlockCache) {
    cpu.rip = next.rip;
    if cpu.refill() && cpu.quantum >= i64::from(next.target.count) {
        return enter(cpu, next.target, links);
    }
    cpu.stop_at(StopReason::Quantum, 0, next);
}

/// Which linear pages code may have been found on since ways of a reach were void: dropping the
/// translations of others leaves all ways as they are. Pages are told apart by a part of their
/// addresses, so some are taken for others.
pub struct CodePages {
    bits: Box<[u64; CODE_PAGE_BITS / 64]>,
    /// Which elements of `bits` are not zero.
    used: Vec<u16>,
    /// The addresses between which pages larger than 4 KiB had code.
    large: (u64, u64),
}

const CODE_PAGE_BITS: usize = 1 << 15;
const NO_LARGE: (u64, u64) = (u64::MAX, 0);

impl Default for CodePages {
    fn default() -> Self {
        Self { bits: Box::new([0; CODE_PAGE_BITS / 64]), used: Vec::new(), large: NO_LARGE }
    }
}

impl CodePages {
    fn place(linear: u64) -> (usize, u64) {
        let number = (linear >> 12) as usize % CODE_PAGE_BITS;
        (number / 64, 1 << (number % 64))
    }

    /// Code was found on the page of `size` bytes around an address.
    pub fn note(&mut self, linear: u64, size: u64) {
        let (word, bit) = Self::place(linear);
        if self.bits[word] == 0 {
            self.used.push(word as u16);
        }
        self.bits[word] |= bit;
        if size > 4096 {
            let start = linear & !(size - 1);
            self.large.0 = self.large.0.min(start);
            self.large.1 = self.large.1.max(start.saturating_add(size));
        }
    }

    /// Whether code may have been found on the page around an address, or on a larger one.
    #[must_use]
    pub fn has(&self, linear: u64) -> bool {
        let (word, bit) = Self::place(linear);
        self.bits[word] & bit != 0 || (self.large.0..self.large.1).contains(&linear)
    }

    /// Forgets all, as no way depends on any page any more.
    pub fn forget(&mut self) {
        for word in self.used.drain(..) {
            self.bits[usize::from(word)] = 0;
        }
        self.large = NO_LARGE;
    }
}

/// Translations of code addresses: where in the arena a page of code lies.
pub struct FetchTlb {
    entries: Box<[FetchEntry]>,
}

#[derive(Debug, Clone, Copy, Default)]
struct FetchEntry {
    /// Linear address of the page, plus 1 for user code.
    tag: u64,
    /// Of its reach when it was entered.
    generation: u64,
    page: usize,
    reach: Reach,
}

const FETCH_ENTRIES: usize = 512;

impl Default for FetchTlb {
    fn default() -> Self {
        Self { entries: vec![FetchEntry::default(); FETCH_ENTRIES].into() }
    }
}

impl FetchTlb {
    /// The arena offset of an address, and what may change it.
    #[must_use]
    pub fn get(
        &self,
        linear: u64,
        user: bool,
        generations: &Generations,
    ) -> Option<(usize, Reach)> {
        let entry = &self.entries[(linear >> 12) as usize % FETCH_ENTRIES];
        let tag = linear & !0xfff | u64::from(user);
        (entry.tag == tag && entry.generation == generations.of(entry.reach))
            .then_some((entry.page | (linear & 0xfff) as usize, entry.reach))
    }

    /// Enters a page.
    pub fn put(
        &mut self,
        linear: u64,
        user: bool,
        offset: usize,
        reach: Reach,
        generations: &Generations,
    ) {
        self.entries[(linear >> 12) as usize % FETCH_ENTRIES] = FetchEntry {
            tag: linear & !0xfff | u64::from(user),
            generation: generations.of(reach),
            page: offset & !0xfff,
            reach,
        };
    }
}

#[cfg(test)]
#[path = "block_tests.rs"]
mod tests;
