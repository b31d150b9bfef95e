//! In what two states differ, for those who look for the reason.

use trivium_chipset::{Section, VmTime};
use trivium_cpu::CpuState;
use trivium_memory::image::Block;

use super::MachineState;

/// Bytes of a device's section that are shown around the first difference.
const SHOWN: usize = 16;

/// A machine but for its RAM.
pub(super) struct Whole<'a> {
    pub(super) now: VmTime,
    pub(super) cpus: &'a [CpuState],
    pub(super) devices: &'a [(String, Section)],
}

impl Whole<'_> {
    /// In what another differs from this one, a line each.
    pub(super) fn differences(&self, other: &Self) -> Vec<String> {
        let mut all = Vec::new();
        if self.now != other.now {
            all.push(format!("time: {} and {}", self.now, other.now));
        }
        for (number, (this, that)) in self.cpus.iter().zip(other.cpus).enumerate() {
            let differences = this.differences(that);
            all.extend(differences.iter().map(|difference| format!("cpu {number}: {difference}")));
            if this != that && differences.is_empty() {
                all.push(format!("cpu {number}: {:?} and {:?}", this.latent, that.latent));
            }
        }
        for (name, this) in self.devices {
            let that = other.devices.iter().find(|(known, _)| known == name).map(|(_, s)| s);
            if that != Some(this) {
                all.push(format!("device {name}: {}", bytes(this, that)));
            }
        }
        all
    }
}

impl MachineState {
    /// In what another state differs from this one, a line each: empty exactly if they are equal.
    #[must_use]
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let this = Whole { now: self.now, cpus: &self.cpus, devices: &self.devices };
        let that = Whole { now: other.now, cpus: &other.cpus, devices: &other.devices };
        let mut all = this.differences(&that);
        all.extend(pages(self.ram.blocks().collect(), other.ram.blocks().collect()));
        if all.is_empty() && self != other {
            all.push("numbers of processors, devices or pages of RAM".into());
        }
        all
    }
}

/// Where two sections begin to differ.
fn bytes(this: &Section, that: Option<&Section>) -> String {
    let Some(that) = that else { return "only in one".into() };
    let same = this.data.iter().zip(&that.data).take_while(|(a, b)| a == b).count();
    let shown = |section: &Section| {
        let from = section.data.get(same..).unwrap_or_default();
        from.iter().take(SHOWN).map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ")
    };
    format!("from byte {same} on {} and {}", shown(this), shown(that))
}

/// Which pages of RAM differ.
fn pages(this: Vec<Block<'_>>, that: Vec<Block<'_>>) -> Option<String> {
    let content = |blocks: &[Block<'_>]| {
        let numbered = |block: &Block<'_>| {
            let numbers: Vec<u64> = block.numbers().collect();
            let pages: Vec<Vec<u8>> = block.pages().map(<[u8]>::to_vec).collect();
            numbers.into_iter().zip(pages).collect::<Vec<_>>()
        };
        blocks.iter().flat_map(numbered).collect::<std::collections::BTreeMap<_, _>>()
    };
    let (this, that) = (content(&this), content(&that));
    let numbers: std::collections::BTreeSet<_> = this.keys().chain(that.keys()).collect();
    let differ: Vec<_> =
        numbers.into_iter().filter(|page| this.get(page) != that.get(page)).collect();
    let first = *differ.first()?;
    let zero = Vec::new();
    let (a, b) = (this.get(first).unwrap_or(&zero), that.get(first).unwrap_or(&zero));
    let offset = a.iter().zip(b).take_while(|(a, b)| a == b).count();
    let at = first * trivium_memory::PAGE_SIZE + offset as u64;
    let shown =
        |page: &[u8]| format!("{:02x?}", page.iter().skip(offset).take(SHOWN).collect::<Vec<_>>());
    Some(format!("ram: {} pages, first at {at:#x}: {} and {}", differ.len(), shown(a), shown(b)))
}
