//! Kinds of LBR registers by address.

use vlbr_arch::Msr;
use vlbr_lbr::{Interface, Profile};

/// What a register holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    From,
    To,
    Info,
    LerFrom,
    LerTo,
    LerInfo,
    Other,
}

/// What `msr` holds on this part.
pub(super) fn kind(profile: &Profile, msr: Msr) -> Kind {
    let (from, to, info) = match profile.interface() {
        Interface::Legacy(legacy) => (legacy.from, legacy.to, legacy.info),
        Interface::Arch(_) => (Msr::LBR_0_FROM_IP, Msr::LBR_0_TO_IP, Some(Msr::LBR_0_INFO)),
    };
    let within = |base: Msr| {
        let n = msr.value().wrapping_sub(base.value());
        n < profile.max_depth()
    };
    match msr {
        Msr::LER_FROM => Kind::LerFrom,
        Msr::LER_TO => Kind::LerTo,
        Msr::LER_INFO => Kind::LerInfo,
        _ if within(from) => Kind::From,
        _ if within(to) => Kind::To,
        _ if info.is_some_and(within) => Kind::Info,
        _ => Kind::Other,
    }
}
