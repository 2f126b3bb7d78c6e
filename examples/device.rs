//! The LBR device by its registers: a user-only filter, call-stack mode, a write it refuses.

use std::error::Error;

use vlbr_arch::{BranchClass, Cpl, Cycles, Msr, Transfer};
use vlbr_lbr::{Lbr, Options, Profile};

fn main() -> Result<(), Box<dyn Error>> {
    let mut lbr = Lbr::new(Profile::named("haswell")?, Options::default());

    // Call-stack mode for user code, as perf programs it, then DEBUGCTL.LBR.
    lbr.wrmsr(Msr::LBR_SELECT, 0x3c5)?;
    lbr.wrmsr(Msr::DEBUGCTL, 1)?;

    let user = |class, from, to| Transfer::near(class, from, to, Cpl::Ring3);
    let program = [
        user(BranchClass::NearRelCall, 0x40_1000, 0x40_2000),
        user(BranchClass::NearRelJmp, 0x40_2004, 0x40_2010),
        user(BranchClass::NearIndCall, 0x40_2020, 0x40_3000),
        user(BranchClass::NearRet, 0x40_3008, 0x40_2022),
        user(BranchClass::NearRelCall, 0x40_2030, 0x40_4000),
    ];
    for (cycle, transfer) in program.iter().enumerate() {
        lbr.retire(transfer, Cycles::new(cycle as u64));
    }

    println!("TOS = {}", lbr.rdmsr(Msr::LASTBRANCH_TOS)?);
    for record in lbr.stack().take_while(|record| !record.is_empty()) {
        println!("called from {:#x}: {:#x}", record.from, record.to);
    }

    // Bit 10 of LBR_SELECT is reserved.
    match lbr.wrmsr(Msr::LBR_SELECT, 1 << 10) {
        Ok(()) => return Err("the reserved bit was taken".into()),
        Err(fault) => println!("{fault}"),
    }
    Ok(())
}
