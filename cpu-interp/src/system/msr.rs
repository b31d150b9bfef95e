//! RDMSR, WRMSR, CPUID, RDTSC, RDTSCP, RDPID, RDPMC.
//!
//! Intel SDM vol. 2; vol. 4 for the registers, which are in [`trivium_cpu::msr`].

use iced_x86::{Instruction, Mnemonic};
use trivium_cpu::bits::cr4;
use trivium_cpu::model::Feature;
use trivium_cpu::msr::{self, MsrKind};
use trivium_cpu::state::{FS, GS};
use trivium_cpu::{CpuBus, CpuidContext, Exception, MsrFault};

use crate::cpu::{Cpu, SEG_BASE};
use crate::decode::{Context, Selection};
use crate::op::{Op, Stop};

const RAX: u8 = 0;
const RCX: u8 = 1;
const RDX: u8 = 2;
const RBX: u8 = 3;

const IA32_APIC_BASE: u32 = 0x1b;
/// IA32_APIC_BASE: the local APIC is enabled.
const APIC_ENABLE: u64 = 1 << 11;

impl Cpu {
    /// Sets the base of FS or GS, both in its register and where addresses are made from it.
    pub(super) fn set_base(&mut self, index: usize, base: u64) {
        if let Some(segment) = self.segments.regs.get_mut(index) {
            segment.base = base;
            self.regs[usize::from(SEG_BASE) + index] = base;
        }
    }

    fn read_msr(&mut self, number: u32, bus: &dyn CpuBus) -> Result<u64, MsrFault> {
        match msr::find(&self.model, number)?.kind {
            MsrKind::Platform => bus.msr_read(number).unwrap_or(Err(MsrFault)),
            MsrKind::Efer => Ok(self.control.efer),
            MsrKind::FsBase => Ok(self.segments.regs[FS].base),
            MsrKind::GsBase => Ok(self.segments.regs[GS].base),
            MsrKind::Tsc => Ok(msr::tsc(&self.msrs, bus.tsc())),
            MsrKind::TscAdjust => Ok(self.msrs.tsc_adjust),
            _ => msr::read(&self.msrs, &self.model, number),
        }
    }

    fn write_msr(&mut self, number: u32, value: u64, bus: &dyn CpuBus) -> Result<(), MsrFault> {
        match msr::find(&self.model, number)?.kind {
            MsrKind::Platform => {
                self.look = true;
                bus.msr_write(number, value).unwrap_or(Err(MsrFault))
            }
            MsrKind::Efer => {
                msr::write_efer(&mut self.control, &self.model, value)?;
                self.after_control(true);
                Ok(())
            }
            MsrKind::FsBase => self.write_base(FS, value),
            MsrKind::GsBase => self.write_base(GS, value),
            MsrKind::Tsc => {
                msr::write_tsc(&mut self.msrs, bus.tsc(), value);
                Ok(())
            }
            MsrKind::TscAdjust => {
                msr::write_tsc_adjust(&mut self.msrs, value);
                Ok(())
            }
            _ => msr::write(&mut self.msrs, &self.model, number, value),
        }
    }

    fn write_base(&mut self, index: usize, value: u64) -> Result<(), MsrFault> {
        if !msr::takes_address(&self.model, value) {
            return Err(MsrFault);
        }
        self.set_base(index, value);
        Ok(())
    }

    fn put_pair(&mut self, value: u64) {
        self.set_reg(RAX, 0, 4, value & 0xffff_ffff);
        self.set_reg(RDX, 0, 4, value >> 32);
    }
}

fn rdmsr(cpu: &mut Cpu, _: &Op, bus: &dyn CpuBus) -> Result<(), Stop> {
    cpu.require_cpl0()?;
    let number = cpu.reg(RCX, 0, 4) as u32;
    match cpu.read_msr(number, bus) {
        Ok(value) => {
            cpu.put_pair(value);
            Ok(())
        }
        Err(MsrFault) => Err(cpu.raise(Exception::gp(0))),
    }
}

