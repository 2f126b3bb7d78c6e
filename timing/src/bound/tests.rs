//! Blocks whose cycles follow from one rule each.

use iced_x86::Code;
use proptest::prelude::*;

use super::*;
use crate::forms::FormId;
use crate::microarchitectures;

fn bound_in(core: &str, environment: Environment, bytes: &[u8], repetition: Repetition) -> Bound {
    let core = microarchitectures()
        .named(core)
        .expect("built in")
        .without_fit();
    BlockModel::new(&core, environment)
        .bound(bytes, repetition)
        .expect("a block")
}

fn skylake(bytes: &[u8]) -> Bound {
    bound_in("skylake", Environment::Unknown, bytes, Repetition::Unrolled)
}

fn haswell(bytes: &[u8]) -> Bound {
    bound_in("haswell", Environment::Unknown, bytes, Repetition::Unrolled)
}

#[test]
fn a_chain_takes_the_latency_of_its_operation() {
    for (bytes, cycles) in [
        (&[0x48, 0x01, 0xd8][..], 1.0),         // add rax, rbx
        (&[0x48, 0x0f, 0xaf, 0xc3], 3.0),       // imul rax, rbx
        (&[0x48, 0x8d, 0x04, 0x18], 1.0),       // lea rax, [rax+rbx]
        (&[0x48, 0x8d, 0x44, 0x18, 0x08], 3.0), // lea rax, [rax+rbx+8]
        (&[0xf2, 0x0f, 0x58, 0xc1], 4.0),       // addsd xmm0, xmm1
    ] {
        assert_eq!(skylake(bytes).of(Part::Dependence), cycles, "{bytes:x?}");
    }
    // addsd has a latency of 3 on Haswell.
    assert_eq!(haswell(&[0xf2, 0x0f, 0x58, 0xc1]).of(Part::Dependence), 3.0);
}

#[test]
fn a_load_takes_four_cycles_behind_a_load_and_five_with_an_index() {
    let chase = [0x48, 0x8b, 0x00]; // mov rax, [rax]
    assert_eq!(skylake(&chase).of(Part::Dependence), 4.0);
    let indexed = [0x48, 0x8b, 0x04, 0x18]; // mov rax, [rax+rbx]
    assert_eq!(skylake(&indexed).of(Part::Dependence), 5.0);
    let computed = [0x48, 0x8b, 0x00, 0x48, 0xff, 0xc0]; // and inc rax
    assert_eq!(skylake(&computed).of(Part::Dependence), 6.0);
}

#[test]
fn a_counter_in_memory_waits_for_its_own_store() {
    let add = [0x48, 0x83, 0x03, 0x01]; // add qword [rbx], 1
    assert_eq!(skylake(&add).of(Part::Dependence), 5.0);
    assert_eq!(haswell(&add).of(Part::Dependence), 6.0);
    // add qword [rbx], 1; add rbx, 8: another counter each time.
    let next = [0x48, 0x83, 0x03, 0x01, 0x48, 0x83, 0xc3, 0x08];
    assert_eq!(skylake(&next).of(Part::Dependence), 1.0);
}

#[test]
fn a_load_of_two_stores_waits_until_they_are_in_the_cache() {
    // mov [rsp], eax; mov [rsp+4], eax; mov rax, [rsp]
    let bytes = [
        0x89, 0x04, 0x24, 0x89, 0x44, 0x24, 0x04, 0x48, 0x8b, 0x04, 0x24,
    ];
    assert!(skylake(&bytes).of(Part::Dependence) > 12.0);
    // mov [rsp], rax; mov rax, [rsp]
    let whole = [0x48, 0x89, 0x04, 0x24, 0x48, 0x8b, 0x04, 0x24];
    assert_eq!(skylake(&whole).of(Part::Dependence), 4.0);
}

#[test]
fn registers_point_to_the_same_bytes_only_where_that_is_known() {
    // add qword [rbx], 1; mov rbx, rcx
    let bytes = [0x48, 0x83, 0x03, 0x01, 0x48, 0x89, 0xcb];
    assert_eq!(skylake(&bytes).of(Part::Dependence), 5.0);
    // mov rax, [rbx]; mov [rcx], rax
    let copy = [0x48, 0x8b, 0x03, 0x48, 0x89, 0x01];
    assert_eq!(skylake(&copy).of(Part::Dependence), 0.0);
    let bhive = bound_in("skylake", Environment::Bhive, &copy, Repetition::Unrolled);
    assert_eq!(bhive.of(Part::Dependence), 4.0);
}

