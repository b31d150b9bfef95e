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
                bus.set_tsc_offset(self.msrs.tsc_offset);
                Ok(())
            }
            MsrKind::TscAdjust => {
                msr::write_tsc_adjust(&mut self.msrs, value);
                bus.set_tsc_offset(self.msrs.tsc_offset);
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
        code64: cpu.code64(),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{DATA, TestMachine};
    use trivium_cpu::Vector;
    use trivium_cpu::bits::efer;

    const RDMSR: [u8; 2] = [0x0f, 0x32];
    const WRMSR: [u8; 2] = [0x0f, 0x30];

    fn with_msr(code: &[u8], number: u64, value: u64) -> TestMachine {
        let mut m = TestMachine::long(code);
        m.set(|s| {
            s.general.regs[1] = number;
            s.general.regs[0] = value & 0xffff_ffff | 0xaa << 32;
            s.general.regs[2] = value >> 32;
        });
        m
    }

    #[test]
    fn reads_clear_the_upper_halves() {
        let mut m = with_msr(&RDMSR, 0xc000_0082, 0);
        m.set(|s| s.msrs.lstar = 0xffff_8000_1234_5678);
        m.run(1);
        assert_eq!((m.reg(0), m.reg(2)), (0x1234_5678, 0xffff_8000));
    }

    #[test]
    fn a_register_that_does_not_exist_raises_gp() {
        with_msr(&RDMSR, 0x4b56_4d00, 0).raises(Vector::GP, Some(0));
        with_msr(&WRMSR, 0x4b56_4d00, 0).raises(Vector::GP, Some(0));
        with_msr(&RDMSR, 0x10, 0).at_cpl3().raises(Vector::GP, Some(0));
    }

    #[test]
    fn bases_of_fs_and_gs_are_the_segments() {
        // wrmsr; mov rbx, gs:[0]
        let code = [0x0f, 0x30, 0x65, 0x48, 0x8b, 0x1c, 0x25, 0, 0, 0, 0];
        let mut m = with_msr(&code, 0xc000_0101, DATA);
        m.put_u64(DATA, 0x55);
        m.run(2);
        assert_eq!((m.reg(3), m.state().segments.regs[GS].base), (0x55, DATA));
        with_msr(&WRMSR, 0xc000_0100, 0x8000_0000_0000).raises(Vector::GP, Some(0));
    }

    #[test]
    fn efer_keeps_lma_and_refuses_what_the_model_lacks() {
        let base = efer::LME | efer::NXE;
        let mut m = with_msr(&WRMSR, 0xc000_0080, base);
        m.run(1);
        assert_eq!(m.state().control.efer, base | efer::LMA);
        with_msr(&WRMSR, 0xc000_0080, efer::NXE).raises(Vector::GP, Some(0));
        with_msr(&WRMSR, 0xc000_0080, base | 2).raises(Vector::GP, Some(0));
    }

    #[test]
    fn the_counter_is_written_with_its_adjustment() {
        // wrmsr; rdtsc
        let mut m = with_msr(&[0x0f, 0x30, 0x0f, 0x31], 0x10, 0x1_0000_0000);
        *m.bus.tsc.lock().unwrap() = 0x500;
        m.run(1);
        *m.bus.tsc.lock().unwrap() = 0x600;
        m.run(1);
        assert_eq!((m.reg(0), m.reg(2)), (0x100, 1));
        assert_eq!(m.state().msrs.tsc_adjust, 0xffff_fb00);
        let moved = *m.bus.tsc_offset.lock().unwrap();
        assert_eq!(moved, m.state().msrs.tsc_offset, "the local APIC is told");
    }

    #[test]
    fn tsd_keeps_the_counter_from_programs() {
        for code in [&[0x0f, 0x31][..], &[0x0f, 0x01, 0xf9]] {
            let mut m = TestMachine::long(code).at_cpl3();
            m.run(1);
            assert_eq!(m.state().segments.cpl, 3);
            let mut m = TestMachine::long(code).at_cpl3();
            m.set(|s| s.control.cr4 |= cr4::TSD);
            m.raises(Vector::GP, Some(0));
        }
    }

    #[test]
    fn rdtscp_and_rdpid_tell_tsc_aux() {
        // rdtscp; rdpid rbx
        let mut m = TestMachine::long(&[0x0f, 0x01, 0xf9, 0xf3, 0x0f, 0xc7, 0xfb]);
        m.set(|s| s.msrs.tsc_aux = 0x1234);
        m.run(2);
        assert_eq!((m.reg(1), m.reg(3)), (0x1234, 0x1234));
    }

    #[test]
    fn there_are_no_performance_counters() {
        TestMachine::long(&[0x0f, 0x33]).raises(Vector::GP, Some(0));
    }

    #[test]
    fn cpuid_clears_the_upper_halves_and_knows_the_present_state() {
        let mut m = TestMachine::long(&[0x0f, 0xa2]);
        m.set(|s| s.general.regs[3] = !0);
        m.run(1);
        assert_eq!(m.reg(3), u64::from(u32::from_le_bytes(*b"Auth")));
        let mut m = TestMachine::long(&[0x0f, 0xa2]);
        m.set(|s| s.general.regs[0] = 1);
        m.run(1);
        assert_eq!(m.reg(2) >> 9 & 1, 1, "the local APIC is enabled");
    }
}
