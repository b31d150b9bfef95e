//! What is known of encodings: asked for once, kept by their numbers.

use iced_x86::{
    Code, CodeSize, Instruction, InstructionInfoFactory, InstructionInfoOptions, Mnemonic,
    OpAccess, OpKind, Register,
};
use trivium_cpu::model::FeatureSet;
use trivium_interp::decode::offered;

use crate::host::Host;
use crate::regs::number_of;
use crate::select;
use crate::spans::{Facts, is_write};

/// What each encoding has of the table: with and without a memory operand, in 64-bit code and in other,
/// with the same register twice and with others.
const WAYS: usize = 8;
/// The numbers of RSP and RBP, as bits.
const RSP: u16 = 1 << 4;
const RBP: u16 = 1 << 5;

/// What an instruction does with general registers that are not among its operands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Beside {
    /// Nothing.
    None,
    /// It moves the stack pointer.
    Stack,
    /// It is LEAVE.
    Leave,
    /// That is to be asked for.
    Asked,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    accesses: [OpAccess; 4],
    beside: Beside,
    /// [`Facts::offered`] and [`Facts::copied`].
    offered: bool,
    copied: bool,
}

/// What is known of encodings.
pub(crate) struct Known {
    /// The places of what is known, counted from 1.
    table: Vec<u16>,
    entries: Vec<Entry>,
    info: InstructionInfoFactory,
    of: Option<(FeatureSet, Host)>,
}

impl Default for Known {
    fn default() -> Self {
        let table = vec![0; WAYS * Code::values().len()];
        Self { table, entries: Vec::new(), info: InstructionInfoFactory::new(), of: None }
    }
}

impl Known {
    /// For the instructions of a processor that has these features, on such a host.
    pub(crate) fn of(&mut self, features: FeatureSet, host: Host) {
        if self.of != Some((features, host)) {
            self.of = Some((features, host));
            if !self.entries.is_empty() {
                self.table.fill(0);
                self.entries.clear();
            }
        }
    }

    /// What is known of an instruction, but for its span.
    pub(crate) fn facts(&mut self, i: &Instruction) -> Facts {
        let Entry { accesses, offered, copied, beside } = self.entry(i);
        // Of such addresses there is no copy.
        let copied = copied && i.memory_base() != Register::EIP;
        Facts { accesses, offered, copied, beside, span: None }
    }

    /// The general registers that an instruction of which that is known writes, a bit for each.
    pub(crate) fn written(&mut self, i: &Instruction, facts: &Facts) -> u16 {
        let Facts { accesses, beside, .. } = *facts;
        let beside = match beside {
            Beside::None => 0,
            Beside::Stack => RSP,
            Beside::Leave => RSP | RBP,
            Beside::Asked => return self.asked(i),
        };
        let written = |n: &u32| is_write(accesses[*n as usize & 3]) && i.op_register(*n).is_gpr();
        let written = (0..i.op_count().min(4)).filter(written);
        written.fold(beside, |mask, n| mask | bit(i.op_register(n)))
    }

    fn asked(&mut self, i: &Instruction) -> u16 {
        let used = self.info.info(i).used_registers().iter();
        let written = used.filter(|used| is_write(used.access()) && used.register().is_gpr());
        written.fold(0, |mask, used| mask | bit(used.register()))
    }

    /// The general registers that instructions use, by the number of uses.
    pub(crate) fn uses(&mut self, list: &[Instruction]) -> [u32; 16] {
        let mut uses = [0; 16];
        for i in list {
            for used in self.info.info(i).used_registers() {
                if used.register().is_gpr() {
                    uses[usize::from(number_of(used.register()) & 15)] += 1;
                }
            }
        }
        uses
    }

    fn entry(&mut self, i: &Instruction) -> Entry {
        if i.has_rep_prefix() || i.has_repne_prefix() {
            return self.look(i);
        }
        let place = Self::place(i);
        let number = self.table.get(place).map_or(0, |&number| usize::from(number));
        match number.checked_sub(1).and_then(|number| self.entries.get(number)) {
            Some(entry) => *entry,
            None => self.add(place, i),
        }
    }

