// SPDX-License-Identifier: GPL-2.0-or-later
//
// A QEMU plugin that counts single instructions, to check the recorder against: it is loaded beside
// the recorder's, looks at each instruction as QEMU is about to run it, and shares no code with the
// recorder, which looks at blocks. Options: out=FILE, which receives the counts (see `file`).
//
// An instruction that is about to run has not retired yet: it can fault, be run again, or be a REP
// string instruction of which each iteration is announced. What runs next on the same vCPU tells, and
// where it does not, the memory accesses of a branch, the interrupted address on a guest's stack when its
// handler begins, or the later return from the handler.

#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

// The part of QEMU's plugin API that is used, versions 1 to 5.
struct qemu_info {
    const char *target;
    int version_min, version_cur;
    bool system;
};
enum { NO_REGISTERS = 0, READ_AND_WRITE = 3 };
typedef void instruction_callback(unsigned vcpu, void *data);
typedef void memory_callback(unsigned vcpu, uint32_t info, uint64_t address, void *data);
typedef void syscall_callback(uint64_t id, unsigned vcpu, int64_t number, uint64_t, uint64_t, uint64_t,
                              uint64_t, uint64_t, uint64_t, uint64_t, uint64_t);
void qemu_plugin_register_vcpu_tb_trans_cb(uint64_t id, void (*)(uint64_t id, void *tb));
void qemu_plugin_register_vcpu_insn_exec_cb(void *insn, instruction_callback *, int flags, void *data);
void qemu_plugin_register_vcpu_mem_cb(void *insn, memory_callback *, int flags, int rw, void *data);
void qemu_plugin_register_vcpu_syscall_cb(uint64_t id, syscall_callback *);
size_t qemu_plugin_tb_n_insns(const void *tb);
void *qemu_plugin_tb_get_insn(const void *tb, size_t index);
uint64_t qemu_plugin_insn_vaddr(const void *insn);
size_t qemu_plugin_insn_size(const void *insn);

#define EXPORT __attribute__((visibility("default")))
EXPORT int qemu_plugin_version = 1;

__attribute__((constructor)) static void choose_version(void) {
    // Version 2 took away what no code here uses; QEMU 9 no longer loads version 1.
    if (dlsym(RTLD_DEFAULT, "qemu_plugin_num_vcpus")) qemu_plugin_version = 2;
}

enum kind { OTHER, STRING, COND, REL_JMP, IND_JMP, REL_CALL, IND_CALL, RETURN, FAR, INTERRUPT_RETURN, KINDS, FAULT = KINDS };

struct instruction {
    uint64_t pc, end, target; // target: of a direct near branch
    uint8_t kind;
    uint8_t accesses;  // memory accesses of a near branch that did not fault
    bool may_be_last;  // of its block: an interrupt can follow
    bool word_target;  // the target counts modulo 64 KiB
    uint16_t behind;   // instructions behind it in its block
};

// What was left for the return from a handler to tell.
struct open {
    uint64_t pc, end, target, kind, behind, word;
};
enum { OPEN = 4096, THREADS = 256 };

// One thread of a program, or one vCPU of a machine. All fields are 64 bits; `compare.py` reads them.
struct counts {
    uint64_t used, tid, vcpu;
    uint64_t announced;   // instructions that were about to run
    uint64_t retired;
    uint64_t repeats;     // announced again: the next iteration of a REP string instruction
    uint64_t restarted;   // announced again: QEMU dropped the block and ran it anew
    uint64_t faulted;     // left for a handler before it retired
    uint64_t untaken;     // conditional branches
    uint64_t by_kind[KINDS]; // retired; COND: taken
    uint64_t unfinished;  // instructions behind the last one announced, in its block
    uint64_t last_kind, last_end;
    uint64_t opens, lost; // entries of `open`; those that found no room
    uint64_t told;        // handlers whose stack told what they interrupted
    uint64_t late_retired, late_faulted, late_taken, late_untaken; // told by the return
    struct open open[OPEN];
    // Not for the reader.
    uint64_t accesses, returned;
    const struct instruction *last;
};

