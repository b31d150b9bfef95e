//! FNSTENV, FLDENV, FNSAVE, FRSTOR: the unit's images in memory. Intel SDM vol. 1, 8.1.10.

use iced_x86::{Code, Instruction, Mnemonic};
use trivium_host_fpu::F80;
use trivium_host_fpu::x87::status;

use super::control::{CONTROL_FIXED, CONTROL_MASK, begin_no_wait, initialise};
use super::{BUSY, EMPTY};
use crate::cpu::{Cpu, Mode};
use crate::decode::{Context, Selection};
use crate::mem::{Rights, address_mask};
use crate::op::{GeneralFn, Op, Stop};

/// The seven fields of an environment in the order of memory.
type Environment = [u32; 7];

/// Whether pointers are selectors with offsets, and not linear addresses.
fn has_selectors(cpu: &Cpu) -> bool {
    cpu.mode.has(Mode::PROTECTED)
}

/// Tags as FNSTENV shows them: by the registers' content.
fn shown_tags(cpu: &Cpu) -> u16 {
    (0..8).fold(0, |tags, n| {
        let reg = &cpu.x87.regs[n];
        let tag = match cpu.x87.tags >> (2 * n) & 3 {
            EMPTY => EMPTY,
            _ => F80 { mantissa: reg.mantissa, sign_exponent: reg.sign_exponent }.tag(),
        };
        tags | tag << (2 * n)
    })
}

fn environment(cpu: &Cpu, wide: bool) -> Environment {
    let x87 = &cpu.x87;
    let opcode = u32::from(x87.last_opcode & 0x7ff);
    let (ip, dp) = (x87.last_ip as u32, x87.last_dp as u32);
    let (cs, ds) = (u32::from(x87.last_cs), u32::from(x87.last_ds));
    let words = [x87.control, x87.status, shown_tags(cpu)].map(|w| u32::from(w) | 0xffff_0000);
    let [control, status, tags] = words;
    let pointers = if has_selectors(cpu) {
        let cs = if wide { cs | opcode << 16 } else { cs };
        [ip, cs, dp, if wide { ds | 0xffff_0000 } else { ds }]
    } else {
        let (ip, dp) = (ip.wrapping_add(cs << 4), dp.wrapping_add(ds << 4));
        [ip & 0xffff, ip >> 16 << 12 | opcode, dp & 0xffff, dp >> 16 << 12]
    };
    let [ip, cs, dp, ds] = pointers;
    [control, status, tags, ip, cs, dp, ds]
}

fn put_environment(cpu: &mut Cpu, image: Environment, wide: bool) {
    let selectors = has_selectors(cpu);
    let [control, status_word, tags, ip, cs, dp, ds] = image;
    let x87 = &mut cpu.x87;
    x87.control = control as u16 & CONTROL_MASK | CONTROL_FIXED;
    x87.status = status_word as u16 & !(status::ES | BUSY);
    x87.tags = tags as u16;
    if selectors {
        (x87.last_ip, x87.last_dp) = (ip.into(), dp.into());
        (x87.last_cs, x87.last_ds) = (cs as u16, ds as u16);
        x87.last_opcode = if wide { (cs >> 16) as u16 & 0x7ff } else { 0 };
    } else {
        x87.last_ip = u64::from(ip & 0xffff | cs >> 12 << 16);
        x87.last_dp = u64::from(dp & 0xffff | ds >> 12 << 16);
        (x87.last_cs, x87.last_ds) = (0, 0);
        x87.last_opcode = cs as u16 & 0x7ff;
    }
    cpu.x87_update_summary();
}

/// An image's place: where each field is.
struct Place {
    linear: u64,
    mask: u64,
    /// Bytes from field to field.
    field: u64,
}

/// For [`Op::aux`]: fields of 4 bytes.
const WIDE: u8 = 1;

