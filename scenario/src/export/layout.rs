//! Which bits of FROM, TO and INFO hold what on a part.

use serde::Serialize;
use vlbr_arch::{LbrFormat, LbrInfo};
use vlbr_lbr::{Interface, Options, Profile, Quirk};

use super::hex::Hex;

const MISPRED: u64 = LbrInfo::MISPRED.bits();
const TSX: u64 = LbrInfo::IN_TSX.bits() | LbrInfo::TSX_ABORT.bits();

/// Masks; 0 where the part has no such field. MISPRED, IN_TSX and ABORT are bits 63, 62 and 61 of
/// whichever word has them. SDM volume 3, LBR formats, and volume 4, `IA32_LBR_n_INFO`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Layout {
    pub(super) from_address: Hex,
    pub(super) from_flags: Hex,
    pub(super) to_address: Hex,
    pub(super) to_cycles: Hex,
    pub(super) info_flags: Hex,
    pub(super) info_cycles: Hex,
    pub(super) info_cycles_valid: Hex,
    pub(super) info_type: Hex,
    pub(super) info_events: Hex,
    /// Bits of INFO that have no meaning.
    pub(super) info_reserved: Hex,
}

impl Layout {
    pub(super) fn of(profile: &Profile, options: &Options) -> Self {
        let tsx = if options.tsx.unwrap_or(profile.tsx()) {
            TSX
        } else {
            0
        };
        let mut is = [!0, 0, !0, 0, 0, 0, 0, 0, 0, 0];
        match profile.interface() {
            Interface::Arch(arch) => {
                let when = |bits: u32, mask: u64| if arch.ecx & bits != 0 { mask } else { 0 };
                is[4] = when(1, MISPRED) | tsx;
                is[5] = when(2, LbrInfo::CYC_CNT_MASK);
                is[6] = when(2, LbrInfo::CYC_CNT_VALID.bits());
                is[7] = when(4, LbrInfo::BR_TYPE_MASK);
                is[8] = when(0xf_0000, LbrInfo::EVENTS_MASK);
                is[9] = !(MISPRED | TSX | is[5] | is[6] | is[7] | is[8]);
            }
            Interface::Legacy(legacy) => {
                let format = legacy
                    .format_alternative
                    .filter(|_| options.alternative_format)
                    .unwrap_or(legacy.format);
                let quirks = options.quirks.unwrap_or(profile.quirks());
                match format {
                    LbrFormat::OFFSET_32 => (is[0], is[2]) = (0xffff_ffff, 0xffff_ffff),
                    LbrFormat::LIP if quirks.contains(Quirk::HiddenMispred) => {
                        (is[0], is[1]) = (!MISPRED, MISPRED);
                    }
                    LbrFormat::EIP_FLAGS => (is[0], is[1]) = (!MISPRED, MISPRED),
                    LbrFormat::EIP_FLAGS_TSX => (is[0], is[1]) = (!(MISPRED | TSX), MISPRED | tsx),
                    LbrFormat::EIP_INFO => {
                        (is[4], is[5]) = (MISPRED | tsx, LbrInfo::CYC_CNT_MASK);
                        is[9] = !(MISPRED | TSX | LbrInfo::CYC_CNT_MASK);
                    }
                    LbrFormat::LIP_CYCLES => {
                        (is[0], is[1]) = (!MISPRED, MISPRED);
                        (is[2], is[3]) = (!0 >> 16, !0 << 48);
                    }
                    LbrFormat::LIP_INFO => {
                        (is[4], is[5]) = (MISPRED, LbrInfo::CYC_CNT_MASK);
                        is[9] = !(MISPRED | LbrInfo::CYC_CNT_MASK);
                    }
                    _ => {}
                }
            }
        }
        let [
            from_address,
            from_flags,
            to_address,
            to_cycles,
            info_flags,
            info_cycles,
            info_cycles_valid,
            info_type,
            info_events,
            info_reserved,
        ] = is.map(Hex);
        Self {
            from_address,
            from_flags,
            to_address,
            to_cycles,
            info_flags,
            info_cycles,
            info_cycles_valid,
            info_type,
            info_events,
            info_reserved,
        }
    }
}
