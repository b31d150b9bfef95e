//! `trivium explain --block`: which block is to be shown.

use std::str::FromStr;

use clap::Args;
use trivium_cpu::model::CpuModel;

use super::parse_cpu;

/// What `explain` takes to show a block.
#[derive(Debug, Args)]
pub struct BlockOptions {
    /// Show the block of code at this address: as the guest has it, as the interpreter does, what the
    /// JIT knows of it, and what it makes of it on this host. FILE has the code: an ELF file, a firmware
    /// image, or bytes that lie from --base on.
    #[arg(long, value_name = "ADDR", conflicts_with_all = ["chart", "json", "symbols"])]
    pub block: Option<Address>,
    /// The block's bytes, in hexadecimal, instead of a file.
    #[arg(long, value_name = "HEX", conflicts_with_all = ["files", "base"])]
    pub bytes: Option<Bytes>,
    /// Where the file's first byte is; firmware ends at 4 GiB and below 1 MiB unless this is given.
    #[arg(long, value_name = "ADDR", requires = "block")]
    pub base: Option<Address>,
    /// Width of the code: 64, 32 (flat, protected mode) or 16 (real mode); of an ELF file its own, else
    /// 64 unless given.
    #[arg(long, value_name = "N", value_parser = ["16", "32", "64"])]
    pub bits: Option<String>,
    /// It is code of privilege level 3.
    #[arg(long)]
    pub user: bool,
    /// The CPU model that executes it, as for `run`.
    #[arg(long, default_value = "max", value_parser = parse_cpu, value_name = "MODEL")]
    pub cpu: CpuModel,
}

/// An address, in hexadecimal, with 0x or without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address(pub u64);

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.strip_prefix("0x").unwrap_or(text).replace('_', "");
        let number = u64::from_str_radix(&digits, 16).map(Self);
        number.map_err(|_| "not an address; use hexadecimal such as ffffffff81000000".into())
    }
}

/// Bytes, two digits each, with or without spaces between them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bytes(pub Vec<u8>);

impl FromStr for Bytes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits: Option<Vec<u8>> = text
            .chars()
            .filter(|c| !c.is_whitespace())
            .map(|c| c.to_digit(16).map(|digit| digit as u8))
            .collect();
        let pairs = digits.filter(|digits| !digits.is_empty() && digits.len() % 2 == 0);
        let pairs = pairs.ok_or("not bytes; use hexadecimal such as '48 89 e5'")?;
        Ok(Self(pairs.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_bytes_are_hexadecimal() {
        assert_eq!("0x7c00".parse(), Ok(Address(0x7c00)));
        assert_eq!("ffffffff_81000000".parse(), Ok(Address(0xffff_ffff_8100_0000)));
        assert!("".parse::<Address>().is_err() && "10000000000000000".parse::<Address>().is_err());
        assert_eq!("48 89e5".parse(), Ok(Bytes(vec![0x48, 0x89, 0xe5])));
        assert!(["", "4", "4x", "4é"].iter().all(|text| text.parse::<Bytes>().is_err()));
    }
}
