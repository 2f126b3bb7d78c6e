//! perf's branch filters: from `-j` to `LBR_SELECT`, and the software filter behind it.
//! Linux `arch/x86/events/intel/lbr.c` and `arch/x86/events/utils.c`.

mod branch_sample;
mod branch_type;
mod filter;
mod select;

pub use branch_sample::{
    FilterNameError, branch_filter_names, parse_branch_filter, with_event_privileges,
};
pub use branch_type::{X86Br, branch_type, perf_branch_type, stand_in};
pub use filter::{FilterError, LbrFilter};
pub use select::HardwareFilter;
