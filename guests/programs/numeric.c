/* Compute-bound loops for measurements: each prints its time by the monotonic clock and a check sum
 * that does not depend on the machine.
 *
 * `numeric [sse|avx|crypto|integer]...`; without arguments all
 */
#include "guest.h"

typedef float v4 __attribute__((vector_size(16)));
typedef float v8 __attribute__((vector_size(32)));

static int wanted(int argc, char **argv, const char *name)
{
    for (int i = 1; i < argc; i++)
        if (equal(argv[i], name))
            return 1;
    return argc == 1;
}

static void timed(const char *name, u32 from, u32 check)
{
    say("T3:%s:%u", name, (now_ms() - from + 5) / 10);
    result(name, "%x", check);
}

static int has_avx(void)
{
    u32 eax = 1, ebx, ecx, edx, low, high;
    __asm__ volatile("cpuid" : "+a"(eax), "=b"(ebx), "=c"(ecx), "=d"(edx));
    if ((ecx & 0x18000000) != 0x18000000)
        return 0;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (low & 6) == 6;
}

static float a[4096] __attribute__((aligned(32))), b[4096] __attribute__((aligned(32)));

static void fill(void)
{
    u32 seed = 7;
    for (u32 i = 0; i < 4096; i++) {
        seed = rounds(1, seed);
        a[i] = (float)(seed & 0xffff) / 65536.0f;
        b[i] = 1.0f / (float)(1 + (i & 255));
    }
}

static u32 bits(float value)
{
    union { float f; u32 u; } both = { value };
    return both.u;
}

/* a = a * b + c, over and over, with a sum: loads, multiplications, additions and stores. */
__attribute__((target("sse2"), noinline)) static u32 sse(u32 passes)
{
    v4 sum = { 0 };
    for (u32 p = 0; p < passes; p++)
        for (u32 i = 0; i < 4096; i += 4) {
            v4 x = *(v4 *)(a + i) * *(v4 *)(b + i) + (v4){ 0.5f, 0.25f, 0.125f, 0.0625f };
            *(v4 *)(a + i) = x;
            sum = sum * (v4){ 0.5f, 0.5f, 0.5f, 0.5f } + x;
        }
    return bits(sum[0]) ^ bits(sum[1]) ^ bits(sum[2]) ^ bits(sum[3]);
}

__attribute__((target("avx"), noinline)) static u32 avx(u32 passes)
{
    v8 sum = { 0 };
    const v8 half = { 0.5f, 0.5f, 0.5f, 0.5f, 0.5f, 0.5f, 0.5f, 0.5f };
    for (u32 p = 0; p < passes; p++)
        for (u32 i = 0; i < 4096; i += 8) {
            v8 x = *(v8 *)(a + i) * *(v8 *)(b + i) + half;
            *(v8 *)(a + i) = x;
            sum = sum * half + x;
        }
    u32 all = 0;
    for (u32 i = 0; i < 8; i++)
        all ^= bits(sum[i]);
    return all;
}

/* ChaCha20's block function (RFC 8439, 2.3), as `openssl speed` would drive it. */
#define ROTATE(x, n) ((x) << (n) | (x) >> (32 - (n)))
#define QUARTER(a, b, c, d)                                                      \
    (a += b, d ^= a, d = ROTATE(d, 16), c += d, b ^= c, b = ROTATE(b, 12), a += b, \
     d ^= a, d = ROTATE(d, 8), c += d, b ^= c, b = ROTATE(b, 7))
static u32 chacha(u32 blocks)
{
    u32 state[16] = { 0x61707865, 0x3320646e, 0x79622d32, 0x6b206574, 1, 2, 3, 4, 5, 6, 7, 8, 0, 9, 10, 11 };
    u32 all = 0;
    for (u32 n = 0; n < blocks; n++) {
        u32 x[16];
        memcpy(x, state, sizeof x);
        for (int i = 0; i < 10; i++) {
            QUARTER(x[0], x[4], x[8], x[12]);
            QUARTER(x[1], x[5], x[9], x[13]);
            QUARTER(x[2], x[6], x[10], x[14]);
            QUARTER(x[3], x[7], x[11], x[15]);
            QUARTER(x[0], x[5], x[10], x[15]);
            QUARTER(x[1], x[6], x[11], x[12]);
            QUARTER(x[2], x[7], x[8], x[13]);
            QUARTER(x[3], x[4], x[9], x[14]);
        }
        for (int i = 0; i < 16; i++)
            all = (all << 1 | all >> 31) ^ (x[i] + state[i]);
        state[12]++;
    }
    return all;
}

/* Calls, branches and memory: sorts the same numbers again and again. */
static void sort(u32 *from, u32 *to)
{
    while (from < to) {
        u32 pivot = from[(to - from) / 2], *i = from, *j = to;
        while (i <= j) {
            while (*i < pivot)
                i++;
            while (*j > pivot)
                j--;
            if (i <= j) {
                u32 t = *i;
                *i++ = *j;
                *j-- = t;
            }
        }
        sort(from, j);
        from = i;
    }
}

static u32 integer(u32 passes)
{
    static u32 numbers[1 << 15];
    u32 seed = 3, all = 0;
    for (u32 p = 0; p < passes; p++) {
        for (u32 i = 0; i < 1 << 15; i++)
            numbers[i] = seed = rounds(1, seed);
        sort(numbers, numbers + (1 << 15) - 1);
        all ^= numbers[p * 97 % (1 << 15)];
    }
    return all;
}

int main(int argc, char **argv)
{
    u32 from;
    fill();
    if (wanted(argc, argv, "sse")) {
        from = now_ms();
        u32 check = sse(100000);
        timed("sse", from, check);
    }
    fill();
    if (wanted(argc, argv, "avx") && has_avx()) {
        from = now_ms();
        u32 check = avx(200000);
        timed("avx", from, check);
    }
    if (wanted(argc, argv, "crypto")) {
        from = now_ms();
        u32 check = chacha(2500000);
        timed("crypto", from, check);
    }
    if (wanted(argc, argv, "integer")) {
        from = now_ms();
        u32 check = integer(150);
        timed("integer", from, check);
    }
    return 0;
}
