//! How software reaches the local APIC: the page of xAPIC mode, and MSRs.
//! Intel SDM vol. 3A, 11.4.1 and 11.12.

use thiserror::Error;
use trivium_chipset::{BusError, BusResult};

use super::registers::{
    ApicBase, Esr, Icr, Lvt, LvtEntry, MSR_APIC_BASE, MSR_TSC_DEADLINE, MSR_X2APIC, Svr, index,
};
use super::{ApicMode, Destination, LapicAction, LocalApic, Message};

/// Why an access to an MSR of the local APIC is answered with #GP(0).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum MsrFault {
    /// There is no such MSR, at least in this mode, or not for this direction.
    #[error("No such local APIC register")]
    NoRegister,
    /// Reserved bits were to be set.
    #[error("Reserved bits of a local APIC register are set")]
    ReservedBits,
    /// IA32_APIC_BASE does not go from the present mode to this one.
    #[error("Local APIC cannot change to this mode")]
    InvalidTransition,
}

impl LocalApic {
    /// Reads from the page of xAPIC mode. Registers are 4 bytes of every 16; the rest reads zero.
    ///
    /// # Errors
    /// There is no page in this mode, or the access leaves it.
    pub fn mmio_read(&mut self, offset: u64, data: &mut [u8]) -> BusResult<()> {
        if self.mode() != ApicMode::XApic {
            return Err(BusError::NoRegister);
        }
        let register = page_index(offset & !0xf)?;
        let first = (offset & 0xf) as usize;
        if let (0, [_, _, _, _]) = (first, &data) {
            data.copy_from_slice(&self.read_xapic(register).to_le_bytes());
            return Ok(());
        }
        let mut slot = [0; 16];
        // Refused before the register is read: reading one that is not there has an effect.
        if first + data.len() > slot.len() {
            return Err(BusError::Width);
        }
        slot[..4].copy_from_slice(&self.read_xapic(register).to_le_bytes());
        data.iter_mut().zip(&slot[first..]).for_each(|(byte, shown)| *byte = *shown);
        Ok(())
    }

    /// Writes to the page of xAPIC mode. What must be done elsewhere is handed back.
    ///
    /// # Errors
    /// There is no page in this mode, or the access is not an aligned one of 4 bytes.
    pub fn mmio_write(&mut self, offset: u64, data: &[u8]) -> BusResult<Option<LapicAction>> {
        if self.mode() != ApicMode::XApic {
            return Err(BusError::NoRegister);
        }
        let register = page_index(offset & !0xf)?;
        let bytes: [u8; 4] = data.try_into().map_err(|_| BusError::Width)?;
        if offset & 0xf != 0 {
            return Err(BusError::Width);
        }
        Ok(self.write_xapic(register, u32::from_le_bytes(bytes)))
    }

    /// Reads IA32_APIC_BASE, IA32_TSC_DEADLINE or an MSR of x2APIC mode (800h to 8FFh).
    ///
    /// # Errors
    /// The processor raises #GP(0).
    pub fn read_msr(&mut self, msr: u32) -> Result<u64, MsrFault> {
        match msr {
            MSR_APIC_BASE => Ok(self.base | self.flags.bits()),
            MSR_TSC_DEADLINE if self.config.tsc_deadline => {
                self.settle_timer();
                Ok(self.timer.tsc_deadline())
            }
            _ => self.read_x2apic(self.x2apic_index(msr)?),
        }
    }

    /// Writes IA32_APIC_BASE, IA32_TSC_DEADLINE or an MSR of x2APIC mode (800h to 8FFh). What must
    /// be done elsewhere is handed back.
    ///
    /// # Errors
    /// The processor raises #GP(0); nothing was changed.
    pub fn write_msr(&mut self, msr: u32, value: u64) -> Result<Option<LapicAction>, MsrFault> {
        match msr {
            MSR_APIC_BASE => self.write_base(value).map(|()| None),
            MSR_TSC_DEADLINE if self.config.tsc_deadline => {
                self.settle_timer();
                self.timer.set_tsc_deadline(value);
                Ok(None)
            }
            _ => self.write_x2apic(self.x2apic_index(msr)?, value),
        }
    }

