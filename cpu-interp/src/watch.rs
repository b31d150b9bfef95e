//! What accesses are watched for: the breakpoints of DR0 to DR3, and misaligned addresses.
//!
//! Neither costs anything while it is off. A page with a data breakpoint never comes into the TLB,
//! nor does any page while alignment is checked; so the accesses in question all take the slow way,
//! and it is there that they are looked at. Instructions on a page with an instruction breakpoint
//! are run one at a time, and no way between blocks leads there but through the outer loop.
//!
//! Intel SDM vol. 3B, 18.2; vol. 3A, 6.15, interrupt 17. AMD APM vol. 2, 8.2.18 and 13.1.

use trivium_cpu::bits::{cr0, cr4, rflags};
use trivium_cpu::state::{CS, Debug};
use trivium_cpu::{Exception, Vector};

use crate::block::Reach;
use crate::cpu::{Cpu, Mode, Space};
use crate::op::Stop;

/// What a breakpoint waits for: R/W of DR7. Intel SDM vol. 3B, 18.2.4.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum On {
    Execute,
    Write,
    Io,
    Access,
}

/// An enabled breakpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Breakpoint {
    /// Its number's bit, as in DR6.
    bit: u64,
    first: u64,
    last: u64,
    on: On,
}

impl Breakpoint {
    fn touches(&self, first: u64, last: u64) -> bool {
        self.first <= last && first <= self.last
    }

    fn is_data(&self) -> bool {
        matches!(self.on, On::Write | On::Access)
    }
}

/// The enabled breakpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Watch {
    points: [Option<Breakpoint>; 4],
    /// There are some for instructions.
    pub code: bool,
    /// There are some for data.
    pub data: bool,
    /// There are some for ports.
    pub io: bool,
}

impl Watch {
    /// Those that the debug registers say; `extensions` is CR4.DE.
    fn new(debug: &Debug, extensions: bool) -> Self {
        let mut watch = Self::default();
        for (number, place) in watch.points.iter_mut().enumerate() {
            *place = breakpoint(debug, number, extensions);
        }
        let any = |is: fn(&Breakpoint) -> bool| watch.points.iter().flatten().any(is);
        let code = any(|p| p.on == On::Execute);
        let (data, io) = (any(Breakpoint::is_data), any(|p| p.on == On::Io));
        Self { code, data, io, ..watch }
    }

    /// The bits of DR6 of the breakpoints that `wanted` picks and that touch a range.
    fn hits(&self, first: u64, last: u64, wanted: impl Fn(On) -> bool) -> u64 {
        let met = |p: &&Breakpoint| wanted(p.on) && p.touches(first, last);
        self.points.iter().flatten().filter(met).fold(0, |bits, p| bits | p.bit)
    }

    /// Whether a breakpoint that `wanted` picks lies on the page around an address.
    fn on_page(&self, linear: u64, wanted: impl Fn(&Breakpoint) -> bool) -> bool {
        let page = linear & !0xfff;
        self.points.iter().flatten().any(|p| wanted(p) && p.touches(page, page | 0xfff))
    }
}

/// Number `number`, if it is enabled. Those whose length is more than one byte are aligned.
fn breakpoint(debug: &Debug, number: usize, extensions: bool) -> Option<Breakpoint> {
    let dr7 = debug.dr7;
    let enabled = dr7 >> (2 * number) & 3 != 0;
    let fields = dr7 >> (16 + 4 * number) & 15;
    let on = match fields & 3 {
        0 => On::Execute,
        1 => On::Write,
        2 if extensions => On::Io,
        // Without CR4.DE, this is undefined: nothing matches.
        2 => return None,
        _ => On::Access,
    };
    let len = match fields >> 2 {
        _ if on == On::Execute => 1,
        0 => 1,
        1 => 2,
        2 => 8,
        _ => 4,
    };
    let first = debug.address.get(number)? & !(len - 1);
    enabled.then_some(Breakpoint { bit: 1 << number, first, last: first | (len - 1), on })
}

