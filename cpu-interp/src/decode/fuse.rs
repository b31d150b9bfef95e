//! Fusing: a compare and the conditional branch after it become one operation.

use crate::decode::context::{Fuse, Selection};
use crate::op::Op;

/// The operation that does both, if there is one.
#[must_use]
pub fn fuse(first: &Selection, second: &Selection) -> Option<Op> {
    let (Fuse::Compare(compare), Fuse::Branch(condition)) = (first.fuse, second.fuse) else {
        return None;
    };
    let mut op = first.op;
    op.run = crate::ops::alu::fused(compare, op.size, condition);
    // The branch's target; both operands are registers or an immediate, so the field is free.
    op.disp = second.op.imm;
    let distance = second.op.off.wrapping_sub(first.op.off);
    // A jump that was followed while decoding may stand between the two.
    if distance != i16::from(first.op.len) {
        return None;
    }
    op.len = first.op.len + second.op.len;
    Some(op)
}
