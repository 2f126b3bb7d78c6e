//! Steps of the export on the fast device. Nothing here knows scenarios.

use std::collections::BTreeMap;

use serde_json::Value;
use vlbr_arch::{BranchClass, CodeSize, Cpl, Cycles, FarKind, Msr, Transfer, XSTATE_LBR_SIZE};
use vlbr_cpu::ledger::MsrAccess;
use vlbr_cpu::processor::{Boundary, Core, LogicalProcessor, Options};
use vlbr_lbr::{Device, Lbr, Profile, Reset, Verdict};
use vlbr_pmu::{Increments, PmiCause, SourceSet};
use vlbr_vmx::PhysicalMemory;

use crate::counters::{self, World};
use crate::side::{Msrs, Side};
use crate::{hash, json, outcome};

struct Machine {
    core: Core,
    worlds: [World; 2],
    clock: u64,
    images: BTreeMap<String, [u8; XSTATE_LBR_SIZE]>,
    sides: [Side; 2],
}

/// Runs the steps of a case and compares outcomes, final registers and hash.
pub(crate) fn verify(machine: &Value, case: &Value) -> Result<(), String> {
    let mut it = Machine::new(machine);
    for cpu in 0..2 {
        for register in machine["initial"].as_array().expect("a list") {
            let undefined = register
                .get("known")
                .map_or(0, |known| !json::number(known));
            it.compare(cpu, &register["msr"], &register["value"], undefined)?;
        }
    }
    for (n, step) in case["steps"].as_array().expect("a list").iter().enumerate() {
        it.step(step)
            .map_err(|error| format!("step {n} {step}: {error}"))?;
    }
    for last in case["final"].as_array().expect("a list") {
        let cpu = json::small(&last["cpu"]) as usize;
        let masks = json::masks(last);
        for register in last["msrs"].as_array().expect("a list") {
            let undefined = masks.get(&json::number(&register[0])).copied();
            it.compare(cpu, &register[0], &register[1], undefined.unwrap_or(0))?;
        }
    }
    let (told, found) = (json::text(case, "hash"), hash::of(case));
    if told != found {
        return Err(format!("hash {found}, not {told}"));
    }
    Ok(())
}

impl Machine {
    fn new(machine: &Value) -> Self {
        let name = json::text(machine, "name");
        let profile = Profile::named(name).expect("a processor");
        // Quirks of both devices stand in one list.
        let quirks = |known: &dyn Fn(&str) -> bool| -> Value {
            let all = machine["quirks"].as_array().expect("a list");
            let mine = all.iter().filter(|quirk| quirk.as_str().is_some_and(known));
            mine.cloned().collect()
        };
        let mut of_lbr = machine["options"].clone();
        of_lbr["quirks"] = quirks(&|name| name.parse::<vlbr_lbr::Quirk>().is_ok());
        let lbr: vlbr_lbr::Options = serde_json::from_value(of_lbr).expect("options");
        let mut of_pmu = machine["pmu_options"].clone();
        of_pmu["quirks"] = quirks(&|name| name.parse::<vlbr_pmu::Quirk>().is_ok());
        let pmu: vlbr_pmu::Options = serde_json::from_value(of_pmu).expect("options");
        let options = Options {
            pmu: vlbr_pmu::Options {
                feeds: SourceSet::ALL,
                seed: lbr.seed,
                tsx: lbr.tsx,
                ..pmu
            },
            lbr,
            ..Options::default()
        };
        let of_pmu = vlbr_pmu::Profile::named(name).expect("a processor");
        let make = || LogicalProcessor::new(profile, of_pmu, options.clone());
        Self {
            core: Core::with(2, &options, make).expect("one part"),
            worlds: Default::default(),
            clock: 0,
            images: BTreeMap::new(),
            sides: [Side::new(name), Side::new(name)],
        }
    }

    fn thread(&mut self, cpu: usize) -> &mut LogicalProcessor {
        self.core.thread_mut(cpu).expect("one of two")
    }

    fn lbr(&mut self, cpu: usize) -> &mut Lbr {
        self.thread(cpu).lbr_mut()
    }

