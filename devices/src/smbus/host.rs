//! The PIIX4's SMBus host controller: its sixteen ports, and its transactions.
//! 82371AB (PIIX4) data sheet (290562), section 7.3.

use std::sync::Arc;

use bitflags::bitflags;
use trivium_chipset::{AccessWidth, BusError, BusResult, Clock, IrqLine, VmTime};

use super::target::{BLOCK, Protocol, Request, SmbusBus};
use crate::access::{byte_only, low_byte};
use crate::power::SmiSink;

/// Ports that the registers take up.
pub const SMBUS_PORTS: u16 = 16;
/// How long a bit takes at 100 kHz, in nanoseconds.
const BIT_NS: u64 = 10_000;
/// Bits of a byte and its acknowledgement.
const BYTE_BITS: u64 = 9;

/// Offsets of the registers.
mod reg {
    pub const SMBHSTSTS: u16 = 0x0;
    pub const SMBSLVSTS: u16 = 0x1;
    pub const SMBHSTCNT: u16 = 0x2;
    pub const SMBHSTCMD: u16 = 0x3;
    pub const SMBHSTADD: u16 = 0x4;
    pub const SMBHSTDAT0: u16 = 0x5;
    pub const SMBHSTDAT1: u16 = 0x6;
    pub const SMBBLKDAT: u16 = 0x7;
    pub const SMBSLVCNT: u16 = 0x8;
    pub const SMBSHDWCMD: u16 = 0x9;
    pub const SMBSLVEVT: u16 = 0xa;
    pub const SMBSLVDAT: u16 = 0xc;
    pub const END: u16 = 0xe;
}

bitflags! {
    /// SMBHSTSTS, host status; all but the first are cleared by writing ones.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    struct Status: u8 {
        /// A transaction is under way.
        const HOST_BUSY = 1 << 0;
        /// A transaction has come to its end.
        const INTER = 1 << 1;
        /// Nobody has answered, or there is no such command.
        const DEV_ERR = 1 << 2;
        /// Another master has won the bus.
        const BUS_ERR = 1 << 3;
        /// A transaction has been killed.
        const FAILED = 1 << 4;
    }
}

bitflags! {
    /// SMBHSTCNT, host control.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    struct Control: u8 {
        /// The end of transactions raises an interrupt.
        const INTEREN = 1 << 0;
        /// Ends the transaction under way.
        const KILL = 1 << 1;
        /// SMB_CMD_PROT.
        const PROTOCOL = 7 << 2;
        /// Write only: begins a transaction.
        const START = 1 << 6;
    }
}

bitflags! {
    /// SMBSLVCNT, slave control. There is no other master here, so that its events do not come.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    struct SlaveControl: u8 {
        const SLV_EN = 1 << 0;
        const SLV_SHDW1_EN = 1 << 1;
        const SLV_SHDW2_EN = 1 << 2;
        const ALERT_EN = 1 << 3;
    }
}

impl Control {
    fn protocol(self) -> Option<Protocol> {
        match (self & Self::PROTOCOL).bits() >> 2 {
            0 => Some(Protocol::Quick),
            1 => Some(Protocol::Byte),
            2 => Some(Protocol::ByteData),
            3 => Some(Protocol::WordData),
            5 => Some(Protocol::Block),
            _ => None,
        }
    }
}

/// Where the end of a transaction is told: SMB_INTRSEL of SMBHSTCFG.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InterruptSelect {
    /// SMI#.
    Smi,
    /// IRQ 9.
    Irq9,
    /// A reserved value.
    Nowhere,
}

/// A transaction that is under way: what it will have come to.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
struct Transaction {
    ends: VmTime,
    /// What was read; nothing if there is an error.
    read: Option<Vec<u8>>,
    /// It is a block.
    block: bool,
}

/// The host controller and its bus.
pub struct SmbusHost {
    clock: Arc<dyn Clock>,
    irq: IrqLine,
    smi: Arc<dyn SmiSink>,
    bus: SmbusBus,
    enabled: bool,
    select: InterruptSelect,
    status: Status,
    control: Control,
    command: u8,
    address: u8,
    data: [u8; 2],
    block: [u8; BLOCK],
    /// Which byte of the block is next at SMBBLKDAT.
    block_index: u8,
    slave_control: SlaveControl,
    slave_event: u16,
    transaction: Option<Transaction>,
}

