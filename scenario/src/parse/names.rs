//! Names of registers, their bits, and image fields.

use vlbr_arch::{
    DebugCtl, LbrCtl, LbrInfo, LbrSelect, Msr, PebsDataCfg, PebsEnable, PerfCapabilities,
    PerfEvtSel, PerfGlobalStatus,
};

use super::words::{no_bits, unknown};
use crate::{Expr, ImageField, Reason, Register};

/// `FROM[3]` and the like: the name before the bracket and the index.
fn indexed(word: &str) -> Option<(&str, &str)> {
    word.strip_suffix(']')?.split_once('[')
}

/// Reads a register: an address, a name of the SDM, or `FROM[i]`, `TO[i]`, `INFO[i]`.
pub(super) fn register(word: &str) -> Result<Register, Reason> {
    let unknown = || Reason::UnknownRegister(word.to_owned());
    if let Some((name, index)) = indexed(word) {
        let index = Expr::parse(index, &no_bits)?;
        return match name {
            "FROM" => Ok(Register::From(index)),
            "TO" => Ok(Register::To(index)),
            "INFO" => Ok(Register::Info(index)),
            _ => Err(unknown()),
        };
    }
    // These names stand for two addresses, depending on the part.
    if let Some(rest) = word.strip_prefix("MSR_LASTBRANCH_") {
        let entry = |suffix| {
            let digits: &str = rest.strip_suffix(suffix)?;
            digits.parse::<u64>().ok().filter(|n| *n < 32)
        };
        if let Some(n) = entry("_FROM_IP") {
            return Ok(Register::From(Expr::Number(n)));
        }
        if let Some(n) = entry("_TO_IP") {
            return Ok(Register::To(Expr::Number(n)));
        }
    }
    word.parse::<Msr>().map(Register::At).map_err(|_| unknown())
}

/// The named bits of a register.
pub(super) fn bits_of(register: &Register) -> &'static dyn Fn(&str) -> Option<u64> {
    const INFO: &dyn Fn(&str) -> Option<u64> = &|name| Some(LbrInfo::from_name(name)?.bits());
    let msr = match register {
        Register::Info(_) => return INFO,
        Register::From(_) | Register::To(_) => return &no_bits,
        Register::At(msr) => *msr,
    };
    let infos = [Msr::LBR_INFO_0, Msr::LBR_0_INFO];
    if infos
        .iter()
        .any(|base| (base.value()..base.value() + 32).contains(&msr.value()))
    {
        return INFO;
    }
    match msr {
        Msr::DEBUGCTL => &|name| Some(DebugCtl::from_name(name)?.bits()),
        Msr::LBR_SELECT => &|name| Some(LbrSelect::from_name(name)?.bits()),
        Msr::LBR_CTL => &|name| match name {
            "ALL_TYPES" => Some(LbrCtl::ALL_TYPES.bits()),
            _ => Some(LbrCtl::from_name(name)?.bits()),
        },
        Msr::LER_INFO => INFO,
        Msr::PERF_GLOBAL_STATUS | Msr::PERF_GLOBAL_OVF_CTRL | Msr::PERF_GLOBAL_STATUS_SET => {
            &|name| Some(PerfGlobalStatus::from_name(name)?.bits())
        }
        Msr::PERF_CAPABILITIES => &|name| match name {
            "LBR_FMT" => Some(0x3f),
            _ => Some(PerfCapabilities::from_name(name)?.bits()),
        },
        Msr::RTIT_CTL => &|name| (name == "TRACE_EN").then_some(1),
        Msr::PEBS_ENABLE => &|name| Some(PebsEnable::from_name(name)?.bits()),
        Msr::PEBS_DATA_CFG => &|name| Some(PebsDataCfg::from_name(name)?.bits()),
        _ if (Msr::PERFEVTSEL0..Msr::PERFEVTSEL0.plus(8)).contains(&msr) => {
            &|name| Some(PerfEvtSel::from_name(name)?.bits())
        }
        _ => &no_bits,
    }
}

/// Reads a word of an XSAVE image: an offset or a name.
pub(super) fn image_field(word: &str) -> Result<ImageField, Reason> {
    if let Some((name, index)) = indexed(word) {
        let index = Expr::parse(index, &no_bits)?;
        match name {
            "FROM" => return Ok(ImageField::From(index)),
            "TO" => return Ok(ImageField::To(index)),
            "INFO" => return Ok(ImageField::Info(index)),
            "" => return Ok(ImageField::Offset(index)),
            _ => {}
        }
    }
    Ok(match word {
        "CTL" => ImageField::Ctl,
        "DEPTH" => ImageField::Depth,
        "LER_FROM" => ImageField::LerFrom,
        "LER_TO" => ImageField::LerTo,
        "LER_INFO" => ImageField::LerInfo,
        _ => {
            return Err(unknown(
                word,
                "CTL, DEPTH, LER_FROM, LER_TO, LER_INFO, FROM[i], TO[i], INFO[i] or [offset]",
            ));
        }
    })
}
