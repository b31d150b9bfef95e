//! Why an instruction, or a block, is left to the interpreter.

use iced_x86::{CpuidFeature, FlowControl, Instruction, Mnemonic, OpKind, Register};
use trivium_interp::Cpu;
use trivium_interp::cpu::Mode;
use trivium_interp::decode::offered;

use crate::host::Host;
use crate::select;

/// A reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Why {
    /// #UD.
    Undefined,
    /// The CPU model lacks it.
    NotOffered,
    /// It has to do with the system.
    System,
    /// It leaves the code segment or the privilege level.
    Transfer,
    /// Flags that are in the state, not in the host.
    SystemFlags,
    /// It may raise #DE.
    Divides,
    /// Its operand may be far from where it says.
    BitString,
    /// It repeats.
    Repeats,
    /// A branch of a kind that is not translated.
    Branch,
    /// Operands that are not general registers, memory and numbers.
    Operands,
    /// Addresses of 16 bits, or segments with limits.
    Address,
    /// The host lacks it.
    HostLacks,
    /// Nobody has put it on the list.
    NotListed,
    /// Translated, but its memory was not found in the TLB, or registers could not be loaded.
    Memory,
    /// Translated, but between others that are not: not worth the way there.
    Between,
}

impl Why {
    /// In words.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Undefined => "undefined",
            Self::NotOffered => "not in the CPU model",
            Self::System => "system",
            Self::Transfer => "far or system transfer",
            Self::SystemFlags => "system's flags",
            Self::Divides => "may raise #DE",
            Self::BitString => "bit string",
            Self::Repeats => "string",
            Self::Branch => "kind of branch",
            Self::Operands => "operands",
            Self::Address => "16-bit address or segment limit",
            Self::HostLacks => "host lacks it",
            Self::NotListed => "not listed",
            Self::Memory => "memory not at hand",
            Self::Between => "between such",
        }
    }

    /// Why an instruction of a block that is translated is not.
    pub(crate) fn of(cpu: &Cpu, i: &Instruction, mode: Mode, host: Host) -> Self {
        use Mnemonic as M;
        if i.is_invalid() {
            return Self::Undefined;
        }
        if !offered::has(cpu.model.features, i.code()) {
            return Self::NotOffered;
        }
        match i.mnemonic() {
            M::Pushf | M::Pushfd | M::Pushfq | M::Popf | M::Popfd | M::Popfq => {
                return Self::SystemFlags;
            }
            M::Cli | M::Sti | M::Cld | M::Std => return Self::SystemFlags,
            M::Div | M::Idiv => return Self::Divides,
            M::Bt | M::Bts | M::Btr | M::Btc => return Self::BitString,
            M::Ud0 | M::Ud1 | M::Ud2 => return Self::Undefined,
            _ if is_system(i) => return Self::System,
            _ if i.is_string_instruction() => return Self::Repeats,
            _ => {}
        }
        match i.flow_control() {
            FlowControl::Next => {}
            FlowControl::Interrupt | FlowControl::Exception => return Self::Transfer,
            _ if is_far(i) => return Self::Transfer,
            _ => return Self::Branch,
        }
        if is_special(i, mode) {
            return Self::Address;
        }
        if !host.has_all_of(i) {
            return Self::HostLacks;
        }
        match select::is_listed(i.mnemonic()) {
            true => Self::Operands,
            false => Self::NotListed,
        }
    }
}

fn is_system(i: &Instruction) -> bool {
    use Mnemonic as M;
    let of_system = |n| {
        let register = i.op_register(n);
        register.is_cr() || register.is_dr() || register.is_tr() || register.is_segment_register()
    };
    let registers = (0..i.op_count()).any(|n| i.op_kind(n) == OpKind::Register && of_system(n));
    let call = [FlowControl::Call, FlowControl::Return].contains(&i.flow_control());
    let listed = matches!(
        i.mnemonic(),
        M::Cpuid
            | M::Rdtsc
            | M::Rdtscp
            | M::Rdpmc
            | M::Rdrand
            | M::Rdseed
            | M::In
            | M::Out
            | M::Hlt
            | M::Monitor
            | M::Mwait
            | M::Sgdt
            | M::Sidt
            | M::Sldt
            | M::Smsw
            | M::Str
            | M::Lar
            | M::Lsl
            | M::Verr
            | M::Verw
            | M::Arpl
            | M::Xgetbv
            | M::Rdpkru
            | M::Rdfsbase
            | M::Rdgsbase
            | M::Wrfsbase
            | M::Wrgsbase
            | M::Rdpid
    );
    listed || registers || i.is_privileged() || i.is_save_restore_instruction() && !call
}

fn is_far(i: &Instruction) -> bool {
    use Mnemonic as M;
    let far =
        i.is_call_far() || i.is_jmp_far() || i.is_call_far_indirect() || i.is_jmp_far_indirect();
    let listed = matches!(
        i.mnemonic(),
        M::Iret
            | M::Iretd
            | M::Iretq
            | M::Retf
            | M::Syscall
            | M::Sysret
            | M::Sysretq
            | M::Sysenter
            | M::Sysexit
            | M::Sysexitq
    );
    far || listed
}

/// Whether its memory is reached by more than a linear address of 32 or 64 bits.
fn is_special(i: &Instruction, mode: Mode) -> bool {
    if !(0..i.op_count()).any(|n| i.op_kind(n) == OpKind::Memory) {
        return false;
    }
    let short = |register: Register| register != Register::None && register.size() == 2;
    let limited = match i.memory_segment() {
        Register::FS => !mode.has(Mode::LONG) && !mode.has(Mode::OPEN_FS),
        Register::GS => !mode.has(Mode::LONG) && !mode.has(Mode::OPEN_GS),
        Register::CS => !mode.has(Mode::LONG),
        _ => false,
    };
    short(i.memory_base()) || short(i.memory_index()) || limited
}

/// The features of the processor that an instruction is of, for people.
pub(crate) fn features(i: &Instruction) -> String {
    let names: Vec<_> =
        i.cpuid_features().iter().map(|f: &CpuidFeature| format!("{f:?}")).collect();
    names.join(" ")
}
