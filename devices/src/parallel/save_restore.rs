//! The saved state of the parallel port.

use serde::{Deserialize, Serialize};
use trivium_chipset::{SaveRestore, Section, StateError};

use super::{Control, ParallelPort};

const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Saved {
    data: u8,
    control: u8,
}

impl SaveRestore for ParallelPort {
    fn save(&self) -> Section {
        let Self { base: _, data, control, irq: _, printer: _ } = self;
        Section::encode(VERSION, &Saved { data: *data, control: control.bits() })
    }

    fn restore(&mut self, section: &Section) -> Result<(), StateError> {
        let Saved { data, control } = section.decode(VERSION)?;
        self.control = Control::from_bits(control)
            .ok_or(StateError::Impossible("unused bits of a parallel port"))?;
        self.data = data;
        Ok(())
    }
}
