//! A scene with the files it names.

use std::fmt::Write as _;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;
use sha2::{Digest, Sha256};
use vlbr_cpu::ledger::CostModel;
use vlbr_host::policy::{Catalog, Policy};
use vlbr_traces::files::{open_regular, read_text};
use vlbr_traces::vlt::{OpenOptions, Trace};

use crate::{GuestSource, Scene, SceneError, TimingChange, VcpuSpec};

/// Longest TOML text that is read, in bytes.
const LONGEST: u64 = 1 << 20;

/// A file that a result depends on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct InputFile {
    /// Its name, as the scene or the command gives it.
    pub name: String,
    /// SHA-256 of its bytes, in hexadecimal.
    pub sha256: String,
}

/// A scene read from a file. Names in it are relative to the file.
#[derive(Clone, Debug)]
pub struct SceneFile {
    path: PathBuf,
    text: String,
    scene: Scene,
    /// The session that guests without one are given.
    guest_perf: Option<String>,
    /// What tells the time instead of what it says.
    timing: TimingChange,
}

impl SceneFile {
    /// Reads a scene.
    ///
    /// # Errors
    /// The file cannot be read, or is no scene: what and where.
    pub fn open(path: &Path) -> Result<Self, SceneError> {
        let text = text(path)?;
        let scene = Scene::from_toml(&text).map_err(|error| error.within(path))?;
        Ok(Self {
            path: path.to_owned(),
            text,
            scene,
            guest_perf: None,
            timing: TimingChange::default(),
        })
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it says.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The scene.
    #[must_use]
    pub const fn scene(&self) -> &Scene {
        &self.scene
    }

    /// Gives a perf session to every guest that has none.
    pub fn give_guest_perf(&mut self, session: &str) {
        self.guest_perf = Some(session.to_owned());
        give(&mut self.scene, session);
    }

    /// Another timing model.
    ///
    /// # Errors
    /// It does not go with the scene.
    pub fn set_timing(&mut self, timing: TimingChange) -> Result<(), SceneError> {
        timing.apply(&mut self.scene);
        self.timing = timing;
        let checked = self.scene.check_timing();
        checked.map_err(|error| error.within(&self.path))
    }

    /// A scene of another text, with the same files and sessions.
    ///
    /// # Errors
    /// The text is no scene.
    pub fn variant(&self, text: &str) -> Result<Scene, SceneError> {
        let mut scene = Scene::from_toml(text)?;
        self.timing.apply(&mut scene);
        scene.check_timing()?;
        if let Some(session) = &self.guest_perf {
            give(&mut scene, session);
        }
        Ok(scene)
    }

    fn relative(&self, name: &Path) -> PathBuf {
        match self.path.parent() {
            Some(folder) => folder.join(name),
            None => name.to_owned(),
        }
    }

    /// The guests of a scene, which is this one or made of it.
    ///
    /// # Errors
    /// A trace is missing, damaged, or has no such thread.
    pub fn guests(&self, scene: &Scene) -> Result<Vec<GuestSource>, SceneError> {
        let vcpus = scene.vcpu.iter().enumerate();
        vcpus
            .map(|(n, vcpu)| {
                let guest = self.guest(n, vcpu);
                guest.map_err(|error| error.within(&self.path))
            })
            .collect()
    }

    fn guest(&self, n: usize, vcpu: &VcpuSpec) -> Result<GuestSource, SceneError> {
        let (trace, looped) = (&vcpu.trace, vcpu.looped);
        if let Some(looped) = looped {
            return GuestSource::looped(looped);
        }
        let Some(name) = trace else {
            let at = format!("vcpu[{n}].trace");
            return Err(SceneError::value(at, "is missing"));
        };
        let path = self.relative(name);
        // A chunk is checked when it is decoded.
        let options = OpenOptions {
            check_chunks: false,
            ..OpenOptions::default()
        };
        let trace = Trace::open(&path, options).map_err(|error| {
            let said = format!("{}: {error}", path.display());
            SceneError::value(format!("vcpu[{n}].trace"), said)
        })?;
        GuestSource::trace(trace, vcpu.thread, vcpu.repeat)
            .map_err(|reason| SceneError::value(format!("vcpu[{n}].thread"), reason))
    }

    /// The cost model: the one named, relative to the working directory, or else the scene's.
    ///
    /// # Errors
    /// The file cannot be read, or is no cost model.
    pub fn cost_model(&self, named: Option<&str>) -> Result<CostModel, SceneError> {
        let name = named.unwrap_or(&self.scene.cost_model);
        if name == "published" {
            return Ok(CostModel::published().clone());
        }
        let path = match named {
            Some(name) => PathBuf::from(name),
            None => self.relative(Path::new(name)),
        };
        let said = |error: SceneError| match named {
            Some(_) => error,
            // The scene names it.
            None => SceneError::value("cost-model", error.to_string()).within(&self.path),
        };
        let model = CostModel::from_toml(&text(&path).map_err(said)?);
        model.map_err(|error| SceneError::from(error).within(&path))
    }

    /// The scene's policy.
    ///
    /// # Errors
    /// The catalog has none of the name.
    pub fn policy(&self, catalog: &Catalog) -> Result<Arc<dyn Policy>, SceneError> {
        let named = catalog.named(&self.scene.policy);
        named.map_err(|error| SceneError::value("policy", error.to_string()).within(&self.path))
    }

    /// The scene and its traces, each once, with their digests.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn inputs(&self) -> Result<Vec<InputFile>, SceneError> {
        let name = self.path.file_name().unwrap_or_default();
        let mut inputs = vec![InputFile {
            name: name.to_string_lossy().into_owned(),
            sha256: hexadecimal(&Sha256::digest(&self.text)),
        }];
        for name in self
            .scene
            .vcpu
            .iter()
            .filter_map(|vcpu| vcpu.trace.as_ref())
        {
            let said = name.display().to_string();
            if inputs.iter().all(|input| input.name != said) {
                inputs.push(InputFile {
                    name: said,
                    sha256: digest(&self.relative(name))?,
                });
            }
        }
        Ok(inputs)
    }
}

fn give(scene: &mut Scene, session: &str) {
    for vcpu in &mut scene.vcpu {
        vcpu.guest_perf.get_or_insert_with(|| session.to_owned());
    }
}

/// A policy of one's own, added to a catalog.
///
/// # Errors
/// The file cannot be read, is no policy, or has the name of one that is there.
pub fn policy_from_file(catalog: &mut Catalog, path: &Path) -> Result<Arc<dyn Policy>, SceneError> {
    let policy = catalog.from_toml(&text(path)?);
    let policy = policy.map_err(|error| SceneError::from(error).within(path))?;
    let added = catalog.add(Arc::clone(&policy));
    added.map_err(|error| SceneError::from(error).within(path))?;
    Ok(policy)
}

fn text(path: &Path) -> Result<String, SceneError> {
    read_text(path, LONGEST).map_err(|error| read(path, error))
}

fn read(path: &Path, error: std::io::Error) -> SceneError {
    SceneError::Read {
        path: path.to_owned(),
        error,
    }
}

fn digest(path: &Path) -> Result<String, SceneError> {
    let bad = |error| read(path, error);
    let mut file = open_regular(path).map_err(bad)?;
    let (mut sum, mut buffer) = (Sha256::new(), vec![0; 1 << 16]);
    loop {
        match file.read(&mut buffer).map_err(bad)? {
            0 => return Ok(hexadecimal(&sum.finalize())),
            n => sum.update(&buffer[..n]),
        }
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
