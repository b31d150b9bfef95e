//! Cases of paging.

use trivium_cpu::bits::{cr0, cr4, efer};
use trivium_cpu::model::CpuModel;

use super::tables::{Style, Tables};
use crate::generate::random::Rng;
use crate::system::image::Image;
use crate::system::layout;
use crate::system::model::paging::{Mode, Processor, Registers};
use crate::system::model::program::Start;
use crate::system::paging::{CR0, CR4, Case, EFER_LONG, features};
use crate::system::steps::{DESCRIPTOR, MOST_STEPS, Modify, Step, program_to_jump_to};

/// Makes the case of this number for a CPU model. `blank` holds data and nothing else.
pub(in crate::system) fn case(seed: u64, index: u64, model: &CpuModel, blank: &Image) -> Case {
    let mut rng = Rng::new(seed, index);
    let mode = mode(&mut rng, model);
    let wide = matches!(mode, Mode::Level4 | Mode::Level5);
    let long = wide && rng.percent(75);
    let mut processor =
        Processor { features: features(model), registers: registers(&mut rng, model, mode) };
    let pcide = processor.registers.cr4 & cr4::PCIDE != 0;
    let mut image = blank.clone();
    layout::write(&mut image, wide);
    let mut builder = Builder::new(&mut rng, &mut image, &mut processor, long);
    let steps = builder.steps();
    let ldt = builder.ldt.unwrap_or(layout::LDT);
    let entries = builder.tables.entries.clone();
    let cr3_bits = if pcide { 0xfff } else { 0x18 };
    if mode != Mode::Pae {
        processor.registers.cr3 |= rng.any() & cr3_bits;
    }
    let cpl = processor.registers.cpl;
    let mut start = Start {
        processor,
        long,
        pcide,
        ldt,
        code: if cpl == 3 { layout::USER_CODE } else { layout::CODE },
        regs: std::array::from_fn(|n| match n {
            8.. if !long => 0,
            _ if long => rng.any(),
            _ => rng.any() & 0xffff_ffff,
        }),
        xmm: std::array::from_fn(|_| [rng.any(), rng.any()]),
        es: layout::data(cpl),
        image,
    };
    start.regs[4] = layout::STACK - 0x100;
    let size = mode.entry_size();
    let entries = entries
        .iter()
        .map(|(name, at)| format!("{name} at {at:#x}: {:#x}", start.image.get(*at, size)));
    let entries = entries.collect();
    Case { start, steps, entries }
}

fn mode(rng: &mut Rng, model: &CpuModel) -> Mode {
    let modes = [Mode::Bits32, Mode::Pae, Mode::Level4, Mode::Level4, Mode::Level5];
    let bits = model.cr4_mask();
    loop {
        let found = rng.pick(&modes);
        let level5 = found == Mode::Level5;
        if !level5 || bits & cr4::LA57 != 0 {
            return found;
        }
    }
}

fn registers(rng: &mut Rng, model: &CpuModel, mode: Mode) -> Registers {
    let wide = matches!(mode, Mode::Level4 | Mode::Level5);
    let optional = cr4::PGE | cr4::SMEP | cr4::SMAP | if wide { cr4::PCIDE } else { 0 };
    let mut bits = CR4 | rng.bits(cr4::PSE, 70) | rng.bits(optional, 40);
    if mode != Mode::Bits32 {
        bits |= cr4::PAE;
    }
    if mode == Mode::Level5 {
        bits |= cr4::LA57;
    }
    let long = if wide { EFER_LONG } else { 0 };
    Registers {
        cr0: CR0 | rng.bits(cr0::WP, 50),
        cr3: 0,
        cr4: bits & model.cr4_mask(),
        efer: (long | rng.bits(efer::NXE, 70) | rng.bits(efer::SCE, 50)) & model.efer_mask(),
        ac: rng.percent(40),
        cpl: rng.pick(&[0, 0, 0, 1, 2, 3, 3, 3, 3]),
        pdpte: [0; 4],
    }
}

