//! `--memory`: how much RAM a machine has, and how the host backs it.

use std::str::FromStr;

/// The least RAM that a PC here can have, in bytes.
const MIN_MEMORY: u64 = 2 << 20;

const EXAMPLE: &str = "use a size such as 512M or 2G";

/// `SIZE[,prealloc][,hugepages][,share][,reserved=SIZE]`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MemoryOption {
    /// RAM in bytes.
    pub size: u64,
    /// The host gives all of it at the start.
    pub prealloc: bool,
    /// It is made of transparent huge pages.
    pub hugepages: bool,
    /// Other processes can map it.
    pub share: bool,
    /// Bytes at the top of low RAM that the guest must leave alone.
    pub reserved: u64,
}

impl FromStr for MemoryOption {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (size, mut rest) = text.split_once(',').map_or((text, ""), |(size, rest)| (size, rest));
        let size = parse_size(size)?;
        if size < MIN_MEMORY {
            return Err(format!("less than 2M is too small for a PC; {EXAMPLE}"));
        }
        let mut option = Self { size, ..Self::default() };
        if text.ends_with(',') {
            rest = ",";
        }
        for word in rest.split(',').filter(|_| !rest.is_empty()) {
            option.set(word)?;
        }
        if size.saturating_sub(option.reserved) < MIN_MEMORY {
            return Err(
                "reserved leaves less than 2M; use a smaller reserved or more memory".into()
            );
        }
        Ok(option)
    }
}

impl MemoryOption {
    fn set(&mut self, word: &str) -> Result<(), String> {
        let (name, value) = word.split_once('=').unwrap_or((word, "on"));
        if name == "reserved" {
            self.reserved = parse_size(value).map_err(|error| format!("reserved: {error}"))?;
            return Ok(());
        }
        let flag = match name {
            "prealloc" => &mut self.prealloc,
            "hugepages" => &mut self.hugepages,
            "share" => &mut self.share,
            _ => {
                let known = "prealloc, hugepages, share or reserved=SIZE";
                return Err(format!("there is no '{word}'; use {known} after the size"));
            }
        };
        *flag = match value {
            "on" => true,
            "off" => false,
            _ => return Err(format!("'{word}': use {name}=on or {name}=off")),
        };
        Ok(())
    }
}

/// A number of bytes, in whole MiB.
fn parse_size(text: &str) -> Result<u64, String> {
    if text.trim_start().starts_with('-') {
        return Err(format!("a size cannot be negative; {EXAMPLE}"));
    }
    let bytes = parse_size::Config::new()
        .with_binary()
        .parse_size(text)
        .map_err(|error| format!("{error}; {EXAMPLE}"))?;
    if !bytes.is_multiple_of(1 << 20) {
        return Err(format!("not a whole number of MiB; {EXAMPLE}"));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_binary() {
        let size = |text: &str| text.parse::<MemoryOption>().map(|option| option.size);
        assert_eq!(size("512M"), Ok(512 << 20));
        assert_eq!(size("2GiB"), Ok(2 << 30));
    }

    #[test]
    fn what_follows_the_size_says_how_the_host_backs_it() {
        let option: MemoryOption =
            "1G,prealloc,hugepages=on,share=off,reserved=64M".parse().unwrap();
        let expected =
            MemoryOption { prealloc: true, hugepages: true, reserved: 64 << 20, ..option };
        assert_eq!((option, option.size, option.share), (expected, 1 << 30, false));
    }

    #[test]
    fn each_mistake_says_what_would_be_right() {
        for (text, named) in [
            ("512M,", "prealloc"),
            ("512M,,share", "prealloc"),
            ("512M,fast", "'fast'"),
            ("512M,share=2", "share=off"),
            ("512M,reserved", "512M"),
            ("512M,reserved=1", "MiB"),
            ("512M,reserved=512M", "smaller"),
            ("1M", "2M"),
            ("", "512M"),
        ] {
            let error = text.parse::<MemoryOption>().unwrap_err();
            assert!(error.contains(named) && error.contains("use "), "{text}: {error}");
        }
    }
}
