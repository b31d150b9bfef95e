//! The parts of an instruction, and the bytes that they make.

/// A VEX prefix. Its register bits are here as they count, not inverted as they are encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Vex {
    pub r: u8,
    pub x: u8,
    pub b: u8,
    pub w: u8,
    pub l: u8,
    pub vvvv: u8,
    /// 0 to 3: none, 66, F3, F2.
    pub pp: u8,
    /// 1 to 3: 0F, 0F 38, 0F 3A. Others do not exist.
    pub map: u8,
    /// Two bytes, where that can say it.
    pub short: bool,
}

/// What can be known only when the length of the instruction is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Late {
    /// Nothing.
    No,
    /// The displacement is relative to the next instruction; this is the operand's linear address.
    Displacement(u64),
    /// The immediate is where to branch, relative to the next instruction; it has so many bytes.
    Branch(u8),
}

/// An instruction in parts, in the order in which they lie in memory.
#[derive(Debug, Clone)]
pub(super) struct Parts {
    /// Legacy prefixes.
    pub prefixes: Vec<u8>,
    pub rex: Option<u8>,
    pub vex: Option<Vex>,
    /// With 0F, 38 or 3A before it where it is not VEX that says so.
    pub opcode: Vec<u8>,
    pub modrm: Option<u8>,
    pub sib: Option<u8>,
    /// Displacement and immediates.
    pub displacement: Bytes,
    pub immediate: Bytes,
    pub late: Late,
}

/// Up to ten bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Bytes {
    bytes: [u8; 10],
    len: u8,
}

impl Bytes {
    /// The lowest `size` bytes of a value.
    pub fn new(value: u64, size: u8) -> Self {
        let mut bytes = Self::default();
        bytes.push(value, size);
        bytes
    }

    /// Adds the lowest `size` bytes of a value.
    pub fn push(&mut self, value: u64, size: u8) {
        for byte in value.to_le_bytes().into_iter().take(usize::from(size)) {
            if let Some(to) = self.bytes.get_mut(usize::from(self.len)) {
                *to = byte;
                self.len += 1;
            }
        }
    }

    /// They.
    pub fn get(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

impl Vex {
    /// Its bytes.
    fn push(&self, out: &mut Vec<u8>) {
        let low = (!self.vvvv & 15) << 3 | self.l << 2 | self.pp;
        if self.short && self.map == 1 && self.x == 0 && self.b == 0 && self.w == 0 {
            out.extend([0xc5, (self.r ^ 1) << 7 | low]);
            return;
        }
        let first = (self.r ^ 1) << 7 | (self.x ^ 1) << 6 | (self.b ^ 1) << 5 | self.map & 31;
        out.extend([0xc4, first, self.w << 7 | low]);
    }
}

impl Parts {
    /// No parts.
    pub const fn new() -> Self {
        Self {
            prefixes: Vec::new(),
            rex: None,
            vex: None,
            opcode: Vec::new(),
            modrm: None,
            sib: None,
            displacement: Bytes { bytes: [0; 10], len: 0 },
            immediate: Bytes { bytes: [0; 10], len: 0 },
            late: Late::No,
        }
    }

    /// All bytes. What is [`Late`] is not yet right.
    pub fn bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(24);
        out.extend(&self.prefixes);
        out.extend(self.rex);
        if let Some(vex) = &self.vex {
            vex.push(&mut out);
        }
        out.extend(&self.opcode);
        out.extend(self.modrm);
        out.extend(self.sib);
        out.extend(self.displacement.get());
        out.extend(self.immediate.get());
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vex_is_short_where_two_bytes_say_it() {
        // Intel SDM vol. 2A, 2.3.5.
        let vex = Vex { r: 1, x: 0, b: 0, w: 0, l: 1, vvvv: 0, pp: 1, map: 1, short: true };
        let bytes = |vex| Parts { vex: Some(vex), ..Parts::new() }.bytes();
        assert_eq!(bytes(vex), [0xc5, 0x7d]);
        assert_eq!(bytes(Vex { short: false, ..vex }), [0xc4, 0x61, 0x7d]);
        assert_eq!(bytes(Vex { map: 2, vvvv: 9, ..vex }), [0xc4, 0x62, 0x35]);
    }
}