#[test]
fn bytes_behind_fs_are_not_those_of_a_number() {
    // mov [rbx+0x28], rax; mov rcx, fs:[0x28]; mov rax, rcx: the page offsets are the same.
    let bytes = [
        0x48, 0x89, 0x43, 0x28, 0x64, 0x48, 0x8b, 0x0c, 0x25, 0x28, 0, 0, 0, 0x48, 0x89, 0xc8,
    ];
    let bound = bound_in("skylake", Environment::Bhive, &bytes, Repetition::Unrolled);
    assert_eq!(bound.of(Part::Dependence), 0.0);
}

#[test]
fn an_overlap_that_passes_does_not_bind() {
    // mov [rbx], al; add rbx, 3; mov rdi, [r12+8]: the first stores come by, the later ones do not.
    let bytes = [
        0x88, 0x03, 0x48, 0x83, 0xc3, 0x03, 0x49, 0x8b, 0x7c, 0x24, 0x08,
    ];
    let bound = bound_in("skylake", Environment::Bhive, &bytes, Repetition::Unrolled);
    assert_eq!(bound.of(Part::Dependence), 1.0);
}

#[test]
fn stores_to_new_pages_leave_the_store_buffer_late() {
    // push rax; sub rsp, 1016: a quarter of a page each time.
    let bytes = [0x50, 0x48, 0x81, 0xec, 0xf8, 0x03, 0, 0];
    let bound = bound_in("skylake", Environment::Bhive, &bytes, Repetition::Unrolled);
    assert_eq!(bound.of(Part::Stores), 1.0 + 9.0 / 4.0);
    assert_eq!(skylake(&bytes).of(Part::Stores), 1.0);
}

#[test]
fn the_stack_engine_hides_rsp_until_it_is_used() {
    // push rax; push rbx
    let pushes = skylake(&[0x50, 0x53]);
    assert_eq!(pushes.of(Part::Dependence), 0.0);
    assert_eq!(pushes.of(Part::Stores), 2.0);
    assert_eq!(pushes.of(Part::Issue), 0.5);
    // push rax; mov rbx, [rsp+8]: one operation to bring RSP up to date.
    let read = skylake(&[0x50, 0x48, 0x8b, 0x5c, 0x24, 0x08]);
    assert_eq!(read.of(Part::Issue), 0.75);
    assert_eq!(read.of(Part::Dependence), 1.0);
}

#[test]
fn idioms_and_eliminated_moves_take_a_slot_and_no_port() {
    for bytes in [
        &[0x31, 0xc0][..],   // xor eax, eax
        &[0x48, 0x89, 0xd8], // mov rax, rbx
        &[0x0f, 0x28, 0xc1], // movaps xmm0, xmm1
        &[0x90],             // nop
    ] {
        let bound = skylake(bytes);
        assert_eq!(bound.of(Part::Ports), 0.0, "{bytes:x?}");
        assert_eq!(bound.of(Part::Issue), 0.25, "{bytes:x?}");
        assert_eq!(bound.of(Part::Dependence), 0.0, "{bytes:x?}");
    }
    // pcmpeqd xmm0, xmm0 breaks the dependence but executes.
    let ones = skylake(&[0x66, 0x0f, 0x76, 0xc0]);
    assert_eq!(
        (ones.of(Part::Dependence), ones.of(Part::Ports)),
        (0.0, 0.5)
    );
}

#[test]
fn a_load_fuses_with_its_operation_unless_three_operands_meet_an_index() {
    // add rax, [rbx] and add rax, [rbx+rcx]
    assert_eq!(skylake(&[0x48, 0x03, 0x03]).of(Part::Issue), 0.25);
    assert_eq!(skylake(&[0x48, 0x03, 0x04, 0x0b]).of(Part::Issue), 0.25);
    // vaddps xmm0, xmm1, [rbx] and [rbx+rcx]
    assert_eq!(skylake(&[0xc5, 0xf0, 0x58, 0x03]).of(Part::Issue), 0.25);
    assert_eq!(
        skylake(&[0xc5, 0xf0, 0x58, 0x04, 0x0b]).of(Part::Issue),
        0.5
    );
}