    fn rdmsr(&mut self, cpu: usize, msr: u64) -> Option<u64> {
        self.thread(cpu).rdmsr(Msr::new(msr as u32)).ok()
    }

    fn compare(
        &mut self,
        cpu: usize,
        msr: &Value,
        value: &Value,
        undefined: u64,
    ) -> Result<(), String> {
        let found = self.rdmsr(cpu, json::number(msr));
        let told = (!value.is_null()).then(|| json::number(value));
        let same = match (told, found) {
            (Some(told), Some(found)) => (told ^ found) & !undefined == 0,
            (None, None) => true,
            _ => undefined == !0,
        };
        if same {
            return Ok(());
        }
        Err(format!("cpu {cpu} {msr}: {found:x?}, not {told:x?}"))
    }

    fn wrmsr(&mut self, cpu: usize, msr: u64, value: u64) -> Value {
        let done = self.core.wrmsr(cpu, Msr::new(msr as u32), value);
        outcome::of(done.expect("one of two"))
    }

    fn image(&mut self, step: &Value) -> (&mut [u8; XSTATE_LBR_SIZE], usize) {
        let name = json::text(step, "image").to_owned();
        let at = step.get("offset").map_or(0, json::number);
        let image = self.images.entry(name).or_insert([0; XSTATE_LBR_SIZE]);
        (image, at as usize)
    }

