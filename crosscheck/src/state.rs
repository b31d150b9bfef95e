//! What user code can see of a CPU, and change.

use serde::{Deserialize, Serialize};
use trivium_cpu::state::X87;

/// The state of user code.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserState {
    /// RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8 to R15.
    pub regs: [u64; 16],
    /// RIP: an offset in the code segment.
    pub rip: u64,
    /// RFLAGS. At the start of a case IF is set, and IOPL, VM, VIF and VIP are clear.
    pub rflags: u64,
    /// Selectors: ES, CS, SS, DS, FS, GS.
    pub selectors: [u16; 6],
    /// Base of FS as 64-bit code uses it.
    pub fs_base: u64,
    /// Base of GS as 64-bit code uses it.
    pub gs_base: u64,
    /// x87 and MMX.
    pub x87: X87,
    /// MXCSR.
    pub mxcsr: u32,
    /// ZMM0 to ZMM31, lowest part first; an engine without AVX-512 has YMM0 to YMM15 only.
    #[serde(with = "sparse")]
    pub zmm: Box<[[u64; 8]; 32]>,
    /// K0 to K7.
    pub opmask: [u64; 8],
}

impl Default for UserState {
    fn default() -> Self {
        use crate::layout::{CODE, STACK, selector};
        let mut regs = [0; 16];
        regs[4] = STACK.start + STACK.len / 2;
        let data = selector::DATA;
        let x87 = X87 { control: 0x37f, tags: 0xffff, ..X87::default() };
        Self {
            regs,
            rip: CODE.start,
            rflags: 0x202,
            selectors: [data, selector::CODE64, data, data, 0, 0],
            fs_base: 0,
            gs_base: 0,
            x87,
            mxcsr: 0x1f80,
            zmm: Box::new([[0; 8]; 32]),
            opmask: [0; 8],
        }
    }
}

/// The vector registers that are not zero, by number and without the zeros at their upper end.
mod sparse {
    use std::collections::BTreeMap;

    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    type Registers = Box<[[u64; 8]; 32]>;

    pub fn serialize<S: Serializer>(zmm: &Registers, to: S) -> Result<S::Ok, S::Error> {
        let used = |register: &[u64; 8]| register.iter().rposition(|&part| part != 0);
        let registers = zmm.iter().enumerate();
        let some = registers.filter_map(|(n, r)| used(r).map(|last| (n, &r[..=last])));
        some.collect::<BTreeMap<_, _>>().serialize(to)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Registers, D::Error> {
        let mut zmm = Box::new([[0; 8]; 32]);
        for (n, parts) in BTreeMap::<usize, Vec<u64>>::deserialize(from)? {
            let place = zmm.get_mut(n).and_then(|register| register.get_mut(..parts.len()));
            place
                .ok_or_else(|| D::Error::custom("there is no such register"))?
                .copy_from_slice(&parts);
        }
        Ok(zmm)
    }
}
