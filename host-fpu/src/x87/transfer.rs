//! x87 loads from and stores to memory formats, with their conversions.

use super::{
    Operand, Real32, Real64, X87Env, X87Result, control, load_a, pop_r, run_one, x87_code,
};
use crate::F80;

/// Packed BCD: 18 digits, low first, and the sign in bit 7 of the last byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bcd(pub [u8; 10]);

impl Operand for Bcd {
    #[inline(always)]
    fn into_memory(self) -> F80 {
        F80::from_bytes(self.0)
    }
}

/// A memory format that FLD, FILD or FBLD loads.
pub trait X87Load: Operand {
    /// The value in double extended format. Only reals raise exceptions (IE, DE).
    fn load(self, env: X87Env) -> X87Result;
}

/// A memory format that FST, FIST or FBSTP stores.
pub trait X87Store: Operand {
    /// ST(0) rounded to this format. With [`is_store_vetoed`](super::is_store_vetoed) it is not
    /// to be written.
    fn store(env: X87Env, st0: F80) -> X87Result<Self>;
}

struct LoadCode<T>(T);
struct StoreCode<T>(T);

/// Defines loads and stores of a format: instructions, how to fetch what was stored, and how its
/// bits become a value.
macro_rules! formats {
    ($($ty:ty: $load:literal, $store:literal [$fetch:literal], |$r:ident| $value:expr;)*) => {$(
        x87_code!(LoadCode<$ty>, [concat!($load, " ptr [rsp - 64]")], [pop_r!()]);
        x87_code!(StoreCode<$ty>, [load_a!(), concat!($store, " ptr [rsp - 48]")], [$fetch]);

        impl X87Load for $ty {
            #[inline(always)]
            fn load(self, env: X87Env) -> X87Result {
                run_one::<LoadCode<$ty>>(env, self.into_memory(), F80::ZERO)
            }
        }

        impl X87Store for $ty {
            #[inline(always)]
            fn store(env: X87Env, st0: F80) -> X87Result<Self> {
                let result = run_one::<StoreCode<$ty>>(env, st0, F80::ZERO);
                let $r = result.value;
                let (status, conditions) = (result.status, result.conditions);
                X87Result { value: $value, status, conditions }
            }
        }
    )*};
}

formats! {
    Real32: "fld dword", "fstp dword" ["mov {rm:e}, dword ptr [rsp - 48]"],
        |r| Real32(r.mantissa as u32);
    Real64: "fld qword", "fstp qword" ["mov {rm}, qword ptr [rsp - 48]"], |r| Real64(r.mantissa);
    i16: "fild word", "fistp word" ["movzx {rm:e}, word ptr [rsp - 48]"], |r| r.mantissa as i16;
    i32: "fild dword", "fistp dword" ["mov {rm:e}, dword ptr [rsp - 48]"], |r| r.mantissa as i32;
    i64: "fild qword", "fistp qword" ["mov {rm}, qword ptr [rsp - 48]"], |r| r.mantissa as i64;
    Bcd: "fbld tbyte", "fbstp tbyte"
        ["mov {rm}, qword ptr [rsp - 48]\n movzx {cs:e}, word ptr [rsp - 40]"],
        |r| Bcd(r.to_bytes());
}

/// FISTTP: stores an integer format, truncating whatever the rounding control says.
#[inline(always)]
pub fn store_truncated<T: X87Store>(env: X87Env, st0: F80) -> X87Result<T> {
    T::store(X87Env { control: env.control | control::RC, ..env }, st0)
}
