//! Vectors as arrays of lanes, lowest first.

use crate::V128;

/// A vector from its 16 bytes.
#[inline(always)]
pub(super) fn from_bytes(b: [u8; 16]) -> V128 {
    let v = u128::from_le_bytes(b);
    [v as u64, (v >> 64) as u64]
}

/// A vector's 16 bytes.
#[inline(always)]
pub(super) fn bytes(v: V128) -> [u8; 16] {
    whole(v).to_le_bytes()
}

/// A vector as one number.
#[inline(always)]
pub(super) fn whole(v: V128) -> u128 {
    u128::from(v[0]) | u128::from(v[1]) << 64
}

/// Lanes of one width: how many fit a vector, and conversions.
pub(super) trait Lane: Sized + Copy {
    /// All lanes of a vector.
    type Array: AsRef<[Self]> + AsMut<[Self]> + Copy;

    /// Splits a vector.
    fn split(v: V128) -> Self::Array;

    /// Joins lanes.
    fn join(lanes: Self::Array) -> V128;
}

macro_rules! lanes {
    ($($ty:ty, $n:literal;)*) => {$(
        impl Lane for $ty {
            type Array = [$ty; $n];

            #[inline(always)]
            fn split(v: V128) -> [$ty; $n] {
                let v = whole(v);
                core::array::from_fn(|i| (v >> (i * (128 / $n))) as $ty)
            }

            #[inline(always)]
            fn join(lanes: [$ty; $n]) -> V128 {
                const WIDTH: usize = 16 / $n;
                let mut b = [0; 16];
                for (to, lane) in b.chunks_exact_mut(WIDTH).zip(lanes) {
                    to.copy_from_slice(&lane.to_le_bytes());
                }
                from_bytes(b)
            }
        }
    )*};
}

lanes! { u8, 16; i8, 16; u16, 8; i16, 8; u32, 4; i32, 4; u64, 2; i64, 2; }

/// Combines two vectors lane by lane.
#[inline(always)]
pub(super) fn zip<T: Lane>(a: V128, b: V128, f: impl Fn(T, T) -> T) -> V128 {
    let (mut a, b) = (T::split(a), T::split(b));
    for (x, y) in a.as_mut().iter_mut().zip(b.as_ref()) {
        *x = f(*x, *y);
    }
    T::join(a)
}
