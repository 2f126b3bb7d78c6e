//! The kernels that a host scenario runs under.

use std::sync::Arc;

use vlbr_host::kvm::KvmBehaviour;
use vlbr_host::perf::{Behaviour, KernelVersion};
use vlbr_host::policy::{Catalog, NoLbr, Policy};

use crate::Reason;

/// Policies that are part of no kernel run in this one.
const KERNEL: KernelVersion = KernelVersion::new(6, 16, 0);

/// A policy in its kernel, by the name in `policies:`.
#[derive(Clone, Debug)]
pub struct HostKernel {
    name: String,
    policy: Arc<dyn Policy>,
    version: KernelVersion,
}

impl PartialEq for HostKernel {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl HostKernel {
    /// A policy of the catalog; `linux@VERSION`: a host that gives its guests no LBR.
    pub(crate) fn parse(name: &str, catalog: &Catalog) -> Result<Self, Reason> {
        let bad = |error: String| Reason::Policy(error);
        if let Some(version) = name.strip_prefix("linux@") {
            let version = version.parse();
            return Ok(Self {
                name: name.to_owned(),
                policy: Arc::new(NoLbr::none()),
                version: version.map_err(|e: vlbr_host::perf::VersionError| bad(e.to_string()))?,
            });
        }
        let policy = catalog.named(name);
        let policy = policy.map_err(|error| bad(error.to_string()))?;
        Ok(Self {
            name: name.to_owned(),
            ..Self::of(policy)
        })
    }

    /// A policy in the kernel that it is part of.
    #[must_use]
    pub fn of(policy: Arc<dyn Policy>) -> Self {
        Self {
            name: policy.name().to_owned(),
            version: policy.kernel().unwrap_or(KERNEL),
            policy,
        }
    }

    /// As `policies:` names it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn policy(&self) -> Arc<dyn Policy> {
        Arc::clone(&self.policy)
    }

    pub(super) fn behaviour(&self) -> Behaviour {
        let mut behaviour = Behaviour::of(self.version);
        // Without guests perf still knows the virtual event of its version.
        if !self.name.starts_with("linux@") {
            self.policy.adjust(&mut behaviour);
        }
        behaviour
    }

    pub(super) fn kvm(&self) -> KvmBehaviour {
        KvmBehaviour::of(self.version)
    }
}
