//! Damaged cost models: refused, or one that prices a ledger.

use vlbr_arch::vmx::ExitReason;
use vlbr_cpu::ledger::{Bound, CostModel, Ledger};
use vlbr_fuzz::{Form, throw};

#[test]
fn fuzz_cost_model() {
    let seed = include_bytes!("../costs/published.toml").to_vec();
    let mut ledger = Ledger::new();
    ledger.vm_entry();
    ledger.vm_exit(ExitReason::HLT, None);
    ledger.vm_exit(ExitReason::HLT, None);
    let tally = throw("cost model", 2000, Form::Text, &[seed], |bytes| {
        let text = str::from_utf8(bytes).ok();
        let Some(model) = text.and_then(|text| CostModel::from_toml(text).ok()) else {
            return false;
        };
        for bound in [Bound::Low, Bound::Default, Bound::High] {
            let estimate = model.estimate(&ledger, "skylake", bound).unwrap();
            assert!(estimate.to_string().contains(model.name()));
        }
        true
    });
    assert!(tally.taken > 0 && tally.refused > 0);
}
