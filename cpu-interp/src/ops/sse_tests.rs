//! MMX, SSE and FXSAVE as the manuals tell of them, one instruction at a time in 64-bit code.
//! What the instructions compute is tested where that is done, in `trivium-host-fpu`.

use std::sync::Arc;

use trivium_cpu::bits::{cr0, cr4, efer, rflags};
use trivium_cpu::model::CpuModel;
use trivium_cpu::state::{CS, CpuState, Segment, SegmentAttributes, X87Register};
use trivium_cpu::{Exception, Vector};
use trivium_memory::{FlatMap, GuestMemory, Region, RegionKind};

use crate::block::{BlockCache, Key};
use crate::cpu::{Access, Cpu, Mode, Topology};
use crate::decode::{Source, decode};
use crate::mem::Rights;
use crate::op::{self, StopReason};

/// Where RSI points.
const DATA: u64 = 0x1_0000;
const SIZE: u64 = 0x20_0000;

fn one() -> u64 {
    1_f64.to_bits()
}

/// A CPU in 64-bit code with SSE allowed and the first 2 MiB mapped.
fn machine() -> Cpu {
    machine_with("qemu64")
}

fn machine_with(model: &str) -> Cpu {
    let memory = Arc::new(GuestMemory::new(SIZE, 1).unwrap());
    memory.set_map(FlatMap::new(&[Region::new(0, SIZE, RegionKind::Ram { offset: 0 })]));
    for (at, entry) in [(0x1000, 0x2003_u64), (0x2000, 0x3003), (0x3000, 0x83)] {
        memory.ram().store(at, entry);
    }
    let scratch = memory.scratch(0, 1).unwrap();
    let model = Arc::new(CpuModel::by_name(model).unwrap());
    let topology = Topology { apic_id: 0, cpus: 1, tsc_hz: 1, apic_hz: 1 };
    let mut cpu = Cpu::new(memory, model, topology, scratch);
    let mut state = CpuState::default();
    state.control.cr0 = cr0::PE | cr0::PG | cr0::NE | cr0::MP;
    state.control.cr3 = 0x1000;
    state.control.cr4 = cr4::PAE | cr4::OSFXSR | cr4::OSXMMEXCPT;
    state.control.efer = efer::LME | efer::LMA;
    let segment = |selector, attributes| Segment {
        selector,
        base: 0,
        limit: u32::MAX,
        attributes: SegmentAttributes(attributes),
    };
    state.segments.regs = [segment(0x10, 0xc093); 6];
    state.segments.regs[CS] = segment(8, 0xa09b);
    state.general.regs[6] = DATA;
    cpu.put_state(&state);
    cpu
}

/// Runs the one instruction of these bytes, as its handler and, if it has one, by the general
/// function alone: either must come to the same.
fn run(cpu: &mut Cpu, bytes: &[u8]) -> Result<(), Exception> {
    let before = cpu.state();
    let mut memory = vec![0; 1024];
    cpu.ram.read_slice(DATA as usize, &mut memory);
    let result = run_once(cpu, bytes, true);
    let after = cpu.state();
    let mut stored = vec![0; 1024];
    cpu.ram.read_slice(DATA as usize, &mut stored);

    cpu.ram.write_slice(DATA as usize, &memory);
    cpu.put_state(&before);
    assert_eq!(run_once(cpu, bytes, false), result, "{bytes:02x?}");
    assert_eq!(cpu.state(), after, "{bytes:02x?}");
    cpu.ram.read_slice(DATA as usize, &mut memory);
    assert_eq!(memory, stored, "{bytes:02x?}");
    result
}

