//! x87 results against the manuals.

use super::*;

const ENV: X87Env = X87Env { control: control::INIT, status: 0 };
const THREE: F80 = F80::from_bits(0x4000, 3 << 62);

#[test]
fn one_third() {
    let r = <Fdiv as X87Arith<F80>>::apply(ENV, F80::ONE, THREE);
    assert_eq!(r.value, F80::from_bits(0x3ffd, 0xaaaa_aaaa_aaaa_aaab));
    assert_eq!(r.status, status::PE | status::C1);
}
