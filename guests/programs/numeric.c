/* Compute-bound loops for measurements: each prints its time by the monotonic clock and a check sum
 * that does not depend on the machine.
 *
 * `numeric [sse|avx|crypto|integer]...`; without arguments all of these
 * `numeric stream <FILE`: SHA-256 of a stream that is read 1 MiB at a time
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

/* SHA-256 (FIPS 180-4, 6.2) of one block of 64 bytes. */
static void sha256_block(u32 hash[8], const u8 *block)
{
    static const u32 k[64] = {
        0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
        0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
        0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
        0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
        0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
        0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
        0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
        0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
    };
#define RIGHT(x, n) ((x) >> (n) | (x) << (32 - (n)))
    u32 w[64], s[8];
    for (int i = 0; i < 16; i++, block += 4)
        w[i] = (u32)block[0] << 24 | block[1] << 16 | block[2] << 8 | block[3];
    for (int i = 16; i < 64; i++)
        w[i] = w[i - 16] + (RIGHT(w[i - 15], 7) ^ RIGHT(w[i - 15], 18) ^ w[i - 15] >> 3) + w[i - 7] +
               (RIGHT(w[i - 2], 17) ^ RIGHT(w[i - 2], 19) ^ w[i - 2] >> 10);
    memcpy(s, hash, sizeof s);
    for (int i = 0; i < 64; i++) {
        u32 first = s[7] + (RIGHT(s[4], 6) ^ RIGHT(s[4], 11) ^ RIGHT(s[4], 25)) +
                    ((s[4] & s[5]) ^ (~s[4] & s[6])) + k[i] + w[i];
        u32 second = (RIGHT(s[0], 2) ^ RIGHT(s[0], 13) ^ RIGHT(s[0], 22)) +
                     ((s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2]));
        s[7] = s[6], s[6] = s[5], s[5] = s[4], s[4] = s[3] + first;
        s[3] = s[2], s[2] = s[1], s[1] = s[0], s[0] = first + second;
    }
    for (int i = 0; i < 8; i++)
        hash[i] += s[i];
}

/* SHA-256 of standard input; false if it cannot be read. */
static int sha256_stream(u32 hash[8])
{
    enum { PIECE = 1 << 20 };
    static const u32 start[8] = { 0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                  0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19 };
    static u8 buffer[PIECE + 64];
    u64 bytes = 0;
    u32 held = 0;
    long n;
    memcpy(hash, start, sizeof start);
    while ((n = sys(SYS_read, 0, buffer + held, PIECE)) > 0) {
        bytes += n;
        u32 have = held + n, done = 0;
        for (; have - done >= 64; done += 64)
            sha256_block(hash, buffer + done);
        held = have - done;
        memcpy(buffer, buffer + done, held);
    }
    buffer[held++] = 0x80;
    u32 end = held <= 56 ? 64 : 128;
    memset(buffer + held, 0, end - held);
    for (int i = 0; i < 8; i++)
        buffer[end - 1 - i] = bytes * 8 >> (8 * i);
    for (u32 at = 0; at < end; at += 64)
        sha256_block(hash, buffer + at);
    return n == 0;
}

int main(int argc, char **argv)
{
    u32 from;
    if (argc > 1 && equal(argv[1], "stream")) {
        u32 h[8];
        from = now_ms();
        if (!sha256_stream(h))
            return 1;
        say("T3:sha256-stream:%u", (now_ms() - from + 5) / 10);
        for (int i = 0; i < 8; i++)
            result("sha256", "%x", h[i]);
        return 0;
    }
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