fn run_once(cpu: &mut Cpu, bytes: &[u8], by_handler: bool) -> Result<(), Exception> {
    let mode = Mode(cpu.mode.0 | Mode::SINGLE);
    let source = Source {
        bytes,
        start: 0,
        rip: 0x8000,
        limit: u64::MAX,
        vendor: trivium_cpu::model::Vendor::Amd,
        features: trivium_cpu::model::IMPLEMENTED,
    };
    let key = Key { offset: 0, rip: 0x8000, mode, limit: u32::MAX, base: 0 };
    let decoded = decode(&source, mode).unwrap();
    let (block, op) = (decoded.to_block(key, None), decoded.ops[0]);
    let cache = BlockCache::new();
    assert_eq!(usize::from(op.len), bytes.len());
    cpu.rip = key.rip;
    loop {
        cpu.stop = StopReason::Cut;
        let run = if by_handler { op.run } else { op::general };
        run(cpu, &op, &[], &block, &cache);
        match cpu.stop {
            StopReason::Cut => return Ok(()),
            StopReason::Exception => return Err(cpu.exception),
            StopReason::Miss => {
                let write = cpu.miss.kind != Access::Read;
                cpu.translate(cpu.miss.linear, write, Rights::Program).unwrap();
            }
            other => panic!("{other:?}"),
        }
    }
}

fn store(cpu: &Cpu, offset: usize, values: &[u64]) {
    for (n, value) in values.iter().enumerate() {
        cpu.ram.store(DATA as usize + offset + 8 * n, *value);
    }
}

fn loaded(cpu: &Cpu, offset: usize) -> u64 {
    cpu.ram.load(DATA as usize + offset)
}

fn set_control(cpu: &mut Cpu, cr0: u64, cr4: u64) {
    cpu.control.cr0 = cr0;
    cpu.control.cr4 = cr4;
    cpu.update_mode();
}

const PXOR_XMM: &[u8] = &[0x66, 0x0f, 0xef, 0xc1];
const PXOR_MM: &[u8] = &[0x0f, 0xef, 0xc1];
const ADDSD: &[u8] = &[0xf2, 0x0f, 0x58, 0xc1];
const DIVSD: &[u8] = &[0xf2, 0x0f, 0x5e, 0xc1];
const FXSAVE64: &[u8] = &[0x48, 0x0f, 0xae, 0x06];
const FXRSTOR64: &[u8] = &[0x48, 0x0f, 0xae, 0x0e];

/// Intel SDM vol. 3A, table 13-1.
#[test]
fn sse_needs_osfxsr_and_neither_em_nor_ts() {
    let (nm, ud) = (Err(Exception::plain(Vector::NM)), Err(Exception::ud()));
    let (cr0, cr4) = (cr0::PE | cr0::PG, cr4::PAE | cr4::OSFXSR);
    for (cr0, cr4, expected) in [
        (cr0, cr4, Ok(())),
        (cr0 | cr0::TS, cr4, nm),
        (cr0 | cr0::EM, cr4, ud),
        (cr0, cr4::PAE, ud),
        (cr0 | cr0::TS, cr4::PAE, ud),
    ] {
        let mut cpu = machine();
        set_control(&mut cpu, cr0, cr4);
        assert_eq!(run(&mut cpu, PXOR_XMM), expected);
        assert_eq!(run(&mut cpu, ADDSD), expected);
        assert_eq!(run(&mut cpu, &[0x0f, 0x10, 0x06]), expected, "MOVUPS xmm0, [rsi]");
        assert_eq!(run(&mut cpu, &[0x0f, 0x11, 0x06]), expected, "MOVUPS [rsi], xmm0");
        assert_eq!(run(&mut cpu, &[0x0f, 0xae, 0x1e]), expected, "STMXCSR [rsi]");
        assert_eq!(run(&mut cpu, &[0x0f, 0xc3, 0x06]), Ok(()), "MOVNTI [rsi], eax");
    }
}

/// Intel SDM vol. 3A, table 12-1 and 12.5.
#[test]
fn mmx_needs_neither_em_nor_ts_nor_a_pending_x87_exception() {
    let nm = Err(Exception::plain(Vector::NM));
    let cr0 = cr0::PE | cr0::PG | cr0::NE;
    let mut cpu = machine();
    set_control(&mut cpu, cr0, cr4::PAE);
    assert_eq!(run(&mut cpu, PXOR_MM), Ok(()), "OSFXSR does not matter");
    set_control(&mut cpu, cr0 | cr0::TS, cr4::PAE);
    assert_eq!(run(&mut cpu, PXOR_MM), nm);
    set_control(&mut cpu, cr0 | cr0::EM, cr4::PAE);
    assert_eq!(run(&mut cpu, PXOR_MM), Err(Exception::ud()));
    set_control(&mut cpu, cr0, cr4::PAE);
    cpu.x87.status = 0x81;
    assert_eq!(run(&mut cpu, PXOR_MM), Err(Exception::plain(Vector::MF)));
}

