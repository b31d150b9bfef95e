//! x87 loads from and stores to memory formats, with their conversions.

use super::{Frame, Operand, Real32, Real64, X87Env, X87Result, control, load_a, run, x87_code};
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

/// Defines loads and stores of a format, and how the stored bits become a value of its type.
macro_rules! formats {
    ($($ty:ty: $load:literal, $store:literal, |$m:ident| $value:expr;)*) => {$(
        x87_code!(LoadCode<$ty>, [concat!($load, " [{f}]")], ["fstp tbyte ptr [{f} + 32]"]);
        x87_code!(StoreCode<$ty>, [load_a!(), concat!($store, " [{f} + 32]")], []);

        impl X87Load for $ty {
            #[inline(always)]
            fn load(self, env: X87Env) -> X87Result {
                let mut frame = Frame::new(env, self.into_memory(), F80::ZERO);
                let status = run::<LoadCode<$ty>>(env, &mut frame);
                X87Result { value: frame.r, status }
            }
        }

        impl X87Store for $ty {
            #[inline(always)]
            fn store(env: X87Env, st0: F80) -> X87Result<Self> {
                let mut frame = Frame::new(env, st0, F80::ZERO);
                let status = run::<StoreCode<$ty>>(env, &mut frame);
                let $m = frame.r;
                X87Result { value: $value, status }
            }
        }
    )*};
}

formats! {
    Real32: "fld dword ptr", "fstp dword ptr", |r| Real32(r.mantissa as u32);
    Real64: "fld qword ptr", "fstp qword ptr", |r| Real64(r.mantissa);
    i16: "fild word ptr", "fistp word ptr", |r| r.mantissa as i16;
    i32: "fild dword ptr", "fistp dword ptr", |r| r.mantissa as i32;
    i64: "fild qword ptr", "fistp qword ptr", |r| r.mantissa as i64;
    Bcd: "fbld tbyte ptr", "fbstp tbyte ptr", |r| Bcd(r.to_bytes());
}

/// FISTTP: stores an integer format, truncating whatever the rounding control says.
#[inline(always)]
pub fn store_truncated<T: X87Store>(env: X87Env, st0: F80) -> X87Result<T> {
    T::store(X87Env { control: env.control | control::RC, ..env }, st0)
}
