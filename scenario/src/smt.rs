//! A core with two logical processors, made of the fast or of the literal device.

use vlbr_arch::Msr;
use vlbr_lbr::{Device, GpFault, Interface, Options, Profile, Quirk, Scope, SmtCore, reference};

use crate::DeviceKind;

/// Logical processors of the core.
const THREADS: usize = 2;

/// Two logical processors that may share `MSR_LBR_SELECT`.
#[derive(Debug)]
pub(crate) enum Core {
    Fast(Box<SmtCore>),
    Reference {
        threads: Vec<reference::Lbr>,
        shared_select: bool,
    },
}

impl Core {
    pub(crate) fn new(kind: DeviceKind, profile: &Profile, options: &Options) -> Self {
        match kind {
            DeviceKind::Fast => Self::Fast(Box::new(SmtCore::new(profile, options, THREADS))),
            DeviceKind::Reference => {
                let quirks = options.quirks.unwrap_or(profile.quirks());
                let core_scope = match profile.interface() {
                    Interface::Legacy(legacy) => legacy.select_scope == Scope::Core,
                    Interface::Arch(_) => false,
                };
                Self::Reference {
                    threads: (0..THREADS)
                        .map(|_| reference::Lbr::new(profile, options.clone()))
                        .collect(),
                    shared_select: core_scope && quirks.contains(Quirk::SharedSelect),
                }
            }
        }
    }

    /// A logical processor; the parser lets none but 0 and 1 through.
    pub(crate) fn cpu(&mut self, cpu: usize) -> Option<&mut dyn Device> {
        match self {
            Self::Fast(core) => core.thread_mut(cpu).map(|lbr| lbr as &mut dyn Device),
            Self::Reference { threads, .. } => {
                threads.get_mut(cpu).map(|lbr| lbr as &mut dyn Device)
            }
        }
    }

    pub(crate) fn wrmsr(&mut self, cpu: usize, msr: Msr, value: u64) -> Result<(), GpFault> {
        match self {
            Self::Fast(core) => core.wrmsr(cpu, msr, value),
            Self::Reference {
                threads,
                shared_select,
            } => {
                let everywhere = *shared_select && msr == Msr::LBR_SELECT;
                for (n, lbr) in threads.iter_mut().enumerate() {
                    if n == cpu || everywhere {
                        Device::wrmsr(lbr, msr, value)?;
                    }
                }
                Ok(())
            }
        }
    }
}