#[test]
fn operands_of_legacy_sse_are_aligned_where_the_name_says_so() {
    let mut cpu = machine();
    let gp = Err(Exception::gp(0));
    store(&cpu, 0, &[1, 2, 3, 4]);
    assert_eq!(run(&mut cpu, &[0x0f, 0x28, 0x46, 0x08]), gp, "MOVAPS xmm0, [rsi+8]");
    assert_eq!(run(&mut cpu, &[0x0f, 0x29, 0x46, 0x08]), gp, "MOVAPS [rsi+8], xmm0");
    assert_eq!(run(&mut cpu, &[0x66, 0x0f, 0xef, 0x46, 0x08]), gp, "PXOR xmm0, [rsi+8]");
    assert_eq!(run(&mut cpu, &[0x0f, 0x10, 0x46, 0x08]), Ok(()), "MOVUPS xmm0, [rsi+8]");
    assert_eq!(cpu.vector.regs[0], [2, 3, 0, 0]);
    assert_eq!(run(&mut cpu, &[0xf2, 0x0f, 0x10, 0x46, 0x01]), Ok(()), "MOVSD xmm0, [rsi+1]");
}

/// AMD APM vol. 1, 4.3.2: MXCSR.MM lifts it from operands of instructions that compute.
#[test]
fn operands_of_legacy_sse_need_not_be_aligned_with_mm_set() {
    let mut cpu = machine_with("phenom");
    store(&cpu, 0, &[1, 2, 3, 4, 0x2_1f80]);
    assert_eq!(run(&mut cpu, &[0x0f, 0xae, 0x56, 0x20]), Ok(()), "LDMXCSR [rsi+20h]");
    assert_eq!(run(&mut cpu, &[0x66, 0x0f, 0xef, 0x46, 0x08]), Ok(()), "PXOR xmm0, [rsi+8]");
    assert_eq!(cpu.vector.regs[0], [2, 3, 0, 0]);
    let gp = Err(Exception::gp(0));
    assert_eq!(run(&mut cpu, &[0x0f, 0x28, 0x46, 0x08]), gp, "MOVAPS xmm0, [rsi+8]");
    assert_eq!(run(&mut cpu, &[0x66, 0x0f, 0xe7, 0x46, 0x08]), gp, "MOVNTDQ [rsi+8], xmm0");
    let mut older = machine();
    store(&older, 0, &[0x2_1f80]);
    assert_eq!(run(&mut older, &[0x0f, 0xae, 0x16]), gp, "LDMXCSR [rsi], without MM");
}

/// Intel SDM vol. 2, PUNPCKLBW: "an implementation may fetch only the appropriate 64 bits"; a Zen 5
/// does so, of shift counts too. The memory here ends after eight bytes.
#[test]
fn low_halves_and_counts_are_eight_bytes_of_memory() {
    let mut cpu = machine_with("phenom");
    cpu.vector.mxcsr |= 1 << 17;
    cpu.regs[6] = SIZE - 8;
    cpu.ram.store(SIZE as usize - 8, 4_u64);
    cpu.vector.regs[0] = [1, 1, 0, 0];
    assert_eq!(run(&mut cpu, &[0x66, 0x0f, 0xf3, 0x06]), Ok(()), "PSLLQ xmm0, [rsi]");
    assert_eq!(cpu.vector.regs[0], [16, 16, 0, 0]);
    for bytes in [[0x66, 0x0f, 0x6c, 0x06], [0x66, 0x0f, 0x14, 0x06]] {
        cpu.vector.regs[0] = [1, 1, 0, 0];
        assert_eq!(run(&mut cpu, &bytes), Ok(()), "PUNPCKLQDQ, UNPCKLPD xmm0, [rsi]");
        assert_eq!(cpu.vector.regs[0], [1, 4, 0, 0]);
    }
}

