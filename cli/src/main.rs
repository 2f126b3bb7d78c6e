//! The vlbr command.
#![forbid(unsafe_code)]

fn main() {}
