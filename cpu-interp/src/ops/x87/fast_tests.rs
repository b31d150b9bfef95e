//! Handlers and general functions of the same instructions come to the same.

use std::sync::Arc;

use trivium_cpu::bits::cr0;
use trivium_cpu::model::CpuModel;
use trivium_cpu::state::{CS, CpuState, X87, X87Register};
use trivium_cpu::{Exception, Vector};
use trivium_memory::{FlatMap, GuestMemory, Region, RegionKind};

use crate::block::{BlockCache, Key};
use crate::cpu::{Access, Cpu, Mode, Topology};
use crate::decode::{Source, decode};
use crate::mem::Rights;
use crate::op::{self, StopReason};
use crate::testing::{DATA, RAM, flat};

/// 32-bit code in flat segments, with operands at ECX.
fn machine() -> Cpu {
    let memory = Arc::new(GuestMemory::new(RAM, 1).unwrap());
    memory.set_map(FlatMap::new(&[Region::new(0, RAM, RegionKind::Ram { offset: 0 })]));
    let scratch = memory.scratch(0, 1).unwrap();
    let topology = Topology { apic_id: 0, cpus: 1, tsc_hz: 1, apic_hz: 1 };
    let model = Arc::new(CpuModel::by_name("max").unwrap());
    let mut cpu = Cpu::new(memory, model, topology, scratch);
    let mut state = CpuState::default();
    state.control.cr0 = cr0::PE | cr0::NE;
    state.segments.regs = [flat(0x10, 0xc093); 6];
    state.segments.regs[CS] = flat(8, 0xc09b);
    state.general.regs[1] = DATA;
    cpu.put_state(&state);
    cpu
}

/// What came of an instruction.
type Outcome = (Result<(), Exception>, CpuState, u64);

/// Runs an instruction on this operand, by its handler or by its general function.
fn run(cpu: &mut Cpu, code: &[u8], x87: &X87, operand: u64, by_handler: bool) -> Outcome {
    let mode = Mode(cpu.mode.0 | Mode::SINGLE);
    let source = Source {
        bytes: code,
        start: 0,
        rip: 0x8000,
        limit: u64::MAX,
        vendor: trivium_cpu::model::Vendor::Amd,
        features: trivium_cpu::model::IMPLEMENTED,
    };
    let key = Key { offset: 0, rip: 0x8000, mode, limit: u32::MAX, base: 0 };
    let decoded = decode(&source, mode).unwrap();
    let (block, op) = (decoded.to_block(key, None), decoded.ops[0]);
    let has_handler = !std::ptr::fn_addr_eq(op.run, op::general as op::Handler);
    assert!(has_handler, "{code:02x?} has no handler");
    cpu.rip = key.rip;
    cpu.x87 = *x87;
    cpu.ram.store(DATA as usize, operand);
    let result = loop {
        cpu.stop = StopReason::Cut;
        let run = if by_handler { op.run } else { op::general };
        run(cpu, &op, &[], &block, &BlockCache::new());
        match cpu.stop {
            StopReason::Cut => break Ok(()),
            StopReason::Exception => break Err(cpu.exception),
            StopReason::Miss => {
                let write = cpu.miss.kind != Access::Read;
                cpu.translate(cpu.miss.linear, write, Rights::Program).unwrap();
            }
            other => panic!("{other:?}"),
        }
    };
    // What a general function leaves in RIP is of no interest.
    cpu.rip = key.rip;
    (result, cpu.state(), cpu.ram.load(DATA as usize))
}

/// Registers with zero, normal numbers, a denormal, infinity and a signalling NaN, under control
/// words that mask all or nothing, with room on the stack and without.
fn states() -> Vec<X87> {
    let value = |sign_exponent, mantissa| X87Register { mantissa, sign_exponent };
    let numbers = [
        value(0x3fff, 1 << 63),
        value(0xc003, 0xabcd_ef12_3456_789a),
        value(0, 0),
        value(0x3c00, 0xffff_ffff_ffff_ffff),
        value(0, 1),
        value(0x7fff, 1 << 63),
        value(0xffff, 0xa000_0000_0000_0000),
        value(0x43fe, 0xffff_ffff_ffff_ffff),
    ];
    let mut states = Vec::new();
    for control in [0x37f, 0x340, 0xf7f, 0x27f] {
        for tags in [0, 0xffff, 0x0003, 0xc000, 0x3000] {
            for status in [0, 0x4720, 0x80a0] {
                for top in 0..8 {
                    let status = status | top << 11;
                    let regs = numbers;
                    states.push(X87 { regs, control, status, tags, ..X87::default() });
                }
            }
        }
    }
    states
}

#[test]
fn handlers_and_general_functions_agree() {
    let mut codes: Vec<[u8; 2]> = vec![[0xd9, 0xc2], [0xd9, 0xe8], [0xd9, 0xee], [0xd9, 0xca]];
    codes.extend([[0xdd, 0xd2], [0xdd, 0xda]]);
    for reg in [0, 1, 4, 5, 6, 7] {
        codes.extend([0xd8, 0xdc].map(|opcode| [opcode, reg << 3 | 1]));
        codes.extend([0xd8, 0xdc, 0xde].map(|opcode| [opcode, 0xc1 | reg << 3]));
    }
    for opcode in [0xd9, 0xdd] {
        codes.extend([0, 2, 3].map(|reg| [opcode, reg << 3 | 1]));
    }
    codes.extend([[0xdb, 0x01], [0xdf, 0x01], [0xdf, 0x29]]);
    let operands =
        [0, 1, 3.5_f64.to_bits(), u64::from(3.5_f32.to_bits()), f64::INFINITY.to_bits(), !0];
    let mut cpu = machine();
    for x87 in states() {
        for &code in &codes {
            for operand in operands {
                let fast = run(&mut cpu, &code, &x87, operand, true);
                let general = run(&mut cpu, &code, &x87, operand, false);
                assert_eq!(fast, general, "{code:02x?} {operand:x} {x87:x?}");
                let pending = x87.status & 0x80 != 0;
                let vector = fast.0.map_err(|exception| exception.vector);
                assert_eq!(vector, if pending { Err(Vector::MF) } else { Ok(()) });
            }
        }
    }
}