impl SmbusHost {
    /// A controller after reset; `irq` goes to IRQ 9.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>, irq: IrqLine, smi: Arc<dyn SmiSink>, bus: SmbusBus) -> Self {
        Self {
            clock,
            irq,
            smi,
            bus,
            enabled: false,
            select: InterruptSelect::Smi,
            status: Status::empty(),
            control: Control::empty(),
            command: 0,
            address: 0,
            data: [0; 2],
            block: [0; BLOCK],
            block_index: 0,
            slave_control: SlaveControl::empty(),
            slave_event: 0,
            transaction: None,
        }
    }

    /// Returns to the state after reset. The devices on the bus have no reset.
    pub fn reset(&mut self) {
        let bus = std::mem::take(&mut self.bus);
        *self = Self::new(self.clock.clone(), self.irq.clone(), self.smi.clone(), bus);
        self.update_irq();
    }

    /// SMBHSTCFG has been written: SMB_HST_EN and SMB_INTRSEL.
    pub fn configure(&mut self, enabled: bool, select: InterruptSelect) {
        (self.enabled, self.select) = (enabled, select);
        self.update_irq();
    }

    /// Reads a register; `offset` counts from SMBBA.
    ///
    /// # Errors
    /// No register, or not of this width.
    pub fn read(&mut self, offset: u16, width: AccessWidth) -> BusResult<u32> {
        byte_only(width)?;
        self.settle();
        let value = match offset {
            reg::SMBHSTSTS => self.status.bits(),
            reg::SMBSLVSTS => 0,
            reg::SMBHSTCNT => {
                self.block_index = 0;
                self.control.bits()
            }
            reg::SMBHSTCMD => self.command,
            reg::SMBHSTADD => self.address,
            reg::SMBHSTDAT0 => self.data[0],
            reg::SMBHSTDAT1 => self.data[1],
            reg::SMBBLKDAT => self.next_block_byte().map_or(0, |byte| *byte),
            reg::SMBSLVCNT => self.slave_control.bits(),
            reg::SMBSLVEVT => self.slave_event.to_le_bytes()[0],
            0xb => self.slave_event.to_le_bytes()[1],
            // What another master has written, and there is none.
            reg::SMBSHDWCMD | reg::SMBSLVDAT..reg::END => 0,
            _ => return Err(BusError::NoRegister),
        };
        Ok(value.into())
    }

    /// Writes a register; `offset` counts from SMBBA.
    ///
    /// # Errors
    /// No register, or not of this width.
    pub fn write(&mut self, offset: u16, width: AccessWidth, value: u32) -> BusResult<()> {
        byte_only(width)?;
        self.settle();
        let value = low_byte(value);
        match offset {
            reg::SMBHSTSTS => {
                self.status &= !Status::from_bits_truncate(value) | Status::HOST_BUSY;
                self.update_irq();
            }
            reg::SMBHSTCNT => self.write_control(Control::from_bits_truncate(value)),
            reg::SMBSLVCNT => self.slave_control = SlaveControl::from_bits_truncate(value),
            reg::SMBSLVEVT => self.slave_event = self.slave_event & 0xff00 | u16::from(value),
            0xb => self.slave_event = self.slave_event & 0xff | u16::from(value) << 8,
            // Status and data of a slave cannot be written.
            reg::SMBSLVSTS | reg::SMBSHDWCMD | reg::SMBSLVDAT..reg::END => {}
            reg::SMBHSTCMD..=reg::SMBBLKDAT => self.write_transaction(offset, value),
            _ => return Err(BusError::NoRegister),
        }
        Ok(())
    }

    /// The registers of the next transaction; they are not to be written during one.
    fn write_transaction(&mut self, offset: u16, value: u8) {
        if self.transaction.is_some() {
            return;
        }
        match offset {
            reg::SMBHSTCMD => self.command = value,
            reg::SMBHSTADD => self.address = value,
            reg::SMBHSTDAT0 => self.data[0] = value,
            reg::SMBHSTDAT1 => self.data[1] = value,
            _ => {
                if let Some(byte) = self.next_block_byte() {
                    *byte = value;
                }
            }
        }
    }

    /// The byte of the block at SMBBLKDAT; the next access has the next one.
    fn next_block_byte(&mut self) -> Option<&mut u8> {
        let index = usize::from(self.block_index) % BLOCK;
        self.block_index = (self.block_index + 1) % BLOCK as u8;
        self.block.get_mut(index)
    }

    fn write_control(&mut self, written: Control) {
        self.control = written - Control::START;
        if self.transaction.is_some() {
            if written.contains(Control::KILL) {
                self.transaction = None;
                self.status = (self.status - Status::HOST_BUSY) | Status::FAILED;
                self.tell();
            }
        } else if written.contains(Control::START)
            && !written.contains(Control::KILL)
            && self.enabled
        {
            self.start();
        }
        self.update_irq();
    }

    fn start(&mut self) {
        let read = self.address & 1 != 0;
        let protocol = self.control.protocol();
        let count = match protocol {
            None | Some(Protocol::Quick | Protocol::Byte) => 0,
            Some(Protocol::ByteData) => 1,
            Some(Protocol::WordData) => 2,
            Some(Protocol::Block) => usize::from(self.data[0]),
        };
        let block = protocol == Some(Protocol::Block);
        let source = if block { &self.block[..] } else { &self.data[..] };
        let fits = read || !block || (1..=BLOCK).contains(&count);
        let data = source.get(..count).unwrap_or_default();
        let (address, command) = (self.address >> 1, self.command);
        let result = protocol.filter(|_| fits).and_then(|protocol| {
            self.bus.transfer(&Request { address, read, protocol, command, data })
        });
        // Address, command and data; an address that nobody acknowledges ends it.
        let moved = result.as_ref().map_or(0, |bytes| bytes.len().max(count) + 2) as u64;
        let ends = self.clock.now().saturating_add((1 + moved) * BYTE_BITS * BIT_NS);
        self.status.insert(Status::HOST_BUSY);
        self.transaction = Some(Transaction { ends, read: result, block });
    }

    /// When the transaction under way ends.
    #[must_use]
    pub fn deadline(&self) -> Option<VmTime> {
        self.transaction.as_ref().map(|transaction| transaction.ends)
    }

    /// Ends the transaction under way if its time has come.
    pub fn settle(&mut self) {
        let now = self.clock.now();
        let Some(done) = self.transaction.take_if(|transaction| transaction.ends <= now) else {
            return;
        };
        self.status.remove(Status::HOST_BUSY);
        match done.read {
            Some(bytes) => {
                self.status.insert(Status::INTER);
                self.receive(&bytes, done.block);
            }
            None => self.status.insert(Status::DEV_ERR),
        }
        self.tell();
    }

    fn receive(&mut self, bytes: &[u8], block: bool) {
        if block && !bytes.is_empty() {
            self.data[0] = u8::try_from(bytes.len()).unwrap_or(0);
            self.block_index = 0;
        }
        let target = if block { &mut self.block[..] } else { &mut self.data[..] };
        for (to, from) in target.iter_mut().zip(bytes) {
            *to = *from;
        }
    }

    /// A transaction has ended.
    fn tell(&mut self) {
        if self.control.contains(Control::INTEREN) && self.select == InterruptSelect::Smi {
            self.smi.assert_smi();
        }
        self.update_irq();
    }

    fn update_irq(&self) {
        let ended = self.status - Status::HOST_BUSY;
        let wanted = self.control.contains(Control::INTEREN) && !ended.is_empty();
        self.irq.set(wanted && self.select == InterruptSelect::Irq9);
    }
}