struct file {
    uint64_t magic, record_size, records;
    struct counts counts[THREADS];
};
static const uint64_t MAGIC = 0x32746e756f632d69; // "i-count2"

static struct file *file;
static bool copies_bytes;
static size_t (*insn_bytes_copy)(const void *, void *, size_t);
static const uint8_t *(*insn_bytes)(const void *);
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static __thread struct counts *own __attribute__((tls_model("initial-exec")));

static void fail(const char *why) {
    write(2, why, strlen(why));
    _exit(125);
}

// The counts of this vCPU, which runs in this thread. A number of a vCPU can come again in another
// thread of a program, and several vCPUs of a machine can share one thread.
static struct counts *find(unsigned vcpu) {
    uint64_t tid = (uint64_t)gettid();
    pthread_mutex_lock(&lock);
    struct counts *found = NULL;
    for (uint64_t i = 0; i < file->records; i++)
        if (file->counts[i].tid == tid && file->counts[i].vcpu == vcpu) found = &file->counts[i];
    if (!found) {
        if (file->records == THREADS) fail("count plugin: too many threads\n");
        found = &file->counts[file->records++];
        found->used = 1;
        found->tid = tid;
        found->vcpu = vcpu;
    }
    pthread_mutex_unlock(&lock);
    return own = found;
}

static bool at_target(uint64_t target, bool word, uint64_t pc) {
    if (word) return ((target ^ pc) & 0xffff) == 0;
    return target == pc || (pc >> 32 == 0 && (uint32_t)target == pc);
}

// QEMU's debugger reads a guest's registers and memory.
struct byte_array {
    uint8_t *data;
    unsigned size;
};
static void *(*get_cpu)(int vcpu);
static int (*read_register)(void *cpu, struct byte_array *, int number);
static int (*read_or_write)(void *cpu, uint64_t address, void *, size_t, bool write);
static struct byte_array *(*new_array)(void);
static struct byte_array *(*resize_array)(struct byte_array *, unsigned);
enum { RSP = 7, SS = 19 }; // the debugger's numbers

static bool find_debugger(void) {
    struct { const char *name; void *variable; } functions[] = {
        {"qemu_get_cpu", &get_cpu},
        {"x86_cpu_gdb_read_register", &read_register},
        {"cpu_memory_rw_debug", &read_or_write},
        {"g_byte_array_new", &new_array},
        {"g_byte_array_set_size", &resize_array},
    };
    for (size_t i = 0; i < sizeof functions / sizeof *functions; i++) {
        void *found = dlsym(RTLD_DEFAULT, functions[i].name);
        if (!found) return false;
        memcpy(functions[i].variable, &found, sizeof found);
    }
    return true;
}

static uint64_t register_of(void *cpu, int number) {
    static __thread struct byte_array *array;
    if (!array) array = new_array();
    resize_array(array, 0);
    read_register(cpu, array, number);
    uint64_t value = 0;
    memcpy(&value, array->data, array->size < 8 ? array->size : 8);
    return value;
}

// A handler begins at `pc`. Addresses that its stack may give as the interrupted one, linear: of 64-bit
// code without and with an error code, of real mode. The result is how many.
static int interrupted(unsigned vcpu, uint64_t pc, uint64_t addresses[2]) {
    void *cpu = get_cpu ? get_cpu((int)vcpu) : NULL;
    if (!cpu) return 0;
    uint64_t stack = register_of(cpu, RSP);
    if (pc >> 32) {
        uint64_t words[3];
        if (read_or_write(cpu, stack, words, sizeof words, false)) return 0;
        int found = 0;
        for (int i = 0; i < 2; i++) // RIP and, behind it, CS
            if (words[i + 1] && words[i + 1] <= 0xffff) addresses[found++] = words[i];
        return found;
    }
    uint16_t words[2]; // IP and CS
    if (pc >= 0x110000) return 0;
    stack = (register_of(cpu, SS) << 4) + (stack & 0xffff);
    if (read_or_write(cpu, stack, words, sizeof words, false)) return 0;
    addresses[0] = ((uint64_t)words[1] << 4) + words[0];
    return 1;
}

