//! The DMA controllers against the 8237A data sheet and the PIIX3's.

use proptest::prelude::*;
use trivium_chipset::DmaError;
use trivium_chipset::dma::PlainMemory;

use super::*;
use crate::test_support::{Fixture, check, port_steps};

/// Mode register: the kinds and services.
const VERIFY: u8 = 0x00;
const WRITE: u8 = 0x04;
const READ: u8 = 0x08;
const ILLEGAL: u8 = 0x0c;
const AUTOINIT: u8 = 0x10;
const DECREMENT: u8 = 0x20;
const DEMAND: u8 = 0x00;
const SINGLE: u8 = 0x40;
const BLOCK: u8 = 0x80;
/// Ports of the page registers of channels 0 to 7; channel 4 has none.
const PAGE_PORTS: [u16; 8] = [0x87, 0x83, 0x81, 0x82, 0x8f, 0x8b, 0x89, 0x8a];
const SIZE: usize = 0x20_0000;

/// The board's part: both chips as firmware leaves them.
struct Board {
    dma: Arc<Mutex<Dma>>,
    memory: Arc<PlainMemory>,
}

impl Board {
    fn new() -> Self {
        let memory = Arc::new(PlainMemory::new(SIZE));
        let board = Self { dma: Arc::new(Mutex::new(Dma::new(memory.clone()))), memory };
        board.out(0xd4, 0x00); // Channel 4 open: the cascade.
        board
    }

    fn out(&self, port: u16, value: u8) {
        self.dma.lock().unwrap().write(port, AccessWidth::Byte, value.into()).unwrap();
    }

    fn input(&self, port: u16) -> u8 {
        self.dma.lock().unwrap().read(port, AccessWidth::Byte).unwrap() as u8
    }

    fn out16(&self, port: u16, value: u16) {
        for byte in value.to_le_bytes() {
            self.out(port, byte);
        }
    }

    fn in16(&self, port: u16) -> u16 {
        u16::from_le_bytes([self.input(port), self.input(port)])
    }

    /// The port of a register of the chip that a channel is on.
    fn port(channel: u16, register: u16) -> u16 {
        if channel < 4 { register } else { 0xc0 + 2 * register }
    }

    fn address_port(channel: u16) -> u16 {
        Self::port(channel, 2 * (channel % 4))
    }

    fn count_port(channel: u16) -> u16 {
        Self::port(channel, 2 * (channel % 4) + 1)
    }

    /// Programs a channel and unmasks it.
    fn program(&self, channel: u16, mode: u8, page: u8, address: u16, count: u16) {
        self.out(Self::port(channel, 0xa), 4 | channel as u8 % 4);
        self.out(Self::port(channel, 0xc), 0);
        self.out(Self::port(channel, 0xb), mode | channel as u8 % 4);
        self.out16(Self::address_port(channel), address);
        self.out16(Self::count_port(channel), count);
        self.out(PAGE_PORTS[usize::from(channel)], page);
        self.out(Self::port(channel, 0xa), channel as u8 % 4);
    }

    fn channel(&self, number: u8) -> DmaChannel {
        DmaChannel::new(self.dma.clone(), number).unwrap()
    }

    fn memory(&self, address: u64, len: usize) -> Vec<u8> {
        let mut data = vec![0; len];
        self.memory.read(address, &mut data).unwrap();
        data
    }

    fn status(&self, channel: u16) -> u8 {
        self.input(Self::port(channel, 8))
    }

    /// Whether a channel moves anything.
    fn moves(&self, channel: u8) -> bool {
        self.channel(channel).to_memory(&[0; 2]).bytes != 0
    }
}

fn moved(bytes: usize, terminal_count: bool) -> Transferred {
    Transferred { bytes, terminal_count }
}

#[test]
fn base_and_current_registers_are_written_together_lower_byte_first() {
    let board = Board::new();
    board.out(0x0c, 0);
    board.out16(0x04, 0x1234);
    board.out16(0x05, 0x5678);
    assert_eq!((board.in16(0x04), board.in16(0x05)), (0x1234, 0x5678));
}

#[test]
fn clear_first_last_flip_flop_makes_the_lower_byte_the_next() {
    let board = Board::new();
    board.out16(0x00, 0xaabb);
    board.input(0x00);
    board.out(0x0c, 0xff);
    assert_eq!(board.in16(0x00), 0xaabb);
    // One flip-flop serves all registers of a chip; the other chip has its own.
    board.input(0x00);
    board.out16(0xc0, 0x1122);
    assert_eq!(board.input(0x00), 0xaa);
    board.out(0x02, 0x01);
    assert_eq!(board.input(0x02), 0x00, "upper byte");
}

