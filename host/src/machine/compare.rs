//! What a guest got, against what a processor of its own would have given it.

use vlbr_arch::LbrInfo;

use super::{Difference, GuestFault, GuestMsrAccess, Machine, Rule, Violation};
use crate::hardware::{LbrRegister, Word};
use crate::kvm::{Access, Operation};
use crate::{Owned, Owner, VcpuId};

impl Machine {
    /// What the guest got, or whether its write was dropped, against what it would have got.
    pub(super) fn compare(
        &mut self,
        vcpu: VcpuId,
        access: Access,
        (given, dropped): (GuestMsrAccess, bool),
        expected: Result<Owned, GuestFault>,
    ) {
        let guest = Owner::Guest(vcpu);
        let register = self.host.lbr_msrs().register(access.msr);
        let told = self.host.vcpu(vcpu).lbr.msrs.is_some();
        let Some(register) = register.filter(|_| told) else {
            return;
        };
        let found = |rule, owner, path: &str| Violation {
            rule,
            input: self.inputs,
            cpu: self.host.vcpu(vcpu).cpu,
            owner,
            actor: guest,
            msr: Some(access.msr),
            path: path.to_owned(),
        };
        let mut violations = Vec::new();
        let way = if given.exited {
            "by an exit"
        } else {
            "passed through"
        };
        let read = access.operation == Operation::Read;
        match (given.result, expected) {
            (Ok(value), _) if read && !value.owner.may_be_seen_by(guest) => {
                violations.push(found(
                    Rule::Leak,
                    value.owner,
                    &format!("a guest reads {way}"),
                ));
            }
            (Err(_), Ok(_)) => {
                violations.push(found(Rule::Denial, guest, &format!("#GP {way}")));
            }
            (Ok(_), Ok(_)) if dropped => {
                violations.push(found(Rule::Denial, guest, "a write is dropped by an exit"));
            }
            _ => {}
        }
        let comparable = read && !matches!(register, LbrRegister::Ler(_) | LbrRegister::Depth);
        let mut difference = None;
        if comparable && let Ok(expected) = expected {
            // Clock counts differ by what the host did in between.
            let mask = match register {
                LbrRegister::Entry(Word::Info, _) => !LbrInfo::CYC_CNT_MASK,
                _ => u64::MAX,
            };
            difference = match given.result {
                Ok(value) if value.value & mask == expected.value & mask => None,
                Ok(value) if !value.owner.may_be_seen_by(guest) => Some(Difference::Foreign),
                Ok(value) if value.value == 0 => Some(Difference::Zero),
                Ok(_) => Some(Difference::Stale),
                Err(_) => Some(Difference::Missing),
            };
            if difference == Some(Difference::Zero) && given.exited {
                let path = "a read gives 0 by an exit instead of what the guest has";
                violations.push(found(Rule::Denial, guest, path));
            }
            if let Some(difference) = difference {
                let path = format!("{difference:?} {way}");
                violations.push(found(Rule::Fidelity, guest, &path));
            }
        }
        self.compared += u64::from(comparable);
        if let Some(difference) = difference {
            self.differences[difference as usize] += 1;
        }
        for violation in violations {
            self.findings.add(violation);
        }
    }
}