#[test]
fn scalar_loads_zero_the_rest_and_register_moves_keep_it() {
    let mut cpu = machine();
    store(&cpu, 0, &[0x1111_2222_3333_4444, 0x5555_6666_7777_8888]);
    let old = [7, 8, 9, 10];
    let cases: &[(&[u8], [u64; 4], &str)] = &[
        (&[0xf3, 0x0f, 0x10, 0x06], [0x3333_4444, 0, 9, 10], "MOVSS xmm0, [rsi]"),
        (&[0xf2, 0x0f, 0x10, 0x06], [0x1111_2222_3333_4444, 0, 9, 10], "MOVSD xmm0, [rsi]"),
        (&[0xf3, 0x0f, 0x10, 0xc1], [0xaaaa_aaaa, 8, 9, 10], "MOVSS xmm0, xmm1"),
        (&[0xf2, 0x0f, 0x10, 0xc1], [0xaaaa_aaaa_aaaa_aaaa, 8, 9, 10], "MOVSD xmm0, xmm1"),
        (&[0xf3, 0x0f, 0x7e, 0xc1], [0xaaaa_aaaa_aaaa_aaaa, 0, 9, 10], "MOVQ xmm0, xmm1"),
        (&[0x66, 0x0f, 0x6e, 0xc2], [0xcccc_dddd, 0, 9, 10], "MOVD xmm0, edx"),
        (&[0x66, 0x48, 0x0f, 0x6e, 0xc2], [0xaaaa_bbbb_cccc_dddd, 0, 9, 10], "MOVQ xmm0, rdx"),
        (&[0x0f, 0x16, 0x06], [7, 0x1111_2222_3333_4444, 9, 10], "MOVHPS xmm0, [rsi]"),
        (&[0x0f, 0x12, 0x06], [0x1111_2222_3333_4444, 8, 9, 10], "MOVLPS xmm0, [rsi]"),
        (&[0x0f, 0x16, 0xc1], [7, 0xaaaa_aaaa_aaaa_aaaa, 9, 10], "MOVLHPS xmm0, xmm1"),
        (&[0x0f, 0x12, 0xc1], [0xbbbb_bbbb_bbbb_bbbb, 8, 9, 10], "MOVHLPS xmm0, xmm1"),
    ];
    cpu.vector.regs[1] = [0xaaaa_aaaa_aaaa_aaaa, 0xbbbb_bbbb_bbbb_bbbb, 0, 0];
    cpu.regs[2] = 0xaaaa_bbbb_cccc_dddd;
    for (bytes, expected, name) in cases {
        cpu.vector.regs[0] = old;
        assert_eq!(run(&mut cpu, bytes), Ok(()));
        assert_eq!(cpu.vector.regs[0], *expected, "{name}");
    }
}

#[test]
fn unmasked_exceptions_set_flags_and_keep_the_destination() {
    let mut cpu = machine();
    cpu.vector.regs[0][0] = one();
    cpu.vector.mxcsr = 0x1f80 & !(1 << 9);
    assert_eq!(run(&mut cpu, DIVSD), Err(Exception::plain(Vector::XM)));
    assert_eq!((cpu.vector.regs[0][0], cpu.vector.mxcsr), (one(), 0x1d84));
    cpu.control.cr4 &= !cr4::OSXMMEXCPT;
    assert_eq!(run(&mut cpu, DIVSD), Err(Exception::ud()));
    cpu.vector.mxcsr = 0x1f80;
    assert_eq!(run(&mut cpu, DIVSD), Ok(()));
    assert_eq!((cpu.vector.regs[0][0], cpu.vector.mxcsr), (f64::INFINITY.to_bits(), 0x1f84));
}

