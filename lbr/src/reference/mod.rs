//! A second, slow, literal reading of the rules.
