//! Everything that follows from profile and options, worked out once.

use vlbr_arch::{PebsEnable, PerfCapabilities, PerfEvtSel, PerfGlobalStatus};

use crate::profile::{MAX_FIXED, MAX_GP, Pdir};
use crate::{FreezeFlavour, Options, Profile, Quirk, QuirkSet, ReservedWrite};

/// A writable register: reserved bits fault, dropped ones read 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Writable {
    pub(super) mask: u64,
    pub(super) dropped: u64,
}

impl Writable {
    pub(super) const fn of(mask: u64) -> Self {
        Self { mask, dropped: 0 }
    }

    fn add(&mut self, bits: u64, how: ReservedWrite) {
        match how {
            ReservedWrite::Fault => {}
            ReservedWrite::Drop => {
                self.mask |= bits;
                self.dropped |= bits;
            }
            ReservedWrite::Keep => self.mask |= bits,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Config {
    pub(super) version: u8,
    pub(super) gp: u32,
    /// Bits of `GLOBAL_CTRL` for the counters.
    pub(super) gp_bits: u64,
    pub(super) fixed_bits: u64,
    /// Values a counter holds, by kind.
    pub(super) gp_mask: u64,
    pub(super) fixed_mask: u64,
    pub(super) gp_width: u32,
    pub(super) fixed_width: u32,
    pub(super) capabilities: PerfCapabilities,
    pub(super) metrics: bool,
    pub(super) any_thread: bool,
    pub(super) evtsel: [Writable; MAX_GP as usize],
    pub(super) fixed_ctrl: Writable,
    pub(super) global_ctrl: u64,
    pub(super) status_reset: u64,
    /// `GLOBAL_STATUS` has LBR_FRZ and CTR_FRZ.
    pub(super) freeze_bits: bool,
    pub(super) pebs_enable: u64,
    pub(super) pebs_data_cfg: u64,
    pub(super) pebs_format: u8,
    pub(super) pebs_counters: u64,
    pub(super) pdir: Pdir,
    pub(super) flavour: FreezeFlavour,
    pub(super) quirks: QuirkSet,
    pub(super) canonical_bits: u8,
}

impl Config {
    pub(super) fn new(profile: &Profile, options: &Options) -> Self {
        let version = profile.version();
        let gp = profile.gp_counters();
        let fixed = profile.fixed_mask();
        let capabilities = profile.perf_capabilities();
        let baseline = capabilities.contains(PerfCapabilities::PEBS_BASELINE);
        let gp_bits = low_bits(gp);
        let fixed_bits = u64::from(fixed) << 32;
        let metrics = capabilities.contains(PerfCapabilities::PERF_METRICS) && fixed & 8 != 0;
        let metrics_bit = u64::from(metrics) << 48;
        let flavour = options.freeze.unwrap_or(match version {
            0..=3 => FreezeFlavour::Legacy,
            _ => FreezeFlavour::Streamlined,
        });
        let freeze_bits = version >= 4 || flavour == FreezeFlavour::Streamlined;
        let deprecated = profile.any_thread_deprecated();
        let any = match (version, deprecated) {
            (0..=2, _) => ReservedWrite::Fault,
            (_, true) => options.any_thread_deprecated,
            (_, false) => ReservedWrite::Keep,
        };
        let pin = if profile.pin_control() {
            ReservedWrite::Keep
        } else {
            options.pin_control_reserved
        };
        let tsx = options.tsx.unwrap_or(profile.tsx());
        let mut evtsel = [Writable::of(0xffff); MAX_GP as usize];
        for (n, register) in evtsel.iter_mut().enumerate() {
            use PerfEvtSel as Bit;
            let always = Bit::USR | Bit::OS | Bit::EDGE | Bit::INT | Bit::EN | Bit::INV;
            register.mask |= always.bits() | 0xff << 24;
            register.add(Bit::PC.bits(), pin);
            register.add(Bit::ANY.bits(), any);
            let optional = [
                (tsx, Bit::IN_TX),
                (tsx && n == 2, Bit::IN_TXCP),
                (baseline, Bit::ADAPTIVE_RECORD),
                (profile.event_logging() >> n & 1 != 0, Bit::LBR_LOG),
            ];
            for (exists, bit) in optional {
                if exists {
                    register.mask |= bit.bits();
                }
            }
        }
        let mut fixed_ctrl = Writable::of(0);
        for i in (0..MAX_FIXED).filter(|i| fixed >> i & 1 != 0) {
            fixed_ctrl.mask |= 0xb << (4 * i);
            fixed_ctrl.add(4 << (4 * i), any);
            if baseline {
                fixed_ctrl.mask |= 1 << (32 + 4 * i);
            }
        }
        let (pebs_enable, pebs_counters, pdir) = pebs(profile, gp_bits, fixed_bits);
        let quirks = options.quirks.unwrap_or(profile.quirks());
        Self {
            version,
            gp,
            gp_bits,
            fixed_bits,
            gp_mask: low_bits(profile.gp_width()),
            fixed_mask: low_bits(profile.fixed_width()),
            gp_width: profile.gp_width(),
            fixed_width: profile.fixed_width(),
            capabilities,
            metrics,
            any_thread: version >= 3 && !deprecated,
            evtsel,
            fixed_ctrl,
            global_ctrl: gp_bits | fixed_bits | metrics_bit,
            status_reset: status_bits(version, freeze_bits) | gp_bits | fixed_bits | metrics_bit,
            freeze_bits,
            pebs_enable,
            pebs_data_cfg: data_cfg(capabilities, gp_bits, u64::from(fixed), metrics),
            pebs_format: capabilities.pebs_format(),
            pebs_counters,
            pdir,
            flavour,
            quirks,
            canonical_bits: profile.linear_address_bits(),
        }
    }

    pub(super) fn has(&self, quirk: Quirk) -> bool {
        self.quirks.contains(quirk)
    }

    pub(super) const fn baseline(&self) -> bool {
        self.capabilities.contains(PerfCapabilities::PEBS_BASELINE)
    }
}

fn low_bits(count: u32) -> u64 {
    match count {
        0 => 0,
        1..64 => (1 << count) - 1,
        _ => u64::MAX,
    }
}

/// Bits of 0x390 above those of counters.
fn status_bits(version: u8, freeze_bits: bool) -> u64 {
    use PerfGlobalStatus as Bit;
    let mut bits = Bit::OVF_BUFFER | Bit::COND_CHGD;
    if version >= 3 {
        bits = bits | Bit::OVF_UNCORE;
    }
    if version >= 4 {
        bits = bits | Bit::TRACE_TOPA_PMI | Bit::ASCI;
    }
    if freeze_bits {
        bits = bits | Bit::LBR_FRZ | Bit::CTR_FRZ;
    }
    bits.bits()
}

fn pebs(profile: &Profile, gp_bits: u64, fixed_bits: u64) -> (u64, u64, Pdir) {
    let Some(pebs) = profile.pebs() else {
        return (0, 0, Pdir::None);
    };
    let capabilities = profile.perf_capabilities();
    let counters =
        u64::from(pebs.counters) & gp_bits | u64::from(pebs.fixed_counters) << 32 & fixed_bits;
    let mut writable = counters;
    if pebs.load_latency && !capabilities.contains(PerfCapabilities::PEBS_BASELINE) {
        writable |= 0xf << 32;
    }
    if pebs.precise_store {
        writable |= PebsEnable::PRECISE_STORE.bits();
    }
    if capabilities.contains(PerfCapabilities::PEBS_OUTPUT_PT) {
        writable |= (PebsEnable::PMI_AFTER_EACH_RECORD | PebsEnable::OUTPUT_PT).bits();
    }
    (writable, counters, pebs.pdir)
}

fn data_cfg(capabilities: PerfCapabilities, gp: u64, fixed: u64, metrics: bool) -> u64 {
    let mut mask = 0xf | 0xff << 24;
    if capabilities.pebs_format() >= 6 {
        mask |= 1 << 4 | u64::from(metrics) << 5 | gp << 32 | fixed << 48;
    }
    mask
}