#[test]
fn a_compare_and_its_branch_are_one() {
    // cmp rax, rbx; jne
    let bytes = [0x48, 0x39, 0xd8, 0x75, 0xfb];
    let bound = bound_in("skylake", Environment::Unknown, &bytes, Repetition::Loop);
    assert_eq!(bound.of(Part::Issue), 0.25);
    // inc rax; jb: the carry flag is not of INC.
    let apart = [0x48, 0xff, 0xc0, 0x72, 0xfb];
    let bound = bound_in("skylake", Environment::Unknown, &apart, Repetition::Loop);
    assert_eq!(bound.of(Part::Issue), 0.5);
}

#[test]
fn sixteen_bytes_and_five_instructions_are_predecoded_per_cycle() {
    // A NOP of eight bytes: 128 of them take 64 cycles to predecode.
    let nop = [0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0];
    assert_eq!(skylake(&nop).of(Part::Predecode), 0.5);
    // Two-byte instructions: eight in a window take two cycles.
    assert_eq!(skylake(&[0x31, 0xc0]).of(Part::Predecode), 0.25);
    // mov ax, 0x1234: four in a window, each with a length-changing prefix.
    let lcp = [0x66, 0xb8, 0x34, 0x12];
    assert_eq!(skylake(&lcp).of(Part::Predecode), 3.25);
}

#[test]
fn the_last_decoder_of_haswell_leaves_what_may_fuse() {
    // test rax, rax with a prefix of no effect: four bytes, four in a window.
    let test = [0x3e, 0x48, 0x85, 0xc0];
    assert_eq!(skylake(&test).of(Part::Decode), 0.25);
    assert!((haswell(&test).of(Part::Decode) - 1.0 / 3.0).abs() < 1e-6);
}

#[test]
fn some_single_operations_need_the_first_decoder() {
    // sete al; nop; nop; nop and sete al; sete bl
    let sete = [0x0f, 0x94, 0xc0];
    assert_eq!(
        skylake(&[&sete[..], &[0x90; 3]].concat()).of(Part::Decode),
        1.0
    );
    assert_eq!(
        skylake(&[sete, [0x0f, 0x94, 0xc3]].concat()).of(Part::Decode),
        2.0
    );
    // pop rbx; pop r12; pop rbp: POP R12 has a cycle of its own on Haswell.
    let pops = [0x5b, 0x41, 0x5c, 0x5d];
    assert_eq!(haswell(&pops).of(Part::Decode), 2.0);
    assert_eq!(skylake(&pops).of(Part::Decode), 0.75);
}

#[test]
fn a_high_byte_is_joined_in_a_cycle_of_its_own() {
    // movzx eax, cl; and ah, 0x7f; cmp eax, edx
    let bytes = [0x0f, 0xb6, 0xc1, 0x80, 0xe4, 0x7f, 0x39, 0xd0];
    assert_eq!(skylake(&bytes).of(Part::Issue), 2.0);
    // The same with the low byte.
    let low = [0x0f, 0xb6, 0xc1, 0x24, 0x7f, 0x39, 0xd0];
    assert_eq!(skylake(&low).of(Part::Issue), 0.75);
}

#[test]
fn a_locked_instruction_serializes() {
    // lock add [rbx], eax
    let locked = [0xf0, 0x01, 0x03];
    assert_eq!(skylake(&locked).binding(), (Part::Serial, 18.0));
    assert_eq!(haswell(&locked).binding(), (Part::Serial, 19.0));
}

#[test]
fn what_serializes_overlaps_with_nothing() {
    // imul rbx, rbx, 40 times, and CPUID: 103 cycles of its own, and the chain, though it begins anew.
    let chain = [0x48, 0x0f, 0xaf, 0xdb].repeat(40);
    let rest = skylake(&chain);
    assert_eq!(rest.cycles(), 120.0);
    let bytes = [&chain[..], &[0x0f, 0xa2]].concat();
    assert_eq!(skylake(&bytes).cycles(), 223.0);
    // A NOP of eight bytes, 40 times, is 20 cycles of predecoding (and some for CPUID); LFENCE holds up none of it.
    let nops = [0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0].repeat(40);
    let bytes = [&nops[..], &[0x0f, 0xa2]].concat();
    assert!(skylake(&bytes).of(Part::Serial) >= 123.0);
    let bytes = [&nops[..], &[0x0f, 0xae, 0xe8]].concat();
    assert!(skylake(&bytes).cycles() < 22.0);
    // LFENCE, 4 cycles; WRMSR, of which 100 are assumed; SFENCE orders stores only.
    for (fence, cycles) in [
        (&[0x0f, 0xae, 0xe8][..], 124.0),
        (&[0x0f, 0x30], 220.0),
        (&[0x0f, 0xae, 0xf8], 120.0),
    ] {
        let bytes = [&chain[..], fence].concat();
        assert_eq!(skylake(&bytes).cycles(), cycles, "{fence:x?}");
    }
}