fn wrmsr(cpu: &mut Cpu, _: &Op, bus: &dyn CpuBus) -> Result<(), Stop> {
    cpu.require_cpl0()?;
    let number = cpu.reg(RCX, 0, 4) as u32;
    let value = cpu.reg(RDX, 0, 4) << 32 | cpu.reg(RAX, 0, 4);
    match cpu.write_msr(number, value, bus) {
        Ok(()) => Ok(()),
        Err(MsrFault) => Err(cpu.raise(Exception::gp(0))),
    }
}

fn cpuid(cpu: &mut Cpu, _: &Op, bus: &dyn CpuBus) -> Result<(), Stop> {
    let apic_base = bus.msr_read(IA32_APIC_BASE);
    let context = CpuidContext {
        apic_id: cpu.topology.apic_id,
        cpus: cpu.topology.cpus,
        apic_enabled: matches!(apic_base, Some(Ok(base)) if base & APIC_ENABLE != 0),
        osxsave: cpu.control.cr4 & cr4::OSXSAVE != 0,
        pke: cpu.control.cr4 & cr4::PKE != 0,
        xcr0: cpu.control.xcr0,
        xss: cpu.msrs.xss,
        tsc_hz: cpu.topology.tsc_hz,
        apic_hz: cpu.topology.apic_hz,
    };
    let (leaf, subleaf) = (cpu.reg(RAX, 0, 4) as u32, cpu.reg(RCX, 0, 4) as u32);
    let answer = cpu.model.cpuid(leaf, subleaf, &context);
    for (register, value) in [RAX, RBX, RCX, RDX].into_iter().zip(answer) {
        cpu.set_reg(register, 0, 4, value.into());
    }
    Ok(())
}

/// CR4.TSD keeps RDTSC from CPL above 0.
fn read_tsc(cpu: &mut Cpu, bus: &dyn CpuBus) -> Result<u64, Stop> {
    if cpu.control.cr4 & cr4::TSD != 0 {
        cpu.require_cpl0()?;
    }
    Ok(msr::tsc(&cpu.msrs, bus.tsc()))
}

fn require(cpu: &mut Cpu, feature: Feature) -> Result<(), Stop> {
    if cpu.model.has(feature) { Ok(()) } else { Err(cpu.raise(Exception::ud())) }
}

fn rdtsc(cpu: &mut Cpu, _: &Op, bus: &dyn CpuBus) -> Result<(), Stop> {
    let value = read_tsc(cpu, bus)?;
    cpu.put_pair(value);
    Ok(())
}

fn rdtscp(cpu: &mut Cpu, _: &Op, bus: &dyn CpuBus) -> Result<(), Stop> {
    require(cpu, Feature::Rdtscp)?;
    let value = read_tsc(cpu, bus)?;
    cpu.put_pair(value);
    cpu.set_reg(RCX, 0, 4, cpu.msrs.tsc_aux & 0xffff_ffff);
    Ok(())
}

fn rdpid(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    require(cpu, Feature::Rdpid)?;
    cpu.set_reg(op.dst, 0, op.size, cpu.msrs.tsc_aux & 0xffff_ffff);
    Ok(())
}

/// There are no performance counters, so ECX names none.
fn rdpmc(cpu: &mut Cpu, _: &Op) -> Result<(), Stop> {
    Err(cpu.raise(Exception::gp(0)))
}

/// Chooses functions for the instructions of this group.
#[must_use]
pub fn select(i: &Instruction, context: &Context) -> Option<Selection> {
    use Mnemonic as M;
    let op = context.op(i);
    Some(match i.mnemonic() {
        M::Rdmsr => Selection::system(op, rdmsr),
        M::Wrmsr => Selection::system(op, wrmsr),
        M::Cpuid => Selection::system(op, cpuid),
        M::Rdtsc => Selection::system(op, rdtsc),
        M::Rdtscp => Selection::system(op, rdtscp),
        M::Rdpid => Selection::general(op, rdpid),
        M::Rdpmc => Selection::general(op, rdpmc),
        _ => return None,
    })
}
