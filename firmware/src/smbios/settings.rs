//! What a user sets of the SMBIOS tables: `type=N,FIELD=VALUE,...`, with the names that QEMU's
//! users know.

use std::str::FromStr;

/// Types that can be set, and their fields.
const FIELDS: &[(u8, &[&str])] = &[
    (0, &["vendor", "version", "date", "release", "uefi"]),
    (1, &["manufacturer", "product", "version", "serial", "uuid", "sku", "family"]),
    (2, &["manufacturer", "product", "version", "serial", "asset", "location"]),
    (3, &["manufacturer", "version", "serial", "asset", "sku"]),
    (
        4,
        &[
            "sock_pfx",
            "manufacturer",
            "version",
            "serial",
            "asset",
            "part",
            "max-speed",
            "current-speed",
            "processor-id",
        ],
    ),
    (11, &["value"]),
    (17, &["loc_pfx", "bank", "manufacturer", "serial", "asset", "part", "speed"]),
];

/// The type that is meant when none is named.
const DEFAULT_TYPE: u8 = 1;
/// OEM strings: their field may be given several times.
pub(super) const OEM_STRINGS: u8 = 11;

/// Settings of SMBIOS fields. Later ones win, but for OEM strings, which are all kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SmbiosSettings {
    /// Type, name of the field, value.
    fields: Vec<(u8, &'static str, String)>,
}

impl SmbiosSettings {
    /// Adds settings that win over those that are here.
    pub fn extend(&mut self, later: Self) {
        self.fields.extend(later.fields);
    }

    /// The value that a field has been set to.
    pub(super) fn get(&self, kind: u8, name: &str) -> Option<&str> {
        let mut latest = self.fields.iter().rev();
        let found = latest.find(|(of, field, _)| *of == kind && *field == name);
        found.map(|(.., value)| value.as_str())
    }

    /// A number that a field has been set to.
    pub(super) fn number<T: TryFrom<u64>>(&self, kind: u8, name: &str) -> Option<T> {
        T::try_from(number(self.get(kind, name)?)?).ok()
    }

    /// The OEM strings in their order.
    pub(super) fn oem_strings(&self) -> impl Iterator<Item = &str> {
        let all = self.fields.iter().filter(|(kind, ..)| *kind == OEM_STRINGS);
        all.map(|(.., value)| value.as_str())
    }

    /// The UUID as in the table (7.2.1): the first three fields are little-endian.
    pub(super) fn uuid(&self) -> Option<[u8; 16]> {
        uuid(self.get(1, "uuid")?)
    }

    /// Major and minor release of the BIOS.
    pub(super) fn release(&self) -> Option<[u8; 2]> {
        release(self.get(0, "release")?)
    }
}

impl FromStr for SmbiosSettings {
    type Err = String;

    /// Reads one option: `[type=N,]FIELD=VALUE,...`, in which `,,` stands for a comma.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut settings = Self::default();
        let mut kind = DEFAULT_TYPE;
        for (index, part) in split(text).iter().enumerate() {
            let (name, value) =
                part.split_once('=').ok_or("use type=N,FIELD=VALUE, such as type=1,serial=1234")?;
            match (index, name) {
                (0, "type") => kind = parse_type(value)?,
                _ => {
                    let name = known_field(kind, name)?;
                    check_value(name, value)?;
                    settings.fields.push((kind, name, value.into()));
                }
            }
        }
        if settings.fields.is_empty() {
            return Err(format!("sets nothing; use fields such as {}", names(kind)));
        }
        Ok(settings)
    }
}

/// Splits at single commas; two stand for one.
fn split(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        let part = match c {
            ',' if rest.next_if_eq(&',').is_none() => {
                parts.push(String::new());
                continue;
            }
            _ => parts.last_mut(),
        };
        part.into_iter().for_each(|part| part.push(c));
    }
    parts
}

fn parse_type(text: &str) -> Result<u8, String> {
    let kind = text.parse().ok().filter(|kind| FIELDS.iter().any(|(known, _)| known == kind));
    kind.ok_or_else(|| format!("type {text} cannot be set; use 0, 1, 2, 3, 4, 11 or 17"))
}

fn fields(kind: u8) -> &'static [&'static str] {
    FIELDS.iter().find(|(known, _)| *known == kind).map_or(&[], |(_, fields)| fields)
}

fn names(kind: u8) -> String {
    fields(kind).join(", ")
}

