//! Little-endian fields of images, which may be shorter than they claim.

/// The bytes at `offset`, if all `N` are there.
pub(crate) fn bytes_at<const N: usize>(image: &[u8], offset: usize) -> Option<[u8; N]> {
    image.get(offset..offset.checked_add(N)?)?.try_into().ok()
}

/// The byte at `offset`.
pub(crate) fn u8_at(image: &[u8], offset: usize) -> Option<u8> {
    image.get(offset).copied()
}

/// The 16-bit field at `offset`.
pub(crate) fn u16_at(image: &[u8], offset: usize) -> Option<u16> {
    bytes_at(image, offset).map(u16::from_le_bytes)
}

/// The 32-bit field at `offset`.
pub(crate) fn u32_at(image: &[u8], offset: usize) -> Option<u32> {
    bytes_at(image, offset).map(u32::from_le_bytes)
}

/// The 64-bit field at `offset`.
pub(crate) fn u64_at(image: &[u8], offset: usize) -> Option<u64> {
    bytes_at(image, offset).map(u64::from_le_bytes)
}

/// Overwrites the bytes at `offset` of a structure that is being built; what does not fit is
/// dropped.
pub(crate) fn put(page: &mut [u8], offset: usize, bytes: &[u8]) {
    if let Some(field) = page.get_mut(offset..offset + bytes.len()) {
        field.copy_from_slice(bytes);
    }
}
