//! What may be said of KVM.

use std::str::FromStr;

use trivium_machine::KvmLevel;

/// `--kvm level=all|user|auto`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct KvmOption {
    /// Which code KVM is given where another CPU stands behind it; none for what probes say.
    pub level: Option<KvmLevel>,
}

impl FromStr for KvmOption {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let level = match text {
            "level=all" => Some(KvmLevel::All),
            "level=user" => Some(KvmLevel::User),
            "level=auto" => None,
            _ => return Err("use level=all, level=user or level=auto".into()),
        };
        Ok(Self { level })
    }
}