impl Cpu {
    /// Watches for what the debug registers say. To be called after each change of DR0 to DR3, DR7
    /// or CR4.DE.
    pub(crate) fn update_watch(&mut self) {
        let new = Watch::new(&self.debug, self.control.cr4 & cr4::DE != 0);
        if new == self.watch {
            return;
        }
        let old = std::mem::replace(&mut self.watch, new);
        for point in old.points.into_iter().chain(new.points).flatten() {
            if point.is_data() {
                self.flush_page(point.first);
            }
        }
        if old.code || new.code {
            self.generations.void(Reach::Page);
            // Translated blocks lead to each other without a look at what is watched.
            self.drop_blocks = true;
        }
    }

    /// Whether misaligned accesses of the program raise #AC: CR0.AM, RFLAGS.AC, and CPL is 3.
    pub(crate) fn checks_alignment(&self) -> bool {
        self.cpl() == 3 && self.control.cr0 & cr0::AM != 0 && self.system_flags & rflags::AC != 0
    }

    /// Whether the TLB may hold the page around a linear address for the program's accesses.
    pub(crate) fn may_cache(&self, linear: u64) -> bool {
        let watched = self.watch.data && self.watch.on_page(linear, Breakpoint::is_data);
        !watched && self.space != Space::Checked
    }

    /// Looks at an access of the program that the TLB could not serve. `align` is the power of two
    /// that its address must be a multiple of while alignment is checked.
    ///
    /// # Errors
    /// #AC(0).
    #[inline]
    pub(crate) fn examine(
        &mut self,
        linear: u64,
        size: u64,
        align: u64,
        write: bool,
    ) -> Result<(), Stop> {
        if self.space == Space::Checked {
            self.check_alignment(linear, align)?;
        }
        if self.watch.data {
            self.note_data(linear, size, write);
        }
        Ok(())
    }

    /// Raises #AC(0) if alignment is checked and an address is no multiple of `align`, a power of
    /// two.
    ///
    /// # Errors
    /// #AC(0).
    pub(crate) fn check_alignment(&mut self, linear: u64, align: u64) -> Result<(), Stop> {
        if self.space == Space::Checked && linear & (align - 1) != 0 {
            return Err(self.raise(Exception::with_code(Vector::AC, 0)));
        }
        Ok(())
    }

    /// A data breakpoint that is met is a trap: the instruction is completed first.
    #[cold]
    fn note_data(&mut self, linear: u64, size: u64, write: bool) {
        let last = linear.saturating_add(size.saturating_sub(1));
        let hits = self.watch.hits(linear, last, |on| on == On::Access || on == On::Write && write);
        self.note_hits(hits);
    }

    /// Looks at an access to a port.
    pub(crate) fn note_port(&mut self, port: u16, width: u8) {
        if self.watch.io {
            let first = u64::from(port);
            let hits = self.watch.hits(first, first + u64::from(width) - 1, |on| on == On::Io);
            self.note_hits(hits);
        }
    }

    fn note_hits(&mut self, hits: u64) {
        if hits != 0 {
            self.pending_debug |= hits;
            self.leave = true;
        }
    }

    /// Whether instructions at a RIP are to be run one at a time, for the sake of breakpoints.
    #[inline]
    pub(crate) fn watches_code(&self, rip: u64) -> bool {
        self.watch.code && self.watch.on_page(self.code_address(rip), |p| p.on == On::Execute)
    }

    /// The bits of DR6 of the instruction breakpoints at a RIP.
    pub(crate) fn code_breakpoints(&self, rip: u64) -> u64 {
        let linear = self.code_address(rip);
        self.watch.hits(linear, linear, |on| on == On::Execute)
    }

    /// The linear address of the code at a RIP.
    pub(crate) fn code_address(&self, rip: u64) -> u64 {
        match self.mode.has(Mode::LONG) {
            true => rip,
            false => self.segments.regs[CS].base.wrapping_add(rip) & 0xffff_ffff,
        }
    }
}
