//! Instructions for properties.

use proptest::prelude::*;

/// Instructions that stand alone, of many kinds; a third of them access parts of few words.
pub(super) fn any_instruction() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![2 => any_kind(), 1 => any_part()]
}

/// Instructions of many kinds.
fn any_kind() -> impl Strategy<Value = Vec<u8>> {
    prop::sample::select(vec![
        vec![0x90],                                  // nop
        vec![0x48, 0x01, 0xd8],                      // add rax, rbx
        vec![0x48, 0x0f, 0xaf, 0xc3],                // imul rax, rbx
        vec![0x48, 0xd3, 0xe0],                      // shl rax, cl
        vec![0x48, 0x8b, 0x07],                      // mov rax, [rdi]
        vec![0x48, 0x89, 0x07],                      // mov [rdi], rax
        vec![0x48, 0x03, 0x47, 0x08],                // add rax, [rdi+8]
        vec![0x48, 0x01, 0x47, 0x08],                // add [rdi+8], rax
        vec![0x48, 0x8b, 0x44, 0x0f, 0x10],          // mov rax, [rdi+rcx+16]
        vec![0x48, 0x8d, 0x44, 0x0f, 0x10],          // lea rax, [rdi+rcx+16]
        vec![0x50],                                  // push rax
        vec![0x58],                                  // pop rax
        vec![0x48, 0x83, 0xec, 0x08],                // sub rsp, 8
        vec![0x48, 0x89, 0xe5],                      // mov rbp, rsp
        vec![0x31, 0xc0],                            // xor eax, eax
        vec![0xb8, 1, 0, 0, 0],                      // mov eax, 1
        vec![0x88, 0xc4],                            // mov ah, al
        vec![0x0f, 0xb6, 0xcc],                      // movzx ecx, ah
        vec![0x48, 0xf7, 0xf1],                      // div rcx
        vec![0x99, 0xf7, 0xf9],                      // cdq; idiv ecx
        vec![0xf2, 0x0f, 0x58, 0xc1],                // addsd xmm0, xmm1
        vec![0xf2, 0x0f, 0x5e, 0xc1],                // divsd xmm0, xmm1
        vec![0xf2, 0x0f, 0x51, 0xc8],                // sqrtsd xmm1, xmm0
        vec![0x0f, 0x28, 0xca],                      // movaps xmm1, xmm2
        vec![0x66, 0x0f, 0xef, 0xc0],                // pxor xmm0, xmm0
        vec![0xc5, 0xf5, 0x58, 0xc2],                // vaddpd ymm0, ymm1, ymm2
        vec![0xc4, 0xe2, 0xf5, 0xb8, 0xc2],          // vfmadd231pd ymm0, ymm1, ymm2
        vec![0xf2, 0x48, 0x0f, 0x2a, 0xc0],          // cvtsi2sd xmm0, rax
        vec![0x48, 0x3b, 0x07],                      // cmp rax, [rdi]
        vec![0x48, 0x0f, 0x44, 0xc3],                // cmove rax, rbx
        vec![0x0f, 0x94, 0xc0],                      // sete al
        vec![0x48, 0x11, 0xd8],                      // adc rax, rbx
        vec![0xf3, 0x48, 0x0f, 0xb8, 0xc3],          // popcnt rax, rbx
        vec![0x48, 0x87, 0x07],                      // xchg [rdi], rax
        vec![0xf0, 0x48, 0x01, 0x07],                // lock add [rdi], rax
        vec![0x66, 0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0], // nopw
        vec![0x66, 0x81, 0xc3, 0x34, 0x12],          // add bx, 0x1234
        vec![0x0f, 0xa2],                            // cpuid
        vec![0x48, 0xa5],                            // movsq
        vec![0x48, 0xad],                            // lodsq
        vec![0x48, 0xab],                            // stosq
        vec![0xa6],                                  // cmpsb
        vec![0xae],                                  // scasb
        vec![0xf3, 0xa4],                            // rep movsb
        vec![0x48, 0x0f, 0xaf, 0xf8],                // imul rdi, rax
        vec![0x48, 0x0f, 0xc1, 0xd8],                // xadd rax, rbx
        vec![0x48, 0x0f, 0xc1, 0x07],                // xadd [rdi], rax
        vec![0x48, 0x93],                            // xchg rbx, rax
        vec![0x48, 0x0f, 0xb1, 0xd9],                // cmpxchg rcx, rbx
        vec![0x48, 0x0f, 0xb1, 0x1f],                // cmpxchg [rdi], rbx
        vec![0xf0, 0x48, 0x0f, 0xb1, 0x1f],          // lock cmpxchg [rdi], rbx
        vec![0xc9],                                  // leave
        vec![0xc8, 16, 0, 0],                        // enter 16, 0
        vec![0x5c],                                  // pop rsp
        vec![0x54],                                  // push rsp
        vec![0xff, 0x37],                            // push [rdi]
        vec![0x8f, 0x07],                            // pop [rdi]
        vec![0xff, 0x34, 0x24],                      // push [rsp]
        vec![0x8f, 0x44, 0x24, 0x08],                // pop [rsp+8]
        vec![0x9c],                                  // pushfq
        vec![0x9d],                                  // popfq
        vec![0x0f, 0x95, 0x07],                      // setne [rdi]
        vec![0x48, 0x0f, 0x42, 0x07],                // cmovb rax, [rdi]
        vec![0x8a, 0x07],                            // mov al, [rdi]
        vec![0x48, 0x8b, 0x3f],                      // mov rdi, [rdi]
        vec![0x48, 0xf7, 0x27],                      // mul [rdi]
        vec![0xff, 0x07],                            // inc dword [rdi]
        vec![0x48, 0xd3, 0x27],                      // shl [rdi], cl
        vec![0xf3, 0x0f, 0x6f, 0x07],                // movdqu xmm0, [rdi]
        vec![0xf3, 0x0f, 0x7f, 0x07],                // movdqu [rdi], xmm0
        vec![0xc5, 0xfe, 0x6f, 0x47, 0x10],          // vmovdqu ymm0, [rdi+16]
        vec![0xc5, 0xfe, 0x7f, 0x47, 0x10],          // vmovdqu [rdi+16], ymm0
        vec![0xf2, 0x0f, 0x58, 0x07],                // addsd xmm0, [rdi]
        vec![0x66, 0x48, 0x0f, 0x6e, 0xc0],          // movq xmm0, rax
        vec![0x66, 0x48, 0x0f, 0x7e, 0xc0],          // movq rax, xmm0
        vec![0x66, 0x0f, 0x3a, 0x22, 0x07, 1],       // pinsrd xmm0, [rdi], 1
        vec![0x66, 0x0f, 0x3a, 0x16, 0x07, 1],       // pextrd [rdi], xmm0, 1
        vec![0x0f, 0xae, 0xe8],                      // lfence
        vec![0xf0, 0x48, 0x0f, 0xc1, 0x07],          // lock xadd [rdi], rax
        vec![0xd7],                                  // xlatb
        vec![0x48, 0x0f, 0xc8],                      // bswap rax
        vec![0x48, 0xd1, 0xd0],                      // rcl rax, 1
        vec![0x88, 0x27],                            // mov [rdi], ah
    ])
}