#[test]
fn a_write_transfer_moves_data_from_the_device_to_memory() {
    let board = Board::new();
    board.program(2, SINGLE | WRITE, 0x01, 0x2340, 3);
    assert_eq!(board.channel(2).to_memory(&[1, 2, 3, 4]), moved(4, true));
    assert_eq!(board.memory(0x1_2340, 4), [1, 2, 3, 4]);
}

#[test]
fn a_read_transfer_moves_data_from_memory_to_the_device() {
    let board = Board::new();
    board.memory.write(0x1_2340, &[5, 6, 7]).unwrap();
    board.program(1, SINGLE | READ, 0x01, 0x2340, 2);
    let mut data = [0; 3];
    assert_eq!(board.channel(1).from_memory(&mut data), moved(3, true));
    assert_eq!(data, [5, 6, 7]);
}

#[test]
fn verify_transfers_generate_addresses_and_eop_but_move_nothing() {
    for kind in [VERIFY, ILLEGAL] {
        let board = Board::new();
        board.program(3, SINGLE | kind, 0x01, 0x1000, 1);
        assert_eq!(board.channel(3).to_memory(&[9, 9]), moved(2, true));
        assert_eq!(board.memory(0x1_1000, 2), [0, 0]);
        assert_eq!(board.in16(0x06), 0x1002);
        assert_eq!(board.status(3) & 0x08, 0x08);
    }
}

#[test]
fn a_channel_of_another_direction_moves_nothing() {
    let board = Board::new();
    board.program(1, SINGLE | READ, 0x01, 0, 9);
    assert_eq!(board.channel(1).to_memory(&[9, 9]), moved(2, false));
    assert_eq!(board.memory(0x1_0000, 2), [0, 0]);
    board.program(1, SINGLE | WRITE, 0x01, 0, 9);
    let mut data = [0; 2];
    assert_eq!(board.channel(1).from_memory(&mut data), moved(2, false));
    assert_eq!(data, [0xff, 0xff], "the data lines float");
}

#[test]
fn one_transfer_more_is_made_than_the_count_says() {
    let board = Board::new();
    board.program(1, DEMAND | WRITE, 0, 0x1000, 0);
    assert_eq!(board.channel(1).to_memory(&[1, 2, 3]), moved(1, true));
    assert_eq!(board.in16(0x03), 0xffff, "the count goes from 0 to FFFFh");
}

#[test]
fn demand_transfers_go_on_where_the_device_ran_out_of_data() {
    let board = Board::new();
    board.program(1, DEMAND | WRITE, 0, 0x1000, 3);
    assert_eq!(board.channel(1).to_memory(&[1]), moved(1, false));
    assert_eq!((board.in16(0x02), board.in16(0x03)), (0x1001, 2), "held for the CPU to read");
    assert_eq!(board.channel(1).to_memory(&[2, 3, 4, 5]), moved(3, true));
    assert_eq!(board.memory(0x1000, 5), [1, 2, 3, 4, 0]);
}

#[test]
fn decrement_counts_addresses_down() {
    let board = Board::new();
    board.program(1, SINGLE | WRITE | DECREMENT, 0, 0x0001, 2);
    assert_eq!(board.channel(1).to_memory(&[1, 2, 3]), moved(3, true));
    assert_eq!(board.memory(0, 2), [2, 1]);
    assert_eq!(board.memory(0xffff, 1), [3]);
    assert_eq!(board.in16(0x02), 0xfffe);
}

#[test]
fn addresses_wrap_inside_the_page() {
    let board = Board::new();
    board.program(1, SINGLE | WRITE, 0x01, 0xfffe, 3);
    board.channel(1).to_memory(&[1, 2, 3, 4]);
    assert_eq!(board.memory(0x1_fffe, 3), [1, 2, 0]);
    assert_eq!(board.memory(0x1_0000, 2), [3, 4]);
}

