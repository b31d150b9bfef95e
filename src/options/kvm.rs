//! What may be said of KVM.

use std::str::FromStr;

use trivium_machine::KvmLevel;
use trivium_machine::kvm::Irqchip;

/// `--kvm level=all|user|auto,irqchip=off|on|split`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct KvmOption {
    /// Which code KVM is given where another CPU stands behind it; none for what probes say.
    pub level: Option<KvmLevel>,
    /// Which interrupt chips are the kernel's.
    pub irqchip: Irqchip,
}

impl FromStr for KvmOption {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut option = Self::default();
        for part in text.split(',') {
            match part {
                "level=all" => option.level = Some(KvmLevel::All),
                "level=user" => option.level = Some(KvmLevel::User),
                "level=auto" => option.level = None,
                "irqchip=off" => option.irqchip = Irqchip::Off,
                "irqchip=on" => option.irqchip = Irqchip::On,
                "irqchip=split" => option.irqchip = Irqchip::Split,
                _ => {
                    return Err("use level=all, user or auto; irqchip=off, on or split; or both \
                                with a comma between"
                        .into());
                }
            }
        }
        Ok(option)
    }
}
