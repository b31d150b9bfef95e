//! The saved state of the 8259A pair.

use serde::{Deserialize, Serialize};
use trivium_chipset::{SaveRestore, Section, StateError};

use super::Pic;
use super::chip::{Chip, Expect, Icw4};

const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct SavedPic {
    master: SavedChip,
    slave: SavedChip,
    int: bool,
}

#[derive(Serialize, Deserialize)]
struct SavedChip {
    lines: u8,
    edges: u8,
    elcr: u8,
    isr: u8,
    imr: u8,
    expect: SavedExpect,
    single: bool,
    icw4_needed: bool,
    vector_base: u8,
    icw3: u8,
    icw4: u8,
    lowest: u8,
    rotate_on_aeoi: bool,
    special_mask: bool,
    read_isr: bool,
    poll: bool,
}

#[derive(Serialize, Deserialize)]
enum SavedExpect {
    Icw1,
    Icw2,
    Icw3,
    Icw4,
    Ocw1,
}

impl From<Expect> for SavedExpect {
    fn from(expect: Expect) -> Self {
        match expect {
            Expect::Icw1 => Self::Icw1,
            Expect::Icw2 => Self::Icw2,
            Expect::Icw3 => Self::Icw3,
            Expect::Icw4 => Self::Icw4,
            Expect::Ocw1 => Self::Ocw1,
        }
    }
}

impl From<SavedExpect> for Expect {
    fn from(expect: SavedExpect) -> Self {
        match expect {
            SavedExpect::Icw1 => Self::Icw1,
            SavedExpect::Icw2 => Self::Icw2,
            SavedExpect::Icw3 => Self::Icw3,
            SavedExpect::Icw4 => Self::Icw4,
            SavedExpect::Ocw1 => Self::Ocw1,
        }
    }
}

impl SavedChip {
    fn of(chip: &Chip) -> Self {
        let Chip {
            lines,
            edges,
            elcr,
            isr,
            imr,
            expect,
            single,
            icw4_needed,
            vector_base,
            icw3,
            icw4,
            lowest,
            rotate_on_aeoi,
            special_mask,
            read_isr,
            poll,
        } = *chip;
        Self {
            lines,
            edges,
            elcr,
            isr,
            imr,
            expect: expect.into(),
            single,
            icw4_needed,
            vector_base,
            icw3,
            icw4: icw4.bits(),
            lowest,
            rotate_on_aeoi,
            special_mask,
            read_isr,
            poll,
        }
    }

    fn into_chip(self) -> Result<Chip, StateError> {
        let Self {
            lines,
            edges,
            elcr,
            isr,
            imr,
            expect,
            single,
            icw4_needed,
            vector_base,
            icw3,
            icw4,
            lowest,
            rotate_on_aeoi,
            special_mask,
            read_isr,
            poll,
        } = self;
        if lowest > 7 || vector_base & 7 != 0 {
            return Err(StateError::Impossible("interrupt level of an 8259A"));
        }
        let icw4 = Icw4::from_bits(icw4)
            .ok_or(StateError::Impossible("reserved bits of an 8259A's ICW4"))?;
        Ok(Chip {
            lines,
            edges,
            elcr,
            isr,
            imr,
            expect: expect.into(),
            single,
            icw4_needed,
            vector_base,
            icw3,
            icw4,
            lowest,
            rotate_on_aeoi,
            special_mask,
            read_isr,
            poll,
        })
    }
}

impl SaveRestore for Pic {
    fn save(&self) -> Section {
        let Self { master, slave, int, intr: _ } = self;
        let saved =
            SavedPic { master: SavedChip::of(master), slave: SavedChip::of(slave), int: *int };
        Section::encode(VERSION, &saved)
    }

    fn restore(&mut self, section: &Section) -> Result<(), StateError> {
        let SavedPic { master, slave, int } = section.decode(VERSION)?;
        let (master, slave) = (master.into_chip()?, slave.into_chip()?);
        *self = Self { master, slave, int, intr: self.intr.clone() };
        Ok(())
    }
}
