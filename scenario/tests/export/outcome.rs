//! How a step ends.

use serde_json::Value;
use vlbr_vmx::{Abort, EntryError, Fail, GuestMsrStop, VmExit};

use crate::json;

pub(crate) fn ok() -> Value {
    serde_json::json!({"is": "ok"})
}

pub(crate) fn gp() -> Value {
    serde_json::json!({"is": "gp"})
}

pub(crate) fn value(value: u64) -> Value {
    serde_json::json!({"is": "value", "value": format!("{value:#x}")})
}

pub(crate) fn of<T, E>(done: Result<T, E>) -> Value {
    done.map_or_else(|_| gp(), |_| ok())
}

pub(crate) fn fail(fail: Fail) -> Value {
    match fail {
        Fail::NotInVmx => serde_json::json!({"is": "ud"}),
        Fail::Valid { error, .. } => serde_json::json!({"is": "vmfail", "number": error.number()}),
        _ => serde_json::json!({"is": "vmfail-invalid"}),
    }
}

pub(crate) fn exit(reason: u32, qualification: u64) -> Value {
    serde_json::json!({
        "is": "exit",
        "reason": format!("{reason:#x}"),
        "qualification": format!("{qualification:#x}"),
    })
}

pub(crate) fn of_exit(made: &VmExit) -> Value {
    exit(made.reason.value(), made.qualification)
}

pub(crate) fn abort<F>(abort: &Abort<F>) -> Value {
    let number = abort.indicator.map_or(0, |abort| abort.indicator());
    serde_json::json!({"is": "abort", "indicator": number})
}

pub(crate) fn entry<T, F>(done: Result<T, EntryError<F>>) -> Value {
    match done {
        Ok(_) => ok(),
        Err(EntryError::Instruction(error)) => fail(error),
        Err(EntryError::Failure(failure)) => exit(failure.reason.value(), failure.qualification),
        Err(EntryError::Abort { abort: made, .. }) => abort(&made),
        Err(_) => serde_json::json!({"is": "other"}),
    }
}

/// The outcome, or the exit that must be made first.
pub(crate) fn stop<F>(stop: GuestMsrStop<F>) -> Result<Value, VmExit> {
    match stop {
        GuestMsrStop::Exit(exit) => Err(exit),
        GuestMsrStop::State(error) => Ok(fail(error)),
        _ => Ok(gp()),
    }
}

/// Compares: of a fault only that it is one, of an exit what is told.
pub(crate) fn check(expected: &Value, found: &Value) -> Result<(), String> {
    let wrong = || Err(format!("expected {expected}, found {found}"));
    if expected["is"] != found["is"] {
        // A step that reads and says nothing of the value.
        let read = expected["is"] == "ok" && found["is"] == "value";
        return if read { Ok(()) } else { wrong() };
    }
    if expected["is"] == "value" {
        let mask = json::number(&expected["mask"]);
        let differs = expected.get("differs").is_some_and(json::flag);
        let equal = (json::number(&expected["value"]) ^ json::number(&found["value"])) & mask == 0;
        return if equal != differs { Ok(()) } else { wrong() };
    }
    let told = expected.as_object().expect("an outcome");
    let same = told
        .iter()
        .filter(|(key, _)| expected["is"] != "gp" || *key == "is")
        .all(|(key, value)| found.get(key) == Some(value));
    if same { Ok(()) } else { wrong() }
}