#[test]
fn word_channels_shift_addresses_and_ignore_bit_0_of_the_page() {
    let board = Board::new();
    board.program(5, SINGLE | WRITE, 0x03, 0x8001, 1);
    assert_eq!(board.channel(5).to_memory(&[1, 2, 3, 4, 5]), moved(4, true));
    assert_eq!(board.memory(0x3_0002, 5), [1, 2, 3, 4, 0]);
    assert_eq!(board.in16(0xc4), 0x8003, "the registers count words");
    let mut data = [0; 4];
    board.program(7, SINGLE | READ | DECREMENT, 0x02, 0x8002, 1);
    assert_eq!(board.channel(7).from_memory(&mut data), moved(4, true));
    assert_eq!(data, [3, 4, 1, 2]);
}

#[test]
fn autoinitialization_reloads_and_leaves_the_mask_alone() {
    let board = Board::new();
    board.program(1, SINGLE | WRITE | AUTOINIT, 0, 0x1000, 1);
    for round in 0..3 {
        assert_eq!(board.channel(1).to_memory(&[round; 9]), moved(2, true));
        assert_eq!((board.in16(0x02), board.in16(0x03)), (0x1000, 1));
    }
    assert_eq!(board.status(1), 0x02);
}

#[test]
fn eop_masks_the_channel_without_autoinitialization() {
    let board = Board::new();
    board.program(1, SINGLE | WRITE, 0, 0x1000, 0);
    assert!(board.moves(1));
    assert_eq!(board.input(0x0f) & 0x02, 0x02);
    assert!(!board.moves(1));
}

#[test]
fn status_shows_terminal_counts_until_read_and_requests() {
    let board = Board::new();
    board.program(1, SINGLE | WRITE, 0, 0x1000, 0);
    board.channel(1).to_memory(&[0]);
    board.channel(3).set_request(true);
    assert_eq!(board.status(0), 0x82);
    assert_eq!(board.status(0), 0x80);
    board.channel(3).set_request(false);
    assert_eq!(board.status(0), 0x00);
    board.out(0x09, 0x06);
    assert_eq!(board.status(0), 0x40, "the source may be a software request");
}

#[test]
fn masks_can_be_set_alone_all_together_and_cleared() {
    let board = Board::new();
    assert_eq!(board.input(0x0f), 0x0f, "all masked after reset");
    board.out(0x0e, 0);
    assert_eq!(board.input(0x0f), 0x00);
    board.out(0x0a, 0x05);
    assert_eq!(board.input(0x0f), 0x02);
    board.out(0x0a, 0x01);
    board.out(0x0f, 0xf9);
    assert_eq!(board.input(0x0f), 0x09);
}

#[test]
fn a_masked_channel_and_a_disabled_controller_move_nothing() {
    let board = Board::new();
    board.program(1, SINGLE | WRITE, 0, 0x1000, 99);
    board.out(0x0a, 0x05);
    assert!(!board.moves(1));
    board.out(0x0a, 0x01);
    assert!(board.moves(1));
    board.out(0x08, 0x04);
    assert!(!board.moves(1));
    board.out(0x08, 0x00);
    assert!(board.moves(1));
}

#[test]
fn cascade_mode_leaves_the_bus_to_the_device() {
    let board = Board::new();
    board.program(1, 0xc0 | WRITE, 0, 0x1000, 99);
    assert!(!board.moves(1));
    assert_eq!(board.in16(0x02), 0x1000);
}

#[test]
fn the_first_chip_gets_the_bus_through_channel_4() {
    let board = Board::new();
    board.program(1, SINGLE | WRITE, 0, 0x1000, 99);
    board.program(5, SINGLE | WRITE, 0, 0x1000, 99);
    for (port, off, on) in [(0xd4, 0x04, 0x00), (0xd0, 0x04, 0x00), (0xd6, 0x40, 0xc0)] {
        board.out(port, off);
        assert!(!board.moves(1), "{port:x}h");
        assert_eq!(board.moves(5), port != 0xd0);
        board.out(port, on);
        assert!(board.moves(1), "{port:x}h");
    }
}

#[test]
fn software_requests_are_not_maskable_and_need_block_mode() {
    let board = Board::new();
    board.program(1, SINGLE | VERIFY, 0, 0x1000, 9);
    board.out(0x0a, 0x05);
    board.out(0x09, 0x05);
    assert_eq!(board.status(0), 0x20, "waits");
    board.out(0x0b, BLOCK | VERIFY | 1);
    assert_eq!(board.status(0), 0x02, "done, and the request bit is cleared by TC");
    assert_eq!(board.in16(0x02), 0x100a);
}