fn known_field(kind: u8, name: &str) -> Result<&'static str, String> {
    let known = fields(kind).iter().find(|known| **known == name);
    known
        .copied()
        .ok_or_else(|| format!("type {kind} has no field '{name}'; use one of {}", names(kind)))
}

/// That a value has the form that its field needs.
fn check_value(name: &str, value: &str) -> Result<(), String> {
    let (good, form) = match name {
        "uuid" => (uuid(value).is_some(), "01234567-89ab-cdef-0123-456789abcdef"),
        "release" => (release(value).is_some(), "1.0 (each part below 256)"),
        "uefi" => (["on", "off"].contains(&value), "on or off"),
        "date" => (is_date(value), "MM/DD/YYYY"),
        "max-speed" | "current-speed" | "speed" => {
            (number(value).is_some_and(|mhz| mhz <= u16::MAX.into()), "MHz below 65536")
        }
        "processor-id" => (number(value).is_some(), "a 64-bit number such as 0x600f12"),
        _ => (!value.contains('\0'), "text without NUL bytes"),
    };
    if good { Ok(()) } else { Err(format!("{name} cannot be '{value}'; use {form}")) }
}

fn number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

fn release(text: &str) -> Option<[u8; 2]> {
    let (major, minor) = text.split_once('.')?;
    Some([major.parse().ok()?, minor.parse().ok()?])
}

fn is_date(text: &str) -> bool {
    let parts: Vec<&str> = text.split('/').collect();
    let lengths: Vec<usize> = parts.iter().map(|part| part.len()).collect();
    let digits = parts.iter().all(|part| part.bytes().all(|byte| byte.is_ascii_digit()));
    digits && (lengths == [2, 2, 4] || lengths == [2, 2, 2])
}

fn uuid(text: &str) -> Option<[u8; 16]> {
    const DASHES: [usize; 4] = [8, 13, 18, 23];
    let dashes_fit = text.char_indices().all(|(at, c)| (c == '-') == DASHES.contains(&at));
    let digits: Vec<u8> = text
        .chars()
        .filter(|c| *c != '-')
        .map(|c| c.to_digit(16).map(|digit| digit as u8))
        .collect::<Option<_>>()?;
    let bytes: Vec<u8> = digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect();
    let mut bytes: [u8; 16] = bytes.try_into().ok().filter(|_| dashes_fit && digits.len() == 32)?;
    bytes[0..4].reverse();
    bytes[4..6].reverse();
    bytes[6..8].reverse();
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> SmbiosSettings {
        text.parse().unwrap()
    }

    #[test]
    fn fields_are_set_by_type_and_later_ones_win() {
        let mut settings = parse("type=1,manufacturer=ACME,product=a,,b");
        settings.extend(parse("type=2,serial=1"));
        settings.extend(parse("manufacturer=Other"));
        assert_eq!(settings.get(1, "manufacturer"), Some("Other"));
        assert_eq!(settings.get(1, "product"), Some("a,b"));
        assert_eq!(settings.get(2, "serial"), Some("1"));
        assert_eq!(settings.get(2, "product"), None);
    }

    #[test]
    fn oem_strings_are_all_kept() {
        let settings = parse("type=11,value=one,value=two=2");
        assert_eq!(settings.oem_strings().collect::<Vec<_>>(), ["one", "two=2"]);
    }

    /// The example of 7.2.1 of the specification.
    #[test]
    fn a_uuid_has_its_first_three_fields_little_endian() {
        let settings = parse("uuid=00112233-4455-6677-8899-AABBCCDDEEFF");
        let bytes = [
            0x33, 0x22, 0x11, 0x00, 0x55, 0x44, 0x77, 0x66, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd,
            0xee, 0xff,
        ];
        assert_eq!(settings.uuid(), Some(bytes));
    }

    #[test]
    fn mistakes_are_told_in_a_line_with_the_remedy() {
        for text in [
            "",
            "type=1",
            "type=9,x=y",
            "type=1,serail=1",
            "serial",
            "uuid=0123",
            "uuid=00112233-4455-6677-8899-AABBCCDDEEF-",
            "type=0,release=1",
            "type=0,release=1.300",
            "type=0,uefi=yes",
            "type=0,date=2026-01-01",
            "type=4,max-speed=70000",
            "type=4,processor-id=x",
        ] {
            let error = text.parse::<SmbiosSettings>().unwrap_err();
            assert!(error.contains("use ") && !error.contains('\n'), "{text}: {error}");
        }
    }
}
