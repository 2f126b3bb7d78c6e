//! Policies by name, and from TOML.

use std::sync::Arc;

use serde::Deserialize;
use toml::Table;

use super::knobs::{changed, table};
use super::{
    Arbitration, Architectural, EventPolicy, Ideal, ListPolicy, MediatedLazy, NoLbr, Policy,
    SwapPolicy,
};
use crate::perf::KernelVersion;

/// The first version that has the merged series.
const FIRST: KernelVersion = KernelVersion::new(5, 12, 0);

/// Why there is no such policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// No policy has the name.
    #[error("there is no policy {name:?}; there are {known}")]
    Unknown {
        /// The name.
        name: String,
        /// Those there are.
        known: String,
    },
    /// The version of `upstream@VERSION`.
    #[error("policy {name:?}: {reason}")]
    Version {
        /// The name.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The text of a policy of one's own.
    #[error("{0}")]
    Text(String),
    /// A policy of one's own has a name that cannot stand in lists, in scenarios and in names of files.
    #[error("policy {0:?}: a name has up to 64 of the characters a-z, 0-9, @, . and -")]
    Name(String),
    /// A policy of one's own has the name of another.
    #[error("policy {0:?}: there is one of this name already")]
    Taken(String),
}

/// Most characters of the name of a policy of one's own.
const LONGEST_NAME: usize = 64;

/// The policies that can be named.
///
/// ```
/// use vlbr_host::policy::Catalog;
///
/// let catalog = Catalog::builtin();
/// assert_eq!(catalog.named("v8")?.name(), "v8");
/// let mine = catalog.from_toml("name = \"keep\"\nbase = \"upstream@6.8\"\n[change]\nrelease = \"never\"\n")?;
/// assert_eq!(mine.name(), "keep");
/// # Ok::<(), vlbr_host::policy::PolicyError>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    policies: Vec<Arc<dyn Policy>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Own {
    name: String,
    base: String,
    #[serde(default)]
    title: String,
    kernel: Option<String>,
    #[serde(default)]
    change: Table,
}

impl Catalog {
    /// Those of this crate. Versions of `upstream@` beside the ones listed are made when asked for.
    #[must_use]
    pub fn builtin() -> Self {
        let mut catalog = Self::default();
        catalog.register(Arc::new(EventPolicy::v8(false)));
        catalog.register(Arc::new(EventPolicy::v8(true)));
        for version in ["5.12", "5.15", "5.17", "6.2", "6.9", "6.14", "6.16"] {
            if let Ok(version) = version.parse() {
                let arbitration = Arbitration::AsCoded;
                catalog.register(Arc::new(EventPolicy::upstream(version, arbitration)));
            }
        }
        let newest = KernelVersion::new(6, 16, 0);
        catalog.register(Arc::new(EventPolicy::upstream(newest, Arbitration::Shared)));
        catalog.register(Arc::new(SwapPolicy::naive()));
        catalog.register(Arc::new(ListPolicy::xen()));
        catalog.register(Arc::new(ListPolicy::virtualbox()));
        catalog.register(Arc::new(Architectural::xsaves()));
        catalog.register(Arc::new(Architectural::msr()));
        catalog.register(Arc::new(NoLbr::mediated()));
        catalog.register(Arc::new(SwapPolicy::mediated()));
        catalog.register(Arc::new(MediatedLazy));
        catalog.register(Arc::new(NoLbr::none()));
        catalog.register(Arc::new(Ideal));
        catalog
    }

    /// Adds a policy, or replaces the one of its name.
    pub fn register(&mut self, policy: Arc<dyn Policy>) {
        self.policies.retain(|known| known.name() != policy.name());
        self.policies.push(policy);
    }

    /// Every policy, in the order in which they were registered.
    #[must_use]
    pub fn all(&self) -> &[Arc<dyn Policy>] {
        &self.policies
    }

    /// The policy with this name; `upstream@VERSION` and `upstream-documented@VERSION` of any
    /// version from 5.12 on.
    ///
    /// # Errors
    /// There is none.
    pub fn named(&self, name: &str) -> Result<Arc<dyn Policy>, PolicyError> {
        if let Some(policy) = self.policies.iter().find(|known| known.name() == name) {
            return Ok(Arc::clone(policy));
        }
        if let Some(policy) = event_policy(name)? {
            return Ok(Arc::new(policy));
        }
        let known: Vec<&str> = self.policies.iter().map(|policy| policy.name()).collect();
        Err(PolicyError::Unknown {
            name: name.to_owned(),
            known: known.join(", "),
        })
    }

