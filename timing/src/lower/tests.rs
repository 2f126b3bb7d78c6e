use super::*;

pub(crate) fn skylake() -> &'static Microarchitecture {
    crate::microarchitectures()
        .named("skylake")
        .expect("built in")
}

pub(crate) fn decode(bytes: &[u8]) -> Instruction {
    Decoder::new(64, bytes, DecoderOptions::NONE).decode()
}
