//! ACPI tables of the user's: that each is a whole table, and none of which there may be only one.

use crate::LoadError;
use crate::bytes::{bytes_at, u32_at};

/// Size of the header that such tables have (ACPI specification 6.5, 5.2.6).
const HEADER_SIZE: usize = 36;

/// Tables that the machine has of its own. Others may be there any number of times.
const OWN: &[(&[u8; 4], &str)] = &[
    (b"RSDT", "is an RSDT, which the machine makes itself"),
    (b"XSDT", "is an XSDT, which the machine makes itself"),
    (b"FACS", "is a FACS, which the machine makes itself"),
    (b"FACP", "is a FADT, which the machine makes itself"),
    (b"DSDT", "is a DSDT, which the machine makes itself"),
    (b"APIC", "is a MADT, which the machine makes itself"),
    (b"HPET", "tells of the HPET, which the machine's own does"),
    (b"WAET", "is a WAET, which the machine makes itself"),
];

/// That `table`, the user's number `index`, is one.
pub(super) fn check(index: usize, table: &[u8]) -> Result<(), LoadError> {
    match complaint(table) {
        Some(what) => Err(LoadError::BadAcpiTable { index, what }),
        None => Ok(()),
    }
}

/// There is no room for the table.
pub(super) fn does_not_fit(index: usize) -> LoadError {
    let what = "does not fit into the 124 KiB that all tables have together";
    LoadError::BadAcpiTable { index, what }
}

fn complaint(table: &[u8]) -> Option<&'static str> {
    let signature: [u8; 4] = match bytes_at(table, 0) {
        Some(signature) if table.len() >= HEADER_SIZE => signature,
        _ => return Some("is shorter than the 36 bytes of a header"),
    };
    if !signature.iter().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit()) {
        return Some("does not start with a signature of four capital letters");
    }
    if let Some((_, what)) = OWN.iter().find(|(own, _)| **own == signature) {
        return Some(what);
    }
    if u32_at(table, 4).map(u64::from) != Some(table.len() as u64) {
        return Some("has another length than its header says");
    }
    let sum = table.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
    (sum != 0).then_some("has a wrong checksum")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(signature: &[u8; 4]) -> Vec<u8> {
        let mut table = signature.to_vec();
        table.extend(40_u32.to_le_bytes());
        table.resize(40, 7);
        table[9] = 0;
        table[9] = table.iter().fold(0_u8, |sum, byte| sum.wrapping_sub(*byte));
        table
    }

    #[test]
    fn a_whole_table_is_taken() {
        for signature in [b"SSDT", b"OEM1", b"SPCR"] {
            check(0, &table(signature)).unwrap();
        }
    }

    #[test]
    fn others_are_refused_with_the_reason() {
        let mut wrong_sum = table(b"SSDT");
        wrong_sum[39] ^= 1;
        let mut long = table(b"SSDT");
        long.push(0);
        for (bad, says) in [
            (&b"SSDT"[..], "36 bytes"),
            (&table(b"DSDT"), "DSDT"),
            (&table(b"APIC"), "MADT"),
            (&[0; 64], "signature"),
            (&wrong_sum, "checksum"),
            (&long, "length"),
        ] {
            let error = check(3, bad).unwrap_err();
            let text = error.to_string();
            assert!(text.contains(says) && !text.contains('\n'), "{text}");
            assert_eq!(error.subject(), crate::Subject::AcpiTable(3));
        }
    }
}
