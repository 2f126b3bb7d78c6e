//! The capability MSRs as the files say them.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use vlbr_arch::vmx::VmcsField;

/// `IA32_VMX_BASIC` to `IA32_VMX_TRUE_ENTRY_CTLS`, those that exist, by address.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Capabilities(pub(crate) BTreeMap<u32, u64>);

/// A control vector: the MSR with every default-1 bit, the TRUE one, the field.
#[derive(Clone, Copy)]
pub(crate) struct Vector {
    plain: u32,
    relaxed: Option<u32>,
    pub(crate) field: VmcsField,
}

pub(crate) const PIN: Vector = Vector {
    plain: 0x481,
    relaxed: Some(0x48d),
    field: VmcsField::new(0x4000),
};
pub(crate) const PRIMARY: Vector = Vector {
    plain: 0x482,
    relaxed: Some(0x48e),
    field: VmcsField::new(0x4002),
};
pub(crate) const SECONDARY: Vector = Vector {
    plain: 0x48b,
    relaxed: None,
    field: VmcsField::new(0x401e),
};
pub(crate) const EXIT: Vector = Vector {
    plain: 0x483,
    relaxed: Some(0x48f),
    field: VmcsField::new(0x400c),
};
pub(crate) const ENTRY: Vector = Vector {
    plain: 0x484,
    relaxed: Some(0x490),
    field: VmcsField::new(0x4012),
};

pub(crate) const VECTORS: [Vector; 5] = [PIN, PRIMARY, SECONDARY, EXIT, ENTRY];

/// Fields that exist only where a control may be 1: encoding, control vectors with bits, of which
/// one suffices. SDM volume 3, notes of appendix "Field Encoding in VMCS".
const CONDITIONAL: &[(u32, &[(Vector, u32)])] = &[
    (0x2004, &[(PRIMARY, 28)]),
    (0x202c, &[(SECONDARY, 20)]),
    (0x2034, &[(PRIMARY, 17)]),
    (0x2044, &[(EXIT, 31)]),
    (0x2804, &[(ENTRY, 14), (EXIT, 18)]),
    (0x2806, &[(ENTRY, 15), (EXIT, 20)]),
    (0x2808, &[(ENTRY, 13), (EXIT, 30)]),
    (0x2812, &[(ENTRY, 16), (EXIT, 23)]),
    (0x2814, &[(ENTRY, 18), (EXIT, 25)]),
    (0x2816, &[(ENTRY, 21), (EXIT, 26)]),
    (0x2818, &[(ENTRY, 22)]),
    (0x0814, &[(ENTRY, 19)]),
    (0x2c00, &[(EXIT, 19)]),
    (0x2c02, &[(EXIT, 21)]),
    (0x2c04, &[(EXIT, 12)]),
    (0x2c06, &[(EXIT, 29)]),
    (0x401e, &[(PRIMARY, 31)]),
    (0x482e, &[(PIN, 6)]),
];

impl Capabilities {
    /// From the text of a profile.
    pub(crate) fn from_text(text: &str) -> Self {
        let table: toml::Table = text.parse().expect("a profile");
        let number = |table: &toml::Table, name: &str| {
            table[name].as_integer().expect("a number").cast_unsigned()
        };
        let mut msrs = BTreeMap::new();
        msrs.insert(0x480, number(&table, "basic"));
        msrs.insert(0x485, number(&table, "misc"));
        for (name, plain, relaxed) in [
            ("pin", 0x481, 0x48d),
            ("primary", 0x482, 0x48e),
            ("exit", 0x483, 0x48f),
            ("entry", 0x484, 0x490),
            ("secondary", 0x48b, 0),
        ] {
            let Some(allowed) = table.get(name).and_then(toml::Value::as_table) else {
                continue;
            };
            let high = number(allowed, "allowed1") << 32;
            msrs.insert(plain, high | number(allowed, "allowed0"));
            let lows = table.get("true_allowed0").and_then(toml::Value::as_table);
            if let Some(lows) = lows.filter(|_| relaxed != 0) {
                msrs.insert(relaxed, high | number(lows, name));
            }
        }
        Self(msrs)
    }

    /// The text of the file that belongs to a processor.
    pub(crate) fn text_of(cpu: &str) -> Option<String> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("profiles");
        let files = fs::read_dir(folder).expect("the folder of profiles");
        files
            .map(|file| file.expect("a file").path())
            .filter(|path| path.extension().is_some_and(|ext| ext == "toml"))
            .map(|path| fs::read_to_string(path).expect("a text"))
            .find(|text| {
                let table: toml::Table = text.parse().expect("a profile");
                let cpus = table["cpus"].as_array().expect("names");
                cpus.iter().any(|name| name.as_str() == Some(cpu))
            })
    }

    fn msr(&self, msr: u32) -> u64 {
        self.0.get(&msr).copied().unwrap_or(0)
    }

    pub(crate) fn basic(&self) -> u64 {
        self.msr(0x480)
    }

    pub(crate) fn misc(&self) -> u64 {
        self.msr(0x485)
    }

    pub(crate) fn revision(&self) -> u64 {
        self.basic() & 0x7fff_ffff
    }

    /// The MSR that rules the vector: the TRUE one if bit 55 of `IA32_VMX_BASIC` is 1.
    fn ruling(&self, vector: Vector) -> u64 {
        match vector.relaxed {
            Some(relaxed) if self.basic() >> 55 & 1 == 1 => self.msr(relaxed),
            _ => self.msr(vector.plain),
        }
    }

    /// Whether a control may be 1.
    pub(crate) fn may(&self, vector: Vector, bit: u32) -> bool {
        self.ruling(vector) >> (32 + bit) & 1 == 1
    }

    /// Whether a control must be 1.
    fn must(&self, vector: Vector, bit: u32) -> bool {
        self.ruling(vector) >> bit & 1 == 1
    }

    /// Whether every control has a value it may have.
    pub(crate) fn accept(&self, vector: Vector, controls: u64) -> bool {
        (0..32).all(|bit| match controls >> bit & 1 {
            0 => !self.must(vector, bit),
            _ => self.may(vector, bit),
        })
    }

    /// `wanted` with what the part demands and without what it lacks.
    pub(crate) fn adjusted(&self, vector: Vector, wanted: u64) -> u64 {
        (0..32).fold(0, |all, bit| {
            let one = wanted >> bit & 1 == 1 && self.may(vector, bit) || self.must(vector, bit);
            all | u64::from(one) << bit
        })
    }

    /// Whether the VMCS has a field with this encoding.
    pub(crate) fn has_field(&self, encoding: u32) -> bool {
        let high = encoding & 1 == 1;
        let full = encoding & !1;
        if !VmcsField::NAMED
            .iter()
            .any(|(field, ..)| field.encoding() == full)
        {
            return false;
        }
        // Only 64-bit fields have a high half.
        if high && encoding >> 13 & 3 != 1 {
            return false;
        }
        match CONDITIONAL.iter().find(|(field, _)| *field == full) {
            Some((_, any)) => any.iter().any(|(vector, bit)| {
                // Without secondary controls there is nothing to be 1.
                let exists = vector.plain != 0x48b || self.may(PRIMARY, 31);
                exists && self.may(*vector, *bit)
            }),
            None => true,
        }
    }
}