#[test]
fn a_loop_comes_from_the_uop_cache() {
    let nop = [0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0];
    let bound = bound_in("skylake", Environment::Unknown, &nop, Repetition::Loop);
    assert_eq!(bound.binding(), (Part::Issue, 0.25));
    assert_eq!(bound.of(Part::Predecode), 0.0);
}

#[test]
fn bytes_that_are_no_block_are_refused() {
    let core = &microarchitectures().all()[0];
    let mut model = BlockModel::new(core, Environment::Unknown);
    let mut bound = |bytes: &[u8]| model.bound(bytes, Repetition::Unrolled);
    assert_eq!(bound(&[]), Err(LowerError::Empty));
    assert_eq!(bound(&[0x90, 0x06]), Err(LowerError::Undecodable(1)));
    assert_eq!(bound(&[0x90, 0x0f]), Err(LowerError::Undecodable(1)));
    assert_eq!(bound(&[0x90; 5000]), Err(LowerError::TooLong));
}

#[test]
fn a_move_to_itself_executes() {
    // mov eax, eax: uops.info gives a latency of 1 where a move between two registers has 0.
    let same = skylake(&[0x89, 0xc0]);
    assert_eq!(same.of(Part::Dependence), 1.0);
    assert_eq!(same.of(Part::Ports), 0.25);
}

#[test]
fn a_bit_count_waits_for_the_register_it_overwrites() {
    // popcnt, lzcnt, tzcnt eax, ecx. Intel's errata HSD146, SKL029; LZCNT and TZCNT are mended on Skylake, all
    // of them on Ice Lake.
    for (opcode, cores) in [
        (0xb8, &["ivy-bridge", "haswell", "skylake"][..]),
        (0xbd, &["haswell"]),
        (0xbc, &["haswell"]),
    ] {
        for core in ["ivy-bridge", "haswell", "skylake", "ice-lake"] {
            let bytes = [0xf3, 0x0f, opcode, 0xc1];
            let bound = bound_in(core, Environment::Unknown, &bytes, Repetition::Unrolled);
            let waits = cores.contains(&core);
            // LZCNT on Ivy Bridge is BSR.
            if core != "ivy-bridge" || opcode == 0xb8 {
                assert_eq!(bound.of(Part::Dependence), if waits { 3.0 } else { 0.0 });
            }
        }
    }
}

#[test]
fn a_condition_byte_on_haswell_takes_two_decoders() {
    // sete al; nop; nop; nop: the third NOP waits; of Skylake the first decoder alone.
    let bytes = [0x0f, 0x94, 0xc0, 0x90, 0x90, 0x90];
    assert_eq!(haswell(&bytes).of(Part::Decode), 2.0);
    assert_eq!(skylake(&bytes).of(Part::Decode), 1.0);
    // sete al; nop; add bl, dl: the third decoder takes what may fuse, as only the last one does not.
    let bytes = [0x0f, 0x94, 0xc0, 0x90, 0x00, 0xd3];
    assert_eq!(haswell(&bytes).of(Part::Decode), 1.0);
}

#[test]
fn comparisons_of_floats_need_the_first_decoder() {
    // ucomiss xmm0, xmm1 twice; with a load on Skylake.
    let register = [0x0f, 0x2e, 0xc1, 0x0f, 0x2e, 0xc1];
    assert_eq!(haswell(&register).of(Part::Decode), 2.0);
    assert_eq!(skylake(&register).of(Part::Decode), 0.5);
    for bytes in [&[0x0f, 0x2e, 0x03][..], &[0xc5, 0xf8, 0x2f, 0x03]] {
        assert_eq!(skylake(bytes).of(Part::Decode), 1.0, "{bytes:x?}");
    }
}