impl Place {
    fn of(cpu: &mut Cpu, op: &Op, write: bool, registers: bool) -> Result<Self, Stop> {
        let field = if op.aux & WIDE != 0 { 4 } else { 2 };
        let len = 7 * field + if registers { 80 } else { 0 };
        let linear = cpu.linear(op.seg, cpu.offset(op), len, write)?;
        cpu.check_alignment(linear, field)?;
        cpu.probe(linear, len, write, Rights::Program)?;
        let mask = if cpu.code64() { !0 } else { address_mask(4) };
        Ok(Self { linear, mask, field })
    }

    fn at(&self, offset: u64) -> u64 {
        self.linear.wrapping_add(offset) & self.mask
    }

    fn store(&self, cpu: &mut Cpu, image: Environment) -> Result<(), Stop> {
        for (n, value) in (0..).zip(image) {
            let at = self.at(n * self.field);
            if self.field == 4 {
                cpu.store_linear(at, value, Rights::Program)?;
            } else {
                cpu.store_linear(at, value as u16, Rights::Program)?;
            }
        }
        Ok(())
    }

    fn load(&self, cpu: &mut Cpu) -> Result<Environment, Stop> {
        let mut image = [0; 7];
        for (n, value) in (0..).zip(&mut image) {
            let at = self.at(n * self.field);
            *value = if self.field == 4 {
                cpu.load_linear(at, Rights::Program)?
            } else {
                u32::from(cpu.load_linear::<u16>(at, Rights::Program)?)
            };
        }
        Ok(image)
    }

    /// Where ST(i) is.
    fn register(&self, i: u8) -> u64 {
        self.at(7 * self.field + 10 * u64::from(i))
    }
}

fn fnstenv(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    begin_no_wait(cpu)?;
    let place = Place::of(cpu, op, true, false)?;
    place.store(cpu, environment(cpu, op.aux & WIDE != 0))?;
    // All exceptions are masked afterwards.
    cpu.x87.control |= status::EXCEPTIONS;
    cpu.x87_update_summary();
    Ok(())
}

fn fldenv(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    cpu.x87_begin()?;
    let place = Place::of(cpu, op, false, false)?;
    let image = place.load(cpu)?;
    put_environment(cpu, image, op.aux & WIDE != 0);
    Ok(())
}

fn fnsave(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    begin_no_wait(cpu)?;
    let place = Place::of(cpu, op, true, true)?;
    place.store(cpu, environment(cpu, op.aux & WIDE != 0))?;
    for i in 0..8 {
        let value = cpu.x87_get(i);
        let at = place.register(i);
        cpu.store_linear(at, value.mantissa, Rights::Unaligned)?;
        let at = at.wrapping_add(8) & place.mask;
        cpu.store_linear(at, value.sign_exponent, Rights::Unaligned)?;
    }
    initialise(cpu);
    cpu.x87_release_ferr();
    Ok(())
}

fn frstor(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    cpu.x87_begin()?;
    let place = Place::of(cpu, op, false, true)?;
    let image = place.load(cpu)?;
    let mut values = [F80::ZERO; 8];
    for (i, value) in (0..).zip(&mut values) {
        let at = place.register(i);
        value.mantissa = cpu.load_linear(at, Rights::Unaligned)?;
        value.sign_exponent =
            cpu.load_linear(at.wrapping_add(8) & place.mask, Rights::Unaligned)?;
    }
    put_environment(cpu, image, op.aux & WIDE != 0);
    let tags = cpu.x87.tags;
    for (i, value) in (0..).zip(values) {
        cpu.x87_set(i, value);
    }
    cpu.x87.tags = tags;
    Ok(())
}

/// Chooses handlers for the instructions of this part.
pub fn select(i: &Instruction, context: &Context) -> Option<Selection> {
    use Mnemonic as M;
    let function: GeneralFn = match i.mnemonic() {
        M::Fnstenv => fnstenv,
        M::Fldenv => fldenv,
        M::Fnsave => fnsave,
        M::Frstor => frstor,
        _ => return None,
    };
    let wide = matches!(
        i.code(),
        Code::Fnstenv_m28byte
            | Code::Fldenv_m28byte
            | Code::Fnsave_m108byte
            | Code::Frstor_m108byte
    );
    let mut op = context.op(i);
    op.aux = if wide { WIDE } else { 0 };
    Some(Selection::general(op, function))
}