enum place { UNTOLD, BEFORE, BEHIND, AT_TARGET };

// Where the handler at `pc` interrupted `last`.
static enum place struck(struct counts *counts, const struct instruction *last, uint64_t pc) {
    uint64_t addresses[2];
    int found = interrupted((unsigned)counts->vcpu, pc, addresses);
    enum place place = UNTOLD;
    for (int i = 0; i < found && place == UNTOLD; i++) {
        if (addresses[i] == last->end) place = BEHIND;
        else if (addresses[i] == last->pc) place = BEFORE;
        else if (last->kind == COND && at_target(last->target, last->word_target, addresses[i]))
            place = AT_TARGET;
    }
    // A branch back to itself was taken: interrupts wait for the end of a block.
    if (place == BEFORE && last->kind == COND) place = last->target == last->pc ? AT_TARGET : UNTOLD;
    counts->told += place != UNTOLD;
    return place;
}

// Control came back from a handler to `pc`: what waited for that is told, the newest first.
static void returned_to(struct counts *counts, uint64_t pc) {
    for (uint64_t i = counts->opens; i-- > 0;) {
        struct open *open = &counts->open[i];
        bool at_end = open->end == pc;
        if (open->kind == FAULT) {
            if (open->pc != pc) continue;
        } else if (open->kind == COND) {
            if (!at_end && !at_target(open->target, open->word, pc)) continue;
            counts->late_retired++;
            if (at_end) counts->late_untaken++;
            else counts->late_taken++;
        } else if (at_end) {
            counts->late_retired++;
        } else if (open->pc == pc) {
            counts->late_faulted++;
        } else {
            continue;
        }
        memmove(open, open + 1, (counts->opens - i - 1) * sizeof *open);
        counts->opens--;
        return;
    }
}

static void leave_open(struct counts *counts, const struct instruction *last, uint64_t kind) {
    if (counts->opens < OPEN) {
        uint64_t word = last->word_target;
        counts->open[counts->opens++] =
            (struct open){last->pc, last->end, last->target, kind, last->behind, word};
    } else {
        counts->lost++;
    }
}

// `last` was announced, and the next instruction announced is the one at `pc`.
static void judge(struct counts *counts, const struct instruction *last, uint64_t pc) {
    enum place place;
    switch (last->kind) {
    case OTHER:
    case STRING:
        if (pc == last->end) {
            counts->retired++;
        } else if (pc == last->pc) {
            if (last->kind == STRING) counts->repeats++;
            else counts->restarted++;
        } else if ((place = struck(counts, last, pc)) == BEHIND) {
            counts->retired++;
        } else if (place == BEFORE) {
            counts->faulted++;
        } else if (last->may_be_last) {
            leave_open(counts, last, last->kind);
        } else {
            counts->faulted++; // interrupts wait for the end of a block
            leave_open(counts, last, FAULT);
        }
        return;
    case COND:
        if (pc == last->end) {
            counts->untaken++;
        } else if (at_target(last->target, last->word_target, pc)) {
            counts->by_kind[COND]++;
        } else if ((place = struck(counts, last, pc)) == BEHIND) {
            counts->untaken++;
        } else if (place == AT_TARGET) {
            counts->by_kind[COND]++;
        } else {
            leave_open(counts, last, last->kind);
            return;
        }
        counts->retired++;
        return;
    default:
        if (counts->accesses < last->accesses) {
            if (pc == last->pc) {
                counts->restarted++;
            } else {
                counts->faulted++;
                if (struck(counts, last, pc) != BEFORE) leave_open(counts, last, FAULT);
            }
            return;
        }
        counts->by_kind[last->kind]++;
        counts->retired++;
        counts->returned |= last->kind == INTERRUPT_RETURN;
    }
}

