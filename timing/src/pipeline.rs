//! Buffers and delays of a core.

use serde::{Deserialize, Serialize};

use crate::microarchitecture::MicroarchitectureError;

/// Buffers, caches and delays that the retirement scoreboard needs beside [`crate::Parameters`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Pipeline {
    /// Fused micro-operations between rename and retirement, at most 1,024.
    pub rob: u32,
    /// Micro-operations that wait for operands.
    pub scheduler: u32,
    /// Fused micro-operations in front of the renamer, at most 1,024.
    pub idq: u32,
    /// Stores between rename and the cache, at most 256.
    pub store_buffer: u32,
    /// Loads between rename and retirement, at most 256.
    pub load_buffer: u32,
    /// Fused micro-operations retired per cycle.
    pub retire: u32,
    /// Cycles from the execution of a mispredicted branch until the front end delivers again.
    pub mispredict: u32,
    /// Cycles that a taken branch costs whose target is only known when it is decoded.
    pub resteer: u32,
    /// Cycles in which nothing is delivered behind a taken branch.
    pub taken: u32,
    /// Cycles from the retirement of the last instruction until the front end delivers the first
    /// one of what an interrupt or fault leads to.
    pub event: u32,
    /// Cycles that forwarding takes longer into a vector register.
    pub forward_vector: u32,
    /// Cycles lost when the microcode sequencer takes over from the uop cache and hands back.
    pub ms_switch: u32,
    /// Sets of the uop cache by windows of 32 bytes; 0: there is none.
    pub dsb_sets: u32,
    /// Windows of a set.
    pub dsb_ways: u32,
    /// Cycles from the uop cache to the decoders.
    pub dsb_switch: u32,
    /// The uop cache does not hold branches that cross a 32-byte boundary or end at one (erratum
    /// SKX102 with the microcode of November 2019).
    pub jcc_erratum: bool,
}

/// Micro-operations that are renamed, retire or leave the store buffer in a cycle, at most.
pub(crate) const MOST_PLACES: u32 = 64;

/// Limits that keep buffers inside what is remembered.
pub(crate) fn check_pipeline(pipeline: &Pipeline) -> Result<(), MicroarchitectureError> {
    for (name, value, least, most) in [
        ("rob", pipeline.rob, 1, 1024),
        ("scheduler", pipeline.scheduler, 1, 1024),
        ("idq", pipeline.idq, 1, 1024),
        ("store_buffer", pipeline.store_buffer, 1, 256),
        ("load_buffer", pipeline.load_buffer, 1, 256),
        ("retire", pipeline.retire, 1, MOST_PLACES),
        ("mispredict", pipeline.mispredict, 0, 1000),
        ("resteer", pipeline.resteer, 0, 1000),
        ("taken", pipeline.taken, 0, 1000),
        ("event", pipeline.event, 0, 100_000),
        ("forward_vector", pipeline.forward_vector, 0, 1000),
        ("ms_switch", pipeline.ms_switch, 0, 1000),
        ("dsb_sets", pipeline.dsb_sets, 0, 4096),
        ("dsb_ways", pipeline.dsb_ways, 1, 64),
        ("dsb_switch", pipeline.dsb_switch, 0, 1000),
    ] {
        if !(least..=most).contains(&value) {
            return Err(MicroarchitectureError::Pipeline {
                name,
                value,
                least,
                most,
            });
        }
    }
    Ok(())
}