    /// The transitions of figure 11-27; being disabled loses the APIC's state (11.4.3).
    fn write_base(&mut self, value: u64) -> Result<(), MsrFault> {
        let width = u32::from(self.config.physical_bits.clamp(32, 52));
        let address = ((1u64 << width) - 1) & !0xfff;
        let mut known = ApicBase::all();
        known.set(ApicBase::EXTD, self.config.x2apic);
        if value & !(address | known.bits()) != 0 {
            return Err(MsrFault::ReservedBits);
        }
        let flags = ApicBase::from_bits_truncate(value);
        let enabled = flags.contains(ApicBase::EN);
        let extended = flags.contains(ApicBase::EXTD);
        match (self.mode(), enabled, extended) {
            (_, false, true)
            | (ApicMode::Disabled, true, true)
            | (ApicMode::X2Apic, true, false) => return Err(MsrFault::InvalidTransition),
            _ => {}
        }
        self.settle_timer();
        self.flags = flags;
        self.base = value & address;
        if !enabled {
            self.reset_registers();
        }
        Ok(())
    }

    fn x2apic_index(&self, msr: u32) -> Result<u8, MsrFault> {
        if self.mode() != ApicMode::X2Apic || !MSR_X2APIC.contains(&msr) {
            return Err(MsrFault::NoRegister);
        }
        u8::try_from(msr - MSR_X2APIC.start()).map_err(|_| MsrFault::NoRegister)
    }

    fn read_xapic(&mut self, register: u8) -> u32 {
        let value = match register {
            index::ID => Some(self.id() << 24),
            index::APR => Some(self.apr().into()),
            index::EOI | index::RRD => Some(0),
            index::DFR => Some(self.dfr()),
            index::ICR_HIGH => Some(self.icr_destination << 24),
            index::SELF_IPI => None,
            _ => self.read_common(register),
        };
        value.unwrap_or_else(|| {
            self.error(Esr::ILLEGAL_REGISTER_ADDRESS);
            0
        })
    }

    /// The LVT entry at a register, if this APIC has it.
    fn entry_at(&self, register: u8) -> Option<Lvt> {
        Lvt::from_index(register).filter(|entry| self.config.generation.has(*entry))
    }

    fn is_writable(&self, register: u8) -> bool {
        let is_entry = Lvt::from_index(register).is_some();
        writable_bits(register).is_some() && (!is_entry || self.entry_at(register).is_some())
    }

    fn read_x2apic(&mut self, register: u8) -> Result<u64, MsrFault> {
        let value = match register {
            index::ID => Some(self.id()),
            index::ICR_LOW => {
                let destination = u64::from(self.icr_destination) << 32;
                return Ok(destination | u64::from(self.icr.bits()));
            }
            _ => self.read_common(register),
        };
        value.map(u64::from).ok_or(MsrFault::NoRegister)
    }

    /// Registers that read the same in both modes.
    fn read_common(&mut self, register: u8) -> Option<u32> {
        if shows_timer(register) {
            self.settle_timer();
        }
        Some(match register {
            index::VERSION => self.config.generation.version(),
            index::TPR => self.tpr.into(),
            index::PPR => self.ppr().into(),
            index::LDR => self.ldr(),
            index::SVR => self.svr.bits(),
            index::ISR..=index::ISR_END => self.isr.register(register - index::ISR),
            index::TMR..=index::TMR_END => self.tmr.register(register - index::TMR),
            index::IRR..=index::IRR_END => self.irr.register(register - index::IRR),
            index::ESR => self.esr.bits(),
            index::ICR_LOW => self.icr.bits(),
            index::INITIAL_COUNT => self.timer.initial_count(),
            index::CURRENT_COUNT => self.timer.current_count(self.clock.now()),
            index::DIVIDE_CONFIGURATION => self.timer.divide_configuration(),
            _ => self.lvt(self.entry_at(register)?).bits(),
        })
    }