#[test]
fn a_fused_compare_and_branch_goes_where_branches_go() {
    // cmp eax, ebx; jne: seven of them not taken, six and one that is taken back.
    let pairs = [0x39, 0xd8, 0x75, 0x20].repeat(7);
    let of = |core, repetition| {
        let bound = bound_in(core, Environment::Unknown, &pairs, repetition);
        bound.of(Part::Ports)
    };
    // Ports 0 and 6; Ivy Bridge has port 5 alone.
    assert_eq!(of("skylake", Repetition::Loop), 3.5);
    assert_eq!(of("haswell", Repetition::Unrolled), 3.5);
    assert_eq!(of("ivy-bridge", Repetition::Loop), 7.0);
    // inc rax; jne back, and JNE alone: a taken branch has port 6.
    for bytes in [&[0x48, 0xff, 0xc0, 0x75, 0xfb][..], &[0x75, 0xfe]] {
        for (repetition, cycles) in [(Repetition::Loop, 1.0), (Repetition::Unrolled, 0.5)] {
            let bound = bound_in("skylake", Environment::Unknown, bytes, repetition);
            assert_eq!(bound.of(Part::Ports), cycles, "{bytes:x?}");
        }
    }
}

#[test]
fn a_masked_store_loads_nothing() {
    // vmovdqu32 [rdi]{k1}, xmm0
    let masked = [0x62, 0xf1, 0x7e, 0x09, 0x7f, 0x07];
    let bound = bound_in(
        "ice-lake",
        Environment::Unknown,
        &masked,
        Repetition::Unrolled,
    );
    assert_eq!(bound.of(Part::Dependence), 0.0);
    let plain = [0xc5, 0xfa, 0x7f, 0x07];
    let plain = bound_in(
        "ice-lake",
        Environment::Unknown,
        &plain,
        Repetition::Unrolled,
    );
    assert_eq!(bound.of(Part::Ports), plain.of(Part::Ports));
}

#[test]
fn addresses_go_round_at_the_end() {
    // mov [0x7ffffffffffffff8], rax; mov rax, [0x7ffffffffffffff8]
    let high = [0xf8, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f];
    let bytes = [&[0x48, 0xa3], &high[..], &[0x48, 0xa1], &high[..]].concat();
    assert!(skylake(&bytes).of(Part::Dependence) >= 4.0);
    // mov [-4], eax; mov rax, [-4]: in part before the end and in part behind it.
    let bytes = [
        0x89, 0x04, 0x25, 0xfc, 0xff, 0xff, 0xff, 0x48, 0x8b, 0x04, 0x25, 0xfc, 0xff, 0xff, 0xff,
    ];
    assert!(skylake(&bytes).of(Part::Dependence) > 12.0);
}

#[test]
fn operations_on_fixed_ports_stay_there() {
    // ptest xmm0, xmm1 (ports 0 and 5); pshufb xmm2, xmm3 (5).
    let bytes = [0x66, 0x0f, 0x38, 0x17, 0xc1, 0x66, 0x0f, 0x38, 0, 0xd3];
    assert_eq!(skylake(&bytes).of(Part::Ports), 2.0);
    // mul rbx: port 1, and 5 on Skylake, 6 on Haswell (uops.info); pshufb once.
    let bytes = [0x48, 0xf7, 0xe3, 0x66, 0x0f, 0x38, 0, 0xd3];
    assert_eq!(skylake(&bytes).of(Part::Ports), 2.0);
    assert_eq!(haswell(&bytes).of(Part::Ports), 1.0);
    // cvttss2si eax, xmm0 of Haswell: ports 0 and 1; mulss xmm1, xmm2 twice: 01.
    let bytes = [
        0xf3, 0x0f, 0x2c, 0xc0, 0xf3, 0x0f, 0x59, 0xca, 0xf3, 0x0f, 0x59, 0xca,
    ];
    assert_eq!(haswell(&bytes).of(Part::Ports), 2.0);
    // seta al is two on either of ports 0 and 6.
    assert_eq!(skylake(&[0x0f, 0x97, 0xc0]).of(Part::Ports), 1.0);
}

#[test]
fn the_high_half_of_a_product_comes_a_cycle_later() {
    // mul rbx: RAX is ready after 3 cycles; mov rax, rdx behind it: RDX after 4 (uops.info).
    assert_eq!(skylake(&[0x48, 0xf7, 0xe3]).of(Part::Dependence), 3.0);
    let high = [0x48, 0xf7, 0xe3, 0x48, 0x89, 0xd0];
    assert_eq!(skylake(&high).of(Part::Dependence), 4.0);
}

