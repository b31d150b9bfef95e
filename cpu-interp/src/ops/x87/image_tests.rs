//! The images of FNSTENV and FNSAVE byte by byte. Intel SDM vol. 1, figures 8-9 to 8-12.

use trivium_cpu::Exit;
use trivium_cpu::state::{X87, X87Register};

use super::tests::mem;
use crate::testing::{CODE, DATA, TestMachine};

/// A state in which every field can be told from the others: TOP is 3, and of the registers number
/// 3 holds 1.0, number 4 zero, number 5 infinity, number 7 a denormal; the others are empty.
fn distinct() -> X87 {
    let mut regs = [X87Register::default(); 8];
    regs[3] = X87Register { mantissa: 1 << 63, sign_exponent: 0x3fff };
    regs[5] = X87Register { mantissa: 1 << 63, sign_exponent: 0xffff };
    regs[7] = X87Register { mantissa: 0x1122_3344_5566_7788, sign_exponent: 0 };
    X87 {
        regs,
        control: 0x027f,
        status: 3 << 11 | 0x4121,
        tags: 0b00_11_00_00_00_11_11_11,
        last_opcode: 0x5e8,
        last_ip: 0x8765_4321,
        last_cs: 0x0008,
        last_dp: 0x7654_fedc,
        last_ds: 0x0010,
    }
}

/// What [`distinct`] has in its tag word when it is stored: registers 7 and 5 are special, 4 is
/// zero.
const TAGS: u16 = 0b10_11_10_01_00_11_11_11;

/// The same with the pointers of a real-mode program.
fn distinct_real() -> X87 {
    X87 { last_ip: 0x4321, last_cs: 0x8000, last_dp: 0xfedc, last_ds: 0x7000, ..distinct() }
}

