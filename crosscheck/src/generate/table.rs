//! All encodings: those that are generated, and why the others are not.

use iced_x86::{Code, CpuidFeature, Decoder, DecoderOptions, EncodingKind, FlowControl, Mnemonic};
use trivium_cpu::model::FeatureSet;

use super::draft::Draft;
use super::encoding;
use trivium_interp::decode::offered;

use super::exclusions;
use super::form::{self, Form};
use super::operands;
use super::random::Rng;
use crate::case::Width;

/// All widths of code.
pub(super) const WIDTHS: [Width; 3] = [Width::Bits16, Width::Bits32, Width::Bits64];

/// What a CPU's encodings are.
#[derive(Default)]
pub(super) struct Table {
    /// Those that are generated.
    pub forms: Vec<Form>,
    /// Those that are not, and why.
    pub excluded: Vec<(Code, &'static str)>,
    /// Places of string instructions.
    pub strings: Vec<usize>,
    /// Places of instructions after which the next one follows as a rule: those of general
    /// registers, of x87, of MMX and SSE, of AVX.
    pub calm: [Vec<usize>; 4],
    /// By [`Code`]: the widths in which it may occur in code that is not made for it.
    plain: Vec<[bool; 3]>,
}

/// Instructions that need their own state, or else say how the operating system is set up.
const NEED_CARE: [Mnemonic; 8] = [
    Mnemonic::Xsave,
    Mnemonic::Xsave64,
    Mnemonic::Xsavec,
    Mnemonic::Xsavec64,
    Mnemonic::Xsaveopt,
    Mnemonic::Xsaveopt64,
    Mnemonic::Xrstor,
    Mnemonic::Xrstor64,
];

impl Table {
    /// The encodings of a CPU with these features; all that iced knows if `all`.
    pub fn new(features: FeatureSet, all: bool) -> Self {
        let mut table = Self::default();
        for code in Code::values() {
            let form = Self::form(features, code, all);
            let mut plain = [false; 3];
            if let Ok(form) = &form {
                let care = NEED_CARE.contains(&form.mnemonic);
                plain = WIDTHS.map(|width| !care && testable(form, width));
            }
            match form {
                Ok(form) => table.add(form),
                Err(reason) => table.excluded.push((code, reason)),
            }
            table.plain.push(plain);
        }
        table
    }

    fn add(&mut self, form: Form) {
        let place = self.forms.len();
        if form.is_string() {
            self.strings.push(place);
        }
        if form.calm && !NEED_CARE.contains(&form.mnemonic) {
            self.calm[class(form.code)].push(place);
        }
        self.forms.push(form);
    }

    /// Leaves none but these in what sequences are made of, each as often as any other.
    pub fn keep_calm(&mut self, wanted: impl Fn(&Form) -> bool) {
        let mut kept = std::mem::take(&mut self.calm).concat();
        kept.retain(|&place| wanted(&self.forms[place]));
        self.calm[0] = kept;
    }

    fn form(features: FeatureSet, code: Code, all: bool) -> Result<Form, &'static str> {
        if let Some(reason) = exclusions::reason(code) {
            return Err(reason);
        }
        if !all && !offered::has(features, code) {
            return Err("is of a feature that the CPU lacks");
        }
        let Some(mut form) = Form::new(code) else {
            return Err("has operands that no CPU model has");
        };
        form.retain_widths(|form, width| decodes_back(form, width, features));
        if WIDTHS.into_iter().any(|width| testable(&form, width)) {
            Ok(form)
        } else {
            Err("is decoded as another")
        }
    }

    /// Whether an instruction can be tested in any code of this width that happens to have it.
    pub fn plain(&self, width: Width, code: Code) -> bool {
        let widths = self.plain.get(code as usize).copied().unwrap_or_default();
        widths[width as usize]
    }

    /// Whether all instructions can be tested that bytes decode to from the first to where one
    /// ends for certain.
    pub fn testable(&self, width: Width, bytes: &[u8]) -> bool {
        let mut padded = Vec::with_capacity(bytes.len() + 16);
        padded.extend(bytes);
        padded.extend([0xcc; 16]);
        let mut decoder = Decoder::new(width.bits(), &padded, DecoderOptions::NONE);
        while decoder.position() < bytes.len() {
            let instruction = decoder.decode();
            if instruction.is_invalid() {
                return true;
            }
            if !self.plain(width, instruction.code()) {
                return false;
            }
            if instruction.flow_control() == FlowControl::Exception {
                return true;
            }
        }
        true
    }
}

/// The class of an instruction in [`Table::calm`].
fn class(code: Code) -> usize {
    let kinds = code.op_code().op_kinds();
    let vector = kinds.iter().any(|&k| form::is_vector(k));
    match (code.op_code().encoding(), code.cpuid_features()) {
        (EncodingKind::VEX, _) if vector => 3,
        (_, [CpuidFeature::FPU | CpuidFeature::FPU287 | CpuidFeature::FPU387, ..]) => 1,
        _ if vector => 2,
        _ => 0,
    }
}

/// Whether what code of this width does with it is decided by a case alone.
pub(super) fn testable(form: &Form, width: Width) -> bool {
    // SYSCALL of other code than 64-bit code ends outside of the case.
    let leaves = form.mnemonic == Mnemonic::Syscall && width != Width::Bits64;
    form.in_width(width) && !leaves
}

/// Whether the decoder sees in our bytes what we mean.
fn decodes_back(form: &Form, width: Width, features: FeatureSet) -> bool {
    (0..4).any(|n| {
        let mut draft = Draft::new(Rng::new(n, form.code as u64), width, features, true);
        let (mut parts, _) = operands::build(&mut draft, form, None);
        encoding::resolve(&mut draft, &mut parts);
        encoding::decode(width, &parts.bytes()).code() == form.code
    })
}