#[test]
fn an_lea_of_three_things_is_fast_on_ice_lake() {
    // lea rax, [rax+rbx+8] and [rax+rbx*4+8]
    for (bytes, cycles) in [
        ([0x48, 0x8d, 0x44, 0x18, 8], [3.0, 1.0, 1.0]),
        ([0x48, 0x8d, 0x44, 0x98, 8], [3.0, 2.0, 2.0]),
    ] {
        for (core, cycles) in ["skylake", "ice-lake", "golden-cove"].iter().zip(cycles) {
            let bound = bound_in(core, Environment::Unknown, &bytes, Repetition::Unrolled);
            assert_eq!(bound.of(Part::Dependence), cycles, "{core} {bytes:x?}");
        }
    }
}

#[test]
fn string_instructions_move_their_pointers_on_in_a_cycle() {
    // lodsb, stosb, movsb, cmpsb: five micro-operations of the last two take some cycles.
    for (byte, most) in [(0xac, 1.0), (0xaa, 1.0), (0xa4, 5.0), (0xa6, 5.0)] {
        let bound = skylake(&[byte]);
        assert_eq!(bound.of(Part::Dependence), 1.0, "{byte:x}");
        assert!(bound.cycles() <= most, "{byte:x} {bound:?}");
        // With REP there is microcode that begins.
        assert_eq!(skylake(&[0xf3, byte]).of(Part::Serial), 35.0);
    }
}

#[test]
fn a_branch_that_begins_a_cache_line_does_not_fuse() {
    // cmp eax, ebx; jne
    let bytes = [0x39, 0xd8, 0x75, 0xfc];
    let core = microarchitectures().named("skylake").expect("built in");
    for (address, repetition, issued) in [
        (0x1000, Repetition::Loop, 1.0),
        (0x103e, Repetition::Loop, 2.0),
        (0x101e, Repetition::Loop, 1.0),
        // Copies of unrolled code lie anywhere.
        (0x103e, Repetition::Unrolled, 1.0),
    ] {
        let mut model = BlockModel::new(core, Environment::Unknown);
        model.begin_at(address);
        let bound = model.bound(&bytes, repetition).expect("a block");
        assert_eq!(bound.of(Part::Issue) * 4.0, issued, "{address:x}");
    }
}

#[test]
fn whether_floats_have_their_own_divider_is_data() {
    // xor edx, edx; div ecx; divsd xmm0, xmm1
    let bytes = [0x31, 0xd2, 0xf7, 0xf1, 0xf2, 0x0f, 0x5e, 0xc1];
    let core = microarchitectures().named("haswell").expect("built in");
    let mut one = core.without_fit();
    one.parameters.float_divider = false;
    for (core, cycles) in [(&core.without_fit(), 9.0), (&one, 17.0)] {
        let mut model = BlockModel::new(core, Environment::Unknown);
        let bound = model.bound(&bytes, Repetition::Unrolled).expect("a block");
        assert_eq!(bound.of(Part::Divider), cycles);
    }
}

#[test]
fn the_queue_of_ivy_bridge_is_one() {
    for core in microarchitectures().all() {
        let queue = core.parameters.loop_queue;
        assert!(queue == 0 || queue == core.pipeline.idq, "{}", core.name());
    }
}

#[test]
fn latencies_that_stand_for_unknown_ones_are_told() {
    for core in microarchitectures().all() {
        let id = |code| FormId::new(code, false);
        assert!(!core.forms.has(id(Code::Wrmsr)), "{}", core.name());
        assert!(core.forms.has(id(Code::Cpuid)), "{}", core.name());
        assert!(core.forms.has(FormId::new(Code::Movsb_m8_m8, true)));
    }
}

proptest! {
    #[test]
    fn any_bytes_have_an_answer_that_does_not_depend_on_the_block_before(
        bytes in proptest::collection::vec(any::<u8>(), 1..200),
        before in proptest::collection::vec(any::<u8>(), 1..60),
    ) {
        for core in microarchitectures().all() {
            for environment in [Environment::Unknown, Environment::Bhive] {
                let fresh = BlockModel::new(core, environment).bound(&bytes, Repetition::Unrolled);
                let mut used = BlockModel::new(core, environment);
                let _ = used.bound(&before, Repetition::Unrolled);
                prop_assert_eq!(&used.bound(&bytes, Repetition::Unrolled), &fresh);
                if let Ok(bound) = fresh {
                    let cycles = bound.cycles();
                    prop_assert!(cycles.is_finite() && cycles > 0.0);
                    for part in Part::ALL {
                        prop_assert!(bound.of(part) <= cycles);
                    }
                }
            }
        }
    }
}