#[test]
fn comisd_writes_all_six_flags() {
    use rflags::{CF, PF, STATUS, ZF};
    for (a, b, expected) in
        [(2.0, 1.0, 0), (1.0, 2.0, CF), (1.0, 1.0, ZF), (1.0, f64::NAN, ZF | PF | CF)]
    {
        let mut cpu = machine();
        cpu.flags.set_explicit(STATUS);
        cpu.vector.regs[0][0] = f64::to_bits(a);
        cpu.vector.regs[1][0] = f64::to_bits(b);
        assert_eq!(run(&mut cpu, &[0x66, 0x0f, 0x2f, 0xc1]), Ok(()));
        assert_eq!(cpu.flags.get(), expected, "{a} {b}");
    }
}

#[test]
fn mxcsr_has_no_reserved_bits_to_be_set() {
    let mut cpu = machine();
    store(&cpu, 0, &[0x1_0000_1f80, 0x1_1f80]);
    assert_eq!(run(&mut cpu, &[0x0f, 0xae, 0x16]), Ok(()), "LDMXCSR [rsi]");
    assert_eq!(run(&mut cpu, &[0x0f, 0xae, 0x56, 0x08]), Err(Exception::gp(0)));
    assert_eq!(cpu.vector.mxcsr, 0x1f80);
}

/// Intel SDM vol. 3A, table 12-2.
#[test]
fn mmx_instructions_take_over_the_x87_registers() {
    let mut cpu = machine();
    cpu.x87.status = 0x3800;
    cpu.x87.tags = 0xffff;
    cpu.x87.regs[0] = X87Register { mantissa: 6, sign_exponent: 1 };
    cpu.x87.regs[1] = X87Register { mantissa: 3, sign_exponent: 2 };
    assert_eq!(run(&mut cpu, PXOR_MM), Ok(()));
    assert_eq!(cpu.x87.regs[0], X87Register { mantissa: 5, sign_exponent: 0xffff });
    assert_eq!(cpu.x87.regs[1].sign_exponent, 2, "only writes set the exponent");
    assert_eq!((cpu.x87.status, cpu.x87.tags), (0, 0));
    assert_eq!(run(&mut cpu, &[0x0f, 0x77]), Ok(()), "EMMS");
    assert_eq!(cpu.x87.tags, 0xffff);
}

#[test]
fn masked_stores_leave_other_bytes_alone() {
    let mut cpu = machine();
    store(&cpu, 0, &[u64::MAX; 2]);
    cpu.regs[7] = DATA;
    cpu.vector.regs[0] = [0x0807_0605_0403_0201, 0x100f_0e0d_0c0b_0a09, 0, 0];
    cpu.vector.regs[1] = [0x80, 0x8000_0000_0000_007f, 0, 0];
    assert_eq!(run(&mut cpu, &[0x66, 0x0f, 0xf7, 0xc1]), Ok(()), "MASKMOVDQU xmm0, xmm1");
    assert_eq!(loaded(&cpu, 0), 0xffff_ffff_ffff_ff01);
    assert_eq!(loaded(&cpu, 8), 0x10ff_ffff_ffff_ffff);
}

/// Intel SDM vol. 1, table 10-2 and figure 10-4.
#[test]
fn fxsave_puts_the_state_where_the_manual_says() {
    let mut cpu = machine_with("core2duo");
    cpu.x87.control = 0x37f;
    cpu.x87.status = 0x3000; // TOP is 6.
    cpu.x87.tags = 0x1fff;
    cpu.x87.regs[6] = X87Register { mantissa: 1 << 63, sign_exponent: 0x3fff };
    cpu.x87.last_ip = 0x1234_5678_9abc;
    cpu.vector.regs[15] = [15, 16, 17, 18];
    assert_eq!(run(&mut cpu, FXSAVE64), Ok(()));
    assert_eq!(loaded(&cpu, 0), 0xc0_3000_037f, "abridged tags: a bit for 6 and 7");
    assert_eq!(loaded(&cpu, 8), 0x1234_5678_9abc);
    assert_eq!(loaded(&cpu, 24), 0xffff_0000_1f80, "MXCSR and its mask");
    assert_eq!((loaded(&cpu, 32), loaded(&cpu, 40)), (1 << 63, 0x3fff), "ST0");
    assert_eq!((loaded(&cpu, 400), loaded(&cpu, 408)), (15, 16), "XMM15");
    let saved = cpu.state();
    let mut fresh = machine_with("core2duo");
    let mut image = [0; 512];
    cpu.ram.read_slice(DATA as usize, &mut image);
    fresh.ram.write_slice(DATA as usize, &image);
    assert_eq!(run(&mut fresh, FXRSTOR64), Ok(()));
    let mut expected = saved.x87;
    expected.tags = 0x4fff; // 7 holds zero.
    assert_eq!(fresh.x87, expected);
    assert_eq!(fresh.vector.regs[15], [15, 16, 0, 0]);
}