    /// Adds a policy whose name is free, also of those that [`Catalog::named`] makes when asked for.
    ///
    /// # Errors
    /// [`PolicyError::Taken`].
    pub fn add(&mut self, policy: Arc<dyn Policy>) -> Result<(), PolicyError> {
        let name = policy.name();
        // `linux@VERSION` of scenarios is a host without LBR for its guests.
        if self.named(name).is_ok() || name.starts_with("linux@") {
            return Err(PolicyError::Taken(name.to_owned()));
        }
        self.policies.push(policy);
        Ok(())
    }

    /// A policy of one's own: the rules of `base` with some of them changed.
    ///
    /// # Errors
    /// The text is no TOML, has a name that is none, names no base, or a knob or value that the base does
    /// not have.
    pub fn from_toml(&self, text: &str) -> Result<Arc<dyn Policy>, PolicyError> {
        let own: Own = vlbr_data::parse_toml(text).map_err(|e| PolicyError::Text(e.to_string()))?;
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "@.-".contains(c);
        if !(1..=LONGEST_NAME).contains(&own.name.len()) || !own.name.chars().all(plain) {
            return Err(PolicyError::Name(own.name));
        }
        let bad = |reason| PolicyError::Text(format!("[change] {reason}"));
        let title = if own.title.is_empty() {
            format!("{} with changes", own.base)
        } else {
            own.title
        };
        let kernel = match &own.kernel {
            Some(kernel) => Some(version(&own.name, kernel)?),
            None => None,
        };
        if let Some(base) = event_policy(&own.base)? {
            let rules = changed(&base.rules, &own.change).map_err(bad)?;
            let kernel = kernel.unwrap_or(base.kernel);
            return Ok(Arc::new(EventPolicy::new(&own.name, &title, kernel, rules)));
        }
        let swap = [SwapPolicy::naive(), SwapPolicy::mediated()];
        if let Some(base) = swap.iter().find(|base| base.name == own.base) {
            let rules = changed(&base.rules, &own.change).map_err(bad)?;
            return Ok(Arc::new(SwapPolicy::new(&own.name, &title, rules)));
        }
        let lists = [ListPolicy::xen(), ListPolicy::virtualbox()];
        if let Some(base) = lists.iter().find(|base| base.name == own.base) {
            let rules = changed(&base.rules, &own.change).map_err(bad)?;
            return Ok(Arc::new(ListPolicy::new(&own.name, &title, rules)));
        }
        // It exists, but has no knobs.
        self.named(&own.base)?;
        Err(PolicyError::Text(format!(
            "base = {:?}: this policy has no knobs",
            own.base
        )))
    }

    /// The knobs of a policy with their values, as `[change]` takes them; empty if it has none.
    #[must_use]
    pub fn knobs(&self, name: &str) -> Table {
        if let Ok(Some(base)) = event_policy(name) {
            return table(&base.rules);
        }
        let swap = [SwapPolicy::naive(), SwapPolicy::mediated()];
        let lists = [ListPolicy::xen(), ListPolicy::virtualbox()];
        let swap = swap.iter().find(|base| base.name == name);
        let list = lists.iter().find(|base| base.name == name);
        match (swap, list) {
            (Some(base), _) => table(&base.rules),
            (_, Some(base)) => table(&base.rules),
            _ => Table::new(),
        }
    }
}

fn version(name: &str, text: &str) -> Result<KernelVersion, PolicyError> {
    text.parse().map_err(|error| PolicyError::Version {
        name: name.to_owned(),
        reason: format!("{error}"),
    })
}

/// The event-based policies: they have a kernel of their own.
fn event_policy(name: &str) -> Result<Option<EventPolicy>, PolicyError> {
    match name {
        "v8" => return Ok(Some(EventPolicy::v8(false))),
        "v8-as-posted" => return Ok(Some(EventPolicy::v8(true))),
        _ => {}
    }
    let (arbitration, text) = if let Some(text) = name.strip_prefix("upstream@") {
        (Arbitration::AsCoded, text)
    } else if let Some(text) = name.strip_prefix("upstream-documented@") {
        (Arbitration::Shared, text)
    } else {
        return Ok(None);
    };
    let kernel = version(name, text)?;
    if kernel < FIRST {
        return Err(PolicyError::Version {
            name: name.to_owned(),
            reason: format!("guest LBR was merged in {FIRST}"),
        });
    }
    Ok(Some(EventPolicy::upstream(kernel, arbitration)))
}
