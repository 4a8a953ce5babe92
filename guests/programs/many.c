/* More than there is: address spaces that compute at once, and pages that do not lie together.
 *
 * `many PROCESSES MEBIBYTES`
 */
#include "guest.h"

/* Each process computes while all others exist, waits until told, computes again, and tells. */
static void processes(u32 count)
{
    int go[2], told[2];
    u32 seeds = 0, good = 0, made = 0;
    sys(SYS_pipe, go);
    sys(SYS_pipe, told);
    const u32 n = 4u << 20;
    u32 expected = rounds(n, rounds(n, 12345));
    for (u32 i = 0; i < count; i++) {
        int child = fork_();
        if (child < 0)
            break;
        made++;
        if (child == 0) {
            u32 private = rounds(n, 12345);
            char byte;
            sys(SYS_close, go[1]);
            sys(SYS_read, go[0], &byte, 1); /* ends when the parent closes its end */
            private = rounds(n, private);
            sys(SYS_write, told[1], &private, 4);
            quit(0);
        }
    }
    sys(SYS_close, go[0]);
    /* Let them get there. */
    sleep_ms(50);
    sys(SYS_close, go[1]);
    for (u32 i = 0; i < made; i++) {
        u32 answer = 0;
        sys(SYS_read, told[0], &answer, 4);
        good += answer == expected;
        seeds += wait_for(-1) == 0;
    }
    result("processes", "%u good, %u ended, of %u", good, seeds, count);
}

/* Every other page of an area, then the content of all, several times over. */
static void checkerboard(u32 mebibytes)
{
    u32 bytes = mebibytes << 20, wrong = 0;
    u8 *area = map(0, bytes, RW, MAP_PRIVATE | MAP_NORESERVE);
    if ((u32)area > 0xfffff000) {
        result("checkerboard", "no memory");
        return;
    }
    for (u32 at = 0; at < bytes; at += 8192)
        *(u32 *)(area + at) = at ^ 0x5a5a5a5a;
    for (int pass = 0; pass < 3; pass++) {
        warm();
        for (u32 at = 0; at < bytes; at += 8192)
            wrong += *(u32 *)(area + at) != (at ^ 0x5a5a5a5au) + (u32)pass;
        for (u32 at = 0; at < bytes; at += 8192)
            ++*(u32 *)(area + at);
    }
    /* Rights in a checkerboard, too. */
    for (u32 at = 0; at < bytes / 16; at += 16384)
        sys(SYS_mprotect, area + at, 4096, PROT_READ);
    warm();
    for (u32 at = 0; at < bytes; at += 8192)
        wrong += *(u32 *)(area + at) != (at ^ 0x5a5a5a5au) + 3;
    result("checkerboard", "%u wrong of %u pages", wrong, bytes / 8192);
    sys(SYS_munmap, area, bytes);
}

int main(int argc, char **argv)
{
    drop_privileges();
    processes(argc > 1 ? number(argv[1]) : 40);
    checkerboard(argc > 2 ? number(argv[2]) : 128);
    return 0;
}