    fn write_xapic(&mut self, register: u8, value: u32) -> Option<LapicAction> {
        match register {
            index::LDR => self.logical_id = (value >> 24) as u8,
            index::DFR => self.model = (value >> 28) as u8,
            index::ICR_HIGH => self.icr_destination = value >> 24,
            index::ICR_LOW => {
                self.icr = Icr::from_bits_truncate(value);
                let id = self.icr_destination as u8;
                return self.send_icr(Message::destination8(id, self.icr.contains(Icr::LOGICAL)));
            }
            index::ID
            | index::VERSION
            | index::APR
            | index::PPR
            | index::RRD
            | index::ISR..=index::IRR_END
            | index::CURRENT_COUNT => {}
            _ if self.is_writable(register) => return self.write_common(register, value),
            _ => self.error(Esr::ILLEGAL_REGISTER_ADDRESS),
        }
        None
    }

    fn write_x2apic(&mut self, register: u8, value: u64) -> Result<Option<LapicAction>, MsrFault> {
        let low = value as u32;
        let (writable, wide) = match register {
            index::ICR_LOW => (Icr::all().bits(), true),
            index::SELF_IPI => (0xff, false),
            index::EOI | index::ESR => (0, false),
            _ => (writable_bits(register).ok_or(MsrFault::NoRegister)?, false),
        };
        if low & !writable != 0 || (!wide && value >> 32 != 0) {
            return Err(MsrFault::ReservedBits);
        }
        Ok(match register {
            index::ICR_LOW => {
                self.icr = Icr::from_bits_truncate(low);
                self.icr_destination = (value >> 32) as u32;
                let logical = self.icr.contains(Icr::LOGICAL);
                let id = self.icr_destination;
                self.send_icr(if logical {
                    Destination::Logical(id)
                } else {
                    Destination::Physical(id)
                })
            }
            index::SELF_IPI => {
                self.self_ipi(low as u8);
                None
            }
            _ => self.write_common(register, low),
        })
    }

    /// A fixed, edge-triggered interrupt to this processor itself.
    fn self_ipi(&mut self, vector: u8) {
        if vector < 16 {
            self.error(Esr::SEND_ILLEGAL_VECTOR);
        } else {
            self.accept(vector, false);
        }
    }

    /// Registers that are written the same in both modes, those of [`writable_bits`].
    fn write_common(&mut self, register: u8, value: u32) -> Option<LapicAction> {
        match register {
            index::TPR => self.tpr = value as u8,
            index::EOI => return self.end_of_interrupt(),
            _ => self.write_with_timer(register, value),
        }
        None
    }

    /// Registers of which a write may concern a timer that has run out.
    fn write_with_timer(&mut self, register: u8, value: u32) {
        self.settle_timer();
        let now = self.clock.now();
        match register {
            index::SVR => self.write_svr(value),
            index::ESR => {
                self.esr = self.errors;
                self.errors = Esr::empty();
            }
            index::INITIAL_COUNT => self.timer.set_initial_count(value, now),
            index::DIVIDE_CONFIGURATION => self.timer.set_divide_configuration(value, now),
            _ => {
                if let Some(which) = self.entry_at(register) {
                    self.write_lvt(which, value);
                }
            }
        }
    }
}

/// Whether a register may show that the timer has run out. The clock is not asked for the others:
/// TPR, EOI and ICR are what an interrupt costs.
fn shows_timer(register: u8) -> bool {
    matches!(register, index::TMR..=index::IRR_END)
}

/// The bits of a register that software may set in either mode; none for other registers.
fn writable_bits(register: u8) -> Option<u32> {
    Some(match register {
        index::TPR => 0xff,
        index::EOI | index::ESR | index::INITIAL_COUNT => u32::MAX,
        index::SVR => Svr::all().bits(),
        index::DIVIDE_CONFIGURATION => 0b1011,
        _ => {
            // Remote IRR is read-only rather than reserved.
            let which = Lvt::from_index(register)?;
            (which.writable() | (LvtEntry::REMOTE_IRR & lint_bits(which))).bits()
        }
    })
}

/// All bits for the LINT entries, none for the others.
fn lint_bits(which: Lvt) -> LvtEntry {
    match which {
        Lvt::Lint0 | Lvt::Lint1 => LvtEntry::all(),
        _ => LvtEntry::empty(),
    }
}

/// The register at an offset of the page that is a multiple of 16.
fn page_index(slot: u64) -> BusResult<u8> {
    if slot >= 0x1000 {
        return Err(BusError::NoRegister);
    }
    Ok((slot >> 4) as u8)
}
