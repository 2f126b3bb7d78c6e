// Threads and signals: producers and consumers over a bounded queue with a mutex and two conditions,
// while a timer's signal handler interrupts whatever runs. Usage: threads [ITEMS]; prints one line.

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/time.h>

enum { PRODUCERS = 2, CONSUMERS = 3, CAPACITY = 64 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t not_full = PTHREAD_COND_INITIALIZER, not_empty = PTHREAD_COND_INITIALIZER;
static uint32_t queue[CAPACITY];
static unsigned head, used, producing = PRODUCERS;
static unsigned items = 20000;
static atomic_ullong total;
static volatile sig_atomic_t ticks;

static void tick(int signal) {
    (void)signal;
    ticks++;
}

// Steps of the Collatz walk: work whose branches do not repeat.
static uint32_t work(uint32_t value) {
    uint32_t steps = 0;
    for (uint64_t x = value % 1000 + 1; x != 1; steps++) x = x & 1 ? 3 * x + 1 : x / 2;
    return steps;
}

static void *produce(void *argument) {
    uint32_t state = (uint32_t)(uintptr_t)argument * 2654435761u + 1;
    for (unsigned i = 0; i < items; i++) {
        state = state * 1664525u + 1013904223u;
        pthread_mutex_lock(&lock);
        while (used == CAPACITY) pthread_cond_wait(&not_full, &lock);
        queue[(head + used++) % CAPACITY] = state >> 8;
        pthread_cond_signal(&not_empty);
        pthread_mutex_unlock(&lock);
    }
    pthread_mutex_lock(&lock);
    producing--;
    pthread_cond_broadcast(&not_empty);
    pthread_mutex_unlock(&lock);
    return NULL;
}

static void *consume(void *argument) {
    (void)argument;
    for (;;) {
        pthread_mutex_lock(&lock);
        while (used == 0 && producing > 0) pthread_cond_wait(&not_empty, &lock);
        if (used == 0) {
            pthread_mutex_unlock(&lock);
            return NULL;
        }
        uint32_t value = queue[head];
        head = (head + 1) % CAPACITY;
        used--;
        pthread_cond_signal(&not_full);
        pthread_mutex_unlock(&lock);
        atomic_fetch_add(&total, work(value));
    }
}

int main(int argc, char **argv) {
    if (argc > 1) items = (unsigned)atoi(argv[1]);
    struct sigaction action = {.sa_handler = tick, .sa_flags = SA_RESTART};
    sigaction(SIGALRM, &action, NULL);
    struct itimerval timer = {.it_interval = {0, 2000}, .it_value = {0, 2000}};
    setitimer(ITIMER_REAL, &timer, NULL);
    pthread_t threads[PRODUCERS + CONSUMERS];
    for (unsigned i = 0; i < PRODUCERS + CONSUMERS; i++)
        if (pthread_create(&threads[i], NULL, i < PRODUCERS ? produce : consume, (void *)(uintptr_t)i))
            return 1;
    for (unsigned i = 0; i < PRODUCERS + CONSUMERS; i++) pthread_join(threads[i], NULL);
    printf("threads %llu\n", (unsigned long long)total);
    return ticks < 0;
}
