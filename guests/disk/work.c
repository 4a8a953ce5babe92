/* Work for a fresh system: loops, floating point, malloc, threads. Prints three lines that are the
   same on every machine. */
#include <math.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { THREADS = 4, ROUNDS = 20000, BLOCKS = 2000 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static uint64_t total;

/* Each thread draws numbers and adds them under the lock. */
static void *draw(void *seed)
{
    uint32_t x = (uint32_t)(uintptr_t)seed;
    for (int i = 0; i < ROUNDS; i++) {
        x ^= x << 13;
        x ^= x >> 17;
        x ^= x << 5;
        pthread_mutex_lock(&lock);
        total += x;
        pthread_mutex_unlock(&lock);
    }
    return NULL;
}

/* The sieve of Eratosthenes. */
static int primes_below(int n)
{
    char *composite = calloc(n, 1);
    int count = 0;
    for (int i = 2; i < n; i++) {
        if (composite[i])
            continue;
        count++;
        for (long long j = (long long)i * i; j < n; j += i)
            composite[j] = 1;
    }
    free(composite);
    return count;
}

int main(void)
{
    /* The integral of 4/(1+x^2) from 0 to 1, and a sum of square roots. */
    double pi = 0, roots = 0;
    for (int i = 0; i < 1000000; i++) {
        double x = (i + 0.5) / 1000000;
        pi += 4 / (1 + x * x);
        roots += sqrt(i);
    }
    printf("R3:float:%.9f %.3f\n", pi / 1000000, roots);

    /* Blocks of many sizes, half of them given back in between. */
    unsigned char *blocks[BLOCKS];
    uint32_t sum = 0;
    for (int i = 0; i < BLOCKS; i++) {
        size_t size = 1 + (size_t)i * 37 % 5000;
        blocks[i] = malloc(size);
        memset(blocks[i], i, size);
        if (i % 2) {
            sum += blocks[i - 1][0] + blocks[i][size - 1];
            free(blocks[i - 1]);
        }
    }
    for (int i = 1; i < BLOCKS; i += 2)
        free(blocks[i]);
    printf("R3:heap:%u primes:%d\n", sum, primes_below(2000000));

    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++)
        pthread_create(&threads[i], NULL, draw, (void *)(uintptr_t)(i + 1));
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    printf("R3:threads:%llu\n", (unsigned long long)total);
    return 0;
}
