//! One LBR entry as software reads it.

/// One entry of the LBR, decoded from its MSRs as software does.
///
/// `from` and `to` are sign-extended addresses without flag and cycle bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Record {
    /// Address of the branch, LIP or EIP as the part records.
    pub from: u64,
    /// Address of the target.
    pub to: u64,
    /// Direction or target was mispredicted; false where the part does not tell.
    pub mispredicted: bool,
    /// Retired in a transaction; false where the part does not tell.
    pub in_tx: bool,
    /// A transaction abort; false where the part does not tell.
    pub abort: bool,
    /// Core clocks since the previous record; `None` where the part does not count or the count
    /// is marked invalid.
    pub cycles: Option<u16>,
    /// The branch type field; `None` where the part has none.
    pub branch_type: Option<u8>,
    /// FROM, TO and INFO as RDMSR returns them; INFO is 0 where there is none.
    pub raw: [u64; 3],
}

impl Record {
    /// FROM reads 0, by which software recognises a slot that was never written.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.raw[0] == 0
    }
}
