//! The host controller as the data sheet tells it, with memory modules' EEPROMs on the bus.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use trivium_chipset::{AccessWidth, BusError, Clock, ManualClock, VmTime};

use super::*;
use crate::power::SmiSink;
use crate::test_support::IrqLog;

#[derive(Default)]
struct Smis(AtomicU32);

impl SmiSink for Smis {
    fn assert_smi(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

struct Bench {
    host: SmbusHost,
    clock: Arc<ManualClock>,
    irqs: Arc<IrqLog>,
    smis: Arc<Smis>,
}

const QUICK: u8 = 0;
const BYTE: u8 = 1 << 2;
const BYTE_DATA: u8 = 2 << 2;
const WORD_DATA: u8 = 3 << 2;
const BLOCK: u8 = 5 << 2;
const START: u8 = 1 << 6;
/// Address and direction of the first module's EEPROM.
const WRITE: u8 = 0xa0;
const READ: u8 = 0xa1;

fn bench() -> Bench {
    let (clock, irqs, smis) = (ManualClock::new(), IrqLog::new(), Arc::<Smis>::default());
    let mut bus = SmbusBus::default();
    for (address, eeprom) in spd_eeproms(128) {
        bus.attach(address, eeprom);
    }
    let mut counting = [0; 256];
    for (value, byte) in (0..).zip(&mut counting) {
        *byte = value;
    }
    bus.attach(0x57, Eeprom::new(counting));
    let mut host = SmbusHost::new(clock.clone(), irqs.line(9), smis.clone(), bus);
    host.configure(true, InterruptSelect::Irq9);
    Bench { host, clock, irqs, smis }
}

impl Bench {
    fn get(&mut self, offset: u16) -> u8 {
        self.host.read(offset, AccessWidth::Byte).unwrap() as u8
    }

    fn put(&mut self, offset: u16, value: u8) {
        self.host.write(offset, AccessWidth::Byte, value.into()).unwrap();
    }

    /// Runs a transaction to its end and gives the status, which is then cleared.
    fn run(&mut self, address: u8, command: u8, control: u8) -> u8 {
        self.put(4, address);
        self.put(3, command);
        self.put(2, control | START);
        assert_eq!(self.get(0), 1, "HOST_BUSY");
        self.finish();
        let status = self.get(0);
        self.put(0, status);
        status
    }

    fn finish(&mut self) {
        let end = self.host.deadline().unwrap();
        assert!(end > self.clock.now());
        self.clock.set(end);
        self.host.settle();
    }
}

#[test]
fn a_module_tells_its_size_by_byte_data() {
    let mut bench = bench();
    assert_eq!(bench.run(READ, 2, BYTE_DATA), 2, "INTER");
    assert_eq!(bench.get(5), 4, "synchronous DRAM");
    assert_eq!(bench.run(READ, 31, BYTE_DATA), 2);
    assert_eq!(bench.get(5), 32, "128 MiB");
}

#[test]
fn dev_err_is_set_where_nobody_answers_and_for_commands_that_do_not_exist() {
    let mut bench = bench();
    assert_eq!(bench.run(0xa3, 0, BYTE_DATA), 4, "no second module");
    assert_eq!(bench.run(0x20, 0, QUICK), 4);
    assert_eq!(bench.run(READ, 0, 4 << 2), 4, "a reserved protocol");
    assert_eq!(bench.run(READ, 0, QUICK), 2, "there is one");
}

#[test]
fn bytes_words_and_blocks_are_read() {
    let mut bench = bench();
    let address = 0x57 << 1 | 1;
    assert_eq!(bench.run(address, 0x34, WORD_DATA), 2);
    assert_eq!((bench.get(5), bench.get(6)), (0x34, 0x35));
    assert_eq!(bench.run(address, 0, BYTE), 2);
    assert_eq!(bench.get(5), 0x36, "receive byte goes on where the last transaction ended");
    assert_eq!(bench.run(address, 3, BLOCK), 2);
    assert_eq!(bench.get(5), 3, "the count goes to SMBHSTDAT0");
    bench.get(2);
    assert_eq!([bench.get(7), bench.get(7), bench.get(7)], [4, 5, 6]);
    assert_eq!(bench.run(address, 0, BLOCK), 4, "a block of no bytes");
    assert_eq!(bench.run(address, 33, BLOCK), 4, "a block of more than 32 bytes");
}

#[test]
fn modules_are_write_protected() {
    let mut bench = bench();
    bench.put(5, 0x99);
    assert_eq!(bench.run(WRITE, 2, BYTE_DATA), 2, "acknowledged");
    assert_eq!(bench.run(READ, 2, BYTE_DATA), 2);
    assert_eq!(bench.get(5), 4);
    bench.put(5, 4);
    assert_eq!(bench.run(WRITE, 0, BLOCK), 2);
    bench.put(5, 0);
    assert_eq!(bench.run(WRITE, 0, BLOCK), 4, "a block of no bytes");
    assert_eq!(bench.run(WRITE, 5, BYTE), 2, "send byte sets the address");
    assert_eq!(bench.run(READ, 0, BYTE), 2);
    assert_eq!(bench.get(5), 1, "byte 5: one bank");
}

#[test]
fn reading_smbhstcnt_resets_the_index_of_the_block() {
    let mut bench = bench();
    bench.get(2);
    for value in 0..32 {
        bench.put(7, value);
    }
    bench.get(2);
    assert_eq!((bench.get(7), bench.get(7)), (0, 1));
    assert_eq!(bench.get(2), 0);
    assert_eq!(bench.get(7), 0);
}

#[test]
fn kill_ends_a_transaction_with_failed() {
    let mut bench = bench();
    bench.put(4, READ);
    bench.put(2, BYTE_DATA | START);
    bench.put(2, 1 << 1);
    assert_eq!(bench.get(0), 1 << 4);
    assert_eq!(bench.host.deadline(), None);
    bench.put(2, BYTE_DATA | START | 1 << 1);
    assert_eq!(bench.get(0), 1 << 4, "nothing starts while KILL is set");
}

#[test]
fn the_end_of_a_transaction_raises_irq_9_or_smi_if_interren_is_set() {
    let mut bench = bench();
    bench.put(4, READ);
    bench.put(2, BYTE_DATA | START | 1);
    assert!(!bench.irqs.level(9));
    bench.finish();
    assert!(bench.irqs.level(9));
    bench.put(0, 2);
    assert!(!bench.irqs.level(9));
    bench.host.configure(true, InterruptSelect::Smi);
    bench.put(2, BYTE_DATA | START | 1);
    bench.finish();
    assert_eq!((bench.irqs.level(9), bench.smis.0.load(Ordering::Relaxed)), (false, 1));
}

#[test]
fn nothing_starts_while_smb_hst_en_is_clear() {
    let mut bench = bench();
    bench.host.configure(false, InterruptSelect::Irq9);
    bench.put(4, READ);
    bench.put(2, BYTE_DATA | START);
    assert_eq!((bench.get(0), bench.get(2)), (0, BYTE_DATA), "START reads zero");
}

#[test]
fn a_transaction_takes_the_time_of_its_bits_at_100_khz() {
    let mut bench = bench();
    bench.put(4, READ);
    bench.put(2, WORD_DATA | START);
    // Address, command, address again and two bytes, of nine bits each.
    assert_eq!(bench.host.deadline(), Some(VmTime::from_nanos(5 * 9 * 10_000)));
    bench.put(4, 0x55);
    assert_eq!(bench.get(4), READ, "not written during a transaction");
}

#[test]
fn registers_are_bytes_and_there_are_fourteen() {
    let mut bench = bench();
    assert_eq!(bench.host.read(0, AccessWidth::Word), Err(BusError::Width));
    assert_eq!(bench.host.read(0xe, AccessWidth::Byte), Err(BusError::NoRegister));
    bench.put(0xa, 0x34);
    bench.put(0xb, 0x12);
    bench.put(8, 0xff);
    assert_eq!((bench.get(0xa), bench.get(0xb), bench.get(8)), (0x34, 0x12, 0x0f));
}