/// Loads and stores of parts of few words, and of what lies across them. No store has an index: after some iterations of
/// arithmetic, which the bound does not follow, it can come to lie on a word and end what went through that. Of no word
/// do stores leave more than four parts, which is what the scoreboard remembers.
pub(super) fn any_part() -> impl Strategy<Value = Vec<u8>> {
    prop::sample::select(vec![
        vec![0x89, 0x07],                   // mov [rdi], eax
        vec![0x89, 0x47, 0x04],             // mov [rdi+4], eax
        vec![0x8b, 0x07],                   // mov eax, [rdi]
        vec![0x8b, 0x0f],                   // mov ecx, [rdi]
        vec![0x8b, 0x47, 0x04],             // mov eax, [rdi+4]
        vec![0x8b, 0x4f, 0x04],             // mov ecx, [rdi+4]
        vec![0x03, 0x47, 0x04],             // add eax, [rdi+4]
        vec![0x01, 0x47, 0x04],             // add [rdi+4], eax
        vec![0x66, 0x89, 0x47, 0x02],       // mov [rdi+2], ax
        vec![0x66, 0x8b, 0x47, 0x02],       // mov ax, [rdi+2]
        vec![0x0f, 0xb7, 0x47, 0x02],       // movzx eax, word [rdi+2]
        vec![0x0f, 0xb7, 0x4f, 0x04],       // movzx ecx, word [rdi+4]
        vec![0x88, 0x4f, 0x04],             // mov [rdi+4], cl
        vec![0x8a, 0x47, 0x04],             // mov al, [rdi+4]
        vec![0x0f, 0xb6, 0x47, 0x03],       // movzx eax, byte [rdi+3]
        vec![0x0f, 0xbe, 0x4f, 0x05],       // movsx ecx, byte [rdi+5]
        vec![0x48, 0x8b, 0x47, 0x04],       // mov rax, [rdi+4]
        vec![0x48, 0x89, 0x47, 0x04],       // mov [rdi+4], rax
        vec![0x48, 0x8b, 0x47, 0x08],       // mov rax, [rdi+8]
        vec![0x48, 0x89, 0x47, 0x08],       // mov [rdi+8], rax
        vec![0x8b, 0x47, 0x0c],             // mov eax, [rdi+12]
        vec![0x89, 0x47, 0x0c],             // mov [rdi+12], eax
        vec![0x8b, 0x4c, 0x87, 0x04],       // mov ecx, [rdi+rax*4+4]
        vec![0xf3, 0x0f, 0x10, 0x47, 0x04], // movss xmm0, [rdi+4]
        vec![0xf3, 0x0f, 0x11, 0x47, 0x04], // movss [rdi+4], xmm0
        vec![0x66, 0x0f, 0xd6, 0x07],       // movq [rdi], xmm0
        vec![0x0f, 0x12, 0x47, 0x08],       // movlps xmm0, [rdi+8]
        vec![0x0f, 0x17, 0x47, 0x08],       // movhps [rdi+8], xmm0
    ])
}