#[test]
fn fxrstor_of_a_processor_without_sse_does_not_look_at_mxcsr() {
    let mut cpu = machine_with("pentium2");
    store(&cpu, 24, &[0x1f80]);
    assert_eq!(run(&mut cpu, FXRSTOR64), Ok(()));
}

#[test]
fn fxrstor_changes_nothing_when_it_faults() {
    let mut cpu = machine();
    store(&cpu, 24, &[0x1_0000]);
    let before = cpu.state();
    assert_eq!(run(&mut cpu, FXRSTOR64), Err(Exception::gp(0)), "reserved bit of MXCSR");
    cpu.regs[6] += 8;
    assert_eq!(run(&mut cpu, FXRSTOR64), Err(Exception::gp(0)), "not aligned");
    cpu.regs[6] -= 8;
    let after = cpu.state();
    assert_eq!((after.x87, after.vector), (before.x87, before.vector));
    cpu.control.cr0 |= cr0::TS;
    cpu.update_mode();
    assert_eq!(run(&mut cpu, FXSAVE64), Err(Exception::plain(Vector::NM)));
}

/// The check value of CRC-32C: that of "123456789" is E3069283.
#[test]
fn crc32_is_castagnolis() {
    let mut cpu = machine();
    cpu.regs[0] = 0xffff_ffff;
    cpu.regs[2] = u64::from_le_bytes(*b"12345678");
    cpu.regs[3] = b'9'.into();
    assert_eq!(run(&mut cpu, &[0xf2, 0x48, 0x0f, 0x38, 0xf1, 0xc2]), Ok(()), "CRC32 rax, rdx");
    assert_eq!(run(&mut cpu, &[0xf2, 0x0f, 0x38, 0xf0, 0xc3]), Ok(()), "CRC32 eax, bl");
    assert_eq!(!cpu.regs[0] & 0xffff_ffff, 0xe306_9283);
}

/// Intel SDM vol. 2A, 4.1.
#[test]
fn pcmpistri_finds_characters_ranges_and_substrings() {
    let text = |s: &str| {
        let mut bytes = [0; 16];
        bytes[..s.len()].copy_from_slice(s.as_bytes());
        let v = u128::from_le_bytes(bytes);
        [v as u64, (v >> 64) as u64, 0, 0]
    };
    for (a, b, imm, index, name) in [
        ("xyz", "lazy dog", 0x00, 2, "equal any"),
        ("09", "room 101", 0x04, 5, "ranges"),
        ("abcd", "abxd", 0x18, 2, "equal each, negated: the first difference"),
        ("dog", "lazy dog", 0x0c, 5, "equal ordered"),
        ("cat", "lazy dog", 0x0c, 16, "not found"),
        ("aeiou", "a lazy dog", 0x40, 8, "the last of them"),
    ] {
        let mut cpu = machine();
        cpu.vector.regs[0] = text(a);
        cpu.vector.regs[1] = text(b);
        assert_eq!(run(&mut cpu, &[0x66, 0x0f, 0x3a, 0x63, 0xc1, imm]), Ok(()));
        assert_eq!(cpu.regs[1], index, "{name}");
        let flags = cpu.flags.get();
        assert_eq!(flags & rflags::CF != 0, index != 16, "{name}");
        assert_eq!(flags & (rflags::ZF | rflags::SF), rflags::ZF | rflags::SF, "{name}");
    }
}