static void announced(unsigned vcpu, void *data) {
    const struct instruction *now = data;
    struct counts *counts = own;
    if (!counts || counts->vcpu != vcpu) counts = find(vcpu);
    if (counts->last) judge(counts, counts->last, now->pc);
    if (counts->returned) {
        returned_to(counts, now->pc);
        counts->returned = 0;
    }
    counts->announced++;
    counts->accesses = 0;
    counts->last = now;
    counts->last_kind = now->kind;
    counts->last_end = now->end;
    counts->unfinished = now->behind;
}

static void accessed(unsigned vcpu, uint32_t info, uint64_t address, void *data) {
    (void)vcpu, (void)info, (void)address, (void)data;
    own->accesses++;
}

static void called(uint64_t id, unsigned vcpu, int64_t number, uint64_t a, uint64_t b, uint64_t c,
                   uint64_t d, uint64_t e, uint64_t f, uint64_t g, uint64_t h) {
    (void)id, (void)vcpu, (void)a, (void)b, (void)c, (void)d, (void)e, (void)f, (void)g, (void)h;
    enum { RT_SIGRETURN = 15 };
    if (number == RT_SIGRETURN && own) own->returned = 1;
}

static int64_t signed_value(const uint8_t *bytes, size_t size) {
    switch (size) {
    case 1: return (int8_t)bytes[0];
    case 2: return (int16_t)(bytes[0] | bytes[1] << 8);
    case 4: return (int32_t)(bytes[0] | bytes[1] << 8 | bytes[2] << 16 | (uint32_t)bytes[3] << 24);
    default: return 0;
    }
}

// Opcode map of SDM volume 2, appendix A. The instruction's length is known, so that the code size is
// not needed: behind 40h to 4Fh as INC and DEC of 32-bit code nothing follows.
static void decode(struct instruction *insn, const uint8_t *bytes, size_t size) {
    size_t at = 0;
    bool rep = false;
    while (at + 1 < size && memchr("\x66\x67\xf0\xf2\xf3\x2e\x36\x3e\x26\x64\x65", bytes[at], 11)) {
        rep |= bytes[at] == 0xf2 || bytes[at] == 0xf3;
        at++;
    }
    if (at + 1 < size && (bytes[at] & 0xf0) == 0x40) at++;
    uint8_t code = bytes[at++];
    bool two = code == 0x0f && at < size;
    if (two) code = bytes[at++];
    const uint8_t *rest = bytes + at;
    size_t left = size - at;
    uint8_t modrm = left ? rest[0] : 0;
    bool memory = modrm < 0xc0;

    insn->kind = OTHER;
    if (two) {
        switch (code) {
        case 0x80 ... 0x8f: insn->kind = COND; break;
        case 0x05: // SYSCALL
        case 0x07: // SYSRET
        case 0x34: // SYSENTER
        case 0x35: // SYSEXIT
            insn->kind = FAR;
            break;
        case 0xaa: insn->kind = INTERRUPT_RETURN; break; // RSM
        }
    } else {
        switch (code) {
        case 0x70 ... 0x7f: // Jcc
        case 0xe0 ... 0xe3: // LOOPcc, JCXZ
            insn->kind = COND;
            break;
        case 0xe8: insn->kind = REL_CALL; break;
        case 0xe9: case 0xeb: insn->kind = REL_JMP; break;
        case 0xc2: case 0xc3: insn->kind = RETURN; break;
        case 0xff:
            switch (modrm >> 3 & 7) {
            case 2: insn->kind = IND_CALL; break;
            case 4: insn->kind = IND_JMP; break;
            case 3: case 5: insn->kind = FAR; break;
            }
            break;
        case 0x9a: case 0xea: // CALL and JMP ptr16:16/32
        case 0xca: case 0xcb: // RET far
        case 0xcc: case 0xcd: case 0xce: case 0xf1: // INT3, INT n, INTO, INT1
            insn->kind = FAR;
            break;
        case 0xcf: insn->kind = INTERRUPT_RETURN; break;
        case 0x6c ... 0x6f: case 0xa4 ... 0xa7: case 0xaa ... 0xaf:
            if (rep) insn->kind = STRING;
            break;
        }
    }
    insn->end = insn->pc + size;
    insn->target = insn->end + (uint64_t)signed_value(rest, left);
    insn->word_target = left == 2;
    switch (insn->kind) {
    case REL_CALL: case RETURN: insn->accesses = 1; break;
    case IND_CALL: insn->accesses = memory ? 2 : 1; break;
    case IND_JMP: insn->accesses = memory ? 1 : 0; break;
    default: insn->accesses = 0;
    }
}

