//! The PVH start protocol of Xen (xen/include/public/arch-x86/hvm/start_info.h).

use trivium_memory::GuestPhysAddr;

use crate::info::{InfoSpace, place_modules};
use crate::place::Placer;
use crate::{BootState, Kernel, LoadError};

/// `hvm_start_info`'s magic number and version: 1 has the memory map.
const MAGIC: u32 = 0x336e_c578;
const VERSION: u32 = 1;

/// Enters a kernel whose segments are loaded, at its PVH entry point.
pub(crate) fn start(
    place: &Placer<'_>,
    kernel: &Kernel<'_>,
    rsdp: Option<GuestPhysAddr>,
    entry: u64,
    kernel_end: u64,
) -> Result<BootState, LoadError> {
    let command_line = place.command_line(kernel.command_line, usize::MAX)?;
    let modules = place_modules(place, kernel, kernel_end)?;
    let mut space = InfoSpace::new(place);

    let mut module_list = Vec::new();
    for module in &modules {
        let text = space.add_string(module.command_line)?;
        for field in [module.start, module.end - module.start, text, 0] {
            module_list.extend(field.to_le_bytes());
        }
    }
    let module_list = space.add(&module_list)?;

    let map = place.layout.e820();
    let mut memory_map = Vec::new();
    for range in &map {
        memory_map.extend(range.start.to_le_bytes());
        memory_map.extend(range.size.to_le_bytes());
        memory_map.extend(u64::from(range.kind as u32).to_le_bytes());
    }
    let memory_map = space.add(&memory_map)?;

    let mut info = Vec::new();
    for field in [MAGIC, VERSION, 0, modules.len() as u32] {
        info.extend(field.to_le_bytes());
    }
    for field in [module_list, command_line, rsdp.unwrap_or_default().0, memory_map] {
        info.extend(field.to_le_bytes());
    }
    info.extend(u64::from(map.len() as u32).to_le_bytes());
    let info = space.add(&info)?;

    Ok(BootState { rbx: info, ..BootState::protected32(place.memory, entry)? })
}
