//! Which encodings are asked for by name.

use super::form::Form;

/// Texts, of which a name has one.
pub(super) struct Names(Vec<String>);

impl Names {
    /// Texts between commas. `*` in one stands for anything, and then the whole name is as it says.
    pub fn new(texts: &str) -> Self {
        Self(texts.split(',').map(|text| text.trim().to_lowercase()).collect())
    }

    /// Whether the encoding or its mnemonic has such a name, in upper or lower case.
    pub fn include(&self, form: &Form) -> bool {
        let names = [format!("{:?}", form.code), format!("{:?}", form.mnemonic)];
        names.iter().any(|name| self.fit(&name.to_lowercase()))
    }

    fn fit(&self, name: &str) -> bool {
        self.0.iter().any(|text| match text.split_once('*') {
            None => name.contains(text),
            Some((start, rest)) => name.strip_prefix(start).is_some_and(|n| ends_like(n, rest)),
        })
    }
}

/// Whether a name ends like a text whose parts, between `*`, may have anything before them.
fn ends_like(name: &str, text: &str) -> bool {
    match text.split_once('*') {
        None => name.ends_with(text),
        Some((part, rest)) => {
            name.find(part).is_some_and(|at| ends_like(&name[at + part.len()..], rest))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Names;

    #[test]
    fn a_star_stands_for_anything_and_makes_it_the_whole_name() {
        let table = [
            ("add", "fadd_m32fp", true),
            ("ADD", "xadd_rm8_r8", true),
            ("add*", "fadd_m32fp", false),
            ("f*", "fadd_m32fp", true),
            ("f*", "vfmadd132pd", false),
            ("*m32*", "fadd_m32fp", true),
            ("f*m32", "fadd_m32fp", false),
            ("f*fp", "fadd_m32fp", true),
            ("xor, f*d*fp", "fadd_m32fp", true),
            ("xor,sub", "fadd_m32fp", false),
        ];
        for (texts, name, fits) in table {
            assert_eq!(Names::new(texts).fit(name), fits, "{texts} {name}");
        }
    }
}