    fn step(&mut self, step: &Value) -> Result<(), String> {
        let cpu = json::small(&step["cpu"]) as usize;
        let msr = || json::number(&step["msr"]);
        let found = match json::text(step, "do") {
            "wrmsr" => self.wrmsr(cpu, msr(), json::number(&step["value"])),
            "rdmsr" => self
                .rdmsr(cpu, msr())
                .map_or_else(outcome::gp, outcome::value),
            "some-differ" => {
                let differs = step["reads"]
                    .as_array()
                    .expect("a list")
                    .iter()
                    .any(|read| {
                        let found = self
                            .rdmsr(cpu, json::number(&read["msr"]))
                            .expect("readable");
                        (found ^ json::number(&read["value"])) & json::number(&read["mask"]) != 0
                    });
                return if differs {
                    Ok(())
                } else {
                    Err("equal".to_owned())
                };
            }
            zero @ ("all-zero" | "none-zero") => {
                for msr in step["msrs"].as_array().expect("a list") {
                    let found = self.rdmsr(cpu, json::number(msr));
                    if found.is_none_or(|found| (found == 0) != (zero == "all-zero")) {
                        return Err(format!("{msr}: {found:x?}"));
                    }
                }
                return Ok(());
            }
            "branch" => return self.branch(cpu, step),
            "unrecorded" => outcome::ok(),
            "wait" => {
                self.clock += json::small(&step["cycles"]);
                outcome::ok()
            }
            "pmi" => {
                let cause = match json::text(step, "source") {
                    "counter" => PmiCause::Counter,
                    "pebs" => PmiCause::Pebs,
                    "bts" => PmiCause::Bts,
                    other => panic!("{other}"),
                };
                self.thread(cpu).raise_pmi(cause);
                outcome::ok()
            }
            "deep-c-state" => {
                self.thread(cpu).deep_c_state();
                outcome::ok()
            }
            "reset" => {
                self.thread(cpu).reset(match json::text(step, "kind") {
                    "cold" => Reset::Cold,
                    "warm" => Reset::Warm,
                    "warm-in-c6" => Reset::WarmInC6,
                    "init" => Reset::Init,
                    other => panic!("{other}"),
                });
                outcome::ok()
            }
            "segment-test-fails" => {
                self.lbr(cpu).segment_test_failed();
                outcome::ok()
            }
            "log-event" => {
                self.lbr(cpu).log_event(json::small(&step["counter"]) as u8);
                outcome::ok()
            }
            "xsaves" => {
                let mut bytes = [0; XSTATE_LBR_SIZE];
                let done = self.lbr(cpu).xsaves(&mut bytes);
                if done.is_ok() {
                    *self.image(step).0 = bytes;
                }
                outcome::of(done)
            }
            "xrstors" => {
                let bytes = *self.image(step).0;
                outcome::of(self.lbr(cpu).xrstors(&bytes))
            }
            "xrstors-init" => outcome::of(self.lbr(cpu).xrstors_init()),
            "image-write" => {
                let value = json::number(&step["value"]);
                let (image, at) = self.image(step);
                image[at..at + 8].copy_from_slice(&value.to_le_bytes());
                outcome::ok()
            }
            "image-read" => {
                let (image, at) = self.image(step);
                outcome::value(little_endian(&image[at..at + 8]))
            }
            "cpuid" => {
                let thread = self.thread(cpu);
                let leaf = match json::number(&step["leaf"]) {
                    0xa => vlbr_pmu::Device::profile(thread.pmu()).cpuid_0a(),
                    0x1c => thread.lbr().cpuid_1c(),
                    0xd => thread.lbr().cpuid_d_15(),
                    other => panic!("leaf {other:#x}"),
                };
                outcome::value(u64::from(match json::text(step, "register") {
                    "eax" => leaf.eax,
                    "ebx" => leaf.ebx,
                    "ecx" => leaf.ecx,
                    "edx" => leaf.edx,
                    other => panic!("{other}"),
                }))
            }
            "event-count" => {
                assert_eq!(step["event"], "LBR_INSERTS");
                let found = self.lbr(cpu).lbr_inserts();
                let told = json::small(&step["value"]);
                return if found == Some(told) {
                    Ok(())
                } else {
                    Err(format!("{found:?}"))
                };
            }
            "memory-write" => {
                let bytes = json::bytes(json::text(step, "bytes"));
                let ram = &mut self.sides[cpu].ram;
                ram.write(json::number(&step["address"]), &bytes);
                outcome::ok()
            }
            "memory-fill" => {
                let length = json::small(&step["length"]) as usize;
                let bytes = vec![json::small(&step["byte"]) as u8; length];
                let ram = &mut self.sides[cpu].ram;
                ram.write(json::number(&step["address"]), &bytes);
                outcome::ok()
            }
            "memory-read" => {
                let mut bytes = vec![0; json::small(&step["size"]) as usize];
                let ram = &self.sides[cpu].ram;
                ram.read(json::number(&step["address"]), &mut bytes);
                outcome::value(little_endian(&bytes))
            }
            "run" => {
                let (run, cycles) = counters::run(step);
                self.clock += cycles;
                let boundary = Boundary {
                    run: &run,
                    transfer: None,
                    now: Cycles::new(self.clock),
                };
                let retired = self.core.retire(cpu, boundary, &mut self.worlds);
                retired.expect("one of two");
                outcome::ok()
            }
            "linear-write" | "linear-read" | "state" => self.worlds[cpu].step(step),
            "rdpmc" | "lvtpc-write" | "lvtpc-read" | "deliver" => {
                counters::step(self.thread(cpu), step)?
            }
            _ => {
                let msrs = &mut Msrs {
                    core: &mut self.core,
                    cpu,
                };
                let done = self.sides[cpu].step(step, msrs, self.clock);
                done.ok_or("no such step")?
            }
        };
        match step.get("expect") {
            Some(expected) => outcome::check(expected, &found),
            None => outcome::check(&serde_json::json!({"is": "ok"}), &found),
        }
    }