#[test]
fn nobody_answers_a_software_request() {
    let board = Board::new();
    board.program(3, BLOCK | WRITE, 0x01, 0xfffe, 0xffff);
    board.out(0x09, 0x07);
    assert_eq!(board.memory(0x1_0000, 0x1_0000), vec![0xff; 0x1_0000], "the data lines float");
    assert_eq!(board.memory(0x2_0000, 1), [0]);
}

#[test]
fn a_request_can_be_taken_back() {
    let board = Board::new();
    board.program(1, SINGLE | VERIFY, 0, 0x1000, 9);
    board.out(0x09, 0x05);
    board.out(0x09, 0x01);
    board.out(0x0b, BLOCK | VERIFY | 1);
    assert_eq!((board.status(0), board.in16(0x02)), (0, 0x1000));
}

/// Programs a copy from 1_1000h to 1_2000h.
fn copy(board: &Board, mode0: u8, mode1: u8, count: u16, command: u8) {
    board.memory.write(0x1_1000, b"0123456789").unwrap();
    board.program(0, BLOCK | READ | mode0, 0x01, 0x1000, count);
    board.program(1, BLOCK | WRITE | mode1, 0x01, 0x2000, count);
    board.out(0x08, 0x01 | command);
    board.out(0x09, 0x04);
}

#[test]
fn memory_to_memory_copies_until_channel_1s_terminal_count() {
    let board = Board::new();
    copy(&board, 0, 0, 5, 0);
    assert_eq!(board.memory(0x1_2000, 7), *b"012345\0");
    assert_eq!(board.input(0x0d), b'5', "the temporary register has the last byte");
    assert_eq!(board.status(0), 0x02, "channel 0's count sets no TC bit");
    assert_eq!((board.in16(0x00), board.in16(0x02)), (0x1006, 0x2006));
    assert_eq!(board.input(0x0f) & 3, 2, "the active channel is masked");
}

#[test]
fn memory_to_memory_can_hold_channel_0s_address() {
    let board = Board::new();
    copy(&board, 0, DECREMENT, 3, 0x02);
    assert_eq!(board.memory(0x1_1ffd, 5), *b"0000\0");
    assert_eq!(board.in16(0x00), 0x1000);
}

#[test]
fn memory_to_memory_autoinitializes_both_channels() {
    let board = Board::new();
    copy(&board, AUTOINIT, AUTOINIT, 2, 0);
    assert_eq!((board.in16(0x00), board.in16(0x01)), (0x1000, 2));
    assert_eq!((board.in16(0x02), board.in16(0x03)), (0x2000, 2));
    assert_eq!(board.input(0x0f) & 3, 0);
}

#[test]
fn memory_to_memory_starts_by_dreq_0_unless_masked() {
    let board = Board::new();
    copy(&board, AUTOINIT, AUTOINIT, 2, 0);
    board.memory.write(0x1_1000, b"xyz").unwrap();
    board.out(0x0a, 0x04);
    board.channel(0).set_request(true);
    assert_eq!(board.memory(0x1_2000, 3), *b"012");
    board.out(0x0a, 0x00);
    assert_eq!(board.memory(0x1_2000, 3), *b"xyz");
    assert!(!board.moves(0), "channel 0 serves no device then");
}

#[test]
fn fixed_priority_goes_by_the_channels_numbers_and_rotating_puts_the_served_one_last() {
    let mut chip = Controller::new();
    assert_eq!(chip.by_priority(), [0, 1, 2, 3]);
    let memory = PlainMemory::new(0x1_0000);
    let bus = Bus { memory: &memory, pages: [0; 4], words: false };
    chip.write(0xe, 0);
    chip.write(0xb, 0x41);
    chip.serve(1, &bus, Peer::Gives(&[0]));
    assert_eq!(chip.by_priority(), [0, 1, 2, 3], "fixed");
    chip.write(0x8, 0x10);
    assert_eq!(chip.by_priority(), [2, 3, 0, 1]);
    chip.serve(3, &bus, Peer::Gives(&[0]));
    assert_eq!(chip.by_priority(), [0, 1, 2, 3]);
}

#[test]
fn requests_that_wait_together_are_served_by_priority() {
    let board = Board::new();
    board.out(0x08, 0x14);
    for channel in [0, 1, 2, 3] {
        board.program(channel, BLOCK | VERIFY, 0, 0, 0);
        board.out(0x09, 4 | channel as u8);
    }
    assert_eq!(board.status(0), 0xf0, "a disabled controller serves nobody");
    board.out(0x08, 0x10);
    assert_eq!(board.status(0), 0x0f);
    assert_eq!(board.dma.lock().unwrap().chips[0].lowest, 3, "channel 3 came last");
}

