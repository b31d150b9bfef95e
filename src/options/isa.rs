//! Options for devices of the ISA bus.

use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;

use super::SerialOption;

/// What `run` takes for them.
#[derive(Debug, Args)]
pub struct IsaOptions {
    /// Add a parallel port with a printer, whose paper goes to: file:PATH, stdio or null.
    #[arg(long, value_name = "WHERE")]
    pub parallel: Option<SerialOption>,
    /// Add an item to fw_cfg, where firmware and guests find it: `[name=]NAME,file=FILE` or
    /// `[name=]NAME,string=TEXT`; names start with opt/. May be repeated.
    #[arg(long, value_name = "ITEM")]
    pub fw_cfg: Vec<FwCfgOption>,
}

/// An item of fw_cfg.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FwCfgOption {
    /// Its name.
    pub name: String,
    /// Its content.
    pub content: FwCfgContent,
}

/// Where an item's content comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FwCfgContent {
    /// From a file.
    File(PathBuf),
    /// The text itself, without a NUL at its end.
    Text(String),
}

impl FromStr for FwCfgOption {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "use [name=]opt/NAME,file=FILE or [name=]opt/NAME,string=TEXT".to_owned();
        let (name, content) = text.split_once(',').ok_or_else(wrong)?;
        let name = name.strip_prefix("name=").unwrap_or(name);
        let content = match content.split_once('=').ok_or_else(wrong)? {
            ("file", path) if !path.is_empty() => FwCfgContent::File(path.into()),
            ("string", text) => FwCfgContent::Text(text.into()),
            _ => return Err(wrong()),
        };
        if name.is_empty() {
            return Err(wrong());
        }
        Ok(Self { name: name.into(), content })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fw_cfg_items_are_said_as_to_qemu() {
        let text = |text: &str| FwCfgContent::Text(text.into());
        for (said, content) in [
            ("name=opt/a,string=x", text("x")),
            ("opt/a,string=x=1,y", text("x=1,y")),
            ("opt/a,string=", text("")),
            ("opt/a,file=f", FwCfgContent::File("f".into())),
        ] {
            assert_eq!(said.parse(), Ok(FwCfgOption { name: "opt/a".into(), content }), "{said}");
        }
        for wrong in ["", "opt/a", "opt/a,x", "opt/a,size=1", ",string=x", "opt/a,file="] {
            assert!(wrong.parse::<FwCfgOption>().is_err(), "{wrong}");
        }
    }
}