/// Chooses what a program accesses, and makes page tables for that.
struct Builder<'a> {
    tables: Tables<'a>,
    mode: Mode,
    long: bool,
    style: Style,
    /// Pages that have been mapped, each together with the one behind it.
    places: Vec<u64>,
    ldt: Option<u64>,
}

impl<'a> Builder<'a> {
    fn new(
        rng: &'a mut Rng,
        image: &'a mut Image,
        processor: &'a mut Processor,
        long: bool,
    ) -> Self {
        let mode = processor.mode();
        // Most cases are to succeed: so a supervisor that may not touch users' pages gets its own.
        let registers = processor.registers;
        let barred = registers.cr4 & (cr4::SMAP | cr4::SMEP) != 0 && registers.cpl != 3;
        let supervisor = rng.percent(if barred { 60 } else { 10 });
        let style = Style { flaws: rng.pick(&[0, 5, 5, 20, 40]), supervisor };
        let tables = Tables::new(rng, image, processor);
        Self { tables, mode, long, style, places: Vec::new(), ldt: None }
    }

    fn steps(&mut self) -> Vec<Step> {
        let places = 1 + usize::from(self.tables.rng.percent(30));
        for _ in 0..places {
            let page = self.place();
            self.places.push(page);
        }
        let count = 1 + self.tables.rng.below(MOST_STEPS as u64);
        let mut steps = Vec::new();
        if self.tables.rng.percent(12) {
            steps.push(Step::LoadCr3 { value: self.cr3() });
        }
        for n in steps.len() as u64..count {
            let last = n + 1 == count;
            steps.push(self.step(last));
        }
        steps
    }

    /// Maps a page, and the one behind it; gives its linear address.
    fn place(&mut self) -> u64 {
        let physical = self.tables.data();
        let large: &[u32] = match self.mode {
            Mode::Bits32 => &[12, 12, 22],
            Mode::Pae => &[12, 12, 21],
            _ => &[12, 12, 12, 21, 30],
        };
        let shift = self.tables.rng.pick(large);
        let linear = self.linear(physical, shift);
        self.tables.map(linear, physical, shift, self.style);
        let next = linear + 0x1000;
        if self.tables.processor.is_canonical(next) {
            let shift = self.tables.rng.pick(large);
            let offset = next & ((1 << shift) - 1) & !0xfff;
            let physical = (self.tables.data() & !0 << shift) | offset;
            let physical = if shift == 12 { self.tables.data() } else { physical };
            self.tables.map(next, physical, shift, self.style);
        }
        linear
    }

    /// A page that is not the supervisor's, with the lower bits of a physical address.
    fn linear(&mut self, physical: u64, shift: u32) -> u64 {
        let mut linear = 0;
        for structure in self.mode.structures() {
            let mask = (1 << structure.width) - 1;
            let any = self.tables.rng.any();
            let index = self.tables.rng.pick(&[0, 1, mask, mask, mask >> 1, any, any]);
            linear |= (index & mask) << structure.shift;
        }
        if self.mode == Mode::Pae || !self.long {
            linear = linear & 0x3fff_ffff | self.tables.rng.any() & 0xc000_0000;
        }
        let low = (1 << shift) - 1;
        linear = linear & !low | physical & low;
        // The supervisor has the first 4 MiB or 1 GiB.
        let below = if self.mode == Mode::Bits32 { 22 } else { 30 };
        if linear >> below == 0 {
            linear |= 1 << below;
        }
        // The last page below the hole between the canonical addresses.
        if self.long && shift == 12 && self.tables.rng.percent(3) {
            return if self.mode == Mode::Level5 { 0xff_ffff_ffff_f000 } else { 0x7fff_ffff_f000 };
        }
        self.away_from_the_end(linear)
    }

    /// Makes an address canonical, and keeps it two pages below where addresses wrap.
    fn away_from_the_end(&self, linear: u64) -> u64 {
        let highest = match (self.long, self.mode) {
            (false, _) => 31,
            (true, Mode::Level5) => 56,
            (true, _) => 47,
        };
        let all = (2 << highest) - 1;
        let last = linear & all & !0x1fff == all & !0x1fff;
        let linear = if last { linear ^ 1 << (highest - 1) } else { linear };
        let upper = if highest > 31 && linear >> highest & 1 != 0 { !all } else { 0 };
        linear & all | upper
    }