    fn place(i: &Instruction) -> usize {
        let kinds = [i.op0_kind(), i.op1_kind(), i.op2_kind(), i.op3_kind()];
        let has_memory = kinds.contains(&OpKind::Memory);
        let is_same = i.op0_register() == i.op1_register();
        let is_long = matches!(i.code_size(), CodeSize::Code64 | CodeSize::Unknown);
        let ways = [has_memory, is_long, is_same].map(usize::from);
        i.code() as usize * WAYS + (ways[0] << 2 | ways[1] << 1 | ways[2])
    }

    #[cold]
    fn add(&mut self, place: usize, i: &Instruction) -> Entry {
        let entry = self.look(i);
        if let (Some(place), Ok(number)) =
            (self.table.get_mut(place), u16::try_from(self.entries.len() + 1))
        {
            self.entries.push(entry);
            *place = number;
        }
        entry
    }

    #[cold]
    fn look(&mut self, i: &Instruction) -> Entry {
        let without =
            InstructionInfoOptions::NO_MEMORY_USAGE | InstructionInfoOptions::NO_REGISTER_USAGE;
        let info = self.info.info_options(i, without);
        let accesses = std::array::from_fn(|n| info.op_access(n as u32));
        let has = |(features, _)| offered::has(features, i.code());
        let offered = self.of.is_some_and(has) && !i.is_invalid();
        let mut plain = *i;
        plain.set_memory_base(Register::None);
        let copied = i.mnemonic() != Mnemonic::Lea
            && select::is_copied(&plain)
            && self.of.is_some_and(|(_, host)| host.has_all_of(i));
        Entry { accesses, beside: beside(i.mnemonic()), offered, copied }
    }
}

fn bit(register: Register) -> u16 {
    1 << (number_of(register) & 15)
}

fn beside(mnemonic: Mnemonic) -> Beside {
    use Mnemonic as M;
    match mnemonic {
        M::Push | M::Pop | M::Call | M::Ret => Beside::Stack,
        M::Leave => Beside::Leave,
        M::Nop | M::Jmp => Beside::None,
        // These have operands that are not named.
        M::Cmpxchg
        | M::Cmpxchg8b
        | M::Cmpxchg16b
        | M::Imul
        | M::Mul
        | M::Cbw
        | M::Cwde
        | M::Cdqe
        | M::Cwd
        | M::Cdq
        | M::Cqo
        | M::Lahf => Beside::Asked,
        mnemonic if select::is_listed(mnemonic) => Beside::None,
        _ => Beside::Asked,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use iced_x86::Decoder;

    /// All encodings of one and two bytes, with registers and with memory: what is said of them by
    /// their operands is what iced says of all that they use.
    #[test]
    fn registers_that_are_written_are_what_the_operands_say() {
        let mut known = Known::default();
        known.of(FeatureSet::default(), Host::default());
        let mut info = InstructionInfoFactory::new();
        let prefixes: [&[u8]; 6] = [&[], &[0x66], &[0xf2], &[0xf3], &[0x48], &[0x66, 0x4d]];
        for (bits, prefix) in [64, 32].into_iter().flat_map(|b| prefixes.map(|p| (b, p))) {
            for (map, modrm) in (0..4).flat_map(|map| (0..=255).map(move |modrm| (map, modrm))) {
                for opcode in 0..=255 {
                    let map: &[u8] = [&[][..], &[0x0f], &[0x0f, 0x38], &[0x0f, 0x3a]][map];
                    let bytes = [prefix, map, &[opcode, modrm], &[0x25; 12]].concat();
                    let i = Decoder::new(bits, &bytes, 0).decode();
                    let all = info.info(&i);
                    let used = all.used_registers().iter();
                    let used = used.filter(|u| is_write(u.access()) && u.register().is_gpr());
                    let mask = used.fold(0, |mask, used| mask | bit(used.register()));
                    let facts = known.facts(&i);
                    assert_eq!(known.written(&i, &facts), mask, "{i}");
                    let accesses = std::array::from_fn(|n| all.op_access(n as u32));
                    assert_eq!(facts.accesses, accesses, "{i}");
                }
            }
        }
    }
}