fn bytes16<const N: usize>(words: [u16; N]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn bytes32<const N: usize>(words: [u32; N]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn protected32() -> Vec<u8> {
    // Reserved halves are stored as ones, which the manual leaves open.
    bytes32([
        0xffff_027f,
        0xffff_5921,
        0xffff_0000 | u32::from(TAGS),
        0x8765_4321,
        0x05e8_0008,
        0x7654_fedc,
        0xffff_0010,
    ])
}

fn protected16() -> Vec<u8> {
    bytes16([0x027f, 0x5921, TAGS, 0x4321, 0x0008, 0xfedc, 0x0010])
}

/// The linear addresses are 8_4321 and 7_FEDC.
fn real32() -> Vec<u8> {
    bytes32([
        0xffff_027f,
        0xffff_5921,
        0xffff_0000 | u32::from(TAGS),
        0x4321,
        0x0000_85e8,
        0xfedc,
        0x0000_7000,
    ])
}

fn real16() -> Vec<u8> {
    bytes16([0x027f, 0x5921, TAGS, 0x4321, 0x85e8, 0xfedc, 0x7000])
}

/// One of the four formats.
struct Format {
    machine: fn(&[u8]) -> TestMachine,
    /// 66h where the format is not that of the code's size.
    prefix: &'static [u8],
    image: Vec<u8>,
    state: X87,
}

fn formats() -> [Format; 4] {
    [
        Format {
            machine: TestMachine::protected,
            prefix: &[],
            image: protected32(),
            state: distinct(),
        },
        Format {
            machine: TestMachine::protected,
            prefix: &[0x66],
            image: protected16(),
            state: distinct(),
        },
        Format {
            machine: TestMachine::real,
            prefix: &[0x66],
            image: real32(),
            state: distinct_real(),
        },
        Format { machine: TestMachine::real, prefix: &[], image: real16(), state: distinct_real() },
    ]
}

impl Format {
    /// Runs one instruction with its operand at [`DATA`].
    fn run(&self, opcode: u8, reg: u8, before: &[u8], state: X87) -> (X87, TestMachine) {
        let is_real = self.state.last_cs != distinct().last_cs;
        let code = match is_real {
            true => vec![opcode, reg << 3 | 6, DATA as u8, (DATA >> 8) as u8],
            false => mem(opcode, reg, DATA).to_vec(),
        };
        let code = [self.prefix, &code].concat();
        let mut machine = (self.machine)(&code);
        machine.put(DATA, before);
        machine.set(|all| all.x87 = state);
        assert_eq!(machine.run(1), Exit::Budget);
        let all = machine.state();
        assert_eq!(all.general.rip, CODE + code.len() as u64);
        (all.x87, machine)
    }

    /// The registers from ST(0) on, as FNSAVE stores them.
    fn registers(&self) -> Vec<u8> {
        let in_order = (0..8).map(|n| self.state.regs[(n + 3) & 7]);
        in_order
            .flat_map(|reg| {
                let mut bytes = reg.mantissa.to_le_bytes().to_vec();
                bytes.extend(reg.sign_exponent.to_le_bytes());
                bytes
            })
            .collect()
    }

    /// What loading the image gives, but for the registers.
    fn loaded(&self) -> X87 {
        let x87 = X87 { tags: TAGS, ..self.state };
        match self.image.len() {
            // Without a selector in the image, the pointers are linear addresses.
            _ if x87.last_cs == 0x8000 => {
                X87 { last_ip: 0x8_4321, last_cs: 0, last_dp: 0x7_fedc, last_ds: 0, ..x87 }
            }
            // The 16-bit format of protected mode has no opcode.
            14 => X87 { last_ip: 0x4321, last_dp: 0xfedc, last_opcode: 0, ..x87 },
            _ => x87,
        }
    }
}

#[test]
fn fnstenv_stores_each_format_and_masks_all_exceptions() {
    for format in formats() {
        let (after, machine) = format.run(0xd9, 6, &[0x55; 128], format.state);
        let stored = machine.get::<128>(DATA);
        let len = format.image.len();
        assert_eq!(stored[..len], format.image);
        assert_eq!(stored[len..], [0x55; 128][len..]);
        assert_eq!(after, X87 { control: 0x27f, ..format.state });
    }
}

#[test]
fn fnstenv_masks_exceptions_after_it_stored_the_control_word() {
    let [format, ..] = formats();
    let pending = X87 { control: 0x0240, status: 0x80a1, ..format.state };
    let (after, machine) = format.run(0xd9, 6, &[], pending);
    assert_eq!((machine.get_u16(DATA), machine.get_u16(DATA + 4)), (0x0240, 0x80a1));
    assert_eq!((after.control, after.status), (0x027f, 0x0021));
}

#[test]
fn fldenv_loads_each_format() {
    for format in formats() {
        let start = X87 { regs: format.state.regs, ..X87::default() };
        let (after, _) = format.run(0xd9, 4, &format.image, start);
        assert_eq!(after, format.loaded());
    }
}

#[test]
fn fnsave_stores_registers_from_st0_and_initializes() {
    for format in formats() {
        let (after, machine) = format.run(0xdd, 6, &[0x55; 128], format.state);
        let stored = machine.get::<128>(DATA);
        let expected = [format.image.clone(), format.registers()].concat();
        assert_eq!(stored[..expected.len()], expected);
        assert_eq!(stored[expected.len()], 0x55);
        let initial = X87 {
            regs: format.state.regs,
            control: 0x37f,
            status: 0,
            tags: 0xffff,
            last_opcode: 0,
            last_ip: 0,
            last_cs: 0,
            last_dp: 0,
            last_ds: 0,
        };
        assert_eq!(after, initial);
    }
}

#[test]
fn frstor_loads_registers_from_st0() {
    for format in formats() {
        let image = [format.image.clone(), format.registers()].concat();
        let (after, _) = format.run(0xdd, 4, &image, X87::default());
        assert_eq!(after, format.loaded());
    }
}

#[test]
fn a_loaded_environment_may_have_a_pending_exception() {
    let [format, ..] = formats();
    let mut image = format.image.clone();
    image[0] = 0x40;
    let (after, _) = format.run(0xd9, 4, &image, X87::default());
    assert_eq!(after.status, 0xd9a1);
}

#[test]
fn registers_written_by_mmx_instructions_are_special() {
    // MOVD MM0, EAX; FNSTENV.
    let code = [&[0x0f, 0x6e, 0xc0][..], &mem(0xd9, 6, DATA)].concat();
    let mut machine = TestMachine::protected(&code);
    assert_eq!(machine.run(2), Exit::Budget);
    // Number 0 has an exponent of ones; the others are zero since reset, and now valid.
    assert_eq!(machine.get_u16(DATA + 8), 0x5556);
}
