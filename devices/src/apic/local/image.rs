//! The local APIC's registers as the page of xAPIC mode shows them, for another implementation that
//! takes over or gives back: the host's kernel.

use super::registers::{ApicBase, Esr, Icr, LVT_ENTRIES, Lvt, LvtEntry, Svr, index};
use super::{ApicMode, LocalApic, VectorSet};

/// All registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LapicRegisters {
    /// IA32_APIC_BASE.
    pub base: u64,
    /// By the registers' indices: each is at 16 times its index of the page. In x2APIC mode too, with
    /// the ID and ICR's destination as wide as they are there.
    pub page: [u32; 64],
    /// IA32_TSC_DEADLINE.
    pub tsc_deadline: u64,
}

/// The registers of the local vector table, in its order.
const LVT: [u8; LVT_ENTRIES] = [
    index::LVT_TIMER,
    index::LVT_THERMAL,
    index::LVT_PERFORMANCE,
    index::LVT_LINT0,
    index::LVT_LINT1,
    index::LVT_ERROR,
];

impl LocalApic {
    /// The registers as they are now. Nothing of the APIC changes, other than what time does.
    pub fn registers(&mut self) -> LapicRegisters {
        self.settle_timer();
        let x2apic = self.mode() == ApicMode::X2Apic;
        let mut page = [0; 64];
        let destination = if x2apic { 0 } else { 24 };
        let values = [
            (index::ID, self.id() << destination),
            (index::VERSION, self.config.generation.version()),
            (index::TPR, self.tpr.into()),
            (index::PPR, self.ppr().into()),
            (index::LDR, self.ldr()),
            (index::DFR, self.dfr()),
            (index::SVR, self.svr.bits()),
            (index::ESR, self.esr.bits()),
            (index::ICR_LOW, self.icr.bits()),
            (index::ICR_HIGH, self.icr_destination << destination),
            (index::INITIAL_COUNT, self.timer.initial_count()),
            (index::CURRENT_COUNT, self.timer.current_count(self.clock.now())),
            (index::DIVIDE_CONFIGURATION, self.timer.divide_configuration()),
        ];
        for (register, value) in values {
            page[usize::from(register)] = value;
        }
        for (register, entry) in LVT.into_iter().zip(self.lvt) {
            page[usize::from(register)] = entry.bits();
        }
        for (first, set) in self.sets() {
            for n in 0..8 {
                page[usize::from(first + n)] = set.register(n);
            }
        }
        LapicRegisters {
            base: self.base | self.flags.bits(),
            page,
            tsc_deadline: self.timer.tsc_deadline(),
        }
    }

    fn sets(&self) -> [(u8, VectorSet); 3] {
        [(index::ISR, self.isr), (index::TMR, self.tmr), (index::IRR, self.irr)]
    }

    /// Takes over from another implementation: counts go on from where they are. The pins, and what
    /// is asked of the processor, stay as they are.
    pub fn set_registers(&mut self, registers: &LapicRegisters) {
        let LapicRegisters { base, page, tsc_deadline } = registers;
        let get = |register: u8| page[usize::from(register)];
        self.flags = ApicBase::from_bits_truncate(*base);
        self.base = base & !0xfff;
        let destination = if self.mode() == ApicMode::X2Apic { 0 } else { 24 };
        self.tpr = get(index::TPR) as u8;
        self.logical_id = (get(index::LDR) >> 24) as u8;
        self.model = (get(index::DFR) >> 28) as u8;
        self.svr = Svr::from_bits_truncate(get(index::SVR));
        self.esr = Esr::from_bits_truncate(get(index::ESR));
        self.errors = Esr::empty();
        self.icr = Icr::from_bits_truncate(get(index::ICR_LOW));
        self.icr_destination = get(index::ICR_HIGH) >> destination;
        for (entry, register) in self.lvt.iter_mut().zip(LVT) {
            *entry = LvtEntry::from_bits_truncate(get(register));
        }
        let set =
            |first: u8| VectorSet::of_registers(std::array::from_fn(|n| get(first + n as u8)));
        (self.isr, self.tmr, self.irr) = (set(index::ISR), set(index::TMR), set(index::IRR));
        let now = self.clock.now();
        self.timer.set_mode(self.timer_mode(self.lvt(Lvt::Timer)));
        self.timer.resume(
            get(index::INITIAL_COUNT),
            get(index::CURRENT_COUNT),
            get(index::DIVIDE_CONFIGURATION),
            now,
        );
        self.timer.set_tsc_deadline(*tsc_deadline);
    }

    /// Stops the timer and drops what waits: another implementation has taken over.
    pub fn park(&mut self) {
        self.timer.reset();
        self.irr = VectorSet::default();
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{APIC_BASE, Bench, reset_bench};
    use super::*;

    /// An APIC in use: interrupts in service and waiting, a timer that runs.
    fn in_use(x2apic: bool) -> Bench {
        let mut bench = reset_bench(0);
        for (register, value) in [
            (index::SVR, 0x1ff),
            (index::TPR, 0x20),
            (index::LVT_LINT0, 0x700),
            (index::LVT_TIMER, 0x2_0055),
            (index::DIVIDE_CONFIGURATION, 0b1011),
            (index::INITIAL_COUNT, 1000),
            (index::ICR_HIGH, 0x0500_0000),
        ] {
            let offset = u64::from(register) << 4;
            bench.apic.mmio_write(offset, &u32::to_le_bytes(value)).unwrap();
        }
        bench.apic.accept(0x81, true);
        bench.apic.acknowledge();
        bench.apic.accept(0x91, false);
        bench.clock.advance(300);
        if x2apic {
            bench.apic.write_msr(APIC_BASE, 0xfee0_0d00).unwrap();
        }
        bench
    }

    #[test]
    fn an_apic_goes_on_from_its_registers() {
        for x2apic in [false, true] {
            let mut bench = in_use(x2apic);
            let registers = bench.apic.registers();
            let page = |register: u8| registers.page[usize::from(register)];
            assert_eq!(page(index::CURRENT_COUNT), 700);
            assert_eq!((page(index::ISR + 4), page(index::TMR + 4)), (2, 2));
            assert_eq!(page(index::IRR + 4), 1 << 17);
            let mut other = reset_bench(0);
            other.clock.advance(4_000);
            other.apic.set_registers(&registers);
            assert_eq!(other.apic.registers(), registers);
            for bench in [&mut bench, &mut other] {
                bench.clock.advance(800);
                let registers = bench.apic.registers();
                assert_eq!(registers.page[usize::from(index::CURRENT_COUNT)], 900, "periodic");
                assert_eq!(registers.page[usize::from(index::IRR + 2)], 1 << 21);
                assert_eq!(bench.apic.acknowledge(), 0x91);
            }
        }
    }

    #[test]
    fn a_parked_apic_wants_nothing() {
        use trivium_chipset::Timed;
        let mut bench = in_use(false);
        assert!(bench.apic.deadline().is_some() && !bench.apic.is_idle());
        bench.apic.park();
        assert!(bench.apic.deadline().is_none() && bench.apic.is_idle());
    }
}
