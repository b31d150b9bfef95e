//! Puts code together from instructions, with labels.

use std::collections::HashMap;

use iced_x86::{Encoder, Instruction, OpKind};

/// A place in code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Label(u32);

/// What an instruction wants to know of a place.
#[derive(Debug, Clone, Copy)]
enum Wants {
    /// It is a near branch there.
    Branch(Label),
    /// Its immediate is the address.
    Immediate(Label),
    /// Its displacement is the address of the last byte of the instruction there.
    LastByte(Label),
}

struct Item {
    instruction: Instruction,
    wants: Option<Wants>,
    labels: Vec<Label>,
}

/// Code at one address.
struct Section {
    at: u64,
    items: Vec<Item>,
    /// Those of the next instruction.
    labels: Vec<Label>,
}

/// Code that is being put together.
pub(super) struct Assembly {
    pub(super) bits: u32,
    sections: Vec<Section>,
    current: usize,
    labels: u32,
}

/// Finished code.
pub(super) struct Assembled {
    /// Address and bytes.
    pub(super) sections: Vec<(u64, Vec<u8>)>,
    /// Where each instruction with a label begins, and where it ends.
    places: HashMap<Label, (u64, u64)>,
}

impl Assembled {
    pub(super) fn address(&self, label: Label) -> u64 {
        self.places.get(&label).map_or(0, |place| place.0)
    }

    pub(super) fn last_byte(&self, label: Label) -> u64 {
        self.places.get(&label).map_or(0, |place| place.1 - 1)
    }
}

impl Assembly {
    /// Nothing yet, in code of so many bits.
    pub(super) fn new(bits: u32) -> Self {
        Self { bits, sections: Vec::new(), current: 0, labels: 0 }
    }

    /// Begins a section, which what is added from now on is in; gives its number.
    pub(super) fn section(&mut self, at: u64) -> usize {
        self.sections.push(Section { at, items: Vec::new(), labels: Vec::new() });
        self.current = self.sections.len() - 1;
        self.current
    }

    /// Goes on in a section; gives the number of the one before.
    pub(super) fn switch(&mut self, section: usize) -> usize {
        std::mem::replace(&mut self.current, section)
    }

    /// A new label, to be put somewhere.
    pub(super) fn label(&mut self) -> Label {
        self.labels += 1;
        Label(self.labels)
    }

    /// Puts a label at the next instruction.
    pub(super) fn put(&mut self, label: Label) {
        self.sections[self.current].labels.push(label);
    }

    /// Adds an instruction if it can be encoded. Those that cannot be made are none.
    pub(super) fn add(&mut self, made: Result<Instruction, iced_x86::IcedError>) -> bool {
        self.push(made, None)
    }

    /// Adds a near branch.
    pub(super) fn branch(&mut self, code: iced_x86::Code, to: Label) {
        let at = self.sections[self.current].at;
        self.push(Instruction::with_branch(code, at), Some(Wants::Branch(to)));
    }

    /// Adds an instruction whose 32-bit immediate is to be an address.
    pub(super) fn add_address(
        &mut self,
        made: Result<Instruction, iced_x86::IcedError>,
        of: Label,
    ) {
        self.push(made, Some(Wants::Immediate(of)));
    }

    /// Adds an instruction whose displacement is to be the address of another's last byte.
    pub(super) fn add_last_byte(
        &mut self,
        made: Result<Instruction, iced_x86::IcedError>,
        of: Label,
    ) {
        self.push(made, Some(Wants::LastByte(of)));
    }

    fn push(
        &mut self,
        made: Result<Instruction, iced_x86::IcedError>,
        wants: Option<Wants>,
    ) -> bool {
        let Ok(instruction) = made else { return false };
        let section = &mut self.sections[self.current];
        if Encoder::new(self.bits).encode(&instruction, section.at).is_err() {
            return false;
        }
        let labels = std::mem::take(&mut section.labels);
        section.items.push(Item { instruction, wants, labels });
        true
    }

    /// The code, as bytes at its addresses.
    pub(super) fn finish(mut self) -> Assembled {
        let mut places = HashMap::new();
        // Whatever the operands are, an instruction is as long.
        for _ in 0..2 {
            for section in &mut self.sections {
                let mut at = section.at;
                let mut encoder = Encoder::new(self.bits);
                for item in &mut section.items {
                    apply(item, &places);
                    let end = at + encoder.encode(&item.instruction, at).unwrap_or(0) as u64;
                    for &label in &item.labels {
                        places.insert(label, (at, end));
                    }
                    at = end;
                }
            }
        }
        let mut sections = Vec::new();
        for section in &mut self.sections {
            let (mut at, mut bytes) = (section.at, Vec::new());
            let mut encoder = Encoder::new(self.bits);
            for item in &mut section.items {
                apply(item, &places);
                at += encoder.encode(&item.instruction, at).unwrap_or(0) as u64;
                bytes.extend(encoder.take_buffer());
            }
            sections.push((section.at, bytes));
        }
        Assembled { sections, places }
    }
}

/// Tells an instruction what it wants to know, if that is known.
fn apply(item: &mut Item, places: &HashMap<Label, (u64, u64)>) {
    let (Some(Wants::Branch(label) | Wants::Immediate(label) | Wants::LastByte(label)), i) =
        (item.wants, &mut item.instruction)
    else {
        return;
    };
    let Some(&(start, end)) = places.get(&label) else { return };
    match item.wants {
        Some(Wants::Branch(_)) if i.op0_kind() == OpKind::NearBranch64 => {
            i.set_near_branch64(start)
        }
        Some(Wants::Branch(_)) => i.set_near_branch32(start as u32),
        Some(Wants::Immediate(_)) => i.set_immediate32(start as u32),
        Some(Wants::LastByte(_)) => i.set_memory_displacement64(end - 1),
        None => {}
    }
}
