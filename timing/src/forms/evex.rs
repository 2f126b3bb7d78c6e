//! What EVEX forms cost of which no table has a line.
//!
//! The rule: an EVEX form costs what its relative of the VEX encoding costs, that is, the form with the
//! same operands but for masks, broadcasts and rounding. Of 512 bits, the relative is that of 256 bits;
//! vector units behind port 1 join those of port 0, so what could go to port 1 goes to 0 or 5, and the
//! divider takes twice as long. Masks cost nothing. Answers with such forms are marked as approximate.

use std::sync::OnceLock;

use iced_x86::Code;

use super::{Form, code_named, codes};
use crate::ports::PortSet;

/// The VEX form whose costs an EVEX form has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Relative {
    pub(super) code: Code,
    /// The EVEX form has 512 bits.
    pub(super) wide: bool,
}

/// Ends of operands that only EVEX has.
const BROADCASTS: [&str; 3] = ["b16", "b32", "b64"];
/// Instructions that EVEX splits by the size of masked elements, and by what.
const SPLIT: [(&str, &[&str]); 6] = [
    ("Vmovdqa", &["32", "64"]),
    ("Vmovdqu", &["8", "16", "32", "64"]),
    ("Vpand", &["d", "q"]),
    ("Vpandn", &["d", "q"]),
    ("Vpor", &["d", "q"]),
    ("Vpxor", &["d", "q"]),
];

/// The EVEX forms that have a relative.
pub(super) fn relatives() -> &'static [(Code, Relative)] {
    static RELATIVES: OnceLock<Vec<(Code, Relative)>> = OnceLock::new();
    let of = |(name, code): &(String, Code)| Some((*code, relative(name, code_named)?));
    RELATIVES.get_or_init(|| codes().iter().filter_map(of).collect())
}

/// The relative of the EVEX form `name`, found by name.
pub(super) fn relative(name: &str, named: impl Fn(&str) -> Option<Code>) -> Option<Relative> {
    let mut words = name.strip_prefix("EVEX_")?.split('_');
    let mnemonic = words.next()?;
    let operands: Vec<String> = words
        .filter(|word| !matches!(*word, "k1" | "k1z" | "er" | "sae"))
        .map(|word| {
            let plain = BROADCASTS.iter().find_map(|end| word.strip_suffix(end));
            plain.unwrap_or(word).to_owned()
        })
        .collect();
    let wide = name.contains("zmm");
    let halved = |sizes: &[(&str, &str)]| -> Vec<String> {
        let half = |word: &String| {
            let found = sizes.iter().find(|(from, _)| word.starts_with(from));
            found.map_or_else(
                || word.clone(),
                |(from, to)| {
                    let rest = &word[from.len()..];
                    let rest = rest.replace("512", "256");
                    format!("{to}{rest}")
                },
            )
        };
        operands.iter().map(half).collect()
    };
    // Of 512 bits, first with the same smaller operands, then with smaller ones as well.
    let variants = match wide {
        false => vec![operands.clone()],
        true => vec![
            halved(&[("zmm", "ymm"), ("m512", "m256")]),
            operands
                .iter()
                .map(|word| {
                    let word = word.replace("ymmm256", "xmmm128").replace("ymm", "xmm");
                    word.replace("zmmm512", "ymmm256").replace("zmm", "ymm")
                })
                .collect(),
        ],
    };
    let whole = SPLIT.iter().find_map(|(plain, ends)| {
        let end = mnemonic.strip_prefix(plain)?;
        ends.contains(&end).then_some(*plain)
    });
    let mnemonics = [Some(mnemonic), whole];
    let found = variants.iter().find_map(|operands| {
        mnemonics.iter().flatten().find_map(|mnemonic| {
            let operands: String = operands.iter().map(|word| format!("_{word}")).collect();
            named(&format!("VEX_{mnemonic}{operands}"))
        })
    });
    found.map(|code| Relative { code, wide })
}

/// The costs of an EVEX form by those of its relative.
pub(super) fn derive(relative: &Form, wide: bool) -> Form {
    if !wide {
        return relative.clone();
    }
    let port_1 = PortSet::of(&[1]);
    let mut form = relative.clone();
    form.uops = relative.uops.mapped(|set| {
        if port_1.within(set) {
            PortSet::of(&[0, 5])
        } else {
            set
        }
    });
    form.divider *= 2.0;
    form
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forms::FormId;
    use crate::microarchitectures;

    fn of(code: Code) -> Option<Relative> {
        relative(&format!("{code:?}"), code_named)
    }

    #[test]
    fn relatives_have_the_same_operands() {
        for (code, expected, wide) in [
            (
                Code::EVEX_Vaddps_xmm_k1z_xmm_xmmm128b32,
                Code::VEX_Vaddps_xmm_xmm_xmmm128,
                false,
            ),
            (
                Code::EVEX_Vaddps_zmm_k1z_zmm_zmmm512b32_er,
                Code::VEX_Vaddps_ymm_ymm_ymmm256,
                true,
            ),
            (
                Code::EVEX_Vpslld_zmm_k1z_zmm_xmmm128,
                Code::VEX_Vpslld_ymm_ymm_xmmm128,
                true,
            ),
            (
                Code::EVEX_Vcvtdq2pd_zmm_k1z_ymmm256b32_er,
                Code::VEX_Vcvtdq2pd_ymm_xmmm128,
                true,
            ),
            (
                Code::EVEX_Vmovdqu64_ymm_k1z_ymmm256,
                Code::VEX_Vmovdqu_ymm_ymmm256,
                false,
            ),
            (
                Code::EVEX_Vpxord_zmm_k1z_zmm_zmmm512b32,
                Code::VEX_Vpxor_ymm_ymm_ymmm256,
                true,
            ),
        ] {
            let found = of(code).map(|r| (r.code, r.wide));
            assert_eq!(found, Some((expected, wide)), "{code:?}");
        }
        assert_eq!(of(Code::EVEX_Vpternlogd_xmm_k1z_xmm_xmmm128b32_imm8), None);
        assert_eq!(of(Code::Add_rm64_r64), None);
    }

    #[test]
    fn what_has_512_bits_goes_to_ports_0_and_5() {
        let skylake = microarchitectures().named("skylake").expect("built in");
        let forms = &skylake.without_fit().forms;
        let id = |code| FormId::new(code, false);
        let wide = forms.get(id(Code::EVEX_Vaddps_zmm_k1z_zmm_zmmm512b32_er));
        assert_eq!(wide.to_string(), "05 4");
        let shuffle = forms.get(id(Code::EVEX_Vpshufb_zmm_k1z_zmm_zmmm512));
        assert_eq!(shuffle.to_string(), "5 1");
        let narrow = forms.get(id(Code::EVEX_Vaddps_ymm_k1z_ymm_ymmm256b32));
        assert_eq!(narrow.to_string(), "01 4");
        // They are answers, but no lines.
        assert!(!forms.has(id(Code::EVEX_Vaddps_ymm_k1z_ymm_ymmm256b32)));
        assert!(forms.has(id(Code::VEX_Vaddps_ymm_ymm_ymmm256)));
    }
}
