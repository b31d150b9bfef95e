//! Register bits of the 16550A (PC16550D data sheet, table II).

use bitflags::bitflags;

bitflags! {
    /// IER, interrupt enable register.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(super) struct Ier: u8 {
        /// Received data available, and character timeout.
        const ERBFI = 1 << 0;
        /// Transmitter holding register empty.
        const ETBEI = 1 << 1;
        /// Receiver line status.
        const ELSI = 1 << 2;
        /// Modem status.
        const EDSSI = 1 << 3;
    }

    /// FCR, FIFO control register. Only the bits that stay are kept.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(super) struct Fcr: u8 {
        /// FIFOs are in use.
        const ENABLE = 1 << 0;
        /// Empties the receiver's FIFO; clears itself.
        const RCVR_RESET = 1 << 1;
        /// Empties the transmitter's FIFO; clears itself.
        const XMIT_RESET = 1 << 2;
        /// DMA mode: the pins it concerns are not connected on a PC.
        const DMA_MODE = 1 << 3;
        /// The receiver's trigger level.
        const TRIGGER = 3 << 6;
    }

    /// LCR, line control register.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(super) struct Lcr: u8 {
        /// WLS0 and WLS1: 5 to 8 bits a character.
        const WLS = 3;
        /// Two stop bits.
        const STB = 1 << 2;
        /// Parity enable.
        const PEN = 1 << 3;
        /// Even parity.
        const EPS = 1 << 4;
        /// Stick parity.
        const STICK = 1 << 5;
        /// Break control.
        const BREAK = 1 << 6;
        /// Divisor latch access.
        const DLAB = 1 << 7;
    }

    /// MCR, modem control register. Bits 7 to 5 are always zero.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(super) struct Mcr: u8 {
        /// Data terminal ready.
        const DTR = 1 << 0;
        /// Request to send.
        const RTS = 1 << 1;
        /// Output 1: not connected on a PC.
        const OUT1 = 1 << 2;
        /// Output 2: on a PC, connects the interrupt.
        const OUT2 = 1 << 3;
        /// Loopback.
        const LOOP = 1 << 4;
    }

    /// LSR, line status register.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(super) struct Lsr: u8 {
        /// Data ready.
        const DR = 1 << 0;
        /// Overrun error.
        const OE = 1 << 1;
        /// Parity error.
        const PE = 1 << 2;
        /// Framing error.
        const FE = 1 << 3;
        /// Break interrupt.
        const BI = 1 << 4;
        /// Transmitter holding register empty.
        const THRE = 1 << 5;
        /// Transmitter empty.
        const TEMT = 1 << 6;
        /// An error is in the receiver's FIFO.
        const FIFO_ERROR = 1 << 7;
        /// What a receiver line status interrupt reports.
        const ERRORS = 0x1e;
    }

    /// MSR, modem status register.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(super) struct Msr: u8 {
        /// CTS changed.
        const DCTS = 1 << 0;
        /// DSR changed.
        const DDSR = 1 << 1;
        /// RI went off.
        const TERI = 1 << 2;
        /// DCD changed.
        const DDCD = 1 << 3;
        /// Clear to send.
        const CTS = 1 << 4;
        /// Data set ready.
        const DSR = 1 << 5;
        /// Ring indicator.
        const RI = 1 << 6;
        /// Data carrier detect.
        const DCD = 1 << 7;
        /// The bits that a read clears.
        const DELTAS = 0x0f;
        /// The state of the lines.
        const LINES = 0xf0;
    }
}

/// What IIR, the interrupt identification register, names, in the order of priority.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Interrupt {
    /// An error or a break; cleared by reading LSR.
    ReceiverLineStatus = 0x06,
    /// The trigger level is reached; cleared when the FIFO drops below it.
    ReceivedData = 0x04,
    /// Characters lie in the FIFO and nothing moves; cleared by reading RBR.
    CharacterTimeout = 0x0c,
    /// Cleared by reading IIR or writing THR.
    ThrEmpty = 0x02,
    /// Cleared by reading MSR.
    ModemStatus = 0x00,
}

/// IIR: no interrupt is pending.
pub(super) const IIR_NONE: u8 = 0x01;
/// IIR: FIFOs are enabled.
pub(super) const IIR_FIFOS: u8 = 0xc0;