#[test]
fn master_clear_is_a_reset() {
    let board = Board::new();
    board.program(1, SINGLE | WRITE, 0, 0x1234, 0);
    board.channel(1).to_memory(&[0]);
    board.out(0x08, 0x04);
    board.out(0x09, 0x04);
    board.input(0x00);
    board.out(0x0d, 0xff);
    assert_eq!(board.input(0x0f), 0x0f);
    assert_eq!((board.status(0), board.input(0x0d)), (0, 0));
    assert_eq!(board.in16(0x02), 0x1235, "addresses stay, the flip-flop is cleared");
    board.out(0x0e, 0);
    board.program(1, SINGLE | WRITE, 0, 0x1234, 0);
    assert!(board.moves(1), "enabled");
}

#[test]
fn reset_puts_channel_4_into_cascade_mode_and_masks_all() {
    let board = Board::new();
    board.out(0xd6, 0x40);
    board.dma.lock().unwrap().reset();
    assert_eq!((board.input(0x0f), board.input(0xde)), (0x0f, 0x0f));
    board.program(1, SINGLE | WRITE, 0, 0, 9);
    assert!(!board.moves(1));
    board.out(0xd4, 0x00);
    assert!(board.moves(1));
}

#[test]
fn page_registers_read_back() {
    let board = Board::new();
    for port in 0x81..=0x8f {
        board.out(port, port as u8 ^ 0x5a);
    }
    for port in 0x81..=0x8f {
        assert_eq!(board.input(port), port as u8 ^ 0x5a);
    }
}

#[test]
fn registers_are_aliased_as_on_the_piix3() {
    let board = Board::new();
    board.out(0x0c, 0);
    board.out16(0x12, 0x4321);
    assert_eq!(board.in16(0x02), 0x4321);
    board.out16(0xc5, 0x8765);
    assert_eq!(board.in16(0xc4), 0x8765);
}

#[test]
fn write_only_registers_and_other_ports_do_not_answer() {
    let board = Board::new();
    let mut dma = board.dma.lock().unwrap();
    for port in [0x09, 0x0a, 0x0b, 0x0c, 0x0e, 0xd2, 0xdc, 0x20, 0x80, 0x90] {
        assert_eq!(dma.read(port, AccessWidth::Byte), Err(BusError::NoRegister), "{port:x}h");
    }
    assert_eq!(dma.read(0x00, AccessWidth::Word), Err(BusError::Width));
}

#[test]
fn what_no_memory_answers_reads_as_ones() {
    let board = Board::new();
    board.program(1, SINGLE | READ, 0x20, 0x0000, 9);
    let mut data = [0; 4];
    assert_eq!(board.channel(1).from_memory(&mut data), moved(4, false));
    assert_eq!(data, [0xff; 4]);
    board.program(1, SINGLE | WRITE, 0x20, 0x0000, 9);
    assert_eq!(board.channel(1).to_memory(&data), moved(4, false));
}

#[test]
fn channel_4_is_no_devices() {
    let dma = Board::new().dma;
    assert!(DmaChannel::new(dma.clone(), 4).is_none());
    assert!(DmaChannel::new(dma, 8).is_none());
}

/// Memory without a state of its own.
struct Pattern;

impl DmaMemory for Pattern {
    fn read(&self, address: u64, data: &mut [u8]) -> Result<(), DmaError> {
        data.fill(address as u8);
        Ok(())
    }

    fn write(&self, address: u64, data: &[u8]) -> Result<(), DmaError> {
        if address < 0x10_0000 { Ok(()) } else { Err(DmaError { address, len: data.len() }) }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn hostile_accesses_and_restores_do_no_harm(
        steps in port_steps(&[
            0x00, 0x01, 0x02, 0x03, 0x07, 0x08, 0x09, 0x0a, 0x0b, 0x0c, 0x0d, 0x0e, 0x0f, 0x1f,
            0x80, 0x81, 0x83, 0x8f, 0xc0, 0xc2, 0xc4, 0xc6, 0xd0, 0xd2, 0xd4, 0xd6, 0xde, 0xdf,
        ]),
    ) {
        let fixture = || Fixture::new(|_, _| Dma::new(Arc::new(Pattern))).with_poke(Dma::poke);
        check(fixture, &steps);
    }
}