    /// An address of an operand of so many bytes.
    fn operand(&mut self, size: u64) -> u64 {
        let rng = &mut *self.tables.rng;
        let page = rng.pick(&self.places);
        let last = 0x1000 - size;
        let offset = match rng.below(10) {
            0..3 if size > 1 => last + 1 + rng.below(size - 1),
            3 => last,
            4 => 0x1000 + rng.below(0x100),
            _ => rng.below(last),
        };
        page + offset
    }

    fn size(&mut self) -> u64 {
        self.tables.rng.pick(if self.long { &[1, 2, 4, 8] } else { &[1, 2, 4] })
    }

    fn step(&mut self, last: bool) -> Step {
        let size = self.size();
        let stack = if self.long { 8 } else { 4 };
        // In legacy modes, exceptions at CPL 0 are delivered on the stack as it is.
        let pushes = self.long || self.tables.processor.registers.cpl != 0;
        match self.tables.rng.below(20) {
            0..4 => Step::Load { size, at: self.operand(size) },
            4 => Step::Load { size: 16, at: self.operand(16) },
            5..8 => Step::Store { size, at: self.operand(size) },
            8 => Step::Store { size: 16, at: self.operand(16) },
            9 | 10 => {
                let how = [Modify::Add, Modify::Exchange, Modify::CompareExchange];
                let how = self.tables.rng.pick(&how);
                let lock = self.tables.rng.percent(50);
                Step::Modify { how, lock, size, at: self.operand(size) }
            }
            11 if pushes => Step::Push { at: self.operand(stack) + stack },
            12 if pushes => Step::Pop { at: self.operand(stack) },
            11..14 => Step::Copy { size, from: self.operand(size), to: self.operand(size) },
            14 => Step::Flush { at: self.operand(1) },
            15 => Step::AccessRights { selector: self.selector() },
            16 => Step::LoadSegment { selector: self.selector() },
            _ if last => self.execute(),
            _ => Step::Load { size, at: self.operand(size) },
        }
    }

    /// A selector of a descriptor in the local descriptor table, which may lie anywhere.
    fn selector(&mut self) -> u16 {
        const INDEX: u16 = 5;
        if self.ldt.is_none() {
            let accessed = self.tables.rng.percent(50);
            let anywhere = self.operand(8);
            // One that the processor will write to is put where it crosses no page.
            let at = if accessed { anywhere } else { anywhere & !7 };
            self.ldt = Some(at - 8 * u64::from(INDEX));
            let descriptor = if accessed { DESCRIPTOR } else { DESCRIPTOR & !(1 << 40) };
            self.put(at, &descriptor.to_le_bytes());
        }
        INDEX << 3 | 7
    }

    /// Jumps to code that begins or ends near the end of a page.
    fn execute(&mut self) -> Step {
        let at = self.operand(6);
        let program = program_to_jump_to(self.tables.rng.any() as u32);
        self.put(at, &program);
        Step::Execute { at }
    }

    /// Writes to where a linear address leads.
    fn put(&mut self, linear: u64, bytes: &[u8]) {
        for (at, byte) in (linear..).zip(bytes) {
            let image = &*self.tables.image;
            let physical = self.tables.processor.locate(at, |at, size| image.get(at, size));
            if let Some(physical) = physical.filter(|&p| !crate::system::image::SYSTEM.contains(p))
            {
                self.tables.image.put(physical, &[*byte]);
            }
        }
    }

    /// A value for CR3: mostly the one that it has.
    fn cr3(&mut self) -> u64 {
        let rng = &mut *self.tables.rng;
        let old = self.tables.processor.registers.cr3;
        let free = if self.mode == Mode::Pae { 0x1f } else { 0xfff };
        let mut value = old | rng.any() & free;
        if self.long && rng.percent(30) {
            value |= 1 << (20 + rng.below(44));
        }
        value
    }
}
