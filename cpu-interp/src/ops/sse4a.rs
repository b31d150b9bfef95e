//! SSE4A: EXTRQ, INSERTQ, MOVNTSS, MOVNTSD.
//!
//! AMD APM vol. 4. A field is given by its length, of which zero means 64 bits, and by its lowest
//! bit; both have six bits. What the manual leaves undefined is as on a Zen 5: the upper quadword
//! becomes zero, and a field ends with the quadword.

use iced_x86::{Instruction, Mnemonic, OpKind};
use trivium_host_fpu::{SseResult, V128};

use super::sse_form::{Compute, Double, Single, Whole, Xmm, exact, sse_reg, sse_store};
use crate::decode::{Context, Selection};
use crate::op::Op;

/// A field of a quadword.
#[derive(Clone, Copy)]
struct Field {
    /// As many ones as it is long.
    mask: u64,
    /// Its lowest bit.
    index: u32,
}

impl Field {
    fn new(length: u64, index: u64) -> Self {
        let mask = match length & 63 {
            0 => !0,
            bits => (1 << bits) - 1,
        };
        Self { mask, index: (index & 63) as u32 }
    }

    /// Of the immediates.
    fn immediate(op: &Op) -> Self {
        Self::new(op.imm, op.aux.into())
    }

    /// Of the low two bytes of a quadword.
    fn in_register(control: u64) -> Self {
        Self::new(control, control >> 8)
    }

    fn extract(self, dst: V128) -> SseResult {
        exact([dst[0] >> self.index & self.mask, 0])
    }

    fn insert(self, dst: V128, src: V128) -> SseResult {
        let kept = dst[0] & !(self.mask << self.index);
        exact([kept | (src[0] & self.mask) << self.index, 0])
    }
}

/// EXTRQ with immediates.
struct ExtrqImmediate;
/// EXTRQ with a register.
struct Extrq;
/// INSERTQ with immediates.
struct InsertqImmediate;
/// INSERTQ with a register.
struct Insertq;

impl Compute for ExtrqImmediate {
    #[inline(always)]
    fn quick(op: &Op, dst: V128, _: V128) -> SseResult {
        Field::immediate(op).extract(dst)
    }
}

impl Compute for Extrq {
    #[inline(always)]
    fn quick(_: &Op, dst: V128, src: V128) -> SseResult {
        Field::in_register(src[0]).extract(dst)
    }
}

impl Compute for InsertqImmediate {
    #[inline(always)]
    fn quick(op: &Op, dst: V128, src: V128) -> SseResult {
        Field::immediate(op).insert(dst, src)
    }
}

impl Compute for Insertq {
    #[inline(always)]
    fn quick(_: &Op, dst: V128, src: V128) -> SseResult {
        Field::in_register(src[1]).insert(dst, src)
    }
}

/// Chooses handlers for the instructions of this group.
#[must_use]
pub fn select(i: &Instruction, context: &Context) -> Option<Selection> {
    use Mnemonic as M;
    let immediate = i.op_kind(i.op_count().saturating_sub(1)) != OpKind::Register;
    Some(match i.mnemonic() {
        M::Extrq if immediate => sse_reg::<Whole, Xmm, Xmm, ExtrqImmediate>(i, context),
        M::Extrq => sse_reg::<Whole, Xmm, Xmm, Extrq>(i, context),
        M::Insertq if immediate => sse_reg::<Whole, Xmm, Xmm, InsertqImmediate>(i, context),
        M::Insertq => sse_reg::<Whole, Xmm, Xmm, Insertq>(i, context),
        M::Movntss => sse_store::<Single, Xmm>(i, context),
        M::Movntsd => sse_store::<Double, Xmm>(i, context),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use trivium_cpu::Vector;
    use trivium_cpu::bits::cr4;

    use crate::testing::{DATA, TestMachine};

    const DST: u64 = 0x0123_4567_89ab_cdef;
    const SRC: u64 = 0x5555_aaaa_3333_cccc;

    /// XMM0 after an instruction on it and XMM1, whose upper quadword is this.
    fn run(code: &[u8], control: u64) -> [u64; 4] {
        let mut m = TestMachine::long(code);
        m.set(|s| {
            s.vector.regs[0] = [DST, !0, 3, 4];
            s.vector.regs[1] = [SRC, control, 0, 0];
        });
        m.run(1);
        m.state().vector.regs[0]
    }

    /// The results are those of a Zen 5: length, index, EXTRQ, INSERTQ.
    const ROWS: &[(u8, u8, u64, u64)] = &[
        (8, 4, 0xde, 0x0123_4567_89ab_cccf),
        (0, 0, DST, SRC),
        (0, 8, DST >> 8, 0x55aa_aa33_33cc_ccef),
        (60, 8, DST >> 8, 0x55aa_aa33_33cc_ccef),
        (32, 48, 0x123, 0xcccc_4567_89ab_cdef),
        (1, 63, 0, DST),
        (63, 63, 0, DST),
        (0x48, 0x44, 0xde, 0x0123_4567_89ab_cccf),
    ];

    #[test]
    fn fields_are_extracted_and_inserted() {
        for &(length, index, extracted, inserted) in ROWS {
            let control = u64::from(length) | u64::from(index) << 8 | 0xffff << 16;
            let extrq = run(&[0x66, 0x0f, 0x78, 0xc0, length, index], 0);
            assert_eq!(extrq, [extracted, 0, 3, 4], "{length} {index}");
            let insertq = run(&[0xf2, 0x0f, 0x78, 0xc1, length, index], 0);
            assert_eq!(insertq, [inserted, 0, 3, 4], "{length} {index}");
            assert_eq!(run(&[0xf2, 0x0f, 0x79, 0xc1], control), insertq);
            let mut m = TestMachine::long(&[0x66, 0x0f, 0x79, 0xc1]);
            m.set(|s| {
                s.vector.regs[0] = [DST, !0, 3, 4];
                s.vector.regs[1] = [control, !0, 0, 0];
            });
            m.run(1);
            assert_eq!(m.state().vector.regs[0], extrq);
        }
    }

    #[test]
    fn movntss_and_movntsd_store_the_low_part() {
        // movntss [rdi], xmm0; movntsd [rdi+8], xmm0
        let mut m = TestMachine::long(&[0xf3, 0x0f, 0x2b, 0x07, 0xf2, 0x0f, 0x2b, 0x47, 0x08]);
        m.put_u64(DATA, !0);
        m.set(|s| {
            s.general.regs[7] = DATA;
            s.vector.regs[0][0] = DST;
        });
        m.run(2);
        assert_eq!([m.get_u64(DATA), m.get_u64(DATA + 8)], [0xffff_ffff_89ab_cdef, DST]);
    }

    #[test]
    fn sse_must_be_allowed() {
        let mut m = TestMachine::long(&[0x66, 0x0f, 0x79, 0xc1]);
        m.set(|s| s.control.cr4 &= !cr4::OSFXSR);
        m.raises(Vector::UD, None);
    }
}