    fn branch(&mut self, cpu: usize, step: &Value) -> Result<(), String> {
        self.clock += json::small(&step["cycles"]);
        let now = Cycles::new(self.clock);
        let size = |n: usize| match json::small(&step["code_size"][n]) {
            16 => CodeSize::Bits16,
            32 => CodeSize::Bits32,
            64 => CodeSize::Bits64,
            other => panic!("{other}"),
        };
        let cpl = |n: usize| Cpl::from_number(json::small(&step["cpl"][n]) as u8).expect("a ring");
        let class = class(json::text(step, "class"));
        let transfer = Transfer {
            from: json::number(&step["from"]),
            to: json::number(&step["to"]),
            from_cs_base: json::number(&step["cs_base"][0]),
            to_cs_base: json::number(&step["cs_base"][1]),
            from_size: size(0),
            to_size: size(1),
            class,
            cpl_before: cpl(0),
            cpl_after: cpl(1),
            mispredicted: json::flag(&step["mispredicted"]),
            in_tx: json::flag(&step["in_tx"]),
            tx_abort: json::flag(&step["abort"]),
            fused: json::small(&step["fused"]) as u8,
        };
        let effect = match self.retire(cpu, &transfer, now) {
            Verdict::Push => "recorded",
            Verdict::Pop => "popped",
            Verdict::Ignore => "ignored",
        };
        match step.get("effect") {
            Some(told) if told != effect => Err(effect.to_owned()),
            _ => Ok(()),
        }
    }
}

impl Machine {
    fn retire(&mut self, cpu: usize, transfer: &Transfer, now: Cycles) -> Verdict {
        let world = &mut self.worlds[cpu];
        world.state.eventing_ip = transfer.from;
        world.state.rip = transfer.to;
        let thread = self.core.thread_mut(cpu).expect("one of two");
        let class = transfer.class;
        let mut run = Increments::branch(class, true, transfer.mispredicted, transfer.cpl_before);
        run.in_tx = transfer.in_tx;
        let boundary = Boundary {
            run: &run,
            transfer: Some(transfer),
            now,
        };
        let retired = match class {
            BranchClass::Far(FarKind::Smi) => return thread.smi(transfer, now),
            BranchClass::Far(FarKind::TsxAbort) => {
                return thread.abort_transaction(transfer, now, world);
            }
            BranchClass::Far(FarKind::Init) => {
                let verdict = thread.transfer(transfer, now, world);
                thread.reset(Reset::Init);
                return verdict;
            }
            BranchClass::Far(
                FarKind::Interrupt | FarKind::Exception | FarKind::DebugException | FarKind::Sipi,
            ) => return thread.transfer(transfer, now, world),
            BranchClass::Far(FarKind::Rsm) => thread.rsm(boundary, world),
            _ => {
                let retired = self.core.retire(cpu, boundary, &mut self.worlds);
                retired.expect("one of two")
            }
        };
        retired.verdict.expect("a transfer")
    }
}

fn little_endian(bytes: &[u8]) -> u64 {
    let fold = |value, byte: &u8| value << 8 | u64::from(*byte);
    bytes.iter().rev().fold(0, fold)
}

fn class(name: &str) -> BranchClass {
    use BranchClass::Far;
    match name {
        "jcc" => BranchClass::Jcc,
        "near-rel-jmp" => BranchClass::NearRelJmp,
        "near-ind-jmp" => BranchClass::NearIndJmp,
        "near-rel-call" => BranchClass::NearRelCall,
        "near-rel-call-zero" => BranchClass::NearRelCallZero,
        "near-ind-call" => BranchClass::NearIndCall,
        "near-ret" => BranchClass::NearRet,
        "far-jmp" => Far(FarKind::Jmp),
        "far-call" => Far(FarKind::Call),
        "far-ret" => Far(FarKind::Ret),
        "syscall" => Far(FarKind::Syscall),
        "sysret" => Far(FarKind::Sysret),
        "sysenter" => Far(FarKind::Sysenter),
        "sysexit" => Far(FarKind::Sysexit),
        "iret" => Far(FarKind::Iret),
        "software-interrupt" => Far(FarKind::SoftwareInterrupt),
        "interrupt" => Far(FarKind::Interrupt),
        "exception" => Far(FarKind::Exception),
        "debug-exception" => Far(FarKind::DebugException),
        "tsx-abort" => Far(FarKind::TsxAbort),
        "enclave" => Far(FarKind::Enclave),
        "init" => Far(FarKind::Init),
        "sipi" => Far(FarKind::Sipi),
        "smi" => Far(FarKind::Smi),
        "rsm" => Far(FarKind::Rsm),
        "task-switch" => Far(FarKind::TaskSwitch),
        other => panic!("no class {other}"),
    }
}
