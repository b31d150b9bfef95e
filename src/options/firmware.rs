//! Options for the tables that tell a guest what its machine is.

use std::path::PathBuf;

use clap::Args;
use trivium_firmware::smbios::SmbiosSettings;

/// What `run` takes for the tables of machines that boot a kernel without firmware.
#[derive(Debug, Args)]
pub struct FirmwareOptions {
    /// Set SMBIOS fields: `[type=N,]FIELD=VALUE,...`, such as type=1,serial=1234,product=Box, for
    /// types 0, 1, 2, 3, 4, 11 (OEM strings: value=TEXT) and 17; two commas stand for one. May be
    /// repeated.
    #[arg(long, value_name = "FIELDS", conflicts_with = "bios")]
    pub smbios: Vec<SmbiosSettings>,
    /// Add an ACPI table: a whole one with its header, as iasl writes it. May be repeated.
    #[arg(long, value_name = "FILE", conflicts_with = "bios")]
    pub acpi_table: Vec<PathBuf>,
}

impl FirmwareOptions {
    /// All settings of SMBIOS fields, the later over the earlier.
    #[must_use]
    pub fn smbios(&self) -> SmbiosSettings {
        let mut all = SmbiosSettings::default();
        self.smbios.iter().for_each(|settings| all.extend(settings.clone()));
        all
    }
}