static void translated(uint64_t id, void *tb) {
    (void)id;
    size_t count = qemu_plugin_tb_n_insns(tb);
    // Kept for ever: QEMU does not say when it drops a block.
    struct instruction *insns = calloc(count, sizeof *insns);
    if (!insns) fail("count plugin: no memory\n");
    for (size_t i = 0; i < count; i++) {
        void *insn = qemu_plugin_tb_get_insn(tb, i);
        size_t size = qemu_plugin_insn_size(insn);
        uint8_t bytes[16] = {0};
        if (size > sizeof bytes) fail("count plugin: an instruction of more than 16 bytes\n");
        if (copies_bytes) insn_bytes_copy(insn, bytes, size);
        else memcpy(bytes, insn_bytes(insn), size);
        insns[i].pc = qemu_plugin_insn_vaddr(insn);
        decode(&insns[i], bytes, size);
        insns[i].behind = (uint16_t)(count - 1 - i);
        insns[i].may_be_last = i + 1 == count;
    }
    // An instruction that crosses a page end is shown here in part, but runs in the next block.
    if (count > 1 && (-insns[count - 1].end & 0xfff) < 8) insns[count - 2].may_be_last = true;
    for (size_t i = 0; i < count; i++) {
        void *insn = qemu_plugin_tb_get_insn(tb, i);
        qemu_plugin_register_vcpu_insn_exec_cb(insn, announced, NO_REGISTERS, &insns[i]);
        if (insns[i].accesses)
            qemu_plugin_register_vcpu_mem_cb(insn, accessed, NO_REGISTERS, READ_AND_WRITE, NULL);
    }
}

// A forked child counts for itself.
static void forked(void) {
    own = NULL;
    pthread_mutex_init(&lock, NULL);
}

EXPORT int qemu_plugin_install(uint64_t id, const struct qemu_info *info, int argc, char **argv) {
    const char *path = NULL;
    for (int i = 0; i < argc; i++)
        if (!strncmp(argv[i], "out=", 4)) path = argv[i] + 4;
    if (!path) return 1;
    int descriptor = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (descriptor < 0 || ftruncate(descriptor, sizeof *file) != 0) return 1;
    // Shared, so that the counts are in the file however the process ends.
    file = mmap(NULL, sizeof *file, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
    close(descriptor);
    if (file == MAP_FAILED) return 1;
    file->magic = MAGIC;
    file->record_size = sizeof file->counts[0];
    void *data = dlsym(RTLD_DEFAULT, "qemu_plugin_insn_data");
    if (!data) return 1;
    copies_bytes = info->version_cur >= 3;
    memcpy(&insn_bytes_copy, &data, sizeof data);
    memcpy(&insn_bytes, &data, sizeof data);
    pthread_atfork(NULL, NULL, forked);
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    if (info->system && !find_debugger()) fail("count plugin: QEMU does not export its debugger\n");
    if (!info->system) qemu_plugin_register_vcpu_syscall_cb(id, called);
    return 0;
}
