//! What a register holds: a number, or something unknown plus a number.

use iced_x86::Register;

use crate::environment::{BHIVE_FRAME, BHIVE_STACK, BHIVE_VALUE, Environment};

/// Something unknown, or nothing, plus a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Content {
    pub(super) root: u64,
    pub(super) offset: i64,
}

const NOTHING: u64 = 0;

impl Content {
    pub(super) const fn number(offset: i64) -> Self {
        Self {
            root: NOTHING,
            offset,
        }
    }

    pub(super) fn is_number(self) -> bool {
        self.root == NOTHING
    }

    pub(super) fn as_number(self) -> Option<i64> {
        self.is_number().then_some(self.offset)
    }

    /// The sum; of two unknowns, something that depends on both and nothing else.
    pub(super) fn plus(self, other: Self) -> Option<Self> {
        let root = match (self.root, other.root) {
            (NOTHING, root) | (root, NOTHING) => root,
            (a, b) => (a ^ b.rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1 << 63,
        };
        Some(Self {
            root,
            offset: self.offset.wrapping_add(other.offset),
        })
    }

    /// The product with a scale.
    pub(super) fn times(self, scale: i64) -> Option<Self> {
        let root = match self.root {
            NOTHING => NOTHING,
            root if scale == 1 => root,
            root => root.wrapping_mul(0x9e37_79b9 * scale as u64) | 1 << 62,
        };
        Some(Self {
            root,
            offset: self.offset.wrapping_mul(scale),
        })
    }

    /// The lowest bytes, without sign.
    pub(super) fn low_bytes(self, size: i64) -> Option<Self> {
        if size >= 8 {
            return Some(self);
        }
        let mask = (1_i64 << (size * 8)) - 1;
        self.as_number().map(|n| Self::number(n & mask))
    }
}

/// What BHive's memory holds at `address`.
pub(super) fn fill(address: i64, size: i64) -> Option<Content> {
    let shift = (address & 7) * 8;
    let turned = BHIVE_VALUE.rotate_right(shift as u32);
    Content::number(turned).low_bytes(size)
}

/// Contents of the general-purpose registers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Registers {
    contents: [Option<Content>; 16],
    next: u64,
}

impl Registers {
    pub(super) fn new(environment: Environment) -> Self {
        let mut contents = [None; 16];
        for (number, content) in (1..).zip(&mut contents) {
            *content = Some(match environment {
                Environment::Unknown => Content {
                    root: number,
                    offset: 0,
                },
                Environment::Bhive => Content::number(BHIVE_VALUE),
            });
        }
        if environment == Environment::Bhive {
            contents[Register::RSP.number()] = Some(Content::number(BHIVE_STACK));
            contents[Register::RBP.number()] = Some(Content::number(BHIVE_FRAME));
        }
        Self { contents, next: 17 }
    }

    /// What the full register that `register` is part of holds.
    pub(super) fn full(&self, register: Register) -> Option<Content> {
        let full = register.full_register();
        full.is_gpr64()
            .then(|| self.contents[full.number()])
            .flatten()
    }

    /// What `register` holds, without sign. High bytes are never known.
    pub(super) fn get(&self, register: Register) -> Option<Content> {
        if register.is_gpr64() {
            self.full(register)
        } else if register.is_gpr8() && (4..8).contains(&register.number()) && !low(register) {
            None
        } else {
            self.full(register)?.low_bytes(register.size() as i64)
        }
    }

    /// Writes `register`; a part of a register keeps the rest.
    pub(super) fn set(&mut self, register: Register, content: Option<Content>) {
        let full = register.full_register();
        if !full.is_gpr64() {
            return;
        }
        let content = match register.size() {
            8 => content,
            4 => content.and_then(|c| c.low_bytes(4)),
            _ if !register.is_gpr16() && !low(register) => None,
            size => {
                let mask = (1_i64 << (size * 8)) - 1;
                let old = self.full(register).and_then(Content::as_number);
                let new = content.and_then(Content::as_number);
                old.zip(new)
                    .map(|(old, new)| Content::number(old & !mask | new & mask))
            }
        };
        let content = content.unwrap_or_else(|| self.fresh());
        self.contents[full.number()] = Some(content);
    }

    /// Something that nothing else equals.
    pub(super) fn fresh(&mut self) -> Content {
        self.next += 1;
        Content {
            root: self.next,
            offset: 0,
        }
    }
}

/// Whether an 8-bit register is the lowest byte of its full register.
fn low(register: Register) -> bool {
    !matches!(
        register,
        Register::AH | Register::CH | Register::DH | Register::BH
    )
}