/// The saved form; the PCI function that the controller belongs to keeps it in its section.
pub(crate) mod save_restore {
    use trivium_chipset::{Section, StateError};

    use super::{Control, SlaveControl, SmbusHost, Status, Transaction};

    #[derive(serde::Serialize, serde::Deserialize)]
    pub struct Saved {
        status: u8,
        control: u8,
        command: u8,
        address: u8,
        data: [u8; 2],
        block: [u8; 32],
        block_index: u8,
        slave_control: u8,
        slave_event: u16,
        transaction: Option<Transaction>,
        targets: Vec<(u8, Section)>,
    }

    pub fn save(host: &SmbusHost) -> Saved {
        let SmbusHost {
            clock: _,
            irq: _,
            smi: _,
            bus,
            // Both follow from the function's configuration space.
            enabled: _,
            select: _,
            status,
            control,
            command,
            address,
            data,
            block,
            block_index,
            slave_control,
            slave_event,
            transaction,
        } = host;
        Saved {
            status: status.bits(),
            control: control.bits(),
            command: *command,
            address: *address,
            data: *data,
            block: *block,
            block_index: *block_index,
            slave_control: slave_control.bits(),
            slave_event: *slave_event,
            transaction: transaction.clone(),
            targets: bus.save(),
        }
    }

    pub fn restore(host: &mut SmbusHost, saved: Saved) -> Result<(), StateError> {
        let (Some(status), Some(control), Some(slave_control)) = (
            Status::from_bits(saved.status),
            Control::from_bits(saved.control).filter(|bits| !bits.contains(Control::START)),
            SlaveControl::from_bits(saved.slave_control),
        ) else {
            return Err(StateError::Impossible("Reserved SMBus bits"));
        };
        let long = |transaction: &Transaction| {
            transaction.read.as_ref().is_some_and(|bytes| bytes.len() > super::BLOCK)
        };
        if status.contains(Status::HOST_BUSY) != saved.transaction.is_some()
            || saved.transaction.as_ref().is_some_and(long)
            || usize::from(saved.block_index) >= super::BLOCK
        {
            return Err(StateError::Impossible("SMBus transaction"));
        }
        host.bus.restore(&saved.targets)?;
        (host.status, host.control, host.slave_control) = (status, control, slave_control);
        (host.command, host.address, host.data) = (saved.command, saved.address, saved.data);
        (host.block, host.block_index) = (saved.block, saved.block_index);
        host.slave_event = saved.slave_event;
        host.transaction = saved.transaction;
        Ok(())
    }
}
