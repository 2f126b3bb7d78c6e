//! What the assembler met, so that every guess and every hole is counted.

use std::ops::AddAssign;

/// Counts of one stream, or of several added up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AssembleStats {
    /// Raw blocks executed.
    pub blocks: u64,
    /// Instructions retired, a REP string instruction counted once.
    pub retired: u64,
    /// Repeats of a REP string instruction that are no instruction and no branch of their own.
    pub rep_repeats: u64,
    /// Blocks that were cut short without an event: the next block starts inside.
    pub cut_blocks: u64,
    /// Blocks that were started again before anything retired.
    pub restarted: u64,
    /// Entries to the unrecorded kernel by SYSCALL, SYSENTER or INT n.
    pub kernel_entries: u64,
    /// Interrupts and exceptions.
    pub events: u64,
    /// Of [`AssembleStats::events`], those whose return showed where they had struck.
    pub paired: u64,
    /// Events that were placed by the fallback rule: no return came while the step could still
    /// be changed.
    pub unpaired_events: u64,
    /// What the fallback rule took from the counts or added to them, as returns showed that came
    /// after the step was sealed: the truth less what the trace says.
    pub late: Late,
    /// IRETs and `rt_sigreturn`s that no open event explains. A kernel also starts tasks by IRET,
    /// and ends system calls and events of other processors by it.
    pub unpaired_returns: u64,
    /// Changes of code size without a far transfer.
    pub size_surprises: u64,
    /// Blocks whose bytes decode to the stated lengths in no mode; left out.
    pub undecodable: u64,
    /// Places where control went on in a way no rule explains, or the recorder lost data.
    pub gaps: u64,
}

impl AssembleStats {
    /// Sum of what cannot be right: guesses that were not confirmed, left-out blocks, gaps.
    #[must_use]
    pub fn problems(&self) -> u64 {
        self.unpaired_events + self.size_surprises + self.undecodable + self.gaps
    }
}

/// Differences of counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Late {
    /// Instructions.
    pub instructions: i64,
    /// Branches.
    pub branches: i64,
    /// Taken branches.
    pub taken: i64,
}

impl AddAssign for Late {
    fn add_assign(&mut self, other: Self) {
        self.instructions += other.instructions;
        self.branches += other.branches;
        self.taken += other.taken;
    }
}

impl AddAssign for AssembleStats {
    fn add_assign(&mut self, other: Self) {
        self.blocks += other.blocks;
        self.retired += other.retired;
        self.rep_repeats += other.rep_repeats;
        self.cut_blocks += other.cut_blocks;
        self.restarted += other.restarted;
        self.kernel_entries += other.kernel_entries;
        self.events += other.events;
        self.paired += other.paired;
        self.unpaired_events += other.unpaired_events;
        self.late += other.late;
        self.unpaired_returns += other.unpaired_returns;
        self.size_surprises += other.size_surprises;
        self.undecodable += other.undecodable;
        self.gaps += other.gaps;
    }
}
